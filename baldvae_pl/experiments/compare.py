"""`baldvae compare`: methods × seeds, each an ordinary run in a folder of its own."""

import contextlib
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from filelock import FileLock
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from baldvae_pl.cli.configs import find_config, find_yaml
from baldvae_pl.errors import SettingError
from baldvae_pl.experiments.arguments import parse_compare
from baldvae_pl.experiments.run import Run
from baldvae_pl.experiments.starting import get_ready
from baldvae_pl.main import WAITING
from baldvae_pl.runs.folder import RUNS, experiment_part
from baldvae_pl.runs.settings import check_begun


def main(args: Sequence[str]) -> None:
    """Parse the command line, make the runs that are missing, and the report."""
    chosen, options = parse_compare(args)
    configs = [
        [config] if Path(find_config(config)).is_file() else config.split("+")
        for config in dict.fromkeys(chosen.configs)
    ]
    names = ["+".join(experiment_part(find_yaml(name)) for name in config) for config in configs]
    if not chosen.list and chosen.slurm is None:
        get_ready(chosen.jobs)
    folder = chosen.folder or Path(RUNS, "compare", "-".join(names))
    runs = planned_runs(configs, chosen, folder, options)
    if chosen.list:
        print(*dict.fromkeys(f"{run.method}:{run.seed}" for run in runs), sep="\n")
        return
    check_all_begun(runs)
    if chosen.slurm is not None and (left := [run for run in runs if run.done() < run.rounds]):
        from baldvae_pl.experiments.cluster import submit

        submit(left, folder.absolute(), chosen.baseline, chosen.slurm)
        return
    first = pair_up(runs)
    check_all_begun(first)
    failed, waiting = work([*first, *runs], chosen.jobs)
    failed = [run for run in failed if run not in first]  # others go on without
    if chosen.only is None and any(run.done() for run in runs):
        write_report(folder, chosen.baseline)
    if failed:
        logs = "\n".join(f"  {run.log}: {last_line(run.log)}" for run in failed)
        raise SettingError(
            f"{len(failed)} of {len(runs)} runs failed:\n{logs}\nFix the cause and give the same "
            "command again; what is finished is not repeated."
        )
    if waiting:
        print(
            f"{len(waiting)} of {len(runs)} runs wait for answers: {', '.join(map(str, waiting))}"
        )
        sys.exit(WAITING)


def planned_runs(
    configs: Sequence[list[str]], chosen: Any, folder: Path, options: list[str]
) -> list[Run]:
    """Return the runs of a comparison, or the ones that ``--only`` names.

    Raises:
        SettingError: If two have one name, or ``--only`` names none.
    """
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
    if chosen.only is None:
        return runs
    only = [run for run in runs if f"{run.method}:{run.seed}" == chosen.only]
    if not only:
        methods = " ".join(dict.fromkeys(run.method for run in runs))
        raise SettingError(
            f"--only: {chosen.only} is none of the methods and seeds. Give METHOD:SEED, one of "
            f"{methods} and one of {' '.join(map(str, chosen.seeds))}."
        )
    return only


def check_all_begun(runs: Sequence[Run]) -> None:
    """Raise a SettingError if one of the runs was begun with other settings."""
    for run in runs:
        if not run.changed:
            check_begun(run.folder, run.settings)


def pair_up(runs: Sequence[Run]) -> list[Run]:
    """Find for each run another one that it is, too, as long as they are alike.

    One with a VAE goes before one without, to which a VAE would come too late.

    Returns:
        Further runs, each of a first round that several have in common.
    """
    from baldvae_pl.experiments.sharing import may_share, may_share_first_round, needs_vae

    ordered = [run for run in runs if not run.changed]
    ordered.sort(key=lambda run: not needs_vae(run.flat))
    for number, run in enumerate(ordered):
        earlier = (other for other in ordered[:number] if other.place == run.place)
        run.before = next((other for other in earlier if may_share(run.flat, other.flat)), None)
    left = [run for run in ordered if run.before is None]
    first = []
    while left:
        leader, *others = left  # whatever is begun, so that it is always the same
        alike = [leader]
        for run in others:
            if run.place == leader.place and may_share_first_round(run.flat, leader.flat):
                alike.append(run)
        left = [run for run in others if run not in alike]
        missing = [run for run in alike if not run.is_begun]
        if len(alike) > 1 and missing:
            made = leader.first_round()
            if made.done() or len(missing) > 1:
                first.append(made)
                for run in missing:
                    run.before = made
    return first


