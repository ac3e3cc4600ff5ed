from __future__ import annotations

import json
import resource
import shutil

import numpy as np
import pytest

from pargo_export.encoding import open_encoded
from pargo_export.encoding.places import writing
from pargo_export.errors import BackendError, ConfigError, ImageError, InputError, PargoExportError


class Stopped(Exception):  # noqa: N818 - stands for an interruption
    """Raised by a test in the middle of the work."""


@pytest.mark.parametrize("form", ["parquet", "safetensors"])
def test_the_tokens_are_those_of_the_runtime(encode, photos, tokens, same_tokens, tmp_path, form):
    """Every image of a folder, in the order of the names, with the very bits that `Runtime.encode` computes."""
    done = encode(photos, tmp_path / "out", format=form)
    assert (done.num_encoded, done.num_kept, done.index.rows, done.index.num_failed) == (11, 0, 11, 0)
    assert [shard.file for shard in done.index.shards] == [f"part-0000{n}-of-00003.{form}" for n in range(3)]
    with open_encoded(tmp_path / "out") as found:
        assert (found.shape, found.dtype, len(found)) == ((22, 80), np.float32, 11)
        same_tokens(found, tokens)


@pytest.mark.parametrize("form", ["parquet", "safetensors"])
def test_half_precision(encode, photos, tokens, same_tokens, tmp_path, form):
    """Tokens are stored rounded to float16, in half the bytes."""
    encode(photos, tmp_path / "out", format=form, precision="fp16")
    with open_encoded(tmp_path / "out") as found:
        same_tokens(found, {name: rows.astype(np.float16) for name, rows in tokens.items()})


def test_the_output_holds_nothing_else(encode, photos, content, tmp_path):
    """Shards and index, no temporary files, and the same bytes again for the same input."""
    encode(photos, tmp_path / "a")
    encode(photos, tmp_path / "b", threads=2)
    found = content(tmp_path / "a")
    assert list(found) == ["index.json", *(f"part-0000{n}-of-00003.parquet" for n in range(3))]
    assert found == content(tmp_path / "b")


def test_interrupted_and_resumed(encode, photos, content, tmp_path):
    """After an interruption whole shards stay, nothing is half written, and the rest is encoded to the same bytes."""
    seen = []

    def stop(done, _total):
        seen.append(done)
        if done == 6:
            raise Stopped

    with pytest.raises(Stopped):
        encode(photos, tmp_path / "out", advance=stop)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"part-00000-of-00003.parquet", ".encoding"}
    with pytest.raises(InputError, match="encode-dataset` again to finish"):
        open_encoded(tmp_path / "out")
    progress = []
    done = encode(photos, tmp_path / "out", advance=lambda *args: progress.append(args))
    assert (done.num_kept, done.num_encoded) == (1, 7)
    assert progress[0] == (4, 11)
    assert progress[-1] == (11, 11)
    encode(photos, tmp_path / "whole")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_nothing_to_do(encode, photos, content, tmp_path):
    """What is whole is left as it is."""
    encode(photos, tmp_path / "out")
    before = content(tmp_path / "out")
    done = encode(photos, tmp_path / "out")
    assert (done.num_kept, done.num_encoded) == (3, 0)
    assert content(tmp_path / "out") == before


@pytest.mark.parametrize("how", ["changed", "missing"])
def test_a_damaged_shard_is_encoded_again(encode, photos, content, tmp_path, how):
    """A shard that is not what was written is replaced, the others are kept."""
    encode(photos, tmp_path / "out")
    before = content(tmp_path / "out")
    path = tmp_path / "out" / "part-00001-of-00003.parquet"
    if how == "missing":
        path.unlink()
    else:
        damaged = bytearray(path.read_bytes())
        damaged[1000] ^= 1
        path.write_bytes(damaged)
    done = encode(photos, tmp_path / "out")
    assert (done.num_kept, done.num_encoded) == (2, 4)
    assert content(tmp_path / "out") == before


