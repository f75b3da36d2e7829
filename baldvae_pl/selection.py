"""Selections: which images are bought together, given their scores.

A selection takes a `Candidates` and returns global indices of U, the first choice first.

Top K is what the paper does. Its images may be near copies of each other; the others here buy more
diverse ones. Stochastic batch acquisition (Kirsch et al. 2023, "Stochastic Batch Acquisition: A
Simple Baseline for Deep Active Learning", TMLR) samples K images without replacement, by adding
Gumbel noise to what is ranked; BatchBALD (Kirsch et al. 2019) counts what two images both tell only
once.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.special import entr

from baldvae_pl.errors import SettingError

__all__ = ["batch_bald", "power", "softmax", "softrank", "top_k"]

MOST_CANDIDATES = 4096
"""`batch_bald` chooses among so many images: its memory is that of their log-probabilities."""

MOST_OUTCOMES = 2000
"""`batch_bald` keeps so many joint outcomes of what is chosen; beyond, it samples as many."""

NUMBERS_AT_ONCE = 2**23
"""`batch_bald` works on so many numbers at a time."""


class Candidates(NamedTuple):
    """What a selection chooses from.

    Attributes:
        scores_N: The acquisition function's, of all of W.
        labelled: Global indices of L.
        query_size: How many to buy; a selection buys all of U if it has fewer.
        highest: (priorities_N, count) -> the indices of U with the highest priorities.
        log_probs: Indices -> log_probs_n_T_C of these images, under the round's draws.
        chance: CPU generator of the round.
    """

    scores_N: Tensor  # noqa: N815
    labelled: Tensor
    query_size: int
    highest: Callable[[Tensor, int], Tensor]
    log_probs: Callable[[Tensor], Tensor]
    chance: torch.Generator


Selection = Callable[[Candidates], Tensor]


def top_k(of: Candidates) -> Tensor:
    """The K highest scores, as in the paper; in a tie those first in W."""
    return of.highest(of.scores_N, of.query_size)


def power(of: Candidates, coldness: float = 1.0) -> Tensor:
    """Sample with probability proportional to score^β: PowerBALD, with BALD's scores.

    Args:
        of: Its scores must not be negative.
        coldness: β; 0 is random, and the higher it is the more it is like top K.
    """
    if of.scores_N.min() < 0:
        raise SettingError(
            "--acquisition.selection: power takes scores as probabilities, but "
            "--acquisition.function gives negative ones. Take softmax or softrank."
        )
    # xlogy(0, 0) is 0: with β = 0 a score of 0 is as likely as any.
    return of.highest(torch.xlogy(coldness, of.scores_N) + gumbel(of), of.query_size)


def softmax(of: Candidates, coldness: float = 1.0) -> Tensor:
    """Sample with probability proportional to exp(β score): SoftmaxBALD, with BALD's scores."""
    return of.highest(coldness * of.scores_N + gumbel(of), of.query_size)


def softrank(of: Candidates, coldness: float = 1.0) -> Tensor:
    """Sample with probability proportional to rank^-β, the highest score's rank being 1."""
    # Without L, which comes last.
    order = of.scores_N.index_fill(0, of.labelled, -torch.inf).argsort(descending=True, stable=True)
    rank_N = torch.empty_like(of.scores_N)
    rank_N[order] = torch.arange(1, len(order) + 1, dtype=rank_N.dtype)
    return of.highest(-coldness * rank_N.log() + gumbel(of), of.query_size)


def gumbel(of: Candidates) -> Tensor:
    """Return standard Gumbel noise: the K highest of log p + noise are a sample of p."""
    uniform_N = torch.rand(len(of.scores_N), generator=of.chance, dtype=torch.double)
    noise_N: Tensor = -(-uniform_N.log()).log()
    return noise_N.float()


def batch_bald(of: Candidates) -> Tensor:
    """The batch with the highest joint mutual information of labels and weights, chosen greedily.

    Each next image has the highest I(y; w | y_1 .. y_n), given the n chosen ones, whose sum is
    BatchBALD's objective (equations 8 to 13 of Kirsch et al. 2019). Conditioning on an outcome s of
    y_1 .. y_n weights the draws, w_st proportional to p(s | t), so that the next image gains

        sum_s p(s) H[sum_t w_st p_t(y)] - mean_t H[p_t(y)].

    All outcomes are enumerated while they are few; from then on s is sampled, equally often from
    each draw. Chosen are images among the ``MOST_CANDIDATES`` with the highest scores.
    """
    candidates = of.highest(of.scores_N, max(MOST_CANDIDATES, of.query_size))
    chosen = greedy_batch(of.log_probs(candidates), of.query_size, of.chance)
    return candidates[chosen]


def greedy_batch(log_probs_N_T_C: Tensor, count: int, chance: torch.Generator) -> Tensor:
    """Return positions in N, the first choice first; see `batch_bald`."""
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
            labels_S = probs_N_T_C[image][sampled_from_S].multinomial(1, generator=chance)[:, 0]
            outcomes_S_T += log_probs_N_T_C[image].T[labels_S]
    return torch.tensor(chosen)
