"""The language model as an ONNX graph: exported with PyTorch, run without it.

To run one takes NumPy, ONNX Runtime, safetensors and tokenizers; PyTorch and transformers are imported by
`export_language_model` alone, when it is called.
"""

from __future__ import annotations

from pargo_export.llm.onnx.export import PRECISIONS, ExportPrecision, export_language_model
from pargo_export.llm.onnx.model import OnnxLanguageModel, open_onnx_language_model
from pargo_export.llm.onnx.record import ExportedLanguageModel, is_exported_language_model, read_record

__all__ = [
    "PRECISIONS",
    "ExportPrecision",
    "ExportedLanguageModel",
    "OnnxLanguageModel",
    "export_language_model",
    "is_exported_language_model",
    "open_onnx_language_model",
    "read_record",
]
