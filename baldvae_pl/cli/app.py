"""The commands of Lightning's Trainer, with our sections: the one place where everything meets."""

import copy
import inspect
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jsonargparse.typing import restricted_number_type
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from typing_extensions import override

from baldvae_pl import __version__
from baldvae_pl.cli.configs import method_names
from baldvae_pl.cli.parser import Parser, ShippedConfigFile, check_not_null
from baldvae_pl.data.module import PoolDataModule
from baldvae_pl.data.question_file import end_question
from baldvae_pl.errors import SettingError, refused
from baldvae_pl.loop.predictions import Predictions
from baldvae_pl.loop.pretraining import load_vae, provide_vae
from baldvae_pl.loop.processes import dry_run
from baldvae_pl.loop.progress import LiveStatus, RoundProgressBar
from baldvae_pl.loop.rounds import ActiveLearning
from baldvae_pl.modules import VAE, Classifier
from baldvae_pl.options import as_list
from baldvae_pl.runs.checkpoints import (
    RunCheckpoint,
    SafeCheckpointIO,
    newest_checkpoint,
    read_checkpoint,
)
from baldvae_pl.runs.folder import RUNS, Identity, RunFolder, experiment_part, job
from baldvae_pl.runs.resuming import (
    RunSettings,
    check_goes_on,
    check_same_run,
    newest_run,
    requeued_run,
    unfinished_run,
)
from baldvae_pl.runs.settings import LABELLED_BY_PEOPLE, check_begun
from baldvae_pl.runs.stopping import StopTogether

Seed = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32)])

REFUSED_LIMITS = {
    "max_epochs": "It follows from --acquisition.rounds, set that instead.",
    "max_time": "It would cut a round short. End the run from outside instead, as by `timeout 8h "
    "baldvae ...`: with --ckpt_path last it goes on from its last finished round.",
}
"""Settings of Lightning's Trainer that would end a run at another place, and the way out."""


FORKING = ("ddp_spawn", "ddp_fork", "ddp_notebook")
"""Strategies of Lightning's that give each process a copy of what this one holds."""


class Plan(NamedTuple):
    """A command line that is parsed, before anything is made.

    Attributes:
        settings: The whole configuration as YAML.
        changed: Whether ``--resume_changed`` was given.
        config: The configuration of the command.
    """

    settings: str
    changed: bool
    config: Any


class _Planned(Exception):  # noqa: N818
    """Carries a `Plan` out of the CLI before it makes anything."""


def run(args: list[str] | None = None) -> None:
    """Parse a command of Lightning's Trainer and run it."""
    if not torch.cuda.is_available():  # or each step of an optimizer looks for a driver's library
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    make_cli(BaldVAECLI, args)


def plan(args: list[str]) -> Plan:
    """Parse a command and make nothing."""
    logging.disable(logging.INFO)  # "Seed set to 0"
    try:
        make_cli(_Planner, args)
    except _Planned as planned:
        found: Plan = planned.args[0]
        return found
    finally:
        logging.disable(logging.NOTSET)
    raise AssertionError("unreachable")


def make_cli(cli: "type[BaldVAECLI]", args: list[str] | None) -> "BaldVAECLI":
    """Parse the command line and run its command."""
    Parser.arguments, Parser.places = sys.argv[1:] if args is None else args, {}
    Parser.chosen = {name: type(plugin).__name__ for name, plugin in default_plugins().items()}
    return cli(
        Classifier,
        PoolDataModule,
        auto_configure_optimizers=False,
        trainer_defaults={
            "num_sanity_val_steps": 0,  # settings are checked before any training
        },
        save_config_callback=None,  # ours is written before the VAE is trained
        parser_kwargs={"version": __version__},
        args=args,
    )


