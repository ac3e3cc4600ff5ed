"""Where visual tokens come from: a variant of a bundle on a backend, an emulation of one, or the PyTorch reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from pargo_export.bundle import Bundle, recipe_sha256
from pargo_export.errors import BundleError, ConfigError
from pargo_export.runtime import Runtime

__all__ = ["EMULATED", "PYTORCH", "Subject", "TokenSource", "open_source"]

PYTORCH = "pytorch"
EMULATED = (
    "emulated"  # a backend of ours: ONNX Runtime computes what no backend here multiplies in (FP8, BF16)
)


@dataclass(frozen=True)
class Subject:
    """Something to be evaluated, before it is opened.

    Attributes:
        name: Its name in the result: `"int8-cpu"`, `"int8-cpu@openvino"` or `"pytorch"`.
        variant: The variant; `None` for PyTorch.
        backend: What runs it; `"auto"`, a backend of the runtime, or `"emulated"`.
    """

    name: str
    variant: str | None
    backend: str

    @classmethod
    def parse(cls, text: str, backend: str = "auto") -> Subject:
        """Read `VARIANT` or `VARIANT@BACKEND`; `pytorch` is the reference."""
        variant, at, own = text.partition("@")
        if not variant or (at and not own):
            raise ConfigError(f"found the variant {text!r}, expected VARIANT or VARIANT@BACKEND")
        if variant == PYTORCH:
            return cls(PYTORCH, None, "torch")
        return cls(text, variant, own or backend)


@dataclass(frozen=True)
class TokenSource:
    """Computes visual tokens; a context manager.

    Attributes:
        name: As the subject's.
        backend: What runs it.
        precision: Of the products, or of the weights of PyTorch.
        description: For people.
        sha256: Hash of what decides the tokens: graph and weights, preprocessing, backend.
        encode: From B pictures to float32 `[B, Q, C]`.
    """

    name: str
    backend: str
    precision: str
    description: str
    sha256: str
    encode: Callable[[list[Path]], NDArray[np.float32]]
    _close: Callable[[], None]

    def close(self) -> None:
        """Free it."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open_source(
    subject: Subject, bundle: Bundle, *, checkpoint: Path | None = None, threads: int | None = None
) -> TokenSource:
    """Open what computes the visual tokens of a subject.

    Args:
        subject: What.
        bundle: The bundle; for PyTorch it has the configuration and the preprocessing.
        checkpoint: What the bundle was made from; PyTorch needs it.
        threads: CPU threads; by default every physical core.

    Raises:
        BackendError: Nothing can run the variant here.
        BundleError: There is no such variant, or it does not compute visual tokens from pictures.
        CheckpointError: The bundle was made from another checkpoint.
        ConfigError: PyTorch is asked for without a checkpoint.
        MissingDependencyError: A package is not installed.
    """
    if subject.variant is None:
        return _open_reference(subject, bundle, checkpoint, threads)
    variant = bundle.variant(subject.variant)
    if variant.component != "all":
        raise BundleError(
            f"bundle {bundle.path}: variant {variant.name!r} is the {variant.component} alone, expected one of the whole "
            "model, from pictures to visual tokens"
        )
    if subject.backend == EMULATED:
        return _open_emulated(subject, bundle, threads)
    runtime = Runtime.open(bundle, variant=subject.variant, backend=subject.backend, threads=threads)
    identity = {"graph": bundle.manifest.graph_sha256(variant.graph), "backend": runtime.backend}
    if runtime.engine is not None:
        identity["engine"] = runtime.engine.engine_sha256
    return TokenSource(
        name=subject.name,
        backend=runtime.backend,
        precision=variant.precision,
        description=runtime.description,
        sha256=_identify(bundle, identity),
        encode=runtime.encode,
        _close=runtime.close,
    )


def _identify(bundle: Bundle, identity: dict[str, str]) -> str:
    return recipe_sha256({**identity, "preprocessing": bundle.manifest.preprocessing.model_dump(mode="json")})


def _open_emulated(subject: Subject, bundle: Bundle, threads: int | None) -> TokenSource:
    from pargo_export.quantization.task import open_encoder

    variant = bundle.variant(subject.variant)
    graph = bundle.check(variant.graph)
    encode = open_encoder(
        graph,
        bundle.manifest.preprocessing,
        takes_uint8=variant.input == "uint8",
        max_batch=variant.max_batch,
        threads=threads,
    )
    return TokenSource(
        name=subject.name,
        backend=EMULATED,
        precision=variant.precision,
        description=f"ONNX Runtime, {variant.precision} emulated in float32 products",
        sha256=_identify(bundle, {"graph": bundle.manifest.graph_sha256(variant.graph), "backend": EMULATED}),
        encode=encode,
        _close=lambda: None,
    )


def _open_reference(
    subject: Subject, bundle: Bundle, checkpoint: Path | None, threads: int | None
) -> TokenSource:
    if checkpoint is None:
        raise ConfigError(
            "the reference in PyTorch needs the checkpoint that the bundle was made from (--checkpoint)"
        )
    from pargo_export.optional import require

    torch = require("torch", extra="export", purpose="run the reference")
    from pargo_export.bench.baseline_reference import load_reference
    from pargo_export.preprocessing import preprocess

    if threads is not None:
        torch.set_num_threads(threads)
    module, spec = load_reference(bundle, checkpoint), bundle.manifest.preprocessing

    def encode(paths: list[Path]) -> NDArray[np.float32]:
        with torch.inference_mode():
            tokens: NDArray[np.float32] = module(torch.from_numpy(preprocess(paths, spec))).float().numpy()
        return tokens

    return TokenSource(
        name=subject.name,
        backend="torch",
        precision="float32",
        description=f"PyTorch {torch.__version__}, eager, the official architecture in float32",
        sha256=_identify(bundle, {"weights": bundle.manifest.source.sha256, "backend": "torch"}),
        encode=encode,
        _close=lambda: None,
    )
