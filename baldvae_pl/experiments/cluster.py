"""Runs of a comparison as jobs of Slurm: one array, and the report after it."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
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


def submit(runs: Sequence[Run], folder: Path, baseline: str, parameters: Sequence[str]) -> None:
    """Send runs to Slurm, and their report for when the last has ended, without waiting.

    Args:
        runs: That are not finished; one job each.
        folder: Of the comparison, where all nodes reach it.
        baseline: Of the report.
        parameters: Options of ``sbatch`` as submitit names them, each ``KEY=VALUE``.

    Raises:
        SettingError: If there is no Slurm or no submitit here, or a parameter is refused.
    """
    try:
        import submitit
    except ImportError as error:
        raise SettingError("--slurm: needs submitit. pip install 'baldvae[slurm]'") from error
    if not (shutil.which("sbatch") and shutil.which("srun")):
        raise SettingError("--slurm: there is no sbatch here. Start it where jobs are sent from.")
    options: dict[str, Any] = {}
    for parameter in parameters:
        key, equals, value = parameter.partition("=")
        options[key] = int(value) if value.isdecimal() else value
        if not equals:
            raise SettingError(f"--slurm: {parameter} is not KEY=VALUE, such as time=60.")
    if "time" not in options:
        raise SettingError("--slurm: say how many minutes a job may take, such as time=60.")
    executor = submitit.SlurmExecutor(folder / "slurm")
    executor.update_parameters(
        job_name="baldvae", wckey=None, additional_parameters={"requeue": True}
    )
    try:
        executor.update_parameters(**options)
        for run in runs:
            make_folder(run.folder.path)
        commands = [Command([*run.arguments, "--ckpt_path=last"], run.log) for run in runs]
        array = executor.submit_array(commands)[0].job_id.partition("_")[0]
        executor.update_parameters(dependency=f"afterany:{array}")
        report = ["report", str(folder), f"--baseline={baseline}"]
        after = executor.submit(Command(report, folder / "report.log"))
    except (ValueError, submitit.core.utils.FailedJobError) as error:
        raise SettingError(f"--slurm: {' '.join(str(error).split())}") from error
    many = "1 run is" if len(runs) == 1 else f"{len(runs)} runs are"
    print(f"{many} sent as job {array}, their report as job {after.job_id}.")
