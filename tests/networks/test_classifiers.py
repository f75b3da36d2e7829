"""Networks against the layers that the paper and PyTorch's official examples prescribe."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from baldvae_pl.networks import CIFAR10Net, ConvVAE, DenseVAE, DigitsNet, LeNet, MNISTNet, ResNet18


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


@pytest.mark.parametrize("training", [False, True])
def test_lenet_pools_both_convolutions(training: bool) -> None:
    torch.manual_seed(0)
    net = LeNet().train(training)
    images = torch.rand(3, 1, 28, 28)
    w1, b1, w2, b2, w3, b3, w4, b4 = net.parameters()

    torch.manual_seed(1)
    x = F.max_pool2d(F.conv2d((images - 0.1307) / 0.3081, w1, b1).relu(), 2)
    x = F.max_pool2d(F.conv2d(x, w2, b2).relu(), 2)
    x = F.dropout(x.flatten(1), 0.25, training)
    expected = F.linear(F.dropout(F.linear(x, w3, b3).relu(), 0.5, training), w4, b4)

    torch.manual_seed(1)
    torch.testing.assert_close(net(images), expected)
    assert (w1.shape, w2.shape, w3.shape) == ((32, 1, 5, 5), (64, 32, 5, 5), (128, 1024))


@pytest.mark.parametrize(("build", "side"), [(MNISTNet, 28), (LeNet, 28), (DigitsNet, 8)])
def test_the_number_of_classes_is_an_option(build: type[nn.Module], side: int) -> None:
    assert build(num_classes=7)(torch.rand(2, 1, side, side)).shape == (2, 7)


@pytest.mark.parametrize("build", [MNISTNet, LeNet])
def test_the_network_normalises_by_what_it_is_told(build: type[MNISTNet | LeNet]) -> None:
    net = build(mean=0.286, std=0.353)
    images = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(net.trunk[0](images), (images - 0.286) / 0.353)


@pytest.mark.parametrize("training", [False, True])
def test_cifar10_net_is_that_of_the_tutorial_with_dropout(training: bool) -> None:
    torch.manual_seed(0)
    net = CIFAR10Net(dropout=0.3).train(training)
    images = torch.rand(3, 3, 32, 32)
    w1, b1, w2, b2, w3, b3, w4, b4, w5, b5 = net.parameters()

    torch.manual_seed(1)
    x = F.max_pool2d(F.conv2d((images - 0.5) / 0.5, w1, b1).relu(), 2)
    x = F.max_pool2d(F.conv2d(x, w2, b2).relu(), 2).flatten(1)
    x = F.linear(F.dropout(x, 0.3, training), w3, b3).relu()
    x = F.linear(F.dropout(x, 0.3, training), w4, b4).relu()
    expected = F.linear(F.dropout(x, 0.3, training), w5, b5)

    torch.manual_seed(1)
    torch.testing.assert_close(net(images), expected)
    assert count(net) == 62_006  # the tutorial's


def test_resnet18_is_that_for_small_images() -> None:
    torch.manual_seed(0)
    net = ResNet18().eval()
    # He et al.'s for 32×32: the 11,173,962 that are usual, but for the dropout head.
    assert count(net) == 11_173_962 - (512 * 10 + 10) + (512 * 128 + 128) + (128 * 10 + 10)
    sizes = {}
    for name, layer in net.trunk[1].named_children():
        layer.register_forward_hook(
            lambda _, __, output, name=name: sizes.update({name: tuple(output.shape[1:])})
        )
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    blocks = [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]
    assert [sizes[f"layer{number}"] for number in range(1, 5)] == blocks
    assert [layer for layer in net.trunk.modules() if isinstance(layer, nn.Dropout)] == []
    assert ResNet18(num_classes=7, channels=1).eval()(torch.rand(2, 1, 16, 16)).shape == (2, 7)


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
