"""What is written, without a browser: sections, figures that plotly accepts, islands that cannot be left."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import plotly.graph_objects as go
import pytest
from report_case import HOSTILE, full_result, minimal_result, with_quantized_variant

from pargo_export.bundle import Bundle
from pargo_export.errors import MissingDependencyError, PargoExportError
from pargo_export.report import drawing, page, text, write_report
from pargo_export.report.context import Context
from pargo_export.report.parts import Card, Note, Photo, Plot, PrecisionMap, Section
from pargo_export.report.sections import SECTIONS

ANCHORS = [
    "headline",
    "warnings",
    "ratios-section",
    "latency",
    "rounds-section",
    "stages-section",
    "scaling",
    "load-section",
    "sustained-section",
    "memory-section",
    "energy-section",
    "accuracy",
    "masks",
    "precision",
    "environment",
    "settings",
    "reading",
]


@pytest.fixture(scope="module")
def full(quantized_bundle) -> Context:
    """What the full report is about."""
    return Context(full_result(quantized_bundle), quantized_bundle)


def sections_of(context: Context) -> dict[str, Section]:
    """The sections by their anchors."""
    found = [section for make in SECTIONS if (section := make(context)) is not None]
    return {section.anchor: section for section in found}


def cards_of(context: Context) -> dict[str, Card]:
    """The cards of the first section by their titles."""
    return {card.title: card for card in sections_of(context)["headline"].blocks[0].cards}


def plots_of(context: Context) -> list[Plot]:
    """Every plot of a report."""
    return [b for section in sections_of(context).values() for b in section.blocks if isinstance(b, Plot)]


def test_a_full_report_has_every_section_in_order(full):
    """All sections are there, in the order in which they are read; anchors are unique."""
    assert list(sections_of(full)) == ANCHORS
    anchors = [plot.anchor for plot in plots_of(full)] + ANCHORS
    assert len(set(anchors)) == len(anchors)


def test_plotly_accepts_every_figure(full):
    """Each drawing is valid for plotly's own schema, its keys are what the choices offer, and a text says what it shows."""
    for plot in plots_of(full):
        offered = [set(choice.values) for choice in plot.choices]
        for view in plot.views:
            go.Figure(view.figure)
            assert len(view.key) == len(offered)
            assert all(value in values for value, values in zip(view.key, offered, strict=True))
            assert len(view.alt) > 20
        first = tuple(choice.values[0] for choice in plot.choices)
        assert first in {view.key for view in plot.views}, (
            f"{plot.anchor} begins with a view that is not there"
        )
        groups = {trace.get("legendgroup") for view in plot.views for trace in view.figure["data"]}
        assert {entry.group for entry in plot.legend} <= groups, plot.anchor


def test_the_headline_names_subject_boundary_clock_and_interval(full):
    """The fastest candidate, the baseline that is hardest to beat, and the gate."""
    cards = cards_of(full)
    fastest = cards["Fastest: int8-cpu on openvino"]
    assert "95% interval" in fastest.detail
    assert fastest.detail.endswith("end to end, host clock, batch 1")
    ratio = cards["Beside torch.compile"]
    assert (ratio.value, ratio.tone) == ("2.87x as fast", "good")
    assert "2.79x to 2.93x" in ratio.detail
    assert cards["Correctness gate"].tone == "good"


def test_a_missed_gate_is_red_and_absent_things_say_why():
    """A subject that missed the gate has no times; energy says why it is not there; other sections are left out."""
    context = Context(minimal_result(), None)
    sections = sections_of(context)
    assert list(sections) == ["headline", "energy-section", "accuracy", "environment", "settings", "reading"]
    gate = cards_of(context)["Correctness gate"]
    assert gate.tone == "bad"
    assert "fp32 on onnxruntime" in gate.detail
    (note,) = sections["energy-section"].blocks
    assert isinstance(note, Note)
    assert "RAPL is not readable" in note.text


