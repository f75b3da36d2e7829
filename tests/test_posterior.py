"""MC dropout against masks that are multiplied in by hand, draw by draw."""

import copy
import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from baldvae_pl import posterior as posteriors
from baldvae_pl import products
from baldvae_pl.acquisition import margin
from baldvae_pl.errors import SettingError
from baldvae_pl.networks import DigitsNet
from baldvae_pl.posterior import (
    PASS,
    Deterministic,
    DropoutDraws,
    MCDropout,
    Posterior,
    is_dropout_linear,
)
from baldvae_pl.products import masked_products

T = 13


class Split(nn.Module):
    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.trunk(images))


class Opaque(nn.Module):
    """Hides what a module is made of, so that no short cut applies to it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images)


class Reveal(nn.Module):
    """Logits from which `masks_of` reads the masks that images of ones were multiplied with."""

    def __init__(self, dropout: nn.Module) -> None:
        super().__init__()
        self.dropout = dropout

    def forward(self, images: Tensor) -> Tensor:
        return F.pad(self.dropout(images).flatten(1), (1, 0))


def masks_of(log_probs_N_T_C: Tensor) -> Tensor:
    return log_probs_N_T_C[..., 1:] - log_probs_N_T_C[..., :1]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images_like(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=seeded(seed))


def by_hand(layers: Iterable[nn.Module], draws: DropoutDraws, images: Tensor) -> Tensor:
    log_probs = []
    for t in range(draws.mc_samples):
        x = images
        for layer in layers:
            active = isinstance(layer, (nn.Dropout, nn.Dropout2d)) and layer.p > 0
            x = x * draws.masks[layer, 0][t] if active else layer(x)
        log_probs.append(x.log_softmax(-1))
    return torch.stack(log_probs, 1)


def batch_norm_net() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.Dropout2d(0.3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 36, 5),
    )
    net[1].running_mean.uniform_(-1, 1)
    net[1].running_var.uniform_(0.5, 2)
    return net


def digits_net() -> DigitsNet:
    torch.manual_seed(0)
    return DigitsNet()


def dense_head(*, p: float = 0.4) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Dropout(p), nn.Linear(64, 9), nn.ReLU(), nn.Dropout(0.5), nn.Linear(9, 3)
    )


# Masks


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize(
    ("layer", "shape", "units"),
    [
        (nn.Dropout, (300,), 300),
        (nn.Dropout, (12, 5, 5), 300),
        (nn.Dropout1d, (300, 4), 300),
        (nn.Dropout2d, (300, 2, 2), 300),
        (nn.Dropout3d, (300, 2, 1, 2), 300),
    ],
)
def test_units_are_kept_with_frequency_one_minus_p_and_scaled_up(
    layer: Callable[[float], nn.Module], shape: tuple[int, ...], units: int, p: float
) -> None:
    draws = DropoutDraws(Reveal(layer(p)), 100, seeded())
    masks_N_T_U_P = masks_of(draws(torch.ones(3, *shape))).unflatten(-1, (units, -1))
    assert (masks_N_T_U_P == masks_N_T_U_P[:1]).all(), "images of one batch share their masks"
    torch.testing.assert_close(masks_N_T_U_P, masks_N_T_U_P[..., :1].expand_as(masks_N_T_U_P))
    masks_T_U = masks_N_T_U_P[0, ..., 0]
    kept = masks_T_U > 0.5
    torch.testing.assert_close(masks_T_U, kept / (1 - p), atol=1e-4, rtol=0)
    assert len(kept.unique(dim=0)) == 100, "draws differ"
    assert len(kept.unique(dim=1).T) == units, "units are dropped independently"
    five_sigma = 5 * math.sqrt(p * (1 - p) / kept.numel())
    assert kept.float().mean().item() == pytest.approx(1 - p, abs=five_sigma)


@pytest.mark.parametrize("opaque", [False, True])
def test_logits_of_one_linear_layer_have_the_moments_of_dropout(opaque: bool) -> None:
    p, weights, image = 0.3, torch.tensor([1.0, -2, 0.5, 3, -1, 0.2]), images_like(1, 6)
    net = nn.Sequential(nn.Dropout(p), nn.Linear(6, 2, bias=False))
    net[1].weight.data = torch.stack([torch.zeros(6), weights])
    draws = DropoutDraws(Opaque(net) if opaque else net, 4000, seeded())
    logits_T = masks_of(draws(image)).flatten()
    mean = (weights * image).sum().item()
    variance = p / (1 - p) * (weights * image).square().sum().item()
    assert logits_T.mean().item() == pytest.approx(mean, abs=5 * math.sqrt(variance / 4000))
    assert logits_T.var().item() == pytest.approx(variance, rel=0.1)


def test_the_generator_alone_decides_the_masks() -> None:
    net, images = digits_net(), images_like(4, 1, 8, 8)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = DropoutDraws(net, T, seeded(0))(images)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    other_images_first = DropoutDraws(net, T, seeded(0))
    other_images_first(images_like(7, 1, 8, 8, seed=9))
    torch.testing.assert_close(other_images_first(images), first, atol=1e-5, rtol=0)
    other_seed = DropoutDraws(net, T, seeded(1))(images)
    assert (other_seed - first).abs().flatten(2).amax(2).min() > 1e-3


def test_an_inactive_layer_is_ignored() -> None:
    head, images = dense_head(), images_like(4, 64)
    with_idle = nn.Sequential(nn.Dropout(0.0), *head[:3], nn.Dropout(0.0), *head[3:])
    draws = DropoutDraws(with_idle, T, seeded())
    expected = DropoutDraws(head, T, seeded())(images)
    torch.testing.assert_close(draws(images), expected, atol=1e-5, rtol=0)
    assert {layer for layer, _ in draws.masks} == {head[0], head[3]}


@pytest.mark.parametrize(
    "net",
    [
        nn.Linear(4, 2),
        nn.Sequential(nn.Dropout(0.0), nn.Linear(4, 2), nn.Dropout2d(0)),
        Split(nn.Flatten(), nn.Sequential(nn.Dropout(0.0), nn.Linear(4, 2))),
    ],
)
def test_a_network_without_active_dropout_is_an_error(net: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"no active nn\.Dropout"):
        DropoutDraws(net, T, seeded())


@pytest.mark.parametrize("opaque", [False, True])
def test_a_layer_that_drops_everything_gives_zeros(opaque: bool) -> None:
    net = nn.Sequential(nn.Dropout(1.0), nn.Linear(4, 2))
    draws = DropoutDraws(Opaque(net) if opaque else net, 3, seeded())
    expected = net[1].bias.detach().log_softmax(-1).expand(5, 3, 2)
    torch.testing.assert_close(draws(images_like(5, 4)), expected)


# One function a draw, however it is computed


@st.composite
def heads(draw: st.DrawFn) -> nn.Sequential:
    """Dropout, Linear, then anything pointwise between one to three linear layers."""
    torch.manual_seed(draw(st.integers(0, 99)))
    p = st.sampled_from([0.05, 0.25, 0.5, 0.9])
    between = st.one_of(
        st.builds(nn.Dropout, p | st.just(0.0)),
        st.sampled_from([nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.Softplus, nn.ELU]).map(
            lambda activation: activation()
        ),
    )
    layers: list[nn.Module] = [nn.Dropout(draw(p))]
    width = 12
    for size in [*draw(st.lists(st.integers(1, 9), max_size=2)), 3]:
        layers += [nn.Linear(width, size, bias=draw(st.booleans()))]
        layers += draw(st.lists(between, max_size=3))
        width = size
    return nn.Sequential(*layers)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    head=heads(),
    size=st.integers(1, 5),
    nested=st.sampled_from([1, 3, 20]),
    worth=st.sampled_from([-math.inf, math.inf]),
    weights=st.sampled_from([100, 2**26]),
)
def test_products_are_arithmetic_by_hand(
    head: nn.Sequential, size: int, nested: int, worth: float, weights: int
) -> None:
    assert is_dropout_linear(head)
    images, many = 4 * images_like(size, 1, 3, 4), T * nested - nested // 2
    draws = DropoutDraws(Split(nn.Flatten(), head), many, seeded(), nested)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "WORTH", worth)  # to gather inputs, always or never
        patch.setattr(posteriors, "WEIGHTS", weights)
        log_probs = draws(images)
    assert log_probs.shape == (size, many, 3)
    expected = by_hand([nn.Flatten(), *head], draws, images)
    torch.testing.assert_close(log_probs, expected, atol=1e-5, rtol=1e-5)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(head=heads(), size=st.integers(1, 5))
def test_products_are_every_pass(head: nn.Sequential, size: int) -> None:
    images = 4 * images_like(size, 1, 3, 4)
    log_probs = DropoutDraws(Split(nn.Flatten(), head), T, seeded(), nested=1)(images)
    pass_by_pass = DropoutDraws(Split(nn.Flatten(), Opaque(head)), T, seeded())(images)
    whole = DropoutDraws(Opaque(Split(nn.Flatten(), head)), T, seeded())(images)
    for other in (pass_by_pass, whole):
        torch.testing.assert_close(log_probs, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("nested", "units_a_draw"), [(1, 64), (10, 12.8)])
def test_the_shipped_network_shares_its_trunk_and_its_products_among_draws(
    nested: int, units_a_draw: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = digits_net()
    trunk_saw, units = [], []

    def count(
        inputs: Tensor, weight: Tensor, keep: Tensor, units_M: Sequence[Tensor]
    ) -> Iterator[Sequence[Tensor]]:
        units.append([len(of_mask) for of_mask in units_M])
        return masked_products(inputs, weight, keep, units_M)

    net.trunk.register_forward_hook(lambda trunk, inputs, output: trunk_saw.append(len(output)))
    monkeypatch.setattr(posteriors, "masked_products", count)
    DropoutDraws(net, 1000, seeded(), nested)(images_like(150, 1, 8, 8))
    assert sum(trunk_saw) == 150
    # Of 128 units the next dropout keeps half, or with ten draws any at least once.
    assert sum(map(sum, units)) == pytest.approx(1000 * units_a_draw, rel=0.05)
    assert sum(map(len, units)) == 1000 // nested


def test_nested_draws_share_their_first_mask_only() -> None:
    head, images = dense_head(), images_like(5, 64)
    draws = DropoutDraws(head, 23, seeded(), nested=5)
    draws(images)
    first, second = draws.masks[head[0], 0], draws.masks[head[3], 0]
    for t in range(23):
        assert torch.equal(first[t], first[t - t % 5])
    assert len(first.unique(dim=0)) == 5
    assert len(second.unique(dim=0)) > 15  # of 2^9; each draw has its own


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 3)),
        batch_norm_net(),
        Opaque(dense_head()),
    ],
    ids=["one dropout", "no head", "other head"],
)
def test_draws_are_independent_where_nesting_saves_nothing(net: nn.Module) -> None:
    images = images_like(5, 64)
    if any(isinstance(layer, nn.Conv2d) for layer in net.modules()):
        images = images.view(5, 1, 8, 8)
    draws = DropoutDraws(net, 20, seeded(), nested=10)(images)
    assert torch.equal(draws, DropoutDraws(net, 20, seeded(), nested=1)(images))


@pytest.mark.parametrize("opaque", [False, True])
def test_big_batches_by_hand(opaque: bool) -> None:
    net, images = digits_net(), images_like(150, 1, 8, 8)
    draws = DropoutDraws(Opaque(net) if opaque else net, 2, seeded())
    log_probs = draws(images)
    expected = by_hand([*net.trunk, *net.head], draws, images)
    torch.testing.assert_close(log_probs, expected, atol=1e-5, rtol=0)


SHARED = nn.Dropout(0.5)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Dropout(0.5), nn.Linear(64, 64), nn.Softmax(dim=1)],
        [nn.Dropout(0.5), nn.Linear(64, 64), nn.BatchNorm1d(64)],
        [nn.Dropout(0.5), nn.Linear(64, 64), nn.Unflatten(1, (8, 8)), nn.Flatten(1)],
        [nn.Dropout(0.5), nn.Linear(64, 64), nn.Dropout1d(0.5)],
        [nn.Dropout(0.5), nn.Linear(64, 64), nn.Sequential(nn.ReLU(), nn.Dropout(0.5))],
        [SHARED, nn.Linear(64, 64), SHARED],
        [nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 64)],
    ],
    ids=["softmax", "batch norm", "reshape", "dropout1d", "nested", "shared", "late dropout"],
)
def test_a_head_of_other_layers_is_run_draw_by_draw(layers: list[nn.Module]) -> None:
    torch.manual_seed(0)
    head, images = nn.Sequential(*layers, nn.Linear(64, 3)), images_like(5, 1, 8, 8)
    log_probs = DropoutDraws(Split(nn.Flatten(), head), T, seeded())(images)
    whole = DropoutDraws(Opaque(Split(nn.Flatten(), head)), T, seeded())(images)
    torch.testing.assert_close(log_probs, whole)


def test_dropout_in_the_trunk_gives_whole_passes() -> None:
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Dropout(0.5))
    head = nn.Sequential(nn.Dropout(0.2), nn.Linear(32, 3))
    images = images_like(5, 1, 8, 8)
    draws = DropoutDraws(Split(trunk, head), T, seeded())
    log_probs = draws(images)
    torch.testing.assert_close(log_probs, by_hand([*trunk, *head], draws, images))
    assert draws.masks[trunk[2], 0].shape == (T, 32)
    assert len(log_probs[0].unique(dim=0)) == T


def test_whole_channels_of_a_convolution_are_dropped() -> None:
    net, images = batch_norm_net(), images_like(5, 1, 8, 8)
    draws = DropoutDraws(net, T, seeded())
    log_probs = draws(images)
    assert draws.masks[net[2], 0].shape == (T, 4, 1, 1)
    torch.testing.assert_close(log_probs, by_hand(net.eval(), draws, images))


def test_one_layer_called_twice_has_masks_for_each_call() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop, self.first, self.last = nn.Dropout(0.5), nn.Linear(16, 8), nn.Linear(8, 3)

        def forward(self, images: Tensor) -> Tensor:
            return self.last(self.drop(self.first(self.drop(images))))

    torch.manual_seed(0)
    net, images = Twice(), images_like(5, 16)
    draws = DropoutDraws(net, T, seeded())
    log_probs = draws(images)
    outer, inner = draws.masks[net.drop, 0], draws.masks[net.drop, 1]
    assert (outer.shape, inner.shape) == ((T, 16), (T, 8))
    for t in range(T):
        expected = net.last(net.first(images * outer[t]) * inner[t]).log_softmax(-1)
        torch.testing.assert_close(log_probs[:, t], expected)


def test_weights_are_read_anew_at_every_call() -> None:
    net, images = digits_net(), images_like(4, 1, 8, 8)
    draws = DropoutDraws(net, T, seeded())
    before = draws(images)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.5)
    after = draws(images)
    torch.testing.assert_close(after, by_hand([*net.trunk, *net.head], draws, images))
    assert (after - before).abs().max() > 0.01


@pytest.mark.parametrize("build", [digits_net, batch_norm_net])
def test_an_images_draws_depend_on_no_other_image(build: Callable[[], nn.Module]) -> None:
    net, images = build(), images_like(11, 1, 8, 8)
    draws = DropoutDraws(net, T, seeded())
    expected = draws(images)
    order = torch.randperm(11, generator=seeded(3))
    in_batches = torch.cat([draws(batch) for batch in images[order].split(4)])
    torch.testing.assert_close(in_batches, expected[order], atol=1e-5, rtol=0)
    last_alone_first = DropoutDraws(net, T, seeded())
    torch.testing.assert_close(last_alone_first(images[-1:]), expected[-1:], atol=1e-5, rtol=0)
    torch.testing.assert_close(last_alone_first(images), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("dtype", "error", "opaque"),
    [
        (torch.float64, 1e-5, True),
        (torch.float64, 1e-5, False),
        (torch.bfloat16, 0.1, True),
        (torch.bfloat16, 0.1, False),
    ],
)
def test_networks_of_other_precision_return_float32(
    dtype: torch.dtype, error: float, opaque: bool
) -> None:
    head, images = dense_head(), images_like(5, 64)
    expected = DropoutDraws(head, T, seeded(), nested=1)(images)
    net = copy.deepcopy(head).to(dtype)
    log_probs = DropoutDraws(Opaque(net) if opaque else net, T, seeded(), nested=1)(
        images.to(dtype)
    )
    assert log_probs.dtype == torch.float32
    torch.testing.assert_close(log_probs, expected, atol=error, rtol=0)


class Peak(TorchDispatchMode):
    """Bytes of all tensors that were there at once."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: Counter[int] = Counter()
        self.live = self.most = 0

    def __torch_dispatch__(
        self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                place, size = storage.data_ptr(), storage.nbytes()
                self.live += 0 if self.tensors[place] else size
                self.tensors[place] += 1
                weakref.finalize(tensor, self.free, place, size)
        self.most = max(self.most, self.live)
        return result

    def free(self, place: int, size: int) -> None:
        self.tensors[place] -= 1
        self.live -= 0 if self.tensors[place] else size


@pytest.mark.parametrize("worth", [-math.inf, math.inf], ids=["fewer inputs", "masked weights"])
@pytest.mark.parametrize("nested", [1, 5])
def test_memory_is_bounded_whatever_the_number_of_draws(
    nested: int, worth: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "WORTH", worth)
    monkeypatch.setattr(posteriors, "WEIGHTS", 2**19)
    for name in ("AT_ONCE", "CACHED"):
        monkeypatch.setattr(products, name, 2**17)
    head = nn.Sequential(
        nn.Dropout(0.25), nn.Linear(512, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 64)
    )
    images, peaks = images_like(8, 512), []
    for many in (100, 500):
        with Peak() as peak:
            DropoutDraws(head, many, seeded(), nested)(images)
        peaks.append(peak.most)
    # What is there for each draw: the log-probabilities, a few times over, and its masks.
    logits, masks = 4 * len(images) * 64, 4 * (512 + 128)
    assert peaks[1] - peaks[0] < 400 * (3 * logits + 3 * masks)


# What scoring must leave as it was


def test_batch_norm_uses_its_running_statistics_and_keeps_them() -> None:
    net, images = batch_norm_net(), images_like(6, 1, 8, 8)
    before = copy.deepcopy(net.state_dict())
    draws = DropoutDraws(net.train(), T, seeded())
    log_probs = draws(images)
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]), key
    torch.testing.assert_close(log_probs, by_hand(net.eval(), draws, images))


