"""Networks against the layers that the paper and PyTorch's official examples prescribe."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from baldvae_pl.networks import DenseVAE, DigitsNet, MNISTNet


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("training", [False, True])
def test_mnist_net_is_that_of_the_official_example(training: bool) -> None:
    torch.manual_seed(0)
    net = MNISTNet().train(training)
    images = torch.rand(3, 1, 28, 28)
    w1, b1, w2, b2, w3, b3, w4, b4 = net.parameters()

    torch.manual_seed(1)
    x = (images - 0.1307) / 0.3081
    x = F.conv2d(F.conv2d(x, w1, b1).relu(), w2, b2).relu()
    x = F.dropout(F.max_pool2d(x, 2), 0.25, training).flatten(1)
    expected = F.linear(F.dropout(F.linear(x, w3, b3).relu(), 0.5, training), w4, b4)

    torch.manual_seed(1)
    torch.testing.assert_close(net(images), expected)
    assert (w1.shape[0], w2.shape[0], w3.shape, w4.shape) == (32, 64, (128, 9216), (10, 128))
    assert count(net) == 1_199_882


@pytest.mark.parametrize("training", [False, True])
def test_digits_net_is_the_same_in_small(training: bool) -> None:
    torch.manual_seed(0)
    net = DigitsNet().train(training)
    images = torch.rand(3, 1, 8, 8)
    w1, b1, w2, b2, w3, b3, w4, b4 = net.parameters()

    torch.manual_seed(1)
    x = (images - 0.305) / 0.376
    x = F.conv2d(F.conv2d(x, w1, b1, padding=1).relu(), w2, b2, padding=1).relu()
    x = F.dropout(F.max_pool2d(x, 2), 0.25, training).flatten(1)
    expected = F.linear(F.dropout(F.linear(x, w3, b3).relu(), 0.5, training), w4, b4)

    torch.manual_seed(1)
    torch.testing.assert_close(net(images), expected)
    assert count(net) == 320 + 18_496 + 131_200 + 1_290


@pytest.mark.parametrize(("build", "side"), [(MNISTNet, 28), (DigitsNet, 8)])
def test_the_number_of_classes_is_an_option(build: type[nn.Module], side: int) -> None:
    assert build(num_classes=7)(torch.rand(2, 1, side, side)).shape == (2, 7)


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
