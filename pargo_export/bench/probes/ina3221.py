"""Power of a Jetson from the monitors on its board: INA3221 on the module, INA238 on the carrier of Thor.

A monitor shows several rails, one of which may be the input that feeds all others. Only that one is read: adding the
others to it counts them twice, and their sum without it leaves out memory and regulators.

| board | input rail | seen in |
|---|---|---|
| Orin NX, Orin Nano, Xavier NX | `VDD_IN`, the module | arch/arm64/boot/dts/nvidia/tegra234-p3767.dtsi |
| AGX Thor developer kit | `VIN` of an INA238 without a label, the board | github.com/rbonghi/jetson_stats/pull/900 |
| Nano | `POM_5V_IN`, the module | github.com/rbonghi/jetson_stats/issues/51 |
| AGX Orin | none | arch/arm64/boot/dts/nvidia/tegra234-p3701.dtsi |

`VIN_SYS_5V0` of AGX Orin and Thor feeds the 5 V part of the module, beside `VDD_GPU_SOC` and `VDD_CPU_CV` at 12 to 19 V:
it is no input (github.com/rbonghi/jetson_stats/issues/344).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pargo_export.bench.probes.sensor import PowerSensor, SensorError
from pargo_export.device.files import read_int, read_text
from pargo_export.device.machine import detect_jetson

__all__ = ["INPUT_RAILS", "Rail", "RailSensor", "choose_input", "find_rails", "open_rail"]

# What each input rail feeds, the largest scope first.
INPUT_RAILS = {"VIN": "board input", "VDD_IN": "module input", "POM_5V_IN": "module input"}
_MONITORS = ("ina3221", "ina238")
_FOLDERS = ("sys/class/hwmon/hwmon*", "sys/bus/i2c/drivers/ina*/*/hwmon/hwmon*")


@dataclass(frozen=True)
class Rail:
    """One supply that a monitor measures.

    Attributes:
        label: Its name in the device tree.
        chip: The monitor, `"INA3221"`.
        folder: Its folder in sysfs.
        channel: Number of the channel.
    """

    label: str
    chip: str
    folder: Path
    channel: int


def find_rails(root: Path = Path("/")) -> list[Rail]:
    """Return the rails of all monitors."""
    folders = {folder.resolve() for pattern in _FOLDERS for folder in root.glob(pattern)}
    is_thor = "thor" in read_text(root / "proc/device-tree/model").lower()
    return [rail for folder in sorted(folders) for rail in _rails(folder, is_thor=is_thor)]


def choose_input(labels: list[str], where: str) -> str:
    """Return the label of the rail that feeds all others.

    Args:
        labels: The rails that were found.
        where: Who named them, for the message.

    Raises:
        SensorError: None of them is known to do that, or it is there twice.
    """
    if not labels:
        raise SensorError(f"{where} shows no power rail")
    found = next((name for name in INPUT_RAILS if name in labels), None)
    if found is None:
        raise SensorError(
            f"{where} shows the rails {', '.join(labels)}, none of which is known to feed the whole board "
            f"({', '.join(INPUT_RAILS)}); parts are not added up to a whole"
        )
    if labels.count(found) > 1:
        raise SensorError(f"{where} shows the rail {found} {labels.count(found)} times")
    return found


class RailSensor(PowerSensor):
    """Power of one rail: voltage times current, or what the monitor multiplied itself."""

    def __init__(self, rail: Rail) -> None:
        self.name = f"{rail.chip} {rail.label} ({INPUT_RAILS[rail.label]})"
        channel, self._folder = rail.channel, rail.folder
        self._power = self._folder / f"power{channel}_input"
        self._factors = (self._folder / f"in{channel}_input", self._folder / f"curr{channel}_input")
        self._has_power = self._power.exists()

    def read(self) -> float:
        """Read it, watts."""
        try:
            if self._has_power:
                return int(self._power.read_text()) / 1e6
            millivolts, milliamperes = (int(path.read_text()) for path in self._factors)
        except (OSError, ValueError) as error:
            raise SensorError(f"{self.name} cannot be read: {error}") from error
        return millivolts * milliamperes / 1e6


def open_rail(root: Path = Path("/")) -> RailSensor:
    """Open the input rail of a Jetson.

    Raises:
        SensorError: The machine is no Jetson, or shows no rail that is known to be the input.
    """
    if detect_jetson(root) is None:
        raise SensorError("not a Jetson")
    rails = find_rails(root)
    label = choose_input([rail.label for rail in rails], "sysfs")
    sensor = RailSensor(next(rail for rail in rails if rail.label == label))
    sensor.read()
    return sensor


def _rails(folder: Path, *, is_thor: bool) -> Iterator[Rail]:
    chip = read_text(folder / "name")
    if chip not in _MONITORS:
        return
    for path in sorted(folder.glob("in*_label")):
        channel, label = int(path.name[2:-6]), read_text(path)
        # Without a current it is no rail: "sum of shunt voltages". NC: not connected.
        if label and label != "NC" and read_int(folder / f"curr{channel}_input") is not None:
            yield Rail(label, chip.upper(), folder, channel)
    if chip == "ina238" and is_thor and not list(folder.glob("in*_label")):
        yield Rail("VIN", chip.upper(), folder, 1)  # its device tree gives it no label
