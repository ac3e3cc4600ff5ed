"""How far estimates of `pargo-export estimate` are from known times, and the constants that they rest on.

Known are FP16 times of five devices: vision towers that NVIDIA published for four Jetsons, and ParGo itself on an H100.
Three constants are fitted to all of them at once: the share of the peak that products reach, the share of the memory
bandwidth, and the time of a launch. The fit minimises the squared logarithm of the error (large ones count linearly),
with a weak pull to usual values, which only matters where the data say nothing: without the H100 they say nothing
about launches. Then every device, and every tower, is left out in turn, the constants are fitted to the rest, and the
times left out are predicted. Nothing is measured here.

    python benchmarks/estimate_validation.py            # the tables of docs/estimate.md
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence

from common import markdown_table
from vision_towers import Known, measured_times, published_times, read_published, tower_blocks

from pargo_export.cli.layout import figure
from pargo_export.estimation.devices import find_device
from pargo_export.estimation.fractions import Reached, load_fractions
from pargo_export.estimation.precisions import Precision
from pargo_export.estimation.predict import time_range
from pargo_export.estimation.roofline import Rates, time_operations

# Usual values and how sure they are (standard deviations of the logarithm); NOISE is that of a time.
USUAL = {"compute": (0.6, 0.3), "bandwidth": (0.8, 0.15), "launch_us": (3.0, 0.7)}
NOISE = 0.1
NARROW: tuple[Precision, ...] = ("bf16", "fp8", "int8")
Constants = dict[str, float]


def predict_ms(known: Known, constants: Constants) -> float:
    """Return the central FP16 estimate with other constants than the package's."""
    device = find_device(known.device)
    flops_per_s = constants["compute"] * device.fp16 * 1e12
    rates = Rates(
        flops_per_s,
        flops_per_s,
        constants["bandwidth"] * device.bandwidth * 1e9,
        constants["launch_us"] * 1e-6,
    )
    return 1e3 * sum(
        count * time_operations(operations, rates, element_bytes=2).total_s
        for operations, count in known.blocks
    )


def error(known: Known, constants: Constants) -> float:
    """Return the logarithm of the true time over the estimate: 0.1 is a time 11 % longer than estimated."""
    return math.log(known.ms / predict_ms(known, constants))


def fit(times: Sequence[Known]) -> Constants:
    """Return the constants that suit `times` best."""
    best = {name: usual for name, (usual, _) in USUAL.items()}
    loss, step = _loss(times, best), 0.2
    while step > 0.002:
        before = loss
        for name in USUAL:
            for factor in (math.exp(step), math.exp(-step)):
                trial = best | {name: best[name] * factor}
                if name != "launch_us" and trial[name] > 1:
                    continue
                found = _loss(times, trial)
                if found < loss:
                    best, loss = trial, found
        if loss == before:
            step /= 2
    return best


def _loss(times: Sequence[Known], constants: Constants) -> float:
    pull = sum((math.log(constants[name] / usual) / sure) ** 2 for name, (usual, sure) in USUAL.items())
    squares = ((error(known, constants) / NOISE) ** 2 for known in times)
    return pull + sum(2 * (math.sqrt(1 + square) - 1) for square in squares)


def leave_out(
    times: Sequence[Known], key: Callable[[Known], str]
) -> list[tuple[str, Constants, list[Known]]]:
    """Return each group, the constants fitted without it, and its times."""
    groups = sorted({key(known) for known in times})
    return [
        (
            group,
            fit([known for known in times if key(known) != group]),
            [known for known in times if key(known) == group],
        )
        for group in groups
    ]


def model_family(known: Known) -> str:
    """Return what is left out together: ParGo and its parts are one."""
    return known.model.partition("'")[0]


def fitted_times() -> list[Known]:
    """Return the times that the constants are fitted to: FP16, channels that are multiples of 8."""
    return [known for known in (*published_times(), *measured_times()) if known.is_aligned]


def is_covered(known: Known) -> bool:
    """Whether a time lies in the range that the package estimates."""
    found = time_range(known.operations, find_device(known.device), known.precision)
    return found.low_ms <= known.ms <= found.high_ms


