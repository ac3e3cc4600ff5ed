"""WebDataset shards are read in place, whole or damaged."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from pargo_calibration import CalibrationDataError, open_source


def write(path, members, tar_format=tarfile.PAX_FORMAT):
    """Write a tar archive of (name, content)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tar_format) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def refusal(source, entry):
    """Return the message about one entry."""
    with pytest.raises(CalibrationDataError) as caught:
        source.load(entry)
    return str(caught.value)


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_grouped_by_name(tmp_path, photos, tar_format):
    """Image and caption share the name up to the first dot, in any order; the folder counts."""
    path = write(
        tmp_path / "00.tar",
        [
            ("a/1.jpg", photos[0]),
            ("a/1.txt", b" a cat \n"),
            ("b/1.json", json.dumps({"caption": "a rocket"}).encode()),
            ("b/1.PNG", photos[1]),
            ("x" * 90 + "/3.jpg", photos[2]),
            ("2.txt", b"no image"),
            ("a/4.seg.png", photos[3]),
            ("a/._5.jpg", b"resource fork"),
        ],
        tar_format,
    )
    source = open_source(path)
    assert source.kind == "webdataset"
    items = [source.load(entry) for entry in source.entries()]
    assert [(item.name, item.caption) for item in items] == [
        ("00.tar/a/1", "a cat"),
        ("00.tar/b/1", "a rocket"),
        (f"00.tar/{'x' * 90}/3", None),
        ("00.tar/a/4", None),
    ]
    assert [item.content for item in items] == photos[:4]


def test_a_folder_of_shards(tmp_path, photos):
    """Shards sorted by path; equal keys in different shards are different samples; nothing is unpacked."""
    write(tmp_path / "s/1.tar", [("a.jpg", photos[1])])
    write(tmp_path / "s/0.tar", [("a.jpg", photos[0])])
    source = open_source(tmp_path)
    assert [source.load(entry).content for entry in source.entries()] == photos[:2]
    assert [entry.name for entry in source.entries()] == ["s/0.tar/a", "s/1.tar/a"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["0.tar", "1.tar", "s"]


def test_members_that_are_no_files_are_skipped(tmp_path, photos):
    """Folders and links named like images are not read; a path out of the archive is only a name."""
    path = tmp_path / "00.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (
            ("a.jpg", tarfile.DIRTYPE),
            ("b.jpg", tarfile.SYMTYPE),
            ("c.jpg", tarfile.LNKTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/hostname"
            archive.addfile(member)
        member = tarfile.TarInfo("../../d.jpg")
        member.size = len(photos[0])
        archive.addfile(member, io.BytesIO(photos[0]))
    source = open_source(path)
    (entry,) = source.entries()
    assert entry.name == "00.tar/../../d"
    assert source.load(entry).content == photos[0]


def test_a_broken_caption_does_not_lose_the_image(tmp_path, photos):
    """Broken JSON has no caption, broken text keeps what can be read."""
    path = write(
        tmp_path / "00.tar",
        [("a.jpg", photos[0]), ("a.json", b"{"), ("b.jpg", photos[1]), ("b.txt", b"caf\xe9")],
    )
    source = open_source(path)
    assert [source.load(entry).caption for entry in source.entries()] == [None, "caf\ufffd"]


def test_a_cut_archive_keeps_what_is_whole(tmp_path, photos):
    """Before the cut everything is read; the cut sample and the archive are reported."""
    path = write(tmp_path / "00.tar", [("a.jpg", photos[0]), ("b.jpg", photos[1])])
    with tarfile.open(path) as archive:
        offset = archive.getmember("b.jpg").offset_data
    path.write_bytes(path.read_bytes()[: offset + 100])
    source = open_source(path)
    first, second, end = source.entries()
    assert source.load(first).content == photos[0]
    assert f"00.tar/b: found 100 of {len(photos[1])} bytes, the file is cut" in refusal(source, second)
    assert refusal(source, end).startswith("00.tar:end: found a damaged or compressed archive")


@pytest.mark.parametrize("garbage", [b"garbage!" * 64, b"garbage!" * 20])
def test_a_broken_header_is_reported(tmp_path, photos, garbage):
    """Garbage after a member is no silent end of the archive, be it a whole header or less."""
    path = write(tmp_path / "00.tar", [("a.jpg", photos[0]), ("b.jpg", photos[1])])
    with tarfile.open(path) as archive:
        offset = archive.getmember("b.jpg").offset
    path.write_bytes(path.read_bytes()[:offset] + garbage)
    source = open_source(path)
    first, end = source.entries()
    assert source.load(first).content == photos[0]
    assert "no valid header" in refusal(source, end)


def test_an_impossible_size_does_not_hang(tmp_path, photos):
    """A negative size, which would lead back to the same header for ever, ends the archive."""
    path = write(tmp_path / "00.tar", [("a.jpg", photos[0]), ("b.jpg", b"")], tarfile.GNU_FORMAT)
    with tarfile.open(path) as archive:
        member = archive.getmember("b.jpg")
    header = bytearray(path.read_bytes()[member.offset : member.offset + 512])
    header[124:136] = (-512).to_bytes(12, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    path.write_bytes(path.read_bytes()[: member.offset] + bytes(header) + b"\0" * 1024)
    source = open_source(path)
    assert source.load(source.entries()[0]).content == photos[0]
    assert "impossible size" in refusal(source, source.entries()[-1])


def test_compressed_archives_are_reported(tmp_path, photos):
    """A compressed archive under a plain name has no offsets to read from."""
    path = tmp_path / "00.tar"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("a.jpg")
        member.size = len(photos[0])
        archive.addfile(member, io.BytesIO(photos[0]))
    source = open_source(path)
    (entry,) = source.entries()
    assert "decompress it" in refusal(source, entry)
