"""The joint network: classifier and autoencoder read the same features."""

import pytest
import torch
from torch.nn import functional as F

from baldvae_pl.complement import Autoencoder
from baldvae_pl.networks import ConvVAE, JointVAE
from baldvae_pl.posterior import DropoutDraws


def test_classes_and_latents_are_read_off_the_same_features() -> None:
    torch.manual_seed(0)
    network = JointVAE(7, (1, 28, 28), width=4, latent=5).eval()
    images = torch.rand(3, 1, 28, 28)
    features = network.trunk(images)
    assert features.shape == (3, 16 * 3 * 3)
    mean, log_var = network.encode(images)
    torch.testing.assert_close(mean, F.linear(features, network.mean.weight, network.mean.bias))
    layer = network.log_var
    torch.testing.assert_close(log_var, F.linear(features, layer.weight, layer.bias))
    torch.testing.assert_close(network(images), network.head(features))
    assert isinstance(network, Autoencoder)


def test_its_autoencoder_is_conv_vae() -> None:
    torch.manual_seed(0)
    alone = ConvVAE((3, 16, 16), width=4, latent=5)
    network = JointVAE(image_shape=(3, 16, 16), width=4, latent=5)
    missing, unexpected = network.load_state_dict(alone.state_dict(), strict=False)
    assert not unexpected
    assert all(name.startswith("head.") for name in missing)
    images = torch.rand(2, 3, 16, 16)
    for one, other in zip(network.encode(images), alone.encode(images), strict=True):
        assert torch.equal(one, other)
    z = torch.randn(2, 5)
    assert torch.equal(network.decode(z), alone.decode(z))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28)])
def test_all_draws_share_its_trunk(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    network = JointVAE(image_shape=shape, width=4)
    draws = DropoutDraws(network, 4, torch.Generator().manual_seed(0))
    assert draws.folds
    assert draws.trunk is network.hidden
    assert draws(torch.rand(2, *shape)).shape == (2, 4, 10)
