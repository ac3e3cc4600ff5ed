from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantization_case import QuantizationCase, quantization_case

from pargo_export.errors import AccuracyError, ConfigError, QuantizationError
from pargo_export.graph.comparison import compare
from pargo_export.quantization import budget as budget_module
from pargo_export.quantization.budget import Budget, BudgetResult, fit_budget
from pargo_export.quantization.measure import measure
from pargo_export.quantization.sensitivity import Accuracy, Sensitivity, block_sensitivity


@pytest.fixture(scope="module")
def case(exported_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> QuantizationCase:
    """The golden case `pargo_w2`, calibrated."""
    return quantization_case(exported_bundle, tmp_path_factory.mktemp("budget"))


@pytest.fixture(scope="module")
def order(case: QuantizationCase) -> tuple[Sensitivity, ...]:
    """Sensitivity of the blocks."""
    return block_sensitivity(case.builder(), case.reference, images=[0], threads=1)


@pytest.fixture(scope="module")
def accuracies(
    case: QuantizationCase, order: tuple[Sensitivity, ...], tmp_path_factory: pytest.TempPathFactory
) -> list[Accuracy]:
    """Accuracy of the output with the first 0, 1, ... 4 blocks in float."""
    graph = tmp_path_factory.mktemp("accuracies") / "int8.onnx"
    found = []
    for count in range(5):
        kept = {path: "test" for item in order[:count] for path in item.linears}
        built = case.builder().build(graph, kept)
        own = list(built.stages)[-1]
        found.append(Accuracy.of(measure(built, case.reference, places={own: own}, threads=1)))
    return found


@pytest.fixture(scope="module")
def fit(case: QuantizationCase, order: tuple[Sensitivity, ...]) -> Callable[..., BudgetResult]:
    """`fit_budget` on the golden case."""

    def run(folder: Path, budget: Budget, **options: Any) -> BudgetResult:
        options = {"sensitivities": order, "threads": 1, **options}
        return fit_budget(case.builder(), case.reference, folder / "int8.onnx", budget, **options)

    return run


@dataclass
class Search:
    """A search whose answer is four blocks, found before its last graph.

    Attributes:
        result: Its result.
        limit: The budget, on `cosine`.
        texts: What it said.
        counts: What it counted.
    """

    result: BudgetResult
    limit: float
    texts: list[str]
    counts: list[tuple[int, int]]


@pytest.fixture(scope="module")
def search(
    fit: Callable[..., BudgetResult], accuracies: list[Accuracy], tmp_path_factory: pytest.TempPathFactory
) -> Search:
    """The search that most tests look at."""
    limit = (accuracies[3].mean_cosine + accuracies[4].mean_cosine) / 2
    texts: list[str] = []
    counts: list[tuple[int, int]] = []
    result = fit(
        tmp_path_factory.mktemp("search"),
        Budget("cosine", limit),
        progress=texts.append,
        advance=lambda done, total: counts.append((done, total)),
    )
    return Search(result, limit, texts, counts)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cosine=0.995", Budget("cosine", 0.995)),
        (" worst_cosine = 1 ", Budget("worst_cosine", 1.0)),
        ("sqnr=25", Budget("sqnr", 25.0)),
        ("score=-3.5", Budget("score", -3.5)),
    ],
)
def test_budgets_are_read(text: str, expected: Budget) -> None:
    """Metric and limit, with or without spaces."""
    assert Budget.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cosine", "expected METRIC=NUMBER.*worst_cosine"),
        ("cosine=", "expected METRIC=NUMBER"),
        ("cosine=high", "expected METRIC=NUMBER"),
        ("0.995", "expected METRIC=NUMBER"),
        ("psnr=30", "'psnr'; known: cosine.*worst_cosine.*sqnr.*score"),
        ("cosine=0", "above 0 and up to 1"),
        ("cosine=1.001", "above 0 and up to 1"),
        ("worst_cosine=99.5", "above 0 and up to 1"),
        ("cosine=nan", "above 0 and up to 1"),
        ("sqnr=0", "dB, above 0"),
        ("sqnr=inf", "dB, above 0"),
        ("score=nan", "any number"),
    ],
)
def test_other_budgets_are_errors(text: str, message: str) -> None:
    """The message says what would be right."""
    with pytest.raises(ConfigError, match=message):
        Budget.parse(text)


