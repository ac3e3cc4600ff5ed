from __future__ import annotations

import hashlib

import pytest

from pargo_export.bundle import recipe_sha256, sha256_bytes, sha256_file, sha256_files


@pytest.mark.parametrize("size_bytes", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3_333_333])
def test_file_hash_is_sha256(size_bytes, tmp_path):
    """Streaming gives the plain SHA-256 for sizes around the block size."""
    content = bytes(range(256)) * (size_bytes // 256 + 1)
    path = tmp_path / "file"
    path.write_bytes(content[:size_bytes])
    assert (
        sha256_file(path)
        == sha256_bytes(content[:size_bytes])
        == hashlib.sha256(content[:size_bytes]).hexdigest()
    )


def test_hash_of_one_file_is_its_own(tmp_path):
    """The hash of a single-file checkpoint is what `sha256sum` prints."""
    path = tmp_path / "a.pt"
    path.write_bytes(b"a")
    assert sha256_files([path]) == hashlib.sha256(b"a").hexdigest()


def test_hash_of_several_files_ignores_order_but_not_names(tmp_path):
    """Shards can be listed in any order, but content that changes places changes the hash."""
    first, second = tmp_path / "1", tmp_path / "2"
    first.write_bytes(b"a")
    second.write_bytes(b"b")
    before = sha256_files([first, second])
    assert before == sha256_files([second, first])
    first.write_bytes(b"b")
    second.write_bytes(b"a")
    assert sha256_files([first, second]) != before


def test_refuses_no_files_and_equal_names(tmp_path):
    """No file, or one name twice, has no hash."""
    (tmp_path / "a").mkdir()
    for path in (tmp_path / "x", tmp_path / "a/x"):
        path.write_bytes(b"")
    for paths in ([], [tmp_path / "x", tmp_path / "a/x"]):
        with pytest.raises(ValueError, match="distinct names"):
            sha256_files(paths)


def test_recipe_hash_is_canonical():
    """Key order and tuples do not matter; values and nesting do. The hash is a constant of the format."""
    recipe = {"precision": "float16", "rewrites": ("a", "b"), "options": {"y": 1, "x": 0.1}}
    same = {"options": {"x": 0.1, "y": 1}, "rewrites": ["a", "b"], "precision": "float16"}
    text = '{"options":{"x":0.1,"y":1},"precision":"float16","rewrites":["a","b"]}'
    assert recipe_sha256(recipe) == recipe_sha256(same) == hashlib.sha256(text.encode()).hexdigest()
    assert recipe_sha256(recipe | {"precision": "float32"}) != recipe_sha256(recipe)


@pytest.mark.parametrize(("value", "error"), [(float("nan"), ValueError), (object(), TypeError)])
def test_recipe_refuses_what_json_has_not(value, error):
    """A value without one JSON spelling is refused instead of hashed by accident."""
    with pytest.raises(error):
        recipe_sha256({"value": value})
