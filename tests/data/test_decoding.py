"""Image files become pixels."""

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import noise, save
from PIL import Image

from baldvae_pl.data import decoding

SHAPE = (3, 4, 4)


def decode(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    return decoding.decode(path.read_bytes(), shape)


def rgb_of_grey(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[None], 3, 0)


def test_lossless_images_keep_their_pixels(tmp_path: Path) -> None:
    pixels = noise(4, 4, 3)
    for end in ("png", "bmp", "tif", "ppm", "webp"):
        path = save(tmp_path / f"x.{end}", pixels, **({"lossless": True} if end == "webp" else {}))
        assert np.array_equal(decode(path, SHAPE), pixels.transpose(2, 0, 1)), end


def test_grey_and_colour_become_what_is_asked_for(tmp_path: Path) -> None:
    grey = noise(4, 4)
    path = save(tmp_path / "grey.png", grey)
    assert np.array_equal(decode(path, (1, 4, 4)), grey[None])
    assert np.array_equal(decode(path, SHAPE), rgb_of_grey(grey))
    colour = noise(4, 4, 3)
    luma = np.array(Image.fromarray(colour).convert("L"))  # ITU-R 601-2
    assert np.array_equal(decode(save(tmp_path / "c.png", colour), (1, 4, 4)), luma[None])


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    image = Image.fromarray((noise(4, 4) % 4).astype(np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    expected = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]])[np.array(image)]
    for end in ("png", "gif"):
        path = save(tmp_path / f"x.{end}", image)
        assert np.array_equal(decode(path, SHAPE), expected.transpose(2, 0, 1)), end


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    pixels = noise(4, 4, 4)
    pixels[..., 3] = [[0, 255, 0, 255]] * 4
    expected = np.where(pixels[..., 3:] == 0, 255, pixels[..., :3])
    assert np.array_equal(
        decode(save(tmp_path / "x.png", pixels), SHAPE), expected.transpose(2, 0, 1)
    )
    half = np.full((4, 4, 2), [0, 51], np.uint8)  # a fifth of black on white
    grey = Image.fromarray(half, "LA")
    assert np.array_equal(
        decode(save(tmp_path / "la.png", grey), (1, 4, 4)), np.full((1, 4, 4), 204)
    )


def test_cmyk_and_one_bit(tmp_path: Path) -> None:
    cyan = Image.new("CMYK", (4, 4), (255, 0, 0, 0))
    found = decode(save(tmp_path / "x.tif", cyan), SHAPE)
    assert np.array_equal(found, np.broadcast_to([[[0]], [[255]], [[255]]], SHAPE))
    bits = noise(4, 4) > 127
    path = save(tmp_path / "x.png", Image.fromarray(bits))
    assert np.array_equal(decode(path, SHAPE), rgb_of_grey(bits * np.uint8(255)))


def test_sixteen_bits_and_floats_are_scaled_to_eight(tmp_path: Path) -> None:
    grey = noise(4, 4)
    for end in ("png", "tif"):
        path = save(tmp_path / f"x.{end}", Image.fromarray(grey.astype(np.uint16) * 257))
        assert np.array_equal(decode(path, (1, 4, 4)), grey[None]), end
    values = grey.astype(np.float32) / 255
    values[0, 0] = 7  # beyond white
    path = save(tmp_path / "f.tif", Image.fromarray(values))
    grey[0, 0] = 255
    assert np.array_equal(decode(path, (1, 4, 4)), grey[None])


def test_the_first_frame_of_an_animation_counts(tmp_path: Path) -> None:
    frames = [Image.fromarray(noise(4, 4, seed=seed)) for seed in range(3)]
    path = save(tmp_path / "x.gif", frames[0], save_all=True, append_images=frames[1:])
    assert np.array_equal(decode(path, (1, 4, 4))[0], np.array(frames[0]))


