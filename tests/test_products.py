"""Products under masks against masks that are multiplied in, and what they cost."""

from collections.abc import Iterable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from baldvae_pl import products
from baldvae_pl.products import masked_products, with_fewer_inputs, with_masked_weights

Case = tuple[Tensor, Tensor, Tensor, list[Tensor]]


def case(
    images: int, inputs: int, units: int, kept: list[float], seed: int = 0, every: bool = False
) -> Case:
    """Inputs, weights, a mask for each share that is kept, and a random half of the units."""
    chance = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=chance)

    keep_M_D = draw(len(kept), inputs) < torch.tensor(kept)[:, None]
    needed_M = [(draw(units) < (1.0 if every else 0.5)).nonzero().flatten() for _ in kept]
    return draw(images, inputs) - 0.3, draw(units, inputs) - 0.5, keep_M_D, needed_M


def by_hand(
    inputs_N_D: Tensor, weight_H_D: Tensor, keep_M_D: Tensor, units_M: list[Tensor]
) -> list[Tensor]:
    return [
        (weight_H_D.double() @ (inputs_N_D * keep_D).double().t()).float()[units]
        for keep_D, units in zip(keep_M_D, units_M, strict=True)
    ]


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    images=st.integers(1, 150),
    inputs=st.integers(1, 60),
    units=st.integers(1, 20),
    kept=st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.75, 0.95, 1.0]), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
def test_all_ways_are_arithmetic_by_hand(
    images: int, inputs: int, units: int, kept: list[float], seed: int
) -> None:
    given_ = case(images, inputs, units, kept, seed)
    for way in (with_fewer_inputs, with_masked_weights, masked_products):
        torch.testing.assert_close(whole(way(*given_)), by_hand(*given_), atol=1e-4, rtol=1e-4)


def whole(parts: Iterable[Sequence[Tensor]]) -> list[Tensor]:
    """Each mask's product for all images."""
    return [torch.cat(of_mask, 1) for of_mask in zip(*parts, strict=True)]


def flops(of: Case) -> int:
    """Multiplications and additions in products."""
    with FlopCounterMode(display=False) as counter:
        list(masked_products(*of))
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("p", "times"), [(0.2, 1 + 20 * 0.2), (0.25, 1 + 20 * 0.25), (0.8, 20 * 0.2)]
)
def test_wide_layers_multiply_with_the_fewer_inputs(p: float, times: float) -> None:
    of = case(300, 9216, 128, [1 - p] * 20, every=True)
    assert flops(of) == pytest.approx(times * 2 * 300 * 9216 * 128, rel=0.01)


@pytest.mark.parametrize(
    ("units", "p", "masks", "dtype"),
    [
        (10, 0.25, 20, torch.float32),
        (64, 0.5, 20, torch.float32),
        (128, 0.25, 1, torch.float32),
        (128, 0.25, 20, torch.bfloat16),
    ],
    ids=["few units", "as many dropped as kept", "one mask", "bfloat16"],
)
def test_others_multiply_with_all_inputs(
    units: int, p: float, masks: int, dtype: torch.dtype
) -> None:
    inputs, weight, keep, needed = case(300, 512, units, [1 - p] * masks, every=True)
    of = (inputs.to(dtype), weight.to(dtype), keep, needed)
    assert flops(of) == masks * 2 * 300 * 512 * units


def test_nothing_is_subtracted_where_autocast_rounds_what_it_is_taken_from() -> None:
    of = case(300, 512, 128, [0.75] * 20, every=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert flops(of) == 20 * 2 * 300 * 512 * 128


def test_parts_of_many_images_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    of = case(600, 9216, 128, [0.75] * 3, every=True)
    parts = list(masked_products(*of))
    assert [part[0].shape[1] for part in parts] == [192, 192, 192, 24]
    torch.testing.assert_close(whole(parts), by_hand(*of), atol=1e-3, rtol=1e-4)
    monkeypatch.setattr(products, "AT_ONCE", 64 * 3 * 128)  # less than the weights of one mask
    parts = list(with_masked_weights(*of))
    assert [part[0].shape[1] for part in parts] == [64] * 9 + [24]
    torch.testing.assert_close(whole(parts), by_hand(*of), atol=1e-3, rtol=1e-4)
