"""How answers are generated; never by sampling, so that the same input has the same answer."""

from __future__ import annotations

from dataclasses import dataclass

from pargo_export.errors import ConfigError

__all__ = ["GREEDY", "OFFICIAL", "GenerationSettings"]


@dataclass(frozen=True)
class GenerationSettings:
    """Greedy or beam search, as `generate` of transformers defines it.

    The defaults are those of the official evaluation (`eval/eval_mme_finetuning.py`).

    Attributes:
        max_new_tokens: Tokens at most, the one that ends the sequence included.
        num_beams: Beams; 1 is greedy search.
        length_penalty: Exponent of the length by which the score of a finished beam is divided.
        repetition_penalty: Divides the scores of tokens that were generated before (multiplies, if negative).
        min_new_tokens: Tokens before the sequence may end: the official `min_length=1`, which in the official version
            of transformers (4.33) keeps an answer from being empty.

    Raises:
        ConfigError: A value is out of range.
    """

    max_new_tokens: int = 100
    num_beams: int = 4
    length_penalty: float = 1.0
    repetition_penalty: float = 1.0
    min_new_tokens: int = 1

    def __post_init__(self) -> None:
        lowest = {"max_new_tokens": 1, "num_beams": 1, "min_new_tokens": 0}
        for name, least in lowest.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: found {getattr(self, name)}, expected at least {least}")
        if not self.repetition_penalty > 0:
            raise ConfigError(f"repetition_penalty: found {self.repetition_penalty}, expected more than 0")
        if self.min_new_tokens > self.max_new_tokens:
            raise ConfigError(
                f"min_new_tokens: found {self.min_new_tokens}, expected at most max_new_tokens, {self.max_new_tokens}"
            )


OFFICIAL = GenerationSettings()
GREEDY = GenerationSettings(num_beams=1)
