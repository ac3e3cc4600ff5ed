"""What telemetry needs: the runtime, and a client library when it is used."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from pargo_export.telemetry import JsonFormatter, logs, opentelemetry, prometheus
heavy = ("onnxruntime", "opentelemetry", "prometheus_client", "torch")
print(*[name for name in heavy if name in sys.modules])
"""


def test_importing_loads_no_client_library():
    """They are imported by `instrument`."""
    found = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
