"""What is measured while TensorRT builds."""

from __future__ import annotations

from pargo_export.engine import compile as compiling


def test_peak_memory_is_that_of_this_process(tmp_path, monkeypatch):
    """It is read where a large process that started this one leaves no trace; elsewhere than on Linux asked of the system."""
    status = tmp_path / "status"
    status.write_text("VmPeak:\t   99999 kB\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n")
    monkeypatch.setattr(compiling, "_STATUS", status)
    assert compiling._peak_memory_bytes() == 2 << 20
    status.unlink()
    assert compiling._peak_memory_bytes() > 1 << 20
