"""From what a configuration says and what the checkpoint shows to one complete `ModelConfig`."""

from __future__ import annotations

from typing import Any

from pargo_export.checkpoint.inference import Facts
from pargo_export.checkpoint.official_config import OFFICIAL_SPELLING
from pargo_export.checkpoint.presets import PRESETS
from pargo_export.checkpoint.statements import Statements
from pargo_export.checkpoint.tiles import tile_grid
from pargo_export.config import ModelConfig, ProjectorConfig, TowerConfig, VisionConfig, VitConfig
from pargo_export.errors import ConfigError

__all__ = ["find_contradictions", "resolve_config"]

_QUERY_FIELDS = (
    "hidden_size",
    "num_layers",
    "num_heads",
    "intermediate_size",
    "max_position_embeddings",
)
_NEEDED = (
    "vision.image_size",
    "vision.patch_size",
    "vision.width",
    "vision.num_layers",
    "vision.head_width",
    "vision.hidden_width",
    "projector.encoder_width",
    "projector.llm_hidden_size",
)
_INTEGERS = (
    "vision.image_size",
    "projector.num_query_tokens",
    "projector.num_partial_tokens",
    "projector.num_global_tokens",
)
# Stated values that follow from others; they must agree with what follows.
_DERIVED = (
    "vision.num_heads",
    "vision.grid_size",
    "vision.num_patches",
    "projector.num_query_tokens",
    "num_image_tokens",
)


def find_contradictions(statements: Statements, facts: Facts) -> list[str]:
    """Return a sentence for each stated value that no tensor of the checkpoint agrees with."""
    sentences = [
        f"{found[0].wording}, which no value gives" for found in facts.values() if found[0].value is None
    ]
    return sentences + [
        f"{statements.source} says {statements.wording(name)}, {facts[name][0].wording}"
        for name in facts
        if name in statements and not _agrees(name, statements, facts)
    ]


def _agrees(name: str, statements: Statements, facts: Facts) -> bool:
    value = statements.value(name)
    if name == "projector.cross_attention_freq" and isinstance(value, int):
        value = min(value, facts["projector.num_layers"][0].value)  # from there on: layer 0 alone
    return value in [fact.value for fact in facts[name]]


def resolve_config(statements: Statements, facts: Facts, vision: VitConfig | None = None) -> ModelConfig:
    """Complete a configuration with what the tensors show.

    Args:
        statements: What a configuration says.
        facts: What the tensors show.
        vision: A CLIP or SigLIP tower, described by its own directory; the configuration need not say anything about
            it, and may not say anything else.

    Raises:
        ConfigError: Configuration and tensors contradict each other (all contradictions are listed), a field is
            known from neither (all are listed), or the fields do not fit together.
    """
    _refuse_types(statements)
    if vision is None and "vision.kind" in statements:
        vision = VitConfig.parse(_stated_section(statements, "vision"), source=statements.source)
    if (
        vision is not None
    ):  # complete by itself: what shapes would tell is checked when the weights are loaded
        _refuse_other_tower(statements, vision)
        facts = {name: found for name, found in facts.items() if not name.startswith("vision.")}
        statements = statements.without("vision.")
    contradictions = find_contradictions(statements, facts)
    if contradictions:
        raise ConfigError(
            f"configuration and checkpoint contradict each other: {'; '.join(contradictions)}. "
            "Give the configuration this checkpoint was trained with, or leave these fields out"
        )
    known = {name: found[0].value for name, found in facts.items()}
    known |= {name: statements.value(name) for name in statements}
    if vision is not None:
        known |= {f"vision.{name}": value for name, value in vision.model_dump().items()}
    known.setdefault("projector.encoder_width", known.get("vision.width"))
    _complete_queries(known)
    _refuse_missing(known, statements.source)
    rows, columns = tile_grid(statements, known["vision.image_size"])
    projector = _section(known, "projector", ProjectorConfig)
    values = {
        "vision": vision or _section(known, "vision", VisionConfig),
        "projector": projector,
        "tile_rows": rows,
        "tile_columns": columns,
    }
    config = ModelConfig.parse(values, source=statements.source)
    _check_derived(config, statements)
    return config


