"""What was compiled, as a document, as JSON, and as files that a launcher without Triton loads."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import triton

from pargo_kernels.aot_cases import Case
from pargo_kernels.aot_compile import Binary
from pargo_kernels.aot_targets import CHIPS, Chip

__all__ = ["Compiled", "document", "table", "to_json", "write_files"]

_MANIFEST = "kernels.json"
_FORMAT = 1

_INTRODUCTION = """\
# Kernels: what they need on each chip

The launches of the fused kernels in the full-size model, compiled ahead of time for every chip that a bundle may
meet. No GPU is needed for that, and nothing here was timed: the table says that the kernels fit, not that they are
fast.

A cell is *registers of a thread / bytes of shared memory of a program*. All of it was compiled without spilling a
register into local memory, and fits the shared memory that one block may use; otherwise a cell would say so. A dash:
the chip has no FP8. The variant says what a fusion reads and writes: `fp8` and `int8` take a product with a pending
factor and write a quantized result where the operation has one; `patches`, `after sum`, `plain` and `projector` are
places of the norm, the variants of `fused_linear` the projector's products; with `shared keys` several programs share
the keys of a global query (`pargo_kernels/aot_launches.py`, `aot_fusion_launches.py`, `aot_linear_launches.py`).

Rebuild this file (some minutes; needs Triton, no GPU), which also checks every verdict:

    python -m pargo_kernels.aot --markdown > docs/kernels.md

A test compiles two launches of every operation for every chip and compares them with the table. Registers differ
between versions of Triton; this table is from Triton {version}. The assembler of Triton 3.6 does not know sm_110.
"""

_CHIPS = """
## Chips

{rows}

The limits are data of `pargo_kernels/aot_targets.py`, which names their source.
"""

_USES = """
## Compiling ahead of time for a device

The first launch of a kernel compiles it, which takes about a second a kernel. A device need not pay that:

    python -m pargo_kernels.aot --cache DIRECTORY --arch 87

fills a Triton cache directory, and a process with `TRITON_CACHE_DIR=DIRECTORY` finds the launches of the full-size
model at batch 1 and 8 there (tried with Triton 3.9: every launch was a cache hit). An entry is found only if all of
this is the same on both sides:

- the Triton build, not only its version: the key contains a hash of its compiled library and Python files, so machine
  architecture (x86-64, aarch64) and Python version count. Fill the cache for a Jetson on an aarch64 machine;
- its `ptxas`, and the environment variables of Triton that change code (`pargo_kernels` sets
  `TRITON_DEFAULT_FP_FUSION=1` unless it is set);
- the source of the kernels, line numbers included: the same version of this project;
- the launch: dtypes, batch size where it changes the blocks, and the alignment of addresses and strides.

Anything else is compiled as usual, so a cache that does not fit costs time and nothing more. Triton may still build a
small launcher with a C compiler on the device.

    python -m pargo_kernels.aot -o DIRECTORY --arch 87

