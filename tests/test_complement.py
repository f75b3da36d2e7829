"""Who gets a complement, against the sets of the paper; how it is made, against arithmetic."""

from fractions import Fraction
from math import floor, log
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from baldvae_pl import complement as policies
from baldvae_pl.complement import (
    ROUNDING,
    AllNew,
    Autoencoder,
    Complement,
    Duplicate,
    NoComplements,
    Purchase,
    Uncertain,
)
from baldvae_pl.errors import SettingError
from baldvae_pl.networks import DenseVAE
from baldvae_pl.pool import Pool

SCORES = st.sampled_from([0.0, ROUNDING / 2, 2 * ROUNDING, 0.1, 0.25, 0.7])


class FourfoldVariance(nn.Module):
    """q(z|x) = N(10 x, 4), and the decoder shows z."""

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean = 10 * images.flatten(1)
        return mean, torch.full_like(mean, log(4))

    def decode(self, z: Tensor) -> Tensor:
        return z.view(-1, 1, 2, 3)


def pool_with(labelled: Tensor, size: int) -> Pool:
    pool = Pool(size, (1, 1, 1))
    pool.acquire(labelled, labelled % 3, round=0)
    return pool


def purchase_of(scores_N: Tensor, indices: Tensor, threshold: float) -> Purchase:
    images = torch.zeros((len(indices), 1, 1, 1), dtype=torch.uint8)
    scores = torch.where(indices >= 0, scores_N[indices], 0.0)
    return Purchase(scores_N, indices, images, scores, threshold)


def complement_all(pool: Pool, parents: Tensor, round: int) -> None:
    images = torch.zeros((len(parents), 1, 1, 1), dtype=torch.uint8)
    pool.extend(images, parents, round, torch.ones(len(parents)), 0.5)


