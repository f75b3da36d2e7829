"""The layout of a run folder, and which run it is: the only file that knows these names."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from baldvae_pl.errors import SettingError
from baldvae_pl.runs.files import checksum, make_folder, replacing

RUNS = "lightning_logs"
"""Folder of all runs, below ``--trainer.default_root_dir``."""

FIRST_ROUND = "first_round"
"""Folder, beside the runs of a comparison, of those that end where several others first buy."""

JOBS = (
    ("SLURM_JOB_ID", "SLURM_RESTART_COUNT"),
    ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"),
)
"""Of schedulers that give the same command again: which job it is, and how often it was begun."""


def job() -> str | None:
    """Return which job of a scheduler this is, if it is one."""
    return next((os.environ[name] for name, _ in JOBS if name in os.environ), None)


def restarted() -> bool:
    """Whether a scheduler has begun this job before."""
    return any(os.environ.get(count, "0") not in ("", "0") for _, count in JOBS)


def experiment_part(config: str | Path) -> str:
    """Return the name of an experiment after its config file; a run's own keeps that run's name."""
    path = Path(str(config)).absolute()
    run = RunFolder(path.parent)
    return run.experiment if path == run.config and run.version >= 0 else path.stem


@dataclass(frozen=True)
class Identity:
    """Which run it is, as ``run.json`` says.

    Attributes:
        configs: Names of the configurations below the method's, for example ``["mnist", "lenet"]``.
        method: Name of the method, for example ``bald_o``.
        seed: Of everything random.
        job: Of a scheduler, if the run was begun by one.
    """

    configs: list[str]
    method: str
    seed: int
    job: str | None = None


@dataclass(frozen=True)
class RunFolder:
    """The files of one run: ``lightning_logs/<experiment>/version_<k>/``."""

    path: Path

    @property
    def config(self) -> Path:
        """All settings, as YAML that starts the same run."""
        return self.path / "config.yaml"

    @property
    def identity(self) -> Path:
        """The run's `Identity`."""
        return self.path / "run.json"

    @property
    def rounds(self) -> Path:
        """A row a round."""
        return self.path / "rounds.csv"

    @property
    def acquisitions(self) -> Path:
        """A row a label and a complement."""
        return self.path / "acquisitions.csv"

    @property
    def log(self) -> Path:
        """A line a round, for people."""
        return self.path / "rounds.log"

    def snapshot(self, round: int) -> Path:
        """What a round looked like."""
        return self.path / "snapshots" / f"round_{round:04}.npz"

    @property
    def report(self) -> Path:
        """The run as a page to look at."""
        return self.path / "report.html"

    @property
    def checkpoints(self) -> Path:
        """Folder of all checkpoints."""
        return self.path / "checkpoints"

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.checkpoints / "last.ckpt"

    @property
    def branch(self) -> Path:
        """The checkpoint before the round in which a labelled image first reached the threshold."""
        return self.checkpoints / "branch.ckpt"

    @property
    def vae(self) -> Path:
        """The VAE's weights, if this run trained it."""
        return self.checkpoints / "vae.ckpt"

    @property
    def question(self) -> Path:
        """The open question, where people label."""
        return self.path / "question.json"

    @property
    def to_label(self) -> Path:
        """The same as a table, to be filled in."""
        return self.path / "to_label.csv"

    @property
    def status(self) -> Path:
        """What the process does just now, where people label."""
        return self.path / "status.json"

    @property
    def review(self) -> Path:
        """Labelled images that may be labelled wrongly, where people label."""
        return self.path / "review.json"

    @property
    def review_pictures(self) -> Path:
        """Folder of the complements of these."""
        return self.path / "review"

    @property
    def done(self) -> Path:
        """Is there once a run in which people label has come to its end."""
        return self.path / ".done"

    @property
    def answers(self) -> Path:
        """Questions to the oracle and its answers."""
        return self.path / "answers.jsonl"

    @property
    def experiment(self) -> str:
        """Name of the experiment, which several runs may share."""
        return self.path.parent.name

    @property
    def version(self) -> int:
        """The k of ``version_<k>``; -1 for a folder of another name."""
        number = self.path.name.removeprefix("version_")
        return int(number) if number.isascii() and number.isdigit() else -1

    @classmethod
    def new(cls, experiment: Path) -> "RunFolder":
        """Return the folder of another run of an experiment, which is not made yet."""
        versions = [cls(path).version for path in experiment.glob("version_*")]
        return cls(experiment / f"version_{max(versions, default=-1) + 1}")

    @classmethod
    def of(cls, trainer: Any) -> "RunFolder":
        """Return the folder of a trainer's run, for one that was not started by the command.

        That of its logger, or one of its own where the logger has none.
        """
        own = trainer.loggers[0].log_dir if trainer.loggers else None
        return cls(Path(own)) if own else cls.new(Path(trainer.default_root_dir) / RUNS)

    @classmethod
    def containing(cls, checkpoint: Path) -> "RunFolder | None":
        """Return the run that a checkpoint lies in, if it lies in one."""
        folder = checkpoint.resolve().parent
        return cls(folder.parent) if folder.name == "checkpoints" else None

    def write_identity(self, identity: Identity) -> None:
        """Write ``run.json``."""
        content = asdict(identity)
        with replacing(self.identity, "w", encoding="utf-8") as file:
            json.dump({**content, "crc": checksum(content)}, file, indent=2)

    def read_identity(self) -> Identity | None:
        """Return which run it is; None if there is no ``run.json``, or a damaged one."""
        try:
            content = json.loads(self.identity.read_text(encoding="utf-8"))
            sound = content.pop("crc") == checksum(content)
            return Identity(**content) if sound else None
        except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
            return None

    def is_locked(self) -> bool:
        """Whether another process works on this run."""
        if not self.path.is_dir():
            return False
        try:
            FileLock(self.path / ".lock").acquire(timeout=0).lock.release()
        except Timeout:
            return True
        return False

    def claim(self, settings: str, identity: Identity) -> FileLock:
        """Make the folder with its ``config.yaml``, and hold it until the lock is released.

        Raises:
            SettingError: If another process holds it, or it cannot be written.
        """
        lock = FileLock(self.path / ".lock")
        try:
            make_folder(self.checkpoints)
            lock.acquire(timeout=1)  # `is_locked` holds it for a moment
        except Timeout as error:
            raise SettingError(
                f"--trainer.default_root_dir: another process works in the run folder {self.path}. "
                "Wait for it to end, or leave --ckpt_path out to start a run of its own."
            ) from error
        except (OSError, NotImplementedError) as error:
            raise SettingError(
                f"--trainer.default_root_dir: the run folder {self.path} cannot be written "
                f"({error}). Name a folder that can."
            ) from error
        with replacing(self.config, "w", encoding="utf-8") as file:
            file.write(settings)
        self.write_identity(identity)
        return lock
