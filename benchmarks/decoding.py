"""Photographs of ImageNet's usual size: how fast they become pixels, and pixels become scores."""

import io
import math
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from heads import InTwo
from PIL import Image
from timing import seconds, timed
from torch import nn
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import v2

from baldvae_pl import ImageFolder
from baldvae_pl.acquisition import bald
from baldvae_pl.data.batches import read_ahead, to_floats
from baldvae_pl.data.decoding import decode
from baldvae_pl.posterior import DropoutDraws

SIDE, SIZES = 224, ((500, 375), (375, 500), (1600, 1200))
"""Pixels that are wanted; widths and heights of files: ImageNet's, and a camera's."""


def photographs(size: tuple[int, int], count: int) -> list[bytes]:
    """Return files of made photographs: clouds of all sizes, with ImageNet's 2 bits a pixel."""
    generator = np.random.default_rng(0)
    files = []
    for _ in range(count):
        pixels = np.zeros((size[1], size[0], 3), dtype=np.float32)
        for scale in (2, 8, 32, 128):
            shape = (size[1] // scale + 1, size[0] // scale + 1, 3)
            cloud = Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8))
            pixels += np.asarray(cloud.resize(size, Image.Resampling.BICUBIC)) * scale**0.5
        pixels *= 255 / pixels.max()
        file = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def decoding() -> pd.DataFrame:
    """Files a second in one thread, alternatives in turn."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    shrink = v2.Compose([v2.Resize(SIDE, antialias=True), v2.CenterCrop(SIDE)])
    rows = []
    for size in SIZES[::2]:
        files = photographs(size, 40)
        tensors = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
        ways = {
            "ours": lambda files=files: [decode(file, (3, SIDE, SIDE)) for file in files],
            "Pillow, then Resize and CenterCrop": lambda files=files: [
                shrink(Image.open(io.BytesIO(file)).convert("RGB")) for file in files
            ],
            "torchvision's decode_jpeg, then the same": lambda tensors=tensors: [
                shrink(decode_jpeg(tensor, ImageReadMode.RGB)) for tensor in tensors
            ],
        }
        times = seconds(ways, 5)
        for way, took in times.items():
            each = round(len(files) / took), round(times["ours"] / took, 2)
            rows.append([f"{size[0]} x {size[1]}", way, *each])
    torch.set_num_threads(threads)
    return pd.DataFrame(rows, columns=["file", "way", "files a second", "speed, ours is 1"])


def folder(count: int = 4000) -> pd.DataFrame:
    """A folder's first start and its next one, its cache, and how fast W is read from that."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for split in ("train", "test"):
            (place / split / "one").mkdir(parents=True)
        files = photographs(SIZES[0], 20) + photographs(SIZES[1], 20)
        for number in range(count):
            path = place / ("train" if number else "test") / "one" / f"{number:06}.jpg"
            path.write_bytes(files[number % len(files)])
        source = ImageFolder(image_size=SIDE, channels=3, cache_folder=place / "cache")
        first, _ = timed(lambda: source(place))
        second, made = timed(lambda: source(place))
        (pixels,) = (place / "cache").glob("train-*/images")
        size = sum(path.stat().st_size for path in (place / "cache").rglob("*") if path.is_file())
        del made  # pages that are mapped stay in memory

        def read() -> None:
            bytes_ = pixels.stat().st_size
            mapped = torch.from_file(str(pixels), shared=False, size=bytes_, dtype=torch.uint8)
            for part in mapped.split(256 * 3 * SIDE**2):
                part.clone()

        warm, _ = timed(read)
        forget(pixels)
        cold, _ = timed(read)
    rates = [round(count / first), round(count / cold), round(count / warm)]
    row = [count, rates[0], round(second, 2), round(size / count / 1000, 1), *rates[1:]]
    columns = ["files", "files a second, first start", "next start (s)", "kB of cache a file"]
    columns += ["read a second, from the disk", "from memory"]
    return pd.DataFrame([row], columns=columns)


def reading(count: int = 4_000) -> pd.DataFrame:
    """Scoring from a cache that is on the disk, by the cores that read it and by others."""
    convolution, pooled = nn.Conv2d(3, 16, 8, stride=8), nn.AdaptiveAvgPool2d(4)
    trunk = nn.Sequential(convolution, nn.ReLU(), pooled, nn.Flatten())
    network = InTwo(trunk, nn.Sequential(nn.Dropout(0.5), nn.Linear(16 * 16, 10)))
    shape = (3, SIDE, SIDE)
    parts = [slice(start, start + 27) for start in range(0, count, 27)]
    draws = DropoutDraws(network, 20, torch.Generator().manual_seed(0))
    devices: dict[str, Callable[[torch.Tensor], object]] = {
        "a small network on the CPU": lambda batch: bald(draws(to_floats(batch))),
        "a device, pretended, of 5,000 a second": lambda batch: time.sleep(len(batch) / 5000),
    }
    rows = []
    with tempfile.TemporaryDirectory() as name:
        pixels = Path(name, "images")
        with pixels.open("wb") as file:
            for part in parts:
                many = min(part.stop, count) - part.start
                file.write(torch.randint(0, 256, (many, *shape), dtype=torch.uint8).numpy().data)

        def mapped() -> torch.Tensor:
            forget(pixels)
            size = count * math.prod(shape)
            return torch.from_file(str(pixels), size=size, dtype=torch.uint8).view(-1, *shape)

        one = mapped()[:27].clone()
        for what, score in devices.items():

            def work(batches: Iterable[torch.Tensor], score: Any = score) -> None:
                deque(map(score, batches), maxlen=0)

            ways = {
                "ours, the next batch read ahead": lambda: work(read_ahead(mapped(), parts)),
                "each batch read when it is due": lambda: work(
                    x.clone() for x in mapped().split(27)
                ),
                "reading alone": lambda: deque(read_ahead(mapped(), parts), maxlen=0),
                "scoring alone": lambda: work(one for _ in parts),
            }
            times = seconds(ways, 3)
            ours = next(iter(times.values()))
            for way, took in times.items():
                rows.append([what, way, round(1e6 * took / count), round(took / ours, 2)])
    return pd.DataFrame(rows, columns=["what", "way", "µs an image", "times ours"])


def forget(path: Path) -> None:
    """Take the pages of a file out of the memory of the operating system (Linux)."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
