"""The parity gate finds what is wrong, and says where."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from graph.exports import source_model
from onnx import numpy_helper
from PIL import Image

from pargo_export.bundle import Evidence, Limits, StageEvidence
from pargo_export.errors import ExportError, ParityError
from pargo_export.graph.boundaries import detach_boundaries, write_probe
from pargo_export.graph.comparison import PARITY_LIMITS, compare, require_parity
from pargo_export.graph.component import ComponentModule, boundary_names, component_signature
from pargo_export.graph.naming import name_by_module
from pargo_export.graph.options import ExportOptions
from pargo_export.graph.parity import ParityCase, measure_parity, reference_cases
from pargo_export.graph.save import save_graph
from pargo_export.graph.translate import translate
from pargo_export.preprocessing import PreprocessSpec, normalize
from pargo_export.rewrite.apply import deploy_module
from pargo_export.rewrite.registry import select_rewrites

OPTIONS = ExportOptions()
SPEC = PreprocessSpec.parse({"mode": "pad", "height": 24, "width": 24}, source="test")
STAGES = ["visual_tokens", "image_features", "query_layer_0", "query_layer_1"]


@dataclass(frozen=True)
class Probed:
    """A graph with its probe, and the reference's outputs."""

    probe: Path
    holders: dict[str, str]
    cases: list[ParityCase]
    affine: tuple[np.ndarray, np.ndarray]

    def measure(self, probe: Path | None = None, cases: list[ParityCase] | None = None) -> Evidence:
        """Measure the probe or a changed copy of it."""
        return measure_parity(
            probe or self.probe, self.holders, cases or self.cases, OPTIONS.precision, self.affine
        )


@pytest.fixture(scope="module")
def probed(tmp_path_factory) -> Probed:
    """Return the smallest model, translated with all rewrites."""
    folder = tmp_path_factory.mktemp("parity")
    model = source_model("micro")
    deployed, _ = deploy_module(model, select_rewrites("cpu"), "fused")
    boundaries = boundary_names(model.config, OPTIONS, folded=True)
    signature = component_signature(model.config, OPTIONS)
    graph = translate(ComponentModule(deployed, OPTIONS).eval(), OPTIONS, signature, boundaries)
    name_by_module(graph)
    holders = detach_boundaries(graph, boundaries)
    save_graph(graph, folder / "graph.onnx")
    write_probe(folder / "graph.onnx", folder / "probe.onnx", holders)
    affine = (model.output_norm.weight.numpy(), model.output_norm.bias.numpy())
    cases = reference_cases(model, OPTIONS, SPEC, noise_batches=(2, 3))
    return Probed(folder / "probe.onnx", holders, cases, affine)


def corrupt(probed, weight, folder, change):
    """Return a copy of the probe with one weight changed."""
    model = onnx.load(probed.probe)
    (tensor,) = [each for each in model.graph.initializer if each.name == weight]
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), weight))
    onnx.save(model, folder / "corrupt.onnx")
    return folder / "corrupt.onnx"


def tilt(values):
    """Add a ramp, which no LayerNorm takes out again."""
    return values + np.linspace(0, 0.05, values.size, dtype=np.float32).reshape(values.shape)


def failing_stages(evidence):
    """Return the stages past the limits, in the order in which the error lists them, each once."""
    with pytest.raises(ParityError) as info:
        require_parity(evidence)
    listed = [part.split(" (batch")[0].split(": ")[-1] for part in str(info.value).split("; ")]
    return list(dict.fromkeys(listed)), str(info.value)


def test_a_right_graph_passes_at_every_stage(probed):
    """Each stage is measured on each input, and the evidence says so."""
    evidence = probed.measure()
    require_parity(evidence)
    assert evidence.passed
    assert evidence.limits == PARITY_LIMITS["float32"]
    measured = {(item.stage, item.source, item.batch) for item in evidence.stages}
    batches = [("photograph", 1), ("noise", 2), ("noise", 3)]
    assert measured == {(stage, *batch) for stage in STAGES for batch in batches}
    assert len(evidence.stages) == len(measured)
    for item in evidence.stages:
        assert item.max_abs <= 1e-4
        assert item.cosine > 0.99999
        assert 0.1 < item.reference_std < 10
    assert not evidence.notes


