"""Kernels compiled ahead of time: they fit every chip, and a launch finds what was compiled for it.

The compiler runs in processes of its own: this one has Triton's interpreter on (tests/conftest.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from pargo_kernels import aot
from pargo_kernels.aot_targets import CHIPS, Chip, chip, chips_from

DOCUMENT = Path(__file__).parents[2] / "docs" / "kernels.md"
REBUILD = "run `python -m pargo_kernels.aot --markdown > docs/kernels.md`"
COMPILER = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}

# Jetson Thor is newer than the assembler that comes with Triton 3.6.
KNOWN = [known for known in CHIPS if known.arch != 110 or int(version("triton").split(".")[1]) >= 9]

# What needs a compiling Triton beside the command, in one process, which imports it once:
# 1. A launch with few registers and one for a chip with little shared memory.
# 2. The cases of the document, and its text around the table.
# 3. Launches of the cases of `--quick` for one chip as a program on that chip would: which entry of the cache
#    directory each found. Then one under another setting, which no entry was made under.
PROBE = """
import json, os
import triton
from pargo_kernels import aot, aot_cases, aot_compile, aot_report
from pargo_kernels.aot_targets import Chip, chip
from triton.runtime.driver import driver

cases = aot_cases.all_cases()
case = next(case for case in cases if case.operation == "block_diagonal_attention")
call = case.call(chip(80))
tight = call._replace(options={**call.options, "maxnreg": 32})
problems = [
    aot_compile.compile_for(chip(80), case.kernel, tight).problems(chip(80)),
    aot_compile.compile_for(chip(80), case.kernel, call).problems(Chip(80, "", 1024)),
    aot_compile.compile_for(chip(80), case.kernel, call).problems(chip(80)),
]
document = [[c.operation, c.variant or "-", c.dtype, c.batch] for c in cases], aot_report.document([])

driver.set_active(aot_compile._OfflineDriver(90))
found = []
def listener(*, src, metadata, metadata_group, times, cache_hit):
    found.append([metadata["hash"], cache_hit])
triton.knobs.compilation.listener = listener
import torch
def launch(case):
    call = case.call(chip(90))
    arguments = [
        torch.empty_strided(a.shape, a.stride(), dtype=a.dtype) if isinstance(a, torch.Tensor) else a
        for a in call.arguments
    ]
    case.kernel.warmup(*arguments, grid=call.grid, **call.options)
quick = aot.first_and_last(aot_cases.all_cases(("float16",)))
for case in quick:
    launch(case)
hits, found[:] = list(found), []
os.environ["TRITON_DEFAULT_FP_FUSION"] = "0"
quick[0].kernel.device_caches.clear()  # of this process, as a new one has none
launch(quick[0])
print(json.dumps({"problems": problems, "document": document, "hits": hits, "misses": found}))
"""


def run(*arguments, codes=(0,), **environment):
    """Run Python with a compiling Triton and return its standard output; fail with its errors."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env=COMPILER | environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode in codes, done.stderr
    return done.stdout


