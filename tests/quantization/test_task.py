"""A budget on a task: what runs the graphs, what they are held against, and what the manifest says."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from pargo_export.bundle import Bundle, ScorePair, TaskEvidence
from pargo_export.errors import AccuracyError, ConfigError, QuantizationError
from pargo_export.quantization.budget import Budget
from pargo_export.quantization.options import QuantizeOptions
from pargo_export.quantization.quantize import _require_fitting, quantize
from pargo_export.quantization.task import TaskBaseline, TaskOutcome, describe_task, open_encoder
from pargo_export.quantization.workbench import Workbench
from pargo_export.runtime import Runtime

# Few blocks, so that a search is short.
INT8 = QuantizeOptions(precision="int8", keep=("tower.*", "projector.layers.*"), threads=1)
SHA256 = "0123456789abcdef" * 4


@dataclasses.dataclass
class Closeness:
    """A task with a score for the distance of visual tokens from those of the first graph that it is given.

    Attributes:
        pictures: What the graphs are asked to encode.
        scale: Score lost for a mean distance of 1.
        full: Score of the first graph.
        data: Stands for the data in the fingerprint.
        metric: Of the budget.
        totals: What each graph came to.
    """

    pictures: list
    scale: float = 100.0
    full: float = 400.0
    data: str = "a"
    metric: str = "mme-drop"
    totals: list[float] = dataclasses.field(default_factory=list)
    first: np.ndarray | None = None

    def fingerprint(self):
        """Depends on the data."""
        return self.data

    def run(self, encode):
        """Score a graph."""
        tokens = encode(self.pictures)
        self.first = tokens if self.first is None else self.first
        self.totals.append(self.full - self.scale * float(np.abs(tokens - self.first).mean()))
        return TaskOutcome(self.totals[-1], {"existence": self.totals[-1]}, {"existence/a": True})

    def evidence(self, baseline, found, *, limit_percent):
        """Both totals."""
        pairs = {
            name: ScorePair(baseline=baseline.scores[name], value=found.scores[name])
            for name in baseline.scores
        }
        return TaskEvidence(
            benchmark="mme",
            baseline=baseline.total,
            value=found.total,
            limit_percent=limit_percent,
            tasks=pairs,
            num_images=2,
            num_questions=4,
            num_lost=1,
            num_gained=0,
            p_value=1.0,
            data_sha256=SHA256,
            language_model="tiny",
            language_model_sha256=SHA256,
            settings={"num_beams": 1},
        )


@pytest.fixture
def pictures(photographs):
    """Two photographs."""
    return sorted(photographs.iterdir())[:2]


@pytest.mark.parametrize(("variant", "max_batch"), [("fp32", None), ("fp32-uint8", 1)])
def test_pictures_are_encoded_as_by_the_runtime(float_bundle, pictures, variant, max_batch):
    """Preparation, normalisation and graph are those of `Runtime`; batches are split and put together again."""
    bundle = Bundle.open(float_bundle)
    record = bundle.variant(variant)
    encode = open_encoder(
        bundle.file(record.graph),
        bundle.manifest.preprocessing,
        takes_uint8=record.input == "uint8",
        max_batch=max_batch,
        threads=1,
    )
    with Runtime.open(float_bundle, variant=variant, backend="onnxruntime", threads=1) as runtime:
        expected = runtime.encode(pictures)
    found = encode(pictures)
    assert (found.dtype, found.shape) == (np.float32, expected.shape)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_budget_is_held_against_the_float_graph(bundle, pictures):
    """First one that cannot be held: nothing is written. Then one between its steps: the drop decides, not the score."""
    task = Closeness(pictures)
    with pytest.raises(AccuracyError, match="Raise the budget") as caught:
        quantize(bundle, INT8, budget="mme-drop=0", task=task)
    assert "int8-cpu" not in Bundle.open(bundle).manifest.variants
    baseline, *values = task.totals
    without, one = (100 * (baseline - value) / baseline for value in values)
    assert f"the best is {min(without, one):.6g} with 1 blocks kept" in str(caught.value)
    assert without > one > 0

    limit = (without + one) / 2
    task = Closeness(pictures)
    result = quantize(bundle, INT8, budget=f"mme-drop={limit}", task=task)
    assert [(step.num_kept, step.holds) for step in result.steps] == [(0, False), (1, True)]
    assert [step.value for step in result.steps] == pytest.approx([without, one])
    evidence = Bundle.open(bundle).variant("int8-cpu").evidence
    assert (evidence.task.baseline, evidence.task.value) == (400.0, task.totals[-1])
    assert evidence.task.limit_percent == pytest.approx(limit)
    assert evidence.task.drop_percent == result.steps[-1].value <= limit
    assert evidence.notes[-1] == describe_task(evidence.task)
    # The graph on disk is the one that was scored.
    with Runtime.open(bundle, variant="int8-cpu", backend="onnxruntime", threads=1) as runtime:
        tokens = runtime.encode(pictures)
    distance = 100 * np.abs(tokens - task.first).mean()
    assert 400 - distance == pytest.approx(task.totals[-1], abs=1e-2)


def test_a_higher_score_than_with_float_holds(bundle, pictures):
    """A negative drop is within any limit."""
    result = quantize(bundle, INT8, budget="mme-drop=0", task=Closeness(pictures, scale=-100.0))
    (step,) = result.steps
    assert step.value < 0
    assert step.holds


def test_data_and_limit_decide_whether_a_variant_is_up_to_date(bundle, pictures):
    """The same again is reused without a run; other data, or another limit, are another variant."""
    quantize(bundle, INT8, budget="mme-drop=90", task=Closeness(pictures))
    again = Closeness(pictures)
    assert quantize(bundle, INT8, budget="mme-drop=90", task=again).reused
    assert again.totals == []
    for budget, task in (
        ("mme-drop=90", Closeness(pictures, data="b")),
        ("mme-drop=80", Closeness(pictures)),
    ):
        with pytest.raises(QuantizationError, match="made otherwise"):
            quantize(bundle, INT8, budget=budget, task=task)
    with pytest.raises(QuantizationError, match="made otherwise"):
        quantize(bundle, INT8)
    other = Closeness(pictures, data="b")
    assert not quantize(bundle, INT8, budget="mme-drop=90", task=other, force=True).reused
    assert len(other.totals) == 2


@pytest.mark.parametrize(
    ("budget", "with_task", "message"),
    [
        ("mme-drop=1", False, "--data MME_DIR --llm LLM_DIR"),
        ("cosine=0.99", True, "the budget is cosine=0.99; ask for mme-drop=NUMBER"),
        (None, True, "but no budget; ask for mme-drop=NUMBER"),
        ("mme-drop=-1", True, "percent of that of the float32 graph, from 0 to below 100"),
        ("mme-drop=100", True, "from 0 to below 100"),
    ],
)
def test_budget_and_task_belong_together(calibrated_bundle, pictures, budget, with_task, message):
    """One without the other is an error before anything is run."""
    task = Closeness(pictures)
    with pytest.raises(ConfigError, match=message):
        quantize(calibrated_bundle, INT8, budget=budget, task=task if with_task else None, threads=1)
    assert task.totals == []


def test_a_part_of_the_model_has_no_score(calibrated_bundle, pictures):
    """An encoder gives no visual tokens; the message says what to do."""
    bench = Workbench.of(Bundle.open(calibrated_bundle), INT8)
    encoder = dataclasses.replace(bench, base=bench.base.model_copy(update={"component": "encoder"}))
    _require_fitting(Closeness(pictures), Budget.parse("mme-drop=1"), bench)
    with pytest.raises(
        QuantizationError, match="'fp32' is the encoder alone, but mme-drop needs a graph from"
    ):
        _require_fitting(Closeness(pictures), Budget.parse("mme-drop=1"), encoder)


@pytest.mark.parametrize(
    ("full", "error", "message"),
    [
        (0.0, AccuracyError, "no percentage can be kept"),
        (float("nan"), ConfigError, "expected a finite number"),
    ],
)
def test_a_float_graph_without_a_score_is_an_error(calibrated_bundle, pictures, full, error, message):
    """Of nothing no percentage can be kept."""
    bundle = Bundle.open(calibrated_bundle)
    with pytest.raises(error, match=message):
        TaskBaseline.of(
            Closeness(pictures, full=full),
            bundle.file("onnx/fp32.onnx"),
            bundle.manifest.preprocessing,
            takes_uint8=False,
            threads=1,
        )


@pytest.mark.parametrize(("p_value", "words"), [(0.2, "within noise"), (0.01, "more than chance explains")])
def test_the_note_says_whether_chance_explains_it(p_value, words):
    """Totals, drop, limit, flips and p stand in one line; the word depends on p alone."""
    outcome = TaskOutcome(400.0, {"existence": 400.0}, {})
    evidence = Closeness([]).evidence(outcome, dataclasses.replace(outcome, total=396.0), limit_percent=1.5)
    note = describe_task(evidence.model_copy(update={"p_value": p_value}))
    assert note.startswith(
        "mme total 396.00 of 400.00 with float32, drop 1.00 %, allowed 1.5 %; of 4 answers"
    )
    assert f"McNemar p {p_value:.2g}: {words};" in note


def test_evidence_of_before_is_read(calibrated_bundle):
    """A manifest of schema 1.2 has no task."""
    bundle = Bundle.open(calibrated_bundle)
    values = json.loads(bundle.manifest.to_json()) | {"schema_version": "1.2"}
    del values["variants"]["fp32"]["evidence"]["task"]
    found = type(bundle.manifest).from_json(json.dumps(values).encode(), source="test")
    assert found.variants["fp32"].evidence.task is None
