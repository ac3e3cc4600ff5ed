"""What each exact rewrite is worth on an NVIDIA GPU, in PyTorch, full size, FP16.

Method: the correctness gate comes first (relative error against the float32 reference on the same GPU). Every
configuration is captured into a CUDA graph, so that launch overhead of Python does not count, and timed with CUDA
events: warm-up, then `--iterations` replays; median and p99. `--compile` adds torch.compile before the capture. The
tower's attention is PyTorch's scaled_dot_product_attention in every configuration, also the baseline.

    python benchmarks/rewrites_gpu.py --checkpoint sample.safetensors --batch 1 8 --json result.json
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import torch
from gpu_models import build_module
from gpu_timing import capture, relative_error, time_interleaved

from pargo_export import __version__, load_checkpoint
from pargo_export.rewrite.attention_forms import AttentionForm
from pargo_export.rewrite.registry import REWRITES

Config = tuple[str, tuple[str, ...], AttentionForm]
MAX_RELATIVE_ERROR = 1e-2  # FP16 against float32


def configurations(*, ablation: bool) -> list[Config]:
    """Baseline, everything, and with `ablation` each rewrite alone and everything but each."""
    every = tuple(REWRITES)
    configs: list[Config] = [
        ("reference", (), "dense"),
        ("structured attention only", (), "structured"),
        ("all rewrites", every, "structured"),
        ("all rewrites, dense attention", every, "dense"),
    ]
    if ablation:
        configs += [(f"only {name}", (name,), "dense") for name in every]
        configs += [
            (f"all but {name}", tuple(other for other in every if other != name), "structured")
            for name in every
        ]
    return configs


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--only", nargs="+", help="names of the configurations to run")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    model = load_checkpoint(arguments.checkpoint).cuda()
    height, width = model.config.input_size
    images = {size: torch.randn(size, 3, height, width, device="cuda") for size in arguments.batch}
    expected = {size: model.encode_images(image) for size, image in images.items()}
    rows = []
    for name, names, form in configurations(ablation=arguments.ablation):
        if arguments.only and name not in arguments.only:
            continue
        deploy = build_module(model, names, form)
        function = torch.compile(deploy) if arguments.compile else deploy
        for size, image in images.items():
            captured = capture(function, image.half())
            error = relative_error(captured.output, expected[size])
            if not error < MAX_RELATIVE_ERROR:
                raise SystemExit(f"{name}, batch {size}: relative error {error}, no time is reported")
            row = {"name": name, "batch": size, "compile": arguments.compile, "relative_error": error}
            times = time_interleaved({name: captured}, arguments.iterations)
            rows.append(row | times[name])
            print(
                f"{name:40} batch {size:2} {rows[-1]['median_ms']:8.3f} ms  p99 {rows[-1]['p99_ms']:8.3f}  error {error:.5f}",
                flush=True,
            )
            del captured
        del deploy, function
        torch.compiler.reset()
        torch.cuda.empty_cache()
    environment = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "pargo_export": __version__,
        "iterations": arguments.iterations,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps({"environment": environment, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
