"""The `baldvae` command: the one place where everything meets."""

import copy
import errno
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from jsonargparse.typing import restricted_number_type
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger

from baldvae_pl import __version__
from baldvae_pl.cli.parser import Parser, ShippedConfigFile, check_not_null
from baldvae_pl.data.module import PoolDataModule
from baldvae_pl.errors import SettingError, as_list, refused
from baldvae_pl.loop.predictions import Predictions
from baldvae_pl.loop.pretraining import provide_vae
from baldvae_pl.loop.progress import RoundProgressBar
from baldvae_pl.loop.rounds import ActiveLearning
from baldvae_pl.loop.trial import check_no_limits
from baldvae_pl.modules.classifier import VAE, Classifier
from baldvae_pl.runs.checkpoints import VAE_WEIGHTS, SafeCheckpointIO, read_checkpoint
from baldvae_pl.runs.resuming import (
    RunSettings,
    check_begun,
    check_goes_on,
    check_same_run,
    claim,
    last_of,
    name_of,
    run_folder,
)
from baldvae_pl.runs.stopping import Stopped, StopTogether, say_how_to_go_on, stop_on_signals

RUNS = "lightning_logs"
OF_MANY_RUNS = ("compare", "report")
"""Commands beside those of Lightning's Trainer."""
EPILOG = "Of many runs: baldvae compare --help, baldvae report --help."
Seed = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32)])


def main(args: list[str] | None = None) -> None:
    """Run `baldvae`; bad settings end it with one sentence and exit code 1 or 2."""
    for text in (
        "does not have many workers",  # gathering tensors is faster than worker processes
        "Found .* module.* in eval mode",  # the frozen VAE
        "exists and is not empty",  # a resumed run goes on in its own folder
        "The dirpath has changed from",  # predicting writes no checkpoints
        "LightningCLI's args parameter",  # `compare` parses the settings of its runs
        ".*isinstance\\(treespec, LeafSpec\\)",  # Lightning's, since torch 2.9
    ):
        warnings.filterwarnings("ignore", f".*{text}")
    sys.path.append(str(Path.cwd()))  # so that `my_file.my_function` here is an import path
    stop_on_signals()
    command, *rest = [*(sys.argv[1:] if args is None else args), ""]
    try:
        if command in OF_MANY_RUNS:  # which a run needs not wait to import
            import_module(f"baldvae_pl.experiments.{command}").main(rest[:-1])
        else:
            make_cli(BaldVAECLI, args)
    except (SettingError, MisconfigurationException) as error:
        sys.exit(f"baldvae: error: {error}")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        say_how_to_go_on()
        sys.exit(f"baldvae: error: {error}. Make room on the disk.")
    except Stopped:
        say_how_to_go_on()
        raise


CLI = TypeVar("CLI", bound="BaldVAECLI")


def make_cli(cli: type[CLI], args: list[str] | None) -> CLI:
    """Return the command line, which has run what it says."""
    return cli(
        Classifier,
        PoolDataModule,
        auto_configure_optimizers=False,
        trainer_defaults={
            "num_sanity_val_steps": 0,  # settings are checked before any training
        },
        save_config_callback=None,  # ours is written before the VAE is trained
        parser_kwargs={"version": __version__, "epilog": EPILOG},
        args=args,
    )


