"""What a `pargo::` node computes, and the one launch that computes it, as the TensorRT plugins keep them.

Neither TensorRT nor Triton nor PyTorch: an engine that was built elsewhere runs with this file, the launcher
and the CUDA driver. `triton_plugin.py` makes the launches.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pargo_kernels.cubin_launcher import CompiledKernel

__all__ = ["DTYPES", "NODE_FIELDS", "OPERATIONS", "AttentionLaunch", "AttentionNode", "AttentionShape"]

OPERATIONS = ("PartialGlobalAttention", "BlockDiagonalAttention")
NODE_FIELDS = ("num_heads", "num_partial", "num_global", "window", "scale")  # attributes of both nodes
DTYPES = ("float16", "bfloat16", "float32")


@dataclass(frozen=True)
class AttentionNode:
    """A node `pargo::<operation>` with its attributes.

    Attributes:
        operation: One of `OPERATIONS`.
        num_heads: H.
        num_partial: P, the first queries.
        num_global: G, the queries after them.
        window: Image tokens that a partial token sees; in `BlockDiagonalAttention` neighbours, 0 for all.
        scale: Factor on the scores; the nodes leave it out where it is 1.
    """

    operation: str
    num_heads: int
    num_partial: int
    num_global: int
    window: int
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.operation not in OPERATIONS:
            raise ValueError(f"no plugin for {self.operation!r}, expected {' or '.join(OPERATIONS)}")
        if self.num_heads < 1 or min(self.num_partial, self.num_global, self.window) < 0:
            raise ValueError(
                f"{self.operation} with num_heads={self.num_heads}, num_partial={self.num_partial}, "
                f"num_global={self.num_global}, window={self.window}: expected at least one head and no negative "
                "number; pass the attributes of the exported node"
            )

    def check(self, query: Sequence[int], key: Sequence[int], value: Sequence[int]) -> None:
        """Compare shapes with the attributes; -1 stands for a batch that is not known yet.

        Args:
            query: `[B or 1, P + G, C]`.
            key: `[B, N, C]`.
            value: `[B, N, C]`.

        Raises:
            ValueError: The shapes do not belong to this node.
        """
        found = f"query {list(query)}, key {list(key)}, value {list(value)}"
        if not len(query) == len(key) == len(value) == 3:
            raise ValueError(f"{self.operation}: {found}, expected [batch, tokens, channels] for each")
        tokens, keys, width = query[1], key[1], query[2]
        expected = keys if self.operation == "BlockDiagonalAttention" else self.num_partial * self.window
        if (
            tokens != self.num_partial + self.num_global
            or list(key) != list(value)
            or width != key[2]
            or width < 1
            or width % self.num_heads
            or keys < 1
            or (self.operation == "BlockDiagonalAttention" and keys != tokens)
            or (self.num_partial and keys != expected)
        ):
            raise ValueError(
                f"{self.operation}: {found} do not fit {self.num_partial} partial and {self.num_global} global "
                f"tokens, window {self.window} and {self.num_heads} heads; build the network from the exported graph"
            )
        if query[0] not in {1, key[0]} and -1 not in {query[0], key[0]}:
            raise ValueError(f"{self.operation}: {found}: the query's batch must be 1 or that of the key")


@dataclass(frozen=True)
class AttentionShape:
    """For which tensors a kernel is compiled.

    Attributes:
        dtype: One of `DTYPES`, of all four tensors.
        num_queries: P + G.
        num_keys: N.
        width: C, all heads together.
        batch: Images that the work is cut for; any number runs.
    """

    dtype: str
    num_queries: int
    num_keys: int
    width: int
    batch: int


@dataclass(frozen=True)
class AttentionLaunch:
    """A compiled kernel and how many programs it takes.

    Attributes:
        kernel: Parameters: query, key, value, output, elements between the queries of two images.
        shape: What it was compiled for.
        programs: Programs of one image on the grid's first axis.
        blocks: Programs on the second axis.
    """

    kernel: CompiledKernel
    shape: AttentionShape
    programs: int
    blocks: int

    def grid(self, batch: int) -> tuple[int, int]:
        """Return the programs by axis for so many images."""
        return batch * self.programs, self.blocks

    def query_stride(self, query_batch: int, batch: int) -> int:
        """Return the elements between the queries of two images: 0 if one query serves them all."""
        return self.shape.num_queries * self.shape.width if query_batch == batch else 0

    def values(self, pointers: Sequence[int], *, query_batch: int, batch: int) -> tuple[int, ...]:
        """Return the kernel's arguments.

        Args:
            pointers: Addresses of query, key, value and output, each contiguous and aligned to 16 bytes.
            query_batch: 1 or `batch`.
            batch: Images.
        """
        query, key, value, output = pointers
        return query, key, value, output, self.query_stride(query_batch, batch)

    def to_bytes(self) -> bytes:
        """Return the launch as one string of bytes, for the engine."""
        header = asdict(self)
        image = header["kernel"].pop("image")
        return json.dumps(header).encode() + b"\n" + image

    @classmethod
    def from_bytes(cls, data: bytes) -> AttentionLaunch:
        """Read what `to_bytes` wrote.

        Raises:
            ValueError: It is something else.
        """
        header, separator, image = data.partition(b"\n")
        try:
            fields: dict[str, Any] = json.loads(header)
            kernel = fields.pop("kernel")
            parameters = tuple(kernel.pop("parameters"))
            shape = AttentionShape(**fields.pop("shape"))
            compiled = CompiledKernel(**kernel, image=image, parameters=parameters)
            launch = cls(kernel=compiled, shape=shape, **fields)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{len(data)} bytes do not hold an attention kernel ({error!r}); build the engine again"
            ) from error
        if not separator or not image:
            raise ValueError(f"{len(data)} bytes hold no kernel after their header; build the engine again")
        return launch
