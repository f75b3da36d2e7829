"""A run of a comparison: one method with one seed, in a folder of its own."""

import hashlib
from collections.abc import Collection
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from baldvae_pl.cli.configs import find_yaml
from baldvae_pl.errors import SettingError
from baldvae_pl.experiments.starting import start
from baldvae_pl.imports import import_without_gc
from baldvae_pl.runs.files import make_folder
from baldvae_pl.runs.folder import FIRST_ROUND, RUNS, RunFolder, experiment_part
from baldvae_pl.runs.settings import flat
from baldvae_pl.runs.tables import read_rounds

if TYPE_CHECKING:
    from baldvae_pl.cli.app import Plan


class Run:
    """One method with one seed on one configuration.

    Args:
        configs: Names of YAML files that overlay each other.
        method: Name of the overlay that comes last.
        seed: Of everything.
        place: The seed's folder.
        options: Of ``baldvae fit``, for all runs.
        only_first_round: It ends where it would first buy.

    Raises:
        SettingError: If a file is missing or the settings cannot be parsed.
    """

    def __init__(
        self,
        configs: list[str],
        method: str,
        seed: int,
        place: Path,
        options: list[str],
        only_first_round: bool = False,
    ) -> None:
        self.made_of = configs, method, seed, place, options
        files = [find_yaml(name) for name in (*configs, method)]
        self.method, self.seed, self.place = experiment_part(files[-1]), seed, place
        self.name = "+".join(map(experiment_part, files))
        self.only_first_round = only_first_round
        self.root = place / FIRST_ROUND if only_first_round else place
        self.folder = RunFolder(self.root / RUNS / self.name / "version_0")
        arguments = ["fit", *(f"--config={file}" for file in files)]
        arguments += [f"--method={self.method}", *options]
        arguments += ["--acquisition.rounds=0"] if only_first_round else []
        planned = plan_once(Path.cwd(), *arguments)
        settings = yaml.safe_load(planned.settings)
        settings["seed_everything"] = seed
        settings["trainer"]["default_root_dir"] = str(self.root)
        self.settings, self.changed = yaml.dump(settings, sort_keys=False), planned.changed
        if planned.config.acquisition.rounds is None:
            raise SettingError(
                "--acquisition.rounds: null has no end that a comparison can wait for. Give a "
                "number."
            )
        self.rounds: int = planned.config.acquisition.rounds + 1
        self.arguments = [
            *arguments,
            f"--seed_everything={seed}",
            f"--trainer.default_root_dir={self.root}",
            f"--vae.shared_path={place / 'vae' / digest_of_vae(settings)}.ckpt",
        ]
        self.flat = flat(settings)
        self.before: Run | None = None  # is this run, too, as long as they are alike

    def first_round(self) -> "Run":
        """Return the run that ends where this one first buys."""
        return Run(*self.made_of, only_first_round=True)

    def rows(self) -> list[dict[str, str]]:
        """Return the rounds that are finished.

        None of a table that is damaged, so that the run goes on and writes it anew.
        """
        try:
            return read_rounds(self.folder.rounds) if self.folder.rounds.is_file() else []
        except SettingError:
            return []

    def done(self) -> int:
        """Count the rounds that are finished: all, if every image is labelled."""
        rounds = self.rows()
        if rounds and rounds[-1]["unlabelled"] == "0":
            return self.rounds
        return min(len(rounds), self.rounds)

    @property
    def is_begun(self) -> bool:
        """Whether there is something to go on with."""
        return self.folder.last.is_file()

    def waits(self, others: Collection["Run"]) -> bool:
        """Whether one of the others still makes what this one need not make again."""
        before = self.before
        if before is None or before not in others or self.is_begun:
            return False
        return not (before.folder.branch.is_file() or before.complements_at_once())

    def complements_at_once(self) -> bool:
        """Whether complements were due in the first purchase, with no round before to share."""
        return any(float(row.get("bald_margin") or 1) <= 0 for row in self.rows()[:1])

    def start(self) -> BaseProcess:
        """Begin it or go on with it; its output goes to a file."""
        # Create version_0 now, so that no start can make a version_1.
        make_folder(self.folder.path)
        return start([*self.arguments, "--ckpt_path=last"], self.log)

    @property
    def log(self) -> Path:
        """File of its output."""
        return self.root / f"{self.name}.log"

    def __str__(self) -> str:
        return f"{self.name}:{self.seed}{' (first round)' if self.only_first_round else ''}"


@cache
def plan_once(folder: Path, *arguments: str) -> "Plan":  # noqa: ARG001
    """Parse in a folder, once, what runs have in common that differ in their seed alone."""
    # Takes seconds, which --help need not wait for.
    plan: Plan = import_without_gc("baldvae_pl.cli.app").plan(list(arguments))
    return plan


def digest_of_vae(settings: dict[str, Any]) -> str:
    """Name a VAE after all that decides its weights, but for the seed."""
    source = settings["data"]["source"]
    if isinstance(source, dict):
        options = {**source.get("init_args", {})}
        options.pop("cache_folder", None)
        source = {**source, "init_args": options}
    learns = [settings["vae"], {"source": source, "root": settings["data"]["root"]}]
    return hashlib.sha256(yaml.dump(learns).encode()).hexdigest()[:12]
