"""When and for which GPU a plugin's kernel is compiled; PyTorch and Triton are imported only then."""

from __future__ import annotations

from typing import Literal

from pargo_kernels import cubin_launcher
from pargo_kernels.trt_launch import AttentionLaunch, AttentionNode, AttentionShape

__all__ = ["NodeCompiler"]


class NodeCompiler:
    """Compiles a node's kernel while an engine is built.

    Args:
        compute_capability: For which GPU, 90 for 9.0; `None` for the current one.
        image: Machine code for that architecture, or PTX.
    """

    def __init__(self, compute_capability: int | None, image: Literal["cubin", "ptx"] = "cubin") -> None:
        self._compute_capability = compute_capability
        self._image = image

    def check(self) -> None:
        """Make sure that this process can compile.

        Raises:
            ImportError: PyTorch or Triton is missing.
            RuntimeError: Triton interprets kernels in this process.
            CudaDriverError: For the current GPU, but there is none.
        """
        from pargo_kernels.triton_plugin import require_compiler

        require_compiler()
        self._target()

    def __call__(self, node: AttentionNode, shape: AttentionShape) -> AttentionLaunch:
        """Compile, or return what was compiled before."""
        from pargo_kernels.triton_plugin import compile_attention

        return compile_attention(node, shape, compute_capability=self._target(), image=self._image)

    def _target(self) -> int:
        if self._compute_capability is not None:
            return self._compute_capability
        try:
            return cubin_launcher.current_compute_capability()
        except cubin_launcher.CudaDriverError as error:
            raise cubin_launcher.CudaDriverError(
                f"{error}. To build for a GPU that is not here, pass its compute_capability when you register"
            ) from error
