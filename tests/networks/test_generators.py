"""DCGAN: shapes of any size, and which loss moves whose weights."""

import pytest
import torch

from baldvae_pl.networks import DCGAN


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 17, 30), (1, 28, 28)])
def test_it_makes_images_of_the_shape_of_the_data(shape: tuple[int, int, int]) -> None:
    network = DCGAN(shape, width=4, latent=7)
    made = network.decode(torch.randn(3, 7))
    assert made.shape == (3, *shape)
    assert made.min() >= 0
    assert made.max() <= 1


def test_each_loss_moves_its_own_weights_alone() -> None:
    torch.manual_seed(0)
    network = DCGAN((1, 8, 8), width=4, latent=7).eval()
    images = torch.rand(6, 1, 8, 8)
    torch.manual_seed(1)
    losses = network.losses(images)
    torch.stack(list(losses.values())).sum().backward()
    torch.manual_seed(1)
    made = network.decode(torch.randn(6, 7))
    fooled, true = (network.discriminator(part).sigmoid() for part in (made, images))
    generator = -fooled.log().mean()
    discriminator = -true.log().mean() - (1 - fooled).log().mean()
    assert losses["generator"].item() == pytest.approx(generator.item(), rel=1e-5)
    assert losses["discriminator"].item() == pytest.approx(discriminator.item(), rel=1e-5)
    for part, loss in ((network.generator, generator), (network.discriminator, discriminator)):
        weights = list(part.parameters())
        expected = torch.autograd.grad(loss, weights, retain_graph=True)
        for weight, gradient in zip(weights, expected, strict=True):
            torch.testing.assert_close(weight.grad, gradient, rtol=1e-4, atol=1e-6)
