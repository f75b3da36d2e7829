"""Image files: the bytes of one become 8-bit pixels."""

import io
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageOps

T = TypeVar("T")

FULL_SCALE = {"I;16": 65535, "I;16B": 65535, "I;16L": 65535, "I": 65535, "F": 1}
"""Full-scale value of Pillow's modes that are not 8 bits; larger values are clipped."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What sets an image upright, by its EXIF orientation."""

NEEDED = {b"tRNS", b"\xe0", b"\xee"}
"""Metadata that decide pixels: transparency of PNG; of JPEG, how its colours are kept."""

TURNED = {b"eXIf", b"\xe1"}
"""Metadata that say which side is up."""


def image_suffixes() -> set[str]:
    """Return the endings, such as ``.png``, of the formats that Pillow reads."""
    return {end for end, format in Image.registered_extensions().items() if format in Image.OPEN}


def decode(content: bytes, image_shape: tuple[int, int, int]) -> np.ndarray:
    """Return the image in a file's content as 8-bit array, grey or RGB.

    Upright as its EXIF says, the first frame of an animation, transparency on white, 16 bits
    reduced to 8; scaled so that it covers the shape, then cropped at the centre. Where metadata are
    broken, the pixels are read without.

    Args:
        content: Of the file, in any format of Pillow's.
        image_shape: (channels, height, width) of the result.

    Raises:
        Exception: Whatever Pillow's readers raise for pixels that are broken or not there.
    """
    channels, *size = image_shape
    mode = "L" if channels == 1 else "RGB"

    def fitted(content: bytes) -> np.ndarray:
        image = upright(content, mode, (2 * size[1], 2 * size[0]))
        image = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.BILINEAR)
        pixels = np.asarray(image).reshape(*size, channels)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    return tolerant(fitted, content)


def show(content: bytes, longest: int) -> bytes:
    """Return the image in a file's content as WebP, whole, for people to look at in a browser.

    Args:
        content: Of the file, in any format of Pillow's.
        longest: Pixels that no side may exceed.

    Raises:
        Exception: As `decode`.
    """

    def shrunk(content: bytes) -> bytes:
        image = upright(content, "RGB", (longest, longest))
        image.thumbnail((longest, longest))
        shown = io.BytesIO()
        image.save(shown, "WEBP", quality=90, lossless=max(image.size) <= 64)
        return shown.getvalue()

    return tolerant(shrunk, content)


def tolerant(read: Callable[[bytes], T], content: bytes) -> T:
    """Return what a reader makes of a file; if it cannot, of the file with less metadata."""
    try:
        return read(content)
    except Exception:
        for kept in (NEEDED | TURNED, NEEDED):
            try:
                return read(without_metadata(content, kept))
            except Exception:  # the first one says what is wrong with the file
                continue
        raise


def upright(content: bytes, mode: str, at_least: tuple[int, int]) -> Image.Image:
    """Return an image as its EXIF says, in 8 bits, on white.

    Args:
        content: Of the file.
        mode: L or RGB.
        at_least: Width and height that are needed: a larger JPEG may be scaled while it is decoded.
    """
    with Image.open(io.BytesIO(content)) as file:
        file.draft(mode, at_least)
        image: Image.Image = file
        image.load()
        if (turn := UPRIGHT.get(orientation(image))) is not None:
            image = image.transpose(turn)
        if image.mode in FULL_SCALE:
            values = np.asarray(image, dtype=np.float32) * (255 / FULL_SCALE[image.mode])
            image = Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
        if image.has_transparency_data:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        return image.convert(mode)


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1, upright, if there is none or the EXIF is broken."""
    try:
        found: int = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow's reader raises whatever broken EXIF leads it to
        return 1
    return found


def without_metadata(content: bytes, kept: set[bytes]) -> bytes:
    """Return a PNG or JPEG without its metadata, but for these; any other file as it is."""
    if content.startswith(b"\x89PNG"):
        parts = png_chunks(content)
    elif content.startswith(b"\xff\xd8"):
        parts = jpeg_segments(content)
    else:
        return content
    return b"".join(part for name, part in parts if name in kept or not is_metadata(name))


def png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name and the content of what a PNG consists of."""
    start, end = 0, 8
    while start < len(content):
        yield content[start + 4 : start + 8], content[start:end]
        start, end = end, end + 12 + int.from_bytes(content[end : end + 4])


def jpeg_segments(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the marker and the content of what a JPEG consists of; the last is all its pixels."""
    start, end = 0, 2
    while content[end : end + 1] == b"\xff" and content[end + 1 : end + 2] != b"\xda":
        yield content[start + 1 : start + 2], content[start:end]
        start, end = end, end + 2 + int.from_bytes(content[end + 2 : end + 4])
    yield content[start + 1 : start + 2], content[start:end]
    yield b"", content[end:]


def is_metadata(name: bytes) -> bool:
    """Whether it is an ancillary chunk of PNG, or a segment of JPEG for applications."""
    return name[:1].islower() or b"\xe0" <= name <= b"\xef" or name == b"\xfe"