class BaldVAECLI(LightningCLI):
    """LightningCLI with the sections ``acquisition`` and ``vae``."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the commands and the parameters that are not options."""
        commands = LightningCLI.subcommands()
        fixed = {"weights_only", "return_predictions"}  # no checkpoint may hold code
        return {name: parameters | fixed for name, parameters in commands.items()}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Return a parser whose ``--config`` also finds shipped files."""
        parser = Parser(**kwargs)
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
        parser.add_argument(
            "--resume_changed",
            type=bool,
            default=False,
            help="Go on with a run although settings, images or code are not those it began with.",
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
        check_not_null(config, acquisition=ActiveLearning, data=PoolDataModule, vae=VAE)
        check_not_null(config, model=Classifier)
        check_no_limits(config.trainer)
        self.experiment = "+".join(map(name_of, config.config or [])) or "default"
        self.runs = Path(config.trainer.default_root_dir or ".").absolute() / RUNS
        # The saved config starts a run like this one, so it does not name what to resume.
        self.ckpt_path, config.ckpt_path = config.ckpt_path, None
        self.changed, config.resume_changed = config.resume_changed, False
        self.settings = self._parser(self.subcommand).dump(config, skip_none=False)
        self.run: Path | None = None  # an existing folder that this start goes on in
        if self.ckpt_path == "last":
            fits = self.subcommand == "fit"
            self.run, self.ckpt_path = last_of(self.runs / self.experiment, begins_again=fits)
            if self.ckpt_path is None and not self.changed:
                check_begun(self.run, self.settings)
        if self.ckpt_path is not None:
            self.checkpoint = read_checkpoint(Path(self.ckpt_path))
            folder = Path(self.ckpt_path).resolve().parent
            self.run = folder.parent if folder.name == "checkpoints" else None

    def instantiate_classes(self) -> None:
        """Make everything; what Lightning or torch refuse is the user's to mend."""
        with refused("--trainer"):
            super().instantiate_classes()

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
        callbacks += [RunSettings(self.settings), StopTogether()]
        kwargs["plugins"] = [*as_list(config.plugins), SafeCheckpointIO()]
        self.vae_strategy = copy.deepcopy(config.strategy)  # an object serves one trainer only
        kwargs["max_epochs"] = self._get(self.config_init, "acquisition").rounds + 1
        return super().instantiate_trainer(**kwargs)

    def _logger(self) -> TensorBoardLogger:
        """Return the logger of a new run, or of the run that the checkpoint lies in."""
        folder, name, version = self.runs, self.experiment, None
        if self.run is not None:
            folder, name, version = self.run.parent.parent, self.run.parent.name, self.run.name
        part = None if self.subcommand == "fit" else self.subcommand  # keeps the run's own curves
        return TensorBoardLogger(str(folder), name, version, default_hp_metric=False, sub_dir=part)

    def before_fit(self) -> None:
        """Check everything that can be checked cheaply, then train the VAE if it is needed."""
        if self.ckpt_path is not None and not self.changed:
            check_same_run(self.checkpoint, self.settings, self.ckpt_path)
        self._prepare()
        rounds: ActiveLearning = self._get(self.config_init, "acquisition")
        if self.ckpt_path is not None:
            check_goes_on(self.checkpoint, rounds.rounds)
        rounds.check(self.trainer, self.model, self.datamodule)
        vae: VAE = self._get(self.config_init, "vae")
        for setting, module in (("--model.optimizer", self.model), ("--vae.optimizer", vae)):
            with refused(setting):
                module.configure_optimizers()
        folder = run_folder(self.trainer)
        weights = folder / "checkpoints" / VAE_WEIGHTS
        needed, resumes = rounds.complement.needs_vae, self.ckpt_path is not None
        given = vae.ckpt_path
        if resumes and self.checkpoint["callbacks"]["ActiveLearning"]["vae"] is not None:
            given = self.ckpt_path  # a run keeps its VAE
        elif self.run is not None and not resumes and weights.is_file():
            given = str(weights)  # trained before the run was stopped
        if needed and given is not None:
            vae.load(given)
        elif needed and resumes:
            raise SettingError(
                f"--acquisition.complement: the run of {self.ckpt_path} has no VAE. Give one by "
                "--vae.ckpt_path, or resume with the policy that the run was started with."
            )
        self.checkpoint = {}  # Lightning reads its own
        if self.trainer.is_global_zero and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.lock = claim(folder, self.settings)
        if needed and given is None:
            config = self.config_init[self.subcommand].trainer
            provide_vae(vae, self.datamodule, self.trainer, config, self.vae_strategy, weights)

    def after_fit(self) -> None:
        """Leave the run folder to others, and say where it is."""
        if hasattr(self, "lock"):
            self.lock.release()
            print(f"The results are in {Path(self.lock.lock_file).parent}")

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
            self.datamodule.changed = self.changed
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
