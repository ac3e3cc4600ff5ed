"""`quantize --budget mme-drop=X --data --llm`: from the command line to the manifest, with a real language model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from mme_case import write_data
from tokenizers import Tokenizer, models, pre_tokenizers

from pargo_export.bundle import Bundle

HIDDEN = 80  # width of the visual tokens of `pargo_w2`
WORDS = ("<unk>", "<s>", "</s>", "yes", "no", "USER:", "ASSISTANT:", "Is", "right?", "wrong?", "0", "1", "2")
# Few blocks, so that the search is short.
FEW = ("--keep", "tower.*", "--keep", "projector.layers.*", "--threads", 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two tasks with three images each."""
    return write_data(tmp_path_factory.mktemp("mme") / "data", {"existence": 3, "fine_detail": 3})


def write_llm(path: Path, hidden: int) -> Path:
    """Write a random Llama whose head weighs yes against no, and ends the answer after either of them."""
    import transformers

    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=hidden,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    model = transformers.LlamaForCausalLM(config)
    yes, no, end = (WORDS.index(word) for word in ("yes", "no", "</s>"))
    with torch.no_grad():
        weighing, ending = torch.randn(2, hidden)
        head = torch.zeros(len(WORDS), hidden)
        head[yes], head[no], head[end] = weighing, -weighing, 20 * ending
        model.lm_head.weight.copy_(head)
        model.model.embed_tokens.weight[[yes, no]] = 20 * ending
    model.save_pretrained(path)
    special = {"bos_token": WORDS[1], "eos_token": WORDS[2], "unk_token": WORDS[0]}
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, WORDS[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.save_pretrained(path)
    return path


def test_a_budget_on_mme(run, run_json, bundle_to_quantize, data, tmp_path):
    """The drop against the float32 graph, both scores of each task, and the same again without a run."""
    llm = write_llm(tmp_path / "tiny-llama", HIDDEN)
    arguments = (bundle_to_quantize, "--int8", *FEW, "--budget", "mme-drop=80", "--data", data, "--llm", llm)
    result = run("quantize", *arguments)
    assert result.exit_code == 0, result.output
    evidence = Bundle.open(bundle_to_quantize).variant("int8-cpu").evidence.task
    assert evidence.language_model == "tiny-llama"
    assert (evidence.num_images, evidence.num_questions, evidence.limit_percent) == (6, 12, 80)
    assert set(evidence.tasks) == {"existence", "fine_detail"}
    assert evidence.baseline == pytest.approx(sum(pair.baseline for pair in evidence.tasks.values()))
    assert evidence.settings["num_beams"] == 1
    assert "\nMME, answered by tiny-llama\n" in result.stdout
    total = rf"^  total +{evidence.baseline:.2f} +{evidence.value:.2f} +\S+$"
    assert re.search(total, result.stdout, re.MULTILINE)
    text = " ".join(result.stdout.split())
    assert "Budget mme-drop=80, the graphs tried in order" in text
    assert f"drop {evidence.drop_percent:.2f} %, allowed 80 %; of 12 answers" in text
    values = run_json("quantize", *arguments)
    assert values["reused"]
    assert values["variant"]["evidence"]["task"]["data_sha256"] == evidence.data_sha256
    other = run("quantize", *arguments, "--beams", 2)
    assert other.exit_code == 1
    assert "made otherwise" in other.stderr


def test_a_language_model_of_another_width(run, calibrated, data, tmp_path):
    """The widths are compared before a graph is searched for: one red line with both, and an unchanged bundle."""
    before = (calibrated / "manifest.json").read_bytes()
    small = write_llm(tmp_path / "small", 64)
    result = run(
        *("quantize", calibrated, "--int8", *FEW, "--budget", "mme-drop=1", "--data", data, "--llm", small)
    )
    assert result.exit_code == 1
    assert "found a width of 80, expected 64" in result.stderr
    assert (calibrated / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--budget", "mme-drop=1"), "--budget mme-drop=1 needs --data and --llm"),
        (("--budget", "mme-drop=1", "--data", "d"), "--budget mme-drop=1 needs --llm"),
        (("--budget", "mme-drop=1", "--llm", "d"), "--budget mme-drop=1 needs --data"),
        (("--data", "d"), "only for --budget mme-drop=X: --data"),
        (
            ("--budget", "cosine=0.9", "--llm", "d", "--beams", "2"),
            "only for --budget mme-drop=X: --llm, --beams",
        ),
        (("--budget", "mme-drop=1", "--data", "d", "--llm", "d", "--beams", "0"), "--beams"),
    ],
)
def test_usage_errors(run, arguments, message):
    """Options that need each other are named; the exit status is 2."""
    result = run("quantize", "b", "--int8", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())


def test_help_says_what_the_number_is(run):
    """Percent of the float32 graph's total, not points."""
    text = " ".join(run("quantize", "--help").stdout.split())
    assert "mme-drop at most X: percent of the float32 graph's total" in text
