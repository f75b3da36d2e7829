"""Schedules: the share of a round's steps that is done -> a factor of the learning rate."""

from math import cos, pi

__all__ = ["one_cycle"]

RISE = 0.25
"""Share of the round in which the rate of `one_cycle` rises."""


def one_cycle(done: float) -> float:
    """Return a factor that rises from 0 to 1, and falls to 0 along a cosine.

    Smith and Topin 2019, "Super-convergence".
    """
    return done / RISE if done < RISE else (1 + cos(pi * (done - RISE) / (1 - RISE))) / 2