@pytest.mark.parametrize(
    ("weight", "first", "spared"),
    [
        ("tower.blocks.0.norm1.bias", "image_features", set()),
        ("projector.layers.0.cross_attention.output.bias", "query_layer_0", {"image_features"}),
        ("projector.layers.1.feed_forward.norm.bias", "query_layer_1", {"image_features", "query_layer_0"}),
        (
            "projector.llm_projection.bias",
            "visual_tokens",
            {"image_features", "query_layer_0", "query_layer_1"},
        ),
    ],
)
def test_a_corrupted_weight_is_found_at_its_stage(probed, tmp_path, weight, first, spared):
    """The stages before it pass, and the error names the first stage that does not."""
    evidence = probed.measure(corrupt(probed, weight, tmp_path, tilt))
    assert not evidence.passed
    failing, message = failing_stages(evidence)
    in_order = [stage for stage in (*STAGES[1:], STAGES[0]) if stage in failing]
    assert in_order[0] == first
    assert set(STAGES) - set(failing) == spared
    assert "max abs 0.0001 per unit of standard deviation, cosine 0.99999" in message
    for batch in ("(batch 1, photograph)", "(batch 2, noise)", "(batch 3, noise)"):
        assert batch in message


def test_the_error_lists_the_first_stage_of_the_network_first(probed, tmp_path):
    """Whoever reads the message sees where to look."""
    evidence = probed.measure(corrupt(probed, "tower.blocks.0.norm1.bias", tmp_path, tilt))
    failing, _ = failing_stages(evidence)
    assert failing == ["image_features", "query_layer_0", "query_layer_1", "visual_tokens"]


def test_nan_names_stage_and_input(probed, tmp_path):
    """A value that is not a number is an error at once, with a way out."""
    probe = corrupt(probed, "projector.llm_projection.bias", tmp_path, lambda values: values * np.nan)
    with pytest.raises(
        ParityError, match=r"visual_tokens on photograph: 420 of 420 values are NaN or infinite"
    ):
        probed.measure(probe)


def test_nan_is_reported_where_it_arises(probed, tmp_path):
    """Not at the end of the network, which it reaches too."""
    probe = corrupt(probed, "tower.blocks.0.norm1.bias", tmp_path, lambda values: values * np.nan)
    with pytest.raises(ParityError, match=r"^image_features on photograph: .* NaN or infinite"):
        probed.measure(probe)


def test_a_graph_that_cannot_run_is_an_export_error(probed, tmp_path):
    """One line of ONNX Runtime's message, not its stack."""
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no graph")
    with pytest.raises(ExportError, match="ONNX Runtime refuses the exported graph: ") as info:
        probed.measure(broken)
    assert not isinstance(info.value, ParityError)
    assert "\n" not in str(info.value)


def test_bfloat16_is_emulated_and_says_so(probed, tmp_path):
    """The evidence notes that the graph itself was not run."""
    shutil.copy(probed.probe, tmp_path / "probe.onnx")
    evidence = measure_parity(
        tmp_path / "probe.onnx", probed.holders, probed.cases[:1], "bfloat16", probed.affine
    )
    assert len(evidence.notes) == 1
    assert "bfloat16 was emulated" in evidence.notes[0]
    assert evidence.limits == PARITY_LIMITS["bfloat16"]


def test_compare_measures_in_float64():
    """Largest difference, worst token's cosine and the reference's deviation."""
    expected = np.array([[[3.0, 4.0], [1.0, 0.0]]], np.float32)
    found = np.array([[[3.0, 4.5], [0.0, 1.0]]], np.float32)
    item = compare("tokens", "noise", expected, found)
    assert (item.stage, item.source, item.batch) == ("tokens", "noise", 1)
    assert item.max_abs == 1.0
    assert item.cosine == 0.0
    assert item.reference_std == pytest.approx(np.std([3, 4, 1, 0]))


def test_compare_counts_zero_tokens_as_equal():
    """A token of zeros has no direction, so only its difference counts."""
    item = compare("tokens", "noise", np.zeros((1, 2, 3), np.float32), np.zeros((1, 2, 3), np.float32))
    assert (item.max_abs, item.cosine) == (0.0, 1.0)


def test_compare_takes_half_precision():
    """Widening happens before the difference."""
    expected = np.array([[[1.0, 60000.0]]], np.float32)
    item = compare("tokens", "noise", expected, -expected.astype(np.float16))
    assert item.max_abs == 120000.0
    assert item.cosine == pytest.approx(-1)


def test_compare_refuses_other_shapes():
    """A batch that was broadcast away is not taken for agreement."""
    expected = np.zeros((2, 3, 4), np.float32)
    with pytest.raises(
        ParityError, match=r"tokens on noise: the graph gives \(1, 3, 4\), the reference \(2, 3, 4\)"
    ):
        compare("tokens", "noise", expected, expected[:1])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_compare_refuses_what_is_not_finite(value):
    """The message counts the values and points to a precision with more range."""
    expected = np.full((1, 2, 4), 7.0, np.float32)
    found = expected.copy()
    found[0, 1, :3] = value
    with pytest.raises(ParityError, match=r"3 of 8 values .*largest reference value 7\).* bf16 or fp32"):
        compare("tokens", "noise", expected, found)


