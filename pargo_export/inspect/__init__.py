"""Look at a bundle: its masks, its graphs, what it costs to run.

Works on a device: NumPy and Pillow are enough. Node counts need `onnx` and are left out without it.
"""

from __future__ import annotations

from pargo_export.inspect.accuracy import StageAccuracy, group_kept, worst_by_stage
from pargo_export.inspect.cost import BlockCost, CostTable, estimate_cost
from pargo_export.inspect.draw_masks import draw_masks, mask_text
from pargo_export.inspect.draw_windows import draw_windows
from pargo_export.inspect.engines import EngineState, find_engine_states
from pargo_export.inspect.summary import Geometry, GraphSummary, Summary, summarize

__all__ = [
    "BlockCost",
    "CostTable",
    "EngineState",
    "Geometry",
    "GraphSummary",
    "StageAccuracy",
    "Summary",
    "draw_masks",
    "draw_windows",
    "estimate_cost",
    "find_engine_states",
    "group_kept",
    "mask_text",
    "summarize",
    "worst_by_stage",
]
