"""Results as files, and the schema that other programs read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bench_cases import measurement_of, result_of

from pargo_export.bench import BenchResult, read_result, write_result
from pargo_export.bench.records import SCHEMA_VERSION
from pargo_export.errors import ConfigError

RESULT = result_of([measurement_of(np.array([[10.0, 9.0], [11.0, 12.5]]))])
SCHEMA = Path(__file__).with_name("result_schema.json")


def describe_schema() -> dict[str, dict[str, str]]:
    """Return the fields of every record of a result: `required` or `optional`, by record and name."""
    definitions = BenchResult.model_json_schema(mode="serialization", ref_template="{model}")
    records = definitions.pop("$defs") | {"BenchResult": definitions}
    validation = BenchResult.model_json_schema(mode="validation", ref_template="{model}")
    required = validation.pop("$defs") | {"BenchResult": validation}
    return {
        name: {
            field: "required" if field in required[name].get("required", ()) else "optional"
            for field in record.get("properties", {})
        }
        for name, record in sorted(records.items())
    }


def test_the_schema_is_fixed():
    """Readers rely on the fields of this version.

    A field that is added must be optional and raises the minor version; one that is removed or changes its meaning raises
    the major version. Then write `describe_schema()` and the version to `result_schema.json`.
    """
    kept = json.loads(SCHEMA.read_text())
    assert kept == {"schema_version": SCHEMA_VERSION, "records": describe_schema()}


def test_round_trip(tmp_path):
    """What is read is what was written, samples and all; nothing is left beside the file."""
    path = write_result(RESULT, tmp_path / "result.json")
    assert read_result(path) == RESULT
    assert read_result(path).measurements[0].samples_ms == (10.0, 9.0, 11.0, 12.5)
    assert list(tmp_path.iterdir()) == [path]


def test_fields_of_later_versions_survive(tmp_path):
    """A result of a later minor version can be read, and written again without loss."""
    values = json.loads(write_result(RESULT, tmp_path / "result.json").read_text())
    values["schema_version"] = "1.99"
    values["weather"] = "rain"
    values["subjects"][0]["colour"] = "blue"
    later = tmp_path / "later.json"
    later.write_text(json.dumps(values))
    write_result(read_result(later), tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text()) == values


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no JSON"),
        ("[1]", "found 'list', expected the result"),
        ('{"variants": {}}', "found None, expected the result of `pargo-export bench --output`"),
        (
            json.dumps({"kind": "pargo-export benchmark", "schema_version": "2.0"}),
            r"version 2\.0, expected 1\.x",
        ),
        (json.dumps({"kind": "pargo-export benchmark"}), "version None"),
        (json.dumps({"kind": "pargo-export benchmark", "schema_version": "1.0"}), "result.json: .*subjects"),
    ],
)
def test_what_is_no_result(tmp_path, content, message):
    """The error says what was found instead."""
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_result(path)


def test_files_that_cannot_be_used(tmp_path):
    """Missing files and folders are named."""
    with pytest.raises(ConfigError, match=r"missing\.json: cannot be read"):
        read_result(tmp_path / "missing.json")
    with pytest.raises(ConfigError, match=r"nowhere/result\.json: cannot be written"):
        write_result(RESULT, tmp_path / "nowhere" / "result.json")
