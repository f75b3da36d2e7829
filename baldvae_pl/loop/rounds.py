"""The callback that turns epochs into rounds: train, test, score, buy, complement.

In a round Lightning calls, in this order: `on_train_epoch_start` (a fresh network), the training on
L and G, the validation loop (on the test set), and `on_train_epoch_end`, whose heart is `_acquire`.
"""

import time
from functools import partial
from typing import Any, Literal

import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveInt
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from baldvae_pl import acquisition as functions
from baldvae_pl import complement as policies
from baldvae_pl import posterior as posteriors
from baldvae_pl import selection as selections
from baldvae_pl.acquisition import AcquisitionFunction
from baldvae_pl.complement import Complement, threshold_of
from baldvae_pl.data.module import PoolDataModule, data_of
from baldvae_pl.errors import SettingError, resolve, with_options
from baldvae_pl.loop import trial as checks
from baldvae_pl.loop.dashboard import log_images, log_round
from baldvae_pl.loop.generation import complements_of, generate
from baldvae_pl.loop.scoring import (
    describe_purchase,
    describe_scores,
    evaluate_with_draws,
    log_probs_of,
    score_images,
)
from baldvae_pl.posterior import Draws, Posterior
from baldvae_pl.runs.records import describe, write_acquisitions, write_rounds
from baldvae_pl.runs.resuming import run_folder
from baldvae_pl.seeding import Purpose, derive_seed, make_generator
from baldvae_pl.selection import Candidates, Selection


