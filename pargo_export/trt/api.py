"""What the package uses of TensorRT's modules, for the type checker alone.

The types are those of `tensorrt-stubs` (TensorRT 10.13), by which mypy checks every call; without the stubs they are
`Any`. Names that only a later TensorRT or only TensorRT for RTX has are not listed: the code asks the module for them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    import tensorrt

__all__ = ["TensorRTModule", "sizes_of"]


class TensorRTModule(Protocol):
    """`tensorrt`, or `tensorrt_rtx`, which has the same classes."""

    __name__: str
    __version__: str
    Builder: type[tensorrt.Builder]
    BuilderFlag: type[tensorrt.BuilderFlag]
    ExecutionContextAllocationStrategy: type[tensorrt.ExecutionContextAllocationStrategy]
    IConvolutionLayer: type[tensorrt.IConvolutionLayer]
    ILogger: type[tensorrt.ILogger]
    IMatrixMultiplyLayer: type[tensorrt.IMatrixMultiplyLayer]
    IPluginV2Layer: type[tensorrt.IPluginV2Layer]
    IPluginV3Layer: type[tensorrt.IPluginV3Layer]
    IProgressMonitor: type[tensorrt.IProgressMonitor]
    LayerInformationFormat: type[tensorrt.LayerInformationFormat]
    LayerType: type[tensorrt.LayerType]
    MemoryPoolType: type[tensorrt.MemoryPoolType]
    NetworkDefinitionCreationFlag: type[tensorrt.NetworkDefinitionCreationFlag]
    OnnxParser: type[tensorrt.OnnxParser]
    OnnxParserFlag: type[tensorrt.OnnxParserFlag]
    PluginCapabilityType: type[tensorrt.PluginCapabilityType]
    ProfilingVerbosity: type[tensorrt.ProfilingVerbosity]
    Runtime: type[tensorrt.Runtime]
    float32: tensorrt.DataType

    def get_plugin_registry(self) -> tensorrt.IPluginRegistry:
        """Return the registry of the process; the stubs do not say of what type it is."""


def sizes_of(dims: tensorrt.Dims) -> tuple[int, ...]:
    """Return the sizes of a shape, -1 where one is dynamic; the stubs do not say that `Dims` can be iterated over."""
    return tuple(cast("Iterable[int]", dims))
