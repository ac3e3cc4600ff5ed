"""Configurations in the words of the official code: its constructor arguments and its evaluation file.

With `key_mapping` the only place where these words appear.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import Any

from pargo_export.checkpoint.statements import Statements
from pargo_export.errors import ConfigError

__all__ = ["MARKERS", "OFFICIAL_SPELLING", "family_of", "official_statements", "read_json"]

_TOP = {
    "num_query_token": "projector.num_query_tokens",
    "num_local_query_token": "projector.num_partial_tokens",
    "num_global_query_token": "projector.num_global_tokens",
    "cross_attention_freq": "projector.cross_attention_freq",
    "llm_hidden_size": "projector.llm_hidden_size",
    "visual_tokens_adjacent": "projector.tokens_per_group",
    "partial_attention_windows": "projector.partial_attention_windows",
    "crop_size": "vision.image_size",
    "image_size": "image_size",
    "num_crops": "num_tiles",
    "image_tokens": "num_image_tokens",
    "tokens_per_partial_query": "window_size",
}
_TOWER = {
    "img_size": "vision.image_size",
    "patch_size": "vision.patch_size",
    "width": "vision.width",
    "layers": "vision.num_layers",
    "head_width": "vision.head_width",
    "embed_dim": "vision.head_features",
    "pt_hw_seq_len": "vision.rope_grid",
    "intp_freq": "vision.rope_interpolate",
    "mlp_hidden": "vision.hidden_width",
}
_TOWER_DERIVED = {
    "num_heads": "vision.num_heads",
    "grid": "vision.grid_size",
    "patches_per_crop": "vision.num_patches",
    "mlp_hidden": "vision.hidden_width",
    "layer_norm_eps": "vision.layer_norm_eps",
    "rope_theta": "vision.rope_theta",
    "in_chans": "vision.in_channels",
}
_OUTPUT_NORM = {"normalized_shape": "vision.width", "eps": "vision.output_norm_eps"}
_BERT = {
    "hidden_size": "projector.hidden_size",
    "num_attention_heads": "projector.num_heads",
    "num_hidden_layers": "projector.num_layers",
    "intermediate_size": "projector.intermediate_size",
    "max_position_embeddings": "projector.max_position_embeddings",
    "layer_norm_eps": "projector.layer_norm_eps",
    "encoder_width": "projector.encoder_width",
    "cross_attention_freq": "projector.cross_attention_freq",
    "query_length": "projector.num_query_tokens",
    "local_query_length": "projector.num_partial_tokens",
}
_SECTIONS = {
    "create_eva_vit": _TOWER,
    "vision": _TOWER,
    "vision_derived": _TOWER_DERIVED,
    "ln_vision": _OUTPUT_NORM,
    "bert_config": _BERT,
    "bert": _BERT,
}
# What the reference computes; any other value is another architecture.
_FIXED: dict[str, dict[str, tuple[Any, ...]]] = {
    "create_eva_vit": {
        "rope": (True,),
        "naiveswiglu": (True,),
        "subln": (True,),
        "qkv_bias": (True,),
        "postnorm": (False,),
        "init_values": (None, 0),
    },
    "bert_config": {
        "hidden_act": ("gelu",),
        "position_embedding_type": ("absolute",),
        "add_cross_attention": (True,),
    },
}
_FIXED |= {"vision": _FIXED["create_eva_vit"], "bert": _FIXED["bert_config"]}
_VISION_MODELS = {
    "eva-clip-l-14-336": {
        "img_size": 336,
        "patch_size": 14,
        "width": 1024,
        "layers": 24,
        "head_width": 64,
        "embed_dim": 768,
        "pt_hw_seq_len": 16,
        "intp_freq": True,
        "mlp_hidden": 2730,
    },
}
_BERT_TYPES = {
    f"bert-{size}-uncased": {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "intermediate_size": 4 * hidden,
        "max_position_embeddings": 512,
    }
    for size, hidden, layers in (
        ("tiny", 128, 2),
        ("mini", 256, 4),
        ("small", 512, 4),
        ("medium", 512, 8),
        ("base", 768, 12),
        ("large", 1024, 24),
    )
}
_FUSION_METHODS = {"pargo": "queries", "qformer": "queries", "linear": "linear", "mlp": "mlp"}
# Any of these makes a JSON file an official configuration.
MARKERS = ("fusion_method", "num_query_token", "create_eva_vit")
_OTHER_KEYS = ("fusion_method", "bert_type", "vision_model_name", *_SECTIONS)
# Official keys that say nothing about the visual front-end but resemble one that does.
_NEIGHBOURS = ("vision_model",)

OFFICIAL_SPELLING = {ours: official for official, ours in reversed(_TOP.items())} | {
    "projector.num_heads": "bert_config.num_attention_heads, or bert_type",
    "vision.head_width": "create_eva_vit.head_width, or vision_model_name",
}


def official_statements(values: Mapping[str, Any], source: str, directory: Path) -> Statements:
    """Collect what an official configuration says.

    Args:
        values: Its content; keys that say nothing about the visual front-end are noted.
        source: Its name in messages.
        directory: Where a relative `bert_type` is looked for.

    Raises:
        ConfigError: It contradicts itself or describes another architecture.
    """
    statements = Statements(source)
    for key, ours in _TOP.items():
        statements.add(ours, _plain(key, values.get(key)), f"{key} {values.get(key)}")
    for section, fields in _SECTIONS.items():
        _add_section(statements, values.get(section), section, fields)
    if not isinstance(values.get("create_eva_vit", values.get("vision")), Mapping):
        _add_vision_model(statements, values.get("vision_model_name"))
    if not isinstance(values.get("bert_config", values.get("bert")), Mapping):
        _add_bert_type(statements, values.get("bert_type"), directory)
    _add_fusion_method(statements, values.get("fusion_method"))
    _note_other_keys(statements, values)
    return statements


def family_of(method: str) -> str | None:
    """Return `queries`, `linear` or `mlp` for any spelling of a projector's kind, `None` for an unknown one."""
    return _FUSION_METHODS.get(method.lower().replace("-", "").replace("_", ""))


