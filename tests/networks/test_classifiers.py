"""Classifiers against the layers that the paper and PyTorch's official examples prescribe."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from baldvae_pl.networks import CIFAR10Net, DigitsNet, LeNet, MNISTNet, ResNet18, dropout_head
from baldvae_pl.posterior import DropoutDraws


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


@pytest.mark.parametrize(
    ("build", "shapes"),
    [
        (MNISTNet, [(3, 28, 28), (1, 29, 33), (3, 7, 6)]),
        (LeNet, [(3, 28, 28), (1, 31, 17), (3, 16, 16)]),
        (DigitsNet, [(3, 8, 8), (1, 9, 5), (3, 2, 3)]),
        (CIFAR10Net, [(1, 32, 32), (3, 33, 47), (1, 16, 17)]),
    ],
)
def test_images_of_any_size_and_colour_fit(
    build: type[nn.Module], shapes: list[tuple[int, int, int]]
) -> None:
    for shape in shapes:
        net = build(num_classes=4, image_shape=shape)
        assert net(torch.rand(2, *shape)).shape == (2, 4), shape


@pytest.mark.parametrize("build", [MNISTNet, LeNet, DigitsNet, CIFAR10Net, ResNet18])
def test_all_draws_share_the_trunk_and_products_of_the_head(build: type[nn.Module]) -> None:
    draws = DropoutDraws(build(), 2, torch.Generator())
    assert draws.trunk is not None
    assert draws.folds


def test_the_dropout_head_is_that_of_the_official_example() -> None:
    layers = [(type(layer), getattr(layer, "p", None)) for layer in dropout_head(7, 3)]
    assert layers == [
        (nn.Dropout, 0.25),
        (nn.Linear, None),
        (nn.ReLU, None),
        (nn.Dropout, 0.5),
        (nn.Linear, None),
    ]
    assert dropout_head(7, 3)(torch.rand(5, 7)).shape == (5, 3)


def shapes_of(network: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(parameter.shape) for parameter in network.parameters()]


def head_shapes(features: int) -> list[tuple[int, ...]]:
    return [(128, features), (128,), (10, 128), (10,)]


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (MNISTNet, [(32, 1, 3, 3), (32,), (64, 32, 3, 3), (64,), *head_shapes(9216)]),
        (LeNet, [(32, 1, 5, 5), (32,), (64, 32, 5, 5), (64,), *head_shapes(1024)]),
        (DigitsNet, [(32, 1, 3, 3), (32,), (64, 32, 3, 3), (64,), *head_shapes(1024)]),
        (
            CIFAR10Net,
            [
                *[(6, 3, 5, 5), (6,), (16, 6, 5, 5), (16,), (120, 400), (120,)],
                *[(84, 120), (84,), (10, 84), (10,)],
            ],
        ),
    ],
)
def test_alone_a_network_has_the_weights_that_it_had_in_version_0_2(
    build: type[nn.Module], expected: list[tuple[int, ...]]
) -> None:
    assert shapes_of(build()) == expected
    names = [name for name, _ in build().named_parameters()]
    assert [name.split(".")[0] for name in names] == ["trunk"] * 4 + ["head"] * (len(names) - 4)


def test_alone_resnet18_has_the_weights_that_it_had_in_version_0_2() -> None:
    shapes = {name: tuple(weight.shape) for name, weight in ResNet18().named_parameters()}
    assert len(shapes) == 64
    assert shapes["trunk.1.conv1.weight"] == (64, 3, 3, 3)
    assert shapes["trunk.1.layer4.1.conv2.weight"] == (512, 512, 3, 3)
    assert list(shapes.values())[-4:] == head_shapes(512)
