"""Any mode and any orientation becomes upright 8-bit RGB."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import ExifTags, Image
from tolerances import TOLERANCES

from pargo_export.errors import ImageError
from pargo_export.preprocessing import load_image

# How a camera stores an upright array for each EXIF orientation.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: np.rot90,
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


def exif(orientation):
    """Return an EXIF block with an orientation."""
    block = Image.Exif()
    block[ExifTags.Base.Orientation] = orientation
    return block


def png_of_16_bit(samples):
    """Write uint16 [H, W, C] as a 16-bit PNG of grey + alpha (C = 2), RGB (3) or RGBA (4)."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = samples.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in samples)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_orientation_is_applied(cat, encode, file_format, orientation):
    """A turned picture comes out upright, whatever its format, and is not turned twice."""
    options = {"lossless": True} if file_format == "WEBP" else {}
    if file_format == "JPEG":
        options = {"quality": 95, "subsampling": 0}
    stored = np.ascontiguousarray(STORED[orientation](cat))
    image = load_image(encode(stored, file_format, exif=exif(orientation), **options))
    found = np.asarray(image)
    assert found.shape == cat.shape
    if file_format == "JPEG":
        plain = np.asarray(load_image(encode(stored, "JPEG", **options)))
        assert np.array_equal(STORED[orientation](found), plain)
        loss = np.abs(found.astype(int) - cat).mean()
        assert loss <= TOLERANCES["preprocess-jpeg-photo-levels"].value, f"mean loss {loss}"
    else:
        assert np.array_equal(found, cat)
    assert np.array_equal(load_image(image), found)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "I;16"])
def test_orientation_is_applied_to_every_mode(cat, encode, mode):
    """Turning does not depend on the colour mode of the file."""
    upright = Image.fromarray(cat)
    upright = (
        Image.fromarray(cat[:, :, 1].astype(np.uint16) * 257) if mode == "I;16" else upright.convert(mode)
    )
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    image = load_image(encode(turned, "PNG", exif=exif(6)))
    assert np.array_equal(image, load_image(encode(upright, "PNG")))
    assert np.array_equal(load_image(image), image)


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_unknown_orientation_is_upright(cat, encode, orientation):
    """A value outside 1 to 8 turns nothing."""
    assert np.array_equal(load_image(encode(cat, "PNG", exif=exif(orientation))), cat)


def test_pillow_image_given_in_memory_is_turned_but_not_changed(cat, encode, tmp_path):
    """The caller's image keeps its pixels and its EXIF block."""
    path = tmp_path / "cat.png"
    path.write_bytes(encode(np.rot90(cat), "PNG", exif=exif(6)))
    with Image.open(path) as image:
        assert np.array_equal(load_image(image), cat)
        assert image.size == (60, 90)
        assert image.getexif()[ExifTags.Base.Orientation] == 6


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(
    "block", [b"garbage", b"II*\0\x08", b"MM\0*\0\0\0\x08\0\x09", b"II*\0\xff\xff\xff\xff"]
)
def test_damaged_exif_does_not_matter(cat, encode, file_format, block):
    """A picture with an unreadable EXIF block is read as it stands, without a warning."""
    expected = load_image(encode(cat, file_format))
    assert np.array_equal(load_image(encode(cat, file_format, exif=b"Exif\0\0" + block)), expected)


def test_rgba_of_png_is_composited_on_white(cat, encode):
    """Transparent pixels become white, translucent ones are mixed with white."""
    alpha = np.zeros(cat.shape[:2], np.uint8)
    alpha[20:40], alpha[40:] = 128, 255
    found = np.asarray(load_image(encode(np.dstack([cat, alpha]), "PNG")), int)
    assert (found[:20] == 255).all()
    assert np.abs(found[20:40] - (cat[20:40] * 128.0 + 255 * 127) / 255).max() <= 1
    assert np.array_equal(found[40:], cat[40:])


def test_rgba_in_memory_is_composited_on_white(cat, encode):
    """An RGBA image or array without a format is treated as a PNG is."""
    rgba = np.dstack([cat, cat[:, :, 0]])
    expected = load_image(encode(rgba, "PNG"))
    assert np.array_equal(load_image(Image.fromarray(rgba)), expected)
    assert np.array_equal(load_image(rgba), expected)


@pytest.mark.parametrize("file_format", ["WEBP", "TIFF"])
def test_alpha_of_other_formats_is_dropped(cat, encode, file_format):
    """The official code composites PNG only."""
    options = {"lossless": True, "exact": True} if file_format == "WEBP" else {}
    rgba = np.dstack([cat, np.full(cat.shape[:2], 100, np.uint8)])
    assert np.array_equal(load_image(encode(rgba, file_format, **options)), cat)


