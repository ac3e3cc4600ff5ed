"""From a bundle and questions to scores, flips and result files."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
from golden_cases import golden_case
from mme_case import FACTS, TokenReader

from pargo_export.bundle import Bundle
from pargo_export.errors import ConfigError, InputError
from pargo_export.evaluation.mme import read_mme, read_results, score_results
from pargo_export.evaluation.mme.evaluate import MmeOptions, evaluate_mme

OPTIONS = MmeOptions(variants=("fp32", "bf16@emulated"), batch_size=2, num_token_images=2, threads=1)


def evaluate(bundle, data, results, options=OPTIONS, *, answerer=None, facts=FACTS, **values):
    """Evaluate on all of the data, by default with a reader of tokens."""
    return evaluate_mme(
        Bundle.open(bundle),
        answerer or TokenReader(),
        read_mme(data),
        results,
        options,
        language_model=facts,
        **values,
    )


@pytest.fixture(scope="module")
def evaluated(exported_bundle, mme_data, tmp_path_factory):
    """An evaluation of three subjects, what was asked, and the results; do not write to them."""
    results, answerer = tmp_path_factory.mktemp("evaluated") / "results", TokenReader()
    options = dataclasses.replace(OPTIONS, checkpoint=golden_case("pargo_w2").checkpoint)
    steps = []
    found = evaluate(
        exported_bundle, mme_data, results, options, answerer=answerer, progress=steps.append, command="x"
    )
    return found, answerer, results, steps


def test_every_variant_is_scored_from_files_in_the_official_layout(evaluated):
    """Each variant has a file a task, with the prompt in its template, on one line, and the score of these files."""
    found, answerer, results, _ = evaluated
    assert [item.name for item in found.variants] == ["pytorch", "fp32", "bf16@emulated"]
    assert [item.backend for item in found.variants] == ["torch", "onnxruntime", "emulated"]
    lines = (results / "fp32" / "existence.txt").read_text().splitlines()
    assert len(lines) == 6
    image, prompt, truth, text = lines[0].split("\t")
    assert (image, truth) == ("0.png", "Yes")
    assert prompt == "USER: <ImageHere> Is existence 0 right? Please answer yes or no. ASSISTANT:"
    assert text in {"Yes", "No, it is not"}
    for item in found.variants:
        assert item.scores == score_results(results / item.name)
        assert set(item.scores.groups) == {"Perception", "Cognition", "Additional"}
        assert item.encode_ms > 0
    assert len(answerer.asked) == 3 * 18


def test_the_questions_of_an_image_share_its_tokens_and_few_images_are_in_memory(evaluated):
    """Of a batch of two images four questions are asked at once, the tokens of each image twice in a row."""
    _, answerer, _, _ = evaluated
    assert {shape[0] for shape in answerer.shapes} == {4, 2}
    assert len({shape[1:] for shape in answerer.shapes}) == 1


def test_the_exported_graph_answers_as_pytorch_does(evaluated):
    """Beside the reference, float32 ONNX has identical answers, and tokens that hardly differ."""
    found, _, _, _ = evaluated
    exact, coarse = found.comparisons
    assert (exact.variant, exact.baseline, exact.verdict) == ("fp32", "pytorch", "identical answers")
    assert (exact.difference, exact.p_value, exact.flips) == (0.0, 1.0, ())
    assert exact.tokens.num_images == exact.times.num_images == 2
    assert exact.tokens.worst_cosine > 0.99999
    assert coarse.tokens.worst_cosine < exact.tokens.worst_cosine
    assert exact.times.ratio > 0
    assert "not a benchmark" in exact.times.boundary


def test_facts_of_the_run_are_recorded(evaluated):
    """Bundle, data, language model, settings and machine are named, data by their hash."""
    found, _, _, steps = evaluated
    assert found.data.tasks == {"existence": 3, "code_reasoning": 3, "fine_detail": 3}
    assert re.fullmatch("[0-9a-f]{64}", found.data.sha256)
    assert found.language_model == FACTS
    assert (found.settings.command, found.settings.batch_size) == ("x", 2)
    assert found.environment.cpu.model
    assert found.bundle.num_visual_tokens == 22
    assert "bf16@emulated: fine_detail" in steps


def test_resuming_answers_only_what_is_missing(exported_bundle, mme_data, tmp_path):
    """Finished tasks are not asked again; the result is the same."""
    options = MmeOptions(variants=("fp32",), num_token_images=0, threads=1)
    first = evaluate(exported_bundle, mme_data, tmp_path, options)
    (tmp_path / "fp32" / "fine_detail.txt").unlink()
    answerer, advanced = TokenReader(), []
    again = evaluate(
        exported_bundle,
        mme_data,
        tmp_path,
        dataclasses.replace(options, resume=True),
        answerer=answerer,
        advance=lambda done, total: advanced.append((done, total)),
    )
    assert again.variants[0].reused == ("existence", "code_reasoning")
    assert len(answerer.asked) == 6
    assert advanced == [(3, 3)]
    assert again.variants[0].scores == first.variants[0].scores
    assert again.variants[0].seconds > 0


def test_results_of_something_else_are_not_gone_on_with(exported_bundle, mme_data, tmp_path):
    """Existing results need a decision; those of another language model, or changed ones, are refused by name."""
    options = MmeOptions(variants=("fp32",), num_token_images=0, threads=1)
    evaluate(exported_bundle, mme_data, tmp_path, options)
    with pytest.raises(ConfigError, match=r"holds results already.*--resume.*--force"):
        evaluate(exported_bundle, mme_data, tmp_path, options)
    resume = dataclasses.replace(options, resume=True)
    other = FACTS.model_copy(update={"sha256": "1" * 64})
    with pytest.raises(ConfigError, match=r"differ: language model \(found '000000000000\.\.\.'"):
        evaluate(exported_bundle, mme_data, tmp_path, resume, facts=other)
    path = tmp_path / "fp32" / "existence.txt"
    path.write_text(path.read_text().replace("\tYes\t", "\tNo\t", 1))
    with pytest.raises(ConfigError, match=r"existence\.txt: was changed"):
        evaluate(exported_bundle, mme_data, tmp_path, resume)
    force = dataclasses.replace(options, force=True)
    found = evaluate(exported_bundle, mme_data, tmp_path, force, facts=other)
    assert found.variants[0].reused == ()
    assert json.loads((tmp_path / "fp32" / "run.json").read_text())["identity"]["language model"] == "1" * 64
    with pytest.raises(ConfigError, match="both resume and force"):
        evaluate(exported_bundle, mme_data, tmp_path, dataclasses.replace(force, resume=True))


def test_other_questions_are_not_gone_on_with(exported_bundle, mme_data, tmp_path):
    """A task whose data changed is refused."""
    options = MmeOptions(variants=("fp32",), num_token_images=0, threads=1)
    whole, few = read_mme(mme_data), read_mme(mme_data, tasks=("existence",), limit=2)
    bundle = Bundle.open(exported_bundle)
    evaluate_mme(bundle, TokenReader(), few, tmp_path, options, language_model=FACTS, limit=2)
    resume = dataclasses.replace(options, resume=True)
    with pytest.raises(ConfigError, match="questions or images of existence are not those"):
        evaluate_mme(bundle, TokenReader(), whole, tmp_path, resume, language_model=FACTS)


def test_by_default_every_variant_that_runs_here_is_taken(exported_bundle, mme_data, tmp_path):
    """Parts of the model are left out, and variants that the backend does not run, which is said."""
    options = MmeOptions(num_token_images=0, threads=1, backend="onnxruntime")
    found = evaluate(exported_bundle, mme_data, tmp_path / "one", options)
    assert [item.name for item in found.variants] == ["fp32"]
    assert found.comparisons == ()
    assert "bf16 is left out: no backend of this machine runs it" in found.warnings
    both = evaluate(
        exported_bundle, mme_data, tmp_path / "two", dataclasses.replace(options, backend="emulated")
    )
    assert [item.name for item in both.variants] == ["fp32", "bf16"]
    assert both.comparisons[0].baseline == "fp32"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": ("fp32", "fp32")}, "fp32 twice"),
        ({"variants": ("@openvino",)}, "expected VARIANT or VARIANT@BACKEND"),
        ({"variants": ("external",)}, "variant 'external' is the projector alone"),
        ({"variants": ("nothing",)}, "there is no variant 'nothing'"),
        ({"variants": ("pytorch",)}, "--checkpoint"),
        ({"baseline": "fp16"}, "baseline: found 'fp16', expected one of fp32, bf16@emulated"),
        ({"batch_size": 0}, "batch_size: found 0"),
        ({"variants": ("fp32@nothing",)}, "unknown backend 'nothing'"),
    ],
)
def test_choices_that_cannot_be_are_refused(exported_bundle, mme_data, tmp_path, changes, message):
    """Names and numbers are checked, and the message says what there is."""
    with pytest.raises(Exception, match=message):
        evaluate(exported_bundle, mme_data, tmp_path, dataclasses.replace(OPTIONS, **changes))


def test_missing_answers_are_not_scored(exported_bundle, mme_data, tmp_path):
    """An answerer that leaves a question out fails, and no result file is written."""

    class Lazy:
        def answer(self, visual_tokens, questions):
            return [text[:3] for text, _ in zip(questions[1:], visual_tokens, strict=False)]

    with pytest.raises(Exception, match="asked 4 questions, found 3 answers"):
        evaluate(exported_bundle, mme_data, tmp_path, answerer=Lazy())
    assert not list(tmp_path.rglob("*.txt"))
    with pytest.raises(InputError, match="no result files"):
        read_results(tmp_path / "fp32")


def test_tokens_reach_the_answerer_as_the_runtime_made_them(exported_bundle, mme_data, tmp_path):
    """The rows of an image are the same, those of two images are not."""

    class Keeper(TokenReader):
        def answer(self, visual_tokens, questions):
            assert np.array_equal(visual_tokens[0], visual_tokens[1])
            assert not np.array_equal(visual_tokens[1], visual_tokens[2])
            return super().answer(visual_tokens, questions)

    options = MmeOptions(variants=("fp32",), num_token_images=0, threads=1)
    evaluate(exported_bundle, mme_data, tmp_path, options, answerer=Keeper())
