from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from golden_cases import GOLDEN

from pargo_export.errors import ConfigError, MissingDependencyError
from pargo_export.llm import open_language_model
from pargo_export.llm.tokenizer import SentencePieceTokenizer, open_tokenizer


@pytest.fixture(scope="module")
def pieces(tmp_path_factory) -> Path:
    """Return a sentencepiece file with the control tokens of InternLM2, trained on a few words."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    directory = tmp_path_factory.mktemp("pieces")
    (directory / "text.txt").write_text("Is there a dog in the image?\nyes no answer the question\n" * 9)
    sentencepiece.SentencePieceTrainer.train(
        input=str(directory / "text.txt"),
        model_prefix=str(directory / "tokenizer"),
        model_type="bpe",
        vocab_size=64,
        hard_vocab_limit=False,
        byte_fallback=False,
        add_dummy_prefix=False,
        minloglevel=2,
    )
    return directory / "tokenizer.model"


def test_sentencepiece(pieces):
    """Texts go there and back; control tokens are shown by name, those beyond the file by number."""
    tokenizer = SentencePieceTokenizer(pieces)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, None)
    ids = tokenizer.encode("is the dog", add_special_tokens=False)
    assert tokenizer.encode("is the dog") == [1, *ids]
    assert tokenizer.decode(ids) == "is the dog"
    assert tokenizer.decode([1, *ids, 2, 9999]) == "<s>is the dog</s><token 9999>"


def test_internlm2_needs_no_code_for_its_tokenizer(pieces, tmp_path):
    """A directory of InternLM2 opens with its tokenizer.model alone."""
    directory = Path(shutil.copytree(GOLDEN / "llm" / "internlm2", tmp_path / "llm"))
    shutil.copy(pieces, directory / "tokenizer.model")
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["a.B", None]}})
    )
    with open_language_model(
        directory, adapters=GOLDEN / "llm" / "internlm2.safetensors", lora_alpha=6
    ) as opened:
        assert opened.bos_token_id == 1
        assert opened.decode([*opened.tokenize("dog"), 2, 5]) == "dog"
    (directory / "tokenizer.model").write_bytes(b"broken")
    with pytest.raises(ConfigError, match="sentencepiece cannot read it"):
        open_tokenizer(directory, model_type="internlm2")


def test_sentencepiece_is_not_installed(tmp_path, monkeypatch):
    """What to install is said."""
    (tmp_path / "tokenizer.model").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(
        MissingDependencyError, match=r"sentencepiece is needed to read tokenizer\.model: pip install"
    ):
        open_tokenizer(tmp_path, model_type="internlm2")
