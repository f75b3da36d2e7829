"""Batches: which images of the pools a round trains on or a test looks at, and their formats."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from baldvae_pl.data.images import Images
from baldvae_pl.seeding import Purpose, make_generator

Batch = tuple[Tensor, Tensor]


class Gather(Dataset[Batch]):
    """Images by index, a batch at a time, over several sets as if they stood end to end."""

    def __init__(self, *parts: Images) -> None:
        self.parts = parts

    def __getitem__(self, indices: Tensor) -> Batch:
        """Return images, as they are kept, and labels for a tensor of indices."""
        first = self.parts[0]
        size = sum(len(part.labels) for part in self.parts)
        if ((indices < 0) | (indices >= size)).any():
            raise IndexError(f"indices must lie in 0 .. {size - 1}")
        images = first.images.new_empty((len(indices), *first.images.shape[1:]))
        labels = torch.empty(len(indices), dtype=torch.long)
        start = 0
        for part in self.parts:
            inside = (indices >= start) & (indices < start + len(part.labels))
            images[inside] = part.images[indices[inside] - start]
            labels[inside] = part.labels[indices[inside] - start]
            start += len(part.labels)
        return images, labels


class RoundBatches(DistributedSampler[Tensor]):
    """A fixed number of batches over some items, reshuffled each time all have been seen.

    It shares its batches among processes itself, so Lightning leaves it as it is.

    Args:
        items: Indices to draw from.
        batch_size: Indices of a batch over all processes.
        steps: Number of batches.
        seeds: (seed, round, purpose).
        share: (rank, world size): which part of each batch is this process's.
    """

    def __init__(
        self,
        items: Tensor,
        batch_size: int,
        steps: int,
        seeds: tuple[int, int, Purpose],
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.items, self.batch_size, self.steps = items, batch_size, steps
        self.seeds, self.share = seeds, share

    def set_epoch(self, epoch: int) -> None:
        """Reshuffle for another epoch; Lightning calls this."""
        seed, _, purpose = self.seeds
        self.seeds = (seed, epoch, purpose)

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the batches; every call yields the same ones."""
        generator = make_generator(*self.seeds)
        rank, world_size = self.share
        waiting = torch.empty(0, dtype=torch.long)
        for _ in range(self.steps):
            while len(waiting) < self.batch_size:
                waiting = torch.cat([waiting, torch.randperm(len(self.items), generator=generator)])
            yield self.items[waiting[: self.batch_size]][rank::world_size]
            waiting = waiting[self.batch_size :]

    def __len__(self) -> int:
        return self.steps


class TestBatches(DistributedSampler[Tensor]):
    """Every index once, in batches; each process gets equally many, as buffers are synchronised.

    Args:
        size: Number of images.
        batch_size: At most so many in a batch.
        share: (rank, world size).
    """

    __test__ = False  # says to pytest that these are no tests

    def __init__(self, size: int, batch_size: int, share: tuple[int, int]) -> None:
        rank, world_size = share
        count = -(-size // (batch_size * world_size)) * world_size
        self.batches = torch.arange(size).tensor_split(count)[rank::world_size]

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the batches of this process."""
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def image_loader(images: Gather, batches: Any) -> DataLoader[Batch]:
    """Return a loader of ready batches: a gather is faster than worker processes here."""
    # A generator of its own keeps the loader off the global one, which training's dropout draws
    # from: a resumed round makes one iterator fewer than an uninterrupted one.
    return DataLoader(images, sampler=batches, batch_size=None, generator=torch.Generator())


def read_ahead(images: Tensor, parts: Sequence[slice | Tensor]) -> Iterator[Tensor]:
    """Yield parts of some images, of which the next is read while one works with the last.

    Images may be mapped from a disk, which need not wait for a network then, nor the network for
    it. One part more than that which is worked with is in memory.

    Args:
        images: On the CPU.
        parts: Slices or indices of them.
    """
    pages = images.detach().numpy()

    def read(part: slice | Tensor) -> Tensor:
        # NumPy copies without threads of its own, which would take the network's cores.
        read = pages[part].copy() if isinstance(part, slice) else pages[part.numpy()]
        return torch.from_numpy(read)

    with ThreadPoolExecutor(1) as reader:
        coming: Future[Tensor] | None = None
        for part in parts:
            come, coming = coming, reader.submit(read, part)
            if come is not None:
                yield come.result()
        if coming is not None:
            yield coming.result()


def images_at_once(numbers: int) -> int:
    """Return the largest batch, 1 to 4,096, of so many float32 an image that fits in 16 MB."""
    return max(1, min(4096, 2**22 // numbers))


def to_floats(images: Tensor) -> Tensor:
    """Return 8-bit images as floats in [0, 1]; vectors of floats are what they are."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def like_w(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Return images in [0, 1], or vectors, in the format of W's images, on the CPU."""
    if dtype != torch.uint8:
        return images.to(dtype).cpu()
    return (images.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
