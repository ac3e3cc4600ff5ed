"""INT8 on a CPU: this package against its own FP32 graph and against other tools, side by side in one run.

Method: every configuration is loaded in a process of its own. First each one computes the evaluation images of the
bundle, which no calibration saw, and is compared with the bundle's FP32 graph in ONNX Runtime: one that fails, is not
finite or falls under a mean cosine of 0.9 is never timed. Then they are timed in turns, A B C A B C ..., one call
each, after untimed rounds, so that what else the machine does hits all of them; medians and their ratio to our FP32
are reported. Every library gets the same number of threads; idle threads of ONNX Runtime do not spin. The peers
are quantized once, by `quantize_peer.py`, from the bundle's own FP32 graph (functions inlined) and the images that
the bundle was calibrated on, as many as the tool can take; what is prepared stays in --work and is not made again.

    python benchmarks/quantization_cpu.py BUNDLE --data PHOTOS --checkpoint CHECKPOINT --out result.json
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from common import describe_environment, markdown_table, summarize_times, write_json
from cpu_process import WorkerError, WorkerProcess
from peers import PEERS, Peers
from where_time_goes import profile

from pargo_export import Bundle, ParityError
from pargo_export.bundle import Calibration, Variant
from pargo_export.errors import PargoExportError
from pargo_export.graph.comparison import compare
from pargo_export.quantization.measure import load_evaluation

PACKAGES = ("onnxruntime", "openvino", "nncf", "torch", "numpy", "onnx")
BASELINE = "ours-fp32"
MIN_COSINE = 0.9  # a configuration below computes something else, and its time means nothing
WARMUP_ROUNDS = 2


def find_variant(bundle: Bundle, precision: str, dialect: str = "cpu") -> Variant | None:
    """Return the variant of the whole model that takes float pixels, computed in float32 but for the precision."""
    for variant in bundle.manifest.variants.values():
        details = variant.quantization
        fits = variant.precision == precision and variant.component == "all" and variant.input == "float"
        if fits and (
            details is None or (details.dialect == dialect and details.float_precision == "float32")
        ):
            return variant
    return None


def list_configurations(bundle: Bundle, arguments: argparse.Namespace) -> dict[str, dict[str, Any] | str]:
    """Return what each worker loads, or why it cannot."""
    int8 = find_variant(bundle, "int8")
    variants = {
        BASELINE: (find_variant(bundle, "float32"), "onnxruntime"),
        "ours-int8": (int8, "onnxruntime"),
        "ours-int8-openvino": (int8, "openvino"),
        "ours-int8-openvino-bf16": (int8, "openvino-bf16"),
        "ours-int8-tensorrt": (find_variant(bundle, "int8", "tensorrt"), "onnxruntime"),
    }
    configurations: dict[str, dict[str, Any] | str] = {}
    for name, (variant, backend) in variants.items():
        configurations[name] = (
            {"kind": "runtime", "bundle": str(bundle.path), "variant": variant.name, "backend": backend}
            if variant
            else "the bundle has no such variant with float32 parts"
        )
    configurations["torch-fp32"] = (
        {"kind": "torch", "checkpoint": str(arguments.checkpoint)}
        if arguments.checkpoint
        else "no --checkpoint"
    )
    configurations["openvino-fp32"] = {"kind": "openvino", "peer": "float", "precision": "f32"}
    configurations["ort-defaults"] = {"kind": "onnxruntime", "peer": "ort-defaults"}
    configurations["ort-u8"] = {"kind": "onnxruntime", "peer": "ort-u8"}
    configurations["nncf"] = {"kind": "openvino", "peer": "nncf", "precision": "f32"}
    configurations["nncf-default-hints"] = {"kind": "openvino", "peer": "nncf"}
    configurations["modelopt"] = {"kind": "onnxruntime", "peer": "modelopt"}
    for item in arguments.extra_onnx:
        name, _, path = item.partition("=")
        configurations[name] = {"kind": "onnxruntime", "path": path}
    return configurations


def prepare(
    configurations: dict[str, dict[str, Any] | str], wanted: list[str], peers: Peers
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Quantize what is missing; return what can be loaded, and for every configuration what is known so far."""
    specs, records = {}, {}
    for name in wanted:
        spec = configurations[name]
        if isinstance(spec, str):
            records[name] = {"skipped": spec}
            continue
        records[name] = {}
        if "peer" in spec:
            path, record = peers.prepare(spec.pop("peer"))
            records[name] = {"prepared": record} if path else {"skipped": record["error"]}
            if path is None:
                continue
            spec["path"] = str(path)
        specs[name] = spec
        records[name]["size_mb"] = _size_mb(spec)
    return specs, records


