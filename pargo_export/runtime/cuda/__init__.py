"""A bundle's model as CUDA graphs of library GEMMs and the fused kernels of `pargo_kernels`.

The graph of a variant is not executed: its weights are read, and the model that the manifest describes is computed by
a program written out for the GPU.

    support.py          what cannot run, and why
    options.py          what a variant computes, and which of several equal ways is taken
    weights.py          tensors by module path
    onnx_weights.py     read from the ONNX file of a variant
    linear.py           a product with a weight: float, FP8, INT8, behind one interface
    residual.py         a product into the residual stream, and the norm behind it
    patches.py          pixels to patches, and the patch convolution as a linear
    attention.py        the tower's attention
    tower.py            the vision tower, block by block
    projector.py        the query layers, or the grouped projector
    fused_projector.py  the query layers for few rows: nothing but products and attentions
    workspace.py        where programs of one cross-attention meet
    program.py          the whole: pixels in, tokens out, as plain PyTorch calls
    loading.py          from a variant to its program
    graphs.py           one CUDA graph a batch size, static buffers, streams
    host_memory.py      results in page-locked memory
    memory.py           what it needs, and what to do if it does not fit
    runner.py           host and device arrays in and out

But for `support.py`, which needs none of them, nothing here is imported before the backend is opened: PyTorch, Triton
and onnx_ir are needed by this backend alone.
"""
