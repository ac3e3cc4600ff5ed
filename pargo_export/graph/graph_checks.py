"""What a graph file must be to be the variant that the manifest describes.

Every check returns what it found, in a few words, or raises `CheckFailure`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, ValueInfoProto

from pargo_export.assets import PHOTOGRAPH
from pargo_export.bundle import Bundle, Variant
from pargo_export.graph.check import Check, CheckFailure, first_line, perform, summarize_evidence
from pargo_export.graph.emulate_half import emulate_half
from pargo_export.preprocessing import normalize, preprocess_uint8
from pargo_export.signature import TensorSpec

__all__ = ["check_graph", "expendable_graph"]

_ERRORS_ONLY = 3
_SEED = 20240823


def check_graph(bundle: Bundle, variant: Variant) -> list[Check]:
    """Check a variant against the manifest, without a checkpoint."""
    name, path = variant.name, bundle.file(variant.graph)
    checks = [perform(f"{name}: recorded parity", lambda: _check_evidence(variant))]
    loaded: list[ModelProto] = []

    def load() -> str:
        loaded.append(onnx.load(path, load_external_data=False))
        return f"{len(loaded[0].graph.node)} nodes"

    checks.append(perform(f"{name}: graph", load))
    if not loaded:
        return checks
    model = loaded[0]
    return checks + [
        perform(f"{name}: {what}", function)
        for what, function in (
            ("ONNX checker", lambda: _check_onnx(path)),
            ("external data", lambda: _check_external_data(model, bundle, variant)),
            ("signature", lambda: _check_signature(model, variant)),
            ("metadata", lambda: _check_metadata(model, bundle, variant)),
            ("run", lambda: _check_run(bundle, variant)),
        )
    ]


@contextmanager
def expendable_graph(bundle: Bundle, variant: Variant) -> Iterator[Path]:
    """Give the graph of a variant as a file that may be emulated in place.

    Only bfloat16 graphs are emulated, so only they are copied, with their weights: onnx and ONNX Runtime
    refuse weights behind links.
    """
    graph = bundle.file(variant.graph)
    if variant.float_precision != "bfloat16":
        yield graph
        return
    with tempfile.TemporaryDirectory(prefix="pargo-export-") as folder:
        copy = Path(folder) / graph.name
        for relative in bundle.manifest.files_of(variant.graph):
            path = bundle.file(relative)
            if path.is_file():
                shutil.copyfile(path, copy.with_name(path.name))
        yield copy


def _check_evidence(variant: Variant) -> str:
    if variant.evidence is None:
        raise CheckFailure("the manifest has no parity evidence; export the variant again")
    found = summarize_evidence(variant.evidence)
    if not variant.evidence.passed:
        raise CheckFailure(f"the manifest says that parity failed: {found}")
    return found


def _check_onnx(path: Path) -> str:
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CheckFailure(f"the ONNX checker refuses the graph: {first_line(error)}") from error
    return f"onnx {onnx.__version__}, strict shape inference"


def _check_external_data(model: ModelProto, bundle: Bundle, variant: Variant) -> str:
    """See that every weight kept outside the graph lies in a listed file, within its length."""
    num_outside = 0
    for tensor in model.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        num_outside += 1
        where = {entry.key: entry.value for entry in tensor.external_data}
        relative = (Path(variant.graph).parent / where["location"]).as_posix()
        if relative not in bundle.manifest.files:
            raise CheckFailure(f"{tensor.name} is said to be in {relative}, which the manifest does not list")
        path = bundle.file(relative)
        if not path.is_file():
            raise CheckFailure(f"{relative}, which holds {tensor.name}, is missing")
        if int(where.get("offset", 0)) + int(where.get("length", 0)) > path.stat().st_size:
            raise CheckFailure(f"{tensor.name} ends after the end of {relative}")
    return f"{num_outside} weights beside the graph" if num_outside else "all weights are in the graph"


def _check_signature(model: ModelProto, variant: Variant) -> str:
    """Compare names, dtypes and axes of inputs and outputs with the manifest."""
    signature = variant.signature
    for what, values, specs in (
        ("inputs", model.graph.input, signature.inputs),
        ("outputs", model.graph.output, signature.outputs),
    ):
        found = ", ".join(map(_describe_value, values))
        expected = ", ".join(map(_describe_spec, specs))
        if found != expected:
            raise CheckFailure(f"the graph has the {what} {found}; the manifest says {expected}")
    return " -> ".join(map(_describe_spec, (*signature.inputs, *signature.outputs)))


def _describe_value(value: ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    axes = [axis.dim_param or str(axis.dim_value) for axis in tensor.shape.dim]
    return f"{value.name} {dtype}[{', '.join(axes)}]"


def _describe_spec(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.dtype}[{', '.join(map(str, spec.shape))}]"


def _check_metadata(model: ModelProto, bundle: Bundle, variant: Variant) -> str:
    """Compare opset, configuration, precision, attention form, component, target and rewrites."""
    found: dict[str, object] = {prop.key: prop.value for prop in model.metadata_props}
    found["pargo.config"] = json.loads(str(found.get("pargo.config", "null")))
    found["opset"] = next(item.version for item in model.opset_import if item.domain in {"", "ai.onnx"})
    expected = {
        "opset": variant.opset,
        "pargo.attention": variant.attention,
        "pargo.component": variant.component,
        "pargo.config": bundle.manifest.model.model_dump(mode="json"),
        "pargo.precision": variant.precision,
        "pargo.rewrites": ",".join(variant.rewrites),
        "pargo.target": variant.target,
    }
    differing = [name for name, value in expected.items() if found.get(name) != value]
    if differing:
        first = differing[0]
        raise CheckFailure(
            f"graph and manifest differ in {', '.join(differing)}: {first} is {found.get(first)!r} in the graph, "
            f"{expected[first]!r} in the manifest"
        )
    return f"opset {variant.opset}, {variant.precision}, attention {variant.attention}"


def _check_run(bundle: Bundle, variant: Variant) -> str:
    """Run the graph in ONNX Runtime and see that the output is finite."""
    values, source = _run_input(bundle, variant)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    engine = f"ONNX Runtime {onnxruntime.__version__}"
    with expendable_graph(bundle, variant) as graph:
        if variant.float_precision == "bfloat16":
            emulate_half(graph, "bfloat16")
            engine += ", bfloat16 emulated"
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        outputs = session.run(None, {session.get_inputs()[0].name: values})
    for spec, output in zip(variant.signature.outputs, outputs, strict=True):
        num_bad = int(np.count_nonzero(~np.isfinite(output)))
        if num_bad:
            raise CheckFailure(
                f"{spec.name} of {source}: {num_bad} of {output.size} values are NaN or infinite"
            )
    return f"finite output for {source}; {engine}"


def _run_input(bundle: Bundle, variant: Variant) -> tuple[NDArray[np.generic], str]:
    """Return one input of the graph and what it is."""
    if variant.component == "projector":
        shape = [1 if isinstance(size, str) else size for size in variant.signature.inputs[0].shape]
        return np.random.default_rng(_SEED).standard_normal(shape, dtype=np.float32), "normal noise"
    pixels = preprocess_uint8([PHOTOGRAPH], bundle.manifest.preprocessing)
    if variant.input == "uint8":
        return pixels, "a photograph"
    return normalize(pixels, bundle.manifest.preprocessing), "a photograph"
