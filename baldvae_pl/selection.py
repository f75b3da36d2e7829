"""Selections: which images are bought together, given their scores.

A selection takes `Candidates` and returns global indices of U, the first choice first, or, to ask
about images that are not in W, a `Synthesised`.

Top K is what the paper does. Its images may be near copies of each other; the others here buy more
diverse ones. Stochastic batch acquisition (Kirsch et al. 2023, "Stochastic Batch Acquisition: A
Simple Baseline for Deep Active Learning", TMLR) samples K images without replacement, by adding
Gumbel noise to what is ranked; BatchBALD (Kirsch et al. 2019) counts what two images both tell only
once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.special import entr

from baldvae_pl.complement import Autoencoder
from baldvae_pl.errors import SettingError
from baldvae_pl.pool import class_balanced_order
from baldvae_pl.posterior import Draws, eval_mode

MOST_CANDIDATES = 4096
"""`BatchBALD` chooses among so many images: its memory is that of their log-probabilities."""

MOST_OUTCOMES = 2000
"""`BatchBALD` keeps so many joint outcomes of what is chosen; beyond, it samples as many."""

NUMBERS_AT_ONCE = 2**23
"""`BatchBALD` works on so many numbers at a time."""


@dataclass(frozen=True)
class Candidates:
    """The images that a selection chooses from, and how to look at them.

    Attributes:
        priorities_N: The acquisition function's scores of all of W; zeros for the first labels.
        labelled: Global indices of L.
        query_size: How many to buy; a selection buys all of U if it has fewer.
        highest: (priorities_N, count) -> the indices of U with the highest priorities.
        map: (function, indices) -> what a function of float images makes of these images of W, a
            batch at a time on the accelerator, shared among processes; on the CPU of each.
        generator: CPU generator of the round.
        network: The trained network; None for the first labels.
        draws: The round's posterior draws, float images -> log_probs_n_T_C; None likewise.
        autoencoder: The generator of images, if the run has one.
        image_shape: Of an image of W.
        known_labels_N: The labels that the data set came with, for protocols of the literature that
            begin with as many of each class. Nothing else may look at them.
        labels: That were bought, in the order of ``labelled``.
    """

    priorities_N: Tensor  # noqa: N815
    labelled: Tensor
    query_size: int
    highest: Callable[[Tensor, int], Tensor]
    map: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]
    generator: torch.Generator
    network: nn.Module | None = None
    draws: Draws | None = None
    autoencoder: Autoencoder | None = None
    image_shape: tuple[int, ...] = ()
    known_labels_N: Tensor | None = None  # noqa: N815
    labels: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))

    @property
    def unlabelled(self) -> Tensor:
        """Global indices of U, ascending."""
        size = len(self.priorities_N)
        return self.highest(torch.zeros(size), size)

    def log_probs(self, indices: Tensor) -> Tensor:
        """Return log_probs_n_T_C of these images, under the round's draws."""
        if self.draws is None:
            raise SettingError(
                "--acquisition.initial_selection: there is no trained network before round 0. "
                "Take a selection that asks for no prediction, such as RandomSubset."
            )
        return self.map(self.draws, indices)

    def features(self, indices: Tensor) -> Tensor:
        """Return features_n_D: what the network's ``trunk`` makes of these images."""
        network: Any = self.network
        if not hasattr(network, "trunk"):
            raise SettingError(
                "--acquisition.selection: it asks for features, but the network has no trunk. "
                "Give it a trunk and a head, or choose another selection."
            )
        with eval_mode(network):
            return self.map(lambda images: network.trunk(images).flatten(1), indices)


class Synthesised(NamedTuple):
    """Images that are not in W, to be asked about.

    Attributes:
        images: In [0, 1], or vectors, shape ``(n, *image_shape)``, on any device.
    """

    images: Tensor


class Selection(ABC):
    """Chooses what is bought. Options of a subclass are the parameters of its ``__init__``."""

    ranks = True
    """Whether it buys by priorities, which must then tell images apart."""
    needs_network = False
    """Whether it looks at the trained network, and so cannot choose the first labels."""
    makes_images = False
    """Whether it asks about images that are not in W, a `Synthesised`."""

    @abstractmethod
    def __call__(self, candidates: Candidates) -> Tensor | Synthesised:
        """Return global indices of U, the first choice first, or images that are not in W."""


SelectionFunction = Callable[[Candidates], Tensor | Synthesised]


