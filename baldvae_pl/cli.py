"""The `baldvae` command: the one place where everything meets."""

import copy
import sys
import warnings
from importlib import resources
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]
from jsonargparse.typing import restricted_number_type
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import (
    ArgsType,
    LightningArgumentParser,
    LightningCLI,
    SaveConfigCallback,
)
from lightning.pytorch.loggers import TensorBoardLogger

from baldvae_pl import __version__
from baldvae_pl.checkpoints import SafeCheckpointIO, newest_checkpoint, read_checkpoint
from baldvae_pl.data import PoolDataModule
from baldvae_pl.modules import VAE, Classifier, train_vae
from baldvae_pl.predictions import Predictions
from baldvae_pl.progress import RoundProgressBar
from baldvae_pl.rounds import ActiveLearning
from baldvae_pl.settings import SettingError

RUNS = "lightning_logs"
Seed = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32)])


def main(args: ArgsType = None) -> None:
    """Run `baldvae`; bad settings end it with one sentence and exit code 1 or 2."""
    for text in (
        "does not have many workers",  # gathering tensors is faster than worker processes
        "Found .* module.* in eval mode",  # the frozen VAE
        "exists and is not empty",  # a resumed run goes on in its own folder
        "The dirpath has changed from",  # predicting writes no checkpoints
        ".*isinstance\\(treespec, LeafSpec\\)",  # Lightning's, since torch 2.9
    ):
        warnings.filterwarnings("ignore", f".*{text}")
    sys.path.append(str(Path.cwd()))  # so that `my_file.my_function` here is an import path
    try:
        BaldVAECLI(
            Classifier,
            PoolDataModule,
            auto_configure_optimizers=False,
            trainer_defaults={
                "num_sanity_val_steps": 0,  # settings are checked before any training
            },
            save_config_callback=SaveRunConfig,
            save_config_kwargs={"overwrite": True},  # a resumed run may have more rounds
            parser_kwargs={"version": __version__},
            args=args,
        )
    except (SettingError, MisconfigurationException) as error:
        sys.exit(f"baldvae: error: {error}")


class SaveRunConfig(SaveConfigCallback):
    """Leaves ``config.yaml`` in the run folder: that of the fit, not of a later test."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save the configuration before the first round."""
        if stage == "fit":
            super().setup(trainer, pl_module, stage)


class ShippedConfigFile(ActionConfigFile):
    """``--config NAME``: a file here, else one of those that come with the package."""

    def __call__(self, parser: Any, config: Any, values: Any, option_string: Any = None) -> None:
        """Look the name up and parse the file."""
        super().__call__(parser, config, find_config(values), option_string)  # type: ignore[no-untyped-call]


def shipped_configs() -> Path:
    """Return the folder of the shipped configs: in the package, or in its checkout."""
    package = Path(str(resources.files("baldvae_pl")))
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def find_config(name: str) -> str:
    """Return the path that ``--config name`` means."""
    shipped = shipped_configs() / name
    return str(shipped) if not Path(name).is_file() and shipped.is_file() else name


