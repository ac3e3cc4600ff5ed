"""Manifests: records with an image and perhaps a caption, and what is said about a bad one."""

from __future__ import annotations

import base64
import json
import re
import tracemalloc

import pytest

from pargo_calibration import CalibrationDataError, open_source


@pytest.fixture
def root(tmp_path, photos):
    """A folder with photographs below it."""
    (tmp_path / "images").mkdir()
    for number, photo in enumerate(photos):
        (tmp_path / f"images/{number}.jpg").write_bytes(photo)
    return tmp_path


def write_lines(root, *records):
    """Write a JSON Lines manifest; text is written as it is."""
    path = root / "captions.jsonl"
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("\n".join(lines))
    return open_source(path)


def load(source, index=0):
    """Load one entry."""
    return source.load(source.entries()[index])


def refusal(source, index=0):
    """Return the message about one entry."""
    with pytest.raises(CalibrationDataError) as caught:
        load(source, index)
    return str(caught.value)


def test_lines_are_entries_by_number(root, photos):
    """Blank lines are skipped but counted, so that a number is that of an editor."""
    source = write_lines(
        root, {"image": "images/0.jpg"}, "", "  ", {"image": "images/1.jpg", "caption": " a cat "}
    )
    assert source.kind == "jsonl"
    assert [entry.name for entry in source.entries()] == ["captions.jsonl:1", "captions.jsonl:4"]
    assert load(source).content == photos[0]
    assert (load(source, 1).content, load(source, 1).caption) == (photos[1], "a cat")


@pytest.mark.parametrize(
    "key", ["image", "image_path", "file_name", "filename", "img", "img_path", "path", "file"]
)
def test_paths_under_every_usual_key(root, photos, key):
    """Relative to the manifest, or absolute."""
    source = write_lines(root, {"id": 1, key: "images/2.jpg"}, {key: str(root / "images/3.jpg")})
    assert load(source).content == photos[2]
    assert load(source, 1).content == photos[3]


def test_encoded_images(root, photos):
    """Base64 under its own keys, recognised under `image`, in a data address, and inside an object."""
    text = base64.b64encode(photos[0]).decode()
    png = base64.b64encode(photos[1]).decode()
    forms = [
        {"image_bytes": text},
        {"jpg": text[:50] + "\n" + text[50:]},
        {"image": text},
        {"image": f"data:image/jpeg;base64,{text}"},
        {"image": {"bytes": text, "path": None}},
        {"image": {"bytes": None, "path": "images/0.jpg"}},
        {"image": None, "path": "images/0.jpg"},
        {"image": ["images/0.jpg"]},
    ]
    source = write_lines(root, *forms, {"image": png})
    assert [load(source, index).content for index in range(len(forms))] == [photos[0]] * len(forms)
    assert load(source, len(forms)).content == photos[1]


def test_a_path_that_looks_like_base64_is_a_path(root, photos):
    """An absolute path may begin as an encoded JPEG does; its suffix tells."""
    (root / "R0lGOD.jpg").write_bytes(photos[0])
    assert load(write_lines(root, {"image": "R0lGOD.jpg"})).content == photos[0]
    assert "no such file" in refusal(write_lines(root, {"image": "/9j/photo.jpg"}))


