"""The machine, the software and the settings: what it takes to measure the same again."""

from __future__ import annotations

from collections.abc import Iterator

from pargo_export.bench.records import CpuState, GpuState
from pargo_export.report import text
from pargo_export.report.context import Context
from pargo_export.report.parts import Block, Facts, Section, Table

__all__ = ["environment", "settings"]


def environment(context: Context) -> Section:
    """List the machine and the versions."""
    found = context.result.environment
    rows = [
        ("Platform", found.platform + (", in a container" if found.container else "")),
        *_cpu(found.cpu),
        ("Memory", text.memory(found.memory_bytes)),
    ]
    for index, gpu in enumerate(found.gpus):
        rows += _gpu(gpu, "GPU" if len(found.gpus) == 1 else f"GPU {index}")
    rows += [("Driver", found.driver or ""), ("CUDA", found.cuda or "")]
    if found.jetson is not None:
        clocks = {True: "fixed at their largest", False: "not fixed", None: ""}[found.jetson.jetson_clocks]
        jetpack = f", JetPack {found.jetson.jetpack}" if found.jetson.jetpack else ""
        rows += [
            ("Jetson", f"{found.jetson.model}, Jetson Linux {found.jetson.l4t}{jetpack}"),
            ("Power mode", found.jetson.power_mode or ""),
            ("jetson_clocks", clocks),
        ]
    rows += [("Python", found.python), ("Git commit", found.git_commit or "")]
    blocks: list[Block] = [Facts(tuple(rows))]
    if found.packages:
        blocks.append(
            Table("Packages", ("package", "version"), tuple(sorted(found.packages.items())), num_text=2)
        )
    if found.variables:
        variables = tuple(sorted(found.variables.items()))
        blocks.append(
            Table("Environment variables", ("variable", "value"), variables, num_text=2, is_open=True)
        )
    return Section("environment", "Environment", tuple(blocks))


def settings(context: Context) -> Section:
    """List how it was measured, and on what."""
    found, inputs = context.result.settings, context.result.inputs
    length = (
        f"{found.iterations} runs of each"
        if found.iterations is not None
        else f"{text.number(found.duration_s)} s of each"
    )
    rows = (
        ("Command", found.command),
        ("Batches", ", ".join(map(str, found.batches))),
        ("Callers", ", ".join(map(str, found.concurrencies))),
        ("Length", f"{length}, over {found.num_rounds} rounds, after {found.num_warmup} untimed runs"),
        ("CPU threads", "every physical core" if found.threads is None else str(found.threads)),
        ("Seed", str(found.seed)),
        (
            "Pictures",
            f"{inputs.num_pictures}: {', '.join(inputs.names[:12])}{', ...' if len(inputs.names) > 12 else ''}",
        ),
        ("Hash of the pictures", inputs.sha256),
        ("Hash of the manifest", context.result.bundle.manifest_sha256),
        ("Schema", context.result.schema_version),
    )
    absent = tuple((name, reason) for name, reason in sorted(context.result.unavailable.items()))
    blocks: list[Block] = [Facts(rows)]
    if absent:
        blocks.append(Table("Not available, and why", ("what", "why"), absent, num_text=2, is_open=True))
    hashes = tuple(
        (subject.name, subject.description or "-", subject.graph_sha256 or "-")
        for subject in context.result.subjects
    )
    blocks.append(Table("What ran", ("subject", "backend", "hash of graph or engine"), hashes, num_text=3))
    return Section("settings", "Settings", tuple(blocks))


def _cpu(cpu: CpuState) -> Iterator[tuple[str, str]]:
    yield "Processor", cpu.model + (", under a hypervisor" if cpu.is_virtual else "")
    yield "Cores", f"{cpu.num_usable_cores} physical usable, {cpu.num_logical_cores} logical in the machine"
    turbo = {True: "on", False: "off", None: "unknown"}[cpu.turbo]
    clock = f", {cpu.clock_mhz:,.0f} MHz at the begin" if cpu.clock_mhz else ""
    yield "Clock", f"governor {cpu.governor or 'unknown'}, turbo {turbo}{clock}"
    yield "Instruction sets", ", ".join(cpu.features)
    yield "Load at the begin", "" if cpu.load_average is None else f"{cpu.load_average:.2f}"


def _gpu(gpu: GpuState, name: str) -> Iterator[tuple[str, str]]:
    yield name, f"{gpu.name}, compute capability {gpu.compute_capability}, {text.memory(gpu.memory_bytes)}"
    facts = (
        (gpu.clock_mhz, "core {:,.0f} MHz"),
        (gpu.max_clock_mhz, "at most {:,.0f} MHz"),
        (gpu.memory_clock_mhz, "memory {:,.0f} MHz"),
        (gpu.power_limit_w, "limit {:,.0f} W"),
        (gpu.temperature_c, "{:.0f} °C at the begin"),
    )
    known = [form.format(value) for value, form in facts if value is not None]
    if gpu.persistence_mode is not None:
        known.append(f"persistence mode {'on' if gpu.persistence_mode else 'off'}")
    yield f"{name} state", ", ".join(known)
