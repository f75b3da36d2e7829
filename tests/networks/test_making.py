"""Networks whose shapes follow from the data."""

from functools import partial

import pytest
import torch
from torch import nn

from baldvae_pl.networks import (
    CIFAR10Net,
    ConvVAE,
    DenseVAE,
    DigitsNet,
    LeNet,
    MNISTNet,
    ResNet18,
)
from baldvae_pl.networks.making import adapted, following

USUAL = {
    MNISTNet: (1, 28, 28),
    LeNet: (1, 28, 28),
    DigitsNet: (1, 8, 8),
    CIFAR10Net: (3, 32, 32),
    ResNet18: (3, 32, 32),
}
"""The images of each classifier alone."""


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 33, 47), (1, 29, 21), (3, 32, 32)])
@pytest.mark.parametrize("build", USUAL)
def test_classifiers_take_shape_and_classes_from_the_data(
    build: type[nn.Module], shape: tuple[int, int, int]
) -> None:
    net = following(build, shape, 7)().eval()
    assert net(torch.rand(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 33, 47), (1, 8, 15)])
@pytest.mark.parametrize("build", [DenseVAE, ConvVAE])
def test_autoencoders_take_the_shape_from_the_data(
    build: type[nn.Module], shape: tuple[int, int, int]
) -> None:
    vae = following(build, shape, 7)()
    mean, _ = vae.encode(torch.rand(2, *shape))
    assert vae.decode(mean).shape == (2, *shape)


def test_what_is_given_stays() -> None:
    net = following(partial(MNISTNet, num_classes=5, mean=0.5), (3, 20, 20), 7)()
    assert net(torch.rand(2, 3, 20, 20)).shape == (2, 5)
    assert tuple(net.trunk[0].mean) == (0.5, 0.5, 0.5)
    vae = following(partial(DenseVAE, latent=3, image_shape=(1, 4, 4)), (3, 20, 20), 7)()
    assert vae.decode(torch.zeros(2, 3)).shape == (2, 1, 4, 4)
    grey = following(partial(ResNet18, channels=1), (3, 20, 20), 7)
    assert grey.keywords == {"channels": 1, "num_classes": 7}


def test_what_is_given_as_none_is_open() -> None:
    net = following(partial(DigitsNet, num_classes=None, image_shape=None), (3, 5, 9), 4)()
    assert net(torch.rand(2, 3, 5, 9)).shape == (2, 4)


def test_a_parameter_with_a_default_of_its_own_or_of_another_name_is_not_open() -> None:
    def mine(classes: int = 3, num_classes: int = 2, width: int | None = None) -> nn.Module:
        assert (classes, num_classes, width) == (3, 2, None)
        return nn.Linear(1, 1)

    follows = following(mine, (1, 8, 8), 7)
    assert follows.keywords == {}
    follows()


def test_vectors_have_their_number_of_features_as_shape() -> None:
    def of_vectors(
        num_classes: int, image_shape: tuple[int, ...] | None = None, channels: int | None = None
    ) -> nn.Module:
        assert (image_shape, channels) == ((12,), 12)
        return nn.Linear(image_shape[0], num_classes)

    net = following(partial(of_vectors, num_classes=4), (12,), 7)()
    assert (net.in_features, net.out_features) == (12, 4)


@pytest.mark.parametrize("build", USUAL)
def test_a_network_that_fits_is_kept_and_no_number_is_drawn(build: type[nn.Module]) -> None:
    torch.manual_seed(0)
    net = build()
    state, weights = torch.get_rng_state(), [p.clone() for p in net.parameters()]
    kept, factory = adapted(net, build, USUAL[build], 10)
    assert kept is net
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(*pair) for pair in zip(net.parameters(), weights, strict=True))
    torch.manual_seed(0)  # what the factory makes is what there was
    assert all(torch.equal(*pair) for pair in zip(factory().parameters(), weights, strict=True))


@pytest.mark.parametrize(
    ("shape", "classes"), [((1, 8, 8), 7), ((3, 8, 8), 10), ((1, 9, 11), 10), ((3, 5, 7), 2)]
)
def test_a_network_that_does_not_fit_is_made_anew_and_no_number_is_drawn(
    shape: tuple[int, int, int], classes: int
) -> None:
    torch.manual_seed(0)
    net = DigitsNet()
    state = torch.get_rng_state()
    made, factory = adapted(net, DigitsNet, shape, classes)
    assert made is not net
    assert torch.equal(torch.get_rng_state(), state)
    for one in (made, factory()):
        assert one(torch.rand(2, *shape)).shape == (2, classes)
    torch.set_rng_state(state)  # its weights are those that the generator would have drawn
    pairs = zip(made.parameters(), DigitsNet(classes, shape).parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def test_odd_sizes_that_lead_to_the_same_weights_keep_the_network() -> None:
    net = DigitsNet()
    kept, factory = adapted(net, DigitsNet, (1, 9, 9), 10)
    assert kept is net  # 9 // 2 is 8 // 2
    assert kept(torch.rand(2, 1, 9, 9)).shape == (2, 10)
    assert factory.keywords["image_shape"] == (1, 9, 9)


def test_a_network_of_which_nothing_is_open_is_kept_even_if_it_does_not_fit() -> None:
    def never() -> nn.Module:
        raise AssertionError("made anew")

    net = DigitsNet()
    kept, factory = adapted(net, never, (3, 30, 30), 3)
    assert kept is net
    assert factory is never
    given = partial(DigitsNet, num_classes=10, image_shape=(1, 8, 8))
    kept, factory = adapted(net, given, (3, 30, 30), 3)
    assert kept is net
    assert (factory.func, factory.keywords) == (given.func, given.keywords)


def test_what_follows_once_stays_when_it_follows_other_data() -> None:
    once = following(MNISTNet, (3, 20, 20), 7)
    twice = following(once, (1, 28, 28), 2)()
    assert twice(torch.rand(1, 3, 20, 20)).shape == (1, 7)
