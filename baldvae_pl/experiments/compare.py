"""`baldvae compare`: methods × seeds, each an ordinary run in a folder of its own.

Runs of one seed are paired: they have the same initial labels, the same fresh weights each round
and, where images and settings of the VAE are the same, the same VAE, which the first of them
trains. A run that is finished is not repeated, one that was stopped goes on, and one that another
process works on is left to it, so that a comparison can be killed, started again, and shared by the
jobs of a cluster.
"""

import argparse
import contextlib
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml
from filelock import FileLock, Timeout
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from baldvae_pl.cli.app import RUNS, BaldVAECLI, make_cli
from baldvae_pl.cli.parser import find_config
from baldvae_pl.errors import SettingError
from baldvae_pl.experiments.report import report
from baldvae_pl.runs.resuming import check_begun, name_of

METHODS = ("bald_vae", "bald_o", "vae_all", "random", "duplicate")

OWN = {
    "--config": "--configs",
    "--seed_everything": "--seeds",
    "--trainer.default_root_dir": "--folder",
}
"""Options of ``fit`` that follow from those of ``compare``."""

OF_W = ("source", "root", "image_size", "channels", "skip_unreadable", "subset", "repeats")
"""Options of the data that say which images a VAE learns."""


class Plan(BaldVAECLI):
    """Parses the settings of a run, and makes nothing."""

    def _set_seed(self) -> None:
        """Seed nothing."""

    def instantiate_classes(self) -> None:
        """Make nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Run nothing."""


@dataclass
class Run:
    """One method with one seed on one configuration.

    Attributes:
        configs: Names of YAML files that overlay each other.
        method: Name of the overlay that comes last.
        seed: Of everything.
        place: The seed's folder.
        options: Of ``baldvae fit``, for all runs.
    """

    configs: list[str]
    method: str
    seed: int
    place: Path
    options: list[str]

    def __post_init__(self) -> None:
        self.name = "+".join(name_of(file_of(name)) for name in (*self.configs, self.method))
        self.folder = self.place / RUNS / self.name / "version_0"
        arguments = [
            "fit",
            *(f"--config={file_of(name)}" for name in (*self.configs, self.method)),
            f"--seed_everything={self.seed}",
            f"--trainer.default_root_dir={self.place}",
            *self.options,
        ]
        plan = make_cli(Plan, arguments)
        self.settings, self.changed = plan.settings, plan.changed
        self.rounds: int = plan.config.fit.acquisition.rounds + 1
        chosen = yaml.safe_load(plan.settings)
        learns = [chosen["vae"], {name: chosen["data"][name] for name in OF_W}]
        vae = hashlib.sha256(yaml.dump(learns).encode()).hexdigest()[:12]
        self.arguments = [*arguments, f"--vae.shared_path={self.place / 'vae' / vae}.ckpt"]

    def done(self) -> int:
        """Return how many rounds are finished: all, if every image is labelled."""
        table = self.folder / "rounds.csv"
        if not table.is_file():
            return 0
        rounds = pd.read_csv(table)
        return self.rounds if rounds["unlabelled"].iloc[-1] == 0 else min(len(rounds), self.rounds)

    def is_elsewhere(self) -> bool:
        """Whether another process works on it."""
        try:
            FileLock(self.folder / ".lock").acquire(timeout=0).lock.release()
        except Timeout:
            return True
        return False

    def start(self, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        """Begin it or go on with it; what it prints goes to a file."""
        # Because the folder is there, it is this run or none: there will be no version_1.
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "baldvae_pl", *self.arguments, "--ckpt_path=last"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )

    @property
    def log(self) -> Path:
        """Where it prints to."""
        return self.place / f"{self.name}.log"

    def __str__(self) -> str:
        return f"{self.name}:{self.seed}"


def file_of(name: str) -> str:
    """Return the path of a YAML file, whose ending may be left out."""
    for path in (find_config(name), find_config(f"{name}.yaml")):
        if Path(path).is_file():
            return str(Path(path).absolute())
    raise SettingError(
        f"{name}: there is no such YAML file here, nor among those shipped. `baldvae fit --help` "
        "says how configurations overlay each other."
    )