writes the machine code itself, for launchers without Triton: `kernels.json` lists for each kernel the cubin, the PTX,
their SHA-256, the entry point, the parameters in order, the grid, warps and shared memory. A parameter of a type
`tensordesc<...>` is a tensor map of the bulk copy engine (compute capability 9.0 and up), which the launcher makes.
"""


@dataclass(frozen=True)
class Compiled:
    """One case on one chip.

    Attributes:
        case: The launch.
        chip: What it was compiled for.
        binary: The result; `None` where the chip cannot run it, or where it could not be compiled.
        error: Why it could not be compiled.
    """

    case: Case
    chip: Chip
    binary: Binary | None
    error: str | None = None

    @property
    def problems(self) -> list[str]:
        """Failed verdicts, each naming the case and the chip."""
        found = self.binary.problems(self.chip) if self.binary else []
        if self.error:
            found.append(self.error)
        return [f"{self.case.name} on {self.chip.name}: {problem}" for problem in found]


def _cell(compiled: Compiled) -> str:
    """One cell of the table."""
    binary = compiled.binary
    if binary is None:
        return "**does not compile**" if compiled.error else "-"
    text = f"{binary.registers} / {binary.shared_bytes}"
    return f"**{text}, does not fit**" if compiled.problems else text


def table(results: Iterable[Compiled], chips: Sequence[Chip] = CHIPS) -> list[str]:
    """Rows of a Markdown table, in the order of the results; batches that need the same share a row."""
    cells: dict[str, dict[int, str]] = {}
    cases: dict[str, Case] = {}
    for compiled in results:
        cases[compiled.case.name] = compiled.case
        cells.setdefault(compiled.case.name, {})[compiled.chip.arch] = _cell(compiled)
    batches: dict[tuple[str, ...], list[str]] = {}
    for name, case in cases.items():
        needs = tuple(cells[name].get(known.arch, "") for known in chips)
        row = (case.operation, case.variant or "-", case.dtype, *needs)
        batches.setdefault(row, []).append(str(case.batch))
    head = ["operation", "variant", "dtype", "batch", *(known.name for known in chips)]
    lines = [_row(head), "|---" * len(head) + "|"]
    return lines + [_row([*row[:3], ", ".join(sizes), *row[3:]]) for row, sizes in batches.items()]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def document(results: Iterable[Compiled]) -> str:
    """Return docs/kernels.md."""
    rows = ["| chip | GPUs | shared memory of a block |", "|---|---|---|"]
    rows += [f"| {known.name} | {known.products} | {known.shared_bytes // 1024} KiB |" for known in CHIPS]
    parts = [
        _INTRODUCTION.format(version=triton.__version__),
        _CHIPS.format(rows="\n".join(rows)),
        "\n## Launches\n\n" + "\n".join(table(results)) + "\n",
        _USES,
    ]
    return "".join(parts)


def to_json(results: Iterable[Compiled]) -> dict[str, Any]:
    """Return the manifest; `write_files` adds the names of the files."""
    kernels = [_record(compiled) for compiled in results if compiled.binary is not None]
    return {"format": _FORMAT, "triton": triton.__version__, "kernels": kernels}


def _record(compiled: Compiled) -> dict[str, Any]:
    case, binary = compiled.case, compiled.binary
    assert binary is not None  # noqa: S101 - the caller left the others out
    fields = asdict(binary)
    ptx = fields.pop("ptx")
    cubin = fields.pop("cubin")
    fields["parameters"] = [
        {"name": name, "type": kind} | ({} if value is None else {"value": value})
        for name, kind, value in binary.parameters
    ]
    fields["constants"] = {name: _plain(value) for name, value in binary.constants.items()}
    return {
        "name": case.name,
        "operation": case.operation,
        "variant": case.variant,
        "dtype": case.dtype,
        "batch": case.batch,
        "arch": compiled.chip.arch,
        **fields,
        "cubin_bytes": len(cubin),
        "cubin_sha256": binary.sha256,
        "ptx_sha256": hashlib.sha256(ptx.encode()).hexdigest(),
        "problems": compiled.problems,
    }


def _plain(value: Any) -> Any:
    """A constant as JSON has it; a dtype by its name."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def write_files(results: Sequence[Compiled], directory: Path) -> Path:
    """Write cubins, PTX and the manifest, and return the manifest's path.

    Files are named by their content and the manifest is replaced last, so whoever reads it finds complete
    files; files of an earlier manifest go afterwards.

    Raises:
        OSError: The directory cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    manifest = to_json(results)
    binaries = [compiled.binary for compiled in results if compiled.binary is not None]
    for record, binary in zip(manifest["kernels"], binaries, strict=True):
        stem = f"{record['operation']}-sm_{record['arch']}"
        record["cubin"] = f"{stem}-{record['cubin_sha256'][:16]}.cubin"
        record["ptx"] = f"{stem}-{record['ptx_sha256'][:16]}.ptx"
        _write(directory / record["cubin"], binary.cubin)
        _write(directory / record["ptx"], binary.ptx.encode())
    path = directory / _MANIFEST
    _write(path, (json.dumps(manifest, indent=1) + "\n").encode())
    kept = {_MANIFEST, *(record[kind] for record in manifest["kernels"] for kind in ("cubin", "ptx"))}
    for stale in directory.iterdir():
        if stale.suffix in {".cubin", ".ptx"} and stale.name not in kept:
            stale.unlink()
    return path


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
