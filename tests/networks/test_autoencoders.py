"""Autoencoders against the layers that PyTorch's official example prescribes."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from baldvae_pl.networks import ConvVAE, DenseVAE, EncoderDecoder


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_conv_vae_has_three_layers_each_way() -> None:
    torch.manual_seed(0)
    vae = ConvVAE((3, 32, 32), width=8, latent=5)
    images, z = torch.rand(2, 3, 32, 32), torch.randn(2, 5)
    convolutions = [
        [layer for layer in half.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
        for half in (vae.hidden, vae.decoder)
    ]
    assert [layer.out_channels for layer in convolutions[0]] == [8, 16, 32]
    assert [layer.out_channels for layer in convolutions[1]] == [16, 8, 3]

    x = images
    for layer in convolutions[0]:
        x = F.conv2d(x, layer.weight, layer.bias, 2, 1).relu()
    hidden = x.flatten(1)
    assert hidden.shape == (2, 32 * 4 * 4)
    mean, log_var = vae.encode(images)
    torch.testing.assert_close(mean, F.linear(hidden, vae.mean.weight, vae.mean.bias))
    torch.testing.assert_close(log_var, F.linear(hidden, vae.log_var.weight, vae.log_var.bias))

    x = F.linear(z, vae.decoder[0].weight, vae.decoder[0].bias).relu().view(2, 32, 4, 4)
    for layer in convolutions[1]:
        x = F.conv_transpose2d(x, layer.weight, layer.bias, 2, 1)
        x = x.relu() if layer.out_channels > 3 else x.sigmoid()
    torch.testing.assert_close(vae.decode(z), x)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 30, 30), (3, 36, 53), (1, 8, 15), (3, 64, 64)])
def test_conv_vae_takes_images_of_any_size(shape: tuple[int, int, int]) -> None:
    vae = ConvVAE(shape, width=2, latent=4)
    mean, _ = vae.encode(torch.rand(2, *shape))
    assert vae.decode(mean).shape == (2, *shape)


def test_dense_vae_is_that_of_the_official_example() -> None:
    torch.manual_seed(0)
    vae = DenseVAE((1, 28, 28), 400, 20)
    images, z = torch.rand(3, 1, 28, 28), torch.randn(3, 20)
    w1, b1, w21, b21, w22, b22, w3, b3, w4, b4 = vae.parameters()
    hidden = F.linear(images.view(3, 784), w1, b1).relu()
    mean, log_var = vae.encode(images)
    torch.testing.assert_close(mean, F.linear(hidden, w21, b21))
    torch.testing.assert_close(log_var, F.linear(hidden, w22, b22))
    decoded = F.linear(F.linear(z, w3, b3).relu(), w4, b4).sigmoid()
    torch.testing.assert_close(vae.decode(z), decoded.view(3, 1, 28, 28))
    shapes = [tuple(w.shape) for w in (w1, w21, w22, w3, w4)]
    assert shapes == [(400, 784), (20, 400), (20, 400), (400, 20), (784, 400)]
    assert count(vae) == 652_824


def test_decoded_images_stay_in_the_unit_interval_for_any_z() -> None:
    torch.manual_seed(0)
    images = DenseVAE((3, 4, 5)).decode(1000 * torch.randn(50, 8))
    assert images.shape == (50, 3, 4, 5)
    assert (images.min(), images.max()) == (0, 1)


def test_two_halves_of_ones_own_make_a_vae() -> None:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(6, 5))
    decoder = nn.Sequential(nn.Linear(2, 6), nn.Sigmoid(), nn.Unflatten(1, (1, 2, 3)))
    vae = EncoderDecoder(encoder, hidden=5, latent=2, decoder=decoder)
    images = torch.rand(4, 1, 2, 3)
    mean, log_var = vae.encode(images)
    hidden = encoder(images)
    torch.testing.assert_close(mean, F.linear(hidden, vae.mean.weight, vae.mean.bias))
    torch.testing.assert_close(log_var, F.linear(hidden, vae.log_var.weight, vae.log_var.bias))
    assert torch.equal(vae.decode(mean), decoder(mean))


def test_alone_an_autoencoder_is_that_of_its_usual_images() -> None:
    for vae, shape in ((DenseVAE(), (1, 8, 8)), (ConvVAE(), (3, 32, 32))):
        mean, _ = vae.encode(torch.rand(2, *shape))
        assert vae.decode(mean).shape == (2, *shape)


def test_alone_an_autoencoder_has_the_weights_that_it_had_in_version_0_2() -> None:
    shapes = [
        {name: tuple(weight.shape) for name, weight in vae.named_parameters() if "bias" not in name}
        for vae in (DenseVAE(), ConvVAE())
    ]
    assert shapes[0] == {
        "hidden.1.weight": (128, 64),
        "mean.weight": (8, 128),
        "log_var.weight": (8, 128),
        "decoder.0.weight": (128, 8),
        "decoder.2.weight": (64, 128),
    }
    assert shapes[1] == {
        "hidden.0.weight": (32, 3, 4, 4),
        "hidden.2.weight": (64, 32, 4, 4),
        "hidden.4.weight": (128, 64, 4, 4),
        "mean.weight": (128, 2048),
        "log_var.weight": (128, 2048),
        "decoder.0.weight": (2048, 128),
        "decoder.3.weight": (128, 64, 4, 4),
        "decoder.5.weight": (64, 32, 4, 4),
        "decoder.7.weight": (32, 3, 4, 4),
    }
