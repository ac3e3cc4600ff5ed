from __future__ import annotations

import json
import shutil

import pytest
from golden_cases import GOLDEN
from language_models import tiny_llama

from pargo_export.assets import PHOTOGRAPH
from pargo_export.cli.commands import chat as chat_command
from pargo_export.llm import CHAT_TEMPLATE, MME_TEMPLATE, Chat, GenerationSettings, open_language_model
from pargo_export.runtime import Runtime

QUESTIONS = ("Is it red?", "Is there a dog in the image?")
SHORT = ("--max-new-tokens", "5", "--threads", "1")


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    """Return the directory of a tiny Llama."""
    return tiny_llama(tmp_path_factory)


@pytest.fixture(scope="module")
def answers(exported_bundle, llm):
    """Return the answers of the library, by number of beams and template."""
    found = {}
    with (
        Runtime.open(exported_bundle, variant="fp32", threads=1) as runtime,
        open_language_model(llm) as model,
    ):
        for beams, template in ((4, MME_TEMPLATE), (1, MME_TEMPLATE), (4, CHAT_TEMPLATE)):
            settings = GenerationSettings(max_new_tokens=5, num_beams=beams)
            chat = Chat(runtime, model, template=template, settings=settings)
            found[beams, template] = chat.ask(PHOTOGRAPH, QUESTIONS)
    return found


@pytest.fixture
def terminal(monkeypatch):
    """Let standard input and output be a terminal."""
    monkeypatch.setattr(chat_command, "_is_terminal", lambda _: True)


def test_json(run_json, exported_bundle, llm, answers):
    """The official settings and template by default; the result says what ran."""
    result = run_json(
        "chat", exported_bundle, "--llm", llm, PHOTOGRAPH, *QUESTIONS, *SHORT, "--variant", "fp32"
    )
    assert [item["answer"] for item in result["answers"]] == answers[4, MME_TEMPLATE]
    assert [item["question"] for item in result["answers"]] == list(QUESTIONS)
    assert (result["variant"], result["backend"], result["template"]) == ("fp32", "onnxruntime", MME_TEMPLATE)
    assert result["settings"] == {
        "max_new_tokens": 5,
        "num_beams": 4,
        "length_penalty": 1.0,
        "repetition_penalty": 1.0,
        "min_new_tokens": 1,
    }
    assert set(result["seconds"]) == {"encode", "generate"}


def test_greedy_with_another_template(run, run_json, exported_bundle, llm, answers, tmp_path):
    """--greedy and --beams 1 are greedy search; a template is named or a file; answers stand one a line."""
    start = ("chat", exported_bundle, "--llm", llm, PHOTOGRAPH, QUESTIONS[0], *SHORT)
    assert run_json(*start, "--greedy")["answers"][0]["answer"] == answers[1, MME_TEMPLATE][0]
    (tmp_path / "mine.txt").write_text(CHAT_TEMPLATE + "\n")
    for template in ("chat", tmp_path / "mine.txt"):
        result = run(*start, "--template", template)
        assert result.stdout == answers[4, CHAT_TEMPLATE][0] + "\n"


def test_streaming_on_a_terminal(run, exported_bundle, llm, answers, terminal):  # noqa: ARG001
    """Greedy answers are streamed on a terminal, and without --stream no others."""
    start = ("chat", exported_bundle, "--llm", llm, PHOTOGRAPH, *QUESTIONS, *SHORT)
    streamed = run(*start, "--greedy").stdout
    assert run(*start, "--greedy", "--no-stream").stdout == "".join(
        f"{text}\n" for text in answers[1, MME_TEMPLATE]
    )
    assert streamed.replace(" ", "") == "".join(f"{text}\n" for text in answers[1, MME_TEMPLATE]).replace(
        " ", ""
    )
    refused = run(*start, "--stream")
    assert refused.exit_code == 1
    assert "found 4 beams, expected greedy search" in " ".join(refused.stderr.split())


def test_a_conversation(exported_bundle, llm, answers, terminal, monkeypatch):  # noqa: ARG001
    """Without a question they are read line by line, about one picture that is encoded once; an empty line ends."""
    from click.testing import CliRunner

    from pargo_export.cli.main import cli

    encoded = []
    encode = Chat.encode
    monkeypatch.setattr(
        Chat, "encode", lambda self, images: (encoded.append(images), encode(self, images))[1]
    )
    lines = [QUESTIONS[1], "what is <ImageHere>?", QUESTIONS[0], "", "not read"]
    arguments = ["chat", str(exported_bundle), "--llm", str(llm), str(PHOTOGRAPH), *SHORT]
    result = CliRunner().invoke(cli, arguments, input="\n".join(lines))
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [answers[4, MME_TEMPLATE][1], answers[4, MME_TEMPLATE][0]]
    assert "holds <ImageHere>" in result.stderr
    assert encoded == [PHOTOGRAPH]
    ended = CliRunner().invoke(cli, arguments, input=QUESTIONS[0] + "\n")  # the end of the input
    assert ended.stdout == answers[4, MME_TEMPLATE][0] + "\n"
    assert ended.exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing argument 'QUESTION'"),
        (("Is it red?", "--greedy", "--beams", "3"), "found --greedy and --beams 3"),
        (("Is it red?", "--stream", "--json"), "found --stream and --json"),
    ],
)
def test_usage(run, exported_bundle, llm, arguments, message):
    """What cannot be meant is a usage error."""
    result = run("chat", exported_bundle, "--llm", llm, PHOTOGRAPH, *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_errors(run, exported_bundle, llm, tmp_path):
    """What the library refuses is one error."""
    start = ("chat", exported_bundle, "--llm", llm, PHOTOGRAPH)
    cases = [
        ((*start, " "), "the question is empty"),
        ((*start, "x", "--template", "nowhere"), "neither a name"),
        ((*start[:3], tmp_path / "nowhere", PHOTOGRAPH, "x"), "no such directory"),
        ((*start[:4], tmp_path / "nowhere.jpg", "x"), "nowhere.jpg"),
        ((*start, "x", "--lora-alpha", "2"), "without adapters"),
        ((*start, "x", "--variant", "external"), "projector"),
    ]
    for arguments, message in cases:
        result = run(*arguments)
        assert result.exit_code == 1, arguments
        assert message in " ".join(result.stderr.split())


def test_adapters_of_another_width(run, exported_bundle, llm, tmp_path):
    """A checkpoint with a language model of 32 is refused for a bundle of 80, with both numbers."""
    directory = shutil.copytree(GOLDEN / "llm" / "llama", tmp_path / "llm")
    for path in llm.glob("tokenizer*"):
        shutil.copy(path, directory)
    assert json.loads((directory / "config.json").read_text())["hidden_size"] == 32
    checkpoint = GOLDEN / "llm" / "llama.safetensors"
    result = run("chat", exported_bundle, "--llm", directory, PHOTOGRAPH, "x", "--adapters", checkpoint)
    assert result.exit_code == 1
    assert "width 80, but the embeddings of llm have 32" in " ".join(result.stderr.split())
