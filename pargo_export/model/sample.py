"""Random checkpoints in the official layout, for trials and benchmarks: no trained weights needed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from pargo_export.bundle import atomic_write
from pargo_export.checkpoint.config_search import METADATA_KEY
from pargo_export.checkpoint.key_mapping import (
    language_model_keys,
    official_buffers,
    official_name,
)
from pargo_export.checkpoint.presets import preset as find_preset
from pargo_export.config import ModelConfig
from pargo_export.errors import CheckpointError
from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.model.loading import expected_buffer

__all__ = ["SampleTensor", "sample_tensors", "write_sample"]

_SAFETENSORS_DTYPES = {torch.float32: "F32", torch.int64: "I64"}
# Standard deviation of what a projection makes of normalised input. Queries and keys are large enough for
# attention that is far from uniform, and what is added to a residual stream is small enough for it to stay of
# order 1 through any number of layers.
_GAINS = {"query": 1.3, "key": 1.3, "value": 1.0, "gate": 1.0, "up": 1.0, "output": 0.5, "down": 0.5}
_TOKEN_STD = 0.5
_BIAS_STD = 0.1
_NORM_STD = 0.1

# Trained transformers have a few channels that are tens of times larger than the rest, in the gains of their norms
# and in the residual stream (SmoothQuant, arXiv 2211.10438; Massive Activations, arXiv 2402.17762). Random weights
# have none, so they flatter every quantization. These numbers imitate the shape, not any particular model.
_OUTLIER_SIGMA = 0.5  # of the logarithm of all gains
_OUTLIER_EVERY = 256  # one channel in so many gets a large gain
_OUTLIER_GAIN = 12.0
_MASSIVE_CHANNELS = (3, 5)  # residual channels, as fractions 1/3 and 1/5 of the width
_MASSIVE_VALUE = 40.0


@dataclass(frozen=True)
class SampleTensor:
    """One tensor of a sample checkpoint, made when asked for.

    Attributes:
        name: Official name.
        shape: Its shape.
        dtype: Its dtype.
        make: Compute it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], Tensor]