def _refuse_types(statements: Statements) -> None:
    """Check the fields that are computed with before the records validate them."""
    wrong = [
        statements.wording(name)
        for name in statements
        if name in _INTEGERS and type(statements.value(name)) is not int
    ]
    if wrong:
        raise ConfigError(f"{statements.source}: {'; '.join(wrong)}: expected an integer")


def _stated_section(statements: Statements, section: str) -> dict[str, Any]:
    names = [name for name in statements if name.startswith(f"{section}.")]
    return {name.removeprefix(f"{section}."): statements.value(name) for name in names}


def _refuse_other_tower(statements: Statements, vision: VitConfig) -> None:
    problems = [
        f"{statements.wording(f'vision.{name}')} ({name} of the vision model: {getattr(vision, name, 'unknown to it')})"
        for name, value in _stated_section(statements, "vision").items()
        if getattr(vision, name, None) != value
    ]
    if problems:
        raise ConfigError(
            f"{statements.source} describes another tower than the {vision.kind} vision model: {'; '.join(problems)}. "
            "Leave the tower out of the configuration"
        )


def _section(
    known: dict[str, Any], section: str, record: type[TowerConfig | ProjectorConfig]
) -> dict[str, Any]:
    return {name: known[f"{section}.{name}"] for name in record.model_fields if f"{section}.{name}" in known}


def _complete_queries(known: dict[str, Any]) -> None:
    """Split the query tokens into partial and global ones and name the kind of projector."""
    family = known.get("projector.family")
    if family != "queries":
        known.setdefault("projector.kind", family)  # one of the two is stated, shown or missing
        return
    total = known.get("projector.num_query_tokens")
    num_partial = known.get("projector.num_partial_tokens")
    num_global = known.get("projector.num_global_tokens")
    if num_partial is None and num_global is not None and total is not None:
        num_partial = total - num_global
    if known.get("projector.kind") == "qformer":
        num_partial = num_partial or 0
    if num_partial is None:
        return
    known["projector.num_partial_tokens"] = num_partial
    if num_global is None and total is not None:
        known["projector.num_global_tokens"] = total - num_partial
    known.setdefault("projector.kind", "pargo" if num_partial else "qformer")


def _refuse_missing(known: dict[str, Any], source: str) -> None:
    needed = list(_NEEDED)
    if known.get("projector.family") is None and known.get("projector.kind") is None:
        needed.append("projector.kind")
    if known.get("projector.family") == "queries":
        needed += ["projector.num_partial_tokens", "projector.num_global_tokens"]
        needed += [f"projector.{name}" for name in _QUERY_FIELDS]
    missing = [name for name in needed if known.get(name) is None]
    if missing:
        spelled = [
            name + (f" ({OFFICIAL_SPELLING[name]})" if name in OFFICIAL_SPELLING else "") for name in missing
        ]
        raise ConfigError(
            f"{source}: the tensors do not show {', '.join(spelled)}. Give them in a JSON file (--config FILE, config=), "
            f"or name a preset ({', '.join(PRESETS)}), or put the file beside the checkpoint as config.json"
        )


def _check_derived(config: ModelConfig, statements: Statements) -> None:
    names = [name for name in _DERIVED if name in statements]
    names += ["window_size"] if "window_size" in statements else []
    problems = []
    for name in names:
        value: Any = config
        for part in name.split("."):
            value = getattr(value, part)
        if value != statements.value(name):
            problems.append(f"{statements.wording(name)}, but its other fields make it {value}")
    if problems:
        raise ConfigError(
            f"{statements.source} contradicts itself: {'; '.join(problems)}; correct one of them"
        )
