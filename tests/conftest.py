"""Fixtures of all tests. What imports torch is imported where it is used: pytest's first process
tests nothing, and the others wait for it.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Small tensors: two threads would only wait for each other, in this process and in its children.
os.environ |= {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}


@pytest.fixture(scope="session", autouse=True)
def no_pictures() -> None:
    """They take half of the time of a small run; tests of them are of `finished_run`."""
    from baldvae_pl.loop import keeping

    keeping.log_pictures = lambda *_: None  # type: ignore[assignment]


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `SMALL` has run to its end; not to be written to."""
    from helpers import RUN, SMALL, rounds_of
    from killed import ran

    folder = tmp_path_factory.mktemp("finished")
    done = ran(*SMALL, cwd=folder, pictures=True)
    assert done.returncode == 0, done.stderr
    rounds = rounds_of(folder / RUN)
    assert rounds["complemented"].sum() > 0  # else it would prove nothing about complements
    assert rounds["labelled"].tolist() == [15, 40, 65, 90]
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of its own as the working folder, for the command in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["baldvae"])
    monkeypatch.setattr(sys, "path", [*sys.path])
    loaded = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - loaded:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and tmp_path in Path(file).parents:
            del sys.modules[name]  # another test may write another file of that name


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with MNIST, from BALDVAE_DATA."""
    if "BALDVAE_DATA" not in os.environ:
        pytest.skip("BALDVAE_DATA names no folder with MNIST")
    return Path(os.environ["BALDVAE_DATA"])
