from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from quantization_case import QuantizationCase, quantization_case

from pargo_calibration import AttentionRule
from pargo_export.bundle import StageEvidence
from pargo_export.errors import ParityError, QuantizationError
from pargo_export.quantization import sensitivity
from pargo_export.quantization.build import GraphBuilder
from pargo_export.quantization.half import convert_to_half
from pargo_export.quantization.linears import find_linears
from pargo_export.quantization.measure import measure
from pargo_export.quantization.observe import group_by_activation
from pargo_export.quantization.sensitivity import (
    Accuracy,
    BlockError,
    Sensitivity,
    block_sensitivity,
    candidate_blocks,
    depth_curve,
    first_past,
    linear_sensitivity,
    run_images,
)
from pargo_export.quantization.smooth import NormSite, find_norm_site, scale_into_norm

BLOCKS = [
    *(f"tower.blocks.{index}" for index in range(3)),
    "projector.context",
    *(f"projector.layers.{index}" for index in range(4)),
    "projector.llm_projection",
]


@pytest.fixture(scope="module")
def case(exported_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> QuantizationCase:
    """The golden case `pargo_w2`, calibrated."""
    return quantization_case(exported_bundle, tmp_path_factory.mktemp("sensitivity"))


@pytest.fixture(scope="module")
def found(case: QuantizationCase) -> tuple[Sensitivity, ...]:
    """All blocks, on the images that are taken by default."""
    return block_sensitivity(case.builder(), case.reference, threads=1)


def all_but(builder: GraphBuilder, *blocks: str) -> dict[str, str]:
    """Return the linears of the other blocks, to be kept."""
    candidates = candidate_blocks(builder)
    return {path: "test" for block, paths in candidates.items() if block not in blocks for path in paths}


def with_outlier(graph: Path, block: str, copy: Path) -> Path:
    """Write a graph that computes the same, but one block has a weight of which one row is far larger."""
    model = ir.load(graph)
    for group in group_by_activation(find_linears(model)).values():
        site = find_norm_site(group)
        if group[0].block == block and isinstance(site, NormSite):
            factors = np.ones(group[0].weight.shape.numpy()[0], np.float32)
            factors[0] = 2000
            scale_into_norm(site, group, factors)
    ir.save(model, copy)
    return copy


def test_the_block_with_outliers_in_its_weights_comes_first(case: QuantizationCase, tmp_path: Path) -> None:
    """A block that is hard to quantize leads the list; in the untouched graph it does not."""
    graph = with_outlier(case.graph, "tower.blocks.2", tmp_path / "edited.onnx")
    untouched, edited = case.builder("int8-weight-only"), case.builder("int8-weight-only", graph=graph)
    keep = all_but(untouched, "tower.blocks.1", "tower.blocks.2")
    before, after = (
        block_sensitivity(builder, case.reference, keep=keep, threads=1) for builder in (untouched, edited)
    )
    assert [item.name for item in before] == ["tower.blocks.1", "tower.blocks.2"]
    assert [item.name for item in after] == ["tower.blocks.2", "tower.blocks.1"]
    assert after[0].sqnr_db < after[1].sqnr_db - 6


def test_blocks_are_sorted_and_complete(case: QuantizationCase, found: tuple[Sensitivity, ...]) -> None:
    """Every block that the recipe quantizes is listed once with its linears, the noisiest first."""
    assert sorted(item.name for item in found) == sorted(BLOCKS)
    assert [item.sqnr_db for item in found] == sorted(item.sqnr_db for item in found)
    assert {path for item in found for path in item.linears} == {
        path for path in case.builder().make()[1].quantized if not path.endswith(".attention.core")
    }
    assert all(path.startswith(item.name) for item in found for path in item.linears)


def test_a_block_alone_is_what_the_file_would_be(
    case: QuantizationCase, found: tuple[Sensitivity, ...], tmp_path: Path
) -> None:
    """The numbers are those of the graph on disk with all other blocks and all attentions kept, measured as usual."""
    builder = case.builder()
    builder = dataclasses.replace(
        builder, recipe=builder.recipe.model_copy(update={"attention": AttentionRule()})
    )
    built = builder.build(tmp_path / "alone.onnx", all_but(builder, found[0].name))
    own = list(built.stages)[-1]
    measured = measure(built, case.reference, places={own: built.stages[own]}, images=[0, 1], threads=1)
    expected = Accuracy.of(measured)
    for field in ("sqnr_db", "mean_cosine", "worst_cosine", "max_abs"):
        assert getattr(found[0], field) == pytest.approx(getattr(expected, field)), field
    assert found[0].worst_image == expected.worst_image


def test_linears_of_a_block_are_measured_one_at_a_time(case: QuantizationCase) -> None:
    """One linear loses less than its whole block; those of other blocks can be kept out."""
    builder = case.builder()
    outside = all_but(builder, "tower.blocks.0")
    whole = block_sensitivity(builder, case.reference, keep=outside, threads=1)
    linears = linear_sensitivity(builder, case.reference, keep=outside, threads=1)
    assert [item.name for item in whole] == ["tower.blocks.0"]
    assert {item.name for item in linears} == set(candidate_blocks(builder)["tower.blocks.0"])
    assert all(item.linears == (item.name,) for item in linears)
    assert min(item.sqnr_db for item in linears) > whole[0].sqnr_db


def test_a_block_does_not_depend_on_the_others(
    case: QuantizationCase, found: tuple[Sensitivity, ...]
) -> None:
    """Measured again, with fewer blocks beside it, a block comes to the same numbers."""
    builder = case.builder()
    again = block_sensitivity(builder, case.reference, keep=all_but(builder, *BLOCKS[:2]), threads=1)
    assert again == tuple(item for item in found if item.name in BLOCKS[:2])


def test_nothing_is_written(case: QuantizationCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file appears, neither beside the base nor where the process runs; the callback hears of each block."""
    monkeypatch.chdir(tmp_path)
    before = sorted(case.graph.parent.iterdir())
    builder = case.builder()
    seen: list[tuple[int, int]] = []
    block_sensitivity(
        builder,
        case.reference,
        keep=all_but(builder, *BLOCKS[:2]),
        images=[0],
        threads=1,
        advance=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 2), (2, 2)]
    assert sorted(case.graph.parent.iterdir()) == before
    assert not list(tmp_path.iterdir())


def test_weights_of_the_base_may_lie_in_a_file_of_their_own(case: QuantizationCase, tmp_path: Path) -> None:
    """Weights that did not change are read from the base's own data file, and are not copied into the graph."""
    external = tmp_path / "external.onnx"
    ir.save(ir.load(case.graph), external, external_data="external.onnx.data", size_threshold_bytes=256)
    builder = case.builder(graph=external)
    outside = all_but(builder, "projector.context")
    proto = ir.to_proto(builder.make(outside)[0])
    inside = block_sensitivity(case.builder(), case.reference, keep=outside, threads=1)
    assert block_sensitivity(builder, case.reference, keep=outside, threads=1) == inside
    assert proto.ByteSize() < external.with_name("external.onnx.data").stat().st_size / 2


def test_half_parts_are_measured_in_float32(case: QuantizationCase) -> None:
    """The float precision of the builder does not change the order: the base is used as it is."""
    keep = all_but(case.builder(), BLOCKS[0])
    float32, float16 = (
        block_sensitivity(case.builder(float_precision=precision), case.reference, keep=keep, threads=1)
        for precision in ("float32", "float16")
    )
    assert float16 == float32


def test_a_bfloat16_base_is_emulated(case: QuantizationCase, tmp_path: Path) -> None:
    """A base that ONNX Runtime has no products for is measured nevertheless, with the error of its rounding."""
    model = ir.load(case.graph)
    convert_to_half(model, "bfloat16")
    ir.save(model, tmp_path / "bf16.onnx")
    proto = onnx.load(tmp_path / "bf16.onnx")
    (found,) = run_images(proto, tmp_path, case.reference, [0], threads=1)
    expected = case.reference.outputs[0]["visual_tokens"]
    assert 1e-4 < np.abs(found - expected).max() < 0.5


def test_quantized_attention_belongs_to_no_block(case: QuantizationCase) -> None:
    """A recipe that quantizes attention products gives the numbers of one that does not."""
    plain = case.builder()
    attention = AttentionRule(projector_self=True, tower_scores="on")
    quantized = dataclasses.replace(plain, recipe=plain.recipe.model_copy(update={"attention": attention}))
    keep = all_but(plain, "projector.layers.1")
    both = [
        block_sensitivity(builder, case.reference, keep=keep, images=[0], threads=1)
        for builder in (plain, quantized)
    ]
    assert both[0] == both[1]


def test_a_value_that_is_not_finite_is_an_error(
    case: QuantizationCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN is no low sensitivity."""
    shape = case.reference.outputs[0]["visual_tokens"].shape
    monkeypatch.setattr(
        sensitivity, "run_images", lambda *_args, **_options: [np.full(shape, np.nan, np.float32)]
    )
    with pytest.raises(ParityError, match="NaN"):
        block_sensitivity(case.builder(), case.reference, images=[0], threads=1)


def test_nothing_to_quantize_is_an_error(case: QuantizationCase) -> None:
    """Neither a mere conversion nor a graph of which all is kept has blocks to measure."""
    builder = case.builder()
    with pytest.raises(QuantizationError, match="only the float precision changes"):
        block_sensitivity(dataclasses.replace(builder, recipe=None), case.reference)
    everything = {path: "kept by '*'" for paths in candidate_blocks(builder).values() for path in paths}
    with pytest.raises(QuantizationError, match=r"kept by '\*'"):
        block_sensitivity(builder, case.reference, keep=everything)


def test_results_are_plain_json(found: tuple[Sensitivity, ...]) -> None:
    """A report can write them as they are."""
    values = json.loads(json.dumps(dataclasses.asdict(found[0]), allow_nan=False))
    assert values["name"] == found[0].name
    assert values["linears"] == list(found[0].linears)


def test_accuracy_takes_the_worst_image_of_each_measure() -> None:
    """Two images, each worse in another way."""

    def measured(
        source: str, cosine: float, mean_cosine: float, sqnr_db: float, max_abs: float
    ) -> StageEvidence:
        return StageEvidence(
            stage="s",
            batch=1,
            source=source,
            max_abs=max_abs,
            cosine=cosine,
            reference_std=1.0,
            mean_cosine=mean_cosine,
            sqnr_db=sqnr_db,
        )

    found = Accuracy.of([measured("a", 0.9, 0.95, 30.0, 0.1), measured("b", 0.8, 0.99, 20.0, 0.3)])
    assert found == Accuracy(mean_cosine=0.95, worst_cosine=0.8, sqnr_db=20.0, max_abs=0.3, worst_image="b")


def test_depth_curve_ends_where_the_stages_do(case: QuantizationCase, tmp_path: Path) -> None:
    """Blocks come in network order; the last query layer is the stage of that name, the worst image counts."""
    built = case.builder().build(tmp_path / "int8.onnx")
    curve = depth_curve(built, case.reference, threads=1)
    stages = [item for item in measure(built, case.reference, threads=1) if item.stage == "query_layer_3"]
    assert [item.block for item in curve] == [
        name for name in BLOCKS if name.split(".")[1] in {"blocks", "layers"}
    ]
    assert len(stages) == 2
    assert curve[-1].sqnr_db == pytest.approx(min(item.sqnr_db for item in stages))
    assert curve[-1].mean_cosine == pytest.approx(min(item.mean_cosine for item in stages))


def test_depth_curve_sees_where_the_error_starts(case: QuantizationCase, tmp_path: Path) -> None:
    """With one block quantized, those in front of it agree to the float32 noise and the block itself does not."""
    builder = case.builder()
    keep = all_but(builder, "tower.blocks.1")
    curve = depth_curve(builder.build(tmp_path / "one.onnx", keep), case.reference, images=[0], threads=1)
    assert curve[0].sqnr_db > 100
    assert curve[1].sqnr_db < 50
    assert first_past(curve, 0.999999) == "tower.blocks.1"


def test_depth_curve_leaves_out_what_the_reference_lacks(case: QuantizationCase, tmp_path: Path) -> None:
    """Blocks of only one of the two graphs are not compared; no common block is an error."""
    built = case.builder().build(tmp_path / "int8.onnx")
    names = {"tower.blocks.1": built.blocks["tower.blocks.1"], "tower.blocks.9": "other"}
    curve = depth_curve(dataclasses.replace(built, blocks=names), case.reference, images=[0], threads=1)
    assert [item.block for item in curve] == ["tower.blocks.1"]
    with pytest.raises(QuantizationError, match=r"tower\.blocks\.9"):
        depth_curve(dataclasses.replace(built, blocks={"tower.blocks.9": "other"}), case.reference)


def test_first_past_names_the_first_and_not_the_worst() -> None:
    """A later, worse block is not the one to look at; a value at the threshold is not past it."""
    curve = [
        BlockError(mean_cosine=cosine, worst_cosine=0.0, sqnr_db=0.0, max_abs=0.0, worst_image="", block=name)
        for name, cosine in (("a", 0.99), ("b", 0.95), ("c", 0.90))
    ]
    assert first_past(curve, 0.96) == "b"
    assert first_past(curve, 0.95) == "c"
    assert first_past(curve, 0.90) is None
