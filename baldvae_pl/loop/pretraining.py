"""The VAE before round 0: trained by a trainer of its own, once for a run or for several runs."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock
from lightning.pytorch import Trainer

from baldvae_pl.data.module import PoolDataModule
from baldvae_pl.errors import as_list
from baldvae_pl.loop.progress import RoundProgressBar
from baldvae_pl.modules.classifier import VAE, train_vae
from baldvae_pl.runs.checkpoints import SafeCheckpointIO
from baldvae_pl.runs.stopping import StopTogether

SAME = ("accelerator", "devices", "num_nodes", "fast_dev_run", "enable_progress_bar",
        "log_every_n_steps", "default_root_dir")  # fmt: skip
"""Settings of the run's trainer that the VAE's takes over."""


def provide_vae(
    vae: VAE, data: PoolDataModule, trainer: Trainer, config: Any, strategy: Any, weights: Path
) -> None:
    """Train the VAE, or take it from the run that did so first.

    Args:
        vae: If it has a ``shared_path``, only one of all processes trains, and the others wait.
        data: Holds W.
        trainer: The run's.
        config: The settings that the run's trainer was made with.
        strategy: A strategy like the run's; an object serves one trainer only.
        weights: Where to keep what was trained.
    """
    shared = Path(vae.shared_path) if vae.shared_path else None
    turn: AbstractContextManager[Any] = nullcontext()
    if shared and trainer.is_global_zero:  # which starts the run's other processes only then
        shared.parent.mkdir(parents=True, exist_ok=True)
        turn = FileLock(shared.with_name(f".{shared.name}.lock"))
    with turn:
        if shared and shared.is_file():
            vae.load(str(shared))
            return
        bar = RoundProgressBar("VAE epoch") if trainer.progress_bar_callback else None
        # On the same machine, in float32: it takes little time.
        own = Trainer(
            **{name: config[name] for name in SAME},
            strategy=strategy,
            logger=trainer.loggers,
            callbacks=[StopTogether(), *as_list(bar)],
            max_epochs=vae.epochs,
            enable_checkpointing=False,
            enable_model_summary=False,
            plugins=[SafeCheckpointIO()],
        )
        train_vae(vae, data, own)
        if not own.fast_dev_run:  # type: ignore[attr-defined]
            if shared:  # first: who has weights of its own gives others none
                own.save_checkpoint(shared, weights_only=True)
            own.save_checkpoint(weights, weights_only=True)
