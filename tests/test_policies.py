"""Complement policies beyond the paper's, against brute force on tiny pools."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from baldvae_pl.acquisition import bald
from baldvae_pl.errors import SettingError
from baldvae_pl.objective import Consistency, Step
from baldvae_pl.policies import (
    AffineCopy,
    Informed,
    Mixed,
    MostUncertain,
    Retrieval,
    another_of_the_class,
)
from baldvae_pl.pool import Pool
from baldvae_pl.selection import Candidates

SIZE = 40
IMAGES = torch.rand(SIZE, 1, 2, 3, generator=torch.Generator().manual_seed(0))
LABELLED = torch.tensor([0, 3, 4, 9, 12, 20, 21, 30])
CLASSES = torch.tensor([0, 1, 0, 1, 0, 1, 2, 0])


class Latents(nn.Module):
    """q(z|x) = N(2 x, 0.3²), and the decoder shows z."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.scale * images.flatten(1)
        return mean, torch.full_like(mean, 2 * math.log(0.3))

    def decode(self, z: Tensor) -> Tensor:
        return z.view(-1, 1, 2, 3)


def draws(images: Tensor) -> Tensor:
    """Three classes, by the first three pixels, and draws that disagree by the others."""
    pixels = images.flatten(1)
    heat = torch.tensor([0.5, 2.0, 6.0])
    return (pixels[:, None, :3] * heat[:, None] * pixels[:, None, 3:].abs() * 6).log_softmax(-1)


def around(seed: int = 5) -> tuple[Candidates, Tensor]:
    pool = Pool(SIZE, (1, 2, 3))
    pool.acquire(LABELLED, CLASSES, round=0)
    network = Latents()
    candidates = Candidates(
        priorities_N=torch.zeros(SIZE),
        labelled=pool.labelled,
        query_size=1,
        highest=pool.highest_unlabelled,
        map=lambda function, indices: function(IMAGES[indices]),
        generator=torch.Generator().manual_seed(seed),
        network=network,
        draws=draws,
        autoencoder=network,
        image_shape=(1, 2, 3),
    )
    return candidates, pool.labels


def noise(count: int, times: int, seed: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randn(count, 6, generator=generator) for _ in range(times)])


@torch.no_grad()
def made_by(policy: Informed, parents: Tensor) -> tuple[Tensor, Tensor]:
    candidates, labels_N = around()
    return policy.make(parents, labels_N, candidates)


def test_retrieval_finds_the_nearest_of_u_if_the_classifier_agrees_on_it() -> None:
    parents = LABELLED
    of, images = made_by(Retrieval(), parents)
    unlabelled = [i for i in range(SIZE) if i not in LABELLED.tolist()]
    expected: list[tuple[int, int]] = []
    around_z = 2 * IMAGES[parents].flatten(1) + 0.3 * noise(len(parents), 1)[0]
    for parent, z in zip(parents.tolist(), around_z, strict=True):
        i = min(unlabelled, key=lambda i: (2 * IMAGES[i].flatten() - z).norm().item())
        label = CLASSES[LABELLED.tolist().index(parent)]
        if draws(IMAGES[i : i + 1]).exp().mean(1).argmax() == label:
            expected.append((parent, i))
    assert 0 < len(expected) < len(parents)
    assert of.tolist() == [parent for parent, _ in expected]
    torch.testing.assert_close(images, IMAGES[[i for _, i in expected]], rtol=0, atol=0)


def test_retrieval_from_an_empty_pool_finds_nothing() -> None:
    candidates, labels_N = around()
    pool = Pool(SIZE, (1, 2, 3))
    pool.acquire(torch.arange(SIZE), torch.zeros(SIZE, dtype=torch.long), round=0)
    object.__setattr__(candidates, "highest", pool.highest_unlabelled)
    of, images = Retrieval().make(LABELLED, labels_N, candidates)
    assert len(of) == 0
    assert images.shape == (0, 1, 2, 3)


def test_another_of_the_class_is_never_itself_unless_alone_and_all_are_as_likely() -> None:
    _, labels_N = around()
    generator = torch.Generator().manual_seed(0)
    seen: dict[int, list[int]] = {i: [] for i in LABELLED.tolist()}
    for _ in range(300):
        for i, j in zip(LABELLED.tolist(), another_of_the_class(
            LABELLED, LABELLED, labels_N, generator
        ).tolist(), strict=True):  # fmt: skip
            seen[i].append(j)
    for i, label in zip(LABELLED.tolist(), CLASSES, strict=True):
        others = [j for j in LABELLED[label == CLASSES].tolist() if j != i] or [i]
        assert {*seen[i]} == {*others}
        share = 300 / len(others)
        assert all(abs(seen[i].count(j) - share) < 5 * share**0.5 for j in others)


