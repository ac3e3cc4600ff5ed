"""The device table."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pargo_export.errors import ConfigError
from pargo_export.estimation import Device, find_device, list_devices

VALUES = find_device("orin-agx-64").model_dump()


@pytest.mark.parametrize("device", list_devices(), ids=lambda device: device.name)
def test_every_device_has_a_source_and_sensible_figures(device):
    """A document is named; 8 bits are at least as fast as 16, and FP8 is only where the architecture has it."""
    assert any(
        word in device.source for word in ("Data Sheet", "Datasheet", "Whitepaper", "github.com", "blog")
    )
    assert device.fp32 is None or device.fp32 < device.fp16
    assert device.int8 is None or device.int8 >= 1.9 * device.fp16
    if device.fp8 is not None:
        assert device.capability >= (8, 9)
        assert 1.9 <= device.fp8 / device.fp16 <= 2.1
    assert device.is_memory_shared == device.name.startswith(("orin", "thor"))
    assert bool(device.mode) == device.is_memory_shared


def test_names_are_unique():
    """A name is one device in one power mode."""
    names = [device.name for device in list_devices()]
    assert len(names) == len(set(names)) >= 15


def test_a_higher_power_mode_is_faster():
    """MAXN_SUPER and MAXN beat the lower modes of the same module."""
    for fast, slow in (
        ("orin-nano-8-super", "orin-nano-8"),
        ("orin-nx-16-super", "orin-nx-16"),
        ("orin-agx-64", "orin-agx-64-50w"),
        ("orin-agx-64-50w", "orin-agx-64-30w"),
    ):
        assert find_device(fast).fp16 > find_device(slow).fp16
        assert find_device(fast).memory == find_device(slow).memory


def test_an_unknown_device_lists_the_known():
    """The message suggests the nearest name and lists all."""
    with pytest.raises(
        ConfigError, match=r"'orin-agx' *; did you mean orin-agx-\d+\? .*thor, t4, l4"
    ) as caught:
        find_device("orin-agx")
    assert all(device.name in str(caught.value) for device in list_devices())
    with pytest.raises(ConfigError, match="unknown device 'zzz'; The devices are orin-nano-8"):
        find_device("zzz")


@pytest.mark.parametrize(
    "change",
    [{"source": ""}, {"bandwidth": 0}, {"fp16": float("inf")}, {"tflops": 1}, {"compute_capability": "sm87"}],
    ids=lambda change: next(iter(change)),
)
def test_a_row_without_source_or_with_nonsense_is_refused(change):
    """A device of one's own has to say as much as the table."""
    with pytest.raises(ValidationError):
        Device.model_validate(VALUES | change)