class BaldVAECLI(LightningCLI):
    """LightningCLI with the sections ``acquisition``, ``vae`` and ``predictions``."""

    @override
    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        commands = LightningCLI.subcommands()
        fixed = {"weights_only", "return_predictions"}  # no checkpoint may hold code
        # A parser for each takes half a second, so the others are made only for help and mistakes.
        asked = [name for name in Parser.arguments[:1] if name in commands] or commands
        return {name: commands[name] | fixed for name in asked}

    @override
    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        parser = Parser(**kwargs)
        parser.add_argument(
            "-c",
            "--config",
            action=ShippedConfigFile,
            help="YAML file, here or shipped such as digits.yaml; several overlay each other.",
        )
        return parser

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(ActiveLearning, "acquisition")
        parser.add_class_arguments(VAE, "vae")
        parser.add_lightning_class_args(Predictions, "predictions")
        parser.add_argument(
            "--method",
            type=str | None,
            default=None,
            help="Name of the run's method in reports; left out, it follows from the settings.",
        )
        parser.add_argument(
            "--checkpoint_every_round",
            type=bool,
            default=False,
            help="Keep the checkpoint of every round in addition to last.ckpt.",
        )
        parser.add_argument(
            "--resume_changed",
            type=bool,
            default=False,
            help="Resume even if settings, the version or the images (as many of as many classes) "
            "differ from when the run started.",
        )
        # The same defaults as in Python, in the form whose options can be set one by one.
        parser.set_defaults(
            {
                option: {"class_path": f"{type(plugin).__module__}.{type(plugin).__name__}"}
                for option, plugin in default_plugins().items()
            }
        )
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)
        parser.link_arguments("vae.network", "acquisition.vae", apply_on="instantiate")

    @override
    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--seed_everything",
            type=Seed,
            default=0,
            help="Seed of the whole run: the same configuration and seed give the same results.",
        )

    @override
    def _parse_ckpt_path(self) -> None:
        """Take no settings from a checkpoint: the configuration says them all."""

    @override
    def before_instantiate_classes(self) -> None:
        """Settle where the run lives and whether it resumes."""
        config = self.config[self.subcommand]
        check_not_null(config, acquisition=ActiveLearning, data=PoolDataModule, vae=VAE)
        check_not_null(config, model=Classifier)
        for name, way_out in REFUSED_LIMITS.items():
            if config.trainer[name] is not None:
                raise SettingError(
                    f"--trainer.{name}: {config.trainer[name]} may not be set. {way_out}"
                )
        if str(config.trainer.strategy).startswith(FORKING):
            raise SettingError(
                f"--trainer.strategy: {config.trainer.strategy} gives each process a copy of "
                "what this one holds, and a run's locks and files cannot be copied. Take ddp."
            )
        # Or Lightning writes all settings down again, for hyperparameters that no module saves.
        self.config_dump: dict[str, Any] = {}
        self.experiment = "+".join(map(experiment_part, config.config or [])) or "default"
        self.runs = Path(config.trainer.default_root_dir or ".").expanduser().absolute() / RUNS
        self.identity = identify(config)
        # The saved config starts a run like this one, so it does not name what to resume.
        ckpt_path, config.ckpt_path = config.ckpt_path, None
        self.changed, config.resume_changed = config.resume_changed, False
        self.settings = self._parser(self.subcommand).dump(config, skip_none=False)
        self.run: RunFolder | None = None  # an existing folder that this start goes on in
        self.checkpoint: RunCheckpoint | None = None
        fits, experiment = self.subcommand == "fit", self.runs / self.experiment
        source = str(getattr(config.data.source, "class_path", ""))
        self.asks_people = fits and source.rpartition(".")[2] == LABELLED_BY_PEOPLE
        if ckpt_path == "last":
            self.run, self.checkpoint = newest_run(experiment, begins_again=fits)
            if self.checkpoint is None and not self.changed:
                check_begun(self.run, self.settings)
        elif ckpt_path is not None:
            self.checkpoint = read_checkpoint(Path(ckpt_path).expanduser())
            self.run = RunFolder.containing(self.checkpoint.path)
        elif fits and (run := requeued_run(experiment, self.settings)):
            self.run, self.checkpoint = run, newest_checkpoint(run)
        elif self.asks_people:
            self.run = unfinished_run(
                experiment, self.settings, Path(config.data.root).expanduser()
            )
            self.checkpoint = None if self.run is None else newest_checkpoint(self.run)
        # What a run leaves lies in a folder of its own, whatever its logger does.
        self.folder = self.run or RunFolder.new(experiment)

    @override
    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except (SettingError, MisconfigurationException):
            raise
        except Exception as error:
            # jsonargparse puts a plug-in's own sentence into a longer one.
            text = " ".join(str(error).split())
            if own := re.search(r"- (--[\w.]+: .+?\.)(?: - | Given value)", text):
                raise SettingError(own[1]) from error
            with refused("--trainer"):
                raise
        self.datamodule.trainer = self.trainer  # which says where the pictures are embedded

    @override
    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the trainer, with our logger and progress bar unless the user chose others."""
        config = self.config_init[self.subcommand].trainer
        callbacks = config.callbacks = as_list(config.callbacks)
        if config.enable_progress_bar is not False and not any(
            isinstance(callback, ProgressBar) for callback in callbacks
        ):
            callbacks.append(RoundProgressBar())
        every_round = self._get(self.config_init, "checkpoint_every_round")
        checkpoint = ModelCheckpoint(
            dirpath=str(self.folder.checkpoints),
            filename="round={epoch}" if every_round else "last",
            auto_insert_metric_name=False,
            save_last=every_round,
            save_top_k=-1,  # removes nothing; without numbers in its name a file is replaced
            save_on_train_epoch_end=True,  # after the purchase
            enable_version_counter=False,
        )
        if any(isinstance(callback, OnExceptionCheckpoint) for callback in callbacks):
            raise SettingError(
                "--trainer.callbacks: OnExceptionCheckpoint makes checkpoints in the middle of a "
                "round. Leave it out: a run goes on from its last finished round anyway."
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
        if self.asks_people:
            callbacks.append(LiveStatus(self.folder))
        kwargs["plugins"] = [*as_list(config.plugins), SafeCheckpointIO(self.checkpoint)]
        self.vae_strategy = copy.deepcopy(config.strategy)  # an object serves one trainer only
        rounds = self._get(self.config_init, "acquisition").rounds
        kwargs["max_epochs"] = -1 if rounds is None else rounds + 1
        config.default_root_dir = str(self.folder.path)
        return super().instantiate_trainer(**kwargs)

    def _logger(self) -> TensorBoardLogger:
        """Make the logger of a new run, or of the run that the checkpoint lies in."""
        path = self.folder.path
        folder, name, version = path.parent.parent, path.parent.name, path.name
        part = None if self.subcommand == "fit" else self.subcommand  # keeps the run's own curves
        return TensorBoardLogger(str(folder), name, version, default_hp_metric=False, sub_dir=part)

    def before_fit(self) -> None:
        """Check everything that can be checked cheaply, then train the VAE if it is needed."""
        if self.checkpoint is not None and not self.changed:
            check_same_run(self.checkpoint, self.settings)
        self._prepare()
        rounds: ActiveLearning = self._get(self.config_init, "acquisition")
        if self.checkpoint is not None:
            check_goes_on(self.checkpoint, rounds.rounds)
        vae: VAE = self._get(self.config_init, "vae")
        rounds.check(self.trainer, self.model, self.datamodule)
        for setting, module in (("--model.optimizer", self.model), ("--vae.optimizer", vae)):
            with refused(setting):
                module.configure_optimizers()
        rounds.folder = self.folder
        loaded = rounds.uses_vae and load_vae(vae, self.folder, self.checkpoint)
        begins = self.checkpoint is None
        self.checkpoint = None  # the trainer holds it until it has taken it over
        if self.trainer.is_global_zero and not dry_run(self.trainer):
            self.lock = self.folder.claim(self.settings, self.identity)
        if begins and not dry_run(self.trainer):
            self.datamodule.draw_audit()  # which the VAE shall not see
        if rounds.uses_vae and not loaded:
            config = self.config_init[self.subcommand].trainer
            provide_vae(vae, self.datamodule, self.trainer, config, self.vae_strategy, self.folder)

    def after_fit(self) -> None:
        """Leave the run folder to others, and say where it is."""
        if hasattr(self, "lock"):
            if self.datamodule.people is not None:
                end_question(self.folder)
                self.folder.done.touch()
            self.lock.release()
            print(f"The results are in {self.folder.path}")

    def before_validate(self) -> None:
        """Check the data and the checkpoint."""
        checkpoint, data = self._need_checkpoint(), self.datamodule
        self._prepare()
        if data.people is not None:  # only the checkpoint knows the answers of the audit
            data.load_state_dict(checkpoint.pools)
            if len(data.test.labels) == 0:
                raise SettingError(
                    f"--data.audit: there is nothing to {self.subcommand} on, as this run had "
                    f"neither an audit nor images in {data.root}/test."
                )

    before_test = before_validate

    def before_predict(self) -> None:
        """Check the folder and the checkpoint; the run's own images are not needed."""
        checkpoint, data = self._need_checkpoint(), self.datamodule
        data.take_pool(checkpoint.pools)
        function = self._get(self.config_init, "acquisition").function
        self._get(self.config_init, "predictions").read(data, function)
        self._adapt()
        self._check_weights(checkpoint)

    def _need_checkpoint(self) -> RunCheckpoint:
        if self.checkpoint is None:
            raise SettingError(
                f"--ckpt_path: {self.subcommand} needs a trained run. Give the path of its "
                "checkpoint, or `last` for the newest run of this experiment."
            )
        return self.checkpoint

    def _prepare(self) -> None:
        """Load the data and check the checkpoint against them and the network."""
        data = self.datamodule
        data.prepare_data()
        data.setup("fit")
        data.allow_changes = self.changed
        if self.checkpoint is not None:
            data.check(self.checkpoint.pools)  # which says what classes its network knows
        self._adapt()
        if self.checkpoint is not None:
            self._check_weights(self.checkpoint)

    def _adapt(self) -> None:
        """Let the networks follow the data."""
        facts = self.datamodule.pool.image_shape, len(self.datamodule.classes)
        self.model.adapt(*facts)
        vae: VAE = self._get(self.config_init, "vae")
        rounds: ActiveLearning = self._get(self.config_init, "acquisition")
        if rounds.needs_vae(self.model):
            vae.adapt(*facts)
        rounds.vae = vae.network

    def _check_weights(self, checkpoint: RunCheckpoint) -> None:
        self.config_init[self.subcommand].ckpt_path = str(checkpoint.path)
        try:
            self.model.load_state_dict(checkpoint.weights)
        except RuntimeError as error:
            raise SettingError(
                f"--ckpt_path: the weights in {checkpoint.path} are of another network than "
                "--model.network. Use the configuration that the run left in its config.yaml."
            ) from error


