"""Guards after each round: scores can be ranked, processes agree."""

from torch import Tensor

from baldvae_pl.errors import SettingError
from baldvae_pl.loop.processes import Processes
from baldvae_pl.pool import Pool


def check_scores(scores_N: Tensor, priorities_N: Tensor, round: int, ranked: bool) -> None:
    """Raise a SettingError if scores are not finite, or are all 0 and were to rank by."""
    if not scores_N.isfinite().all():
        raise SettingError(
            f"--trainer.precision: the scores of round {round} are not finite, as the network's "
            "outputs overflow. Take 32-true or bf16-mixed, or a lower learning rate."
        )
    if not priorities_N.isfinite().all():
        raise SettingError(
            f"--acquisition.function: its scores of round {round} are not finite. Fix it: a "
            "probability may be 0, and its logarithm -inf."
        )
    if ranked and scores_N.max() == 0:
        raise SettingError(
            f"--model.network: after round {round} all posterior draws agree on every image; there "
            "is nothing to rank them by. Take more dropout or a lower learning rate."
        )


def check_agreement(each: Processes, pool: Pool) -> None:
    """Raise a RuntimeError if the processes do not hold the same pools."""
    trainer = each.trainer
    if trainer.world_size == 1:
        return
    own = pool.digest()
    if trainer.strategy.broadcast(own) != own:
        raise RuntimeError(
            f"after round {trainer.current_epoch} process {trainer.global_rank} holds other pools "
            "than process 0; this is a bug of baldvae or of the oracle, acquisition function or "
            "posterior that was given"
        )
