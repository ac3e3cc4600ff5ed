"""Which graph encodes, on which backend: settled once, before any worker begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pargo_export.bundle import Bundle, recipe_sha256
from pargo_export.encoding.options import EncodeOptions
from pargo_export.encoding.records import EncodedBy
from pargo_export.errors import BackendError, ConfigError, InputError
from pargo_export.runtime import select

__all__ = ["Chosen", "choose_model"]


@dataclass(frozen=True)
class Chosen:
    """What encodes.

    Attributes:
        model: What is recorded about it.
        output: Name of the output.
        shape: Of the tokens of one image, `[Q, C]`.
    """

    model: EncodedBy
    output: str
    shape: tuple[int, int]


def choose_model(bundle: Path, options: EncodeOptions) -> Chosen:
    """Choose as `Runtime.open` does, on this machine.

    Raises:
        BackendError: Nothing can run the bundle here.
        BundleError: There is no valid bundle, or no such variant.
        ConfigError: The batch is larger than the graph was made for.
        InputError: The variant takes no pictures.
    """
    opened = Bundle.open(bundle)
    selection = select(opened, backend=options.backend, variant=options.variant)
    if not selection.candidates:
        reasons = "".join(f"\n  {reason}" for reason in selection.refusals)
        raise BackendError(f"nothing can run bundle {bundle} here: {reasons}")
    choice = selection.candidates[0]
    variant, manifest = choice.variant, opened.manifest
    if variant.component == "projector":
        raise InputError(
            f"{bundle}: variant {variant.name!r} is the projector alone, which takes no pictures; choose one of component "
            "'all' or 'encoder'"
        )
    if options.batch_size is not None and options.batch_size > variant.max_batch:
        raise ConfigError(
            f"batch_size: found {options.batch_size}, expected at most {variant.max_batch}, the largest that variant "
            f"{variant.name!r} was made for"
        )
    output = variant.signature.outputs[0]
    num_tokens, width = map(int, output.shape[1:])
    model = EncodedBy(
        variant=variant.name,
        backend=choice.backend.name,
        engine=None if choice.engine is None else choice.engine.name,
        graph_sha256=manifest.graph_sha256(variant.graph),
        preprocessing_sha256=recipe_sha256(manifest.preprocessing.model_dump(mode="json")),
        batch_size=options.batch_size or variant.max_batch,
    )
    return Chosen(model, output.name, (num_tokens, width))
