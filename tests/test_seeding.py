"""Seeds are part of every result: their values, and that no two streams meet."""

from itertools import product

import numpy as np
import pytest
import torch

from baldvae_pl.seeding import Purpose, derive_seed, make_generator


def test_purposes_keep_their_numbers() -> None:
    assert {purpose.name: purpose.value for purpose in Purpose} == {
        "INITIAL_LABELS": 0,
        "WEIGHTS": 1,
        "BATCHES": 2,
        "TRAINING": 3,
        "POSTERIOR": 4,
        "ACQUISITION": 5,
        "COMPLEMENT": 6,
        "VAE_WEIGHTS": 7,
        "VAE_BATCHES": 8,
        "VAE_NOISE": 9,
        "SUBSET": 10,
        "REPEATS": 11,
        "UNLABELLED_BATCHES": 12,
        "AUDIT": 13,
        "AHEAD": 14,
        "MISTAKES": 15,
        "TARGETS": 16,
        "OBJECTIVE": 17,
        "STATISTICS": 18,
        "JUDGE": 19,
        "MAP": 20,
    }


@pytest.mark.parametrize(
    ("seed", "round", "purpose", "expected"),
    [
        (0, 0, Purpose.INITIAL_LABELS, 7896617691693857887),
        (0, 20, Purpose.POSTERIOR, 1438309844303933910),
        (1, 0, Purpose.WEIGHTS, 892115846157824453),
        (2**32 - 1, 3, Purpose.VAE_NOISE, 3519102239001358847),
    ],
)
def test_seeds_keep_their_values(seed: int, round: int, purpose: Purpose, expected: int) -> None:
    assert derive_seed(seed, round, purpose) == expected


def test_no_two_streams_share_a_seed() -> None:
    seeds = [derive_seed(*key) for key in product(range(25), range(25), Purpose)]
    assert len(set(seeds)) == 25 * 25 * len(Purpose)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_neighbouring_seeds_share_no_numbers() -> None:
    streams = torch.stack(
        [
            torch.rand(1000, generator=make_generator(seed, round, purpose), dtype=torch.double)
            for seed, round, purpose in product(range(3), range(3), Purpose)
        ]
    )
    assert len(streams.unique()) == streams.numel()
    correlations = torch.corrcoef(streams).fill_diagonal_(0)
    assert correlations.abs().max() < 5 / np.sqrt(1000)


def test_a_stream_depends_on_nothing_global_and_changes_nothing_global() -> None:
    torch.manual_seed(1)
    first = torch.rand(5, generator=make_generator(7, 3, Purpose.COMPLEMENT))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = torch.rand(5, generator=make_generator(7, 3, Purpose.COMPLEMENT))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert make_generator(7, 3, Purpose.COMPLEMENT).device.type == "cpu"
