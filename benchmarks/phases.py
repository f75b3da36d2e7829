"""Where the time of a round goes: by phase, and in its training by operator."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

import pandas as pd
from lightning.pytorch import Trainer
from timing import QUIET
from torch.profiler import ProfilerActivity, profile

from baldvae_pl import ActiveLearning, Classifier, Images, NoComplements, PoolDataModule, Source
from baldvae_pl.main import main
from baldvae_pl.networks import LeNet, MNISTNet
from baldvae_pl.runs.tables import read_rounds

PHASES = ("train", "evaluate", "evaluate_mc", "score", "select", "complement")


@contextmanager
def starts_of_rounds() -> Iterator[list[float]]:
    """Note when each round begins."""
    begin, noted = ActiveLearning.on_train_epoch_start, list[float]()

    def timed(self: ActiveLearning, *args: object) -> None:
        noted.append(time.perf_counter())
        begin(self, *args)  # type: ignore[arg-type]

    ActiveLearning.on_train_epoch_start = timed  # type: ignore[method-assign, assignment]
    try:
        yield noted
    finally:
        ActiveLearning.on_train_epoch_start = begin  # type: ignore[method-assign]


def phases(data: Path) -> pd.DataFrame:
    """Seconds of the round that trains with 200 labels, of the command as it is used.

    What is left is everything else: tables, TensorBoard, snapshot, map, checkpoint.
    """
    columns = {}
    for name, configs in (
        ("mnist.yaml", ["mnist"]),
        ("mnist.yaml, lenet.yaml", ["mnist", "lenet"]),
    ):
        command = ["fit", *(f"--config={config}.yaml" for config in configs)]
        command += [f"--data.root={data.resolve()}", "--acquisition.rounds=2"]
        command += ["--acquisition.complement=NoComplements", "--trainer.enable_progress_bar=false"]
        command += ["--trainer.enable_model_summary=false"]
        with tempfile.TemporaryDirectory() as folder, chdir(folder), starts_of_rounds() as starts:
            main(command)
            (table,) = Path(folder).glob("lightning_logs/*/version_0/rounds.csv")
            row = read_rounds(table)[1]
        spent = {phase: float(row[f"seconds_{phase}"]) for phase in PHASES}
        whole = starts[2] - starts[1]
        columns[name] = {**spent, "everything else": whole - sum(spent.values()), "all": whole}
    seconds = pd.DataFrame(columns)
    shares = (100 * seconds / seconds.loc["all"]).round(1).add_suffix(", %")
    return pd.concat([seconds.round(2), shares], axis=1).rename_axis("phase").reset_index()


def operators(source: Source) -> pd.DataFrame:
    """The operators in which 200 steps of training spend the most time of the CPU, in %."""
    few, columns = source._replace(test=Images(*(part[:64] for part in source.test))), {}
    for network in (MNISTNet, LeNet):
        data = PoolDataModule(lambda root: few, initial_labels=500, steps_per_round=200)
        rounds = ActiveLearning(0, 10, complement=NoComplements(), mc_samples=2)
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(**QUIET, default_root_dir=folder, callbacks=[rounds])
            with profile(activities=[ProfilerActivity.CPU]) as profiler:
                trainer.fit(Classifier(network), datamodule=data)
        spent = pd.Series(
            {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
        )
        columns[network.__name__] = 100 * spent / spent.sum()
    table = pd.DataFrame(columns).fillna(0).sort_values("MNISTNet", ascending=False)
    return table[(table > 2).any(axis=1)].round(1).rename_axis("operator").reset_index()