def test_a_photograph_stands_upright(tmp_path: Path) -> None:
    pixels = noise(4, 4)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° clockwise
    path = save(tmp_path / "x.png", pixels, exif=exif)
    assert np.array_equal(decode(path, (1, 4, 4))[0], np.rot90(pixels, -1))


def test_the_centre_is_cropped_and_the_rest_scaled(tmp_path: Path) -> None:
    wide = noise(4, 10)
    assert np.array_equal(decode(save(tmp_path / "w.png", wide), (1, 4, 4))[0], wide[:, 3:7])
    high = noise(10, 4)
    assert np.array_equal(decode(save(tmp_path / "h.png", high), (1, 4, 4))[0], high[3:7])
    assert np.array_equal(decode(tmp_path / "w.png", (1, 4, 6))[0], wide[:, 2:8])  # not square
    blocks = noise(2, 2)
    large = blocks.repeat(80, 0).repeat(80, 1)
    found = decode(save(tmp_path / "large.png", large), (1, 4, 4))[0]
    assert np.abs(found[::3, ::3].astype(int) - blocks).max() <= 1  # the corners are one colour
    dot = np.array([[77]], np.uint8)
    assert np.array_equal(decode(save(tmp_path / "dot.png", dot), SHAPE), np.full(SHAPE, 77))
    line = np.full((1, 3000), 5, np.uint8)
    assert np.array_equal(decode(save(tmp_path / "line.png", line), SHAPE), np.full(SHAPE, 5))


def test_a_large_jpeg_looks_as_if_it_had_been_decoded_in_full(tmp_path: Path) -> None:
    y, x = np.mgrid[:480, :640]
    smooth = np.stack([y / 480, x / 640, (y + x) / 1120], -1) * 255
    path = save(tmp_path / "x.jpg", smooth.astype(np.uint8), quality=95)
    cropped = smooth[:, 80:560].reshape(16, 30, 16, 30, 3).mean((1, 3))
    assert np.abs(decode(path, (3, 16, 16)) - cropped.transpose(2, 0, 1)).max() < 6


# Broken metadata


def png_with(*chunks: tuple[bytes, bytes, int], pixels: np.ndarray) -> bytes:
    """Return a PNG with chunks (name, content, error of the check sum) before its pixels."""
    output = io.BytesIO()
    Image.fromarray(pixels).save(output, "png")
    whole = output.getvalue()
    added = [
        len(data).to_bytes(4) + name + data + (zlib.crc32(name + data) ^ error).to_bytes(4)
        for name, data, error in chunks
    ]
    return whole[:33] + b"".join(added) + whole[33:]  # after IHDR


def jpeg_with(*segments: tuple[int, bytes], pixels: np.ndarray) -> bytes:
    """Return a JPEG with segments (marker, content) at its beginning."""
    output = io.BytesIO()
    Image.fromarray(pixels).save(output, "jpeg", quality=95)
    added = [bytes([0xFF, mark]) + (len(data) + 2).to_bytes(2) + data for mark, data in segments]
    return output.getvalue()[:2] + b"".join(added) + output.getvalue()[2:]


UP = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"