class TopK(Selection):
    """The K highest scores, as in the paper; in a tie those first in W.

    Args:
        subset: Only so many random images of U are looked at, or K if that is more; null: all. With
            a large K it keeps images that are much alike apart (Yoo and Kweon 2019).
    """

    def __init__(self, subset: int | None = None) -> None:
        if subset is not None and subset < 1:
            raise SettingError(f"--acquisition.selection.subset: must be at least 1, got {subset}.")
        self.subset = subset

    def __call__(self, candidates: Candidates) -> Tensor:
        """Return their indices."""
        priorities_N, count = candidates.priorities_N, candidates.query_size
        if self.subset is None:
            return candidates.highest(priorities_N, count)
        random_N = torch.rand(len(priorities_N), generator=candidates.generator)
        some = candidates.highest(random_N, max(self.subset, count))
        some = some.sort().values
        return some[priorities_N[some].argsort(descending=True, stable=True)[:count]]


class Random(Selection):
    """The control: looks at no prediction, every image of U is equally likely to be bought."""

    ranks = False

    def __call__(self, candidates: Candidates) -> Tensor:
        """Return their indices."""
        size = len(candidates.priorities_N)
        random_N = torch.rand(size, generator=candidates.generator)
        return candidates.highest(random_N, candidates.query_size)


class RandomSubset(Selection):
    """The first labels: uniformly at random, as the paper says, or as many of each class.

    Args:
        balanced: Equally many of each class, as the data set's own labels say: a protocol of the
            literature, which no real pool allows.
    """

    ranks = False

    def __init__(self, balanced: bool = False) -> None:
        self.balanced = balanced

    def __call__(self, candidates: Candidates) -> Tensor:
        """Return their indices, ascending."""
        size = len(candidates.priorities_N)
        order = torch.randperm(size, generator=candidates.generator)
        if self.balanced:
            if candidates.known_labels_N is None:
                raise SettingError(
                    "--acquisition.initial_selection.balanced: the data set has no labels of its "
                    "own to balance by. Leave it out."
                )
            order = class_balanced_order(order, candidates.known_labels_N)
        first_N = torch.empty(size, dtype=torch.double)
        first_N[order] = -torch.arange(size, dtype=torch.double)
        return candidates.highest(first_N, candidates.query_size).sort().values


class Stochastic(Selection):
    """Samples without replacement, the more probably the higher the score.

    Args:
        coldness: β; 0 is random, and the higher it is the more it is like top K.
    """

    def __init__(self, coldness: float = 1.0) -> None:
        if not (isfinite(coldness) and coldness >= 0):
            raise SettingError(
                f"--acquisition.selection.coldness: must be a finite number from 0, got {coldness}."
            )
        self.coldness = coldness

    @abstractmethod
    def log_weights(self, candidates: Candidates) -> Tensor:
        """Return the logarithm of what the probability of each image of W is proportional to."""

    def __call__(self, candidates: Candidates) -> Tensor:
        """Return their indices: the K highest of log p + Gumbel noise are a sample of p."""
        log_weights_N = self.log_weights(candidates)
        # Of a score of 0 the logarithm is -inf, and it comes last; else that is an overflow.
        too_low_N = log_weights_N.isneginf() & (candidates.priorities_N != 0)
        if (too_low_N | log_weights_N.isnan() | log_weights_N.isposinf()).any():
            raise SettingError(
                f"--acquisition.selection.coldness: {self.coldness} times these scores is beyond "
                "float32, so that they would not be ranked. Take less; TopK is the limit."
            )
        return candidates.highest(log_weights_N + gumbel(candidates), candidates.query_size)


class Power(Stochastic):
    """Probability proportional to score^β: PowerBALD, with BALD's scores, which may not be below 0.

    Args:
        coldness: β; 0 is random, and the higher it is the more it is like top K.
    """

    def log_weights(self, candidates: Candidates) -> Tensor:
        """Return β log score."""
        if candidates.priorities_N.min() < 0:
            raise SettingError(
                "--acquisition.selection: Power takes scores as probabilities, but "
                "--acquisition.function gives negative ones. Take Softmax or Softrank."
            )
        # xlogy(0, 0) is 0: with β = 0 a score of 0 is as likely as any.
        return torch.xlogy(self.coldness, candidates.priorities_N)


