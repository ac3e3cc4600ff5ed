"""What each exact rewrite is worth in ONNX Runtime on a CPU, and what it does to the graph.

Method: for each rewrite the graph with every rewrite but this one (A) and the graph with every rewrite (B) are
timed side by side, A B A B ..., in one process with thread spinning off; the ratio of medians is reported, because
absolute times on a shared machine mean little. A pair of identical graphs gives the resolution. Every graph
passed the export's parity gate before. FLOPs are PyTorch's own count of matrix products and convolutions.
The model has the official widths and projector, but `--blocks` tower blocks, so that 15 exports fit into minutes.

    python benchmarks/rewrites_cpu.py --blocks 4 --json result.json --markdown
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from common import describe_environment, write_json
from torch.utils.flop_counter import FlopCounterMode

from pargo_export import ExportOptions, export_onnx, load_checkpoint, write_sample
from pargo_export.checkpoint.presets import preset
from pargo_export.config import ModelConfig
from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.rewrite.apply import deploy_module
from pargo_export.rewrite.attention_forms import AttentionForm
from pargo_export.rewrite.registry import REWRITES, TARGET_REWRITES, select_rewrites

OFFICIAL = "eva02-l-336-internlm2-7b"


def session(graph: Path) -> onnxruntime.InferenceSession:
    """A CPU session without spinning threads: two sessions share the cores."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def paired_ratio(baseline: Path, candidate: Path, feed: dict[str, Any], rounds: int) -> float:
    """Median time of `candidate` over median time of `baseline`, interleaved."""
    sessions = [session(baseline), session(candidate)]
    times: list[list[float]] = [[], []]
    for index in range(rounds + 2):
        for which, current in enumerate(sessions):
            start = time.perf_counter_ns()
            current.run(None, feed)
            if index >= 2:
                times[which].append(time.perf_counter_ns() - start)
    return float(np.median(times[1]) / np.median(times[0]))


def costs(model: VisualFrontEnd, names: tuple[str, ...], form: AttentionForm) -> tuple[float, float]:
    """GFLOP at batch 1 and weight megabytes of the deploy module."""
    deploy, _ = deploy_module(model, select_rewrites("cpu", only=names), form)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        deploy(torch.zeros(1, 3, *model.config.input_size))
    weights = {tensor.data_ptr(): tensor.numel() * 4 for tensor in (*deploy.parameters(), *deploy.buffers())}
    return counter.get_total_flops() / 1e9, sum(weights.values()) / 1e6


def main() -> None:
    """Export, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()

    official = preset(OFFICIAL)
    vision = official.vision.model_copy(update={"num_layers": arguments.blocks})
    config = ModelConfig(vision=vision, projector=official.projector)
    every = tuple(REWRITES)
    target = tuple(name for name in REWRITES if name in TARGET_REWRITES["cpu"])
    variants: dict[str, tuple[tuple[str, ...], AttentionForm]] = {
        "same": (target, "structured"),
        "none, dense": ((), "dense"),
        "none, structured": ((), "structured"),
        "dense": (target, "dense"),
        "fused": (target, "fused"),
        "attention_op": (target, "attention_op"),
    }
    for name in every:
        others = tuple(other for other in target if other != name)
        variants[f"without {name}" if name in target else f"with {name}"] = (
            others if name in target else tuple(other for other in every if other in {*target, name}),
            "structured",
        )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder, "sample.safetensors")
        write_sample(checkpoint, config)
        model = load_checkpoint(checkpoint)
        pixels = np.random.default_rng(0).standard_normal((1, 3, *config.input_size), np.float32)
        feed = {"pixel_values": pixels}

        def export(name: str, names: tuple[str, ...], form: AttentionForm) -> Path:
            options = ExportOptions(rewrites=names, attention=form, name=name)
            result = export_onnx(model, Path(folder, "bundle"), options)
            return result.bundle.file(result.variant.graph)

        everything = export("all", target, "structured")
        for index, (name, (names, form)) in enumerate(variants.items()):
            graph = export(f"v{index}", names, form)
            gflop, megabytes = costs(model, names, form)
            row = {
                "name": name,
                "nodes": len(onnx.load(graph, load_external_data=False).graph.node),
                "gflop": round(gflop, 3),
                "weights_mb": round(megabytes, 2),
                "time_ratio_to_all": round(paired_ratio(everything, graph, feed, arguments.rounds), 3),
            }
            rows.append(row)
            if arguments.markdown:
                print("| " + " | ".join(str(value) for value in row.values()) + " |", flush=True)
    environment = describe_environment(("onnxruntime", "torch"))
    environment |= {"tower_blocks": arguments.blocks, "rounds": arguments.rounds}
    if arguments.json:
        write_json(arguments.json, {"environment": environment, "rows": rows})


if __name__ == "__main__":
    main()
