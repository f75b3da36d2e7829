"""Vectors of pictures: made once by a frozen network, kept, checked and mapped at later starts."""

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from baldvae_pl.data.batches import to_floats
from baldvae_pl.data.image_cache import CACHE, alone, place_of
from baldvae_pl.data.images import Images, Source
from baldvae_pl.errors import SettingError, refused
from baldvae_pl.runs.files import make_folder

BATCH = 32
"""Images at once: a CPU is slower with more, and bits may depend on it."""

PIECE = 16 * BATCH
"""Images whose vectors have a checksum of their own, and are made again if it is not right."""


class Embedder:
    """A frozen network, and the folder where what it makes is kept.

    An entry is two files, the vectors and a checksum of each piece of them. A piece is used only if
    its checksum is right, so it does not matter when the process that made them was killed, and a
    later one makes just what is missing.

    Args:
        make: Makes the network.
        device: Where it runs.
        cache_folder: Where vectors are kept; left out, ``~/.cache/baldvae``.

    Attributes:
        key: Tells the network and its weights from others. Code of its own is not looked at.

    Raises:
        SettingError: If the network cannot be made.
    """

    def __init__(
        self, make: Callable[[], nn.Module], device: torch.device, cache_folder: str | None
    ) -> None:
        with refused("--data.embedding"), torch.random.fork_rng(devices=[]):
            network = make().requires_grad_(False).eval()
        layers = re.sub(r" at 0x\w+", "", repr(network))
        digest = hashlib.sha256(layers.encode())
        for name, weight in network.state_dict().items():
            digest.update(name.encode())
            digest.update(weight.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        self.key = digest.hexdigest()
        # Which makes convolutions twice as fast on a CPU, and faster on a GPU.
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self.device = device
        self.cache_folder = cache_folder

    def source(self, source: Source) -> Source:
        """Return a source with vectors in place of pictures, which are kept for people to see."""
        if source.train.images.dtype != torch.uint8:
            raise SettingError(
                "--data.embedding: the images of --data.source are vectors already. Leave it out."
            )
        pictures = source.train.images
        print_of_w = source.fingerprint or hash_of(pictures)
        vectors = self(pictures, print_of_w, "W")
        tested = self(source.test.images, hash_of(source.test.images), "the test images")
        return source._replace(
            train=Images(vectors, source.train.labels),
            test=Images(tested, source.test.labels),
            fingerprint=hashlib.sha256(f"{print_of_w} {self.key}".encode()).hexdigest(),
            pictures=pictures,
        )

    def __call__(self, images: Tensor, fingerprint: str, what: str) -> Tensor:
        """Return the vectors of images, made now or at an earlier start.

        Args:
            images: uint8, shape (n, C, H, W).
            fingerprint: Tells them from others.
            what: They are, for the progress bar.

        Returns:
            float32, shape (n, D), mapped from the cache.

        Raises:
            SettingError: If the network fails or makes no vectors, or they cannot be kept.
        """
        # One image more than there may be tells their length.
        length = self.run(images.new_zeros(1, *images.shape[1:])).shape[1]
        if len(images) == 0:
            return torch.empty(0, length)
        about = f"1 {fingerprint} {tuple(images.shape)} {self.key}"
        name = f"vectors-{hashlib.sha256(about.encode()).hexdigest()[:20]}"
        try:
            entry = place_of(Path(self.cache_folder or CACHE)) / name
            make_folder(entry)
            with alone(entry, f"embeds {what}"):
                self.complete(entry, images, length, what)
        except (OSError, NotImplementedError) as error:  # which says that there are no locks
            raise SettingError(
                f"--data.embedding: vectors cannot be kept in {self.cache_folder or CACHE!r} "
                f"({error}). Name a folder that can be written as cache_folder of the images, with "
                f"{len(images) * length * 4 / 1e6:,.1f} MB of room."
            ) from error
        mapped = torch.from_file(  # copy on write, so that the file is never changed
            str(entry / "vectors"), shared=False, size=len(images) * length, dtype=torch.float32
        )
        return mapped.view(-1, length)

    def complete(self, entry: Path, images: Tensor, length: int, what: str) -> None:
        """Make the pieces of an entry that are missing or damaged."""
        pieces = images.split(PIECE)
        paths = [entry / "vectors", entry / "checksums"]
        for path in paths:
            path.touch()
        with paths[0].open("r+b") as vectors, paths[1].open("r+b") as checksums:

            def is_there(number: int) -> bool:
                vectors.seek(4 * length * PIECE * number)
                content = vectors.read(4 * length * len(pieces[number]))
                checksums.seek(65 * number)
                return checksums.read(64) == line_of(content)[:64]

            missing = [number for number in range(len(pieces)) if not is_there(number)]
            if not missing:
                return
            for number in track(missing, f"Embedding {what}", console=Console(stderr=True)):
                made = torch.cat([self.run(batch) for batch in pieces[number].split(BATCH)])
                if not made.isfinite().all():
                    raise SettingError(
                        "--data.embedding: the network makes NaN or infinite numbers of some "
                        "images. Take another, or other weights."
                    )
                content = made.numpy().tobytes()
                write(vectors, 4 * length * PIECE * number, content)
                write(checksums, 65 * number, line_of(content))  # once the vectors are on the disk

    @torch.inference_mode()
    def run(self, images: Tensor) -> Tensor:
        """Return the vectors of a batch on the CPU."""
        batch = to_floats(images.to(self.device)).contiguous(memory_format=torch.channels_last)
        with refused("--data.embedding"):
            vectors: Tensor = self.network(batch).float().cpu()
        if vectors.ndim != 2 or len(vectors) != len(images):
            raise SettingError(
                f"--data.embedding: of {len(images)} images the network makes numbers of shape "
                f"{tuple(vectors.shape)}. It must return (n, D) for n images."
            )
        return vectors


def check_network(embedded: Mapping[str, Any] | None, key: str | None) -> None:
    """Raise a SettingError if a run's vectors were made by another network than is there now.

    Args:
        embedded: What the run's checkpoint says of its embedding; None: it had none.
        key: Of the network that is there now, see `Embedder`; None: there is none.
    """
    if (embedded and embedded["network"]) != key:
        raise SettingError(
            "--data.embedding: the checkpoint was made with another network, other weights or "
            "another image_size, or without any. Give, or leave out, what that run had."
        )


def hash_of(images: Tensor) -> str:
    """Return the SHA-256 of images."""
    return hashlib.sha256(images.contiguous().numpy().data).hexdigest()


def line_of(content: bytes) -> bytes:
    """Return the line of checksums for a piece: 64 hexadecimal digits and the line's end."""
    return f"{hashlib.sha256(content).hexdigest()}\n".encode()


def write(file: IO[bytes], place: int, content: bytes) -> None:
    """Write at a place in a file; it is on the disk when this returns."""
    file.seek(place)
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