class Softmax(Stochastic):
    """Probability proportional to exp(β score): SoftmaxBALD, with BALD's scores.

    Args:
        coldness: β; 0 is random, and the higher it is the more it is like top K.
    """

    def log_weights(self, candidates: Candidates) -> Tensor:
        """Return β score."""
        return self.coldness * candidates.priorities_N


class Softrank(Stochastic):
    """Probability proportional to rank^-β, the highest score's rank being 1.

    Args:
        coldness: β; 0 is random, and the higher it is the more it is like top K.
    """

    def log_weights(self, candidates: Candidates) -> Tensor:
        """Return -β log rank."""
        priorities_N = candidates.priorities_N
        # Without L, which comes last.
        outside = priorities_N.index_fill(0, candidates.labelled, -torch.inf)
        order = outside.argsort(descending=True, stable=True)
        rank_N = torch.empty_like(priorities_N)
        rank_N[order] = torch.arange(1, len(order) + 1, dtype=rank_N.dtype)
        return -self.coldness * rank_N.log()


def gumbel(candidates: Candidates) -> Tensor:
    """Return standard Gumbel noise, a number an image of W."""
    size = len(candidates.priorities_N)
    uniform_N = torch.rand(size, generator=candidates.generator, dtype=torch.double)
    noise_N: Tensor = -(-uniform_N.log()).log()
    return noise_N.float()


class BatchBALD(Selection):
    """The batch with the highest joint mutual information of labels and weights, chosen greedily.

    Each next image has the highest I(y; w | y_1 .. y_n), given the n chosen ones, whose sum is
    BatchBALD's objective (equations 8 to 13 of Kirsch et al. 2019). Conditioning on an outcome s of
    y_1 .. y_n weights the draws, w_st proportional to p(s | t), so that the next image gains

        sum_s p(s) H[sum_t w_st p_t(y)] - mean_t H[p_t(y)].

    All outcomes are enumerated while they are few; from then on s is sampled, equally often from
    each draw. Chosen are images among the ``MOST_CANDIDATES`` with the highest scores.
    """

    def __call__(self, candidates: Candidates) -> Tensor:
        """Return their indices."""
        count = candidates.query_size
        highest = candidates.highest(candidates.priorities_N, max(MOST_CANDIDATES, count))
        chosen = greedy_batch(candidates.log_probs(highest), count, candidates.generator)
        return highest[chosen]


def greedy_batch(log_probs_N_T_C: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return positions in N, the first choice first; see `BatchBALD`."""
    images, draws, classes = log_probs_N_T_C.shape
    log_probs_N_T_C = log_probs_N_T_C.clamp(min=-1e4)  # an impossible outcome is no NaN
    probs_N_T_C = log_probs_N_T_C.exp()
    given_draws_N = entr(probs_N_T_C).sum(-1).mean(1)
    outcomes_S_T = torch.zeros(1, draws)  # log p(s | t)
    weight_S = torch.ones(1)  # p(s)
    sampled_from_S: Tensor | None = None  # each sampled outcome's draw
    chosen: list[int] = []
    for _ in range(min(count, images)):
        given_outcome_S_T = outcomes_S_T.softmax(1)
        size = max(1, NUMBERS_AT_ONCE // (len(weight_S) * classes))
        entropy_N = torch.cat(
            [
                weight_S @ entr(torch.einsum("st,ntc->snc", given_outcome_S_T, part)).sum(-1)
                for part in probs_N_T_C.split(size)
            ]
        )
        gains_N = entropy_N - given_draws_N
        gains_N[chosen] = -torch.inf
        chosen.append(int(gains_N.argmax()))

        log_probs_C_T = log_probs_N_T_C[chosen[-1]].T
        if sampled_from_S is None and len(weight_S) * classes <= MOST_OUTCOMES:
            outcomes_S_T = (outcomes_S_T[:, None] + log_probs_C_T).flatten(0, 1)
            weight_S = outcomes_S_T.exp().mean(1)
            continue
        new = chosen[-1:]
        if sampled_from_S is None:
            sampled_from_S = torch.arange(draws).repeat_interleave(-(-MOST_OUTCOMES // draws))
            weight_S = torch.full(sampled_from_S.shape, 1 / len(sampled_from_S))
            outcomes_S_T, new = torch.zeros(len(sampled_from_S), draws), chosen
        for image in new:
            labels_S = probs_N_T_C[image][sampled_from_S].multinomial(1, generator=generator)[:, 0]
            outcomes_S_T += log_probs_N_T_C[image].T[labels_S]
    return torch.tensor(chosen)