class Broken(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError("broken")


@pytest.mark.parametrize("fails", [None, "trunk", "product", "pass"])
def test_modes_hooks_and_gradients_are_as_before(fails: str | None) -> None:
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten())
    head = nn.Sequential(nn.Dropout(0.5), nn.Linear(72, 4), nn.ReLU(), nn.Dropout(0.5))
    net = Split(trunk, head)
    images = images_like(3, 1, 8, 8)
    net.train()
    trunk[1].eval()
    head[3].eval()
    if fails == "trunk":
        trunk.append(Broken())
    elif fails == "product":
        trunk.append(nn.Linear(72, 71))
    elif fails == "pass":
        head.append(Broken())
    modes = {name: module.training for name, module in net.named_modules()}
    draws = DropoutDraws(net, T, seeded())
    if fails is None:
        assert not draws(images).requires_grad
    else:
        with pytest.raises(RuntimeError):
            draws(images)
    assert {name: module.training for name, module in net.named_modules()} == modes
    assert not any(module._forward_hooks for module in net.modules())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


# The plug-ins


@pytest.mark.parametrize("nested", [1, 4, 10])
def test_mc_dropout_makes_the_draws_of_its_own_nesting(nested: int) -> None:
    net, images = digits_net(), images_like(5, 1, 8, 8)
    made = MCDropout(nested)(net, 20, seeded(3))(images)
    assert torch.equal(made, DropoutDraws(net, 20, seeded(3), nested)(images))
    if nested == 10:
        assert torch.equal(made, MCDropout()(net, 20, seeded(3))(images))


