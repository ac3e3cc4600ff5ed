"""Where a picture may come from, and what is said about one that cannot be read."""

from __future__ import annotations

import struct
import warnings
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO, StringIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pargo_export.errors import ImageError, InputError
from pargo_export.preprocessing import load_image
from pargo_export.preprocessing.decoding import MAX_PIXELS


def png_header(width, height):
    """Return a PNG that declares a size and has hardly any data."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("file", ["astronaut.png", "rocket.jpg"])
def test_every_kind_of_source_gives_the_same_picture(photo_path, file):
    """Path, text path, bytes, buffers, files, Pillow image and array are the same picture."""
    path = photo_path(file)
    data = path.read_bytes()
    expected = np.asarray(Image.open(BytesIO(data)).convert("RGB"))
    with path.open("rb") as opened, Image.open(path) as image:
        opened.seek(7)
        sources = [
            path,
            str(path),
            data,
            bytearray(data),
            memoryview(data),
            BytesIO(data),
            opened,
            image,
            expected,
        ]
        for source in sources:
            found = load_image(source)
            assert found.mode == "RGB"
            assert np.array_equal(found, expected)
        assert not opened.closed


def test_stream_that_cannot_seek(photo_path, tmp_path):
    """A member of an archive, or any object with nothing but `read`, is a source."""
    path = photo_path("rocket.jpg")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path, "rocket.jpg")
    expected = np.asarray(load_image(path))
    with zipfile.ZipFile(tmp_path / "photos.zip") as archive, archive.open("rocket.jpg") as member:
        assert np.array_equal(load_image(member), expected)

    class Stream:
        read = BytesIO(path.read_bytes()).read

    assert np.array_equal(load_image(Stream()), expected)


@pytest.mark.parametrize("channels", [None, 1, 3, 4])
def test_array_shapes(cat, channels):
    """Grey with or without an axis, RGB and RGBA arrays, contiguous or not."""
    rgba = np.dstack([cat, np.full(cat.shape[:2], 255, np.uint8)])
    array = rgba[:, :, 0] if channels is None else rgba[:, :, :channels]
    expected = cat if channels in (3, 4) else np.dstack([cat[:, :, 0]] * 3)
    assert np.array_equal(load_image(array), expected)
    assert np.array_equal(load_image(np.asfortranarray(array)), expected)
    assert np.array_equal(load_image(array[::-1]), expected[::-1])


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((4, 5, 3), np.float32), r"float32\[4, 5, 3\]"),
        (np.zeros((4, 5), np.bool_), r"bool\[4, 5\]"),
        (np.zeros((3, 4, 5), np.uint8), r"uint8\[3, 4, 5\]"),
        (np.zeros((4, 5, 2), np.uint8), r"uint8\[4, 5, 2\]"),
        (np.zeros(4, np.uint8), r"uint8\[4\]"),
        (np.zeros((1, 4, 5, 3), np.uint8), r"uint8\[1, 4, 5, 3\]"),
        (np.zeros((0, 5, 3), np.uint8), r"uint8\[0, 5, 3\]"),
        (np.zeros((4, 5, 0), np.uint8), r"uint8\[4, 5, 0\]"),
    ],
)
def test_wrong_arrays_are_refused(array, found):
    """Dtype and shape found and expected are named."""
    with pytest.raises(InputError, match=rf"^frame: found {found}, expected uint8 \[H, W\], .*\[H, W, 4\]"):
        load_image(array, name="frame")


@pytest.mark.parametrize("source", [None, 3, ["a.png"], object()])
def test_wrong_types_are_refused(source):
    """The type found and the types expected are named."""
    with pytest.raises(InputError, match=rf"found {type(source).__name__}, expected a path, bytes"):
        load_image(source)


def test_text_file_objects_are_refused(photo_path):
    """A picture opened as text says how to open it."""
    with (
        photo_path("rocket.jpg").open(encoding="latin-1") as file,
        pytest.raises(InputError, match="mode 'rb'"),
    ):
        load_image(file)
    with pytest.raises(InputError, match="mode 'rb'"):
        load_image(StringIO("picture"))


def test_missing_file_directory_and_bad_path(tmp_path):
    """Each says what stands at the path."""
    with pytest.raises(ImageError, match=r"none\.png: no such file"):
        load_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="a directory, expected a picture"):
        load_image(tmp_path)
    with pytest.raises(ImageError, match=r"cannot be opened \(.*null byte"):
        load_image("a\0b.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with pytest.raises(ImageError, match=r"loop\.png: cannot be opened"):
        load_image(str(tmp_path / "loop.png"))


def test_empty_file(tmp_path):
    """Zero bytes are called so."""
    (tmp_path / "empty.jpg").touch()
    for source in (tmp_path / "empty.jpg", b"", BytesIO()):
        with pytest.raises(ImageError, match=r"empty \(0 bytes\)"):
            load_image(source)


def test_text_named_as_a_picture(tmp_path):
    """The message shows how the file begins and which formats are read."""
    path = tmp_path / "page.jpg"
    path.write_text("<!DOCTYPE html><html></html>")
    with pytest.raises(
        ImageError, match=r"page\.jpg: not a picture.*b'<!DOCTYPE ht'; expected BMP, GIF, JPEG"
    ):
        load_image(path)


def test_formats_that_start_programs_are_refused(cat, encode):
    """PostScript, which Pillow hands to Ghostscript, is not read."""
    with pytest.raises(ImageError, match="not a picture this package reads, begins with b'%!PS"):
        load_image(encode(cat, "EPS"))


@pytest.mark.parametrize("file", ["astronaut.png", "rocket.jpg"])
@pytest.mark.parametrize("share", [0.0005, 0.01, 0.5, 0.99])
def test_truncated_files(photo_path, tmp_path, file, share):
    """A file cut anywhere is refused, by path, as bytes, and as an image opened before."""
    data = photo_path(file).read_bytes()
    cut = data[: int(len(data) * share)]
    path = tmp_path / file
    path.write_bytes(cut)
    with pytest.raises(ImageError, match=f"{file}: (damaged or truncated|not a picture)"):
        load_image(path)
    with pytest.raises(ImageError, match=r"^image: "):
        load_image(cut)
    if share == 0.5:
        with Image.open(path) as image, pytest.raises(ImageError, match=r"^open: damaged or truncated"):
            load_image(image, name="open")


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000"]), st.data())
def test_damaged_bytes_never_raise_anything_else(cat, encode, file_format, data):
    """Whatever byte is damaged, the answer is a picture or an ImageError, without a warning."""
    encoded = bytearray(encode(cat[:16, :24], file_format))
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ImageError):
        assert load_image(bytes(encoded)).mode == "RGB"


@pytest.mark.parametrize(("width", "height"), [(10_000, 9_000), (30_000, 30_000), (MAX_PIXELS + 1, 1)])
@pytest.mark.parametrize("limit", ["as installed", None, 1000])
def test_decompression_bombs(tmp_path, monkeypatch, width, height, limit):
    """Too many pixels are refused before decoding, whatever limit the process gave Pillow."""
    if limit != "as installed":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(width, height))
    with pytest.raises(
        ImageError, match=rf"bomb\.png: .*{width * height}.* expected at most {MAX_PIXELS} pixels"
    ):
        load_image(path)


def test_bomb_behind_a_pillow_image():
    """An image that was opened but not decoded is under the same limit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(BytesIO(png_header(10_000, 9_000)))
    with pytest.raises(ImageError, match=f"10000x9000 = 90000000 pixels; expected at most {MAX_PIXELS}"):
        load_image(image)