@pytest.mark.parametrize("most", [0, 1, 2, 3, 8, 29])
def test_the_search_finds_the_smallest_number(most: int) -> None:
    """Wherever the border lies, and with few questions; past the end there is none."""
    for border in range(most + 2):
        asked: list[int] = []

        def holds(count: int, border: int = border, asked: list[int] = asked) -> bool:
            asked.append(count)
            return count >= border

        found = budget_module._fewest(most, holds)
        assert found == (border if border <= most else None)
        assert len(asked) == len(set(asked)) <= 2 * (most + 1).bit_length() + 1
        assert set(asked) <= set(range(most + 1))


def test_the_search_returns_what_held_even_if_more_does_not() -> None:
    """With a hole in the middle the answer is one of those that were seen to hold."""
    holding = {3, 4, 9}
    assert budget_module._fewest(9, holding.__contains__) in holding


def test_a_loose_budget_keeps_nothing(
    fit: Callable[..., BudgetResult], case: QuantizationCase, tmp_path: Path
) -> None:
    """The first graph is the fully quantized one, and it is taken if it holds; a file of weights there is gone."""
    (tmp_path / "int8.onnx.data").write_bytes(b"of a larger graph")
    result = fit(tmp_path, Budget("cosine", 0.9))
    assert result.keep == {}
    assert [(step.num_kept, step.holds) for step in result.steps] == [(0, True)]
    assert result.built.quantized == case.builder().make()[1].quantized
    assert tuple(tmp_path.iterdir()) == result.built.files == (tmp_path / "int8.onnx",)


def test_a_budget_is_held_by_the_graph_on_disk(search: Search, case: QuantizationCase) -> None:
    """The file measures as the result says, and that is within the budget."""
    result = search.result
    measured = measure(result.built, case.reference, threads=1)
    own = list(result.built.stages)[-1]
    assert result.evidence == measured
    assert result.value == Accuracy.of(item for item in measured if item.stage == own).mean_cosine
    assert result.value >= search.limit


def test_steps_tell_the_path(
    search: Search, order: tuple[Sensitivity, ...], accuracies: list[Accuracy]
) -> None:
    """Doubled until it holds, then halved; each step names its blocks and what they came to."""
    steps = search.result.steps
    assert [(step.num_kept, step.holds) for step in steps] == [
        (0, False),
        (1, False),
        (2, False),
        (4, True),
        (3, False),
    ]
    for step in steps:
        assert step.kept == tuple(item.name for item in order[: step.num_kept])
        assert step.value == accuracies[step.num_kept].mean_cosine


def test_progress_tells_each_graph(search: Search) -> None:
    """Each graph that was tried is announced and counted."""
    assert len(search.texts) == 5
    assert search.texts[0].startswith("0 of 9 blocks in float: cosine 0.99")
    assert [done for done, _ in search.counts[:-1]] == [1, 2, 3, 4, 5]
    assert search.counts[-1][0] == search.counts[-1][1] >= 5


def test_the_graph_is_that_of_the_answer(search: Search, case: QuantizationCase, tmp_path: Path) -> None:
    """Though another one was tried after it, the file is the one with four blocks kept, and nothing lies beside it."""
    direct = case.builder().build(tmp_path / "int8.onnx", search.result.keep)
    assert search.result.built.path.read_bytes() == direct.path.read_bytes()
    assert list(search.result.built.path.parent.iterdir()) == [search.result.built.path]


def test_kept_linears_say_why(search: Search, order: tuple[Sensitivity, ...]) -> None:
    """Every linear of a kept block is in float for the reason that its block is sensitive."""
    result = search.result
    assert set(result.keep) == {path for item in order[:4] for path in item.linears}
    assert {path: result.built.kept[path] for path in result.keep} == result.keep
    assert result.keep[order[3].linears[0]] == f"budget: block {order[3].name} is among the 4 most sensitive"
    assert not set(result.keep) & set(result.built.quantized)


@pytest.mark.parametrize(("metric", "field"), [("worst_cosine", "worst_cosine"), ("sqnr", "sqnr_db")])
def test_other_metrics_are_those_of_the_output(
    fit: Callable[..., BudgetResult],
    accuracies: list[Accuracy],
    order: tuple[Sensitivity, ...],
    tmp_path: Path,
    metric: str,
    field: str,
) -> None:
    """The worst token, or the ratio on the worst image, decides."""
    without, kept_one = (getattr(item, field) for item in accuracies[:2])
    budget = Budget(metric, (without + kept_one) / 2)  # type: ignore[arg-type]  # parametrised
    result = fit(tmp_path, budget)
    assert [step.value for step in result.steps] == [without, kept_one]
    assert set(result.keep.values()) == {f"budget: block {order[0].name} is the most sensitive"}


