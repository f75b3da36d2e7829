"""The pool: who of W is labelled and since when, and the generated images G."""

import hashlib
from typing import Any

import torch
from torch import Tensor

UNLABELLED = -1


class Pool:
    """The partition of W into U and L, plus G.

    Images of W are known by their global index in W and by nothing else. One integer an image says
    who is in L: ``acquired_in`` is -1 in U and r in L for an image bought before round r trained.

    Args:
        size: Number of images in W.
        image_shape: (channels, height, width) of an image.
    """

    def __init__(self, size: int, image_shape: tuple[int, ...]) -> None:
        self.acquired_in = torch.full((size,), UNLABELLED)
        self.labels = torch.full((size,), -1)
        self.scores = torch.full((size,), torch.nan)  # BALD in nats when bought, NaN: not scored
        self.generated = {
            "images": torch.empty((0, *image_shape), dtype=torch.uint8),
            "labels": torch.empty(0, dtype=torch.long),
            "parents": torch.empty(0, dtype=torch.long),  # global index in W
            "rounds": torch.empty(0, dtype=torch.long),  # the first round that trains with it
            "scores": torch.empty(0),  # the parent's BALD
            "thresholds": torch.empty(0),  # the lowest score of that purchase
        }

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        channels, height, width = self.generated["images"].shape[1:]
        return channels, height, width

    @property
    def in_unlabelled_N(self) -> Tensor:  # noqa: N802
        """Who of W is in U."""
        return self.acquired_in == UNLABELLED

    @property
    def unlabelled(self) -> Tensor:
        """Global indices of U, ascending."""
        return self.in_unlabelled_N.nonzero().flatten()

    @property
    def labelled(self) -> Tensor:
        """Global indices of L, ascending."""
        return (self.acquired_in != UNLABELLED).nonzero().flatten()

    def highest_unlabelled(self, priorities_N: Tensor, count: int) -> Tensor:
        """Return the images of U with the highest priorities, in a tie those first in W.

        A pool may have ten million images, so that only the highest are sorted, and no index is
        made of the others.

        Args:
            priorities_N: Of all of W.
            count: How many; all of U if it has fewer.

        Returns:
            Global indices, the highest first.
        """
        in_unlabelled_N = self.in_unlabelled_N
        count = min(count, int(in_unlabelled_N.sum()))
        ordered_N = priorities_N.where(in_unlabelled_N, -torch.inf).numpy()
        ordered_N.partition(-count)
        enough = ((priorities_N >= ordered_N[-count]) & in_unlabelled_N).nonzero().flatten()
        order = priorities_N[enough].argsort(descending=True, stable=True)
        highest: Tensor = enough[order[:count]]
        return highest

    def acquire(
        self, indices: Tensor, labels: Tensor, round: int, scores: Tensor | None = None
    ) -> None:
        """Move images from U to L.

        Args:
            indices: Global indices in U, no two alike.
            labels: Their labels, as the oracle gave them: whole numbers, one an image.
            round: The first round that trains with them.
            scores: Their BALD scores; left out for the initial labels.

        Raises:
            ValueError: If an image is unknown, named twice or labelled already, or the labels or
                scores are not one an image. Nothing has changed then.
        """
        if labels.shape != indices.shape or labels.is_floating_point():
            raise ValueError(
                f"{len(indices)} images were bought; the oracle must answer with as many whole "
                f"numbers, not with {labels.dtype} of shape {tuple(labels.shape)}"
            )
        if scores is not None and scores.shape != indices.shape:
            raise ValueError(f"{len(indices)} images were bought with {len(scores)} scores")
        if ((indices < 0) | (indices >= len(self.labels))).any():
            raise ValueError("an image was bought that is not in the pool")
        if len(indices.unique()) != len(indices):
            raise ValueError("an image was bought twice in one purchase")
        if (self.acquired_in[indices] != UNLABELLED).any():
            raise ValueError("an image was bought that is labelled already")
        self.acquired_in[indices] = round
        self.labels[indices] = labels.to(self.labels)
        if scores is not None:
            self.scores[indices] = scores.to(self.scores)

    def extend(
        self, images: Tensor, parents: Tensor, round: int, scores: Tensor, threshold: float
    ) -> None:
        """Add complements, labelled as their parents, to G.

        Args:
            images: uint8, shape (n, channels, height, width).
            parents: Global indices in L, shape (n,).
            round: The first round that trains with them.
            scores: The parents' BALD scores.
            threshold: The lowest score among the images bought in the same round.

        Raises:
            ValueError: If a parent is unlabelled, or there is not one image and score a parent.
        """
        if not len(images) == len(parents) == len(scores) or images.dtype != torch.uint8:
            raise ValueError("complements must be 8-bit images, with one parent and score each")
        if (self.acquired_in[parents] == UNLABELLED).any():
            raise ValueError("a complement needs a labelled parent")
        new = {
            "images": images,
            "labels": self.labels[parents],
            "parents": parents,
            "rounds": torch.full_like(parents, round),
            "scores": scores.to(self.scores),
            "thresholds": torch.full(parents.shape, threshold),
        }
        self.generated = {key: torch.cat([old, new[key]]) for key, old in self.generated.items()}

    def digest(self) -> str:
        """Return what tells these pools from others."""
        digest = hashlib.sha256()
        for tensor in (self.acquired_in, self.labels, self.scores, *self.generated.values()):
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()

    def state_dict(self) -> dict[str, Any]:
        """Return tensors only: checkpoints are read with ``weights_only=True``."""
        return {
            "acquired_in": self.acquired_in,
            "labels": self.labels,
            "scores": self.scores,
            "generated": self.generated,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the state that :meth:`state_dict` returned."""
        self.acquired_in = state["acquired_in"]
        self.labels = state["labels"]
        self.scores = state["scores"]
        self.generated = state["generated"]


def one_of_each_in_turn(order: Tensor, labels: Tensor) -> Tensor:
    """Return a random order of images so that any first n of it are balanced by class.

    Args:
        order: A permutation of all indices; within a class it is kept.
        labels: Of all images. A class that is used up is left out.
    """
    by_class = order[labels[order].argsort(stable=True)]
    counts = labels.bincount()
    begins = (counts.cumsum(0) - counts)[labels[by_class]]
    turn = torch.empty_like(order)  # how many of its class come before an image
    turn[by_class] = torch.arange(len(order)) - begins
    return order[turn[order].argsort(stable=True)]
