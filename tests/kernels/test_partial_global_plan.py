"""The workspace that a program keeps for its cross-attentions: as large as a launch needs, or none."""

from __future__ import annotations

import pytest
import torch

from pargo_kernels import partial_global_plan
from pargo_kernels.partial_global_plan import make_workspace, plan_workspace

pytest.importorskip("triton")

SIZES = {"num_partial": 288, "num_global": 16, "num_keys": 576, "head_dim": 64, "dtype": torch.float16}


def test_no_workspace_is_planned_on_the_cpu():
    """Kernels that run there, interpreted, take all keys in one program unless they are asked not to."""
    assert plan_workspace(8, **SIZES, device=torch.device("cpu")) is None


@pytest.mark.parametrize(("batch", "splits"), [(1, 5), (8, 2)])
def test_a_planned_workspace_is_what_the_launch_asks_for(batch, splits, monkeypatch):
    """Also without a GPU: the launch chooses the splits that were planned, and takes the workspace as it is."""
    from pargo_kernels.triton_partial_global import launch_arguments

    made = []

    def make(*sizes, device):
        made.append(device)
        return make_workspace(*sizes, device=torch.device("cpu"))

    monkeypatch.setattr(partial_global_plan, "make_workspace", make)
    planned = plan_workspace(8 * batch, **SIZES, device=torch.device("cuda", 1))
    assert made == [torch.device("cuda", 1)]
    assert not planned.counters.any()
    query, context = (torch.empty(batch, tokens, 512, dtype=torch.float16) for tokens in (304, 576))
    numbers = {"num_heads": 8, "num_partial": 288, "num_global": 16, "scale": 0.125}
    call = launch_arguments(query, context, context, query, **numbers, workspace=planned)
    assert call.options["NUM_SPLITS"] == splits
    assert call.arguments[4] is planned.sums
    assert call.arguments[5] is planned.counters


def test_no_workspace_where_one_program_takes_all_keys():
    """From 16 images of 8 heads on there are programs enough; nothing is allocated, on whatever device."""
    assert plan_workspace(8 * 32, **SIZES, device=torch.device("cuda")) is None
    assert plan_workspace(8, **{**SIZES, "num_global": 0}, device=torch.device("cuda")) is None
