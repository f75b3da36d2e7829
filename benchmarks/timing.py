"""Settings and the stopwatch that all benchmarks share."""

import os
import statistics
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


def as_usual() -> dict[str, str]:
    """Return this environment, but so that Python keeps what it compiles, as by default."""
    return {name: x for name, x in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def seconds(ways: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Run all in turn, several times after a first one; the median of each."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if repeat > 0:
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def timed(way: Callable[[], T]) -> tuple[float, T]:
    """Return the seconds that something takes once, and what comes of it."""
    began = time.perf_counter()
    result = way()
    return time.perf_counter() - began, result