def shared_rounds(run: Run) -> tuple[int, Run | None]:
    """Let a run that is not begun go on from an earlier one.

    Returns:
        How many rounds it has then, and from which one: the one that has the most in common with
        it, or what that one went on from itself.
    """
    from baldvae_pl.experiments.sharing import share

    before = None if run.is_begun else run.before
    while before is not None:
        if rounds := share(run.folder, run.settings, run.rounds, before.folder):
            return rounds, before
        before = before.before
    return 0, None


def work(runs: Sequence[Run], jobs: int) -> tuple[list[Run], list[Run]]:
    """Make all runs, so many at once.

    Returns:
        Those that failed, and those that wait for answers.
    """
    queue = [run for run in runs if run.done() < run.rounds]
    running: dict[BaseProcess, Run] = {}
    failed: list[Run] = []
    waiting: list[Run] = []
    with progress_bar() as progress, contextlib.ExitStack() as at_the_end:
        at_the_end.callback(stop, running)
        many = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
        task = progress.add_task(many, total=sum(run.rounds for run in runs))
        progress.update(task, completed=sum(run.done() for run in runs))
        while queue or running:
            for run in list(queue):
                waits = run.folder.is_locked() or run.waits([*queue, *running.values()])
                if len(running) < jobs and not waits:
                    queue.remove(run)
                    rounds, before = shared_rounds(run)
                    if before is not None:
                        what = "1 round" if rounds == 1 else f"{rounds} rounds"
                        said = f"{run} goes on from {what} of {before}"
                        progress.console.print(said, highlight=False)
                    running[run.start()] = run
            if running:
                wait([process.sentinel for process in running], timeout=2)
            else:  # another comparison works on the rest
                time.sleep(2)
            for process in [process for process in running if process.exitcode is not None]:
                run = running.pop(process)
                if process.exitcode == WAITING:
                    waiting.append(run)
                elif run.done() < run.rounds and run.folder.is_locked():
                    queue.append(run)  # another process works on it
                    continue
                elif run.done() < run.rounds:
                    failed.append(run)
                outcome = "failed" if run in failed else "is finished"
                outcome = "waits for answers" if run in waiting else outcome
                left = progress.tasks[0].time_remaining
                minutes = "" if left is None else f", about {left / 60:.0f} minutes"
                to_go = len(queue) + len(running)
                said = f"{run} {outcome}, {to_go} {'run' if to_go == 1 else 'runs'} to go{minutes}"
                progress.console.print(said, highlight=False)
            queue = [run for run in queue if run.done() < run.rounds]
            progress.update(task, completed=sum(run.done() for run in runs))
    return failed, waiting


@contextlib.contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show how many rounds of how many are done, and the time that is left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    time_left = (TextColumn("rounds, time left"), TimeRemainingColumn())
    with Progress(*columns, *time_left, speed_estimate_period=7200) as progress:
        yield progress


def stop(running: Collection[BaseProcess]) -> None:
    """End what still runs; it goes on from its last round when the comparison does."""
    for process in running:
        process.terminate()
    for process in running:
        process.join()


def write_report(folder: Path, baseline: str) -> None:
    """Write the report of a comparison, one process at a time."""
    from baldvae_pl.experiments import writing

    with FileLock(folder / ".lock"):  # others may end in this moment too
        writing.write(folder, folder, baseline=baseline)
    print(f"The results are in {folder / 'report.md'}")


def last_line(log: Path) -> str:
    """Return the last line of a log that is not blank."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""
