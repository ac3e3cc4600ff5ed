"""Pictures to visual tokens on a CPU: what rewrites, INT8 and BF16 are worth beside PyTorch and ONNX Runtime as they come.

Method: that of `pargo-export bench` (docs/benchmarking.md), whose library this calls once: every subject in a process of
its own, held against the bundle's float32 variant before it is timed, then all in turns, round by round. Ratios are of
the boundary `run` (prepared pixels to visual tokens), medians over rounds of the ratio within a round.

The bundle needs the variants of `SUBJECTS`; those that it lacks are left out, and said. For all of them:

    pargo-export onnx CHECKPOINT -o BUNDLE                                          # fp32
    pargo-export onnx CHECKPOINT -o BUNDLE --attention dense --name fp32-dense
    pargo-export onnx CHECKPOINT -o BUNDLE --precision bf16
    pargo-export calibrate BUNDLE --data PHOTOS && pargo-export quantize BUNDLE --int8

    python benchmarks/frontend_cpu.py BUNDLE --checkpoint CHECKPOINT --out result.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from common import markdown_table

from pargo_export import Bundle
from pargo_export.bench import BenchOptions, BenchResult, benchmark
from pargo_export.bench.comparison import compare_rounds
from pargo_export.bench.options import BASELINES
from pargo_export.bench.records import Comparison, Measurement, Subject
from pargo_export.bench.result_file import write_result
from pargo_export.bundle import Variant
from pargo_export.errors import PargoExportError

BOUNDARY = "run"

# What it is called, which kind of variant it is (`kind_of`), and on which backend.
SUBJECTS = (
    ("FP32, dense attention", "fp32-dense", "onnxruntime"),
    ("FP32", "fp32", "onnxruntime"),
    ("INT8", "int8", "onnxruntime"),
    ("FP32", "fp32", "openvino"),
    ("INT8", "int8", "openvino"),
    ("BF16", "bf16", "openvino-bf16"),
    ("INT8, the rest BF16", "int8", "openvino-bf16"),
)


def kind_of(variant: Variant) -> str | None:
    """Return which of the kinds of `SUBJECTS` a variant is, if any."""
    details = variant.quantization
    if variant.component != "all" or variant.input != "float":
        return None
    if details is not None:
        is_for_cpu = (details.dialect, details.float_precision) == ("cpu", "float32")
        return "int8" if variant.precision == "int8" and is_for_cpu else None
    if variant.precision == "float32":
        return "fp32-dense" if variant.attention == "dense" else "fp32"
    return "bf16" if variant.precision == "bfloat16" else None


def choose_subjects(bundle: Bundle) -> tuple[dict[tuple[str, str], str], list[str]]:
    """Return backend and variant of every subject, with what it is called, and what the bundle lacks."""
    found, lacking = {}, []
    for title, kind, backend in SUBJECTS:
        names = [name for name, variant in bundle.manifest.variants.items() if kind_of(variant) == kind]
        if names:
            found[backend, min(names, key=len)] = title
        else:
            lacking.append(f"{title} on {backend}: the bundle has no such variant")
    return found, lacking


def make_table(result: BenchResult, titles: dict[tuple[str, str], str]) -> str:
    """Return a Markdown table for each batch size: medians, ratios to every baseline, accuracy, memory."""
    tables = []
    for batch in result.settings.batches:
        times = {
            item.subject: item
            for item in result.measurements
            if (item.batch, item.concurrency, item.boundary) == (batch, 1, BOUNDARY)
        }
        baselines = [item.name for item in result.subjects if item.is_baseline and item.name in times]
        dense = next(
            (item.name for item in result.subjects if titles.get(_key(item), "").endswith("dense attention")),
            "",
        )
        against = [name for name in (*baselines, dense) if name in times]
        header = ["subject", "library", f"median, ms, batch {batch}", *(f"time / {name}" for name in against)]
        rows = []
        for subject in result.subjects:
            title = titles.get(_key(subject), subject.name)
            if subject.name not in times:
                rows.append(
                    [title, subject.backend, f"not timed: {subject.failure}", *[""] * len(against), "", ""]
                )
                continue
            own = times[subject.name]
            ratios = [
                "" if name == subject.name else _describe_ratio(compare_rounds(times[name], own))
                for name in against
            ]
            rows.append(
                [
                    title,
                    subject.backend,
                    _describe_median(own),
                    *ratios,
                    _describe_accuracy(subject),
                    _describe_memory(subject),
                ]
            )
        tables.append(markdown_table([*header, "worst token; SQNR, dB", "peak memory, GB"], rows))
    return "\n\n".join(tables)


def _key(subject: Subject) -> tuple[str, str]:
    return subject.backend, subject.variant or ""


def _describe_median(measurement: Measurement) -> str:
    summary = measurement.summary
    interval = summary.median_interval
    around = f" ({interval.low:.4g}-{interval.high:.4g})" if interval else ""
    return f"{summary.median_ms:.4g}{around}"


def _describe_ratio(comparison: Comparison | None) -> str:
    if comparison is None:
        return "fewer than two rounds"
    return f"{comparison.ratio:.3f} ({comparison.interval.low:.3f}-{comparison.interval.high:.3f})"


def _describe_accuracy(subject: Subject) -> str:
    if subject.evidence is None:
        return ""
    stages = subject.evidence.stages
    ratios = [item.sqnr_db for item in stages if item.sqnr_db is not None]
    return f"{min(item.cosine for item in stages):.5f}; {min(ratios):.0f}" if ratios else "equal"


def _describe_memory(subject: Subject) -> str:
    peak = subject.memory.peak_rss_bytes
    return "not available" if peak is None else f"{peak / 1e9:.2f}"


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--checkpoint", type=Path, required=True, help="of the bundle, for the baselines")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--baselines", default=",".join(BASELINES), help="comma-separated; default: all")
    parser.add_argument("--batches", default="1", help="comma-separated batch sizes")
    parser.add_argument("--rounds", type=int, default=9, help="one timed run of each subject in every round")
    parser.add_argument("--warmup", type=int, default=1, help="untimed runs before")
    parser.add_argument("--threads", type=int, default=None, help="default: every physical core")
    return parser.parse_args()


def main() -> None:
    """Measure, write, print."""
    arguments = parse_arguments()
    bundle = Bundle.open(arguments.bundle)
    titles, lacking = choose_subjects(bundle)
    options = BenchOptions(
        combinations=tuple(titles),
        baselines=tuple(filter(None, arguments.baselines.split(","))),
        checkpoint=arguments.checkpoint,
        batches=tuple(map(int, arguments.batches.split(","))),
        iterations=arguments.rounds,
        num_rounds=arguments.rounds,
        num_warmup=arguments.warmup,
        threads=arguments.threads,
    )
    result = benchmark(bundle, options, progress=lambda text: print(text, file=sys.stderr, flush=True))
    write_result(result, arguments.out)
    print(make_table(result, titles))
    for line in (*lacking, *result.warnings, *(f"{name}: {why}" for name, why in result.unavailable.items())):
        print(f"- {line}")


if __name__ == "__main__":
    try:
        main()
    except PargoExportError as error:
        raise SystemExit(str(error)) from error