class ActiveLearning(Callback):
    """Makes each epoch of one ``trainer.fit`` a round of active learning.

    Works with a `PoolDataModule` and any LightningModule that has a ``network`` (images in [0, 1]
    to logits, with active dropout) and, unless ``warm_start``, ``reset_parameters()``. What its
    validation logs as ``test/*`` goes into the records. The number of epochs is set here. Optimizer
    states are cleared each round; a learning rate schedule has to start anew by itself, as
    ``CosineAnnealingWarmRestarts(T_0=steps_per_round)`` at step interval does.

    Args:
        rounds: Number of purchases N; the classifier is trained N + 1 times.
        query_size: Labels bought per round, K.
        function: Acquisition function: ``bald``, ``max_entropy``, ``margin``, ``least_confidence``,
            ``variation_ratios``, ``mean_std``, ``random``, or the import path of a function from
            ``log_probs_N_T_C`` to ``scores_N``.
        selection: Which images are bought together, given these scores: ``top_k``; ``power``,
            ``softmax`` or ``softrank``, which sample; ``batch_bald``; or the import path of a
            function as in `baldvae_pl.selection`.
        coldness: β of ``power``, ``softmax`` and ``softrank``: 0 is random, left out 1.
        complement: Who gets a complement: ``uncertain`` (BALD-VAE), ``none`` (BALD-O), ``all_new``
            (VAE-All), ``duplicate`` (control), or the import path of a ``Complement``.
        threshold: The BALD score from which on a labelled image is uncertain: the ``lowest`` of the
            purchase, as in the paper, the ``highest``, or a quantile of those of U, from 0 to 1.
        latent: Whether a complement decodes a ``sample`` of q(z|x) or its ``mean``.
        posterior: Bayesian approximation: ``MCDropout``, or the import path of a class with its
            signature.
        mc_samples: Posterior draws T, at least 2.
        nested: How many successive draws share the masks of the first dropout layer, see
            `MCDropout`; 1 makes them all independent. Left out, the posterior's own default.
        warm_start: Go on from the last round's weights instead of a fresh network.
        vae: Has ``encode`` and ``decode``, already trained; needed by ``uncertain`` and
            ``all_new``.
    """

    def __init__(
        self,
        rounds: NonNegativeInt = 20,
        query_size: PositiveInt = 20,
        function: str | AcquisitionFunction = "bald",
        selection: str | Selection = "top_k",
        coldness: NonNegativeFloat | None = None,
        complement: str | Complement = "uncertain",
        threshold: Literal["lowest", "highest"] | ClosedUnitInterval = "lowest",
        latent: Literal["sample", "mean"] = "sample",
        posterior: str | Posterior = "MCDropout",
        mc_samples: PositiveInt = 100,
        nested: PositiveInt | None = None,
        warm_start: bool = False,
        vae: nn.Module | None = None,
    ) -> None:
        checks.check_finite("--acquisition.coldness", coldness or 0)
        self.rounds = rounds
        self.query_size = query_size
        self.function: AcquisitionFunction | None = resolve(
            "--acquisition.function", function, functions
        )
        self.selection: Selection = with_options(
            resolve("--acquisition.selection", selection, selections),
            "acquisition",
            coldness=coldness,
        )
        self.complement: Complement = resolve(
            "--acquisition.complement", complement, policies, Complement
        )
        self.threshold = threshold
        self.latent = latent
        self.posterior: Posterior = with_options(
            resolve("--acquisition.posterior", posterior, posteriors), "acquisition", nested=nested
        )
        self.mc_samples = mc_samples
        self.warm_start = warm_start
        self.vae = vae
        self.history: list[dict[str, float]] = []  # a row a round, keys as in ROUND_COLUMNS

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if self.history and trainer.ckpt_path is None:
            raise SettingError(
                "ActiveLearning: this callback has made a run already. Make a new one, with a new "
                "PoolDataModule, or go on from a checkpoint by ckpt_path."
            )
        self.check(trainer, pl_module, data_of(trainer))
        # Each round has batches of its own L and G.
        trainer.reload_dataloaders_every_n_epochs = 1  # type: ignore[attr-defined]
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.fit_loop.max_epochs = self.rounds + 1

    def check(self, trainer: Trainer, pl_module: LightningModule, data: PoolDataModule) -> None:
        """Raise a SettingError for what cannot work, before anything expensive begins."""
        checks.check_whole_rounds(trainer)
        checks.check_sizes(trainer, data, self.rounds, self.query_size)
        checks.check_module(pl_module, self.warm_start)
        if self.mc_samples < 2:
            raise SettingError(
                f"--acquisition.mc_samples: {self.mc_samples} draw cannot disagree with itself. "
                "Take at least 2."
            )
        checks.check_network(pl_module.network, self.posterior, self.mc_samples, data)  # type: ignore[arg-type]
        checks.check_function(self.function, data)
        if self.complement.needs_vae:
            if self.vae is None:
                raise SettingError("ActiveLearning: this complement policy needs the argument vae.")
            checks.check_vae(partial(generate, self.complement, self.vae), data.train.images[:2])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Here, since the batches of the first round may be made before on_train_start.
        data = data_of(trainer)
        if trainer.loggers and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            data.answers_file = run_folder(trainer) / "checkpoints" / "answers.pt"
        data.label_initial()
        # A finished run that goes on: its last round did not buy what a longer run buys there.
        if self.history and "acquired" not in self.history[-1]:
            self._buy_or_stop(trainer, pl_module)
        self._leave_records(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seed, round = data_of(trainer).seed, trainer.current_epoch
        if not self.warm_start:
            torch.manual_seed(derive_seed(seed, round, Purpose.WEIGHTS))  # the same on every rank
            pl_module.reset_parameters()  # type: ignore[operator]
            for optimizer in trainer.optimizers:
                optimizer.state.clear()
        torch.manual_seed(derive_seed(seed, round, Purpose.TRAINING) + trainer.global_rank)
        self.training_began = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.training_ended = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        evaluated = time.perf_counter()
        data = data_of(trainer)
        pool = data.pool
        checks.check_weights(pl_module, f"in round {trainer.current_epoch}", "--model.optimizer")
        row: dict[str, float] = {
            "round": trainer.current_epoch,
            "labelled": len(pool.labelled),
            "unlabelled": len(pool.labels) - len(pool.labelled),
            "generated": len(pool.generated["labels"]),
            "seconds/train": self.training_ended - self.training_began,
            "seconds/evaluate": evaluated - self.training_ended,
        }
        metrics = trainer.callback_metrics.items()
        row |= {key: float(value) for key, value in metrics if key.startswith("test/")}
        draws = self._draws(pl_module, data.seed, trainer.current_epoch)
        row |= evaluate_with_draws(trainer, pl_module, draws, data.test, len(data.classes))
        row["seconds/evaluate_mc"] = time.perf_counter() - evaluated
        self.history.append(row)
        self._buy_or_stop(trainer, pl_module)
        self._leave_records(trainer)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data, draws = data_of(trainer), self._draws_of_last_round(trainer, pl_module)
        pl_module.log_dict(
            evaluate_with_draws(trainer, pl_module, draws, data.test, len(data.classes))
        )

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.draws = self._draws_of_last_round(trainer, pl_module)  # type: ignore[assignment]

    def _draws_of_last_round(self, trainer: Trainer, pl_module: LightningModule) -> Draws:
        return self._draws(pl_module, data_of(trainer).seed, len(self.history) - 1)

    def _buy_or_stop(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Buy after the last round in the history, unless it was the last or all is bought."""
        pool = data_of(trainer).pool
        if len(pool.labelled) == len(pool.labels):
            rank_zero_info("All images are labelled: the run ends here.")
            trainer.should_stop = True
        elif len(self.history) <= self.rounds:
            self._acquire(trainer, pl_module, self.history[-1])

    def _acquire(self, trainer: Trainer, pl_module: LightningModule, row: dict[str, float]) -> None:
        """End a round: score U and L, buy the top K of U, complement the uncertain of L."""
        data = data_of(trainer)
        pool, images, round = data.pool, data.train.images, int(row["round"])
        labelled = pool.labelled

        # All of W under the same draws, so that the scores of U and L can be compared: by BALD, and
        # by what is ranked for the purchase, which may be another function.
        began = time.perf_counter()
        draws = self._draws(pl_module, data.seed, round)
        scores_N, priorities_N = score_images(trainer, pl_module, draws, images, self.function)
        checks.check_scores(scores_N, priorities_N, round, ranked=self.function is not None)
        scored = time.perf_counter()

        chance = make_generator(data.seed, round, Purpose.ACQUISITION)
        if self.function is None:
            priorities_N = torch.rand(len(images), generator=chance)
        acquired = self.selection(
            Candidates(
                priorities_N,
                labelled,
                self.query_size,
                pool.highest_unlabelled,
                lambda some: log_probs_of(trainer, pl_module, draws, images[some]),
                chance,
            )
        )
        labels = data.ask(acquired)
        in_unlabelled_N = pool.in_unlabelled_N
        threshold = threshold_of(self.threshold, scores_N[acquired], scores_N, in_unlabelled_N)
        row |= describe_scores(scores_N, in_unlabelled_N, threshold)
        row |= describe_purchase(trainer, pl_module, images[acquired])
        selected = time.perf_counter()

        # Parents come from L as it was before this purchase, or from the purchase itself.
        parents = self.complement.parents(scores_N, labelled, acquired, threshold)
        chance = make_generator(data.seed, round, Purpose.COMPLEMENT)
        complements = complements_of(
            trainer,
            pl_module,
            self.complement,
            self.vae,
            images[parents],
            chance if self.latent == "sample" else None,
        )
        pool.acquire(acquired, labels, round + 1, scores_N[acquired])
        pool.extend(complements, parents, round + 1, scores_N[parents], threshold)
        checks.check_agreement(trainer, pool)

        row |= {
            "acquired": len(acquired),
            "complemented": len(parents),
            "seconds/score": scored - began,
            "seconds/select": selected - scored,
            "seconds/complement": time.perf_counter() - selected,
        }
        pairs = torch.cat([images[parents], complements], dim=2)  # parents above complements
        log_images(trainer, "images/acquired", images[acquired], len(labelled))
        log_images(trainer, "images/parents_and_complements", pairs, len(labelled))

    def _draws(self, pl_module: LightningModule, seed: int, round: int) -> Draws:
        """Return the round's posterior draws, the same whenever and wherever they are made."""
        chance = make_generator(seed, round, Purpose.POSTERIOR)
        return self.posterior(pl_module.network, self.mc_samples, chance)  # type: ignore[arg-type]

    def _leave_records(self, trainer: Trainer) -> None:
        """Log the newest row and write the run's CSV files."""
        if not self.history:
            return
        row = self.history[-1]
        log_round(trainer, row)
        rank_zero_info(describe(row))
        folder = run_folder(trainer)
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            write_rounds(folder / "rounds.csv", self.history)
            data = data_of(trainer)
            write_acquisitions(folder / "acquisitions.csv", data.pool, self.history, data.files)

    def state_dict(self) -> dict[str, Any]:
        vae = self.vae if self.complement.needs_vae else None
        return {"history": self.history, "vae": vae and vae.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = state_dict["history"]
        if self.vae is not None and state_dict["vae"] is not None:
            self.vae.load_state_dict(state_dict["vae"])
