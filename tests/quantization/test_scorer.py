from __future__ import annotations

from pathlib import Path

import pytest

from pargo_export.errors import ConfigError
from pargo_export.quantization.scorer import load_scorer

MODULE = """
def mean(outputs):
    return float(sum(outputs) / len(outputs))

limit = 3
"""


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules that can be imported."""
    (tmp_path / "scoring_sample.py").write_text(MODULE, "utf-8")
    (tmp_path / "scoring_broken.py").write_text("raise RuntimeError('no licence')\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)


def test_a_function_is_imported() -> None:
    """It is the function of the module."""
    assert load_scorer("scoring_sample:mean")([1, 2, 6]) == 3.0  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scoring_sample", "expected package.module:function"),
        ("scoring_sample:", "expected package.module:function"),
        (":mean", "expected package.module:function"),
        ("scoring_sample:mean()", "expected package.module:function"),
        ("scoring_absent:mean", "cannot import 'scoring_absent'.*PYTHONPATH"),
        ("..relative:mean", "cannot import"),
        ("scoring_broken:mean", "RuntimeError: no licence"),
        ("scoring_sample:median", "no function 'median'; it has: mean"),
        ("scoring_sample:limit", "no function 'limit'; it has: mean"),
    ],
)
def test_what_is_no_function_is_an_error(text: str, message: str) -> None:
    """Each mistake has its own message."""
    with pytest.raises(ConfigError, match=message):
        load_scorer(text)
