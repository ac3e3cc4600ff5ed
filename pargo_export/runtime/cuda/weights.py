"""The weights of a variant by module path, whatever they were read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pargo_export.errors import BackendError

__all__ = ["QuantizedWeight", "Weights"]


@dataclass(frozen=True)
class QuantizedWeight:
    """An 8-bit weight and the scale of the activation that it is multiplied with.

    Attributes:
        values: float8_e4m3fn or int8 `[N, K]`.
        scales: float32 `[N]`, one an output channel.
        activation_scale: float32, one number.
    """

    values: Tensor
    scales: Tensor
    activation_scale: Tensor

    def to(self, device: torch.device | str) -> QuantizedWeight:
        """Return it on a device, the scales in float32."""
        return QuantizedWeight(
            self.values.to(device),
            self.scales.to(device, torch.float32),
            self.activation_scale.to(device, torch.float32).reshape(()),
        )


class Weights:
    """Tensors by the names of `state_dict()`: a linear has `path.weight` `[N, K]` and perhaps `path.bias` `[N]`.

    The state dict and the buffers of a deploy module are such a mapping; `onnx_weights.read_weights` reads one
    from the graph of a variant.

    Args:
        tensors: The tensors.
        quantized: 8-bit weights by the path of the linear; its bias, if it has one, is in `tensors`.
        device: Where they go.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        quantized: Mapping[str, QuantizedWeight] | None = None,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self._tensors = {name: tensor.detach().to(self.device) for name, tensor in tensors.items()}
        self._quantized = {path: weight.to(self.device) for path, weight in (quantized or {}).items()}

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def get(self, name: str) -> Tensor | None:
        """Return a tensor, or `None` if there is none of that name."""
        return self._tensors.get(name)

    def require(self, name: str) -> Tensor:
        """Return a tensor.

        Raises:
            BackendError: There is none of that name.
        """
        tensor = self._tensors.get(name)
        if tensor is None:
            raise BackendError(
                f"the variant has no weight {name!r}: its graph is not as this version exports it; export it again"
            )
        return tensor

    def find(self, suffix: str) -> Tensor:
        """Return the one tensor whose name ends so; shared tables are named after any of their readers.

        Raises:
            BackendError: There is none.
        """
        names = [name for name in self._tensors if name.endswith(suffix)]
        return self.require(names[0] if names else f"*{suffix}")

    def quantized(self, path: str) -> QuantizedWeight | None:
        """Return the 8-bit weight of a linear, or `None` if it is a float one."""
        return self._quantized.get(path)

    def has_quantized(self, prefix: str) -> bool:
        """Whether any linear under `prefix` has 8-bit weights."""
        return any(path.startswith(prefix) for path in self._quantized)

    def widened(self, prefix: str, dtype: torch.dtype) -> Weights:
        """Return the weights with the 8-bit ones under `prefix` multiplied out, in a float type."""
        quantized = {path: weight for path, weight in self._quantized.items() if not path.startswith(prefix)}
        tensors = dict(self._tensors)
        for path in self._quantized.keys() - quantized.keys():
            weight = self._quantized[path]
            tensors[f"{path}.weight"] = (weight.values.float() * weight.scales[:, None]).to(dtype)
        return Weights(tensors, quantized, device=self.device)
