"""The pool: who of W is labelled and since when, and the images G beside W."""

import hashlib
from typing import Any, NamedTuple

import torch
from torch import Tensor

from baldvae_pl.answer import CANNOT_TELL, Label
from baldvae_pl.errors import SettingError

UNLABELLED = -1
SET_ASIDE = -2
"""In ``acquired_in``: bought, but nobody could tell the class; in neither U nor L."""
FOR_AUDIT = -3
"""In ``acquired_in``: kept to measure with, and never trained on; in neither U nor L."""

COMPLEMENT = 0
SYNTHESISED = 1
"""Kinds of generated images: with the label of a parent, or with an answer of the oracle."""


class Generated(NamedTuple):
    """Images that are not in W but trained with, one after the other.

    Attributes:
        images: In the format of W's.
        labels: Classes.
        parents: Global index in W of the parent; a synthesised image has its own negative index.
        kinds: ``COMPLEMENT`` or ``SYNTHESISED``.
        rounds: The first round that trains with it.
        scores: BALD in nats, the parent's or its own.
        thresholds: BALD from which on a labelled image was uncertain in that purchase.
    """

    images: Tensor
    labels: Tensor
    parents: Tensor
    kinds: Tensor
    rounds: Tensor
    scores: Tensor
    thresholds: Tensor

    def of(self, which: Tensor) -> "Generated":
        """Return the images that a mask or indices name."""
        return Generated(*(column[which] for column in self))

    @property
    def complements(self) -> "Generated":
        """The images that have a parent."""
        return self.of(self.kinds == COMPLEMENT)