def test_a_gate_that_could_not_compare_is_not_green(full):
    """Without evidence the gate is unknown, with a failure it is incomplete."""
    first, *others = full.result.subjects
    for change, value in (({"evidence": None}, "? not compared"), ({"failure": "died"}, "✗ incomplete")):
        subjects = (first.model_copy(update=change), *others)
        context = Context(full.result.model_copy(update={"subjects": subjects}), full.bundle)
        assert cards_of(context)["Correctness gate"].value == value


def test_unsteady_times_and_a_changed_bundle_are_warned_of(full):
    """Warnings come from the result, from times that did not settle, and from a bundle that is another one."""
    facts = full.result.bundle.model_copy(update={"manifest_sha256": "0" * 64})
    context = Context(full.result.model_copy(update={"bundle": facts}), full.bundle)
    warnings = [note.text for note in sections_of(context)["warnings"].blocks]
    assert len(warnings) == 3
    assert warnings[0] == "CPU 1 was busy with another process for 12% of the time"
    assert "is not as it was measured" in warnings[1]
    assert "torch.compile, end to end, host clock, batch 4: the times did not settle" in warnings[2]


def test_the_precision_map_has_every_product_and_the_reasons(full):
    """Each quantized and each kept product stands in the map of its variant, with its reason."""
    maps = {b.variant: b for b in sections_of(full)["precision"].blocks if isinstance(b, PrecisionMap)}
    assert maps["fp32"].parts == ()
    quantization = full.bundle.variant("int8-cpu").quantization
    cells = [cell for _, _, rows in maps["int8-cpu"].parts for row in rows for cell in row.cells if cell[0]]
    assert sorted(cell[0] for cell in cells).count("int8") == len(quantization.quantized)
    assert [cell[0] for cell in cells].count("fp32") == len(quantization.kept)
    marks = {cell[1] for cell in cells if cell[0] == "fp32"}
    assert marks == {mark for mark, _ in maps["int8-cpu"].reasons} == {"a", "b"}


def test_the_photograph_knows_the_owner_of_each_patch(full):
    """Every partial token owns W patches, in row-major order."""
    (photo,) = [b for b in sections_of(full)["masks"].blocks if isinstance(b, Photo)]
    owners = np.array(photo.owners)
    assert owners.shape == (6, 6)
    assert np.bincount(owners.ravel()).tolist() == [photo.window] * photo.num_partial
    assert photo.attends == (("every layer", None),)


def test_medians_and_ratios_of_the_tables_are_those_of_the_records(full):
    """The tables repeat the records: every measurement has its row, and the numbers of the first are right."""
    latency = next(plot for plot in plots_of(full) if plot.anchor == "histogram")
    assert len(latency.table.rows) == len(full.result.measurements)
    assert all(len(row) == len(latency.table.columns) for row in latency.table.rows)
    row = next(r for r in latency.table.rows if r[:2] == ("torch.compile", "end to end, host clock, batch 1"))
    found = full.find("torch.compile", 1, "end_to_end").summary
    assert row[4] == text.number(found.median_ms, 4)
    assert row[8] == text.number(found.p99_ms, 4)


def test_outliers_are_marked_and_the_bulk_sets_the_axis():
    """One slow run does not flatten the histogram, and stays visible at the end of its axis."""
    samples = np.concatenate([np.linspace(10, 11, 99), [500.0]])
    low, high = drawing.bulk(samples)
    assert low < 10
    assert 11 < high < 20
    assert {0, 98, 99} <= set(drawing.thin(np.concatenate([np.arange(99.0), [500.0]]), 10).tolist())


@pytest.mark.parametrize(
    ("span", "ticks"),
    [
        ((0.9, 30), [1, 2, 5, 10, 20]),
        ((262, 300), [270, 280, 290, 300]),
        ((1, 1e4), [1, 10, 100, 1000, 10000]),
    ],
)
def test_logarithmic_axes_have_round_ticks(span, ticks):
    """Wide axes have 1, 2, 5 or powers of ten, narrow ones even steps."""
    assert drawing.log_axis("", *span)["tickvals"] == ticks


