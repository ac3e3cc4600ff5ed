"""Workspaces of the cross-attention: one a stream and batch size, none on the CPU."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from golden_cases import golden_model

from pargo_export.runtime.cuda import workspace
from pargo_export.runtime.cuda.workspace import Workspaces

CONFIG = golden_model("pargo_w2").config.projector


@pytest.fixture
def planned(monkeypatch):
    """Record what is planned, in place of an allocation on a GPU; `planned.stream` is the current stream."""
    record = SimpleNamespace(calls=[], stream=1)

    def plan(programs, **sizes):
        record.calls.append((programs, sizes))
        return object()

    monkeypatch.setattr(workspace, "plan_workspace", plan)
    monkeypatch.setattr(
        workspace.torch.cuda, "current_stream", lambda _: SimpleNamespace(cuda_stream=record.stream)
    )
    return record


def features(batch):
    """Return what `Workspaces` asks of image features on a GPU."""
    return SimpleNamespace(
        is_cuda=True, shape=(batch, 36, 64), dtype=torch.float16, device=torch.device("cuda", 1)
    )


def test_layers_of_a_run_share_one_workspace(planned):
    """The same stream and batch size get the same; another stream or batch size gets its own."""
    workspaces = Workspaces(CONFIG)
    first = workspaces.get(features(1))
    assert workspaces.get(features(1)) is first
    more = workspaces.get(features(2))
    planned.stream = 2
    other = workspaces.get(features(1))
    assert len({first, more, other}) == len(planned.calls) == 3
    planned.stream = 1
    assert [workspaces.get(features(1)), workspaces.get(features(2))] == [first, more]
    assert len(planned.calls) == 3


def test_a_workspace_is_planned_for_the_model(planned):
    """Programs are heads of all images; sizes, dtype and device are those of the model and the features."""
    Workspaces(CONFIG).get(features(3))
    ((programs, sizes),) = planned.calls
    assert programs == 3 * CONFIG.num_heads
    assert sizes == {
        "num_partial": CONFIG.num_partial_tokens,
        "num_global": CONFIG.num_global_tokens,
        "num_keys": 36,
        "head_dim": CONFIG.head_dim,
        "dtype": torch.float16,
        "device": torch.device("cuda", 1),
    }


def test_that_none_is_needed_is_remembered(planned, monkeypatch):
    """Where one program takes all keys nothing is allocated, and that is asked once."""
    monkeypatch.setattr(workspace, "plan_workspace", lambda *_, **__: planned.calls.append(None))
    workspaces = Workspaces(CONFIG)
    assert [workspaces.get(features(32)) for _ in range(2)] == [None, None]
    assert len(planned.calls) == 1


def test_no_workspace_on_the_cpu(planned):
    """The reference, which runs there, splits nothing."""
    assert Workspaces(CONFIG).get(torch.zeros(1, 36, 64)) is None
    assert planned.calls == []
