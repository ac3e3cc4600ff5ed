"""All that wants an NVIDIA GPU, in one call: the tests for a GPU, the studies, a full-size bundle through the runtime.

Each step has a time limit and leaves its result and its log in the output folder; one that fails does not stop the
others. What has ended well is not run again: an interrupted campaign goes on where it was. The whole takes
half an hour on an H100 (not measured); `--only` runs a part, `--list` prints the commands.

    python benchmarks/gpu_campaign.py results     # where PyTorch for CUDA and the extra `dev` are installed
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common import write_json

from pargo_export.device.cuda_driver import find_compute_capability, find_driver_obstacle

_HERE = Path(__file__).resolve().parent
_REPOSITORY = _HERE.parent
_PRESET = "eva02-l-336-internlm2-7b"
_ALL = ("--ours", "float16", "bfloat16", "fp8", "int8")


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: Of the step and of its log.
        limit_s: Seconds after which it is ended.
        command: What is run, in the repository's root.
        variables: Added to the environment.
    """

    name: str
    limit_s: int
    command: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)


def list_steps(output: Path, architecture: str) -> list[Step]:
    """Return the steps; what a later one needs comes first. `architecture`: of the GPU, `"90"`."""
    python = sys.executable
    tool = (python, "-m", "pargo_export")
    checkpoint, pictures, bundle = (
        str(output / name) for name in ("sample.safetensors", "pictures", "bundle")
    )
    prepared = str(output / "kernels")
    empty = str(
        output / f"kernels-{time.time_ns()}"
    )  # another one each time: a repetition finds nothing there either
    aot = (python, "-m", "pargo_kernels.aot", "--cache", prepared)

    def study(name: str, limit_s: int, *arguments: str) -> Step:
        script = (python, str(_HERE / "frontend_gpu.py"), "--checkpoint", checkpoint, "--photos", pictures)
        return Step(name, limit_s, (*script, "--json", str(output / f"{name}.json"), *arguments))

    def opening(name: str, kernels: str) -> Step:
        command = (*tool, "run", bundle, pictures, "--backend", "cuda", "--batch", "1", "--overwrite")
        return Step(
            name,
            120,
            (*command, "--output", str(output / f"{name}.safetensors")),
            {"TRITON_CACHE_DIR": kernels},
        )

    return [
        Step("sample", 120, (*tool, "sample", "--preset", _PRESET, "--overwrite", "--output", checkpoint)),
        Step("pictures", 60, (python, str(_HERE / "photographs.py"), pictures)),
        study("alone", 120, "--no-baselines", "--batch", "1", "--ours", "float16", "fp8"),
        study("frontend", 600, *shlex.split("--batch 1 8 --compile default --breakdown"), *_ALL),
        study(
            "batches",
            600,
            *shlex.split("--batch 2 4 16 32 --compile default --iterations 100 --ours float16 fp8"),
        ),
        study("parts", 240, *shlex.split("--batch 1 8 --component encoder projector --ours float16 fp8")),
        study("autotune", 600, *shlex.split("--batch 1 8 --compile max-autotune --ours float16 --no-floor")),
        Step("tests", 600, (python, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider")),
        Step("export", 300, (*tool, "onnx", checkpoint, "--output", bundle)),
        Step(
            "export-fp16",
            300,
            (*tool, "onnx", checkpoint, "--output", bundle, "--precision", "fp16", "--target", "cuda"),
        ),
        Step("verify", 300, (*tool, "verify", bundle, "--backend", "cuda", "--variant", "fp16")),
        Step(
            "bench",
            420,
            (
                *(*tool, "bench", bundle, "--backend", "cuda", "--variant", "fp16", "--input", pictures),
                *shlex.split("--batch 1,8 --duration 2s --baseline torch --baseline torch-compile"),
                *("--checkpoint", checkpoint, "--output", str(output / "bench.json")),
            ),
        ),
        opening("open-without-kernels", empty),
        Step("kernels", 300, (*aot, "--arch", architecture)),
        opening("open-with-kernels", prepared),
    ]


def run_step(step: Step, logs: Path) -> dict[str, object]:
    """Run a step, its output in a log of its own, and return how it ended."""
    log, started = logs / f"{step.name}.log", time.perf_counter()
    print(f"{step.name}: {shlex.join(step.command)}", flush=True)
    with log.open("wb") as file:
        try:
            status: int | str = subprocess.run(
                step.command,
                cwd=_REPOSITORY,
                env=os.environ | _import_path() | step.variables,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=step.limit_s,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            status = f"ended after {step.limit_s} s"
    seconds = round(time.perf_counter() - started, 1)
    print(f"    {'done' if status == 0 else f'FAILED ({status}), see {log}'}, {seconds} s", flush=True)
    return {"status": status, "seconds": seconds}


def run_steps(steps: Sequence[Step], output: Path, only: Sequence[str] = ()) -> list[str]:
    """Run steps and record how they ended in `steps.json`.

    Args:
        steps: All of them.
        output: Folder for the record and the logs.
        only: Names of those to run, whatever they did before; by default all that have not ended well yet.

    Returns:
        The names of those that failed, now or before.
    """
    output.mkdir(parents=True, exist_ok=True)
    record = output / "steps.json"
    ended = json.loads(record.read_text("utf-8")) if record.is_file() else {}
    for step in steps:
        if step.name in only if only else ended.get(step.name, {}).get("status") != 0:
            ended[step.name] = run_step(step, output)
            write_json(record, ended)
    return [step.name for step in steps if ended.get(step.name, {"status": 0})["status"] != 0]


def main() -> int:
    """Run what was not run yet; 1 if a step failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="folder for results and logs")
    parser.add_argument(
        "--only", nargs="+", default=(), help="names of steps, run even if they were run before"
    )
    parser.add_argument("--list", action="store_true", help="print the commands and run none")
    arguments = parser.parse_args()
    capability = find_compute_capability()
    if capability is None and not arguments.list:
        parser.error(f"no NVIDIA GPU: {find_driver_obstacle()}; `--list` needs none")
    steps = list_steps(arguments.output.resolve(), "{}{}".format(*capability or (9, 0)))
    names = [step.name for step in steps]
    if unknown := {*arguments.only} - {*names}:
        parser.error(f"no step is called {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if arguments.list:
        for step in steps:
            variables = "".join(f"{name}={value} " for name, value in step.variables.items())
            print(f"{step.name} (at most {step.limit_s} s): {variables}{shlex.join(step.command)}")
        return 0
    failed = run_steps(steps, arguments.output.resolve(), arguments.only)
    print(f"failed: {', '.join(failed)}" if failed else "no step failed")
    return bool(failed)


def _import_path() -> dict[str, str]:
    """Return where the packages of this repository are, for an environment in which they are not installed."""
    folders = (_REPOSITORY, _REPOSITORY / "kernels", _REPOSITORY / "calibration")
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([*map(str, folders), *([before] if before else [])])}


if __name__ == "__main__":
    sys.exit(main())
