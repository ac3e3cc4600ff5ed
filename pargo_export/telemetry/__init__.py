"""What a running application wants to know of its runtimes: logs for machines, metrics, spans.

The modules `logs`, `prometheus` and `opentelemetry` each have one function `instrument(runtime)`, which listens to
`Runtime.subscribe` and returns a function that ends it::

    from pargo_export.telemetry import prometheus

    stop = prometheus.instrument(runtime, name="camera")

Importing this package imports no client library; `instrument` does, and says which extra brings it.
"""

from __future__ import annotations

from pargo_export.telemetry.json_logs import JsonFormatter

__all__ = ["JsonFormatter"]
