from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from pargo_export.assets import PHOTOGRAPH
from pargo_export.errors import BackendError, ConfigError, InputError, IntegrityError
from pargo_export.llm import (
    GREEDY,
    MME_TEMPLATE,
    OFFICIAL,
    Chat,
    LanguageModel,
    fill_template,
    open_language_model,
    splice,
)
from pargo_export.llm.onnx import OnnxLanguageModel, open_onnx_language_model
from pargo_export.runtime import Runtime

SHORT = replace(OFFICIAL, max_new_tokens=9)
GREEDY_SHORT = replace(GREEDY, max_new_tokens=20)
QUESTIONS = ("Is it red?", "Is there a dog in the image? Please answer yes or no.", "naïve 数字")
WITHOUT_PYTORCH = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "onnx", "onnx_ir", "onnxscript", "peft"):
            raise ModuleNotFoundError(f"{name} is not installed", name=name)
sys.meta_path.insert(0, Blocker())
from pargo_export.llm import GREEDY, OFFICIAL, Chat, open_language_model
from pargo_export.runtime import Runtime
bundle, llm, photo, question = sys.argv[1:]
with Runtime.open(bundle, variant="fp32", threads=1) as runtime, open_language_model(llm, threads=1) as model:
    print(Chat(runtime, model, settings=OFFICIAL).ask([photo], [question])[0])
    print("".join(Chat(runtime, model, settings=GREEDY).stream(photo, question)))
"""


@pytest.fixture(scope="module")
def spliced(reference, visual_tokens):
    """Return a batch with left padding."""
    return splice(reference, visual_tokens, [fill_template(MME_TEMPLATE, text) for text in QUESTIONS])


def test_it_is_a_language_model(onnx_model, reference):
    """The object keeps the protocol, and has width, begin of sequence and embeddings of the original."""
    assert isinstance(onnx_model, LanguageModel)
    assert (onnx_model.hidden_size, onnx_model.bos_token_id) == (80, 0)
    assert np.array_equal(onnx_model.embed([3, 1, 3]), reference.embed([3, 1, 3]))
    assert onnx_model.embed([]).shape == (0, 80)


@pytest.mark.parametrize("text", ["", " ", *QUESTIONS, "<s>a</s>"])
def test_texts_become_the_tokens_of_transformers(onnx_model, reference, text):
    """Tokenizing and decoding are those of transformers."""
    tokens = reference.tokenize(text)
    assert onnx_model.tokenize(text) == tokens
    assert onnx_model.decode(tokens) == reference.decode(tokens)


@pytest.mark.parametrize("settings", [SHORT, GREEDY_SHORT, replace(SHORT, repetition_penalty=3.0)])
def test_answers_are_those_of_transformers(onnx_model, reference, spliced, settings):
    """A batch padded on the left is continued as transformers does, greedily and with beams."""
    expected = reference.generate(*spliced, settings)
    assert onnx_model.generate(*spliced, settings) == expected
    assert len(set(expected)) == 3


def test_adapters_are_in_the_graph(onnx_model, language_model, spliced):
    """Without the adapters the answers are others."""
    assert language_model.generate(*spliced, GREEDY_SHORT) != onnx_model.generate(*spliced, GREEDY_SHORT)


def test_a_stream_is_the_answer_piece_by_piece(onnx_model, spliced):
    """The pieces come one by one and together are the text of `generate`, characters of several bytes whole."""
    embeddings, mask = spliced[0][1:2], spliced[1][1:2]
    settings = replace(GREEDY, max_new_tokens=40)
    [text] = onnx_model.generate(embeddings, mask, settings)
    pieces = list(onnx_model.stream(embeddings, settings))
    assert "".join(pieces) == text
    assert len(pieces) > 10


def test_bad_input_is_refused(onnx_model, spliced):
    """Shapes, padding on the wrong side, tokens that do not exist, and streams of several are refused."""
    embeddings, mask = spliced
    with pytest.raises(InputError, match=r"\[3, .*, 80\].*expected|expected \[B, L, 80\]"):
        onnx_model.generate(embeddings[..., :7], mask, SHORT)
    with pytest.raises(InputError, match="pad on the left"):
        onnx_model.generate(embeddings, mask[:, ::-1], SHORT)
    with pytest.raises(InputError, match="token 100000"):
        onnx_model.embed([100000])
    with pytest.raises(ConfigError, match="4 beams"):
        onnx_model.stream(embeddings[:1], OFFICIAL)
    with pytest.raises(InputError, match="3 sequences"):
        onnx_model.stream(embeddings, GREEDY)


def test_it_closes(exported, spliced):
    """A closed model says so; closing twice does nothing."""
    with open_onnx_language_model(exported, threads=1) as model:
        model.close()
    with pytest.raises(BackendError, match="is closed"):
        model.generate(*spliced, SHORT)


@pytest.mark.parametrize(
    ("name", "change", "error", "message"),
    [
        ("decoder.onnx.data", lambda data: data[:-4] + b"\0\0\0\1", IntegrityError, "SHA-256"),
        ("tokenizer.json", lambda data: data + b" ", IntegrityError, "bytes"),
        ("embeddings.safetensors", None, IntegrityError, "missing"),
        ("language_model.json", lambda data: data[:-9], ConfigError, "not JSON"),
        (
            "language_model.json",
            lambda data: data.replace(b'"1.0"', b'"2.0"'),
            ConfigError,
            "schema version 2.0",
        ),
        ("language_model.json", lambda data: data.replace(b'"fp32"', b'"fp8"'), ConfigError, "precision"),
        ("language_model.json", None, ConfigError, "no language_model.json"),
    ],
)
def test_a_directory_that_was_changed_is_refused(exported, tmp_path, name, change, error, message):
    """Every file is compared with the record, and the record is checked."""
    copy = shutil.copytree(exported, tmp_path / "llm")
    path = copy / name
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    with pytest.raises(error, match=message):
        open_onnx_language_model(copy)


def test_the_directory_is_recognised(exported):
    """`open_language_model` finds by itself what runs it; the record says what it is."""
    with open_language_model(exported, threads=1) as model:
        assert isinstance(model, OnnxLanguageModel)
    record = json.loads((exported / "language_model.json").read_bytes())
    assert record["model_type"] == "llama"
    assert record["evidence"]["passed"]
    assert str(exported.parents[3]) not in (exported / "decoder.onnx").read_bytes().decode("latin-1")


def test_a_photograph_is_asked_about_without_pytorch(exported_bundle, exported, reference):
    """Where torch, transformers and onnx cannot be imported, the whole model answers as with them."""
    question = QUESTIONS[1]
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT_PYTORCH, exported_bundle, exported, PHOTOGRAPH, question],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    with Runtime.open(exported_bundle, variant="fp32", threads=1) as runtime:
        [expected] = Chat(runtime, reference, settings=OFFICIAL).ask([PHOTOGRAPH], [question])
        streamed = "".join(Chat(runtime, reference, settings=GREEDY).stream(PHOTOGRAPH, question))
    assert found.stdout == f"{expected}\n{streamed}\n"