def main(args: Sequence[str]) -> None:
    """Parse the command line, make the runs that are missing, and the report."""
    parser = argparse.ArgumentParser("baldvae compare", description=__doc__, allow_abbrev=False)
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
        "--folder", type=Path, help=f"of the comparison (default: {RUNS}/compare/<configs>)"
    )
    parser.add_argument("--baseline", default="bald_o", help="method that others are compared to")
    parser.epilog = "All other options are those of `baldvae fit`, for all runs."
    chosen, options = parser.parse_known_args(args)
    if chosen.jobs < 1:
        raise SettingError(f"--jobs: {chosen.jobs} runs are none. Take at least 1.")
    for option in options:
        if instead := OWN.get(option.split("=")[0]):
            raise SettingError(f"{option}: `compare` sets this for each run. Use {instead}.")
    configs = [
        [config] if Path(config).is_file() else config.split("+")
        for config in dict.fromkeys(chosen.configs)
    ]
    names = ["+".join(name_of(file_of(name)) for name in config) for config in configs]
    folder = chosen.folder or Path(RUNS, "compare", "-".join(names))
    runs = [
        Run(config, method, seed, folder.absolute() / f"seed_{seed}", options)
        for seed in dict.fromkeys(chosen.seeds)
        for config in configs
        for method in dict.fromkeys(chosen.methods)
    ]
    if len({run.folder for run in runs}) < len(runs):
        raise SettingError(
            f"--methods: of {' '.join(chosen.methods)} two have one name, by which runs are told "
            "apart. Rename a file; the same of --configs."
        )
    if chosen.only is not None:
        runs = [run for run in runs if f"{name_of(run.method)}:{run.seed}" == chosen.only]
        if not runs:
            raise SettingError(
                f"--only: {chosen.only} is none of the methods and seeds. Give METHOD:SEED, one of "
                f"{' '.join(map(name_of, chosen.methods))} and one of "
                f"{' '.join(map(str, chosen.seeds))}."
            )
    for run in runs:
        if not run.changed:
            check_begun(run.folder, run.settings)
    failed = work(runs, chosen.jobs)
    if chosen.only is None and any(run.done() for run in runs):
        with FileLock(folder / ".lock"):  # others may end in this moment too
            report(folder, folder, baseline=chosen.baseline)
        print(f"The results are in {folder / 'report.md'}")
    if failed:
        logs = "\n".join(f"  {run.log}: {last_line(run.log)}" for run in failed)
        raise SettingError(
            f"{len(failed)} of {len(runs)} runs failed:\n{logs}\nMend the cause and give the same "
            "command again; what is finished is not repeated."
        )


def work(runs: Sequence[Run], jobs: int) -> list[Run]:
    """Make all runs, so many at once; return those that failed."""
    waiting = [run for run in runs if run.done() < run.rounds]
    running: dict[subprocess.Popen[bytes], Run] = {}
    failed = []
    # Threads that share cores slow each other down.
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    environment = {"OMP_NUM_THREADS": threads} | os.environ if jobs > 1 else dict(os.environ)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with (
        Progress(*columns, TextColumn("rounds, time left"), TimeRemainingColumn(),
                 speed_estimate_period=7200) as progress,
        contextlib.ExitStack() as at_the_end,
    ):  # fmt: skip
        at_the_end.callback(stop, running)
        task = progress.add_task(f"{len(runs)} runs", total=sum(run.rounds for run in runs))
        progress.update(task, completed=sum(run.done() for run in runs))
        while waiting or running:
            for run in list(waiting):
                if len(running) < jobs and not (run.folder.exists() and run.is_elsewhere()):
                    waiting.remove(run)
                    running[run.start(environment)] = run
            time.sleep(2)
            for process, run in list(running.items()):
                if process.poll() is None:
                    continue
                del running[process]
                if process.returncode != 0 and run.is_elsewhere():
                    waiting.append(run)
                    continue
                if process.returncode != 0 or run.done() < run.rounds:
                    failed.append(run)
                left = progress.tasks[0].time_remaining
                progress.console.print(
                    f"{run} {'failed' if run in failed else 'is finished'}, "
                    f"{len(waiting) + len(running)} runs to go"
                    + ("" if left is None else f", about {left / 60:.0f} minutes"),
                    highlight=False,
                )
            waiting = [run for run in waiting if run.done() < run.rounds]
            progress.update(task, completed=sum(run.done() for run in runs))
    return failed


def stop(running: dict[subprocess.Popen[bytes], Run]) -> None:
    """End what still runs; it goes on from its last round when the comparison does."""
    for process in running:
        process.terminate()
    for process in running:
        process.wait()


def last_line(log: Path) -> str:
    """Return what a run said last."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""