def test_alpha_of_grey_png_is_dropped(cat, encode):
    """The official code composites four channels only, so LA loses its alpha."""
    grey = cat[:, :, 1]
    image = Image.merge("LA", [Image.fromarray(grey), Image.new("L", (90, 60), 7)])
    assert np.array_equal(load_image(encode(image, "PNG")), np.dstack([grey] * 3))


@pytest.mark.parametrize("transparency", [3, bytes(range(256))])
def test_palette_transparency_is_dropped(cat, encode, transparency):
    """One transparent colour or an alpha per colour: the palette's colours stay, nothing warns."""
    image = Image.fromarray(cat).quantize(256)
    data = encode(image, "PNG", transparency=transparency)
    with Image.open(BytesIO(data)) as opened:
        assert opened.mode == "P"
        assert "transparency" in opened.info
        assert np.array_equal(load_image(opened), image.convert("RGB"))
        assert "transparency" in opened.info
    assert np.array_equal(load_image(data), image.convert("RGB"))


def test_bilevel_and_cmyk(cat, encode):
    """One bit becomes black and white; CMYK is converted without a profile, as the official code does."""
    bilevel = Image.fromarray(cat).convert("1")
    assert np.array_equal(load_image(encode(bilevel, "PNG")), bilevel.convert("RGB"))
    cmyk = Image.fromarray(cat).convert("CMYK")
    assert np.array_equal(load_image(encode(cmyk, "TIFF")), cat)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PGM"])
def test_16_bit_grey_is_scaled(cat, encode, file_format):
    """The high byte is kept, where Pillow's own conversion would clip nearly everything to white."""
    grey = cat[:, :, 1]
    values = grey.astype(np.uint16) * 256 + 200
    data = (
        b"P5 90 60 65535 " + values.astype(">u2").tobytes()
        if file_format == "PGM"
        else encode(values, file_format)
    )
    assert np.array_equal(load_image(data), np.dstack([grey] * 3))


@pytest.mark.parametrize("mode", ["I", "I;16", "I;16L", "I;16B"])
def test_16_bit_grey_in_memory_is_scaled(cat, mode):
    """Every mode that holds 16-bit grey gives the same picture."""
    grey = cat[:, :, 1]
    image = Image.fromarray(grey.astype(np.int32) * 257).convert(mode)
    assert image.mode == mode
    assert np.array_equal(load_image(image), np.dstack([grey] * 3))


def test_16_bit_colour_keeps_the_high_byte(cat):
    """16-bit RGB and RGBA are read as their 8-bit counterparts, so 16-bit grey agrees with them."""
    rgb = cat.astype(np.uint16) * 256 + 200
    assert np.array_equal(load_image(png_of_16_bit(rgb)), cat)
    opaque = np.full((*cat.shape[:2], 1), 0xFFFF)
    assert np.array_equal(load_image(png_of_16_bit(np.dstack([rgb, opaque]))), cat)
    grey = np.dstack([rgb[:, :, :1], opaque])
    assert np.array_equal(load_image(png_of_16_bit(grey)), np.dstack([cat[:, :, 0]] * 3))


@pytest.mark.parametrize(("low", "high"), [(-1, 255), (0, 65536)])
def test_32_bit_integers_outside_16_bit_are_refused(low, high):
    """The values found and the values expected are named."""
    image = Image.fromarray(np.array([[low, high]], np.int32))
    with pytest.raises(ImageError, match=f"^depth: .*mode I.* from {low} to {high}, expected 16-bit"):
        load_image(image, name="depth")


def test_float_pixels_are_refused(cat, encode):
    """A float picture has no defined white."""
    image = Image.fromarray(cat[:, :, 0].astype(np.float32))
    with pytest.raises(ImageError, match=r"mode F.*scale them to 0\.\.255"):
        load_image(encode(image, "TIFF"))


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animation_gives_its_first_frame(cat, encode, file_format):
    """Of GIF, animated WebP, animated PNG and multi-page TIFF the first picture is used."""
    frames = [Image.fromarray(frame).quantize(64).convert("RGB") for frame in (cat, cat[::-1], cat[:, ::-1])]
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encode(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    with Image.open(BytesIO(data)) as opened:
        assert opened.n_frames == 3
    image = load_image(data)
    assert np.array_equal(image, frames[0])
    assert np.array_equal(image.resize((9, 6)), frames[0].resize((9, 6)))


@pytest.mark.parametrize("mode", ["HSV", "YCbCr", "LAB", "PA", "RGBX"])
def test_modes_only_found_in_memory_are_converted(cat, mode):
    """What Pillow converts to RGB is converted."""
    image = Image.fromarray(cat).convert("P" if mode == "PA" else "RGB").convert(mode)
    assert np.array_equal(load_image(image), image.convert("RGB"))


def test_mode_that_pillow_cannot_convert():
    """A mode without a conversion is named."""
    with pytest.raises(ImageError, match="mode La cannot be converted to RGB"):
        load_image(Image.new("La", (4, 3)))
