"""One purchase: chosen by a selection, asked about, and taken over into the pools."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from baldvae_pl.acquisition import bald
from baldvae_pl.complement import Autoencoder, Complement, Purchase, Threshold, threshold_of
from baldvae_pl.data.answers import Answers
from baldvae_pl.data.batches import like_w
from baldvae_pl.data.module import PoolDataModule
from baldvae_pl.errors import SettingError, refused
from baldvae_pl.loop.processes import Processes
from baldvae_pl.loop.progress import say
from baldvae_pl.loop.scoring import complements_of, mean_probabilities
from baldvae_pl.oracle import CANNOT_TELL, Oracle, Question
from baldvae_pl.policies import Informed
from baldvae_pl.pool import Pool
from baldvae_pl.posterior import Draws, eval_mode
from baldvae_pl.seeding import Purpose, make_generator
from baldvae_pl.selection import Candidates, Selection, SelectionFunction, Synthesised

AHEAD = 200
"""Where people label: how many of the rest of the ranking they may go on with."""


@dataclass(frozen=True)
class Round:
    """A round before its training: what the purchase of the first labels may look at.

    Attributes:
        number: Of the round, from 0.
        each: The processes of the run.
        data: W and the pools.
        autoencoder: Makes images; None if the run has none.
    """

    number: int
    each: Processes
    data: PoolDataModule
    autoencoder: Autoencoder | None

    def generator(self, purpose: Purpose) -> torch.Generator:
        """Make a CPU generator that belongs to this round and purpose."""
        return make_generator(self.data.seed, self.number, purpose)

    def candidates(self, priorities_N: Tensor, query_size: int, purpose: Purpose) -> Candidates:
        """Return the candidates for a selection."""
        data = self.data

        def look(function: Callable[[Tensor], Tensor], indices: Tensor) -> Tensor:
            images, what = data.train.images, "Comparing candidates"
            return self.each.map(function, images, what, indices=indices)

        return Candidates(
            priorities_N=priorities_N,
            labelled=data.pool.labelled,
            query_size=query_size,
            highest=data.pool.highest_unlabelled,
            map=look,
            generator=self.generator(purpose),
            network=getattr(self, "network", None),
            draws=getattr(self, "draws", None),
            autoencoder=self.autoencoder,
            image_shape=data.pool.image_shape,
            known_labels_N=None if data.people else data.train.labels,
            labels=data.pool.labels[data.pool.labelled],
        )


@dataclass(frozen=True)
class TrainedRound(Round):
    """The end of a round.

    Attributes:
        network: The trained network.
        draws: Its posterior draws.
    """

    network: nn.Module
    draws: Draws


@contextmanager
def timed(row: dict[str, float], column: str) -> Iterator[None]:
    """Add the seconds that the block takes to a column of a round's row."""
    began = time.perf_counter()
    yield
    row[column] = row.get(column, 0.0) + time.perf_counter() - began


def select(
    round: Round, setting: str, selection: Selection | SelectionFunction, among: Candidates
) -> Tensor | Synthesised:
    """Let a selection choose, and check its choice before any label is paid for.

    What the first process chooses: on different machines clusters might differ.

    Raises:
        SettingError: If it fails, or chooses none, too many, or others than images of U.
    """
    with refused(setting):
        mine = selection(among)
        chosen: Tensor | Synthesised
        if isinstance(mine, Synthesised):
            chosen = Synthesised(round.each.once(mine.images.cpu))
        else:
            chosen = round.each.once(lambda: mine)
            round.data.pool.check_purchase(chosen)
        count = len(chosen.images if isinstance(chosen, Synthesised) else chosen)
    if not 1 <= count <= among.query_size:
        raise SettingError(
            f"{setting}: it chose {count} images. It must choose at least 1 and at most the "
            f"{among.query_size} that it was asked for."
        )
    return chosen


