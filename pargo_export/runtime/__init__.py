"""From a bundle to visual tokens, on the device.

`Runtime` is what users need. Needs NumPy, Pillow and one backend; PyTorch only for the backend `cuda`, and never
transformers.
"""

from __future__ import annotations

from pargo_export.runtime.backends import BACKENDS, Backend
from pargo_export.runtime.output import describe_provenance, write_tokens
from pargo_export.runtime.runner import Runner, RunnerOptions
from pargo_export.runtime.runtime import Runtime
from pargo_export.runtime.selection import Candidate, Selection, select

__all__ = [
    "BACKENDS",
    "Backend",
    "Candidate",
    "Runner",
    "RunnerOptions",
    "Runtime",
    "Selection",
    "describe_provenance",
    "select",
    "write_tokens",
]
