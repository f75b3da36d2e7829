"""Every random step has its own stream, seeded by (seed, round, purpose).

No generator state is ever saved: a round can be replayed alone, and a resumed run draws what the
uninterrupted one would have drawn. `SeedSequence` mixes the three numbers, so neighbouring seeds
share nothing, as ``seed + round`` would.
"""

from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """Use of a stream. The values are part of every result: never renumber them."""

    INITIAL_LABELS = 0
    WEIGHTS = 1
    BATCHES = 2
    TRAINING = 3
    POSTERIOR = 4
    ACQUISITION = 5
    COMPLEMENT = 6
    VAE_WEIGHTS = 7
    VAE_BATCHES = 8
    VAE_NOISE = 9
    SUBSET = 10
    REPEATS = 11
    UNLABELLED_BATCHES = 12
    AUDIT = 13
    AHEAD = 14
    MISTAKES = 15
    TARGETS = 16
    OBJECTIVE = 17
    STATISTICS = 18
    JUDGE = 19
    MAP = 20


def derive_seed(seed: int, round: int, purpose: Purpose) -> int:
    """Return a 63-bit seed that only (seed, round, purpose) determine."""
    state = np.random.SeedSequence([seed, round, purpose]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def make_generator(seed: int, round: int, purpose: Purpose) -> torch.Generator:
    """Return a CPU generator, so that every accelerator and process count sees the same draws."""
    return torch.Generator().manual_seed(derive_seed(seed, round, purpose))
