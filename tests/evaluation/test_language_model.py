"""Which language model answered."""

from __future__ import annotations

import pytest

from pargo_export.errors import ConfigError
from pargo_export.evaluation.language_model import language_model_sha256


def test_the_hash_is_that_of_the_files(tmp_path):
    """Content, names and adapters count; the place and hidden files do not."""
    for name in ("one", "two"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "inner" / "weights").write_bytes(b"weights")
    (tmp_path / "two" / ".cache").mkdir()
    (tmp_path / "two" / ".cache" / "lock").write_text("hidden")
    found = language_model_sha256(tmp_path / "one")
    assert found == language_model_sha256(tmp_path / "two")
    (tmp_path / "adapters.pt").write_bytes(b"lora")
    with_adapters = language_model_sha256(tmp_path / "one", tmp_path / "adapters.pt")
    assert with_adapters != found
    (tmp_path / "adapters.pt").write_bytes(b"other")
    assert language_model_sha256(tmp_path / "one", tmp_path / "adapters.pt") != with_adapters
    (tmp_path / "two" / "inner" / "weights").write_bytes(b"weighty")
    assert language_model_sha256(tmp_path / "two") != found


def test_an_empty_directory_is_told(tmp_path):
    """There is nothing to tell it from others by."""
    with pytest.raises(ConfigError, match="no files there"):
        language_model_sha256(tmp_path)