def test_numbers_keep_their_digits():
    """Significant digits, all before the point, and nothing for nothing."""
    assert [text.number(value) for value in (1.7, 24.31, 1234.5, 0.0123, 0.0, None)] == [
        "1.70",
        "24.3",
        "1,234",
        "0.0123",
        "0.00",
        "-",
    ]
    assert text.milliseconds(1.7461) == "1.746 ms"
    assert text.memory(1_300_000_000) == "1.30 GB"


def test_islands_and_policy():
    """No text can end an island; the policy has one hash a script and allows nothing else."""
    island = page.island({"name": HOSTILE})
    assert not set(island) & set("<>&")
    assert json.loads(island) == {"name": HOSTILE}
    with pytest.raises(ValueError, match="not JSON compliant"):
        page.island(float("nan"))
    policy = page.policy("a", "b")
    assert policy.count("'sha256-") == 2
    assert "default-src 'none'" in policy
    assert "'unsafe-inline'" not in policy.replace("style-src 'unsafe-inline'", "")


def test_the_file_is_self_contained_and_escaped(minimal_report):
    """No address of another place is loaded, and no element comes from the data."""
    content = minimal_report.read_text("utf-8")
    head, _, rest = content.partition('<script type="text/plain"')
    body = head + rest.partition("</script>")[2]
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)""", body)
    assert "@import" not in body
    assert "url(" not in body
    assert HOSTILE not in body
    assert "&lt;script&gt;document.title" in body
    assert len(content) < 3_000_000


def test_what_cannot_be_written_is_told(tmp_path):
    """A directory that does not exist is one clear error, and nothing is left behind."""
    with pytest.raises(PargoExportError, match="cannot be written"):
        write_report(minimal_result(), None, tmp_path / "missing" / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_are_named(monkeypatch, tmp_path):
    """Without Jinja2 the error says how to get it."""
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'pargo-export\[report\]'"):
        write_report(minimal_result(), None, tmp_path / "report.html")


def test_importing_the_report_does_not_import_plotly():
    """Plotly and Jinja2 are imported when a report is written, PyTorch and onnx never."""
    code = "import sys, pargo_export.report; print(sorted({'plotly', 'jinja2', 'torch', 'onnx'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_models_without_queries_have_no_masks(full, exported_bundle):
    """Without the bundle, or for a model without attention in its projector, the section is left out."""
    assert "masks" not in sections_of(Context(full.result, None))
    bundle = with_quantized_variant(Bundle.open(exported_bundle))
    model = bundle.manifest.model
    projector = model.projector.model_copy(
        update={"kind": "linear", "num_partial_tokens": 0, "num_global_tokens": 0}
    )
    manifest = bundle.manifest.model_copy(update={"model": model.model_copy(update={"projector": projector})})
    assert "masks" not in sections_of(Context(full.result, Bundle(bundle.path, manifest)))


def test_many_warnings_are_folded(full):
    """The first eight warnings are shown, the others are one step away."""
    warnings = tuple(f"warning {index}" for index in range(20))
    context = Context(full.result.model_copy(update={"warnings": warnings}), full.bundle)
    *notes, table = sections_of(context)["warnings"].blocks
    assert [note.text for note in notes] == list(warnings[:8])
    assert table.caption == "13 more warnings"  # twelve, and times that did not settle
    assert table.rows[0] == ("warning 8",)


def test_ratios_begin_with_the_widest_boundary(full):
    """Whatever the order of the records, end to end comes first."""
    first, *others = full.result.comparisons
    narrow = first.model_copy(update={"boundary": "preprocess"})
    context = Context(full.result.model_copy(update={"comparisons": (narrow, first, *others)}), full.bundle)
    (plot,) = sections_of(context)["ratios-section"].blocks
    assert plot.choices[1].values[0] == "end to end, batch 1"
    assert plot.choices[1].values[-1] == "preprocess, batch 1"
