"""Pictures of a snapshot: a sheet of them with captions, and one by one for a page."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from baldvae_pl.runs.snapshots import Gallery

COLUMNS = 8
"""Of a sheet."""

WIDTH, CAPTION = 72, 26
"""Pixels of a picture on a sheet, and of the two lines below it."""

WORDS = {-1: "?", -2: "cannot tell"}
"""In place of a class."""


def class_name(label: int, classes: Sequence[str]) -> str:
    """Return the name of a class, or what stands in its place."""
    return WORDS.get(label) or classes[label]


def caption(gallery: Gallery, place: int, classes: Sequence[str]) -> tuple[str, str]:
    """Return the class of a picture and what the classifier predicts, and how uncertain it is."""
    guess = classes[int(gallery.guesses[place])]
    label = class_name(int(gallery.labels[place]), classes)
    return f"{label}, pred. {guess}", f"BALD {gallery.scores[place]:.2f}"


def sheet(galleries: Sequence[Gallery], classes: Sequence[str]) -> np.ndarray:
    """Return one picture of all: those of the second gallery below those of the first, and so on.

    Shape (height, width, 3), 8-bit; each picture has its class, the classifier's guess and its BALD
    score in nats below it.
    """
    first = galleries[0].pictures
    height = max(1, round(WIDTH * first.shape[1] / first.shape[2]))
    cell = height + CAPTION
    blocks = -(-len(first) // COLUMNS)
    size = (min(COLUMNS, len(first)) * (WIDTH + 8), blocks * len(galleries) * cell)
    canvas = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(9)
    for row, gallery in enumerate(galleries):
        for place, pixels in enumerate(gallery.pictures):
            block, column = divmod(place, COLUMNS)
            x, y = column * (WIDTH + 8) + 4, (block * len(galleries) + row) * cell
            picture = as_image(pixels).convert("RGB")
            canvas.paste(picture.resize((WIDTH, height), Image.Resampling.NEAREST), (x, y))
            for line, text in enumerate(caption(gallery, place, classes)):
                pen.text((x, y + height + 1 + 11 * line), text[:16], fill="black", font=font)
    return np.asarray(canvas)


def as_image(pixels: np.ndarray) -> Image.Image:
    """Return 8-bit pixels of shape (height, width, channels) as an image."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def data_uri(pixels: np.ndarray) -> str:
    """Return a picture as the source of an ``<img>``: photographs as JPEG, small ones as PNG."""
    file = io.BytesIO()
    kind = "jpeg" if pixels.shape[-1] == 3 and max(pixels.shape) > 32 else "png"
    as_image(pixels).save(file, kind, quality=80)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
