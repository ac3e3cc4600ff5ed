"""Names of the graph's inputs and outputs: those of optimum and ONNX Runtime GenAI, so that other tools know them."""

from __future__ import annotations

__all__ = ["ATTENTION_MASK", "INPUTS_EMBEDS", "LOGITS", "past_names", "present_names"]

INPUTS_EMBEDS = "inputs_embeds"
ATTENTION_MASK = "attention_mask"
LOGITS = "logits"


def past_names(layers: int) -> list[str]:
    """Return the names of the caches that go in: key and value in turns, layer by layer."""
    return [f"past_key_values.{layer}.{what}" for layer in range(layers) for what in ("key", "value")]


def present_names(layers: int) -> list[str]:
    """Return the names of the caches that come out, in the same order."""
    return [name.replace("past_key_values", "present") for name in past_names(layers)]
