"""A tiny language model, opened once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from language_models import tiny_llama
from numpy.typing import NDArray

from pargo_export.llm import LanguageModel, open_language_model


@pytest.fixture(scope="session")
def llama_directory(tmp_path_factory) -> Path:
    """Return the directory of a tiny random Llama, 80 wide; do not write to it."""
    return tiny_llama(tmp_path_factory)


@pytest.fixture(scope="session")
def language_model(llama_directory) -> Iterator[LanguageModel]:
    """Return the tiny Llama, opened by transformers."""
    with open_language_model(llama_directory) as opened:
        yield opened


@pytest.fixture(scope="session")
def visual_tokens() -> NDArray[np.float32]:
    """Return visual tokens of three images, `[3, 5, 80]`."""
    return np.random.default_rng(5).normal(size=(3, 5, 80)).astype(np.float32)