def measure_accuracy(
    workers: dict[str, WorkerProcess], records: dict[str, dict[str, Any]], images: Path, work: Path
) -> None:
    """Compare every configuration with the FP32 graph; close those that fail."""
    expected: Any = None
    for name, worker in list(workers.items()):
        _say(f"accuracy of {name}")
        try:
            out = work / f"outputs-{name}.npy"
            worker.ask("outputs", images=str(images), out=str(out))
            found = np.load(out)
            if name == BASELINE:
                expected = found
            each = [
                compare("visual_tokens", str(index), expected[index : index + 1], found[index : index + 1])
                for index in range(len(found))
            ]
        except (WorkerError, ParityError) as error:
            records[name]["failed"] = str(error)
        else:
            records[name]["accuracy"] = {
                "images": len(each),
                "mean_cosine_worst_image": round(min(item.mean_cosine or 0.0 for item in each), 6),
                "cosine_worst_token": round(min(item.cosine for item in each), 6),
                "sqnr_db_worst_image": round(min(item.sqnr_db or 0.0 for item in each), 2),
                "max_abs": round(max(item.max_abs for item in each), 6),
            }
            if records[name]["accuracy"]["mean_cosine_worst_image"] < MIN_COSINE:
                records[name]["failed"] = f"mean cosine under {MIN_COSINE}: not timed"
        if "failed" in records[name]:
            _say(f"{name}: {records[name]['failed']}")
            workers.pop(name).close()


def measure_times(
    workers: dict[str, WorkerProcess], records: dict[str, dict[str, Any]], batch: int, repeats: int
) -> None:
    """Time every configuration in turns."""
    times: dict[str, list[float]] = {name: [] for name in workers}
    for index in range(repeats + WARMUP_ROUNDS):
        _say(
            f"batch {batch}, {'warm-up' if index < WARMUP_ROUNDS else f'round {index - WARMUP_ROUNDS + 1}/{repeats}'}"
        )
        for name, worker in list(workers.items()):
            try:
                elapsed = worker.ask("time", batch=batch)["ms"]
            except WorkerError as error:
                records[name]["failed"] = f"batch {batch}: {error}"
                workers.pop(name).close()
                times.pop(name)
                continue
            if index >= WARMUP_ROUNDS:
                times[name].append(elapsed)
    baseline = float(np.median(times[BASELINE])) if times.get(BASELINE) else float("nan")
    for name, values in times.items():
        summary: dict[str, Any] = dict(summarize_times(values))
        if np.isfinite(baseline):
            summary["ratio_to_ours_fp32"] = round(float(np.median(values)) / baseline, 3)
        records[name].setdefault("times", {})[str(batch)] = summary
        records[name]["peak_rss_mb"] = workers[name].peak_rss_mb


def compare_all(
    bundle: Bundle,
    calibration: Calibration,
    images: Path,
    result: dict[str, Any],
    arguments: argparse.Namespace,
) -> None:
    """Prepare, load, check and time every configuration; `result` is written after each step."""
    base = find_variant(bundle, "float32")
    if base is None:
        raise SystemExit("the bundle has no float32 variant of the whole model")
    configurations = list_configurations(bundle, arguments)
    wanted = arguments.configs.split(",") if arguments.configs else list(configurations)
    unknown = sorted(set(wanted) - set(configurations))
    if unknown:
        raise SystemExit(f"unknown configuration {', '.join(unknown)}; known: {', '.join(configurations)}")
    wanted = list(dict.fromkeys([BASELINE, *wanted]))
    specs, records = prepare(configurations, wanted, Peers(bundle, base, calibration, arguments))
    result["configurations"] = records
    workers: dict[str, WorkerProcess] = {}
    try:
        for name, spec in specs.items():
            _say(f"loading {name}")
            try:
                workers[name] = WorkerProcess(name, spec | {"threads": arguments.threads}, arguments.work)
            except WorkerError as error:
                records[name]["failed"] = str(error)
                _say(f"{name}: {error}")
                continue
            records[name] |= {
                "load_s": workers[name].load_s,
                "peak_rss_loading_mb": workers[name].peak_rss_mb,
            }
        if BASELINE not in workers:
            raise SystemExit(f"{BASELINE}: {records[BASELINE]}")
        measure_accuracy(workers, records, images, arguments.work)
        write_json(arguments.out, result)
        for batch in map(int, arguments.batches.split(",")):
            measure_times(workers, records, batch, arguments.repeats)
            write_json(arguments.out, result)
    finally:
        for worker in workers.values():
            worker.close()
    print(_markdown(records, arguments.batches.split(",")))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="what the bundle was calibrated on")
    parser.add_argument("--checkpoint", type=Path, help="of the bundle, for PyTorch")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--work", type=Path, default=Path("quantization-cpu-work"), help="prepared peers, kept"
    )
    parser.add_argument("--configs", help="comma-separated; by default all")
    parser.add_argument("--calibration", default="default")
    parser.add_argument("--batches", default="1", help="comma-separated batch sizes")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--extra-onnx", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="PEER=PYTHON",
        help=f"interpreter that has it; {', '.join(PEERS)}",
    )
    parser.add_argument(
        "--images", action="append", default=[], metavar="PEER=N", help="images it is calibrated on"
    )
    parser.add_argument(
        "--profile", action="store_true", help="where the time goes, instead of the comparison"
    )
    return parser.parse_args()


