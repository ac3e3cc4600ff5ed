from __future__ import annotations

import os
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pargo_export.bundle.paths import check_relative, safe_join
from pargo_export.errors import BundleError

REFUSED = [
    "",
    ".",
    "..",
    "/etc/passwd",
    "//host/share",
    "../outside",
    "onnx/../../outside",
    "onnx/..",
    "onnx//fp32.onnx",
    "onnx/",
    "./onnx",
    "onnx/./fp32.onnx",
    "onnx\\fp32.onnx",
    "C:\\fp32.onnx",
    "onnx/fp32\0.onnx",
    "onnx/fp32\n.onnx",
    "onnx/\ud800",
    "manifest.json",
    ".transaction",
    ".transaction/lock",
]


@pytest.mark.parametrize("relative", REFUSED)
def test_refuses_paths_that_are_not_plain(relative, tmp_path):
    """A path that is not plain, or is the bundle's own, is refused and named in the message."""
    with pytest.raises(BundleError) as caught:
        safe_join(tmp_path, relative)
    assert repr(relative) in str(caught.value)


@pytest.mark.parametrize(
    "relative", ["a", "onnx/fp32.onnx.data", "reports/manifest.json", "a b/é.txt", "...", ".x"]
)
def test_accepts_plain_paths(relative, tmp_path):
    """Ordinary names, with spaces, dots or accents, are joined unchanged."""
    assert safe_join(tmp_path, relative) == tmp_path / relative


@given(st.text(alphabet="./\\\0a~" + string.whitespace, max_size=12) | st.text(max_size=12))
def test_accepted_paths_stay_inside(relative):
    """Whatever text is accepted names a place strictly below the root, in one spelling."""
    try:
        check_relative(relative)
    except BundleError:
        return
    root = "/bundle"
    joined = os.path.normpath(os.path.join(root, relative))  # noqa: PTH118  normpath is the independent check
    assert joined == f"{root}/{relative}"
    assert joined.encode()


def test_refuses_symlinks_that_leave(tmp_path):
    """A link out of the bundle is refused, whether it is the file or a directory on the way."""
    root = tmp_path / "bundle"
    (root / "onnx").mkdir(parents=True)
    outside = tmp_path / "bundle-outside"  # shares a prefix with the root
    outside.mkdir()
    (root / "engines").symlink_to(outside)
    (root / "onnx/fp32.onnx").symlink_to("../../bundle-outside/x")
    for relative in ("engines/a", "onnx/fp32.onnx"):
        with pytest.raises(BundleError, match="symbolic link leads out"):
            safe_join(root, relative)


def test_accepts_symlinks_that_stay(tmp_path):
    """A link within the bundle, and a link to the bundle itself, are fine."""
    root = tmp_path / "bundle"
    (root / "onnx").mkdir(parents=True)
    (root / "latest").symlink_to("onnx")
    alias = tmp_path / "alias"
    alias.symlink_to(root)
    assert safe_join(alias, "latest/a") == alias / "latest/a"


def test_survives_symlink_loops(tmp_path):
    """A loop of links is joined without hanging; opening it fails later."""
    (tmp_path / "loop").symlink_to("loop")
    assert safe_join(tmp_path, "loop") == tmp_path / "loop"