def read_json(path: Path) -> Mapping[str, Any]:
    """Read a JSON object.

    Raises:
        ConfigError: It cannot be read or is no object.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: found a {type(content).__name__}, expected a JSON object")
    return content


def _plain(key: str, value: Any) -> Any:
    """Undo the one-element tuple that a stray comma in the official code makes of a number."""
    is_tuple = key in ("local_query_length", "num_local_query_token") and isinstance(value, (list, tuple))
    return value[0] if is_tuple and len(value) == 1 else value


def _add_section(statements: Statements, values: Any, section: str, fields: Mapping[str, str]) -> None:
    if values is None:
        return
    if not isinstance(values, Mapping):
        raise ConfigError(f"{statements.source}: {section} is a {type(values).__name__}, expected an object")
    for key, allowed in _FIXED.get(section, {}).items():
        if key in values and values[key] not in allowed:
            raise ConfigError(
                f"{statements.source}: {section}.{key} is {values[key]!r}, but only {allowed[0]!r} is supported: "
                "another value is another architecture than the one of ParGo"
            )
    for key, ours in fields.items():
        statements.add(ours, _plain(key, values.get(key)), f"{section}.{key} {values.get(key)}")
    width, ratio = values.get("width"), values.get("mlp_ratio")
    if fields is _TOWER and isinstance(width, int) and isinstance(ratio, (int, float)) and isfinite(ratio):
        statements.add(
            "vision.hidden_width", int(width * ratio), f"{section}.width {width} x mlp_ratio {ratio}"
        )


def _add_vision_model(statements: Statements, name: Any) -> None:
    if name is None:
        return
    for key, value in _VISION_MODELS.get(str(name), {}).items():
        statements.add(_TOWER[key], value, f"vision_model_name {name} ({key} {value})")
    if str(name) not in _VISION_MODELS:
        statements.notes.append(
            f"unknown vision_model_name {name}: the tower is described by its tensors alone"
        )


def _add_bert_type(statements: Statements, name: Any, directory: Path) -> None:
    if name is None:
        return
    files = [
        root / "config.json"
        for root in (Path(str(name)), directory / str(name))
        if (root / "config.json").is_file()
    ]
    if files:
        _add_section(statements, read_json(files[0]), "bert_config", _BERT)
        return
    known = _BERT_TYPES.get(Path(str(name)).name)
    for key, value in (known or {}).items():
        statements.add(_BERT[key], value, f"bert_type {Path(str(name)).name} ({key} {value})")
    if known is None:
        statements.notes.append(f"unknown bert_type {name} (known: {', '.join(_BERT_TYPES)})")


def _add_fusion_method(statements: Statements, method: Any) -> None:
    if method is None:
        return
    family = family_of(str(method))
    if family is None:
        raise ConfigError(
            f"{statements.source}: unknown fusion_method {method!r}; expected ParGo, q-former, linear or mlp"
        )
    statements.add("projector.family", family, f"fusion_method {method}")
    if family != "queries" or str(method).lower() == "pargo":
        return
    if statements.value("projector.num_partial_tokens", 0):
        statements.notes.append(
            f"fusion_method {method!r} with {statements.wording('projector.num_partial_tokens')}: read as ParGo, "
            "because the official configuration spells it so while the official code builds a ParGo"
        )
    else:
        statements.add("projector.num_partial_tokens", 0, f"fusion_method {method}")


def _note_other_keys(statements: Statements, values: Mapping[str, Any]) -> None:
    known = (*_TOP, *_OTHER_KEYS)
    others = [str(key) for key in values if key not in known]
    for key in others:
        near = get_close_matches(key, [name for name in known if name not in values], n=1, cutoff=0.9)
        if near and key not in _NEIGHBOURS:
            raise ConfigError(f"{statements.source}: unknown key {key}; did you mean {near[0]}?")
    if others:
        statements.notes.append(
            f"keys of {statements.source} that say nothing about the visual front-end: {', '.join(sorted(others))}"
        )