def purchase_of(
    round: TrainedRound,
    chosen: Tensor | Synthesised,
    scores_N: Tensor,
    priorities_N: Tensor,
    rule: Threshold,
) -> Purchase:
    """Return the purchase of what was chosen, with all that is to be known of it."""
    each, data, draws = round.each, round.data, round.draws
    pool, images = data.pool, data.train.images
    if isinstance(chosen, Synthesised):
        bought = like_w(chosen.images, images.dtype)
        if bought.shape[1:] != images.shape[1:]:
            raise SettingError(
                f"--acquisition.selection: it made images of shape {tuple(bought.shape[1:])}, the "
                f"data set's are {tuple(images.shape[1:])}."
            )
        # The first after all that were ever asked about: an index has one answer in the ledger.
        indices = -1 - pool.synthesised - torch.arange(len(bought))
        scores = each.map(draws, bought, "Scoring", bald)
    else:
        indices, bought, scores = chosen, images[chosen], scores_N[chosen]
    threshold = threshold_of(rule, scores, scores_N, pool.in_unlabelled_N)
    probs_K_C = None
    if isinstance(data.oracle, Oracle):
        probs_K_C = mean_probabilities(each, draws, bought, "Scoring")
    purchase = Purchase(scores_N, indices, bought, scores, threshold, probs_K_C)
    if data.people is None or isinstance(chosen, Synthesised):  # what is made has no rest
        return purchase
    ranked = pool.highest_unlabelled(priorities_N, AHEAD + len(indices))
    ahead = ranked[~torch.isin(ranked, indices)][:AHEAD]
    if len(ahead) == 0:
        return purchase
    probs_A_C = mean_probabilities(each, draws, images[ahead], "Scoring")
    return purchase._replace(ahead=ahead, ahead_probs_A_C=probs_A_C)


def buy_first_labels(round: Round, selection: Selection | SelectionFunction) -> None:
    """Choose the first labelled images, before there is a trained network, and ask for them."""
    each, data, setting = round.each, round.data, "--acquisition.initial_selection"
    pool = data.pool
    if data.people is not None:  # what they have answered already is a part
        known = each.once(data.people.known_first)
        data.people.take_over(known)
        pool.give(known.corrections, round=0)
    chosen: Any = each.once(lambda: data.open_question(0))
    if chosen is None:
        allowed = data.budget_left - len(pool.in_audit(answered=False))
        missing = int(min(data.initial_size - len(pool.labelled), allowed, len(pool.unlabelled)))
        nothing_N = torch.zeros(len(pool.labels))
        chosen = pool.labelled[:0]
        if missing > 0:
            among = round.candidates(nothing_N, missing, Purpose.INITIAL_LABELS)
            chosen = select(round, setting, selection, among)
        if not isinstance(chosen, Synthesised):
            chosen = torch.cat([pool.in_audit(answered=False), chosen])
    if isinstance(chosen, Synthesised):
        raise SettingError(f"{setting}: the first labels have to be of images of the data set.")
    images = data.train.images[chosen]
    question = Question(0, chosen, images, data.all_classes, _files(data, chosen))
    if data.people is not None:
        generator = round.generator(Purpose.AHEAD)
        rest = pool.unlabelled[torch.randperm(len(pool.unlabelled), generator=generator)]
        question = question._replace(ahead=rest[~torch.isin(rest, chosen)][:AHEAD])
    answers = answers_to(round, question)
    if data.people is not None:
        data.people.take_over(answers)
        pool.give({**answers.labels, **answers.corrections}, round=0)
    else:
        is_told, labels = told(chosen, answers)
        pool.acquire(chosen[is_told], labels, round=0)
        pool.set_aside(chosen[~is_told])
    if len(pool.labelled) == 0:
        raise SettingError(
            f"--data.initial_labels: nobody could tell the class of any of {len(chosen)} images. "
            "Take more."
        )