def report() -> str:
    """Return all tables as Markdown."""
    times, shipped = fitted_times(), load_fractions().reached
    found = fit(times)
    parts = [
        "## Constants\n",
        markdown_table(
            ["", "fitted", "in the package"],
            [[name, f"{found[name]:.3g}", f"{getattr(shipped, name):.3g}"] for name in USUAL],
        ),
        "\n## Every time, with the constants of the package\n",
        _times_table([*times, *(known for known in published_times() if not known.is_aligned)], shipped),
        "\n## Left out and predicted\n",
        _left_out_table(times),
        "\n## Eight bits\n",
        _narrow_table(),
    ]
    return "\n".join(parts)


def _times_table(times: Sequence[Known], shipped: Reached) -> str:
    constants = shipped.model_dump()
    rows = []
    for known in times:
        device = find_device(known.device)
        low_to_high = time_range(known.operations, device, known.precision)
        reached = known.flops / (known.ms * 1e-3) / (device.fp16 * 1e12)
        rows.append(
            [
                known.device,
                known.model,
                known.batch,
                f"{known.flops / 1e9:.0f}",
                f"{known.ms:.4g}",
                figure(predict_ms(known, constants)),
                f"{figure(low_to_high.low_ms)} - {figure(low_to_high.high_ms)}",
                f"{100 * (predict_ms(known, constants) / known.ms - 1):+.0f} %",
                f"{100 * reached:.0f} %",
                "yes" if is_covered(known) else "**no**",
            ]
        )
    columns = [
        "device",
        "model",
        "batch",
        "GFLOP",
        "ms",
        "estimate",
        "range",
        "off by",
        "of peak",
        "in range",
    ]
    return markdown_table(columns, rows)


def _left_out_table(times: Sequence[Known]) -> str:
    rows = []
    spreads = load_fractions().spread
    for what, key, spread in (
        ("device", lambda known: known.device, spreads["other"]),
        ("model", model_family, spreads["validated"]),
    ):
        for group, constants, members in leave_out(times, key):
            ratios = [math.exp(error(known, constants)) for known in members]
            inside = sum(spread.low <= ratio <= spread.high for ratio in ratios)
            rows.append(
                [
                    what,
                    group,
                    ", ".join(f"{constants[name]:.2g}" for name in USUAL),
                    f"{min(ratios):.2f} - {max(ratios):.2f}",
                    f"{inside} of {len(members)}",
                ]
            )
    return markdown_table(["left out", "", "constants", "time / estimate", "in range"], rows)


def _narrow_table() -> str:
    rows = []
    for precision in NARROW:
        for known in measured_times(precision):
            found = time_range(known.operations, find_device(known.device), precision)
            rows.append(
                [
                    f"{known.device} {precision}",
                    known.model,
                    known.batch,
                    f"{known.ms:.4g} ms",
                    f"{figure(found.central_ms)} ({figure(found.low_ms)} - {figure(found.high_ms)})",
                    "yes" if found.low_ms <= known.ms <= found.high_ms else "**no**",
                ]
            )
    content = read_published()
    device = find_device(content["fp8"]["device"])
    for tower, tokens, half_ms, narrow_ms in content["fp8"]["rows"]:
        blocks = tower_blocks(content["towers"][tower], 1, tokens)
        narrow = tower_blocks(content["towers"][tower], 1, tokens, is_narrow=True)
        half = time_range(Known(device.name, tower, "fp16", 1, half_ms, blocks).operations, device, "fp16")
        eight = time_range(Known(device.name, tower, "fp8", 1, narrow_ms, narrow).operations, device, "fp8")
        rows.append(
            [
                f"{device.name} fp8 / fp16",
                tower,
                1,
                f"{narrow_ms / half_ms:.2f}",
                f"{eight.central_ms / half.central_ms:.2f}",
                "-",
            ]
        )
    return markdown_table(["", "model", "batch", "known", "estimate", "in range"], rows)


def main() -> None:
    """Print the tables."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    print(report())


if __name__ == "__main__":
    main()
