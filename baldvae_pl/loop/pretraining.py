"""The VAE before round 0, and the one place that decides where it comes from."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock
from lightning.pytorch import Callback, Trainer

from baldvae_pl.data.module import PoolDataModule
from baldvae_pl.errors import SettingError
from baldvae_pl.loop.processes import dry_run, tell
from baldvae_pl.loop.progress import LiveStatus, RoundProgressBar
from baldvae_pl.modules.vae import VAE, train_vae
from baldvae_pl.runs.checkpoints import UNREADABLE, RunCheckpoint, SafeCheckpointIO, load_checkpoint
from baldvae_pl.runs.files import make_folder
from baldvae_pl.runs.folder import RunFolder
from baldvae_pl.runs.stopping import StopTogether

TAKEN_FROM_THE_RUN = ("accelerator", "devices", "num_nodes", "fast_dev_run", "enable_progress_bar",
                      "log_every_n_steps", "default_root_dir")  # fmt: skip
"""Settings of the run's trainer that the VAE's takes over."""


def load_vae(vae: VAE, run: RunFolder, checkpoint: RunCheckpoint | None) -> bool:
    """Take the weights of a VAE that is trained already, if there is one.

    A run that goes on keeps its own VAE; one that begins again has its own in ``vae.ckpt``.
    Otherwise ``--vae.ckpt_path`` may name one.

    Args:
        vae: Takes the weights over.
        run: The folder of the run.
        checkpoint: That the run goes on from, if it does.

    Raises:
        SettingError: If they cannot be loaded, or a run that goes on has none.
    """
    if checkpoint is not None and checkpoint.rounds["vae"] is not None:
        _take_over(vae, checkpoint.rounds["vae"], checkpoint.path)
    elif checkpoint is None and run.vae.is_file():
        _load(vae, run.vae)
    elif vae.ckpt_path is not None:
        _load(vae, Path(vae.ckpt_path).expanduser())
    elif checkpoint is not None:
        raise SettingError(
            f"--acquisition.complement: the run of {checkpoint.path} has no VAE. Give one by "
            "--vae.ckpt_path, or resume with the policy that the run was started with."
        )
    else:
        return False
    vae.requires_grad_(False).eval()
    return True


def provide_vae(
    vae: VAE, data: PoolDataModule, trainer: Trainer, config: Any, strategy: Any, run: RunFolder
) -> None:
    """Train the VAE, or take it from the run that did so first.

    Args:
        vae: If it has a ``shared_path``, only one of all processes trains, and the others wait.
        data: Holds W.
        trainer: The run's.
        config: The settings that the run's trainer was made with.
        strategy: A strategy like the run's; an object serves one trainer only.
        run: Keeps what was trained.
    """
    shared = Path(vae.shared_path).expanduser() if vae.shared_path else None
    turn: AbstractContextManager[Any] = nullcontext()
    if shared and trainer.is_global_zero:
        make_folder(shared.parent)
        turn = FileLock(shared.with_name(f".{shared.name}.lock"))
    launcher = trainer.strategy.launcher
    if shared and launcher is not None:  # all processes are there before one waits for its turn
        launcher.launch(trainer.strategy.setup_environment, trainer=trainer)
    with turn:
        if shared and tell(trainer, shared.is_file()):
            _load(vae, shared)
            return
        noun = "VAE epoch"
        shown: list[Callback] = [RoundProgressBar(noun)] if trainer.progress_bar_callback else []
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        if any(isinstance(callback, LiveStatus) for callback in callbacks):
            shown.append(LiveStatus(run, noun))
        # On the same machine, in float32: it takes little time.
        own = Trainer(
            **{name: config[name] for name in TAKEN_FROM_THE_RUN},
            strategy=strategy,
            logger=trainer.loggers,
            callbacks=[StopTogether(), *shown],
            max_epochs=vae.epochs,
            enable_checkpointing=False,
            enable_model_summary=False,
            plugins=[SafeCheckpointIO()],
        )
        train_vae(vae, data, own)
        if not dry_run(own):
            if shared:  # first: who has weights of its own gives others none
                own.save_checkpoint(shared, weights_only=True)
            own.save_checkpoint(run.vae, weights_only=True)


def _load(vae: VAE, path: Path) -> None:
    """Load the weights of a run's checkpoint or of a ``vae.ckpt``."""
    try:
        content = load_checkpoint(path)
        if "ActiveLearning" in content.get("callbacks", {}):
            _take_over(vae, RunCheckpoint(path, content).rounds["vae"], path)
        else:
            vae.load_state_dict(content["state_dict"])
    except SettingError:
        raise
    except UNREADABLE as error:
        raise _no_weights(path) from error


def _take_over(vae: VAE, weights: dict[str, Any], path: Path) -> None:
    try:
        vae.network.load_state_dict(weights)
    except UNREADABLE as error:
        raise _no_weights(path) from error


def _no_weights(path: Path) -> SettingError:
    return SettingError(
        f"--vae.ckpt_path: '{path}' holds no weights for this --vae.network. Give the vae.ckpt or "
        "last.ckpt of a run with the same VAE, or leave it out to train one."
    )
