"""A purchase: what becomes of answers, corrections and images that are not in W."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from baldvae_pl.complement import Duplicate, NoComplements, Purchase
from baldvae_pl.data.answers import Answers
from baldvae_pl.data.module import PoolDataModule
from baldvae_pl.errors import SettingError
from baldvae_pl.loop.purchase import select, take, told
from baldvae_pl.loop.rounds import ActiveLearning
from baldvae_pl.modules.classifier import Classifier
from baldvae_pl.oracle import CANNOT_TELL, WITHDRAWN, Answer, Label, Oracle, Question
from baldvae_pl.pool import SET_ASIDE, Pool
from baldvae_pl.selection import Candidates, Selection, Synthesised


def purchase_of(*indices: int) -> Purchase:
    """Images whose pixels are 100 plus their position, and whose scores are tenths of it."""
    positions = torch.arange(len(indices))
    return Purchase(
        scores_N=torch.zeros(9),
        indices=torch.tensor(indices),
        images=(100 + positions).to(torch.uint8).view(-1, 1, 1, 1),
        scores=positions / 10,
        threshold=0.25,
    )


def answers(labels: dict[int, Label], corrections: dict[int, Label] | None = None) -> Answers:
    return Answers(labels, corrections or {})


def test_classes_and_what_nobody_can_tell_are_told_apart_in_the_order_of_the_question() -> None:
    is_told, labels = told(torch.tensor([7, 2, 5]), answers({2: CANNOT_TELL, 5: 0, 7: 4}))
    assert is_told.tolist() == [True, False, True]
    assert labels.tolist() == [4, 0]
    is_told, labels = told(torch.tensor([2]), answers({2: CANNOT_TELL}))
    assert (is_told.dtype, is_told.tolist()) == (torch.bool, [False])
    assert (labels.dtype, labels.tolist()) == (torch.int64, [])


def test_answers_move_images_to_where_they_belong() -> None:
    pool = Pool(9, (1, 1, 1))
    bought = purchase_of(7, -1, 2, -2, 5, -3)
    take(pool, bought, answers({7: 4, -1: 1, 2: CANNOT_TELL, -2: CANNOT_TELL, 5: 0, -3: 2}), 3)
    assert pool.labelled.tolist() == [5, 7]
    assert pool.labels[[5, 7]].tolist() == [0, 4]
    assert pool.scores[[5, 7]].tolist() == pytest.approx([0.4, 0.0])
    assert pool.acquired_in[[2, 5, 7]].tolist() == [SET_ASIDE, 3, 3]
    generated = pool.generated
    assert generated.parents.tolist() == [-1, -3]
    assert generated.labels.tolist() == [1, 2]
    assert generated.images.flatten().tolist() == [101, 105]
    assert generated.scores.tolist() == pytest.approx([0.1, 0.5])
    assert generated.rounds.tolist() == [3, 3]
    assert generated.thresholds.tolist() == [0.25, 0.25]
    assert pool.synthesised == 3  # the next one is -4, though nobody could tell -2
    assert pool.labels_bought == 4


def test_corrections_come_first_and_reach_complements_and_synthesised_images() -> None:
    pool = Pool(9, (1, 1, 1))
    labels: dict[int, Label] = {0: 1, 1: 2, 3: 4, 4: CANNOT_TELL, 6: 5, -1: 6, -2: 7}
    take(pool, purchase_of(*labels), answers(labels), 1)
    parents, nothing = torch.tensor([0, 1, 3]), torch.zeros((3, 1, 1, 1), dtype=torch.uint8)
    pool.extend(nothing, parents, 1, torch.ones(3), 0.25)
    corrections: dict[int, Label] = {
        0: 9, 1: WITHDRAWN, 3: CANNOT_TELL, 4: 8, -1: 3, -2: CANNOT_TELL
    }  # fmt: skip
    take(pool, purchase_of(8), answers({8: 0}, corrections), 2)
    assert pool.labelled.tolist() == [0, 4, 6, 8]
    assert pool.labels[[0, 4, 6, 8]].tolist() == [9, 8, 5, 0]
    assert pool.acquired_in.tolist() == [1, -1, -1, SET_ASIDE, 2, -1, 1, -1, 2]
    assert pool.generated.parents.tolist() == [-1, 0]
    assert pool.generated.labels.tolist() == [3, 9]
    assert pool.synthesised == 2


class Fixed(Selection):
    def __init__(self, chosen: object) -> None:
        self.chosen = chosen

    def __call__(self, candidates: Candidates) -> object:
        return self.chosen


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        (torch.tensor([], dtype=torch.long), "it chose 0 images. It must choose at least 1"),
        (torch.tensor([0, 1, 2]), "it chose 3 images. .* at most the 2 that it was asked for"),
        (Synthesised(torch.zeros(3, 1, 1, 1)), "it chose 3 images"),
        (torch.tensor([0, 0]), "ValueError: an image was chosen twice in one purchase. Fix it"),
        (torch.tensor([4]), "ValueError: an image was chosen that is labelled already"),
        (torch.tensor([9]), "ValueError: an image was chosen that is not in the pool"),
        ([0, 1], "ValueError: a purchase is a tensor of global indices"),
    ],
    ids=str,
)
def test_a_selection_is_checked_before_any_label_is_paid_for(chosen: object, words: str) -> None:
    pool = Pool(9, (1, 1, 1))
    pool.acquire(torch.tensor([4]), torch.tensor([0]), 0)
    among = Candidates(
        priorities_N=torch.zeros(9),
        labelled=pool.labelled,
        query_size=2,
        highest=pool.highest_unlabelled,
        map=lambda function, indices: function(indices),
        generator=torch.Generator(),
    )
    each, data = SimpleNamespace(once=lambda function: function()), SimpleNamespace(pool=pool)
    round: Any = SimpleNamespace(each=each, data=data)
    with pytest.raises(SettingError, match=f"^--acquisition.selection: {words}"):
        select(round, "--acquisition.selection", Fixed(chosen), among)
    fine = torch.tensor([8, 0])
    assert select(round, "--acquisition.selection", Fixed(fine), among) is fine


# In a run


def run(folder: Path, oracle: Oracle, callback: ActiveLearning) -> PoolDataModule:
    data = PoolDataModule(initial_labels=30, steps_per_round=3, batch_size=8, seed=3, oracle=oracle)
    trainer = Trainer(
        accelerator="cpu",
        logger=TensorBoardLogger(str(folder), "run", 0),
        callbacks=[callback],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(Classifier(), datamodule=data)
    return data


class TakesAllBack(Oracle):
    """Whatever it said of the round before."""

    def __init__(self) -> None:
        self.before: list[int] = []

    def answer(self, question: Question) -> Iterator[Answer]:
        for index in self.before:
            yield Answer(index, WITHDRAWN)
        self.before = question.indices.tolist()
        for index in self.before:
            yield Answer(index, index % 10)


def test_parents_whose_labels_are_taken_back_get_no_complement(tmp_path: Path) -> None:
    """Where any labelled image is uncertain enough, all 30 of the first round are parents."""
    policy = Duplicate(threshold=0.0)
    callback = ActiveLearning(rounds=2, query_size=20, mc_samples=4, complement=policy)
    data = run(tmp_path, TakesAllBack(), callback)
    assert [row["labelled"] for row in callback.history] == [30, 20, 20]
    assert [row.get("complemented") for row in callback.history] == [0, 0, None]
    assert len(data.pool.generated.labels) == 0
    assert (data.pool.acquired_in >= 0).sum() == 20


class Greys(Selection):
    """Asks about grey images, each of another shade."""

    ranks = False

    def __call__(self, candidates: Candidates) -> Synthesised:
        shades = torch.rand(candidates.query_size, 1, 1, 1, generator=candidates.generator)
        return Synthesised(shades.expand(-1, *candidates.image_shape))


class SeesHalf(Oracle):
    """Tells every other image that is not in W, and of the next round takes one back."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.images: dict[int, torch.Tensor] = {}

    def answer(self, question: Question) -> Iterator[Answer]:
        if question.round == 2:
            yield Answer(-1, WITHDRAWN)
        for index, image in zip(question.indices.tolist(), question.images, strict=True):
            self.asked.append(index)
            self.images[index] = image
            yield Answer(index, CANNOT_TELL if index < 0 and index % 2 == 0 else abs(index) % 10)


def test_every_image_that_is_not_in_w_has_an_index_of_its_own(tmp_path: Path) -> None:
    """Also after answers that left none in the pool: else the ledger would know its label."""
    oracle = SeesHalf()
    callback = ActiveLearning(
        rounds=3, query_size=4, mc_samples=4, selection=Greys(), complement=NoComplements()
    )
    data = run(tmp_path, oracle, callback)
    made = [index for index in oracle.asked if index < 0]
    assert made == list(range(-1, -13, -1))
    generated = data.pool.generated
    assert generated.parents.tolist() == [-3, -5, -7, -9, -11]
    assert generated.labels.tolist() == [3, 5, 7, 9, 1]
    assert generated.rounds.tolist() == [1, 2, 2, 3, 3]
    for index, image in zip(generated.parents.tolist(), generated.images, strict=True):
        assert torch.equal(image, oracle.images[index])
    assert [row["labelled"] for row in callback.history] == [30, 32, 33, 35]