def evidence_of(limits=None, **values):
    """Return evidence of one measurement."""
    item = {
        "stage": "tokens",
        "batch": 2,
        "source": "noise",
        "max_abs": 0.0,
        "cosine": 1.0,
        "reference_std": 1.0,
    }
    stage = StageEvidence(**(item | values))
    return Evidence(
        stages=(stage,), limits=limits or Limits(max_abs=0.5, cosine=0.9), passed=False, reference="test"
    )


@pytest.mark.parametrize(
    "values",
    [
        {"max_abs": 0.5},
        {"max_abs": 0.5, "reference_std": 0.1},  # below a deviation of 1 the limit is absolute
        {"max_abs": 2.0, "reference_std": 4.0},
        {"cosine": 0.9},
    ],
)
def test_at_the_limit_is_within(values):
    """Limits are inclusive and grow with the reference's deviation above 1."""
    require_parity(evidence_of(**values))


@pytest.mark.parametrize(
    "values",
    [
        {"max_abs": 0.51},
        {"max_abs": 0.51, "reference_std": 0.1},
        {"max_abs": 2.1, "reference_std": 4.0},
        {"cosine": 0.89},
        {"cosine": 0.5, "max_abs": 0.1},
    ],
)
def test_past_a_limit_fails(values):
    """Either measure alone is enough."""
    with pytest.raises(ParityError, match=r"tokens \(batch 2, noise\): max abs .*, cosine "):
        require_parity(evidence_of(**values))


def test_a_missing_limit_is_no_limit():
    """`None` is not zero."""
    require_parity(evidence_of(limits=Limits(), max_abs=1e9, cosine=-1.0))
    with pytest.raises(ParityError):
        require_parity(evidence_of(limits=Limits(max_abs=1.0), max_abs=1.1))


def test_limits_by_precision():
    """Float32 must be exact to rounding; half precisions must keep every token's direction."""
    assert set(PARITY_LIMITS) == {"float32", "float16", "bfloat16"}
    assert PARITY_LIMITS["float32"].max_abs == 1e-4
    cosines = [PARITY_LIMITS[precision].cosine for precision in ("float32", "float16", "bfloat16")]
    assert cosines == sorted(cosines, reverse=True)
    assert cosines[-1] >= 0.99


def test_cases_are_photographs_and_noise():
    """Photographs one by one, noise in batches; the reference's outputs are those of the model."""
    model = source_model("micro")
    pictures = [Image.new("RGB", (30, 20), color) for color in ("red", "blue")]
    cases = reference_cases(model, OPTIONS, SPEC, photographs=pictures, noise_batches=(1, 4))
    assert [(case.source, len(case.values)) for case in cases] == [
        ("photograph", 1),
        ("photograph", 1),
        ("noise", 1),
        ("noise", 4),
    ]
    for case in cases:
        assert case.values.dtype == np.float32
        stages = model.encode_images(torch.from_numpy(case.values), return_intermediates=True)
        assert np.array_equal(case.expected["visual_tokens"], stages.visual_tokens)
        assert np.array_equal(case.expected["image_features"], stages.image_features)
        assert np.array_equal(case.expected["query_layer_1"], stages.layers[1])
    assert not np.array_equal(cases[0].values, cases[1].values)


def test_cases_are_the_same_every_time():
    """The noise comes from a constant seed."""
    model = source_model("micro")
    first, second = (reference_cases(model, OPTIONS, SPEC) for _ in range(2))
    for left, right in zip(first, second, strict=True):
        assert np.array_equal(left.values, right.values)


def test_batches_above_the_largest_are_left_out():
    """A static graph is tried with one image."""
    model = source_model("micro")
    for max_batch, sizes in ((1, [1, 1]), (2, [1, 2]), (3, [1, 2, 3])):
        options = ExportOptions(max_batch=max_batch)
        cases = reference_cases(model, options, SPEC, noise_batches=(2, 3))
        assert [len(case.values) for case in cases] == sizes


def test_uint8_cases_are_the_same_pictures():
    """The graph gets pixels, the reference their normalised form."""
    model = source_model("micro")
    pixels = reference_cases(model, ExportOptions(input_kind="uint8"), SPEC)
    floats = reference_cases(model, OPTIONS, SPEC)
    for left, right in zip(pixels, floats, strict=True):
        assert left.values.dtype == np.uint8
        assert np.array_equal(normalize(left.values, SPEC), right.values)
        assert np.array_equal(left.expected["visual_tokens"], right.expected["visual_tokens"])


def test_a_projector_gets_the_image_features():
    """Its input is what the reference's encoder gives."""
    model = source_model("micro")
    for case in reference_cases(model, ExportOptions(component="projector"), SPEC):
        assert case.values is case.expected["image_features"]
