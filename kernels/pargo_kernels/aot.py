"""`python -m pargo_kernels.aot`: compile every kernel ahead of time and say what it needs on each chip.

Exit code 0 if every kernel fits every chip, 1 if one does not fit or does not compile, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import multiprocessing
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from pargo_kernels.aot_targets import CHIPS, DTYPES, Chip, chip, chips_from
from pargo_kernels.support import is_interpreted

if TYPE_CHECKING:  # they import Triton, which reads the environment that `main` sets
    from pargo_kernels.aot_cases import Case
    from pargo_kernels.aot_compile import Binary
    from pargo_kernels.aot_report import Compiled

__all__ = ["compile_all", "first_and_last", "main"]


def compile_all(cases: Sequence[Case], chips: Sequence[Chip], *, jobs: int | None = None) -> list[Compiled]:
    """Compile every case for every chip that can run it.

    Args:
        cases: From `aot_cases.all_cases`.
        chips: From `aot_targets.CHIPS`.
        jobs: Processes; by default one for each processor that this process may use.

    Returns:
        One result for each case and chip, in that order; a case that does not compile carries its error.
    """
    from pargo_kernels.aot_report import Compiled

    pairs = [(case, known) for case in cases for known in chips]
    feasible = [(case.name, known.arch) for case, known in pairs if known.arch >= case.lowest_arch]
    jobs = min(jobs or _usable_processors(), len(feasible)) or 1
    if jobs == 1:
        outcomes = dict(zip(feasible, map(_compile, feasible), strict=True))
    else:  # fresh processes: Triton's compiler is not safe to fork
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, mp_context=context) as pool:
            outcomes = dict(zip(feasible, pool.map(_compile, feasible, chunksize=4), strict=True))
    return [
        Compiled(case, known, *outcomes.get((case.name, known.arch), (None, None))) for case, known in pairs
    ]


def first_and_last(cases: Sequence[Case]) -> list[Case]:
    """Return the first and the last case of every operation at the largest batch; the last is FP8, if there is one."""
    largest = max(case.batch for case in cases)
    by_operation: dict[str, list[Case]] = {}
    for case in cases:
        if case.batch == largest and case.dtype == cases[0].dtype:
            by_operation.setdefault(case.operation, []).append(case)
    return [
        case for same in by_operation.values() for case in (same if len(same) < 2 else (same[0], same[-1]))
    ]


def _usable_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def _cases_by_name() -> dict[str, Case]:
    from pargo_kernels.aot_cases import all_cases

    return {case.name: case for case in all_cases()}


def _compile(task: tuple[str, int]) -> tuple[Binary | None, str | None]:
    from pargo_kernels.aot_compile import compile_for

    name, arch = task
    case = _cases_by_name()[name]
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # Triton prints the assembly that failed
            return compile_for(chip(arch), case.kernel, case.call(chip(arch))), None
    except Exception as error:  # noqa: BLE001 - Triton raises many types; each becomes a failed verdict
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [repr(error)]
        reason = next((line for line in lines if line.startswith("ptxas") and "fatal" in line), lines[-1])
        return None, f"does not compile: {type(error).__name__}: {reason}"


def _parser() -> argparse.ArgumentParser:
    everything = ",".join(str(known.arch) for known in CHIPS)
    parser = argparse.ArgumentParser(prog="python -m pargo_kernels.aot", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--arch", default=everything, help="compute capabilities, 87 for 8.7 (default: %(default)s)"
    )
    parser.add_argument("--dtype", default="float16,bfloat16", help="float dtypes (default: %(default)s)")
    parser.add_argument(
        "--quick", action="store_true", help="two launches of every operation, not all of them"
    )
    parser.add_argument("--jobs", type=int, help="processes (default: one for each usable processor)")
    parser.add_argument(
        "-o", "--output", type=Path, help="write cubins, PTX and kernels.json to this directory"
    )
    parser.add_argument("--cache", type=Path, help="fill this directory for TRITON_CACHE_DIR")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print what kernels.json contains")
    form.add_argument("--markdown", action="store_true", help="print docs/kernels.md")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if is_interpreted():
        parser.error("TRITON_INTERPRET is on, so Triton interprets kernels and cannot compile them; unset it")
    if options.cache:
        os.environ["TRITON_CACHE_DIR"] = os.fspath(options.cache.absolute())
    dtypes = tuple(options.dtype.split(","))
    if unknown := sorted(set(dtypes) - set(DTYPES)):
        parser.error(f"unknown dtype {', '.join(unknown)}; known are {', '.join(DTYPES)}")
    try:
        chips = chips_from(options.arch)
    except ValueError as error:
        parser.error(str(error))
    from pargo_kernels.aot_cases import all_cases
    from pargo_kernels.aot_report import document, table, to_json, write_files

    cases = all_cases(dtypes)
    if options.quick:
        cases = first_and_last(cases)

    results = compile_all(cases, chips, jobs=options.jobs)
    problems = [problem for compiled in results for problem in compiled.problems]
    if options.json:
        text = json.dumps(to_json(results), indent=1) + "\n"
    elif options.markdown:
        text = document(results)
    else:
        text = "\n".join(table(results, chips)) + "\n"
    sys.stdout.write(text)
    if options.output:
        sys.stderr.write(f"wrote {write_files(results, options.output)}\n")
    count = sum(compiled.binary is not None for compiled in results)
    sys.stderr.write("\n".join([f"{count} kernels compiled, {len(problems)} problems", *problems]) + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