@pytest.mark.parametrize("nested", [0, -3])
def test_a_nesting_of_no_draws_is_refused(nested: int) -> None:
    with pytest.raises(SettingError, match=rf"posterior\.nested: must be at least 1, got {nested}"):
        MCDropout(nested)


def test_mc_dropout_refuses_a_network_without_dropout_and_names_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"no active nn\.Dropout .*Deterministic"):
        MCDropout()(nn.Linear(4, 2), T, seeded())


@pytest.mark.parametrize("size", [1, PASS, 2 * PASS + 3])
@pytest.mark.parametrize("build", [batch_norm_net, digits_net])
def test_the_deterministic_draw_is_the_network_in_eval_mode(
    build: Callable[[], nn.Module], size: int
) -> None:
    net, images = build(), images_like(size, 1, 8, 8)
    expected = copy.deepcopy(net).eval()(images).log_softmax(-1).detach()
    net.train()
    next(net.children()).eval()
    modes = {name: module.training for name, module in net.named_modules()}
    before = copy.deepcopy(net.state_dict())
    generator = seeded()
    state = torch.get_rng_state()
    log_probs = Deterministic()(net, 7, generator)(images)
    assert log_probs.shape == (size, 1, expected.shape[1])  # one draw, however many are asked for
    assert log_probs.dtype == torch.float32
    assert not log_probs.requires_grad
    torch.testing.assert_close(log_probs[:, 0], expected, atol=1e-6, rtol=1e-6)
    assert {name: module.training for name, module in net.named_modules()} == modes
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(generator.get_state(), seeded().get_state())


