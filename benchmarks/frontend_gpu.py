"""The visual front-end on an NVIDIA GPU: our programs against PyTorch, from pixels to visual tokens, full size.

Method: the correctness gate comes first (relative error against the float32 reference on the same GPU; FP8 and INT8
also by the cosine of the worst token). Everything but `eager` is captured into a CUDA graph, so that launching from
Python does not count. All candidates of a batch size are timed in turns, in one process, with CUDA events: warm-up, then
`--iterations` replays; median and p99, and the GPU's clock in every round where `nvidia-ml-py` is installed. The input is
photographs. The floor is measured in the same run.

    python benchmarks/frontend_gpu.py --checkpoint sample.safetensors --photos photos --json result.json
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton
from common import describe_environment, markdown_table, write_json
from gpu_breakdown import break_down
from gpu_floor import measure_floor
from gpu_models import Component, build_module, component_of, load_photographs, observe, program
from gpu_timing import Captured, capture, eager, relative_error, time_interleaved
from torch import Tensor
from torch.nn import functional

from pargo_export import load_checkpoint
from pargo_export.bench.probes.clocks import StateSampler
from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.preprocessing import PreprocessSpec
from pargo_export.runtime.cuda.options import ProgramOptions
from pargo_kernels import record_fallbacks

MAX_RELATIVE_ERROR = {"float16": 1e-2, "bfloat16": 5e-2, "fp8": 0.15, "int8": 0.15}
OURS = ("float16", "bfloat16", "fp8", "int8")
COMPONENTS: tuple[Component, ...] = ("all", "encoder", "projector")


class Study:
    """One checkpoint, its photographs, and what was measured so far."""

    def __init__(self, arguments: argparse.Namespace, states: StateSampler) -> None:
        self.arguments = arguments
        self.states = states
        torch.manual_seed(0)
        self.model: VisualFrontEnd = load_checkpoint(arguments.checkpoint).cuda()
        height, width = self.model.config.input_size
        self.preprocessing = PreprocessSpec(height=height, width=width)
        count = max(*arguments.batch, 16)
        self.images = load_photographs(arguments.photos, count, self.preprocessing)
        self.ranges = observe(self.model, self.images[:16])
        self.rows: list[dict[str, Any]] = []
        self.floors: dict[str, Any] = {}
        self.breakdowns: dict[str, Any] = {}

    def inputs(self, component: Component, batch: int) -> Tensor:
        """Return what a component takes, float32."""
        images = self.images[:batch]
        if component != "projector":
            return images
        with torch.no_grad():
            return self.model.image_features(images)

    def expected(self, component: Component, x: Tensor) -> Tensor:
        """Return the float32 result of the reference, image by image."""
        function = component_of(self.model, component)
        with torch.no_grad():
            return torch.cat([function(x[index : index + 1]) for index in range(len(x))])

    def candidates(self, component: Component) -> dict[str, tuple[str, Callable[[Tensor], Tensor], bool]]:
        """Return precision, function and whether it is captured, by name."""
        arguments = self.arguments
        found: dict[str, tuple[str, Callable[[Tensor], Tensor], bool]] = {}
        if not arguments.no_baselines:
            reference = component_of(build_module(self.model, (), "dense"), component)
            found["reference, eager"] = ("float16", reference, False)
            found["reference, graph"] = ("float16", reference, True)
            for mode in arguments.compile or ():
                module = build_module(self.model, (), "dense")
                # The modes that capture graphs by themselves are asked not to: all are captured in the same way.
                compiled = (
                    torch.compile(component_of(module, component), dynamic=False)
                    if mode == "default"
                    else torch.compile(
                        component_of(module, component), mode="max-autotune-no-cudagraphs", dynamic=False
                    )
                )
                found[f"reference, compile {mode}"] = ("float16", compiled, True)
        for precision in arguments.ours:
            for name, options in self._options().items():
                found[f"ours {precision}{name}"] = (
                    precision,
                    program(
                        self.model,
                        self.preprocessing,
                        precision,
                        component=component,
                        ranges=self.ranges,
                        options=options,
                    ),
                    True,
                )
        return found

    def _options(self) -> dict[str, ProgramOptions]:
        if not self.arguments.ways:
            return {"": ProgramOptions()}
        return {
            f" {way}": ProgramOptions(**{key: value == "1" for key, value in _pairs(way)})
            for way in self.arguments.ways
        }

    def measure(self, component: Component, batch: int, functions: dict[str, Any]) -> None:
        """Check and time all candidates of one batch size."""
        x = self.inputs(component, batch)
        expected = self.expected(component, x)
        captured: dict[str, Captured] = {}
        rows: dict[str, dict[str, Any]] = {}
        for name, (precision, function, graphed) in functions.items():
            started = time.perf_counter()
            example = x.to(torch.float16)
            with torch.no_grad(), record_fallbacks() as reasons:
                captured[name] = (capture if graphed else eager)(function, example)
            if reasons:
                raise SystemExit(f"{name}, batch {batch}: {'; '.join(sorted(reasons))}")
            output = captured[name].output
            error = relative_error(output, expected)
            cosine = float(functional.cosine_similarity(output.float(), expected, dim=-1).min())
            if not error < MAX_RELATIVE_ERROR[precision]:
                raise SystemExit(f"{name}, batch {batch}: relative error {error}, no time is reported")
            rows[name] = {
                "component": component,
                "batch": batch,
                "name": name,
                "precision": precision,
                "relative_error": round(error, 6),
                "worst_cosine": round(cosine, 6),
                "prepared_s": round(time.perf_counter() - started, 1),
            }
        times = time_interleaved(captured, self.arguments.iterations, self.states)
        for name, checked in rows.items():
            row = checked | times[name]
            self.rows.append(row)
            print(
                f"{component:9} batch {batch:2} {name:42} {row['median_ms']} ms, p99 {row['p99_ms']}, "
                f"clocks {row['rounds_clock_mhz']}, error {row['relative_error']}",
                flush=True,
            )
            is_profiled = row["precision"] in ("float16", "fp8") and functions[name][2]
            if self.arguments.breakdown and is_profiled:
                found = break_down(captured[name], times[name]["median_ms"])
                self.breakdowns[f"{component}, batch {batch}, {name}"] = found
                print(f"    {found['kinds_ms']}", flush=True)

    def measure_floor(self, batch: int) -> None:
        """Time the library's products and attention of one batch size, once."""
        if str(batch) in self.floors:
            return
        floor = self.floors[str(batch)] = measure_floor(self.model.config, batch, 20)
        print(
            f"floor, batch {batch}: tower {floor['tower_ms']}, projector {floor['projector_ms']} ms",
            flush=True,
        )

    def result(self) -> dict[str, Any]:
        """Return everything for the JSON file."""
        gpu = torch.cuda.get_device_properties(0)
        environment = describe_environment(("torch", "triton")) | {
            "gpu": torch.cuda.get_device_name(),
            "gpu_memory_gb": round(gpu.total_memory / 1e9, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "triton": triton.__version__,
            "python": platform.python_version(),
            "iterations": self.arguments.iterations,
        }
        return {
            "environment": environment,
            "rows": self.rows,
            "floors": self.floors,
            "breakdowns": self.breakdowns,
        }


def _pairs(way: str) -> list[tuple[str, str]]:
    return [(part.partition("=")[0], part.partition("=")[2]) for part in way.split(",")]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--photos", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--component", choices=COMPONENTS, nargs="+", default=["all"])
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--compile", choices=["default", "max-autotune"], nargs="+")
    parser.add_argument("--ours", choices=OURS, nargs="+", default=["float16"])
    parser.add_argument(
        "--ways", nargs="+", help="options of the program to compare, as accumulate_in_product=0"
    )
    parser.add_argument("--no-baselines", action="store_true")
    parser.add_argument("--no-floor", action="store_true")
    parser.add_argument("--breakdown", action="store_true", help="profile the kernels of every graph")
    parser.add_argument("--json", type=Path)
    return parser


def main() -> None:
    """Measure, print, write JSON."""
    arguments = build_parser().parse_args()
    with StateSampler("gpu") as states:
        run(Study(arguments, states))


def run(study: Study) -> None:
    """Measure all components and batch sizes, and print the table."""
    arguments = study.arguments
    if study.states.problem:
        print(f"clocks are not known: {study.states.problem}", flush=True)
    for component in arguments.component:
        functions = study.candidates(component)
        for batch in arguments.batch:
            study.measure(component, batch, functions)
            if not arguments.no_floor:
                study.measure_floor(batch)
            if arguments.json:
                write_json(arguments.json, study.result())
        del functions
        torch.compiler.reset()
        torch.cuda.empty_cache()
    print(
        markdown_table(
            ("component", "batch", "what", "median ms", "p99 ms", "relative error"),
            [
                (
                    row["component"],
                    row["batch"],
                    row["name"],
                    row["median_ms"],
                    row["p99_ms"],
                    row["relative_error"],
                )
                for row in study.rows
            ],
        )
    )


if __name__ == "__main__":
    main()
