"""How fast and how frugal it is, against the alternatives, in one process run.

    python benchmarks/speed.py --data folder_with_MNIST [--only scoring memory ...]

needs the `test` extra. Alternatives run in turn, several times; a row is the median. What is slow
runs on fewer images, scaled linearly (marked ~). Tables are printed and written as CSV; with
``--check`` nothing is written, and it fails if one of our ratios is a fifth worse than written.
"""

import argparse
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import structlog
import torch
from comparison import comparison
from decoding import decoding, folder, reading
from draws import quality
from experiment import experiment
from heads import heads
from phases import operators, phases
from processes import processes
from regression import RATIOS, regressions
from scoring import limit, masks, scoring
from seeds import seeds
from start import start
from timing import timed
from whole_rounds import memory, pools, training

from baldvae_pl import MNIST, ImageFolder
from baldvae_pl.networks import CIFAR10Net, MNISTNet, ResNet18


def main() -> None:
    """Make the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with MNIST")
    parser.add_argument("--cifar10", type=Path, help="CIFAR-10 as class folders, for its draws")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--only", nargs="*", help="some of the tables")
    parser.add_argument("--check", action="store_true", help="compare with the tables in --out")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.INFO)
    quiet = structlog.make_filtering_bound_logger(logging.WARNING)
    structlog.configure(wrapper_class=quiet)  # which Baal logs by
    source = MNIST()(chosen.data)
    digits = source.train.images[:4096]
    colour = torch.randint(0, 256, (1000, 3, 32, 32), dtype=torch.uint8)

    def draws() -> pd.DataFrame:
        parts = [quality("MNIST", MNISTNet(), source.train, n, 300) for n in (100, 300, 1000)]
        if chosen.cifar10 is not None:
            photos = ImageFolder()(chosen.cifar10).train
            steps = {1000: 500, 6000: 1400}
            parts += [quality("CIFAR-10", CIFAR10Net(), photos, n, s) for n, s in steps.items()]
        return pd.concat(parts)

    tables: dict[str, Callable[[], pd.DataFrame]] = {
        "start": start,
        "comparison": lambda: comparison(chosen.data),
        "experiment": lambda: experiment(source),
        "training": lambda: training(source),
        "phases": lambda: phases(chosen.data),
        "operators": lambda: operators(source),
        "seeds": lambda: seeds(source.train),
        "scoring": lambda: scoring(digits, MNISTNet, 256, 5),
        "masks": lambda: masks(digits),
        "limit": lambda: limit(digits),
        "heads": lambda: heads(colour[:500]),
        "resnet18": lambda: scoring(colour, ResNet18, 32, 3),
        "draws": draws,
        "reading": reading,
        "decoding": decoding,
        "folder": folder,
        "processes": lambda: processes(chosen.data),
        "memory": memory,
        "pools": pools,
    }
    worse: list[str] = []
    for name, table in tables.items():
        if name in (chosen.only or (RATIOS if chosen.check else tables)):
            torch.manual_seed(0)
            print(f"\n{name}", flush=True)
            took, found = timed(table)
            print(found.to_string(index=False), f"in {took:.0f} seconds", sep="\n", flush=True)
            file = chosen.out / f"speed_{name}.csv"
            if chosen.check:
                worse += regressions(name, pd.read_csv(file), found)
            else:
                found.to_csv(file, index=False)
    if worse:
        sys.exit("\n".join(worse))


if __name__ == "__main__":
    main()
