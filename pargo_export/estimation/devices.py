"""The device table: what each device can do at most, with the source of every row."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pargo_export.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Device", "find_device", "list_devices", "read_table"]

_FOLDER = Path(__file__).parent
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Device(BaseModel):
    """One device in one power mode. Peaks are dense, and of the GPU alone.

    Attributes:
        name: What `--device` calls it.
        title: Its full name.
        mode: Power mode that the figures hold for; empty for a card with one.
        compute_capability: For example `"8.7"`.
        fp32: TFLOP/s outside the tensor cores; `None`: no figure with a source.
        fp16: TFLOP/s of the tensor cores, also of BF16 where the device has it.
        int8: TOP/s; `None`: no figure with a source.
        fp8: TFLOP/s; `None`: the device has no FP8, or there is no figure with a source.
        bandwidth: Of the memory, in GB/s.
        memory: In GB (2^30 bytes).
        is_memory_shared: Whether CPU and GPU share it, as on a Jetson.
        validated: Whether estimates for FP16 were held against times of this device, and whose.
        source: Document that the figures are from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    title: Annotated[str, Field(min_length=1)]
    mode: str = ""
    compute_capability: Annotated[str, Field(pattern=r"^\d+\.\d+$")]
    fp32: Rate | None = None
    fp16: Rate
    int8: Rate | None = None
    fp8: Rate | None = None
    bandwidth: Rate
    memory: Rate
    is_memory_shared: bool = False
    validated: Literal["published", "measured"] | None = None
    source: Annotated[str, Field(min_length=10)]

    @property
    def capability(self) -> tuple[int, int]:
        """Compute capability as numbers, which compare."""
        major, minor = self.compute_capability.split(".")
        return int(major), int(minor)

    @property
    def memory_bytes(self) -> int:
        """All of its memory."""
        return int(self.memory * 2**30)


def read_table(name: str) -> dict[str, Any]:
    """Return the content of a TOML file of this package."""
    return tomllib.loads((_FOLDER / name).read_text("utf-8"))


@cache
def list_devices() -> tuple[Device, ...]:
    """Return the device table."""
    return tuple(Device.model_validate(row) for row in read_table("devices.toml")["device"])


def find_device(name: str) -> Device:
    """Return the device called `name`.

    Raises:
        ConfigError: The table has none of that name; the known ones are listed.
    """
    devices = {device.name: device for device in list_devices()}
    if name not in devices:
        near = get_close_matches(name, devices, n=1)
        mend = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"unknown device {name!r}; {mend}The devices are {', '.join(devices)}")
    return devices[name]
