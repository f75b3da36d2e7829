"""GAAL and ASAL against optima that are known, neighbours by brute force, and the judge."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from baldvae_pl import ASAL, CANNOT_TELL, GAAL, Digits, Judge, Question, SettingError
from baldvae_pl.networks import DigitsNet
from baldvae_pl.rivals.asal import nearest_and_different
from baldvae_pl.rivals.gaal import most_uncertain
from baldvae_pl.selection import Candidates

CENTRES = torch.tensor([[2.0, 1.0], [-1.0, 2.0], [0.0, -2.0]])


class Distances(nn.Module):
    """A classifier of points in a plane: the nearer to a centre, the likelier is its class."""

    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Parameter(CENTRES.clone())

    def trunk(self, images: Tensor) -> Tensor:
        return 3 * images.flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        return -0.5 * torch.cdist(images.flatten(1), self.centres).square()


class Plane(nn.Module):
    """An autoencoder whose codes are half the images."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean = images.flatten(1) / self.scale
        return mean, torch.zeros_like(mean)

    def decode(self, z: Tensor) -> Tensor:
        return (z * self.scale).view(-1, 1, 1, 2)


def circumcentre(points: Tensor) -> Tensor:
    """The point at the same distance from three: |p - a|^2 = |p - b|^2 = |p - c|^2."""
    a, b, c = points
    sides = 2 * torch.stack([b - a, c - a])
    return torch.linalg.solve(sides, torch.stack([b @ b - a @ a, c @ c - a @ a]))


def candidates(images: Tensor, count: int, labelled: list[int] | None = None) -> Candidates:
    in_u = torch.ones(len(images), dtype=torch.bool)
    in_u[labelled or []] = False
    unlabelled = in_u.nonzero().flatten()
    return Candidates(
        priorities_N=torch.zeros(len(images)),
        labelled=(~in_u).nonzero().flatten(),
        query_size=count,
        highest=lambda _, most: unlabelled[:most],
        map=lambda function, indices: function(images[indices]),
        generator=torch.Generator().manual_seed(3),
        network=Distances(),
        autoencoder=Plane(),
        image_shape=(1, 1, 2),
    )


POINTS = 2 * torch.randn(50, 1, 1, 2, generator=torch.Generator().manual_seed(0))


def test_the_search_ends_where_all_classes_are_as_likely() -> None:
    of = candidates(POINTS, 5)
    z = most_uncertain(of, steps=400, lr=0.05, prior=0.0)
    assert z.shape == (5, 2)
    expected = circumcentre(CENTRES) / 2  # as the decoder doubles
    torch.testing.assert_close(z, expected.expand(5, 2), rtol=0, atol=1e-2)
    for module in (of.network, of.autoencoder):
        assert isinstance(module, nn.Module)
        assert all(weight.grad is None for weight in module.parameters())
        assert module.training


def test_the_prior_holds_it_where_the_generator_has_learnt() -> None:
    z = most_uncertain(candidates(POINTS, 5), steps=400, lr=0.05, prior=100.0)
    assert z.abs().max() < 0.05


def test_without_a_step_it_begins_at_a_sample_of_the_prior() -> None:
    z = most_uncertain(candidates(POINTS, 4), steps=0, lr=0.05, prior=0.01)
    assert torch.equal(z, torch.randn(4, 2, generator=torch.Generator().manual_seed(3)))


def test_gaal_asks_about_what_is_made_there() -> None:
    made = GAAL(steps=400, lr=0.05, prior=0.0)(candidates(POINTS, 3)).images
    assert made.shape == (3, 1, 1, 2)
    expected = circumcentre(CENTRES).expand(3, 2)
    torch.testing.assert_close(made.flatten(1), expected, rtol=0, atol=2e-2)


@pytest.mark.parametrize("space", ["latents", "features", "images"])
def test_asal_asks_about_the_nearest_images_of_u(space: Any) -> None:
    centre = circumcentre(CENTRES)
    by_distance = (POINTS.flatten(1) - centre).norm(dim=1).argsort()
    labelled = by_distance[1].item()
    of = candidates(POINTS, 3, [int(labelled)])
    chosen = ASAL(space=space, steps=600, lr=0.02, prior=0.0)(of)
    # All three searches end at the same point, so they get the three nearest.
    assert chosen.tolist() == by_distance[[0, 2, 3]].tolist()


@given(st.integers(1, 8), st.integers(1, 12), st.integers(0, 10**6))
def test_nearest_and_different_by_brute_force(wanted: int, there: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(wanted, 2, generator=generator)
    points = torch.randn(there, 2, generator=generator)
    left, expected = list(range(there)), []
    for query in queries[:there]:
        best = min(left, key=lambda place: float((points[place] - query).norm()))
        left.remove(best)
        expected.append(best)
    assert nearest_and_different(queries, points).tolist() == expected


@pytest.mark.parametrize("kind", [GAAL, ASAL])
@pytest.mark.parametrize(("option", "value"), [("steps", -1), ("lr", 0.0), ("prior", -0.1)])
def test_no_search_is_refused(kind: Any, option: str, value: float) -> None:
    with pytest.raises(SettingError, match=rf"^--acquisition\.selection\.{option}: must be .* got"):
        kind(**{option: value})


# The judge

DIGITS = Digits()(Path())


def judge(**options: Any) -> Judge:
    made = Judge(network=DigitsNet, epochs=8, **options)
    made.source = DIGITS
    return made


def ask(who: Judge, images: Tensor, indices: Tensor | None = None) -> list[Any]:
    indices = -1 - torch.arange(len(images)) if indices is None else indices
    question = Question(1, indices, images, DIGITS.classes)
    return [answer.label for answer in who.answer(question)]


@pytest.mark.slow
def test_the_judge_knows_what_it_has_not_seen_and_says_when_it_does_not() -> None:
    images, labels = DIGITS.test
    before = torch.get_rng_state()
    who = judge()
    answers = ask(who, images)
    assert torch.equal(torch.get_rng_state(), before)
    told = [(a, b) for a, b in zip(answers, labels.tolist(), strict=True) if a != CANNOT_TELL]
    assert len(told) > 0.7 * len(labels)
    assert sum(a == b for a, b in told) > 0.97 * len(told)
    between = ((images[:200].int() + images[200:400].int()) // 2).to(torch.uint8)
    unsure = ask(who, between).count(CANNOT_TELL) / 200
    assert unsure > 2 * answers.count(CANNOT_TELL) / len(labels)
    assert ask(judge(), images) == answers  # at another start
    assert CANNOT_TELL not in ask(judge(sure=0.0), images[:50])


def test_images_of_w_get_their_own_labels() -> None:
    who = judge(sure=1.0)
    indices = torch.tensor([5, 3])
    images, labels = DIGITS.train
    assert ask(who, images[indices], indices) == labels[indices].tolist()
    assert who.network is None  # it has not been asked anything hard


@pytest.mark.parametrize(("option", "value"), [("sure", 1.5), ("epochs", 0)])
def test_no_judge_is_refused(option: str, value: Any) -> None:
    with pytest.raises(SettingError, match=rf"^--data\.oracle\.{option}: "):
        Judge(**{option: value})
