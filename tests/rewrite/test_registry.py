"""Which rewrites there are, in which order, and which target uses which."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

import pargo_export.rewrite
from pargo_export.errors import ConfigError
from pargo_export.rewrite.registry import REWRITES, TARGET_REWRITES, TARGETS, select_rewrites
from pargo_export.rewrite.rewrite import Rewrite

ORDER = [
    "drop-unused-weights",
    "fold-class-token",
    "half-rotation-rope",
    "fold-softmax-scale",
    "fold-output-norm",
    "drop-key-bias",
    "fold-value-bias",
    "precompute-first-layer",
    "pad-swiglu",
    "merge-qkv",
    "merge-cross-kv",
    "merge-swiglu",
    "drop-class-token",
]


def names(rewrites):
    """Return their names."""
    return [rewrite.name for rewrite in rewrites]


def test_order():
    """Rewrites run in this order, which others rely on (a merge comes after what edits the parts)."""
    assert list(REWRITES) == ORDER
    assert names(REWRITES.values()) == ORDER


def test_every_rewrite_file_is_registered():
    """A file that defines a rewrite is in the registry; `fold_normalization` depends on the preprocessing."""
    folder = Path(pargo_export.rewrite.__file__).parent
    defined = {}
    for path in sorted(folder.glob("*.py")):
        module = import_module(f"pargo_export.rewrite.{path.stem}")
        found = [value for value in vars(module).values() if isinstance(value, Rewrite)]
        defined |= {
            rewrite.name: path.stem for rewrite in found if rewrite.name.replace("-", "_") == path.stem
        }
    assert sorted(defined) == sorted(REWRITES)


def test_every_rewrite_has_a_test_file():
    """One file, one rewrite, one test file."""
    tests = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    assert {name.replace("-", "_") for name in [*REWRITES, "fold-normalization"]} <= tests


@pytest.mark.parametrize("rewrite", REWRITES.values(), ids=list(REWRITES))
def test_every_rewrite_explains_itself(rewrite):
    """The summary and the reason are single lines for a table."""
    for text in (rewrite.summary, rewrite.why_exact):
        assert text
        assert "\n" not in text
        assert not text.endswith(".")


def test_targets_have_their_lists():
    """Padding is for tensor cores; everything else is used everywhere."""
    assert TARGETS == ("cpu", "cuda", "orin", "thor", "rtx")
    assert set(TARGET_REWRITES) == set(TARGETS)
    everything = set(ORDER)
    assert TARGET_REWRITES["cpu"] == everything - {"pad-swiglu"}
    for target in TARGETS[1:]:
        assert TARGET_REWRITES[target] == everything


@pytest.mark.parametrize("target", TARGETS)
def test_selection_follows_the_target_in_order(target):
    """By default a target gets its list, in the order of the registry."""
    expected = [name for name in ORDER if name in TARGET_REWRITES[target]]
    assert names(select_rewrites(target)) == expected


def test_only_replaces_the_list_but_not_the_order():
    """What is asked for is run, even if the target would not, in the order of the registry."""
    only = ("merge-swiglu", "pad-swiglu", "drop-key-bias")
    assert names(select_rewrites("cpu", only=only)) == ["drop-key-bias", "pad-swiglu", "merge-swiglu"]
    assert select_rewrites("cuda", only=()) == []


def test_without_takes_away():
    """From the target's list or from `only`; what is not in it may be named too."""
    left = names(select_rewrites("cpu", without=("merge-qkv", "pad-swiglu")))
    assert left == [name for name in ORDER if name not in ("merge-qkv", "pad-swiglu")]
    both = select_rewrites("cpu", only=("merge-qkv", "merge-swiglu"), without=("merge-qkv",))
    assert names(both) == ["merge-swiglu"]


def test_components_take_only_what_concerns_them():
    """With tower or projector alone nothing is moved across, and the other's rewrites are left out."""
    for target in TARGETS:
        encoder, projector = (
            names(select_rewrites(target, component=part)) for part in ("encoder", "projector")
        )
        assert set(encoder) | set(projector) == TARGET_REWRITES[target] - {"fold-output-norm"}
        assert set(encoder) & set(projector) == {"drop-unused-weights", "fold-softmax-scale", "merge-qkv"}
        assert "drop-key-bias" in projector
        assert "half-rotation-rope" in encoder
    assert select_rewrites("cpu", only=("fold-output-norm",), component="projector") == []


@pytest.mark.parametrize("option", ["only", "without"])
def test_unknown_names_are_refused(option):
    """The message lists all unknown and all known names."""
    with pytest.raises(
        ConfigError, match=r"unknown rewrite fold-everything, merge_qkv; known: drop-unused"
    ) as info:
        select_rewrites("cpu", **{option: ("merge_qkv", "merge-qkv", "fold-everything")})
    assert all(name in str(info.value) for name in ORDER)