@pytest.mark.parametrize(
    ("record", "caption"),
    [
        ({"caption": "one"}, "one"),
        ({"text": "two"}, "two"),
        ({"description": "three"}, "three"),
        ({"caption": ["four", "five"]}, "four"),
        ({"caption": None, "text": "six"}, "six"),
        (
            {"conversations": [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "seven"}]},
            "seven",
        ),
        ({"conversations": [{"from": "human", "value": "<image>?"}]}, None),
        ({"caption": 8}, None),
        ({}, None),
    ],
)
def test_captions_under_every_usual_key(root, record, caption):
    """The first caption counts; of a conversation, what the model said."""
    assert load(write_lines(root, {"image": "images/0.jpg", **record})).caption == caption


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ('{"image": ', "no JSON"),
        ('{"image": "a.jpg"} x', "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("3", "found int, expected an object"),
        ({"picture": "a.jpg"}, r"found the keys \['picture'\], expected an image under one of"),
        ({"image": 3}, "found 3 as the image"),
        ({"image": ""}, "found '' as the image"),
        ({"image": ["a.jpg", "b.jpg"]}, "found a list of 2 as the image"),
        ({"image": {"path": None}}, "found None as the image"),
        ({"image_bytes": "abc"}, "broken base64"),
        ({"image_bytes": "$abcd"}, "broken base64"),
        ({"image": "https://example.com/a.jpg"}, "download the images first"),
        ({"image": "missing.jpg"}, "no such file"),
        ({"image": "images"}, "no regular file"),
        ({"image": "/dev/zero"}, "no regular file"),
        ({"image": "a\0b"}, "no such file"),
        ({"image": "a" * 5000}, "cannot be read"),
    ],
)
def test_a_bad_record_is_reported_with_its_line(root, record, message):
    """The number of the line and what is wrong in it."""
    source = write_lines(root, {"image": "images/0.jpg"}, record)
    assert load(source)
    found = refusal(source, 1)
    assert found.startswith("captions.jsonl:2: ")
    assert re.search(message, found)


@pytest.mark.parametrize("path", ["../secret.jpg", "images/../../secret.jpg", "a/../../b/../secret.jpg"])
def test_relative_paths_may_not_leave_the_folder(root, photos, path):
    """Going up and down inside is fine, going out is not, even if the file exists."""
    inner = root / "inner"
    (inner / "images").mkdir(parents=True)
    (root / "secret.jpg").write_bytes(photos[0])
    (inner / "near.jpg").write_bytes(photos[1])
    source = write_lines(inner, {"image": path}, {"image": "images/../near.jpg"})
    assert "leaves the folder of the manifest" in refusal(source)
    assert load(source, 1).content == photos[1]


@pytest.mark.parametrize("wrap", [lambda records: records, lambda records: {"info": {}, "data": records}])
def test_json_is_a_list_of_records(root, photos, wrap):
    """The list itself, or under a usual key of an object."""
    path = root / "captions.json"
    path.write_text(json.dumps(wrap([{"image": "images/0.jpg", "caption": "a"}, {"image": "missing.jpg"}])))
    source = open_source(path)
    assert source.kind == "json"
    assert [entry.name for entry in source.entries()] == ["captions.json:[0]", "captions.json:[1]"]
    assert (load(source).content, load(source).caption) == (photos[0], "a")
    assert refusal(source, 1).startswith("captions.json:[1]: found no such file")


def test_coco_images_come_before_annotations(root, photos):
    """In a COCO file the annotations name no file."""
    path = root / "coco.json"
    path.write_text(
        json.dumps(
            {
                "annotations": [{"image_id": 1, "caption": "a"}],
                "images": [{"id": 1, "file_name": "images/0.jpg"}],
            }
        )
    )
    assert load(open_source(path)).content == photos[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no JSON"),
        ('{"a": [1]}', "expected a list of records"),
        ("3", "found int"),
        ("\ud800", "no JSON"),
    ],
)
def test_json_without_records_is_refused(root, text, message):
    """A file that holds no list cannot be opened."""
    path = root / "captions.json"
    path.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(CalibrationDataError, match=message):
        open_source(path)


def test_the_index_of_a_manifest_is_light(root):
    """A hundred thousand lines take less than three megabytes, and entries are made when asked for."""
    path = root / "captions.jsonl"
    path.write_text('{"image": "images/0.jpg"}\n' * 100_000)
    tracemalloc.start()
    source = open_source(path)
    entries = source.entries()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 3e6
    assert entries[-1].name == "captions.jsonl:100000"
    assert [entry.name for entry in entries[1:3]] == ["captions.jsonl:2", "captions.jsonl:3"]
    assert sum(1 for _ in entries) == len(entries) == 100_000
    with pytest.raises(IndexError):
        entries[100_000]
