"""The pool against a dictionary: whatever is bought in whatever order, U and L partition W."""

import io
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from torch import Tensor

from baldvae_pl.pool import (
    COMPLEMENT,
    SET_ASIDE,
    SYNTHESISED,
    UNLABELLED,
    Generated,
    Pool,
    class_balanced_order,
)

SIZE = 9
SHAPE = (2, 1, 3)


def snapshot(pool: Pool) -> dict[str, Tensor]:
    state = pool.state_dict()
    flat = {key: value for key, value in state.items() if key != "generated"} | state["generated"]
    return {key: value.clone() for key, value in flat.items()}


def assert_unchanged(pool: Pool, before: dict[str, Tensor]) -> None:
    for key, value in snapshot(pool).items():
        assert value.dtype == before[key].dtype, key
        torch.testing.assert_close(value, before[key], rtol=0, atol=0, equal_nan=True, msg=key)


class PoolMachine(RuleBasedStateMachine):
    """Any legal or illegal sequence of purchases, corrections, complements and restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool(SIZE, SHAPE)
        self.round = 0
        self.number = 0  # of generated images, which are told apart by their pixels
        self.asked = 0  # synthesised images so far
        self.bought: dict[int, tuple[int, int, float]] = {}  # index: (round, label, score)
        self.aside: set[int] = set()
        # (number, parent, kind, label, round, score, threshold)
        self.generated: list[tuple[int, int, int, int, int, float, float]] = []

    @property
    def free(self) -> list[int]:
        return [i for i in range(SIZE) if i not in self.bought and i not in self.aside]

    @property
    def synthesised(self) -> list[int]:
        return [row[1] for row in self.generated if row[2] == SYNTHESISED]

    @precondition(lambda self: self.free)
    @rule(data=st.data(), scored=st.booleans())
    def buy(self, data: st.DataObject, scored: bool) -> None:
        indices = data.draw(st.permutations(self.free))[: data.draw(st.integers(1, 4))]
        labels = [data.draw(st.integers(0, 9)) for _ in indices]
        scores = [0.5 + index for index in indices]
        arguments = [torch.tensor(indices), torch.tensor(labels), self.round]
        self.pool.acquire(*arguments, *([torch.tensor(scores)] if scored else []))
        for index, label, score in zip(indices, labels, scores, strict=True):
            self.bought[index] = (self.round, label, score if scored else float("nan"))
        self.round += 1

    @precondition(lambda self: self.free)
    @rule(data=st.data())
    def set_aside(self, data: st.DataObject) -> None:
        indices = data.draw(st.permutations(self.free))[: data.draw(st.integers(1, 2))]
        self.pool.set_aside(torch.tensor(indices))
        self.aside |= set(indices)

    @precondition(lambda self: self.bought or self.aside)
    @rule(data=st.data())
    def buying_a_labelled_image_changes_nothing(self, data: st.DataObject) -> None:
        taken = data.draw(st.sampled_from([*self.bought, *sorted(self.aside)]))
        indices = data.draw(st.permutations([*self.free, taken]))
        self.refused(indices, len(indices), "labelled already")
        before = snapshot(self.pool)
        with pytest.raises(ValueError, match="labelled already"):
            self.pool.set_aside(torch.tensor(indices))
        assert_unchanged(self.pool, before)

    @precondition(lambda self: self.free)
    @rule(data=st.data())
    def buying_twice_in_one_purchase_changes_nothing(self, data: st.DataObject) -> None:
        indices = data.draw(st.permutations([*self.free, data.draw(st.sampled_from(self.free))]))
        self.refused(indices, len(indices), "twice")

    @precondition(lambda self: self.free)
    @rule(missing=st.sampled_from([-1, 1]))
    def a_wrong_number_of_labels_changes_nothing(self, missing: int) -> None:
        self.refused(self.free, len(self.free) - missing, "as many whole")

    def refused(self, indices: list[int], labels: int, match: str) -> None:
        before = snapshot(self.pool)
        with pytest.raises(ValueError, match=match):
            self.pool.acquire(
                torch.tensor(indices),
                torch.full((labels,), 99),
                self.round,
                torch.zeros(len(indices)),
            )
        assert_unchanged(self.pool, before)

    def images(self, count: int) -> Tensor:
        numbers = torch.arange(self.number, self.number + count)
        self.number += count
        return numbers.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, *SHAPE)

    @precondition(lambda self: self.bought)
    @rule(data=st.data(), threshold=st.sampled_from([0.25, 1.5]))
    def complement(self, data: st.DataObject, threshold: float) -> None:
        parents = data.draw(st.lists(st.sampled_from([*self.bought]), max_size=4))
        scores = [threshold + i for i in range(len(parents))]
        indices, first = torch.tensor(parents, dtype=torch.long), self.number
        images = self.images(len(parents))
        self.pool.extend(images, indices, self.round, torch.tensor(scores), threshold)
        self.generated += [
            (
                first + i,
                parent,
                COMPLEMENT,
                self.bought[parent][1],
                self.round,
                scores[i],
                threshold,
            )
            for i, parent in enumerate(parents)
        ]

    @rule(data=st.data(), count=st.integers(1, 3))
    def synthesise(self, data: st.DataObject, count: int) -> None:
        labels = [data.draw(st.integers(0, 9)) for _ in range(count)]
        indices = [-1 - self.asked - i for i in range(count)]
        scores, first = [0.25 * i for i in range(count)], self.number
        arguments = (torch.tensor(labels), torch.tensor(indices), self.round, torch.tensor(scores))
        self.pool.add_synthesised(self.images(count), *arguments, 0.75)
        self.asked += count
        self.generated += [
            (first + i, indices[i], SYNTHESISED, labels[i], self.round, scores[i], 0.75)
            for i in range(count)
        ]

    @precondition(lambda self: self.bought or self.aside or self.synthesised)
    @rule(data=st.data(), label=st.integers(0, 9))
    def correct(self, data: st.DataObject, label: int) -> None:
        known = [*self.bought, *sorted(self.aside), *self.synthesised]
        index = data.draw(st.sampled_from(known))
        self.pool.correct(index, label, self.round)
        if index in self.bought:
            round, _, score = self.bought[index]
            self.bought[index] = (round, label, score)
        elif index in self.aside:
            self.aside.remove(index)
            self.bought[index] = (self.round, label, float("nan"))
        self.generated = [
            (*row[:3], label, *row[4:]) if row[1] == index else row for row in self.generated
        ]

    @precondition(lambda self: self.bought or self.aside or self.synthesised)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        known = [*self.bought, *sorted(self.aside), *self.synthesised]
        index = data.draw(st.sampled_from(known))
        self.pool.correct(index, None, self.round)
        self.bought.pop(index, None)
        self.aside.discard(index)
        self.generated = [row for row in self.generated if row[1] != index]

    @rule(data=st.data(), label=st.none() | st.integers(0, 9))
    def correcting_what_was_not_bought_changes_nothing(
        self, data: st.DataObject, label: int | None
    ) -> None:
        index = data.draw(st.sampled_from([*self.free, SIZE, -1 - self.asked]))
        before = snapshot(self.pool)
        with pytest.raises(ValueError, match=f"image {index} was not bought"):
            self.pool.correct(index, label, self.round)
        assert_unchanged(self.pool, before)

    @precondition(lambda self: self.free or self.aside)
    @rule(data=st.data())
    def a_complement_of_an_unlabelled_image_changes_nothing(self, data: st.DataObject) -> None:
        unlabelled = data.draw(st.sampled_from([*self.free, *sorted(self.aside)]))
        parents = torch.tensor([*self.bought, unlabelled])
        images = torch.zeros((len(parents), *SHAPE), dtype=torch.uint8)
        before = snapshot(self.pool)
        with pytest.raises(ValueError, match="labelled parent"):
            self.pool.extend(images, parents, self.round, torch.ones(len(parents)), 0.5)
        assert_unchanged(self.pool, before)

    @rule()
    def restart(self) -> None:
        before, digest, file = snapshot(self.pool), self.pool.digest(), io.BytesIO()
        torch.save(self.pool.state_dict(), file)
        file.seek(0)
        self.pool = Pool(SIZE, SHAPE)
        self.pool.load_state_dict(torch.load(file, weights_only=True))
        assert_unchanged(self.pool, before)
        assert self.pool.digest() == digest

    @invariant()
    def unlabelled_labelled_and_set_aside_partition_the_images(self) -> None:
        assert self.pool.unlabelled.tolist() == self.free
        assert self.pool.labelled.tolist() == sorted(self.bought)
        aside = (self.pool.acquired_in == SET_ASIDE).nonzero().flatten().tolist()
        assert aside == sorted(self.aside)
        assert self.pool.labels_bought == len(self.bought) + len(self.synthesised)
        known = {*self.bought, *self.aside, *self.synthesised}
        for index in range(-1 - self.asked, SIZE + 1):
            assert self.pool.was_bought(index) == (index in known)

    @invariant()
    def every_image_keeps_its_label_round_and_score(self) -> None:
        nobody, aside = (UNLABELLED, -1, float("nan")), (SET_ASIDE, -1, float("nan"))
        expected = [
            aside if index in self.aside else self.bought.get(index, nobody)
            for index in range(SIZE)
        ]
        rounds, labels, scores = map(list, zip(*expected, strict=True))
        assert self.pool.acquired_in.tolist() == rounds
        assert self.pool.labels.tolist() == labels
        assert self.pool.scores.tolist() == pytest.approx(scores, nan_ok=True)

    @invariant()
    def complements_keep_the_label_of_a_parent_in_the_labelled_pool(self) -> None:
        generated = self.pool.generated
        columns = ("parents", "kinds", "labels", "rounds", "scores", "thresholds")
        rows = list(zip(*(getattr(generated, key).tolist() for key in columns), strict=True))
        assert rows == [row[1:] for row in self.generated]
        complements = generated.complements
        assert set(complements.parents.tolist()) <= set(self.bought)
        for parent, label in zip(
            complements.parents.tolist(), complements.labels.tolist(), strict=True
        ):
            assert label == self.bought[parent][1]
        numbers = torch.tensor([row[0] for row in self.generated], dtype=torch.uint8)
        assert torch.equal(generated.images, numbers.view(-1, 1, 1, 1).expand(-1, *SHAPE))


PoolMachine.TestCase.settings = settings(
    deadline=None,
    max_examples=40,
    stateful_step_count=12,
    derandomize=True,
    phases=[Phase.generate],  # shortening a failing history takes minutes
)
TestPool = PoolMachine.TestCase


def half_labelled_pool() -> Pool:
    pool = Pool(4, SHAPE)
    pool.acquire(torch.tensor([3, 1]), torch.tensor([7, 8]), round=0)
    return pool


@pytest.mark.parametrize(
    ("indices", "labels", "scores"),
    [
        pytest.param([0, 4], torch.tensor([1, 2]), torch.zeros(2), id="beyond W"),
        pytest.param([0, -4], torch.tensor([1, 2]), torch.zeros(2), id="twice"),
        pytest.param([0, 2], torch.tensor([1.0, 2]), torch.zeros(2), id="labels"),
        pytest.param([0, 2], torch.tensor([1, 2]), torch.zeros(3), id="scores"),
    ],
)
def test_a_purchase_that_fails_changes_nothing(
    indices: list[int], labels: Tensor, scores: Tensor
) -> None:
    pool = half_labelled_pool()
    before = snapshot(pool)
    with pytest.raises((ValueError, RuntimeError, IndexError)):
        pool.acquire(torch.tensor(indices), labels, 1, scores)
    assert_unchanged(pool, before)


def test_labels_and_scores_of_other_precision_are_taken() -> None:
    pool = half_labelled_pool()
    pool.acquire(
        torch.tensor([2, 0]), torch.tensor([5, 6]).int(), 1, torch.tensor([0.5, 1]).double()
    )
    assert pool.labels.tolist() == [6, 8, 5, 7]
    assert pool.scores[[0, 2]].tolist() == [1, 0.5]


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"images": torch.zeros((2, 1, 3, 3), dtype=torch.uint8)}, id="shape"),
        pytest.param({"images": torch.zeros((2, *SHAPE))}, id="floats"),
        pytest.param({"images": torch.zeros((3, *SHAPE)).byte()}, id="images"),
        pytest.param({"scores": torch.ones(3)}, id="scores"),
    ],
)
def test_complements_that_do_not_fit_together_are_refused(wrong: dict[str, Any]) -> None:
    pool = half_labelled_pool()
    before = snapshot(pool)
    arguments = {
        "images": torch.zeros((2, *SHAPE), dtype=torch.uint8),
        "parents": torch.tensor([1, 3]),
        "round": 1,
        "scores": torch.ones(2),
        "threshold": 0.5,
    }
    with pytest.raises((ValueError, RuntimeError)):
        pool.extend(**(arguments | wrong))
    assert_unchanged(pool, before)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40), st.data())
def test_the_highest_of_the_unlabelled_are_found_as_by_sorting(
    images: list[tuple[int, bool]], data: st.DataObject
) -> None:
    pool = Pool(len(images), (1, 1, 1))
    labelled = torch.tensor([index for index, (_, known) in enumerate(images) if known])
    pool.acquired_in[labelled.long()] = 0
    unlabelled = [index for index, (_, known) in enumerate(images) if not known]
    if not unlabelled:
        return
    count = data.draw(st.integers(1, len(images)))
    priorities = torch.tensor([float(priority) for priority, _ in images])
    expected = sorted(unlabelled, key=lambda index: (-images[index][0], index))[:count]
    assert pool.highest_unlabelled(priorities, count).tolist() == expected


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.data())
def test_any_first_images_are_balanced_as_far_as_they_can_be(
    labels: list[int], data: st.DataObject
) -> None:
    order = torch.tensor(data.draw(st.permutations(range(len(labels)))))
    balanced = class_balanced_order(order, torch.tensor(labels)).tolist()
    assert sorted(balanced) == list(range(len(labels)))
    for count in range(1, len(labels) + 1):
        bought = Counter(labels[i] for i in balanced[:count])
        most = max(bought.values())
        for label in set(labels):  # one fewer than another class, or all of them
            assert bought[label] >= min(most - 1, labels.count(label))
    for label in set(labels):
        of_a_class = [i for i in order.tolist() if labels[i] == label]
        assert [i for i in balanced if labels[i] == label] == of_a_class


# One by one


def column(pool: Pool, name: str) -> list[float]:
    return getattr(pool.generated, name).tolist()


def shades(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, *SHAPE)


def pool_with_complements() -> Pool:
    """Images 1 and 3 in L, with one and two complements; a synthesised image -1."""
    pool = half_labelled_pool()
    pool.extend(shades(1, 2, 3), torch.tensor([3, 1, 3]), 1, torch.tensor([0.5, 0.6, 0.7]), 0.25)
    labels, indices = torch.tensor([5]), torch.tensor([-1])
    pool.add_synthesised(shades(4), labels, indices, 2, torch.tensor([0.125]), 0.5)
    return pool


def test_a_synthesised_image_has_a_label_of_its_own_and_counts_as_bought() -> None:
    pool = pool_with_complements()
    assert column(pool, "parents") == [3, 1, 3, -1]
    assert column(pool, "kinds") == [COMPLEMENT, COMPLEMENT, COMPLEMENT, SYNTHESISED]
    assert column(pool, "labels") == [7, 8, 7, 5]
    assert column(pool, "rounds") == [1, 1, 1, 2]
    assert column(pool, "scores") == pytest.approx([0.5, 0.6, 0.7, 0.125])
    assert column(pool, "thresholds") == [0.25, 0.25, 0.25, 0.5]
    assert pool.labels_bought == 3
    assert pool.labelled.tolist() == [1, 3]
    assert pool.generated.complements.images[:, 0, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"indices": torch.tensor([-1, 0])}, id="in W"),
        pytest.param({"labels": torch.tensor([1])}, id="labels"),
        pytest.param({"scores": torch.ones(3)}, id="scores"),
        pytest.param({"images": torch.zeros((2, *SHAPE))}, id="floats"),
        pytest.param({"images": torch.zeros((2, 1, 3, 3)).byte()}, id="shape"),
    ],
)
def test_synthesised_images_that_do_not_fit_together_are_refused(wrong: dict[str, Any]) -> None:
    pool = pool_with_complements()
    before = snapshot(pool)
    arguments = {
        "images": shades(8, 9),
        "labels": torch.tensor([1, 2]),
        "indices": torch.tensor([-2, -3]),
        "round": 1,
        "scores": torch.ones(2),
        "threshold": 0.5,
    }
    with pytest.raises((ValueError, RuntimeError)):
        pool.add_synthesised(**(arguments | wrong))
    assert_unchanged(pool, before)


def test_an_image_that_nobody_can_tell_is_neither_unlabelled_nor_labelled() -> None:
    pool = half_labelled_pool()
    pool.set_aside(torch.tensor([2]))
    assert (pool.unlabelled.tolist(), pool.labelled.tolist()) == ([0], [1, 3])
    assert pool.acquired_in.tolist() == [UNLABELLED, 0, SET_ASIDE, 0]
    assert pool.highest_unlabelled(torch.ones(4), 4).tolist() == [0]
    assert pool.labels_bought == 2


def test_a_correction_reaches_the_complements_and_leaves_the_rest() -> None:
    pool = pool_with_complements()
    pool.correct(3, 2, round=4)
    assert pool.labels.tolist() == [-1, 8, -1, 2]
    assert pool.acquired_in[3] == 0  # it was bought then
    assert column(pool, "labels") == [2, 8, 2, 5]
    assert column(pool, "rounds") == [1, 1, 1, 2]
    pool.correct(-1, 9, round=4)
    assert column(pool, "labels") == [2, 8, 2, 9]
    assert pool.labels_bought == 3


def test_what_was_set_aside_may_be_told_later() -> None:
    pool = half_labelled_pool()
    pool.set_aside(torch.tensor([2]))
    pool.correct(2, 6, round=5)
    assert (pool.labels[2], pool.acquired_in[2]) == (6, 5)
    pool.correct(2, 4, round=6)
    assert (pool.labels[2], pool.acquired_in[2]) == (4, 5)


def test_a_withdrawn_answer_takes_its_complements_along() -> None:
    pool = pool_with_complements()
    pool.acquire(torch.tensor([2]), torch.tensor([1]), 2, torch.tensor([0.75]))
    pool.correct(3, None, round=4)
    assert pool.labelled.tolist() == [1, 2]
    assert pool.unlabelled.tolist() == [0, 3]
    assert pool.labels.tolist() == [-1, 8, 1, -1]
    assert column(pool, "parents") == [1, -1]
    pool.correct(2, None, round=4)
    assert pool.scores.isnan().all()
    pool.acquire(torch.tensor([3]), torch.tensor([0]), 4)  # it can be bought again
    assert (pool.labels[3], pool.acquired_in[3]) == (0, 4)


def test_a_withdrawn_synthesised_image_is_gone() -> None:
    pool = pool_with_complements()
    pool.correct(-1, None, round=4)
    assert column(pool, "parents") == [3, 1, 3]
    assert pool.labels_bought == 2
    with pytest.raises(ValueError, match="image -1 was not bought"):
        pool.correct(-1, 3, round=5)


def test_the_number_of_images_asked_about_survives_a_restart() -> None:
    """More than there are: some had no answer, and an index is never used again."""
    pool = pool_with_complements()
    assert Pool(4, SHAPE).synthesised == 0
    pool.synthesised = 3
    file = io.BytesIO()
    torch.save(pool.state_dict(), file)
    file.seek(0)
    resumed = Pool(4, SHAPE)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert (resumed.synthesised, type(resumed.synthesised)) == (3, int)


def test_vectors_of_floats_may_be_the_images() -> None:
    pool = Pool(4, (3,), torch.float32)
    assert pool.image_shape == (3,)
    pool.acquire(torch.tensor([3, 1]), torch.tensor([7, 8]), round=0)
    vectors = torch.tensor([[1.5, -2, 1e6], [0, 0.25, -0.5]])
    pool.extend(vectors, torch.tensor([1, 3]), 1, torch.ones(2), 0.5)
    assert torch.equal(pool.generated.images, vectors)
    pool.add_synthesised(-vectors[:1], torch.tensor([2]), torch.tensor([-1]), 1, torch.ones(1), 0.5)
    assert torch.equal(pool.generated.images[2], -vectors[0])
    with pytest.raises(ValueError, match=r"must be torch\.float32 like those of W"):
        pool.extend(vectors.byte(), torch.tensor([1, 3]), 1, torch.ones(2), 0.5)
    other = Pool(4, (3,), torch.float32)
    other.load_state_dict(pool.state_dict())
    assert other.digest() == pool.digest()
    assert torch.equal(other.generated.images, pool.generated.images)


@pytest.mark.parametrize("column_name", Generated._fields)
def test_the_digest_sees_every_column_of_what_is_generated(column_name: str) -> None:
    pool = pool_with_complements()
    before = pool.digest()
    assert pool_with_complements().digest() == before
    changed = getattr(pool.generated, column_name).clone()
    changed[-1] = changed[-1] + 1
    pool.generated = pool.generated._replace(**{column_name: changed})
    assert pool.digest() != before


@pytest.mark.parametrize(
    ("indices", "words"),
    [
        ([0, 2], "tensor of global indices"),
        (torch.tensor([[0]]), "tensor of global indices"),
        (torch.tensor([0.0]), "tensor of global indices"),
        (torch.tensor([0, -1]), "not in the pool"),
        (torch.tensor([4]), "not in the pool"),
        (torch.tensor([0, 0]), "twice"),
        (torch.tensor([0, 1]), "labelled already"),
    ],
    ids=str,
)
def test_what_is_no_purchase_says_why(indices: object, words: str) -> None:
    pool = half_labelled_pool()
    before = snapshot(pool)
    for refuse in (pool.check_purchase, pool.set_aside):
        with pytest.raises(ValueError, match=words):
            refuse(indices)
    assert_unchanged(pool, before)
    pool.check_purchase(torch.tensor([2, 0]))