def main() -> None:
    """Measure, write, print."""
    arguments = parse_arguments()
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # PyTorch's idle threads do not spin either
    bundle = Bundle.open(arguments.bundle)
    calibration = bundle.manifest.calibrations[arguments.calibration]
    images = _write_evaluation(bundle, calibration, arguments.work)
    result: dict[str, Any] = {
        "environment": describe_environment(PACKAGES) | {"threads": arguments.threads},
        "model": _describe(bundle, calibration),
    }
    if not arguments.profile:
        compare_all(bundle, calibration, images, result, arguments)
        return
    variants = {name: find_variant(bundle, name) for name in ("float32", "int8")}
    found = {name: variant for name, variant in variants.items() if variant is not None}
    write_json(arguments.out, result | profile(bundle, found, images, arguments.threads))


def _write_evaluation(bundle: Bundle, calibration: Calibration, work: Path) -> Path:
    images = load_evaluation(bundle, calibration)
    work.mkdir(parents=True, exist_ok=True)
    path = work / "evaluation.npy"
    np.save(path, np.concatenate([images.values(index) for index in range(len(images))]))
    return path


def _describe(bundle: Bundle, calibration: Calibration) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "tower_blocks": manifest.model.vision.num_layers,
        "input": list(manifest.model.input_size),
        "weights_sha256": manifest.source.sha256,
        "calibration_images": calibration.num_images,
        "calibration_source": calibration.source,
        "evaluation_images": calibration.num_evaluation,
    }


def _size_mb(spec: dict[str, Any]) -> float:
    if spec["kind"] == "torch":
        files = [Path(spec["checkpoint"])]
    elif spec["kind"] == "runtime":
        bundle = Bundle.open(spec["bundle"])
        graph = bundle.variant(spec["variant"]).graph
        files = [bundle.file(name) for name in bundle.manifest.files_of(graph)]
    elif Path(spec["path"]).suffix == ".xml":
        files = [Path(spec["path"]), Path(spec["path"]).with_suffix(".bin")]
    else:
        path = Path(spec["path"])
        tensors = onnx.load(path, load_external_data=False).graph.initializer
        locations = {
            entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"
        }
        files = [path, *(path.with_name(location) for location in locations)]
    return round(sum(item.stat().st_size for item in files) / 1e6, 1)


def _markdown(records: dict[str, dict[str, Any]], batches: list[str]) -> str:
    header = ["configuration", "mean cosine", "worst token", "SQNR, dB"]
    header += [f"batch {batch}: median (p10-p90), ms; ratio" for batch in batches]
    header += ["load, s", "peak while loading, MB", "files, MB"]
    rows = []
    for name, record in records.items():
        accuracy = record.get("accuracy")
        if accuracy is None:
            rows.append([name, record.get("skipped") or record.get("failed", ""), *[""] * (len(header) - 2)])
            continue
        row = [name, f"{accuracy['mean_cosine_worst_image']:.5f}", f"{accuracy['cosine_worst_token']:.4f}"]
        row.append(f"{accuracy['sqnr_db_worst_image']:.1f}")
        for batch in batches:
            times = record.get("times", {}).get(batch)
            row.append(
                f"{times['median_ms']:.4g} ({times['p10_ms']:.4g}-{times['p90_ms']:.4g}); {times['ratio_to_ours_fp32']}"
                if times
                else record.get("failed", "")
            )
        rows.append([*row, record["load_s"], record["peak_rss_loading_mb"], record["size_mb"]])
    return markdown_table(header, rows)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except PargoExportError as error:
        raise SystemExit(str(error)) from error
