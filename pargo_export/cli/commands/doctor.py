"""`pargo-export doctor`: what this machine can do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from pargo_export.cli.command import PargoCommand, pass_reporter
from pargo_export.cli.report import Reporter

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pargo_export.doctor import Ability, Diagnosis, Driver

__all__ = ["command"]


@click.command("doctor", cls=PargoCommand, short_help="Show what this machine can run.")
@pass_reporter
def command(reporter: Reporter) -> bool:
    """Show this machine, what it can run now, and what to install for the rest.

    Exit status 1 if no backend can run a bundle here.
    """
    from pargo_export.doctor import diagnose

    reporter.step("looking at this machine")
    diagnosis = diagnose()
    reporter.result(diagnosis.to_dict(), lambda: _render(diagnosis))
    return diagnosis.can_run


def _render(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    from rich.table import Table

    from pargo_export.cli import layout

    machine, driver, cpu = diagnosis.machine, diagnosis.driver, diagnosis.machine.cpu
    yield f"pargo-export {diagnosis.version}, Python {machine.python}, {machine.platform}"
    yield layout.heading("Machine")
    cores = f"{cpu.num_usable_cores} usable cores of {cpu.num_logical_cores} logical ones"
    jetson = machine.jetson
    l4t = f", Jetson Linux {jetson.l4t}" if jetson and jetson.l4t else ""
    jetpack = f", JetPack {diagnosis.jetpack}" if diagnosis.jetpack else ", of an unknown JetPack" * bool(l4t)
    yield layout.facts(
        [
            ("processor", ", ".join(filter(None, (cpu.model, cores, *cpu.features)))),
            ("memory", layout.size(machine.memory_bytes) if machine.memory_bytes else "unknown"),
            ("board", f"{jetson.model or 'Jetson'}{l4t}{jetpack}" if jetson else ""),
            *(("GPU", text) for text in _gpus(driver)),
            ("GPU", f"none: {driver.problem}" if driver.problem else ""),
            ("driver", f"{driver.version or 'unknown'}, up to CUDA {driver.cuda}" if driver.cuda else ""),
        ]
    )
    yield layout.heading("TensorRT")
    states = [
        (item.flavor, "; ".join(filter(None, (item.version, item.reason, item.note))))
        for item in diagnosis.tensorrt
    ]
    yield layout.facts(states)
    yield layout.heading("Packages")
    installed = [f"{name} {version}" for name, version in diagnosis.packages.items() if version]
    absent = [name for name, version in diagnosis.packages.items() if not version]
    yield layout.facts([("installed", ", ".join(installed)), ("not installed", ", ".join(absent))])
    yield layout.heading("What works here")
    grid = Table.grid(padding=(0, 1))
    grid.add_column()
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for ability in diagnosis.abilities:
        grid.add_row(layout.mark(ability.ok), ability.name, _describe(ability))
    yield grid


def _gpus(driver: Driver) -> Iterator[str]:
    from pargo_export.cli import layout

    for index, gpu in enumerate(driver.gpus):
        size = layout.size(gpu.memory_bytes)
        use = ", the one that is used (CUDA_VISIBLE_DEVICES)" if index == 0 and len(driver.gpus) > 1 else ""
        yield f"{gpu.name}, compute capability {gpu.compute_capability}, {size}{use}"


def _describe(ability: Ability) -> str:
    if not ability.ok:
        return ability.reason
    lines = [", ".join((ability.device, *(item.precision for item in ability.precisions if item.ok)))]
    lines += [f"not {item.precision}: {item.reason}" for item in ability.precisions if not item.ok]
    lines += [ability.note] * bool(ability.note)
    return "\n".join(lines)
