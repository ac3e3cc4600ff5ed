"""Programs of real variants on the CPU, against ONNX Runtime running the same graphs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_cases import golden_case
from runtime.cuda.programs import OPTIONS, run_onnx
from tolerances import TOLERANCES

from pargo_export.bundle import Bundle
from pargo_export.errors import BackendError
from pargo_export.runtime.cuda.loading import load_program
from pargo_export.runtime.cuda.onnx_weights import read_weights
from pargo_export.runtime.cuda.options import ProgramOptions, ProgramSpec
from pargo_export.runtime.cuda.program import Program

IMAGES = golden_case("pargo_w2").images
FEATURES = torch.randn(2, 36, 64, generator=torch.Generator().manual_seed(2))
PIXELS = torch.randint(0, 256, IMAGES.shape, generator=torch.Generator().manual_seed(3)).to(torch.uint8)


def error_of(found, expected):
    """Return the largest difference."""
    assert found.shape == expected.shape
    return np.abs(found.float().numpy() - expected).max()


def relative_error(found, expected):
    """Return the norm of the difference over that of the expected values."""
    return np.linalg.norm(found.float().numpy() - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_golden_cases(golden_export, options):
    """Every kind of projector, in every way to compute it."""
    case, bundle = golden_export
    variant = bundle.variant("fp16")
    program = load_program(
        bundle.file(variant.graph), bundle.manifest, variant, device="cpu", options=options
    )
    found = program(case.images)
    assert found.dtype == torch.float16
    expected = np.concatenate([run_onnx(bundle, variant, image) for image in case.images.split(1)])
    assert error_of(found, expected) <= TOLERANCES["export-fp16"].value


@pytest.mark.parametrize(
    ("name", "values", "tolerance"),
    [
        ("fp16", IMAGES, "export-fp16"),
        ("fp16-encoder", IMAGES, "export-fp16"),
        ("fp16-projector", FEATURES, "export-fp16"),
        ("fp16-uint8", PIXELS, "export-fp16"),
        ("bf16", IMAGES, "export-bf16"),
    ],
)
def test_float_variants(cuda_bundle, name, values, tolerance):
    """Components, input kinds and float types."""
    bundle = Bundle.open(cuda_bundle)
    variant = bundle.variant(name)
    program = load_program(bundle.file(variant.graph), bundle.manifest, variant, device="cpu")
    assert error_of(program(values), run_onnx(bundle, variant, values)) <= TOLERANCES[tolerance].value


@pytest.mark.parametrize("options", [*OPTIONS[:2], ProgramOptions(widen_projector=False)], ids=str)
@pytest.mark.parametrize("name", ["fp8", "int8", "int8-kept"])
def test_quantized_variants(cuda_bundle, name, options):
    """8-bit products between halves, also with linears that stayed float."""
    bundle = Bundle.open(cuda_bundle)
    variant = bundle.variant(name)
    program = load_program(
        bundle.file(variant.graph), bundle.manifest, variant, device="cpu", options=options
    )
    error = relative_error(program(IMAGES), run_onnx(bundle, variant, IMAGES))
    assert error <= TOLERANCES["cuda-quantized-half"].value


@pytest.mark.parametrize("name", ["fp8-float32", "int8-float32"])
def test_quantization_is_computed_as_the_graph_says(cuda_bundle, name):
    """With float32 around the 8-bit numbers both find the same numbers."""
    bundle = Bundle.open(cuda_bundle)
    variant = bundle.variant(name)
    path = bundle.file(variant.graph)
    spec = ProgramSpec("all", "float", torch.float32, variant.rewrites, bundle.manifest.preprocessing)
    options = ProgramOptions(widen_projector=False)  # every product that the graph quantizes
    program = Program(read_weights(path), bundle.manifest.model, spec, options)
    error = relative_error(program(IMAGES), run_onnx(bundle, variant, IMAGES))
    assert error <= TOLERANCES["cuda-quantized-float32"].value


def test_float32_is_refused(cuda_bundle):
    """Tensor cores have no float32; the message says what to make instead."""
    bundle = Bundle.open(cuda_bundle)
    variant = bundle.variant("int8-float32")
    with pytest.raises(BackendError, match=r"variant .int8-float32.: .* float32, .*--float-precision fp16"):
        load_program(bundle.file(variant.graph), bundle.manifest, variant, device="cpu")