def test_mixing_stays_on_the_nearer_half_between_two_of_a_class() -> None:
    of, images = made_by(Mixed(), LABELLED)
    assert torch.equal(of, LABELLED)
    for parent, label, image in zip(LABELLED, CLASSES, images, strict=True):
        others = [j for j in LABELLED[label == CLASSES] if j != parent] or [parent]
        start, moved = 2 * IMAGES[parent].flatten(), image.flatten()
        fits = []
        for j in others:
            way = 2 * IMAGES[j].flatten() - start
            share = ((moved - start) @ way / (way @ way).clamp(min=1e-9)).item()
            fits.append(0 <= share <= 0.5 and torch.allclose(start + share * way, moved, atol=1e-5))
        assert any(fits)


def test_the_most_uncertain_of_ten_is_kept_if_the_classifier_gives_it_the_label() -> None:
    of, images = made_by(MostUncertain(), LABELLED)
    kept = iter(zip(of.tolist(), images, strict=True))
    tried = 2 * IMAGES[LABELLED].flatten(1) + 0.3 * noise(len(LABELLED), 10)  # ten, then parents
    found = 0
    for place, (parent, label) in enumerate(zip(LABELLED.tolist(), CLASSES, strict=True)):
        ten = tried[:, place].view(-1, 1, 2, 3)
        log_probs = draws(ten)
        sure = log_probs.exp().mean(1)[:, label] >= 0.5
        if sure.any():
            found += 1
            best = bald(log_probs).where(sure, -1.0).argmax()
            of_this, image = next(kept)
            assert of_this == parent
            torch.testing.assert_close(image, ten[best])
    assert found == len(of) > 0


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(SettingError, match=r"objective\.weight: must be at least 0, got -1"):
        Consistency(weight=-1)


def test_informed_policies_take_the_caps_and_the_parents_of_the_paper() -> None:
    for policy in (Retrieval(max_share=0.2), Mixed(max_per_parent=1), MostUncertain(threshold=0.9)):
        assert policy.needs_vae
    assert MostUncertain(threshold=0.9).threshold == 0.9


def test_an_affine_copy_is_turned_and_shifted_within_bounds() -> None:
    size = 41
    images = torch.zeros(50, 1, size, size)
    centre = size // 2
    images[:, :, centre - 1 : centre + 2, centre - 10 : centre + 11] = 1  # a bar
    moved = AffineCopy().generate(images, None, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    y, x = torch.meshgrid(torch.arange(size) * 1.0, torch.arange(size) * 1.0, indexing="ij")
    weights = moved[:, 0] / moved[:, 0].sum((1, 2), keepdim=True)
    means = torch.stack([(weights * axis).sum((1, 2)) for axis in (x, y)], 1)
    shifts = means - centre
    assert shifts.abs().max() < 0.1 * size * 1.2  # turned too
    assert shifts.std(0).min() > 1
    across, down = x - means[:, :1, None], y - means[:, 1:, None]
    slope = (weights * across * down).sum((1, 2)) / (weights * across**2).sum((1, 2))
    degrees = slope.atan().rad2deg()
    assert 7 < degrees.abs().max() < 11
    assert all(one != other for one, other in pairwise(degrees.tolist()))


def test_consistency_is_a_divergence_whose_gradient_goes_through_the_complement() -> None:
    torch.manual_seed(0)
    classifier, vae = nn.Sequential(nn.Flatten(), nn.Linear(6, 3)), Latents()
    images, labels = IMAGES[:4], torch.tensor([0, 1, 2, 0])
    step = Step(classifier, images, labels, autoencoder=vae)
    torch.manual_seed(3)
    loss = Consistency(weight=0.5, noise=2.0)(step)
    torch.manual_seed(3)
    made = vae.decode(2 * images.flatten(1) + 2 * 0.3 * torch.randn(4, 6)).detach()
    p = classifier(images).softmax(-1).detach()
    divergence = (p * (p.log() - classifier(made).log_softmax(-1))).sum(1).mean()
    by_hand = nn.functional.cross_entropy(classifier(images), labels) + 0.5 * divergence
    torch.testing.assert_close(loss, by_hand)
    gradients = [torch.autograd.grad(x, list(classifier.parameters())) for x in (loss, by_hand)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
    assert vae.scale.grad is None
    assert Consistency.needs_vae