class _Planner(BaldVAECLI):
    """Parses a command line and stops there."""

    @override
    def before_instantiate_classes(self) -> None:
        super().before_instantiate_classes()
        raise _Planned(Plan(self.settings, self.changed, self.config[self.subcommand]))


def default_plugins() -> dict[str, Any]:
    """Return the default of each option that takes a plug-in."""
    sections = {"acquisition": ActiveLearning, "data": PoolDataModule, "model": Classifier}
    return {
        f"{section}.{name}": parameter.default
        for section, made in sections.items()
        for name, parameter in inspect.signature(made).parameters.items()
        if type(parameter.default).__module__.startswith("baldvae_pl.")
    }


def identify(config: Any) -> Identity:
    """Return which run these settings make.

    The method is the one that ``--method`` names, or the last of the configurations that is a
    shipped method, or else follows from what is bought and complemented.
    """
    seed = int(config.seed_everything)
    paths = [Path(str(path)).absolute() for path in config.config or []]
    names = [experiment_part(path) for path in paths]
    earlier = RunFolder(paths[0].parent).read_identity() if len(paths) == 1 else None
    if earlier is not None and config.method is None:  # a run's own config.yaml
        return Identity(earlier.configs, earlier.method, seed, job())
    shipped = [name for name in names if name in method_names()]
    if config.method is not None:
        method = str(config.method)
    else:
        method = shipped[-1] if shipped else describe_method(config.acquisition)
    if method in names:  # the last one: an experiment may be a method of its own comparison too
        del names[len(names) - 1 - names[::-1].index(method)]
    return Identity(names, method, seed, job())


def describe_method(acquisition: Any) -> str:
    """Return a name for what is bought and complemented: a shipped method's where there is one."""
    function, selection, complement = (
        str(getattr(acquisition[part], "class_path", acquisition[part])).rpartition(".")[2]
        for part in ("function", "selection", "complement")
    )
    shipped = {
        ("TopK", "Uncertain"): "bald_vae",
        ("TopK", "NoComplements"): "bald_o",
        ("TopK", "AllNew"): "vae_all",
        ("TopK", "Duplicate"): "duplicate",
        ("Random", "NoComplements"): "random",
    }
    if function == "bald" and (selection, complement) in shipped:
        return shipped[selection, complement]
    return f"{function}, {selection}, {complement}"
