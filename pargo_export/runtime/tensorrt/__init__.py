"""Engines of TensorRT and TensorRT for RTX, run through NVIDIA's own bindings: no PyTorch.

`runner.py` is what the backends open. What it is made of, from the bottom: the CUDA driver (`driver`, `gpu`,
`memory`), arrays of other libraries (`dlpack`), the engine (`loading`, `contexts`, `rtx_cache`), and a stream with all
that one batch needs (`buckets`, `slot`).
"""
