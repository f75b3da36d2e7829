"""The callback that turns epochs into rounds: train, test, score, buy, complement.

In a round Lightning calls, in this order: `on_train_epoch_start` (a fresh network), the training on
L and G, the validation loop (on the test set), and `on_train_epoch_end`, whose heart is `_acquire`.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from typing_extensions import override

from baldvae_pl import acquisition as functions
from baldvae_pl.acquisition import NetworkScore
from baldvae_pl.complement import Autoencoder, Complement, Purchase, Uncertain
from baldvae_pl.data.module import PoolDataModule
from baldvae_pl.epig import EPIG, Acquisition
from baldvae_pl.errors import SettingError, refused
from baldvae_pl.labelling.curve import PATIENCE, has_flattened
from baldvae_pl.loop import keeping, picturing, scoring, trial
from baldvae_pl.loop.batch_norm import retake_statistics
from baldvae_pl.loop.dashboard import log_layout, log_round
from baldvae_pl.loop.guards import check_agreement, check_scores
from baldvae_pl.loop.new_classes import learn_new_classes
from baldvae_pl.loop.processes import Processes, dry_run, pool_data
from baldvae_pl.loop.purchase import (
    Round,
    TrainedRound,
    ask,
    buy_first_labels,
    catch_up,
    complement,
    purchase_of,
    select,
    take,
    timed,
    told,
)
from baldvae_pl.loop.review import write_review
from baldvae_pl.modules.metrics import check_weights
from baldvae_pl.objective import Objective
from baldvae_pl.options import resolve
from baldvae_pl.posterior import Draws, MCDropout, Posterior, PosteriorFunction, eval_mode
from baldvae_pl.runs.folder import RunFolder
from baldvae_pl.seeding import Purpose, derive_seed, make_generator
from baldvae_pl.selection import Candidates, RandomSubset, Selection, TopK


class ActiveLearning(Callback):
    """Makes each epoch of one ``trainer.fit`` a round of active learning.

    Works with a `PoolDataModule` and any LightningModule that has a ``network`` (images in [0, 1]
    to logits) and, unless ``warm_start``, ``reset_parameters()``. What its validation logs as
    ``test/*`` goes into the records. The number of epochs is set here. Optimizer states are cleared
    each round; a learning rate schedule has to start anew by itself, as
    ``CosineAnnealingWarmRestarts(T_0=steps_per_round)`` at step interval does.

    Args:
        rounds: Number of purchases N; the classifier is trained N + 1 times. Null: as many as the
            budget of ``data`` allows.
        query_size: Labels bought per round, K.
        function: Acquisition function: ``bald``, ``max_entropy``, ``margin``, ``least_confidence``,
            ``variation_ratios``, ``mean_std``, ``EPIG``, the import path of a function from
            ``log_probs_N_T_C`` to ``scores_N``, or a ``NetworkScore``.
        selection: Which images are bought together, given these scores: ``TopK``; ``Power``,
            ``Softmax`` or ``Softrank``, which sample; ``BatchBALD``; ``ClusterMargin``, the diverse
            among the best; ``BADGE``, ``KCenter``, ``Typical``, ``ProbCover`` or ``Unexplored``,
            which look at no scores; ``Random``; or the import path of a function from
            ``Candidates`` to indices.
        initial_selection: The same for the first labels, before there is a network:
            ``RandomSubset``, ``Unexplored``, ``Typical``, ``ProbCover`` or ``KCenter``.
        complement: Who gets a complement: ``Uncertain`` (BALD-VAE), ``NoComplements`` (BALD-O),
            ``AllNew`` (VAE-All), ``Duplicate`` or ``AffineCopy`` (controls), ``Retrieval``,
            ``Mixed`` or ``MostUncertain``, or the import path of a ``Complement``.
        posterior: Bayesian approximation: ``MCDropout``, ``Deterministic``, or the import path of a
            function from (network, T, generator) to draws.
        mc_samples: Posterior draws T.
        warm_start: Go on from the last round's weights instead of a fresh network.
        vae: Has ``encode`` and ``decode``, already trained; used by each complement policy,
            selection and objective that says ``needs_vae``, unless the module has an
            ``autoencoder`` of its own.
    """

    def __init__(
        self,
        rounds: NonNegativeInt | None = 20,
        query_size: PositiveInt = 20,
        function: NetworkScore | EPIG | Callable[[Tensor], Any] | str = "bald",
        selection: Selection | Callable[[Candidates], Any] = TopK(),
        initial_selection: Selection | Callable[[Candidates], Any] = RandomSubset(),
        complement: Complement = Uncertain(),
        posterior: Posterior | Callable[[nn.Module, int, torch.Generator], Draws] = MCDropout(),
        mc_samples: PositiveInt = 100,
        warm_start: bool = False,
        vae: nn.Module | None = None,
    ) -> None:
        if function == "random":
            raise SettingError(
                "--acquisition.function: random is now a selection. Give --acquisition.selection "
                "Random."
            )
        self.rounds = rounds
        self.query_size = query_size
        self.function: Acquisition = resolve("--acquisition.function", function, functions)
        self.selection = selection
        self.initial_selection = initial_selection
        self.complement = complement
        self.posterior: Posterior | PosteriorFunction = posterior
        self.mc_samples = mc_samples
        self.warm_start = warm_start
        self.vae = vae
        self.history: list[dict[str, float]] = []  # a row a round, keys as in ROUND_COLUMNS
        self.pending: Purchase | None = None  # chosen, and not answered yet
        self.folder: RunFolder | None = None  # of the run; left out, it follows from the trainer
        self.checked = self.uses_vae = False
        self.training_ended: float | None = None

    @property
    @override
    def state_key(self) -> str:
        return "ActiveLearning"  # also for a subclass: `RunCheckpoint` looks it up by this name

    def needs_vae(self, pl_module: LightningModule) -> bool:
        """Whether a VAE has to be trained before round 0."""
        objective = getattr(pl_module, "objective", None)
        users = (self.complement, self.selection, self.initial_selection, objective)
        wanted = any(getattr(user, "needs_vae", False) for user in users)
        return wanted and getattr(pl_module, "autoencoder", None) is None

    def check(self, trainer: Trainer, pl_module: LightningModule, data: PoolDataModule) -> None:
        """Raise a SettingError for what cannot work, before anything expensive begins."""
        if self.checked:
            return
        module: Any = pl_module
        objective = getattr(module, "objective", None)
        trial.check_whole_rounds(trainer)
        if self.rounds is None and data.budget is None:
            raise SettingError(
                "--acquisition.rounds: null goes on until the budget is spent, and there is none. "
                "Give --data.budget, or a number of rounds."
            )
        trial.check_sizes(trainer, data, objective, self.rounds, self.query_size)
        trial.check_module(pl_module, self.warm_start)
        if hasattr(module, "adapt"):
            module.adapt(data.pool.image_shape, len(data.classes))
        users = (self.complement, self.selection, self.initial_selection)
        trial.check_objective(objective, module.network, users)
        need = trial.needs_disagreement(self.function, self.selection, self.complement)
        trial.check_network(module.network, self.posterior, self.mc_samples, data, need)
        trial.check_function(self.function, module.network, data)
        trial.check_first(self.initial_selection)
        trial.check_who_answers(self.selection, data)
        trial.check_space("--acquisition.initial_selection", self.initial_selection, None)
        trial.check_space("--acquisition.selection", self.selection, module.network)
        self.uses_vae = self.needs_vae(pl_module)
        autoencoder = self._autoencoder(pl_module)
        askers = {
            "--acquisition.selection": self.selection,
            "--acquisition.initial_selection": self.initial_selection,
            "--model.objective": objective,
        }
        trial.check_codes(autoencoder, module.network, self.complement, askers)
        trial.check_autoencoder(self.complement, autoencoder, self.uses_vae, data)
        self.checked = True

    def _autoencoder(self, pl_module: LightningModule) -> Autoencoder | None:
        """Return the generator of images: a part of the module, or else the frozen VAE."""
        own: Autoencoder | None = getattr(pl_module, "autoencoder", None)
        frozen: Any = self.vae if self.uses_vae else None
        return frozen if own is None else own

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if self.history and trainer.ckpt_path is None:
            raise SettingError(
                "ActiveLearning: this callback has made a run already. Make a new one, with a new "
                "PoolDataModule, or go on from a checkpoint by ckpt_path."
            )
        self.check(trainer, pl_module, pool_data(trainer))
        each = Processes(trainer, pl_module)
        self.folder = each.once(lambda: self.folder or RunFolder.of(trainer))
        # Each round has batches of its own L and G.
        trainer.reload_dataloaders_every_n_epochs = 1  # type: ignore[attr-defined]
        if not dry_run(trainer):
            trainer.fit_loop.max_epochs = -1 if self.rounds is None else self.rounds + 1

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Here, since the batches of the first round may be made before on_train_start.
        data, each = pool_data(trainer), Processes(trainer, pl_module)
        if self.uses_vae and self.vae is not None:
            self.vae.to(pl_module.device)
            pl_module.frozen_autoencoder = [self.vae]  # type: ignore[assignment]
        assert self.folder is not None
        answers = None if dry_run(trainer) or data.people else self.folder.answers
        each.once(lambda: data.open_ledger(answers))
        if data.people is not None:
            data.people.folder = None if dry_run(trainer) else self.folder
            if self.pending is not None and data.people.places is not None:
                self.pending = self.pending.moved(data.people.places, len(data.pool.labels))
        if data.pool.labels_bought == 0:
            data.draw_audit()
            # A network that is its own autoencoder is not trained yet.
            trained: Any = self.vae if self.uses_vae else None
            buy_first_labels(Round(0, each, data, trained), self.initial_selection)
        if not self.folder.rounds.is_file():
            log_layout(trainer, self._chosen(pl_module, data))
            for row in self.history[:-1]:  # of a checkpoint that came from another folder
                log_round(trainer, row)
        # A finished run that goes on, or one whose question is open: its last round has not bought.
        if self.history and "acquired" not in self.history[-1]:
            self._buy_or_stop(self._round(trainer, pl_module, int(self.history[-1]["round"])))
        keeping.keep_records(trainer, self.folder, self.history)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module: Any = pl_module
        data, round = pool_data(trainer), trainer.current_epoch
        seed = data.seed
        self.training_began, self.training_ended = time.perf_counter(), None
        learn_new_classes(trainer, pl_module)
        if not self.warm_start:
            torch.manual_seed(derive_seed(seed, round, Purpose.WEIGHTS))  # the same on every rank
            module.reset_parameters()
            for optimizer in trainer.optimizers:
                optimizer.state.clear()
        objective = getattr(module, "objective", None)
        if isinstance(objective, Objective):
            with refused("--model.objective"):
                before = Round(
                    round, Processes(trainer, pl_module), data, self._autoencoder(module)
                )
                nothing_N = torch.zeros(len(data.pool.labels))
                objective.on_train_start(before.candidates(nothing_N, 0, Purpose.OBJECTIVE))
        torch.manual_seed(derive_seed(seed, round, Purpose.TRAINING) + trainer.global_rank)
        if isinstance(self.posterior, Posterior):
            self.posterior.on_train_start(module.network)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        network: Any = pl_module.network
        steps = int(trainer.num_training_batches)
        if isinstance(self.posterior, Posterior):
            self.posterior.on_train_step(network, batch_idx, steps)
        objective = getattr(pl_module, "objective", None)
        if batch_idx == steps - 1 and getattr(objective, "moves_images", False):
            data, each = pool_data(trainer), Processes(trainer, pl_module)
            generator = make_generator(data.seed, trainer.current_epoch, Purpose.STATISTICS)
            retake_statistics(each, network, data, generator)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.training_ended = time.perf_counter()

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        evaluated = time.perf_counter()
        data = pool_data(trainer)
        pool = data.pool
        check_weights(pl_module, f"in round {trainer.current_epoch}", "--model.optimizer")
        self._fit_posterior(pl_module, data)
        round = self._round(trainer, pl_module, trainer.current_epoch)
        row: dict[str, float] = {
            "round": round.number,
            "labelled": pool.labels_bought,
            "unlabelled": int(pool.in_unlabelled_N.sum()),
            "generated": len(pool.generated.complements.labels),
            "seconds/train": (self.training_ended or evaluated) - self.training_began,
            "seconds/evaluate": evaluated - (self.training_ended or evaluated),
        }
        metrics = trainer.callback_metrics.items()
        row |= {key: float(value) for key, value in metrics if key.startswith("test/")}
        test = data.test
        with timed(row, "seconds/evaluate_mc"):
            probs_N_C = torch.empty(0, len(data.classes))
            if len(test.labels):
                probs_N_C = scoring.mean_probabilities(
                    round.each, round.draws, test.images, "Testing with draws"
                )
                row |= scoring.metrics_with_draws(round.each, probs_N_C, test.labels)
        assert self.folder is not None
        tested = picturing.after_the_test(round, probs_N_C, test.labels)
        keeping.keep_snapshot(round, self.folder, tested)
        row |= scoring.graph_columns(getattr(pl_module, "objective", None), data)
        if data.people is not None:
            row |= scoring.interval(row.get("test/acc"), len(data.test.labels))
            if has_flattened([r["test/acc"] for r in (*self.history, row) if "test/acc" in r]):
                rank_zero_info(
                    f"The accuracy has not risen for {PATIENCE} rounds, as far as "
                    f"{len(data.test.labels)} images can tell: more labels may no longer pay."
                )
            if not dry_run(trainer):
                write_review(round, self.folder)
        self.history.append(row)
        self._buy_or_stop(round)
        keeping.keep_records(trainer, self.folder, self.history)

    @override
    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data, round = pool_data(trainer), self._round(trainer, pl_module, len(self.history) - 1)
        images, labels = data.test
        probs_N_C = scoring.mean_probabilities(
            round.each, round.draws, images, "Testing with draws"
        )
        pl_module.log_dict(scoring.metrics_with_draws(round.each, probs_N_C, labels))

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module: Any = pl_module
        module.draws = self._round(trainer, pl_module, len(self.history) - 1).draws

    def _chosen(self, pl_module: LightningModule, data: PoolDataModule) -> dict[str, Any]:
        """Return the settings by which people compare runs."""
        parts = {
            "function": self.function,
            "selection": self.selection,
            "complement": self.complement,
            "posterior": self.posterior,
            "objective": getattr(pl_module, "objective", None),
            "network": pl_module.network,
        }
        names = {key: getattr(x, "__name__", type(x).__name__) for key, x in parts.items()}
        numbers = {"query_size": self.query_size, "mc_samples": self.mc_samples, "seed": data.seed}
        return names | numbers | {"warm_start": self.warm_start}

    def _round(self, trainer: Trainer, pl_module: LightningModule, number: int) -> TrainedRound:
        """Return a round's end; its draws are the same whenever and wherever they are made."""
        network: Any = pl_module.network
        generator = make_generator(pool_data(trainer).seed, number, Purpose.POSTERIOR)
        with refused("--acquisition.posterior"):
            draws = self.posterior(network, self.mc_samples, generator)
        autoencoder, data = self._autoencoder(pl_module), pool_data(trainer)
        each = Processes(trainer, pl_module)
        return TrainedRound(number, each, data, autoencoder, network, draws)

    def _fit_posterior(self, pl_module: LightningModule, data: PoolDataModule) -> None:
        if isinstance(self.posterior, Posterior) and type(self.posterior).fit is not Posterior.fit:
            network: Any = pl_module.network
            pool, generated = data.pool, data.pool.generated
            images = torch.cat([data.train.images[pool.labelled], generated.images])
            labels = torch.cat([pool.labels[pool.labelled], generated.labels])
            with refused("--acquisition.posterior"), eval_mode(network):
                self.posterior.fit(network, images, labels)

    def _buy_or_stop(self, round: TrainedRound) -> None:
        """Buy after the last round in the history, unless it was the last or all is bought."""
        late = catch_up(round) if self.pending is None else 0
        all_labelled = not round.data.pool.in_unlabelled_N.any()
        if late and (all_labelled or round.data.budget_left < 1):  # a last round learns of them too
            self.history[-1] |= {"acquired": late, "complemented": 0}
        elif self.pending is None and all_labelled:
            rank_zero_info("All images are labelled: the run ends here.")
            round.each.trainer.should_stop = True
        elif self.pending is None and round.data.budget_left < 1:
            rank_zero_info(f"The budget of {round.data.budget} answers is spent.")
            round.each.trainer.should_stop = True
        elif round.each.trainer.should_stop and self.pending is None:
            rank_zero_info("A callback of the trainer ends the run here.")
        elif self.rounds is None or len(self.history) <= self.rounds:
            self._acquire(round, self.history[-1])

    def _acquire(self, round: TrainedRound, row: dict[str, float]) -> None:
        """End a round: score U and L, buy the top K of U, complement the uncertain of L."""
        pool = round.data.pool
        if self.pending is None:
            self.pending = self._choose(round, row)
            self._pin(round)
        purchase = self.pending
        with timed(row, "seconds/select"):
            answers = ask(round, purchase)
        if round.data.people is not None:
            round.data.people.take_over(answers)
        is_told, _ = told(purchase.indices, answers)
        with timed(row, "seconds/complement"):
            # Parents come from L as it was before this purchase, or from the purchase itself.
            with refused("--acquisition.complement"):
                parents = self.complement.parents(purchase.of(is_told), pool)
            take(pool, purchase, answers, round.number + 1)
            parents = parents[pool.acquired_in[parents] >= 0]  # its own label may be taken back
            parents, complements = complement(round, self.complement, parents)
            scores, threshold = purchase.scores_N[parents], purchase.threshold
            pool.extend(complements, parents, round.number + 1, scores, threshold)
            check_agreement(round.each, pool)
            of_parents = round.data.train.images[parents], complements, pool.labels[parents]
            row |= scoring.complement_columns(round.each, round.draws, *of_parents, scores)
        row |= {"acquired": int(is_told.sum()), "complemented": len(parents)}
        # Of images that are made, as of those that people see, not all can be told.
        if round.data.people is not None or (purchase.indices < 0).any():
            row |= scoring.answers_columns(purchase, answers.labels)
        self.pending = None
        assert self.folder is not None
        if (before := keeping.snapshot_of(round, self.folder)) is not None:
            about = (round, before, purchase, answers.labels, parents, complements)
            keeping.keep_snapshot(round, self.folder, picturing.after_the_purchase(*about))
        keeping.keep_map(round, purchase)

    def _choose(self, round: TrainedRound, row: dict[str, float]) -> Purchase:
        """Score all of W under the same draws, and choose what to buy of U.

        Scored by BALD, so that U and L can be compared, and by what is ranked for the purchase,
        which may be another function.
        """
        each, data, pool = round.each, round.data, round.data.pool
        with timed(row, "seconds/score"), refused("--acquisition.function"):
            function, images = self.function, data.train.images
            if isinstance(function, EPIG):
                generator = round.generator(Purpose.TARGETS)
                function = scoring.for_targets(
                    each, round.draws, function, images, pool.trainable, generator
                )
            scores_N, priorities_N = scoring.score(
                each, round.draws, images, function, round.network
            )
            ranked = trial.ranks_by_disagreement(self.function, self.selection)
            check_scores(scores_N, priorities_N, round.number, ranked)
        with timed(row, "seconds/select"):
            # A question that is open already is asked again, whatever the scores are this time.
            chosen: Any = each.once(lambda: data.open_question(round.number + 1))
            if chosen is None:
                count = int(min(self.query_size, data.budget_left))
                among = round.candidates(priorities_N, count, Purpose.ACQUISITION)
                chosen = select(round, "--acquisition.selection", self.selection, among)
            rule = self.complement.threshold
            purchase = purchase_of(round, chosen, scores_N, priorities_N, rule)
            row |= scoring.score_columns(
                scores_N, pool.in_unlabelled_N, pool.acquired_in >= 0, purchase.threshold
            )
            alike = scoring.redundancy(each, round.network, purchase.images)
            row |= {} if alike is None else {"acquired/redundancy": alike}
        return purchase

    def _pin(self, round: TrainedRound) -> None:
        """Keep what is to be asked, and the network that chose it, before somebody is asked.

        The data set's own labels cost nothing and are the same again; a person's are not.
        """
        trainer = round.each.trainer
        progress: Any = trainer.fit_loop.epoch_progress.current
        trained = progress.processed == len(self.history)  # else Lightning still restores its own
        keeps = bool(trainer.checkpoint_callbacks) and not dry_run(trainer)
        if round.data.oracle is not None and trained and keeps:
            assert self.folder is not None
            # For those who look while they are asked.
            keeping.write_tables(trainer, self.folder, self.history)
            trainer.save_checkpoint(self.folder.last, weights_only=False)

    @override
    def state_dict(self) -> dict[str, Any]:
        fitted = self.posterior.state_dict() if isinstance(self.posterior, Posterior) else {}
        return {
            "history": self.history,
            "vae": self.vae.state_dict() if self.uses_vae and self.vae is not None else None,
            "posterior": fitted,
            "pending": self.pending and self.pending._asdict(),
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = state_dict["history"]
        # That of a run with other complements may hold one that this run does not use.
        if self.uses_vae and self.vae is not None and state_dict["vae"] is not None:
            self.vae.load_state_dict(state_dict["vae"])
        if isinstance(self.posterior, Posterior):
            self.posterior.load_state_dict(state_dict["posterior"])
        pending = state_dict["pending"]
        self.pending = None if pending is None else Purchase(**pending)