def catch_up(round: TrainedRound) -> int:
    """Take over what people have answered, unasked, since the last question was complete.

    Returns:
        How many more labels there are than before.
    """
    data, people = round.data, round.data.people
    before = data.pool.labels_bought
    if people is not None:
        late = round.each.once(people.late_answers)
        people.take_over(late)
        data.pool.give(late.corrections, round.number + 1)
    return data.pool.labels_bought - before


def ask(round: Round, purchase: Purchase) -> Answers:
    """Ask the oracle about a purchase."""
    question = Question(
        round=round.number + 1,
        indices=purchase.indices,
        images=purchase.images,
        classes=round.data.all_classes,
        files=_files(round.data, purchase.indices),
        scores=purchase.scores,
        probs_K_C=purchase.probs_K_C,
        ahead=purchase.ahead,
        ahead_scores=None if purchase.ahead is None else purchase.scores_N[purchase.ahead],
        ahead_probs_A_C=purchase.ahead_probs_A_C,
    )
    return answers_to(round, question)


def answers_to(round: Round, question: Question) -> Answers:
    """Return the oracle's answers; the accelerator is free while people think."""
    each, data = round.each, round.data
    if data.people is None:
        return each.once(lambda: data.ask(question))
    say(each.trainer, "waits for your answers")
    with each.off_the_accelerator():
        return each.once(lambda: data.ask(question))


def complement(round: TrainedRound, policy: Complement, parents: Tensor) -> tuple[Tensor, Tensor]:
    """Return complements of these labelled images, in the format of W, and the parent of each.

    Args:
        round: With the pools as they are after the purchase.
        policy: Makes them.
        parents: Global indices in L. One may get several complements, or none after all.
    """
    data, purpose = round.data, Purpose.COMPLEMENT
    with refused("--acquisition.complement"):
        if isinstance(policy, Informed) and len(parents):
            among = round.candidates(torch.zeros(len(data.pool.labels)), len(parents), purpose)
            with eval_mode(round.network), eval_mode(round.autoencoder), torch.no_grad():
                parents, made = policy.make(parents, data.pool.labels, among)
            # What the first process has made: on different machines it might differ.
            return round.each.once(lambda: (parents, like_w(made, data.train.images.dtype)))
        images, generator = data.train.images[parents], round.generator(purpose)
        made = complements_of(round.each, policy, round.autoencoder, images, generator)
    return parents, made


def told(indices: Tensor, answers: Answers) -> tuple[Tensor, Tensor]:
    """Return which of these images got a class, as a mask, and those classes."""
    given: list[Any] = [answers.labels[index] for index in indices.tolist()]
    return (
        torch.tensor([label != CANNOT_TELL for label in given], dtype=torch.bool),
        torch.tensor([label for label in given if label != CANNOT_TELL], dtype=torch.long),
    )


def take(pool: Pool, purchase: Purchase, answers: Answers, round: int) -> None:
    """Move what was answered from U to L, and correct what was answered before.

    Args:
        pool: Changed in place.
        purchase: What was asked about.
        answers: To it, and corrections.
        round: The first round that trains with them.
    """
    pool.give(answers.corrections, round, purchase.scores_N)
    pool.synthesised += int((purchase.indices < 0).sum())
    is_told, labels = told(purchase.indices, answers)
    known, unknown = purchase.of(is_told), purchase.of(~is_told)
    in_w = known.indices >= 0
    pool.add_synthesised(
        known.images[~in_w],
        labels[~in_w],
        known.indices[~in_w],
        round,
        known.scores[~in_w],
        purchase.threshold,
    )
    pool.acquire(known.indices[in_w], labels[in_w], round, known.scores[in_w])
    pool.set_aside(unknown.in_w)


def _files(data: PoolDataModule, indices: Tensor) -> list[str] | None:
    """Return the names of these images, if W has names; empty for an image that is not in W."""
    return data.files and [data.files[i] if i >= 0 else "" for i in indices.tolist()]