def write_sample(
    path: str | Path,
    preset: str | ModelConfig = "tiny",
    *,
    seed: int = 0,
    llm: bool = False,
    outliers: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write a seeded random checkpoint with every key that the official code saves.

    The same arguments give the same bytes. A `.safetensors` file carries its configuration and is written tensor
    by tensor; a `.pt` file needs one copy of the weights in memory. The file appears complete or not at all.

    Args:
        path: Where; the suffix `.safetensors`, `.pt`, `.pth` or `.bin` chooses the format.
        preset: A preset or a configuration.
        seed: Chooses the weights.
        llm: Add a few small tensors of a language model with LoRA, as a full checkpoint has them.
        outliers: Give the activations the heavy tails of trained models, which random weights lack: for studies of
            quantization. It imitates their shape and is no evidence of accuracy.
        overwrite: Replace an existing file.

    Returns:
        The path.

    Raises:
        ConfigError: There is no such preset.
        CheckpointError: The suffix is unknown, the file exists, or it cannot be written.
    """
    path = Path(path)
    config = find_preset(preset) if isinstance(preset, str) else preset
    if path.suffix not in (".safetensors", ".pt", ".pth", ".bin"):
        raise CheckpointError(
            f"{path}: found the suffix {path.suffix!r}, expected .safetensors, .pt, .pth or .bin"
        )
    if path.exists() and not overwrite:
        raise CheckpointError(
            f"{path}: exists already; choose another name or ask to overwrite it (--overwrite)"
        )
    tensors = list(sample_tensors(config, seed=seed, llm=llm, outliers=outliers))

    def write(stream: BinaryIO) -> None:
        if path.suffix == ".safetensors":
            _write_safetensors(stream, tensors, {METADATA_KEY: config.model_dump_json()})
        else:
            torch.save({tensor.name: tensor.make() for tensor in tensors}, stream)

    try:
        atomic_write(path, write)
    except (OSError, RuntimeError) as error:  # torch.save turns a full disk into a RuntimeError
        raise CheckpointError(
            f"{path}: cannot be written: {error}; choose a directory with room and access"
        ) from error
    return path


def sample_tensors(
    config: ModelConfig, *, seed: int = 0, llm: bool = False, outliers: bool = False
) -> Iterator[SampleTensor]:
    """Yield every tensor of a sample checkpoint: weights, derived buffers and, if asked for, a language model."""
    with torch.device("meta"):
        model = VisualFrontEnd(config)
    num_writes = 2 * max(config.vision.num_layers, 1)
    for name, tensor in model.state_dict().items():
        shape = tuple(tensor.shape)
        made = _random(official_name(name), shape, _distribution(name, shape, num_writes), seed)
        yield _with_outliers(made, name, config.vision.num_layers) if outliers else made
    for key, kind in official_buffers(config.vision.num_layers, has_queries=config.projector.has_queries):
        buffer = expected_buffer(kind, config)
        yield SampleTensor(key, tuple(buffer.shape), buffer.dtype, buffer.clone)
    if llm:
        for key, shape in language_model_keys(config.projector.llm_hidden_size):
            yield _random(key, shape, (0.0, 0.02), seed)


def _distribution(name: str, shape: tuple[int, ...], num_writes: int) -> tuple[float, float]:
    """Return mean and standard deviation for a weight of ours."""
    *path, part = name.split(".")
    if part in ("class_token", "query_tokens", "position"):
        return 0.0, _TOKEN_STD
    if "norm" in path[-1]:
        return (1.0 if part == "weight" else 0.0), _NORM_STD
    if part == "bias":
        return 0.0, _BIAS_STD
    fan_in = int(np.prod(shape[1:]))
    gain = _GAINS.get(path[-1], 1.0)
    if path[0] == "tower" and path[-1] in ("output", "down"):
        gain *= (8 / num_writes) ** 0.5 if num_writes > 8 else 1.0
    return 0.0, gain / fan_in**0.5


def _random(name: str, shape: tuple[int, ...], distribution: tuple[float, float], seed: int) -> SampleTensor:
    mean, std = distribution

    def make() -> Tensor:
        # One generator per tensor: a weight depends on its name and the seed, not on what else is in the file.
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
        values = generator.standard_normal(shape, dtype=np.float32)
        values *= np.float32(std)
        values += np.float32(mean)
        return torch.from_numpy(values)

    return SampleTensor(name, shape, torch.float32, make)


def _with_outliers(tensor: SampleTensor, name: str, num_blocks: int) -> SampleTensor:
    """Give the gains of the tower's norms heavy tails, and two channels of its residual stream a large offset."""
    is_gain = name.startswith("tower.blocks.") and name.endswith(
        ("norm.weight", "norm1.weight", "norm2.weight")
    )
    is_source = name == f"tower.blocks.{num_blocks // 4}.mlp.down.bias"
    if not (is_gain or is_source):
        return tensor

    def make() -> Tensor:
        values = tensor.make()
        if is_source:
            for part in _MASSIVE_CHANNELS:
                values[len(values) // part] = _MASSIVE_VALUE
            return values
        values = torch.exp(_OUTLIER_SIGMA / _NORM_STD * (values - 1))
        # Always the same channels, as in trained models; counted from 1/2 so that short vectors have one too.
        values[_OUTLIER_EVERY // 2 % len(values) :: _OUTLIER_EVERY] *= _OUTLIER_GAIN
        return values

    return SampleTensor(tensor.name, tensor.shape, tensor.dtype, make)


def _write_safetensors(stream: BinaryIO, tensors: list[SampleTensor], metadata: Mapping[str, str]) -> None:
    """Write the format tensor by tensor, so that a full-size file needs no memory for the rest of it."""
    ordered = sorted(
        tensors, key=lambda tensor: (-tensor.dtype.itemsize, tensor.name)
    )  # aligned, as the library does
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    for tensor in ordered:
        end = offset + int(np.prod(tensor.shape)) * tensor.dtype.itemsize
        header[tensor.name] = {
            "dtype": _SAFETENSORS_DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    stream.write(len(encoded).to_bytes(8, "little"))
    stream.write(encoded)
    for tensor in ordered:
        stream.write(tensor.make().numpy().tobytes())