class BaldVAECLI(LightningCLI):
    """LightningCLI with the sections ``acquisition`` and ``vae``."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the commands and the parameters that are not options."""
        commands = LightningCLI.subcommands()
        return {**commands, "predict": {*commands["predict"], "return_predictions"}}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Return a parser whose ``--config`` also finds shipped files."""
        parser = LightningArgumentParser(**kwargs)
        parser.add_argument(
            "-c",
            "--config",
            action=ShippedConfigFile,
            help="YAML file, here or shipped such as digits.yaml; several overlay each other.",
        )
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add our sections; what follows from another setting is linked."""
        parser.add_lightning_class_args(ActiveLearning, "acquisition")
        parser.add_class_arguments(VAE, "vae")
        parser.add_lightning_class_args(Predictions, "predictions")
        parser.add_argument(
            "--checkpoint_every_round",
            type=bool,
            default=False,
            help="Keep the checkpoint of every round beside last.ckpt.",
        )
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)
        parser.link_arguments("vae.network", "acquisition.vae", apply_on="instantiate")

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the one seed that every random step derives its own from."""
        parser.add_argument(
            "--seed_everything",
            type=Seed,
            default=0,
            help="Seed of the whole run: the same configuration and seed give the same results.",
        )

    def _parse_ckpt_path(self) -> None:
        """Take no settings from a checkpoint: the configuration says them all."""

    def before_instantiate_classes(self) -> None:
        """Settle where the run lives and whether it resumes."""
        config = self.config[self.subcommand]
        if config.trainer.max_epochs is not None:
            raise SettingError(
                f"--trainer.max_epochs: {config.trainer.max_epochs} may not be set, it follows "
                "from --acquisition.rounds. Set that instead."
            )
        files = [Path(str(path)).stem for path in config.config or []]
        self.experiment = "+".join(files) or "default"
        self.runs = Path(config.trainer.default_root_dir or ".").absolute() / RUNS
        # The saved config starts a run like this one, so it does not name what to resume.
        self.ckpt_path, config.ckpt_path = config.ckpt_path, None
        if self.ckpt_path == "last":
            self.ckpt_path = str(newest_checkpoint(self.runs / self.experiment))
        if self.ckpt_path is not None:
            self.checkpoint = read_checkpoint(self.ckpt_path)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Return the trainer, with our logger and progress bar unless the user chose others."""
        config = self.config_init[self.subcommand].trainer
        callbacks = config.callbacks = as_list(config.callbacks)
        if config.enable_progress_bar is not False and not any(
            isinstance(callback, ProgressBar) for callback in callbacks
        ):
            callbacks.append(RoundProgressBar())
        every_round = self._get(self.config_init, "checkpoint_every_round")
        checkpoint = ModelCheckpoint(
            filename="round={epoch}" if every_round else "last",
            auto_insert_metric_name=False,
            save_last=every_round,
            save_top_k=-1,  # removes nothing; without numbers in its name a file is replaced
            save_on_train_epoch_end=True,  # after the purchase
            enable_version_counter=False,
        )
        if any(getattr(c, "state_key", None) == checkpoint.state_key for c in callbacks):
            raise SettingError(
                "--trainer.callbacks: a ModelCheckpoint like this is there already. Use "
                "--checkpoint_every_round true to keep more than the last one."
            )
        if config.enable_checkpointing is not False:
            callbacks.append(checkpoint)
        if config.logger in (None, True):
            kwargs["logger"] = self.subcommand != "predict" and self._logger()
        kwargs["plugins"] = [*as_list(config.plugins), SafeCheckpointIO()]
        self.vae_strategy = copy.deepcopy(config.strategy)  # an object serves one trainer only
        kwargs["max_epochs"] = self._get(self.config_init, "acquisition").rounds + 1
        return super().instantiate_trainer(**kwargs)

    def _logger(self) -> TensorBoardLogger:
        """Return the logger of a new run, or of the run that the checkpoint lies in."""
        folder, name, version = self.runs, self.experiment, None
        checkpoints = Path(self.ckpt_path or ".").resolve().parent
        if self.ckpt_path is not None and checkpoints.name == "checkpoints":
            run = checkpoints.parent
            folder, name, version = run.parent.parent, run.parent.name, run.name
        part = None if self.subcommand == "fit" else self.subcommand  # keeps the run's own curves
        return TensorBoardLogger(str(folder), name, version, default_hp_metric=False, sub_dir=part)

    def before_fit(self) -> None:
        """Check everything that can be checked cheaply, then train the VAE if it is needed."""
        self._prepare()
        rounds: ActiveLearning = self._get(self.config_init, "acquisition")
        rounds.check(self.trainer, self.model, self.datamodule)
        vae: VAE = self._get(self.config_init, "vae")
        needed, resumes = rounds.complement.needs_vae, self.ckpt_path is not None
        given = vae.ckpt_path
        if resumes and self.checkpoint["callbacks"]["ActiveLearning"]["vae"] is not None:
            given = self.ckpt_path  # a run keeps its VAE
        if needed and given is not None:
            vae.load(given)
        elif needed and resumes:
            raise SettingError(
                f"--acquisition.complement: the run of {self.ckpt_path} has no VAE. Give one by "
                "--vae.ckpt_path, or resume with the policy that the run was started with."
            )
        self._check_writable()
        if needed and given is None:
            self._train_vae(vae)

    def before_validate(self) -> None:
        """Check the data and the checkpoint."""
        self._need_checkpoint()
        self._prepare()

    before_test = before_validate

    def before_predict(self) -> None:
        """Check the folder and the checkpoint; the run's own images are not needed."""
        self._need_checkpoint()
        if self.datamodule.predict_folder is None:
            raise SettingError("--data.predict_folder: predict needs a folder of images. Name it.")
        self._check_weights()

    def _need_checkpoint(self) -> None:
        if self.ckpt_path is None:
            raise SettingError(
                f"--ckpt_path: {self.subcommand} needs a trained run. Give the path of its "
                "checkpoint, or `last` for the newest run of this experiment."
            )

    def _prepare(self) -> None:
        """Load the data and check the checkpoint against them and the network."""
        self.datamodule.prepare_data()
        self.datamodule.setup("fit")
        if self.ckpt_path is not None:
            self.datamodule.check(self.checkpoint["PoolDataModule"])
            self._check_weights()

    def _check_weights(self) -> None:
        self.config_init[self.subcommand].ckpt_path = self.ckpt_path
        try:
            self.model.load_state_dict(self.checkpoint["state_dict"])
        except RuntimeError as error:
            raise SettingError(
                f"--ckpt_path: the weights in {self.ckpt_path} are of another network than "
                "--model.network. Use the configuration that the run left in its config.yaml."
            ) from error

    def _check_writable(self) -> None:
        folder = Path(self.trainer.log_dir or self.trainer.default_root_dir)
        if not self.trainer.is_global_zero:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ".writable").touch()
            (folder / ".writable").unlink()
        except OSError as error:
            raise SettingError(
                f"--trainer.default_root_dir: the run folder {folder} cannot be written ({error}). "
                "Name a folder that can."
            ) from error

    def _train_vae(self, vae: VAE) -> None:
        # A trainer of its own on the same machine, in float32: it takes little time.
        config = self.config_init[self.subcommand].trainer
        same = ("accelerator", "devices", "num_nodes", "fast_dev_run", "enable_progress_bar",
                "log_every_n_steps", "default_root_dir")  # fmt: skip
        bar = RoundProgressBar("VAE epoch") if self.trainer.progress_bar_callback else None
        trainer = Trainer(
            **{name: config[name] for name in same},
            strategy=self.vae_strategy,
            logger=self.trainer.loggers,
            callbacks=bar and [bar],
            max_epochs=vae.epochs,
            enable_checkpointing=False,
            enable_model_summary=False,
            plugins=[SafeCheckpointIO()],
        )
        train_vae(vae, self.datamodule, trainer)
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            folder = Path(self.trainer.log_dir or self.trainer.default_root_dir) / "checkpoints"
            trainer.save_checkpoint(folder / "vae.ckpt", weights_only=True)


def as_list(value: Any) -> list[Any]:
    """Return what a setting of one or several things holds."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
