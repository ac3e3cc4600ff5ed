"""Which of its forms a query projector takes: by the number of rows, and by the options for 8-bit variants."""

from __future__ import annotations

import pytest
import torch
from golden_cases import golden_case, golden_model
from runtime.cuda.programs import program_of
from tolerances import TOLERANCES

from pargo_export.bundle import Bundle
from pargo_export.runtime.cuda.fused_projector import FusedProjector
from pargo_export.runtime.cuda.onnx_weights import read_weights
from pargo_export.runtime.cuda.options import ProgramOptions, ProgramSpec
from pargo_export.runtime.cuda.program import Program
from pargo_export.runtime.cuda.projector import QueryProjector, SizedProjector

EXACT = TOLERANCES["rewrite-float64"].value


@pytest.mark.parametrize("images", [1, 2, 3])
def test_the_form_is_chosen_by_the_rows_of_all_images(images):
    """Up to the limit everything is fused; one image more takes the library's products."""
    projector = SizedProjector(lambda _: "few", lambda _: "many", num_queries=5, limit=10)
    assert projector(torch.zeros(images, 36, 8)) == ("few" if images <= 2 else "many")


@pytest.mark.parametrize("name", ["pargo_w2", "pargo_w4_freq2", "qformer"])
def test_both_forms_compute_the_reference(name, monkeypatch):
    """The same program, one image and two, of which the limit lies between; each runs the form that is its own."""
    model, images = golden_model(name).double(), golden_case(name).images[:2].double()
    queries = model.config.projector.num_query_tokens
    program = program_of(model, options=ProgramOptions(fused_projector_rows=queries))
    ran = []
    for form in (FusedProjector, QueryProjector):
        call = form.__call__

        def record(self, features, call=call):
            ran.append(type(self))
            return call(self, features)

        monkeypatch.setattr(form, "__call__", record)
    expected = model.encode_images(images)
    for batch in (1, 2):
        error = (program(images[:batch]) - expected[:batch]).abs().max()
        assert error.item() <= EXACT * max(1.0, expected.abs().max().item())
    assert ran == [FusedProjector, QueryProjector]


def test_zero_rows_mean_that_nothing_is_fused():
    """There is one form then, and no second set of weights."""
    program = program_of(golden_model("pargo_w2"), options=ProgramOptions(fused_projector_rows=0))
    assert isinstance(program._projector, QueryProjector)


def relative_error(found, expected):
    """Return ‖found - expected‖ / ‖expected‖."""
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", ["fp8-float32", "int8-float32"])
def test_a_widened_projector_is_nearer_to_the_float_program(cuda_bundle, name):
    """Behind a tower in float: weights stay rounded to 8 bits, the activations of the projector are not."""
    bundle = Bundle.open(cuda_bundle)

    def program(variant_name, **options):
        variant = bundle.variant(variant_name)
        spec = ProgramSpec("all", "float", torch.float32, variant.rewrites, bundle.manifest.preprocessing)
        weights = read_weights(bundle.file(variant.graph)).widened("tower.", torch.float32)
        return Program(weights, bundle.manifest.model, spec, ProgramOptions(**options))

    wide, narrow = (program(name, widen_projector=widen) for widen in (True, False))
    assert isinstance(wide._projector, SizedProjector)
    assert isinstance(narrow._projector, QueryProjector)
    # Widened, it takes the tower's features in float; else quantized as its first product wants them.
    assert wide._projector.quantize is None
    assert narrow._projector.quantize is not None
    images = golden_case("pargo_w2").images
    expected = program("fp32")(images)
    errors = [relative_error(each(images), expected) for each in (wide, narrow)]
    assert 0 < errors[0] < 0.9 * errors[1], errors
