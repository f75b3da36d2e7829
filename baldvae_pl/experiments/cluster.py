"""Runs of a comparison as jobs of Slurm: one array, and the report after it."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from getpass import getuser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from baldvae_pl.errors import SettingError
from baldvae_pl.experiments.run import Run
from baldvae_pl.runs.files import make_folder


@dataclass
class Command:
    """What a job does, and does again when it is requeued: a run goes on by itself.

    Args:
        arguments: Of ``baldvae``.
        log: File to whose end it writes.
    """

    arguments: list[str]
    log: Path

    def __call__(self) -> None:
        """Do it, in a process of its own: submitit's listens to Slurm's warnings."""
        with self.log.open("ab") as log:
            command = [sys.executable, "-P", "-m", "baldvae_pl", *self.arguments]
            subprocess.run(command, stdout=log, stderr=log, check=True)

    def checkpoint(self) -> Any:
        """Return what submitit is to begin again after a warning."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


NUMBERS = ("time", "nodes", "ntasks_per_node", "signal_delay_s", "array_parallelism")
"""Parameters that submitit reckons with; all others go to ``sbatch`` as they are."""

NOT_TEXT = ("setup", "teardown", "srun_args", "use_srun", "stderr_to_stdout", "map_count")
"""Parameters that are lists or the like, or not the user's."""

OF_THE_QUEUE = ("time", "partition", "account", "qos")
"""What the report, too, is sent with: it needs no accelerator, and one process."""


def submit(runs: Sequence[Run], folder: Path, baseline: str, parameters: Sequence[str]) -> None:
    """Send runs to Slurm, and their report for when the last has ended, without waiting.

    Args:
        runs: That are not finished; one job each, but for those that are made already.
        folder: Of the comparison, where all nodes reach it.
        baseline: Of the report.
        parameters: Options of ``sbatch`` as submitit names them, each ``KEY=VALUE``.

    Raises:
        SettingError: If there is no Slurm or no submitit here, or a parameter is refused.
    """
    if find_spec("submitit") is None:
        raise SettingError("--slurm: needs submitit. pip install 'baldvae[slurm]'")
    if not all(map(shutil.which, ("sbatch", "srun", "squeue"))):
        raise SettingError("--slurm: there is no sbatch here. Start it where jobs are sent from.")
    options = parsed(parameters)
    place = folder / "slurm"
    if jobs := queued(place):
        print(f"Job {', '.join(jobs)} is not finished: nothing is sent.")
        return
    free = [run for run in runs if not run.folder.is_locked()]
    if not free:
        print("Other processes work on all that is left: nothing is sent.")
        return
    commands = []
    for run in free:
        make_folder(run.folder.path)
        commands.append(Command([*run.arguments, "--ckpt_path=last"], run.log))
    report = Command(["report", str(folder), f"--baseline={baseline}"], folder / "report.log")
    array, sent = "", ""
    try:
        array = executor(place, options).submit_array(commands)[0].job_id.partition("_")[0]
        sent = f" The runs are sent already, as job {array}."
        shared = {key: value for key, value in options.items() if key in OF_THE_QUEUE}
        shared["dependency"] = f"afterany:{array}"
        after = executor(place, shared).submit(report)
    except (ValueError, TypeError, RuntimeError) as error:  # of submitit, or what sbatch says
        raise SettingError(f"--slurm: {' '.join(str(error).split())}{sent}") from error
    many = "1 run is" if len(free) == 1 else f"{len(free)} runs are"
    print(f"{many} sent as job {array}, their report as job {after.job_id}.")


def parsed(parameters: Sequence[str]) -> dict[str, Any]:
    """Return parameters by name.

    Raises:
        SettingError: If one cannot be given, or there is no time.
    """
    options: dict[str, Any] = {}
    for parameter in parameters:
        key, equals, value = parameter.partition("=")
        if not equals or key in NOT_TEXT:
            raise SettingError(f"--slurm: {parameter} is no KEY=VALUE of sbatch, such as time=60.")
        if key in NUMBERS and not value.isdecimal():
            raise SettingError(f"--slurm: {key} must be a whole number, got {value}.")
        options[key] = int(value) if key in NUMBERS else value
    if "time" not in options:
        raise SettingError("--slurm: say how many minutes a job may take, such as time=60.")
    return options


def executor(place: Path, options: dict[str, Any]) -> Any:
    """Return what sends jobs; those that run out of time are sent again until they are finished."""
    import submitit

    made = submitit.SlurmExecutor(place, max_num_timeout=10**6)
    again = {"requeue": True}
    made.update_parameters(job_name="baldvae", wckey=None, additional_parameters=again, **options)
    return made


def queued(place: Path) -> list[str]:
    """Return the jobs of a comparison that wait or run."""
    sent = {path.name.partition("_")[0] for path in place.glob("*_submitted.pkl")}
    if not sent:
        return []
    listed = ["squeue", "--noheader", f"--user={getuser()}", "--format=%F"]
    said = subprocess.run(listed, capture_output=True, text=True, check=False).stdout
    return sorted(sent & {*said.split()})