def test_a_shard_that_is_damaged_between_two_runs(encode, photos, content, tmp_path):
    """Its record is forgotten; what was whole stays, also if the repair of a finished data set is interrupted."""
    out = tmp_path / "out"
    encode(photos, tmp_path / "whole")

    def stop(done, _total):
        if done == 10:
            raise Stopped

    with pytest.raises(Stopped):
        encode(photos, out, advance=stop)
    (out / "part-00000-of-00003.parquet").write_bytes(b"damaged")
    assert encode(photos, out).num_kept == 1
    assert content(out) == content(tmp_path / "whole")
    (out / "part-00001-of-00003.parquet").write_bytes(b"damaged")
    with pytest.raises(Stopped):
        encode(photos, out, advance=stop_at_once)
    assert encode(photos, out).num_kept == 2
    assert content(out) == content(tmp_path / "whole")


def stop_at_once(*_):
    """Interrupt before the first image."""
    raise Stopped


def test_an_index_that_names_a_file_twice(encode, photos, content, tmp_path):
    """A shard is whole only under its own name, whatever hash is written beside it."""
    encode(photos, tmp_path / "out")
    before = content(tmp_path / "out")
    path = tmp_path / "out" / "index.json"
    index = json.loads(path.read_text())
    first, second, _ = index["shards"]
    second |= {name: first[name] for name in ("file", "sha256", "size_bytes")}
    path.write_text(json.dumps(index))
    assert encode(photos, tmp_path / "out").num_kept == 2
    assert content(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"precision": "fp16"}, "dtype: float32 there, float16 now"),
        ({"shard_size": 5}, "shard_size: 4 there, 5 now"),
        ({"batch_size": 3}, "model.batch_size: 2 there, 3 now"),
        ({"format": "safetensors"}, "format: parquet there, safetensors now"),
        ({"carry": ()}, None),
    ],
    ids=str,
)
def test_other_options_are_refused(encode, photos, content, tmp_path, options, difference):
    """What was encoded otherwise is not continued; the message says what differs, and nothing is changed."""
    encode(photos, tmp_path / "out")
    before = content(tmp_path / "out")
    if difference is None:  # a folder has no captions to begin with
        assert encode(photos, tmp_path / "out", **options).num_kept == 3
        return
    with pytest.raises(InputError, match=difference):
        encode(photos, tmp_path / "out", **options)
    assert content(tmp_path / "out") == before


def test_another_input_is_refused(encode, photos, tmp_path):
    """An image of another size makes it another data set."""
    encode(photos, tmp_path / "out")
    (photos / "01.png").write_bytes((photos / "02.png").read_bytes())
    with pytest.raises(InputError, match=r"input\.fingerprint"):
        encode(photos, tmp_path / "out")


def test_force_begins_anew(encode, photos, tmp_path):
    """With `force` other options are fine, and no shard of the first run is left."""
    encode(photos, tmp_path / "out")
    done = encode(photos, tmp_path / "out", shard_size=6, format="safetensors", force=True)
    assert (done.num_kept, len(done.index.shards)) == (0, 2)
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".json", ".safetensors"}


