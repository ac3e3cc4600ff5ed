"""What a plugin keeps of a node: attributes against shapes, grid and arguments, and the bytes in the engine."""

from __future__ import annotations

import pytest

from pargo_kernels.cubin_launcher import CompiledKernel
from pargo_kernels.trt_launch import AttentionLaunch, AttentionNode, AttentionShape

CROSS = AttentionNode("PartialGlobalAttention", num_heads=2, num_partial=6, num_global=2, window=3)
SELF = AttentionNode("BlockDiagonalAttention", num_heads=2, num_partial=6, num_global=2, window=0, scale=0.5)
LAUNCH = AttentionLaunch(
    CompiledKernel("kernel", b"\n\x00bytes\n", ("*fp16", "*fp16", "*fp16", "*fp16", "i32"), 4, 512),
    AttentionShape("float16", num_queries=8, num_keys=18, width=32, batch=4),
    programs=2,
    blocks=5,
)


@pytest.mark.parametrize("query_batch", [1, 3, -1])
def test_shapes_of_the_node_pass(query_batch: int) -> None:
    """One query for all images, one for each, and a batch that is not known yet."""
    CROSS.check((query_batch, 8, 32), (3, 18, 32), (3, 18, 32))
    SELF.check((query_batch, 8, 32), (3, 8, 32), (3, 8, 32))


@pytest.mark.parametrize(
    ("node", "query", "key", "value"),
    [
        (CROSS, (1, 7, 32), (3, 18, 32), (3, 18, 32)),
        (CROSS, (1, 8, 32), (3, 17, 32), (3, 17, 32)),
        (CROSS, (1, 8, 32), (3, 18, 32), (3, 18, 16)),
        (CROSS, (1, 8, 33), (3, 18, 33), (3, 18, 33)),
        (SELF, (1, 8, 32), (3, 18, 32), (3, 18, 32)),
        (CROSS, (1, 8), (3, 18), (3, 18)),
    ],
)
def test_shapes_of_another_model_are_refused(
    node: AttentionNode, query: tuple, key: tuple, value: tuple
) -> None:
    """Tokens, window, width and rank are compared with the attributes."""
    with pytest.raises(ValueError, match=rf"{node.operation}: query \[1, "):
        node.check(query, key, value)


def test_two_queries_for_three_images_are_refused() -> None:
    """A query belongs to all images or to one."""
    with pytest.raises(ValueError, match="query's batch must be 1 or that of the key"):
        CROSS.check((2, 8, 32), (3, 18, 32), (3, 18, 32))


def test_unknown_operation_is_refused() -> None:
    """There are two plugins."""
    with pytest.raises(ValueError, match="no plugin for 'Attention'"):
        AttentionNode("Attention", 1, 1, 1, 1)


def test_grid_grows_with_the_batch() -> None:
    """Any batch runs, whatever the work was cut for."""
    assert [LAUNCH.grid(batch) for batch in (1, 7)] == [(2, 5), (14, 5)]


@pytest.mark.parametrize(("query_batch", "step"), [(1, 0), (3, 8 * 32)])
def test_arguments_follow_the_kernel(query_batch: int, step: int) -> None:
    """Four addresses, then the elements between the queries of two images."""
    assert LAUNCH.values((16, 32, 48, 64), query_batch=query_batch, batch=3) == (16, 32, 48, 64, step)


def test_bytes_in_the_engine_are_read_back() -> None:
    """The launch survives, with line feeds in its binary."""
    assert AttentionLaunch.from_bytes(LAUNCH.to_bytes()) == LAUNCH


@pytest.mark.parametrize("data", [b"", b"{}\nx", b"\xff\x00", LAUNCH.to_bytes().split(b"\n")[0]])
def test_other_bytes_are_refused(data: bytes) -> None:
    """Bytes of another version or cut short are named, with what to do."""
    with pytest.raises(ValueError, match="build the engine again"):
        AttentionLaunch.from_bytes(data)
