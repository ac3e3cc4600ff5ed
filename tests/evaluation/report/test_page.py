"""The page about an evaluation, as written and in a real browser."""

from __future__ import annotations

import dataclasses

import pytest
from golden_cases import GOLDEN
from mme_case import FACTS, write_data
from plotly import graph_objects

from pargo_export.bench.environment import describe_environment
from pargo_export.errors import PargoExportError
from pargo_export.evaluation.mme.compare import compare_answers
from pargo_export.evaluation.mme.records import (
    DataFacts,
    EncodeTimes,
    MmeEvaluation,
    Settings,
    TokenAgreement,
    VariantResult,
)
from pargo_export.evaluation.mme.results import read_pairs
from pargo_export.evaluation.mme.score_only import score_only
from pargo_export.evaluation.mme.scoring import score_pairs
from pargo_export.evaluation.report import write_evaluation_report
from pargo_export.evaluation.report.differences import differences
from pargo_export.evaluation.report.scores import scores

HOSTILE = "<script>window.ran = true</script><img src=x onerror='window.ran = true'> {{ 7 * 7 }}"
BEFORE, AFTER = FACTS.template.replace("\n", " ").split("{}")


def full_evaluation(root) -> MmeEvaluation:
    """An evaluation of three variants: one the same as the baseline, one with flips, images of some at `root`."""
    write_data(root, {"count": 2})
    golden = read_pairs(GOLDEN / "mme")
    baseline = {
        task: [tuple(_rename(answer, index, task) for answer in pair) for index, pair in enumerate(pairs)]
        for task, pairs in {**golden, "fine_detail": golden["OCR"]}.items()
    }
    changed = {
        task: [tuple(_turn(answer, index) for answer in pair) for index, pair in enumerate(pairs)]
        for task, pairs in baseline.items()
    }
    variants = {"fp32": baseline, "same": baseline, "int8-cpu": changed}
    comparisons = [
        compare_answers(baseline, pairs, baseline_name="fp32", name=name).model_copy(
            update={
                "tokens": TokenAgreement(
                    num_images=3, mean_cosine=0.9991, worst_cosine=0.98, max_abs=0.5, sqnr_db=31.0
                ),
                "times": EncodeTimes(num_images=3, baseline_ms=200.0, variant_ms=61.5, ratio=0.31),
            }
        )
        for name, pairs in variants.items()
        if name != "fp32"
    ]
    return MmeEvaluation(
        created="2026-11-23T18:00:00+00:00",
        settings=Settings(command="pargo-export eval mme", batch_size=8, num_token_images=3, seed=0),
        environment=describe_environment(),
        data=DataFacts(
            path=str(root), layout="pargo", tasks={"count": 2}, sha256="a" * 64, skipped=("x.png",)
        ),
        language_model=FACTS,
        variants=tuple(
            VariantResult(
                name=name, backend="onnxruntime", results=name, scores=score_pairs(pairs), encode_ms=12.3
            )
            for name, pairs in variants.items()
        ),
        comparisons=tuple(comparisons),
        warnings=("fp32: some answers are doubtful",),
    )


def _rename(answer, index: int, task: str):
    """Give the images of `count` the names of those that are there, and every prompt the template and an attack."""
    image = f"{index}.png" if task == "count" else answer.image
    return dataclasses.replace(answer, image=image, prompt=f"{BEFORE}{answer.prompt} {HOSTILE}{AFTER}")


def _turn(answer, index: int):
    """Answer wrong about every second image."""
    wrong = {"yes": "No", "no": "Yes"}[answer.truth]
    return dataclasses.replace(answer, text=answer.text if index % 2 else wrong)


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory) -> MmeEvaluation:
    """An evaluation with everything in it."""
    return full_evaluation(tmp_path_factory.mktemp("page") / "data")


@pytest.fixture(scope="module")
def written(evaluation, tmp_path_factory):
    """Its page."""
    return write_evaluation_report(evaluation, tmp_path_factory.mktemp("page") / "page.html")


def test_plotly_accepts_every_figure(evaluation):
    """Traces and layouts are valid, the baseline is gray, scores are those of the record."""
    plots = [scores(evaluation).blocks[0], differences(evaluation).blocks[0]]
    for plot in plots:
        graph_objects.Figure(plot.views[0].figure)
    first = plots[0].views[0].figure["data"][0]
    assert first["marker"]["color"] == "var(--baseline-0)"
    expected = [round(task.score, 4) for task in evaluation.variants[0].scores.tasks.values()]
    assert first["x"] == expected
    marks = plots[1].views[0].figure["data"]
    assert [mark["text"][0] for mark in marks] == [
        "0.00",
        f"{evaluation.comparisons[1].difference_with_additional:+.2f}",
    ]


def test_results_alone_have_a_page_too(tmp_path):
    """Without bundle, data and language model, and without a comparison."""
    path = write_evaluation_report(score_only(GOLDEN / "mme"), tmp_path / "page.html")
    text = path.read_text()
    assert "1295.16" in text
    assert "Flipped questions" not in text
    assert '<a href="#scores">' in text


def test_what_cannot_be_written_is_told(tmp_path):
    """The place is named."""
    with pytest.raises(PargoExportError, match=r"nowhere/page\.html cannot be written"):
        write_evaluation_report(score_only(GOLDEN / "mme"), tmp_path / "nowhere" / "page.html")


def test_the_page_in_a_browser(browser, written):
    """It draws both plots, shows pictures of flips, fits on a phone, runs no script of the data and loads nothing."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    complaints = []
    address = written.as_uri()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda sent: (
            None
            if sent.url.partition("#")[0] == address or sent.url.startswith("data:")
            else complaints.append(sent.url)
        ),
    )
    page.goto(address)
    page.wait_for_selector("html[data-ready=true]", state="attached")
    assert page.title() == "MME evaluation: results"
    for anchor in ("scores-plot", "difference-plot"):
        page.locator(f"#{anchor}").scroll_into_view_if_needed()
        page.locator(f"#{anchor} svg.main-svg").first.wait_for()
    assert page.locator("#scores-plot .scatterlayer .trace").count() == 3
    page.locator("#scores-plot").get_by_role("button", name="int8-cpu").click()
    assert page.locator("#scores-plot .scatterlayer .trace").count() == 2
    gallery = page.locator(".gallery li")
    assert gallery.count() == 24
    assert page.locator(".gallery img").count() == 2  # only these two images are there
    assert page.locator(".gallery img").first.evaluate("e => e.naturalWidth") == 100
    assert HOSTILE in gallery.first.text_content()  # as text, the template taken off
    assert "USER:" not in gallery.first.text_content()
    assert gallery.first.get_attribute("class") == "bad"  # what is lost comes first
    assert "no question flipped beside fp32" in page.locator("#flips").text_content()
    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(150)
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.evaluate("window.ran") is None
    assert complaints == []
    page.close()
