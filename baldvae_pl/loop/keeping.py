"""What a round leaves: in the folder of the run, and with the loggers."""

from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info

from baldvae_pl.complement import Purchase
from baldvae_pl.loop.dashboard import log_pictures, log_round
from baldvae_pl.loop.processes import dry_run, pool_data
from baldvae_pl.loop.projector import map_of, write_map
from baldvae_pl.loop.purchase import TrainedRound
from baldvae_pl.runs.folder import RunFolder
from baldvae_pl.runs.records import in_one_line, write_acquisitions, write_log, write_rounds
from baldvae_pl.runs.snapshots import Snapshot, read_snapshot, write_snapshot


def keep_snapshot(round: TrainedRound, folder: RunFolder, snapshot: Snapshot) -> None:
    """Keep what a round looked like, for reports."""
    trainer = round.each.trainer
    if trainer.is_global_zero and not dry_run(trainer):
        write_snapshot(folder.snapshot(round.number), snapshot)


def snapshot_of(round: TrainedRound, folder: RunFolder) -> Snapshot | None:
    """Return what a round looked like before its purchase, on every process."""
    path = folder.snapshot(round.number)
    return round.each.once(lambda: read_snapshot(path))


def keep_map(round: TrainedRound, purchase: Purchase) -> None:
    """Show in TensorBoard's projector where the purchase lies."""
    trainer = round.each.trainer
    loggers = [each for each in trainer.loggers if isinstance(each, TensorBoardLogger)]
    if loggers and not dry_run(trainer):
        points = map_of(round, purchase)
        for logger in loggers if trainer.is_global_zero else []:
            write_map(points, Path(logger.log_dir))


def keep_records(trainer: Trainer, folder: RunFolder, history: list[dict[str, float]]) -> None:
    """Log the newest row, if there is one, and write the run's CSV files."""
    if not history:
        return
    log_round(trainer, history[-1])
    rank_zero_info(in_one_line(history[-1]))
    write_tables(trainer, folder, history)
    if not dry_run(trainer):
        log_pictures(trainer, folder, history[-1])


def write_tables(trainer: Trainer, folder: RunFolder, history: list[dict[str, float]]) -> None:
    """Write the run's CSV files, as far as it is."""
    if trainer.is_global_zero and not dry_run(trainer):
        data = pool_data(trainer)
        write_rounds(folder.rounds, history)
        write_log(folder.log, history)
        write_acquisitions(folder.acquisitions, data.pool, history, data.files)
