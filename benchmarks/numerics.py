"""Accuracy of every recipe at every stage, against the float32 graph, on images that calibration did not see.

Subjects are the golden cases (--golden; small, with outputs of the official implementation), random checkpoints of a
preset, plain and with imitated outliers (--sample), and calibrated bundles (--bundle). For the first two the bundle
is made here and calibrated on --data. Each graph is built from the calibration of its subject and measured on the
evaluation images; golden cases also on their own inputs, which are noise and unlike anything calibrated on.
--latency times each graph that a CPU computes without emulation against the float32 graph, interleaved, ONNX Runtime,
idle threads not spinning. A row that the result file already has is not measured again: an interrupted run goes on.

    python benchmarks/numerics.py --golden --sample tiny --data PHOTOS --out result.json
    python benchmarks/numerics.py --bundle "random, full size=BUNDLE" --latency 5 --out result.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import describe_environment, markdown_table, write_json
from numerics_rows import Row, list_rows
from safetensors import safe_open

from pargo_export import Bundle, export_onnx, load_checkpoint, write_sample
from pargo_export.bundle import Calibration, StageEvidence, Variant, recipe_sha256
from pargo_export.errors import PargoExportError
from pargo_export.graph.comparison import compare
from pargo_export.quantization.base import find_calibration_base
from pargo_export.quantization.build import BuiltGraph, GraphBuilder
from pargo_export.quantization.calibrate import CalibrateOptions, calibrate
from pargo_export.quantization.measure import EvaluationImages, Reference, load_evaluation, measure
from pargo_export.quantization.overflow import watch_overflow
from pargo_export.quantization.sessions import open_session
from pargo_export.quantization.statistics import unpack

PACKAGES = ("onnxruntime", "onnx", "onnx-ir", "numpy", "ml-dtypes")
GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"
GOLDEN_CASES = ("pargo_w2", "pargo_w4_freq2", "pargo_small_variance", "qformer", "linear", "mlp")
OWN_INPUT = "golden input"
OVERFLOW_IMAGES = 2
WARMUP_ROUNDS = 2


@dataclass(frozen=True)
class Subject:
    """A model to measure.

    Attributes:
        label: Its name, which says what its weights are.
        bundle: A bundle with a float32 variant and a calibration.
        golden: Golden file with inputs and official outputs, for a golden case.
    """

    label: str
    bundle: Bundle
    golden: Path | None = None

    @property
    def calibration(self) -> Calibration:
        """The calibration."""
        return self.bundle.manifest.calibrations["default"]

    @property
    def base(self) -> Variant:
        """The float32 variant."""
        return find_calibration_base(self.bundle, None)

    @property
    def identity(self) -> str:
        """Hash of what decides every number: weights, graph, statistics and evaluation images."""
        files = self.bundle.manifest.files
        names = [*self.bundle.manifest.files_of(self.base.graph), *self.calibration.files[1:]]
        return recipe_sha256({"files": [files[name].sha256 for name in names]})

    def images(self) -> EvaluationImages:
        """The evaluation images, then the golden inputs."""
        held_out = load_evaluation(self.bundle, self.calibration)
        if self.golden is None:
            return held_out
        own = _read_tensor(self.golden, "images")
        pixels = np.concatenate([*(held_out.values(index) for index in range(len(held_out))), own])
        names = (*held_out.names, *(f"{OWN_INPUT} {index}" for index in range(len(own))))
        return EvaluationImages(names, pixels, held_out.spec)


def _read_tensor(path: Path, name: str) -> Any:
    with safe_open(path, framework="numpy") as file:
        return file.get_tensor(name)


def subjects(arguments: argparse.Namespace, folder: Path) -> Iterator[Subject]:
    """Yield what the command line asks for; bundles that have to be made are made in `folder`."""
    for name in GOLDEN_CASES if arguments.golden else ():
        checkpoint = GOLDEN / f"{name}.safetensors"
        bundle = _make_bundle(checkpoint, checkpoint.with_suffix(".json"), folder / name, arguments.data)
        yield Subject(f"golden {name}", bundle, GOLDEN / f"{name}.io.safetensors")
    for preset in arguments.sample:
        for outliers in (False, True):
            label = f"{preset}, random weights{' with imitated outliers' if outliers else ''}"
            path = folder / f"{preset}-{outliers}.safetensors"
            write_sample(path, preset=preset, outliers=outliers)
            yield Subject(label, _make_bundle(path, None, path.with_suffix(""), arguments.data))
            path.unlink()
    for item in arguments.bundle:
        label, _, path = item.rpartition("=")
        yield Subject(label, Bundle.open(path))


def _make_bundle(checkpoint: Path, config: Path | None, out: Path, data: Path) -> Bundle:
    model = load_checkpoint(checkpoint, config) if config else load_checkpoint(checkpoint)
    export_onnx(model, out)
    return calibrate(out, data, CalibrateOptions()).bundle


def study(
    subject: Subject, rows: list[Row], known: dict[str, Any], arguments: argparse.Namespace
) -> Iterator[None]:
    """Measure what `known` does not have yet; it is complete to here whenever this yields."""
    found = known.setdefault("rows", {})
    missing = [row for row in rows if found.get(row.name, {}).get("recipe_sha256") != _hash(row)]
    if not missing:
        return
    reference = Reference.of(subject.bundle, subject.base, subject.images(), threads=arguments.threads)
    observation = unpack(subject.bundle.check(subject.calibration.statistics))
    if subject.golden is not None:
        known["official"] = _against_official(_read_tensor(subject.golden, "projected"), reference)
    for row in missing:
        print(f"{subject.label}: {row.name}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
            builder = GraphBuilder(
                base=subject.bundle.check(subject.base.graph),
                recipe=row.recipe,
                observation=observation
                if row.recipe and row.recipe.precision != "int8_weight_only"
                else None,
                dialect=row.dialect,
                float_precision=row.float_precision,
                metadata={"pargo.precision": row.recipe.precision if row.recipe else row.float_precision},
            )
            try:
                built = builder.build(Path(folder, "graph.onnx"))
                found[row.name] = _measure(built, row, reference, subject, arguments)
            except PargoExportError as error:
                found[row.name] = {"failed": str(error)}
        found[row.name]["recipe_sha256"] = _hash(row)
        yield


def _measure(
    built: BuiltGraph, row: Row, reference: Reference, subject: Subject, arguments: argparse.Namespace
) -> dict[str, Any]:
    evidence = measure(built, reference, threads=arguments.threads)
    groups = {
        "held out": [item for item in evidence if not item.source.startswith(OWN_INPUT)],
        "golden inputs": [item for item in evidence if item.source.startswith(OWN_INPUT)],
    }
    result: dict[str, Any] = {
        name: _worst_by_stage(items, reference) for name, items in groups.items() if items
    }
    result["quantized"] = len(built.quantized)
    result["size_mb"] = round(sum(path.stat().st_size for path in built.files) / 1e6, 2)
    if row.recipe is None and row.float_precision == "float16":
        result["overflow"] = _watch(built, reference)
    if arguments.latency and not row.is_emulated:
        result["latency_ratio"] = _latency_ratio(built, subject, reference, arguments)
    return result


def _worst_by_stage(items: list[StageEvidence], reference: Reference) -> dict[str, dict[str, float]]:
    stages: dict[str, dict[str, float]] = {}
    for stage in dict.fromkeys(item.stage for item in items):
        own = [item for item in items if item.stage == stage]
        stages[stage] = {
            "mean_cosine": round(min(item.mean_cosine or 0.0 for item in own), 6),
            "worst_token": round(min(item.cosine for item in own), 6),
            "sqnr_db": round(min(item.sqnr_db or 0.0 for item in own), 2),
            "image_sqnr_db": _image_sqnr_db(own, reference),
            "max_abs": round(max(item.max_abs for item in own), 6),
            "images": len(own),
        }
    return stages


def _image_sqnr_db(items: list[StageEvidence], reference: Reference) -> float:
    """SQNR of the part that differs between images: what is the same on all of them says nothing about an image."""
    outputs = [
        reference.outputs[reference.images.names.index(item.source)][item.stage].astype(np.float64)
        for item in items
    ]
    mean = np.mean(outputs, axis=0)
    varying = sum(float(((values - mean) ** 2).mean()) for values in outputs)
    noise = sum(
        float((values**2).mean()) / 10 ** ((item.sqnr_db or 0.0) / 10)
        for values, item in zip(outputs, items, strict=True)
    )
    return round(float(10 * np.log10(varying / noise)), 2) if varying else 0.0


def _against_official(official: Any, reference: Reference) -> dict[str, float]:
    """Compare the float32 graph with the official outputs."""
    own = [
        outputs["visual_tokens"]
        for name, outputs in zip(reference.images.names, reference.outputs, strict=True)
        if name.startswith(OWN_INPUT)
    ]
    item = compare("visual_tokens", OWN_INPUT, official, np.concatenate(own))
    return {"max_abs": item.max_abs, "worst_token": item.cosine, "sqnr_db": item.sqnr_db or 0.0}


def _watch(built: BuiltGraph, reference: Reference) -> dict[str, Any]:
    images = [
        (reference.images.names[index], reference.images.feed(index, takes_uint8=reference.takes_uint8))
        for index in range(min(OVERFLOW_IMAGES, len(reference.images)))
    ]
    report = watch_overflow(built.path, "float16", images)
    return {
        "images": report.num_images,
        "overflows": len(report.findings),
        "largest": [{"node": peak.node, "value": round(peak.value, 2)} for peak in report.largest[:3]],
        "message": report.message,
    }


def _latency_ratio(
    built: BuiltGraph, subject: Subject, reference: Reference, arguments: argparse.Namespace
) -> float:
    """Median time over that of the float32 graph, interleaved."""
    paths = [subject.bundle.file(subject.base.graph), built.path]
    sessions = [open_session(path, path.parent, threads=arguments.threads) for path in paths]
    feed = {sessions[0].get_inputs()[0].name: reference.images.feed(0, takes_uint8=reference.takes_uint8)}
    times: list[list[float]] = [[], []]
    for index in range(arguments.latency + WARMUP_ROUNDS):
        for which, session in enumerate(sessions):
            start = time.perf_counter_ns()
            session.run(None, feed)
            if index >= WARMUP_ROUNDS:
                times[which].append(time.perf_counter_ns() - start)
    return round(float(np.median(times[1]) / np.median(times[0])), 3)


def _hash(row: Row) -> str:
    return recipe_sha256({"recipe": row.recipe.to_json() if row.recipe else "", "float": row.float_precision})


def print_overview(subjects_found: dict[str, dict[str, Any]]) -> None:
    """Print SQNR of the visual tokens on held-out images, decibels: graphs by subjects."""
    names = list(dict.fromkeys(name for subject in subjects_found.values() for name in subject["rows"]))
    table = []
    for name in names:
        found = [subject["rows"].get(name, {}).get("held out") for subject in subjects_found.values()]
        table.append(
            [name, *(f"{list(stages.values())[-1]['sqnr_db']:.1f}" if stages else "-" for stages in found)]
        )
    print(markdown_table(["SQNR, dB", *subjects_found], table))


def print_tables(subjects_found: dict[str, dict[str, Any]]) -> None:
    """Print one Markdown table a subject; the visual tokens in detail, the other stages by their mean cosine."""
    for label, subject in subjects_found.items():
        print(f"\n### {label}\n")
        if "official" in subject:
            official = subject["official"]
            print(
                f"float32 graph against the official outputs: max abs {official['max_abs']:.2g}, "
                f"worst token {official['worst_token']:.7f}\n"
            )
        rows = {name: row for name, row in subject["rows"].items() if "failed" not in row}
        first = next(iter(rows.values()))
        stages = [stage for stage in first["held out"] if stage == "image_features"]
        has_golden = "golden inputs" in first
        has_latency = any("latency_ratio" in row for row in rows.values())
        header = [
            "graph",
            *stages,
            "visual tokens: mean cosine",
            "worst token",
            "SQNR, dB",
            "image SQNR, dB",
            "max abs",
        ]
        header += ["on golden inputs"] * has_golden + ["MB"] + ["time"] * has_latency
        table = []
        for name, row in rows.items():
            own = row["held out"]
            tokens = list(own.values())[-1]
            cells: list[object] = [name, *(f"{own[stage]['mean_cosine']:.5f}" for stage in stages)]
            cells += [f"{tokens['mean_cosine']:.5f}", f"{tokens['worst_token']:.5f}"]
            cells += [
                f"{tokens['sqnr_db']:.1f}",
                f"{tokens['image_sqnr_db']:.1f}",
                f"{tokens['max_abs']:.3g}",
            ]
            if has_golden:
                cells.append(f"{list(row['golden inputs'].values())[-1]['mean_cosine']:.5f}")
            cells.append(row["size_mb"])
            if has_latency:
                cells.append(row.get("latency_ratio", ""))
            table.append(cells)
        print(markdown_table(header, table))
        for name, row in subject["rows"].items():
            if "failed" in row:
                print(f"\n{name}: {row['failed']}")
            elif "overflow" in row:
                peaks = ", ".join(
                    f"{peak['value']:g} in {peak['node']}" for peak in row["overflow"]["largest"]
                )
                print(f"\n{name}: {row['overflow']['overflows']} overflows; largest values {peaks}")


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--golden", action="store_true", help="the golden cases of the tests")
    parser.add_argument(
        "--sample", action="append", default=[], metavar="PRESET", help="random checkpoints of a preset"
    )
    parser.add_argument(
        "--bundle", action="append", default=[], metavar="LABEL=BUNDLE", help="calibrated already"
    )
    parser.add_argument("--data", type=Path, help="photographs, for --golden and --sample")
    parser.add_argument("--only", help="comma-separated beginnings of the names of the graphs to measure")
    parser.add_argument("--latency", type=int, default=0, metavar="ROUNDS", help="time the graphs as well")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--scratch", type=Path, help="folder for temporary graphs, as large as the model")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if (arguments.golden or arguments.sample) and arguments.data is None:
        parser.error("--golden and --sample need --data")
    rows = list_rows()
    if arguments.only:
        rows = [row for row in rows if row.name.startswith(tuple(arguments.only.split(",")))]
    result: dict[str, Any] = {"subjects": {}}
    if arguments.out.is_file():
        result = json.loads(arguments.out.read_text("utf-8"))
    result["environment"] = describe_environment(PACKAGES)
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        for subject in subjects(arguments, Path(folder)):
            known = result["subjects"].get(subject.label, {})
            if known.get("identity") != subject.identity:
                known = {"identity": subject.identity, "calibration_images": subject.calibration.num_images}
            result["subjects"][subject.label] = known
            for _ in study(subject, rows, known, arguments):
                write_json(arguments.out, result)
    print_overview(result["subjects"])
    print_tables(result["subjects"])


if __name__ == "__main__":
    try:
        main()
    except PargoExportError as error:
        raise SystemExit(str(error)) from error
