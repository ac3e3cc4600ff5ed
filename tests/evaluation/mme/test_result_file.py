"""An evaluation as a file."""

from __future__ import annotations

import json

import pytest
from golden_cases import GOLDEN

from pargo_export.errors import ConfigError
from pargo_export.evaluation.mme.result_file import read_evaluation, write_evaluation
from pargo_export.evaluation.mme.score_only import score_only


@pytest.fixture
def saved(tmp_path):
    """A file with an evaluation."""
    return write_evaluation(score_only(GOLDEN / "mme"), tmp_path / "found.json")


def test_what_was_written_is_read_back(saved):
    """Fields of later versions are kept."""
    values = json.loads(saved.read_text())
    values["variants"][0]["later"] = 1
    saved.write_text(json.dumps({**values, "schema_version": "1.7"}))
    found = read_evaluation(saved)
    assert found.variants[0].scores == score_only(GOLDEN / "mme").variants[0].scores
    assert found.model_dump()["variants"][0]["later"] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "pargo-export benchmark"}, "found 'pargo-export benchmark', expected the result of"),
        ({"schema_version": "2.0"}, r"found schema version 2\.0, expected 1\.x"),
        ({"variants": 3}, "variants: "),
    ],
)
def test_other_files_are_refused(saved, changes, message):
    """By kind, major version and field."""
    saved.write_text(json.dumps({**json.loads(saved.read_text()), **changes}))
    with pytest.raises(ConfigError, match=message):
        read_evaluation(saved)


def test_files_that_cannot_be_used_are_told(tmp_path):
    """Missing, no JSON, no place to write."""
    with pytest.raises(ConfigError, match="cannot be read"):
        read_evaluation(tmp_path / "nothing.json")
    (tmp_path / "text.json").write_text("text")
    with pytest.raises(ConfigError, match="no JSON"):
        read_evaluation(tmp_path / "text.json")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_evaluation(score_only(GOLDEN / "mme"), tmp_path / "nowhere" / "x.json")
