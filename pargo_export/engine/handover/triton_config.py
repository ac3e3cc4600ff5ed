"""`config.pbtxt` of Triton Inference Server, for one model.

The fields are those of `model_config.proto` in triton-inference-server/common; the tests parse what is written with
the classes that `tritonclient` generates from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pargo_export.bundle import BatchProfile, Variant
from pargo_export.errors import EngineError
from pargo_export.signature import TensorSpec

__all__ = ["TritonModel"]

_DTYPES = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "bfloat16": "TYPE_BF16",
    "uint8": "TYPE_UINT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
}


@dataclass(frozen=True)
class TritonModel:
    """One model of a repository.

    Attributes:
        name: Name of the model and of its directory.
        backend: What runs it.
        variant: Says inputs and outputs.
        profiles: Batch sizes.
        on_gpu: Whether instances are put on GPUs.
        num_instances: Instances on each GPU, or on the CPU.
        queue_delay_us: Microseconds that a request may wait for others to be batched with.
        warmup: Run once with zeros at the largest batch before the model is ready.
    """

    name: str
    backend: Literal["tensorrt", "onnxruntime"]
    variant: Variant
    profiles: tuple[BatchProfile, ...]
    on_gpu: bool = True
    num_instances: int = 1
    queue_delay_us: int = 1000
    warmup: bool = True

    @property
    def batches(self) -> bool:
        """Whether every input and output has a dynamic batch axis, and nothing else that is dynamic."""
        return all(isinstance(spec.shape[0], str) for spec in self._specs)

    @property
    def max_batch(self) -> int:
        """Largest batch; 0 is Triton's word for a model without a batch axis of its own."""
        return max(profile.max_batch for profile in self.profiles) if self.batches else 0

    @property
    def _specs(self) -> Sequence[TensorSpec]:
        signature = self.variant.signature
        return (*signature.inputs, *signature.outputs)

    def to_pbtxt(self) -> str:
        """Text of the configuration.

        Raises:
            EngineError: A dtype is not one of Triton's, or no profile takes a single image.
        """
        smallest = min(profile.min_batch for profile in self.profiles)
        if self.batches and smallest > 1:
            raise EngineError(
                f"the smallest batch of {self.name!r} is {smallest}, but Triton sends single images too; build an engine "
                "whose smallest batch is 1"
            )
        signature = self.variant.signature
        lines = [
            f"name: {json.dumps(self.name)}",
            f"backend: {json.dumps(self.backend)}",
            f"max_batch_size: {self.max_batch}",
            *_listing("input", map(self._tensor, signature.inputs)),
            *_listing("output", map(self._tensor, signature.outputs)),
            *_listing("instance_group", [self._instances()]),
        ]
        if self.max_batch > 1:
            lines += self._dynamic_batching()
        if self.warmup:
            lines += _listing("model_warmup", [self._warmup()])
        return "\n".join(lines) + "\n"

    def _tensor(self, spec: TensorSpec) -> str:
        return f"name: {json.dumps(spec.name)} data_type: {_dtype(spec)} dims: {self._dims(spec)}"

    def _dims(self, spec: TensorSpec) -> str:
        """Sizes without the batch axis, which Triton adds; -1 is a dynamic axis."""
        sizes = spec.shape[1:] if self.batches else spec.shape
        return "[ " + ", ".join("-1" if isinstance(size, str) else str(size) for size in sizes) + " ]"

    def _instances(self) -> str:
        kind = "KIND_GPU" if self.on_gpu else "KIND_CPU"
        text = f"count: {self.num_instances} kind: {kind}"
        if self.backend == "tensorrt" and len(self.profiles) > 1:
            # Triton picks the profile of a request by its batch among those that an instance has.
            names = ", ".join(json.dumps(str(index)) for index in range(len(self.profiles)))
            text += f" profile: [ {names} ]"
        return text

    def _dynamic_batching(self) -> list[str]:
        preferred = sorted({profile.opt_batch for profile in self.profiles if profile.opt_batch > 1})
        lines = ["dynamic_batching {"]
        if preferred:
            lines.append(f"  preferred_batch_size: [ {', '.join(map(str, preferred))} ]")
        return [*lines, f"  max_queue_delay_microseconds: {self.queue_delay_us}", "}"]

    def _warmup(self) -> str:
        inputs = " ".join(
            f"inputs {{ key: {json.dumps(spec.name)} value {{ data_type: {_dtype(spec)} dims: {self._dims(spec)} "
            "zero_data: true } }"
            for spec in self.variant.signature.inputs
        )
        return f'name: "zeros" batch_size: {max(self.max_batch, 1)} {inputs}'


def _dtype(spec: TensorSpec) -> str:
    if spec.dtype not in _DTYPES:
        raise EngineError(
            f"{spec.name} is {spec.dtype}, which Triton has no type for; it has {', '.join(_DTYPES)}"
        )
    return _DTYPES[spec.dtype]


def _listing(field: str, entries: Iterable[str]) -> list[str]:
    body = ",\n".join(f"  {{ {entry} }}" for entry in entries)
    return [f"{field} [", body, "]"]
