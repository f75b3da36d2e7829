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

from baldvae_pl.pool import Pool, one_of_each_in_turn

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
    """Any legal or illegal sequence of purchases, complements and restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool(SIZE, SHAPE)
        self.round = 0
        self.bought: dict[int, tuple[int, int, float]] = {}  # index: (round, label, score)
        self.generated: list[tuple[int, int, float, float]] = []  # (parent, round, score, thresh.)

    @property
    def free(self) -> list[int]:
        return [index for index in range(SIZE) if index not in self.bought]

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

    @precondition(lambda self: self.bought)
    @rule(data=st.data())
    def buying_a_labelled_image_changes_nothing(self, data: st.DataObject) -> None:
        indices = data.draw(
            st.permutations([*self.free, data.draw(st.sampled_from([*self.bought]))])
        )
        self.refused(indices, len(indices), "labelled already")

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

    @precondition(lambda self: self.bought)
    @rule(data=st.data(), threshold=st.sampled_from([0.25, 1.5]))
    def complement(self, data: st.DataObject, threshold: float) -> None:
        parents = data.draw(st.lists(st.sampled_from([*self.bought]), max_size=4))
        scores = [threshold + i for i in range(len(parents))]
        numbers = torch.arange(len(self.generated), len(self.generated) + len(parents))
        images = numbers.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, *SHAPE)
        indices = torch.tensor(parents, dtype=torch.long)
        self.pool.extend(images, indices, self.round, torch.tensor(scores), threshold)
        self.generated += [
            (parent, self.round, score, threshold)
            for parent, score in zip(parents, scores, strict=True)
        ]

    @precondition(lambda self: self.free)
    @rule(data=st.data())
    def a_complement_of_an_unlabelled_image_changes_nothing(self, data: st.DataObject) -> None:
        parents = torch.tensor([*self.bought, data.draw(st.sampled_from(self.free))])
        images = torch.zeros((len(parents), *SHAPE), dtype=torch.uint8)
        before = snapshot(self.pool)
        with pytest.raises(ValueError, match="labelled parent"):
            self.pool.extend(images, parents, self.round, torch.ones(len(parents)), 0.5)
        assert_unchanged(self.pool, before)

    @rule()
    def restart(self) -> None:
        before, file = snapshot(self.pool), io.BytesIO()
        torch.save(self.pool.state_dict(), file)
        file.seek(0)
        self.pool = Pool(SIZE, SHAPE)
        self.pool.load_state_dict(torch.load(file, weights_only=True))
        assert_unchanged(self.pool, before)

    @invariant()
    def unlabelled_and_labelled_partition_the_images(self) -> None:
        assert self.pool.unlabelled.tolist() == self.free
        assert self.pool.labelled.tolist() == sorted(self.bought)

    @invariant()
    def every_image_keeps_its_label_round_and_score(self) -> None:
        nobody = (-1, -1, float("nan"))
        expected = [self.bought.get(index, nobody) for index in range(SIZE)]
        rounds, labels, scores = map(list, zip(*expected, strict=True))
        assert self.pool.acquired_in.tolist() == rounds
        assert self.pool.labels.tolist() == labels
        assert self.pool.scores.tolist() == pytest.approx(scores, nan_ok=True)

    @invariant()
    def complements_keep_the_label_of_a_parent_in_the_labelled_pool(self) -> None:
        generated = self.pool.generated
        columns = ("parents", "rounds", "scores", "thresholds")
        rows = list(zip(*(generated[key].tolist() for key in columns), strict=True))
        assert rows == self.generated
        assert set(generated["parents"].tolist()) <= set(self.bought)
        assert generated["labels"].tolist() == [self.bought[row[0]][1] for row in self.generated]
        numbers = torch.arange(len(rows), dtype=torch.uint8).view(-1, 1, 1, 1)
        assert torch.equal(generated["images"], numbers.expand(-1, *SHAPE))


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
    balanced = one_of_each_in_turn(order, torch.tensor(labels)).tolist()
    assert sorted(balanced) == list(range(len(labels)))
    for count in range(1, len(labels) + 1):
        bought = Counter(labels[i] for i in balanced[:count])
        most = max(bought.values())
        for label in set(labels):  # one fewer than another class, or all of them
            assert bought[label] >= min(most - 1, labels.count(label))
    for label in set(labels):
        of_a_class = [i for i in order.tolist() if labels[i] == label]
        assert [i for i in balanced if labels[i] == label] == of_a_class