def test_the_deterministic_draw_restores_modes_if_the_network_fails() -> None:
    net = nn.Sequential(nn.Dropout(0.5), Broken()).train()
    with pytest.raises(RuntimeError, match="broken"):
        Deterministic()(net, 1, seeded())(images_like(2, 4))
    assert all(module.training for module in net.modules())


def test_a_network_without_dropout_is_ranked_by_its_one_pass() -> None:
    net = nn.Linear(2, 3)
    net.weight.data = torch.tensor([[4.0, 0], [0, 4], [0, 0]])
    net.bias.data.zero_()
    images = torch.tensor([[1.0, 0], [1, 1], [1, 0.5]])
    scores = margin(Deterministic()(net, 1, seeded())(images))
    assert scores.argsort(descending=True).tolist() == [1, 2, 0]
    assert scores[1].item() == pytest.approx(1, abs=1e-6)  # two classes are equally likely


def test_a_network_of_half_precision_gives_a_deterministic_draw_in_float32() -> None:
    net = dense_head().to(torch.bfloat16)
    log_probs = Deterministic()(net, 1, seeded())(images_like(3, 64).bfloat16())
    assert log_probs.dtype == torch.float32
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(3, 1))


def test_a_posterior_that_is_fitted_by_nothing_has_no_state() -> None:
    class Mine(Posterior):
        def __call__(self, network: nn.Module, mc_samples: int, generator: object) -> object:
            return lambda images: images

    for posterior in (Mine(), MCDropout(), Deterministic()):
        posterior.on_train_start(nn.Identity())
        posterior.on_train_step(nn.Identity(), 0, 1)
        posterior.fit(nn.Identity(), torch.zeros(1), torch.zeros(1))
        assert posterior.state_dict() == {}
        posterior.load_state_dict({})
