"""Addresses of the GPUs that a process may use."""

from __future__ import annotations

from types import SimpleNamespace

from pargo_export.device.pci import find_pci_addresses


def _driver(addresses, status=0):
    def count(target):
        target._obj.value = len(addresses)
        return 0

    def get(target, index):
        target._obj.value = 10 + index

    def address(buffer, _length, device):
        buffer.value = addresses[device.value - 10].encode()

    return SimpleNamespace(
        cuInit=lambda _flags: status,
        cuDeviceGetCount=count,
        cuDeviceGet=get,
        cuDeviceGetPCIBusId=address,
    )


def test_addresses_in_the_order_of_cuda():
    """Each GPU is asked by its handle, not its number."""
    driver = _driver(["0000:41:00.0", "0000:01:00.0"])
    assert find_pci_addresses(lambda: driver) == ("0000:41:00.0", "0000:01:00.0")


def test_without_gpus():
    """Without a driver, and with one that finds nothing, there are none."""

    def missing():
        raise OSError("libcuda.so.1: cannot open shared object file")

    assert find_pci_addresses(missing) == ()
    assert find_pci_addresses(lambda: _driver(["x"], status=100)) == ()
    assert find_pci_addresses(lambda: _driver([])) == ()
