"""An EPContext model: an engine as a node of an ONNX model, for ONNX Runtime's TensorRT execution providers.

Attributes by the operator's schema (onnxruntime.ai, "EP Context Design") and by what the two providers write and read
(microsoft/onnxruntime, core/providers/{tensorrt,nv_tensorrt_rtx}/onnx_ctx_model_helper.cc). The path of an engine
beside the model must be relative and may not contain `..` anywhere: the providers refuse it otherwise.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pargo_export.bundle import Engine, Flavor, Variant, atomic_write
from pargo_export.bundle.paths import check_relative
from pargo_export.engine.handover.directory import Handover, finish, output_directory
from pargo_export.engine.handover.source import find_source, needed_gpu
from pargo_export.errors import EngineError
from pargo_export.optional import require

__all__ = ["PROVIDERS", "ep_context_model", "hand_over_ep_context"]

PROVIDERS: dict[Flavor, str] = {
    "tensorrt": "TensorrtExecutionProvider",
    "rtx": "NvTensorRTRTXExecutionProvider",
}
_MAX_EMBEDDED_BYTES = 2_000_000_000  # an ONNX file holds 2 GiB
_IR_VERSION = 10  # known to ONNX Runtime since 1.18

_README = """# {name}: an engine for ONNX Runtime

    import onnxruntime

    session = onnxruntime.InferenceSession("{model}", providers=["{provider}"])
    tokens = session.run(None, {{{feed}}})

The node is the engine{place}. It needs ONNX Runtime with {provider}, built for {title} {version},
and {gpu}. An engine is code: take the file from who built it only.
"""


def hand_over_ep_context(
    bundle: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    variant: str | None = None,
    engine: str | None = None,
    embed: bool = False,
    cache_path: str | None = None,
    force: bool = False,
) -> Handover:
    """Write an ONNX model with one `com.microsoft::EPContext` node around an engine.

    Args:
        bundle: The bundle.
        directory: The directory to make.
        variant: Variant whose only engine is taken.
        engine: The engine; may be left out if there is only one.
        embed: Put the engine into the model instead of beside it.
        cache_path: Where the engine lies beside the model, relative to it; by default `<engine>.engine`.
        force: Replace a directory that a hand-over wrote before.

    Raises:
        BundleError: `cache_path` leads out of the directory, or a file is not what the manifest says.
        EngineError: There is no such engine, it is too large to be embedded, or the directory cannot be written.
        MissingDependencyError: onnx is not installed.
    """
    source = find_source(bundle, variant=variant, engine=engine, wants_engine=True)
    record = source.require_engine()
    cache = _check_cache(cache_path or f"{record.name}.engine")
    if embed and record.size_bytes > _MAX_EMBEDDED_BYTES:
        raise EngineError(
            f"engine {record.name!r} has {record.size_bytes} bytes, an ONNX file holds 2 GiB; leave it beside the model"
        )
    payload = source.bundle.check(record.file).read_bytes() if embed else cache.encode()
    model = ep_context_model(record, source.variant, payload, embedded=embed)
    path, model_name = Path(directory), f"{record.name}_ctx.onnx"
    with output_directory(path, source, force=force) as temporary:
        atomic_write(temporary / model_name, model.SerializeToString())
        if not embed:
            source.copy_engine(temporary / cache)
        return finish(
            temporary,
            path,
            "ep-context",
            source,
            readme=_readme(record, source.variant, model_name, None if embed else cache),
            notes=_notes(record),
        )


def ep_context_model(engine: Engine, variant: Variant, payload: bytes, *, embedded: bool) -> Any:
    """Return the ONNX model, an `onnx.ModelProto`.

    Args:
        engine: The engine.
        variant: Says inputs and outputs.
        payload: The serialized engine, or the path where it lies.
        embedded: Which of the two.

    Raises:
        MissingDependencyError: onnx is not installed.
    """
    onnx = require("onnx", extra="quantize", purpose="write an EPContext model")
    helper = onnx.helper

    def describe(specs: Any) -> list[Any]:
        return [
            helper.make_tensor_value_info(
                spec.name, getattr(onnx.TensorProto, _ONNX_TYPES[spec.dtype]), list(spec.shape)
            )
            for spec in specs
        ]

    node = helper.make_node(
        "EPContext",
        [spec.name for spec in variant.signature.inputs],
        [spec.name for spec in variant.signature.outputs],
        name=engine.name,
        domain="com.microsoft",
        main_context=1,
        embed_mode=int(embedded),
        ep_cache_context=payload,
        ep_sdk_version=engine.tensorrt_version,
        hardware_architecture=",".join(item.replace(".", "") for item in engine.compute_capabilities),
        onnx_model_filename=Path(variant.graph).name,
        partition_name=engine.name,
        source=PROVIDERS[engine.flavor],
    )
    graph = helper.make_graph(
        [node], engine.name, describe(variant.signature.inputs), describe(variant.signature.outputs)
    )
    opsets = [helper.make_opsetid("", variant.opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(
        graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="pargo-export"
    )


_ONNX_TYPES = {"float32": "FLOAT", "float16": "FLOAT16", "bfloat16": "BFLOAT16", "uint8": "UINT8"}


def _check_cache(cache: str) -> str:
    check_relative(cache)
    if ".." in cache:
        raise EngineError(
            f"path {cache!r} has '..' in a name, which ONNX Runtime refuses anywhere; name it differently"
        )
    return cache


def _notes(engine: Engine) -> tuple[str, ...]:
    if not engine.plugins:
        return ()
    names = ", ".join(item.package or str(item.file) for item in engine.plugins)
    return (f"the engine needs plugins ({names}), which must be loaded before the session is made",)


def _readme(engine: Engine, variant: Variant, model: str, cache: str | None) -> str:
    titles: dict[Flavor, str] = {"tensorrt": "TensorRT", "rtx": "TensorRT for RTX"}
    return _README.format(
        name=engine.name,
        model=model,
        provider=PROVIDERS[engine.flavor],
        feed=", ".join(f'"{spec.name}": ...' for spec in variant.signature.inputs),
        place=" itself" if cache is None else f", read from `{cache}` beside the model",
        title=titles[engine.flavor],
        version=engine.tensorrt_version,
        gpu=needed_gpu(engine),
    )