def require_documented(triton):
    """Skip where Triton is another version: it allocates other registers, and 3.6 spills on sm_120."""
    if f"from Triton {triton}." not in DOCUMENT.read_text("utf-8"):
        pytest.skip("docs/kernels.md was made with another Triton")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Two launches of every operation for every chip: manifest, directory, Triton cache."""
    folder = tmp_path_factory.mktemp("aot")
    output, cache = folder / "kernels", folder / "cache"
    archs = ",".join(str(known.arch) for known in KNOWN)
    where = ("-o", str(output), "--cache", str(cache))
    text = run("-m", "pargo_kernels.aot", "--quick", "--json", "--arch", archs, *where, codes=(0, 1))
    return json.loads(text), output, cache


@pytest.fixture(scope="module")
def probed(compiled):
    """What `PROBE` found, in the Triton cache that `compiled` filled."""
    return json.loads(run("-c", PROBE, TRITON_CACHE_DIR=str(compiled[2])))


@pytest.mark.timeout(600)
def test_every_kernel_fits_every_chip(compiled):
    """No register is spilled and shared memory suffices; every operation is there for every chip."""
    require_documented(compiled[0]["triton"])
    kernels = compiled[0]["kernels"]
    assert [kernel["problems"] for kernel in kernels] == [[]] * len(kernels)
    assert {kernel["spilled_bytes"] for kernel in kernels} == {0}
    for kernel in kernels:
        assert 0 < kernel["registers"] <= 255
        assert kernel["shared_bytes"] <= chip(kernel["arch"]).shared_bytes
    operations = {kernel["operation"] for kernel in kernels}
    assert operations >= set(aot_operations())
    for known in KNOWN:
        assert {kernel["operation"] for kernel in kernels if kernel["arch"] == known.arch} == operations


def aot_operations():
    """Return what dispatch offers."""
    from pargo_kernels.support import OPERATIONS

    return OPERATIONS


def test_fp8_is_compiled_where_there_is_fp8(compiled):
    """From compute capability 8.9 on."""
    archs = {kernel["arch"] for kernel in compiled[0]["kernels"] if "fp8" in kernel["variant"]}
    assert archs == {known.arch for known in KNOWN if known.arch >= 89}


def test_files_are_what_the_manifest_says(compiled):
    """Content by SHA-256; machine code for the architecture; the entry point is in the PTX."""
    _, output, _ = compiled
    kernels = json.loads((output / "kernels.json").read_text())["kernels"]
    for kernel in kernels:
        cubin, ptx = (output / kernel[kind] for kind in ("cubin", "ptx"))
        assert hashlib.sha256(cubin.read_bytes()).hexdigest() == kernel["cubin_sha256"]
        assert cubin.stat().st_size == kernel["cubin_bytes"]
        text = ptx.read_text()
        assert hashlib.sha256(text.encode()).hexdigest() == kernel["ptx_sha256"]
        assert f".target sm_{kernel['arch']}" in text
        assert f".entry {kernel['entry']}(" in text
        parameters = [parameter["type"] for parameter in kernel["parameters"]]
        if not any(kind.startswith("tensordesc") for kind in parameters):  # those become several
            # What the launcher passes: the listed parameters, then two scratch pointers.
            assert f"{kernel['entry']}_param_{len(parameters) + 1}" in text
            assert f"{kernel['entry']}_param_{len(parameters) + 2}" not in text
    assert {path.name for path in output.iterdir()} == {
        "kernels.json",
        *(kernel[kind] for kernel in kernels for kind in ("cubin", "ptx")),
    }


def test_a_launch_finds_the_prebuilt_entry(compiled, probed):
    """Tensors with memory, strides and alignment of a real launch: every compilation is a cache hit."""
    manifest, found = compiled[0], probed["hits"]
    assert len(found) >= sum(kernel["arch"] == 90 for kernel in manifest["kernels"])
    assert [hit for _, hit in found] == [True] * len(found)
    assert [hit for _, hit in probed["misses"]] == [False]


def test_kernels_that_do_not_fit_are_told_apart(probed):
    """Too few registers spill, a small chip lacks shared memory, and the kernel as it is has no problem."""
    spilled, shared, fine = map(" ".join, probed["problems"])
    assert "bytes a thread do not fit into registers" in spilled
    assert "bytes of shared memory exceed the 1024 of a block on sm_80" in shared
    assert fine == ""


def rows(text):
    """Return the cells of every launch in the document, by operation, variant, dtype and batch."""
    found = {}
    head = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "operation":
            head = cells[4:]
        elif head and len(cells) == 4 + len(head) and not cells[0].startswith("-"):
            for batch in cells[3].split(", "):
                found[(*cells[:3], int(batch))] = dict(zip(head, cells[4:], strict=True))
    return found


def test_the_document_has_not_drifted(compiled):
    """docs/kernels.md has the numbers of the kernels as they are now, if Triton is the one it was made with."""
    manifest, _, _ = compiled
    require_documented(manifest["triton"])
    documented = rows(DOCUMENT.read_text("utf-8"))
    for kernel in manifest["kernels"]:
        key = (kernel["operation"], kernel["variant"] or "-", kernel["dtype"], kernel["batch"])
        cell = f"{kernel['registers']} / {kernel['shared_bytes']}"
        assert documented[key][f"sm_{kernel['arch']}"] == cell, REBUILD


def test_the_document_lists_every_launch(probed):
    """No case is missing or left over, none failed, and the text around the table is the generator's."""
    cases, empty = probed["document"]
    text = DOCUMENT.read_text("utf-8")
    assert set(rows(text)) == {tuple(case) for case in cases}, REBUILD
    assert "does not" not in "".join(cell for row in rows(text).values() for cell in row.values())
    for line in empty.splitlines():
        assert line in text or "this table is from Triton" in line, (line, REBUILD)


def test_the_interpreter_is_refused(monkeypatch, capsys):
    """Interpreted kernels are Python functions; there is nothing to compile."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(SystemExit) as info:
        aot.main([])
    assert info.value.code == 2
    assert "TRITON_INTERPRET is on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arch", "75"], "no data for compute capability 75; known are 80, 86, 87, 89, 90, 100, 110, 120"),
        (["--arch", "8.7"], "'8.7' is no compute capability; write 87 for 8.7"),
        (["--dtype", "float64"], "unknown dtype float64; known are float16, bfloat16"),
    ],
)
def test_wrong_usage_lists_the_choices(monkeypatch, capsys, arguments, message):
    """Exit code 2 and what to write instead."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(SystemExit) as info:
        aot.main(arguments)
    assert info.value.code == 2
    assert message in capsys.readouterr().err


def test_chips_are_in_order_and_have_limits():
    """Parsing keeps the order asked for; no limit is below what every chip has without asking."""
    assert [known.arch for known in chips_from("120, sm_87,80")] == [120, 87, 80]
    assert [known.arch for known in CHIPS] == sorted({known.arch for known in CHIPS})
    assert all(48 * 1024 < known.shared_bytes < 256 * 1024 for known in CHIPS)
    assert Chip(87, "", 1).name == "sm_87"
