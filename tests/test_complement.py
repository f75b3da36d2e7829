"""Who gets a complement, against the sets of the paper; how it is made, against arithmetic."""

from math import log
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from baldvae_pl import complement as policies
from baldvae_pl.complement import ROUNDING, Complement
from baldvae_pl.errors import resolve
from baldvae_pl.networks import DenseVAE

SCORES = st.sampled_from([0.0, ROUNDING / 2, 2 * ROUNDING, 0.1, 0.25, 0.7])


class FourfoldVariance(nn.Module):
    """q(z|x) = N(10 x, 4), and the decoder shows z."""

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean = 10 * images.flatten(1)
        return mean, torch.full_like(mean, log(4))

    def decode(self, z: Tensor) -> Tensor:
        return z.view(-1, 1, 2, 3)


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
    for policy in (policies.uncertain, policies.duplicate):
        assert policy.parents(scores_N, labelled, acquired, threshold).tolist() == expected
    assert policies.none.parents(scores_N, labelled, acquired, threshold).tolist() == []
    everyone_new = policies.all_new.parents(scores_N, labelled, acquired, threshold)
    assert everyone_new.tolist() == sorted(acquired.tolist())


def test_condition_3_on_one_purchase() -> None:
    scores_N = torch.tensor([0.3, 0.5, 0.2999, 0.9, 0.3, 0.6, 0.0])
    labelled, acquired = torch.tensor([0, 1, 2, 6]), torch.tensor([3, 5, 4])
    parents = policies.uncertain.parents(scores_N, labelled, acquired, scores_N[4].item())
    assert parents.tolist() == [0, 1]


def test_a_pool_of_zeros_complements_nobody() -> None:
    scores_N = torch.rand(100, generator=torch.Generator().manual_seed(0)) * ROUNDING
    parents = policies.uncertain.parents(scores_N, torch.arange(90), torch.arange(90, 100), 0.0)
    assert len(parents) == 0


def test_complements_decode_a_sample_of_the_posterior_of_z() -> None:
    images = torch.rand(4, 1, 2, 3, generator=torch.Generator().manual_seed(0))
    made = policies.uncertain.generate(images, FourfoldVariance(), torch.Generator().manual_seed(5))
    noise = torch.randn((4, 6), generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(made, 10 * images + 2 * noise.view(4, 1, 2, 3))


def test_complements_of_the_dense_vae_by_hand() -> None:
    torch.manual_seed(0)
    vae = DenseVAE((1, 2, 3), hidden=5, latent=4)
    images = torch.rand(3, 1, 2, 3)
    made = policies.all_new.generate(images, vae, torch.Generator().manual_seed(5))
    w1, b1, w2, b2, w3, b3, w4, b4, w5, b5 = (p.detach().double() for p in vae.parameters())
    hidden = (images.double().view(3, 6) @ w1.T + b1).clamp(min=0)
    noise = torch.randn((3, 4), generator=torch.Generator().manual_seed(5)).double()
    z = hidden @ w2.T + b2 + noise * torch.exp((hidden @ w3.T + b3) / 2)
    expected = 1 / (1 + torch.exp(-((z @ w4.T + b4).clamp(min=0) @ w5.T + b5)))
    torch.testing.assert_close(made.double(), expected.view(3, 1, 2, 3), atol=1e-6, rtol=0)


def test_the_duplicate_is_the_parent() -> None:
    images = torch.rand(3, 1, 2, 3)
    made = policies.duplicate.generate(images, None, torch.Generator())
    assert torch.equal(made, images)


@pytest.mark.parametrize(
    ("name", "parents", "generate", "needs_vae"),
    [
        ("uncertain", policies.at_least_as_uncertain, policies.reconstruct, True),
        ("none", policies.nobody, policies.copy, False),
        ("all_new", policies.newly_labelled, policies.reconstruct, True),
        ("duplicate", policies.at_least_as_uncertain, policies.copy, False),
    ],
)
def test_policies_that_are_compared_differ_in_one_thing(
    name: str, parents: object, generate: object, needs_vae: bool
) -> None:
    policy = resolve("--acquisition.complement", name, policies)
    assert policy == Complement(parents, generate, needs_vae)


def test_without_a_generator_the_mean_is_decoded() -> None:
    images = torch.rand(4, 1, 2, 3)
    for policy in (policies.uncertain, policies.all_new):
        torch.testing.assert_close(policy.generate(images, FourfoldVariance(), None), 10 * images)
    assert torch.equal(policies.duplicate.generate(images, None, None), images)


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