def test_an_impossible_budget_is_an_error(
    fit: Callable[..., BudgetResult], order: tuple[Sensitivity, ...], tmp_path: Path
) -> None:
    """It names the block that alone misses the budget and the best that was found, and leaves no file."""
    with pytest.raises(AccuracyError) as caught:
        fit(tmp_path, Budget("cosine", 1.0))
    message = str(caught.value)
    assert f"{order[-1].name}, the least sensitive of {len(order)} blocks" in message
    assert "0: 0.99" in message
    assert f"with {len(order) - 1} blocks kept" in message
    assert "--int8-weight-only" in message
    assert not list(tmp_path.iterdir())


def test_what_is_kept_anyway_stays_kept(
    fit: Callable[..., BudgetResult], order: tuple[Sensitivity, ...], tmp_path: Path
) -> None:
    """Linears that the caller keeps are in float from the first graph on, with the caller's reason."""
    rest = [item for item in order if not item.name.startswith("tower")]
    mine = {path: "kept by 'tower.*'" for item in order if item not in rest for path in item.linears}
    result = fit(tmp_path, Budget("cosine", 0.9), keep=mine, sensitivities=rest)
    assert [step.num_kept for step in result.steps] == [0]
    assert {path: result.built.kept[path] for path in mine} == mine
    assert result.keep == {}


def test_a_score_of_the_caller_decides(
    fit: Callable[..., BudgetResult], case: QuantizationCase, accuracies: list[Accuracy], tmp_path: Path
) -> None:
    """The function gets the output for every evaluation image, and its value is what the steps record."""
    expected = [outputs["visual_tokens"] for outputs in case.reference.outputs]

    def ratio(outputs: list[np.ndarray]) -> float:
        both = zip(outputs, expected, strict=True)
        return min(compare("", "", reference, output).sqnr_db or 0.0 for output, reference in both)

    limit = (accuracies[0].sqnr_db + accuracies[1].sqnr_db) / 2
    result = fit(tmp_path, Budget("score", limit), score=ratio)
    assert [step.value for step in result.steps] == pytest.approx([item.sqnr_db for item in accuracies[:2]])
    assert [step.holds for step in result.steps] == [False, True]


@pytest.mark.parametrize("returned", [float("nan"), None, "good"])
def test_a_score_that_is_no_number_is_an_error(
    fit: Callable[..., BudgetResult], tmp_path: Path, returned: object
) -> None:
    """It is not taken for a failed budget, and leaves no file."""
    with pytest.raises(ConfigError, match="expected a finite number"):
        fit(tmp_path, Budget("score", 0.0), score=lambda _: returned)
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_score_comes_through(fit: Callable[..., BudgetResult], tmp_path: Path) -> None:
    """Nothing is left then either."""

    def broken(_: object) -> float:
        raise RuntimeError("no questions")

    with pytest.raises(RuntimeError, match="no questions"):
        fit(tmp_path, Budget("score", 0.0), score=broken)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("budget", "score"), [(Budget("score", 0.0), None), (Budget("cosine", 0.9), lambda _: 1.0)]
)
def test_score_and_budget_belong_together(
    fit: Callable[..., BudgetResult], tmp_path: Path, budget: Budget, score: object
) -> None:
    """One without the other is an error before anything is built."""
    with pytest.raises(ConfigError, match="score"):
        fit(tmp_path, budget, score=score)
    assert not list(tmp_path.iterdir())


def test_sensitivities_of_another_graph_are_an_error(
    fit: Callable[..., BudgetResult], order: tuple[Sensitivity, ...], tmp_path: Path
) -> None:
    """A block that is missing would never be kept, one too many cannot be."""
    other = dataclasses.replace(order[0], name="tower.blocks.9")
    with pytest.raises(QuantizationError, match="same recipe and the same graph"):
        fit(tmp_path, Budget("cosine", 0.9), sensitivities=order[1:])
    with pytest.raises(QuantizationError, match=r"tower\.blocks\.9"):
        fit(tmp_path, Budget("cosine", 0.9), sensitivities=[*order, other])