def test_image_without_pixels():
    """A Pillow image may be empty; it is refused."""
    with pytest.raises(ImageError, match="0x5 pixels"):
        load_image(Image.new("RGB", (0, 5)))


def test_unchanged_image_is_not_copied(cat):
    """An RGB image that is upright is handed on as it is."""
    image = Image.fromarray(cat)
    assert load_image(image) is image


def test_jpeg_is_decoded_at_full_size(photo_path):
    """A reduced decoding would change the pixels."""
    assert load_image(photo_path("rocket.jpg")).size == (640, 427)


def test_threads_share_the_silence(cat, encode):
    """Pictures that make Pillow warn are read in parallel; the filters are afterwards what they were."""
    image = Image.fromarray(cat).quantize(256)
    image.info["transparency"] = bytes(256)
    warned = encode(cat, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09")
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        pictures = list(pool.map(load_image, [warned, encode(image, "PNG")] * 100))
    assert len(pictures) == 200
    assert warnings.filters == before
    with pytest.warns(UserWarning, match="Corrupt EXIF"):
        Image.open(BytesIO(warned)).getexif().get(1)


def test_other_warnings_stay_visible(monkeypatch):
    """Only Pillow is silenced: what another module warns about meanwhile is seen."""
    load = Image.Image.load

    def warn_and_load(image):
        warnings.warn("from elsewhere", UserWarning, stacklevel=1)
        return load(image)

    monkeypatch.setattr(Image.Image, "load", warn_and_load)
    image = Image.new("RGB", (4, 3))
    with pytest.warns(UserWarning, match="from elsewhere"):
        load_image(image)
