"""Pictures for tests."""

from pathlib import Path

import numpy as np
from PIL import Image


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, pixels: np.ndarray | Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def three_images(folder: Path) -> Path:
    """Make three images, named so that their order is not that of their making."""
    for number, name in enumerate(["b/2.png", "a/10.png", "b/1.png"]):
        save(folder / name, noise(4, 4, 3, seed=number))
    return folder