class Pool:
    """The partition of W into U and L, plus G.

    Images of W are known by their global index in W and by nothing else. One integer an image says
    who is in L: ``acquired_in`` is -1 in U, r in L for an image bought before round r trained, -2
    for an image that nobody could answer, and -3 for one that is only to measure with.

    Args:
        size: Number of images in W.
        image_shape: Of an image: (channels, height, width), or (features,) for vectors.
        dtype: Of the images: 8-bit pictures, or vectors of floats.
    """

    def __init__(
        self, size: int, image_shape: tuple[int, ...], dtype: torch.dtype = torch.uint8
    ) -> None:
        self.acquired_in = torch.full((size,), UNLABELLED)
        self.labels = torch.full((size,), -1)
        self.scores = torch.full((size,), torch.nan)  # BALD in nats when bought, NaN: not scored
        self.generated = Generated(
            images=torch.empty((0, *image_shape), dtype=dtype),
            labels=torch.empty(0, dtype=torch.long),
            parents=torch.empty(0, dtype=torch.long),
            kinds=torch.empty(0, dtype=torch.long),
            rounds=torch.empty(0, dtype=torch.long),
            scores=torch.empty(0),
            thresholds=torch.empty(0),
        )
        self.synthesised = 0  # so many were asked about, -1 the first; not all had an answer

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(channels, height, width), or (features,)."""
        return tuple(self.generated.images.shape[1:])

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
        return (self.acquired_in >= 0).nonzero().flatten()

    @property
    def labels_bought(self) -> int:
        """Number of labels that were given: those of L and those of synthesised images."""
        return len(self.labelled) + int((self.generated.kinds == SYNTHESISED).sum())

    @property
    def synthesised_unknown(self) -> int:
        """Number of synthesised images that were asked about and have no label."""
        return self.synthesised - int((self.generated.kinds == SYNTHESISED).sum())

    def highest_unlabelled(self, priorities_N: Tensor, count: int) -> Tensor:
        """Return the images of U with the highest priorities, in a tie those first in W.

        A pool may have ten million images, so that only the highest are sorted, and no index is
        made of the others.

        Args:
            priorities_N: Of all of W.
            count: How many; all of U if it has fewer.

        Returns:
            Global indices, the highest first.

        Raises:
            SettingError: If a priority is NaN or infinite, but for -inf, which comes last.
        """
        if (priorities_N.isnan() | priorities_N.isposinf()).any():
            raise SettingError(
                "--acquisition.selection: it ranks by numbers that are NaN or infinite, which have "
                "no order. Fix it, or the acquisition function's scores."
            )
        in_unlabelled_N = self.in_unlabelled_N
        count = min(count, int(in_unlabelled_N.sum()))
        ordered_N = priorities_N.where(in_unlabelled_N, -torch.inf).numpy()
        ordered_N.partition(-count)
        enough = ((priorities_N >= ordered_N[-count]) & in_unlabelled_N).nonzero().flatten()
        order = priorities_N[enough].argsort(descending=True, stable=True)
        highest: Tensor = enough[order[:count]]
        return highest

    def check_purchase(self, indices: Tensor) -> None:
        """Raise a ValueError unless these are images of U, no two alike."""
        if not isinstance(indices, Tensor) or indices.ndim != 1 or indices.is_floating_point():
            raise ValueError("a purchase is a tensor of global indices, one an image")
        if ((indices < 0) | (indices >= len(self.labels))).any():
            raise ValueError("an image was chosen that is not in the pool")
        if len(indices.unique()) != len(indices):
            raise ValueError("an image was chosen twice in one purchase")
        if (self.acquired_in[indices] != UNLABELLED).any():
            raise ValueError("an image was chosen that is labelled already, or was set aside")

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
        self.check_purchase(indices)
        if labels.shape != indices.shape or labels.is_floating_point():
            raise ValueError(
                f"{len(indices)} images were bought; the oracle must answer with as many whole "
                f"numbers, not with {labels.dtype} of shape {tuple(labels.shape)}"
            )
        if scores is not None and scores.shape != indices.shape:
            raise ValueError(f"{len(indices)} images were bought with {len(scores)} scores")
        self.acquired_in[indices] = round
        self.labels[indices] = labels.to(self.labels)
        if scores is not None:
            self.scores[indices] = scores.to(self.scores)

    def was_bought(self, index: int) -> bool:
        """Whether this image of W, or synthesised one, was answered, and not taken back."""
        if 0 <= index < len(self.labels):
            return bool(self.acquired_in[index] != UNLABELLED)
        return bool((self.generated.parents == index).any())

    def set_aside(self, indices: Tensor) -> None:
        """Take images of U whose class nobody can tell out of U.

        Raises:
            ValueError: As `check_purchase`.
        """
        self.check_purchase(indices)
        self.acquired_in[indices] = SET_ASIDE

    def correct(self, index: int, label: int | None, round: int) -> None:
        """Give a bought image another label; its complements take it over.

        Args:
            index: Global index of an image of L or one that was set aside, or the negative one of a
                synthesised image.
            label: The class. None takes the answer back: the image is in U again, and its
                complements, or the synthesised image itself, are gone.
            round: The first round that trains with the correction.

        Raises:
            ValueError: If that image was not bought.
        """
        dependent = self.generated.parents == index
        in_w = 0 <= index < len(self.labels)
        if not self.was_bought(index):
            raise ValueError(f"image {index} was not bought, so there is nothing to correct")
        if label is None:
            self.generated = self.generated.of(~dependent)
        else:
            labels = self.generated.labels.masked_fill(dependent, label)
            self.generated = self.generated._replace(labels=labels)
        if in_w and label is None:
            self.acquired_in[index], self.labels[index] = UNLABELLED, -1
            self.scores[index] = torch.nan
        elif in_w and label is not None:
            self.labels[index] = label
            if self.acquired_in[index] == SET_ASIDE:
                self.acquired_in[index] = round

    def keep_for_audit(self, indices: Tensor) -> None:
        """Take images of U out of it, to measure with them once they have a label.

        Raises:
            ValueError: As `check_purchase`.
        """
        self.check_purchase(indices)
        self.acquired_in[indices] = FOR_AUDIT

    @property
    def trainable(self) -> Tensor:
        """Global indices of all of W but the audit, ascending."""
        return (self.acquired_in != FOR_AUDIT).nonzero().flatten()

    def in_audit(self, answered: bool) -> Tensor:
        """Return the global indices of the audit's images that have a class, or no answer yet."""
        labels = self.labels >= 0 if answered else self.labels == UNLABELLED
        return ((self.acquired_in == FOR_AUDIT) & labels).nonzero().flatten()

    @property
    def answers_N(self) -> Tensor:  # noqa: N802
        """The class of each image of W; -1: no answer, -2: nobody could tell."""
        return self.labels.where(self.acquired_in != SET_ASIDE, SET_ASIDE)

    def give(self, labels: dict[int, Label], round: int, scores_N: Tensor | None = None) -> None:
        """Take over answers, to images in whatever state.

        Args:
            labels: By global index, or the negative one of a synthesised image.
            round: The first round that trains with them.
            scores_N: BALD scores of all of W, if there are any yet.

        Raises:
            ValueError: As `correct`.
        """
        new = [
            index
            for index, label in labels.items()
            if index >= 0 and not isinstance(label, str) and self.acquired_in[index] == UNLABELLED
        ]
        if new:
            indices = torch.tensor(new)
            classes = torch.tensor([labels[index] for index in new])
            self.acquire(indices, classes, round, None if scores_N is None else scores_N[indices])
        for index in labels.keys() - {*new}:
            label = labels[index]
            number = None if isinstance(label, str) else label
            if index >= 0 and self.acquired_in[index] == FOR_AUDIT:
                nobody = SET_ASIDE if label == CANNOT_TELL else UNLABELLED
                self.labels[index] = nobody if number is None else number
                continue
            if self.was_bought(index):
                self.correct(index, number, round)
            if label == CANNOT_TELL and index >= 0:
                self.set_aside(torch.tensor([index]))

    def extend(
        self, images: Tensor, parents: Tensor, round: int, scores: Tensor, threshold: float
    ) -> None:
        """Add complements, labelled as their parents, to G.

        Args:
            images: In the format of W's, shape ``(n, *image_shape)``.
            parents: Global indices in L, shape (n,).
            round: The first round that trains with them.
            scores: The parents' BALD scores.
            threshold: BALD from which on a labelled image was uncertain.

        Raises:
            ValueError: If a parent is unlabelled, or there is not one image and score a parent.
        """
        if (self.acquired_in[parents] < 0).any():
            raise ValueError("a complement needs a labelled parent")
        labels = self.labels[parents]
        self._extend(COMPLEMENT, images, labels, parents, round, scores, threshold)

    def add_synthesised(
        self,
        images: Tensor,
        labels: Tensor,
        indices: Tensor,
        round: int,
        scores: Tensor,
        threshold: float,
    ) -> None:
        """Add images that are not in W, with labels of their own, to G.

        Args:
            images: In the format of W's, shape ``(n, *image_shape)``.
            labels: As the oracle gave them, shape (n,).
            indices: Their negative indices, unlike those of all others.
            round: The first round that trains with them.
            scores: Their BALD scores.
            threshold: BALD from which on a labelled image was uncertain.

        Raises:
            ValueError: If there is not one label, index and score an image.
        """
        if (indices >= 0).any():
            raise ValueError("a synthesised image has a negative index")
        self._extend(SYNTHESISED, images, labels, indices, round, scores, threshold)

    def _extend(
        self,
        kind: int,
        images: Tensor,
        labels: Tensor,
        parents: Tensor,
        round: int,
        scores: Tensor,
        threshold: float,
    ) -> None:
        same_format = images.dtype == self.generated.images.dtype
        if not len(images) == len(labels) == len(parents) == len(scores) or not same_format:
            raise ValueError(
                f"generated images must be {self.generated.images.dtype} like those of W, with one "
                "label, parent and score each"
            )
        new = Generated(
            images=images,
            labels=labels,
            parents=parents,
            kinds=torch.full_like(parents, kind),
            rounds=torch.full_like(parents, round),
            scores=scores.to(self.scores),
            thresholds=torch.full(parents.shape, threshold),
        )
        self.generated = Generated(*map(torch.cat, zip(self.generated, new, strict=True)))

    def move(self, places: Tensor, size: int) -> None:
        """Take over the state of a W that has gained or lost images.

        Args:
            places: For each image of the state its index now, -1 if it is gone; a complement of one
                that is gone is gone too.
            size: Of W now.
        """
        there = places >= 0
        fresh = Pool(size, self.image_shape)
        for name in ("acquired_in", "labels", "scores"):
            getattr(fresh, name)[places[there]] = getattr(self, name)[there]
            setattr(self, name, getattr(fresh, name))
        of = self.generated
        in_w = of.parents >= 0
        moved = of.parents.where(~in_w, places[of.parents.clamp(min=0)])
        self.generated = of._replace(parents=moved).of(~in_w | (moved >= 0))

    def digest(self) -> str:
        """Return the SHA-256 of the pools' state."""
        digest = hashlib.sha256(str(self.synthesised).encode())
        for tensor in (self.acquired_in, self.labels, self.scores, *self.generated):
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()

    def state_dict(self) -> dict[str, Any]:
        """Return tensors only: checkpoints are read with ``weights_only=True``."""
        return {
            "acquired_in": self.acquired_in,
            "labels": self.labels,
            "scores": self.scores,
            "generated": self.generated._asdict(),
            "synthesised": torch.tensor(self.synthesised),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the state that :meth:`state_dict` returned."""
        self.acquired_in = state["acquired_in"]
        self.labels = state["labels"]
        self.scores = state["scores"]
        self.generated = Generated(**state["generated"])
        self.synthesised = int(state["synthesised"])


def class_balanced_order(order: Tensor, labels: Tensor) -> Tensor:
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
