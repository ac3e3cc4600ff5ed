"""A variant or an engine of a bundle, in the formats of other runtimes and tools.

Each function writes one directory, whole or not at all, with a `README.md` and a record, `handover.json`.
"""

from __future__ import annotations

from pargo_export.engine.handover.directory import Handover
from pargo_export.engine.handover.ep_context import hand_over_ep_context
from pargo_export.engine.handover.polygraphy import hand_over_polygraphy
from pargo_export.engine.handover.triton import hand_over_triton

__all__ = ["Handover", "hand_over_ep_context", "hand_over_polygraphy", "hand_over_triton"]