def test_an_unreadable_image_stops(encode, photos, tmp_path):
    """By default it is named, and what was finished before stays."""
    (photos / "inner" / "06.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"inner/06\.png: not a picture.*--on-error record"):
        encode(photos, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "part-00000-of-00003.parquet",
        "part-00001-of-00003.parquet",
        ".encoding",
    }


def test_unreadable_images_are_recorded(encode, photos, tmp_path):
    """They are listed with their reasons, the others encoded; stopping at them later is told from the records."""
    names = ["01.png", "07.png", "08.png"]
    for name in names:
        (photos / name).write_bytes(b"no picture")
    done = encode(photos, tmp_path / "out", on_error="record")
    failed = [image for shard in done.index.shards for image in shard.failed]
    assert [image.id for image in failed] == names
    assert failed[0].reason.startswith("not a picture")
    assert (done.index.rows, done.index.num_failed) == (8, 3)
    with open_encoded(tmp_path / "out") as found:
        assert not set(names) & set(found.ids)
    with pytest.raises(ImageError, match=r"01\.png.*3 images were left out"):
        encode(photos, tmp_path / "out")


def test_a_shard_without_any_image(encode, photos, tmp_path):
    """A shard may be empty; all of them may not."""
    for name in ("01.png", "02.png", "04.png", "05.png"):
        (photos / name).write_bytes(b"no picture")
    for form in ("parquet", "safetensors"):
        done = encode(photos, tmp_path / form, on_error="record", format=form)
        assert [shard.rows for shard in done.index.shards] == [0, 4, 3]
        with open_encoded(tmp_path / form) as found:
            assert len(dict(found)) == 7
    shutil.rmtree(photos / "inner")
    for path in photos.iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(ImageError, match="none of the 7 images can be read"):
        encode(photos, tmp_path / "none", on_error="record")


def test_a_full_disk(encode, photos, tmp_path):
    """Nothing half written is left, and the message says what to do; then it goes on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 * 1024, hard))
    try:
        with pytest.raises(PargoExportError, match="free space there, then start again"):
            encode(photos, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".encoding"]
    assert encode(photos, tmp_path / "out").index.rows == 11


def test_leftovers_of_a_killed_process_are_removed(encode, photos, content, tmp_path):
    """A temporary file that nobody writes any more goes away, other files do not."""
    encode(photos, tmp_path / "out")
    before = content(tmp_path / "out")
    (tmp_path / "out" / ".part-00001-of-00003.parquet.0123456789abcdef.tmp").write_bytes(b"half")
    (tmp_path / "out" / ".mine.tmp").write_bytes(b"mine")
    encode(photos, tmp_path / "out")
    assert content(tmp_path / "out") == {**before, ".mine.tmp": b"mine"}


def test_a_directory_of_others_is_refused(encode, photos, tmp_path):
    """Nothing is written among other files, with `force` neither."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "part-00000-of-00001.parquet").write_bytes(b"mine")
    for force in (False, True):
        with pytest.raises(InputError, match="expected an empty directory"):
            encode(photos, out, force=force)
    assert (out / "part-00000-of-00001.parquet").read_bytes() == b"mine"
    (out / "index.json").write_text(json.dumps({"kind": "mine"}))
    with pytest.raises(InputError, match="found 'mine', expected what"):
        encode(photos, out)


def test_one_writer_at_a_time(encode, photos, tmp_path):
    """A second process is refused."""
    with writing(tmp_path / "out"), pytest.raises(InputError, match="being written by another process"):
        encode(photos, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 5}, ConfigError, "expected at most 4"),
        ({"variant": "external", "batch_size": 1}, InputError, "projector alone"),
        ({"variant": "bf16", "backend": "onnxruntime"}, BackendError, "bfloat16"),
    ],
)
def test_what_cannot_run_is_refused(encode, photos, tmp_path, options, error, message):
    """Before anything is encoded, with the reason."""
    with pytest.raises(error, match=message):
        encode(photos, tmp_path / "out", **options)
    assert not list((tmp_path / "out").iterdir())


def test_a_value_too_large_for_the_stored_precision(encode, photos, tmp_path, monkeypatch):
    """A token that float16 cannot hold is an error with the image, not an infinity on disk."""
    from pargo_export.encoding import work

    submit = work.Runtime.submit

    def enlarge(self, images, **options):
        future = submit(self, images, **options)
        future.result()[-1, 3, 7] = 1e6
        return future

    monkeypatch.setattr(work.Runtime, "submit", enlarge)
    with pytest.raises(InputError, match=r"02\.png: found a token value of magnitude 1e\+06"):
        encode(photos, tmp_path / "out", precision="fp16")
    assert encode(photos, tmp_path / "wide").index.rows == 11


def test_a_bundle_that_was_replaced(photos, bundle_to_edit, exported_bundle, tmp_path):
    """The graph is compared with the planned one when it is opened."""
    from pargo_export.encoding.choose import choose_model
    from pargo_export.encoding.encode import _plan
    from pargo_export.encoding.listing import open_entries
    from pargo_export.encoding.options import EncodeOptions
    from pargo_export.encoding.work import Job, open_runtime

    options = EncodeOptions(variant="fp32")
    listing = open_entries(photos, str(photos), None, {})
    plan = _plan(listing, choose_model(exported_bundle, options), options)
    model = plan.model.model_copy(update={"graph_sha256": "0" * 64})
    job = Job(bundle_to_edit, tmp_path, plan.model_copy(update={"model": model}), listing, "stop", 1)
    with pytest.raises(InputError, match="make the same bundle visible"):
        open_runtime(job)
