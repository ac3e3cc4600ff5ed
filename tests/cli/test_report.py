"""`pargo-export report`."""

from __future__ import annotations

from report_case import full_result, minimal_result

from pargo_export.bench import read_result, write_result


def test_a_saved_result_becomes_a_page(run_json, exported_bundle, tmp_path):
    """The page is written, and its size is told."""
    write_result(minimal_result(), tmp_path / "result.json")
    found = run_json(
        "report", tmp_path / "result.json", "--bundle", exported_bundle, "-o", tmp_path / "page.html"
    )
    content = (tmp_path / "page.html").read_bytes()
    assert found == {"report": str(tmp_path / "page.html"), "size_bytes": len(content)}
    assert b"data-photo" in content


def test_a_file_that_is_no_result_is_told(run, tmp_path):
    """Another file is one red line, and no page is written."""
    (tmp_path / "other.json").write_text("{}")
    failed = run("report", tmp_path / "other.json", "-o", tmp_path / "page.html")
    assert failed.exit_code == 1
    assert "pargo-export bench" in failed.stderr
    assert not (tmp_path / "page.html").exists()


def test_a_result_survives_the_file(tmp_path):
    """What the tests of the report write by hand is what the schema reads back."""
    result = full_result()
    assert read_result(write_result(result, tmp_path / "result.json")) == result
