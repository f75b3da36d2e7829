"""Options of `baldvae compare` and `baldvae report`, parsed before anything heavy is imported."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from baldvae_pl.errors import SettingError
from baldvae_pl.runs.folder import RUNS

METHODS = ("bald_vae", "bald_o", "vae_all", "random", "duplicate")

GATHERED = "runs.csv"
"""All rounds of all runs, which a report leaves: what everything else is made of."""

SET_BY_COMPARE = {
    "--config": "--configs",
    "--method": "--methods",
    "--seed_everything": "--seeds",
    "--trainer.default_root_dir": "--folder",
}
"""Options of ``fit`` that follow from those of ``compare``."""

COMPARE = """Make runs of several methods and seeds, each in a folder of its own, and a report.

Runs of one seed are paired: they have the same initial labels, the same fresh weights each round
and, where images and settings of the VAE are the same, the same VAE, which the first of them
trains. A run that is finished is not repeated, one that was stopped goes on, and one that another
process works on is left to it, so that a comparison can be killed, started again, and shared by the
jobs of a cluster.
"""
REPORT = """Write a page to look at: of the folder of a run, or of many, with tables and figures.

The page is one file, report.html, which needs no network.
"""


def folder(text: str) -> Path:
    """Return a path; ``~`` is the home folder, which no shell replaces in ``--folder=~/x``."""
    return Path(text).expanduser()


def parse_compare(args: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parse the options of ``compare``.

    Returns:
        Its own options, and those of ``fit``.

    Raises:
        SettingError: If an option of ``fit`` is given that ``compare`` sets.
    """
    parser = argparse.ArgumentParser("baldvae compare", description=COMPARE, allow_abbrev=False)
    parser.add_argument(
        *("--configs", "-c"),
        nargs="+",
        required=True,
        metavar="NAME",
        help="YAML files, here or shipped; those joined by + overlay each other",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        default=METHODS,
        metavar="NAME",
        help=f"overlays, here or shipped (default: {' '.join(METHODS)})",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once on this machine")
    parser.add_argument(
        "--only",
        metavar="METHOD:SEED",
        help="one run of each of --configs, as for a job of a cluster, and no report",
    )
    parser.add_argument(
        "--list",
        action="store_true",
        help="print the METHOD:SEED of each run, a line each, and make none",
    )
    parser.add_argument(
        "--slurm",
        nargs="*",
        metavar="KEY=VALUE",
        help="send each run to Slurm as a job, and the report after them; options of sbatch as "
        "submitit names them, time (in minutes) among them: time=60 partition=gpu gpus_per_node=1",
    )
    parser.add_argument(
        "--folder", type=folder, help=f"of the comparison (default: {RUNS}/compare/<configs>)"
    )
    parser.add_argument("--baseline", default="bald_o", help="method that others are compared to")
    parser.epilog = "All other options are those of `baldvae fit`, for all runs."
    chosen, options = parser.parse_known_args(args)
    if chosen.jobs < 1:
        raise SettingError(f"--jobs: must be at least 1, got {chosen.jobs}.")
    for seed in chosen.seeds:
        if not 0 <= seed < 2**32:
            raise SettingError(f"--seeds: must be from 0 to {2**32 - 1}, got {seed}.")
    if chosen.slurm is not None and (chosen.only is not None or chosen.jobs > 1):
        raise SettingError(
            "--slurm: goes with neither --only nor --jobs. For N jobs at once add "
            "array_parallelism=N."
        )
    for option in options:
        if instead := SET_BY_COMPARE.get(option.split("=")[0]):
            raise SettingError(f"{option}: `compare` sets this for each run. Use {instead}.")
    return chosen, options


def parse_report(args: Sequence[str]) -> argparse.Namespace:
    """Parse the options of ``report``."""
    parser = argparse.ArgumentParser("baldvae report", description=REPORT, allow_abbrev=False)
    parser.add_argument(
        "source",
        type=folder,
        help=f"folder of a run, or with runs at any depth, or a {GATHERED} of a report",
    )
    parser.add_argument("--out", type=folder, help="folder of the report (default: the source's)")
    parser.add_argument("--baseline", default="bald_o", help="method that others are compared to")
    parser.add_argument("--labels", type=int, nargs="+", help="numbers of labels to compare at")
    parser.add_argument("--accuracies", type=float, nargs="+", help="to be reached, in percent")
    return parser.parse_args(args)