@st.composite
def purchases(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of W, L before the purchase, and the top K of U."""
    scores_N = torch.tensor(draw(st.lists(SCORES, min_size=3, max_size=12)))
    in_labelled = draw(st.permutations(range(len(scores_N))))
    split = draw(st.integers(1, len(scores_N) - 1))
    labelled, unlabelled = torch.tensor(in_labelled[:split]), torch.tensor(in_labelled[split:])
    order = scores_N[unlabelled].argsort(descending=True, stable=True)
    return scores_N, labelled.sort().values, unlabelled[order[: draw(st.integers(1, 4))]]


@settings(deadline=None, max_examples=200, derandomize=True)
@given(purchases())
def test_parents_are_those_of_condition_3(purchase: tuple[Tensor, Tensor, Tensor]) -> None:
    scores_N, labelled, acquired = purchase
    scores, threshold = scores_N.tolist(), scores_N[acquired].min().item()
    expected = [i for i in labelled.tolist() if scores[i] >= threshold and scores[i] >= ROUNDING]
    bought, pool = purchase_of(scores_N, acquired, threshold), pool_with(labelled, len(scores_N))
    for policy in (Uncertain(), Duplicate()):
        assert policy.parents(bought, pool).tolist() == expected
    assert NoComplements().parents(bought, pool).tolist() == []
    assert AllNew().parents(bought, pool).tolist() == sorted(acquired.tolist())


def test_condition_3_on_one_purchase() -> None:
    scores_N = torch.tensor([0.3, 0.5, 0.2999, 0.9, 0.3, 0.6, 0.0])
    labelled, acquired = torch.tensor([0, 1, 2, 6]), torch.tensor([3, 5, 4])
    bought = purchase_of(scores_N, acquired, scores_N[4].item())
    assert Uncertain().parents(bought, pool_with(labelled, 7)).tolist() == [0, 1]


def test_a_pool_of_zeros_complements_nobody() -> None:
    scores_N = torch.rand(100, generator=torch.Generator().manual_seed(0)) * ROUNDING
    bought = purchase_of(scores_N, torch.arange(90, 100), 0.0)
    assert len(Uncertain().parents(bought, pool_with(torch.arange(90), 100))) == 0


def test_an_image_that_is_not_in_w_is_no_parent() -> None:
    bought = purchase_of(torch.rand(9), torch.tensor([7, -1, 2, -2]), 0.0)
    assert bought.in_w.tolist() == [7, 2]
    pool = pool_with(torch.tensor([4]), 9)
    assert AllNew().parents(bought, pool).tolist() == [2, 7]
    assert NoComplements().parents(bought, pool).tolist() == []


def test_the_purchase_of_some_of_its_images_keeps_the_rest() -> None:
    bought = purchase_of(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([2, 0, 1]), 0.1)
    some = bought.of(torch.tensor([True, False, True]))
    assert some.indices.tolist() == [2, 1]
    assert some.scores.tolist() == pytest.approx([0.3, 0.2])
    assert len(some.images) == 2
    assert (some.threshold, some.scores_N is bought.scores_N) == (0.1, True)


def test_complements_decode_a_sample_of_the_posterior_of_z() -> None:
    images = torch.rand(4, 1, 2, 3, generator=torch.Generator().manual_seed(0))
    made = Uncertain().generate(images, FourfoldVariance(), torch.Generator().manual_seed(5))
    noise = torch.randn((4, 6), generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(made, 10 * images + 2 * noise.view(4, 1, 2, 3))


def test_complements_of_the_dense_vae_by_hand() -> None:
    torch.manual_seed(0)
    vae = DenseVAE((1, 2, 3), hidden=5, latent=4)
    images = torch.rand(3, 1, 2, 3)
    made = AllNew().generate(images, vae, torch.Generator().manual_seed(5))
    w1, b1, w2, b2, w3, b3, w4, b4, w5, b5 = (p.detach().double() for p in vae.parameters())
    hidden = (images.double().view(3, 6) @ w1.T + b1).clamp(min=0)
    noise = torch.randn((3, 4), generator=torch.Generator().manual_seed(5)).double()
    z = hidden @ w2.T + b2 + noise * torch.exp((hidden @ w3.T + b3) / 2)
    expected = 1 / (1 + torch.exp(-((z @ w4.T + b4).clamp(min=0) @ w5.T + b5)))
    torch.testing.assert_close(made.double(), expected.view(3, 1, 2, 3), atol=1e-6, rtol=0)


def test_the_duplicate_is_the_parent() -> None:
    images = torch.rand(3, 1, 2, 3)
    made = Duplicate().generate(images, None, torch.Generator())
    assert torch.equal(made, images)


def test_policies_that_are_compared_differ_in_one_thing() -> None:
    uncertain, duplicate, everyone, nobody = Uncertain(), Duplicate(), AllNew(), NoComplements()
    assert uncertain.generate == everyone.generate == policies.decode_sample
    assert duplicate.generate == nobody.generate == policies.copy
    assert everyone.parents == policies.newly_labelled
    assert nobody.parents == policies.nobody
    needs = [policy.needs_vae for policy in (uncertain, duplicate, everyone, nobody)]
    assert needs == [True, False, True, False]
    assert {p.threshold for p in (uncertain, duplicate, everyone, nobody)} == {"lowest"}


def test_the_mean_of_the_posterior_of_z_may_be_decoded() -> None:
    images, generator = torch.rand(4, 1, 2, 3), torch.Generator().manual_seed(5)
    for policy in (Uncertain(latent="mean"), AllNew(latent="mean")):
        made = policy.generate(images, FourfoldVariance(), generator)
        torch.testing.assert_close(made, 10 * images)
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(5).get_state())
    assert torch.equal(Duplicate().generate(images, None, generator), images)


def test_what_encodes_and_decodes_is_an_autoencoder() -> None:
    assert isinstance(FourfoldVariance(), Autoencoder)
    assert isinstance(DenseVAE(), Autoencoder)
    assert not isinstance(nn.Linear(2, 2), Autoencoder)


@pytest.mark.parametrize(
    ("rule", "expected"), [("lowest", 0.5), ("highest", 0.7), (0.0, 0.1), (0.5, 0.4), (1.0, 0.7)]
)
def test_the_threshold_is_of_the_purchase_or_a_quantile_of_the_pool(
    rule: Literal["lowest", "highest"] | float, expected: float
) -> None:
    scores_N = torch.tensor([0.9, 0.1, 0.7, 0.3, 0.5, 0.0])
    in_unlabelled = torch.tensor([False, True, True, True, True, False])
    threshold = policies.threshold_of(rule, scores_N[[2, 4]], scores_N, in_unlabelled)
    assert threshold == pytest.approx(expected)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
@pytest.mark.parametrize("policy", [Uncertain, Duplicate])
def test_a_threshold_that_is_no_quantile_is_refused(
    policy: type[Complement], threshold: float
) -> None:
    with pytest.raises(SettingError, match=r"complement\.threshold: .* is not a quantile"):
        policy(threshold=threshold)


# Caps


@pytest.mark.parametrize(
    ("caps", "words"),
    [
        ({"max_per_parent": 0}, "max_per_parent: must be at least 1, got 0"),
        ({"max_share": 0.0}, "max_share: must be between 0 and 1, got 0"),
        ({"max_share": 1.0}, "max_share: must be between 0 and 1, got 1"),
    ],
)
@pytest.mark.parametrize("policy", [Uncertain, Duplicate])
def test_a_cap_out_of_range_is_refused(
    policy: type[Complement], caps: dict[str, float], words: str
) -> None:
    with pytest.raises(SettingError, match=rf"--acquisition\.complement\.{words}"):
        policy(**caps)


@pytest.mark.parametrize("policy", [Uncertain, Duplicate])
@pytest.mark.parametrize("most", [1, 2, 3, None])
def test_an_image_gets_so_many_complements_in_a_whole_run(
    policy: type[Complement], most: int | None
) -> None:
    """Images 0 and 1 always qualify, image 2 from the second purchase on."""
    pool, choose = pool_with(torch.tensor([0, 1, 2]), 9), policy(max_per_parent=most)
    made: list[list[int]] = []
    for round in range(1, 6):
        scores_N = torch.tensor([0.9, 0.8, 0.7 if round > 1 else 0.1, *[0.5] * 6])
        indices = pool.unlabelled[:1]
        parents = choose.parents(purchase_of(scores_N, indices, 0.6), pool)
        complement_all(pool, parents, round)
        pool.acquire(indices, torch.zeros(1, dtype=torch.long), round)
        made.append(parents.tolist())
    allowed = most or 5
    always = [0, 1] * min(5, allowed) + [2] * min(4, allowed)
    assert sorted(i for parents in made for i in parents) == sorted(always)
    assert made[0] == [0, 1]
    assert made[1] == ([2] if most == 1 else [0, 1, 2])


def test_a_synthesised_image_uses_up_no_complement_of_an_image_of_w() -> None:
    pool, images = pool_with(torch.tensor([0]), 5), torch.zeros((1, 1, 1, 1), dtype=torch.uint8)
    pool.add_synthesised(images, torch.tensor([1]), torch.tensor([-1]), 1, torch.ones(1), 0.5)
    bought = purchase_of(torch.ones(5), torch.tensor([3]), 0.5)
    assert Uncertain(max_per_parent=1).parents(bought, pool).tolist() == [0]


def test_the_most_uncertain_come_first_if_not_all_may_have_a_complement() -> None:
    pool = pool_with(torch.arange(6), 9)
    scores_N = torch.tensor([0.3, 0.9, 0.5, 0.7, 0.9, 0.1, 0.2, 0.2, 0.2])
    bought = purchase_of(scores_N, torch.tensor([6, 7]), 0.2)
    parents = {
        share: Uncertain(max_share=share).parents(bought, pool).tolist()
        for share in (0.1, 0.12, 0.2, 0.3, 0.4)
    }
    # Of 8 labels: 8 s / (1 - s) complements at most; 0.2 is a quarter, exactly two.
    assert parents == {0.1: [], 0.12: [1], 0.2: [1, 4], 0.3: [1, 3, 4], 0.4: [0, 1, 2, 3, 4]}


@settings(deadline=None, max_examples=200, derandomize=True)
@given(
    scores=st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.7, 0.9]), min_size=8, max_size=20),
    percent=st.integers(1, 99),
    per_parent=st.none() | st.integers(1, 3),
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=4),
)
def test_no_purchase_exceeds_the_caps_nor_stays_below_them_without_reason(
    scores: list[float], percent: int, per_parent: int | None, sizes: list[int]
) -> None:
    scores_N, share = torch.tensor(scores), Fraction(percent, 100)
    pool = pool_with(torch.arange(3), len(scores))
    policy = Uncertain(max_share=percent / 100, max_per_parent=per_parent)
    for round, size in enumerate(sizes, 1):
        indices = pool.highest_unlabelled(scores_N, size)
        if not len(indices):
            break
        bought = purchase_of(scores_N, indices, 0.1)
        parents = policy.parents(bought, pool).tolist()
        made = pool.generated.parents.tolist()
        eligible = [
            i
            for i in pool.labelled.tolist()
            if scores[i] >= 0.1 and made.count(i) < (per_parent or 10**6)
        ]
        labels = len(pool.labelled) + len(indices)
        room = floor(labels * share / (1 - share)) - len(made)
        first = sorted(eligible, key=lambda i: (-scores[i], i))[: max(room, 0)]
        assert parents == sorted(first)
        complement_all(pool, torch.tensor(parents, dtype=torch.long), round)
        pool.acquire(indices, torch.zeros_like(indices), round)
        generated = len(pool.generated.parents)
        assert Fraction(generated, generated + pool.labels_bought) <= share
