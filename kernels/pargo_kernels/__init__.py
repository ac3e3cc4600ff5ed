"""Fused partial-global attention: the reference today, kernels beside it as they land.

This package knows nothing of `pargo_export`: tensors and integers in, tensors out.
"""

from pargo_kernels.reference import block_diagonal_attention, partial_global_attention

__all__ = ["block_diagonal_attention", "partial_global_attention"]
