"""Files that travel with the package."""

from __future__ import annotations

from pathlib import Path

__all__ = ["PHOTOGRAPH", "TRAINED_SAMPLE"]

PHOTOGRAPH = Path(__file__).with_name("coffee.jpg")
# A directory: model.safetensors (tower and projector), llm/ (a transformers directory), CARD.md.
TRAINED_SAMPLE = Path(__file__).with_name("trained")
