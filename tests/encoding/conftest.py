"""A small data set, in every form, and what its tokens are."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet
from skimage import data

from pargo_export.encoding import EncodeOptions, encode_dataset
from pargo_export.runtime import Runtime

NUM_IMAGES = 11
OPTIONS = {"variant": "fp32", "threads": 1, "shard_size": 4, "batch_size": 2}


@pytest.fixture(scope="session")
def pictures() -> dict[str, bytes]:
    """Return encoded photographs by name, of several sizes."""
    photograph, found = data.astronaut(), {}
    for index in range(NUM_IMAGES):
        buffer = io.BytesIO()
        crop = photograph[20 * index :, 30 * index :][: 40 + 5 * index, : 60 - index]
        Image.fromarray(crop).save(buffer, "PNG")
        found[f"{'inner/' * (index % 3 == 0)}{index:02}.png"] = buffer.getvalue()
    return dict(sorted(found.items()))


@pytest.fixture(scope="session")
def tokens(exported_bundle, pictures):
    """Return the float32 tokens of the photographs by name, as `Runtime.encode` computes them in the same batches.

    A shard has four images and a run two.
    """
    with Runtime.open(exported_bundle, variant="fp32", threads=1) as runtime:
        rows = runtime.encode([io.BytesIO(content) for content in pictures.values()], batch_size=2)
    return dict(zip(pictures, rows, strict=True))


@pytest.fixture(scope="session")
def _folder(pictures, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "photos"
    for name, content in pictures.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


@pytest.fixture
def photos(_folder, tmp_path) -> Path:
    """Return a folder with the photographs, to be changed at will."""
    return Path(shutil.copytree(_folder, tmp_path / "photos"))


@pytest.fixture
def table(pictures, tmp_path) -> Path:
    """Return a folder with two Parquet files of small row groups: ids, bytes, captions and widths."""
    root, items = tmp_path / "table", list(pictures.items())
    root.mkdir()
    for number, part in enumerate((items[:7], items[7:])):
        columns = {
            "key": [10 * number + index for index in range(len(part))],
            "photo": [content for _, content in part],
            "caption": [f"caption of {name}" for name, _ in part],
            "width": pa.array([Image.open(io.BytesIO(content)).width for _, content in part], pa.int16()),
        }
        parquet.write_table(pa.table(columns), root / f"{number}.parquet", row_group_size=3)
    return root


@pytest.fixture
def shards(pictures, tmp_path) -> Path:
    """Return a folder with two WebDataset archives; every image has a caption."""
    root, items = tmp_path / "shards", list(pictures.items())
    root.mkdir()
    for number, part in enumerate((items[:6], items[6:])):
        with tarfile.open(root / f"{number}.tar", "w") as archive:
            for name, content in part:
                stem = name.replace("/", "-").removesuffix(".png")
                text = json.dumps({"caption": f"caption of {name}"}).encode()
                for member, body in ((f"{stem}.png", content), (f"{stem}.json", text)):
                    header = tarfile.TarInfo(member)
                    header.size = len(body)
                    archive.addfile(header, io.BytesIO(body))
    return root


@pytest.fixture
def encode(exported_bundle):
    """Return a function that encodes with small shards and batches, in float32 unless told otherwise."""

    def run(source, output, *, force=False, advance=lambda _done, _total: None, **options):
        chosen = EncodeOptions(**{**OPTIONS, "precision": "fp32", **options})
        return encode_dataset(exported_bundle, source, output, chosen, force=force, advance=advance)

    return run


@pytest.fixture
def content():
    """Return a function that reads every file of a directory: bytes by name."""

    def read(directory: Path) -> dict[str, bytes]:
        return {
            path.relative_to(directory).as_posix(): path.read_bytes()
            for path in sorted(directory.rglob("*"))
            if path.is_file()
        }

    return read


@pytest.fixture
def same_tokens():
    """Return a function that compares tokens by name, bit by bit."""

    def compare(found, expected) -> None:
        found = dict(found)
        assert list(found) == list(expected)
        for name, rows in expected.items():
            np.testing.assert_array_equal(found[name], rows)

    return compare