@pytest.mark.parametrize(
    "chunk",
    [
        (b"tEXt", b"Comment\0x", 1),
        (b"zTXt", b"Comment\0\0no zlib", 0),
        (b"iCCP", b"profile\0\x07", 0),
        (b"pHYs", b"\0", 0),
        (b"gAMA", b"", 0),
        (b"eXIf", b"no EXIF", 0),
        (b"eXIf", b"MM\0*\xff\xff\xff\xff", 0),
    ],
)
def test_a_png_with_broken_metadata_has_its_pixels(chunk: tuple[bytes, bytes, int]) -> None:
    pixels = noise(4, 4, 3)
    content = png_with(chunk, pixels=pixels)
    assert np.array_equal(decoding.decode(content, SHAPE), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize(
    "segment",
    [
        (0xE1, b"Exif\0\0broken"),
        (0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff"),
        (0xE2, b"ICC_PROFILE\0"),
        (0xE2, b"MPF\0broken"),
        (0xED, b"Photoshop 3.0\0" + b"8BIM\x04\x04"),
        (0xFE, b""),
    ],
)
def test_a_jpeg_with_broken_metadata_has_its_pixels(segment: tuple[int, bytes]) -> None:
    pixels = noise(8, 8, 3)
    whole = decoding.decode(jpeg_with(pixels=pixels), (3, 8, 8))
    assert np.array_equal(decoding.decode(jpeg_with(segment, pixels=pixels), (3, 8, 8)), whole)


@given(
    names=st.lists(st.sampled_from([b"tEXt", b"iTXt", b"iCCP", b"tIME", b"sBIT", b"cHRM"])),
    data=st.binary(max_size=30),
    error=st.integers(0, 2),
)
@settings(max_examples=200, deadline=None)
def test_no_metadata_can_hide_the_pixels_of_a_png(
    names: list[bytes], data: bytes, error: int
) -> None:
    pixels = noise(4, 4, 3)
    content = png_with(*((name, data, error) for name in names), pixels=pixels)
    assert np.array_equal(decoding.decode(content, SHAPE), pixels.transpose(2, 0, 1))


@given(marker=st.integers(0xE1, 0xED), data=st.binary(max_size=30), starts=st.booleans())
@settings(max_examples=200, deadline=None)
def test_no_metadata_can_hide_the_pixels_of_a_jpeg(marker: int, data: bytes, starts: bool) -> None:
    begins = {0xE1: b"Exif\0\0MM\0*", 0xE2: b"MPF\0", 0xED: b"Photoshop 3.0\0"}.get(marker, b"")
    pixels = noise(8, 8, 3)
    content = jpeg_with((marker, begins + data if starts else data), pixels=pixels)
    whole = decoding.decode(jpeg_with(pixels=pixels), (3, 8, 8))
    found = decoding.decode(content, (3, 8, 8))
    turned = [np.rot90(whole, turns, (1, 2)) for turns in range(4)]
    assert any(np.array_equal(found, one) for one in (*turned, *(t[..., ::-1] for t in turned)))


def test_which_side_is_up_is_known_beside_broken_metadata() -> None:
    pixels = noise(8, 8, 3)
    sound = jpeg_with((0xE1, UP), pixels=pixels)
    broken = jpeg_with((0xE1, UP), (0xED, b"Photoshop 3.0\x008BIM\x04"), pixels=pixels)
    whole = decoding.decode(jpeg_with(pixels=pixels), (3, 8, 8))
    assert np.array_equal(decoding.decode(sound, (3, 8, 8)), np.rot90(whole, -1, (1, 2)))
    assert np.array_equal(decoding.decode(broken, (3, 8, 8)), np.rot90(whole, -1, (1, 2)))
    exif = UP[6:]
    both = png_with((b"eXIf", exif, 0), (b"tEXt", b"x", 1), pixels=pixels)
    assert np.array_equal(
        decoding.decode(both, (3, 8, 8)), np.rot90(pixels.transpose(2, 0, 1), -1, (1, 2))
    )


def test_transparency_is_kept_where_metadata_are_broken() -> None:
    pixels = noise(4, 4)
    content = png_with(
        (b"tRNS", bytes([0, 9]), 0), (b"tEXt", b"x", 1), pixels=np.full_like(pixels, 9)
    )
    assert np.array_equal(decoding.decode(content, SHAPE), np.full(SHAPE, 255))


def test_pixels_that_are_broken_are_refused_all_the_same() -> None:
    pixels = noise(64, 64, 3)
    jpeg = jpeg_with((0xE1, b"Exif\0\0broken"), pixels=pixels)
    with pytest.raises(OSError, match="truncated"):
        decoding.decode(jpeg[: len(jpeg) // 2], SHAPE)
    png = png_with((b"tEXt", b"x", 1), pixels=pixels)
    with pytest.raises(Exception, match=r"truncated|cannot identify|broken"):
        decoding.decode(png[: len(png) // 2], SHAPE)
