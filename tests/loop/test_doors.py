"""The doors, each with the smallest thing that goes through it, against values by hand."""

from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.nn import functional as F

from baldvae_pl import (
    ASAL,
    BADGE,
    EPIG,
    GAAL,
    VAE,
    ActiveLearning,
    AllNew,
    Answer,
    BatchBALD,
    Classifier,
    ClusterMargin,
    Consistency,
    CrossEntropy,
    Deterministic,
    Digits,
    Duplicate,
    FixMatch,
    Images,
    KCenter,
    NetworkScore,
    NoComplements,
    NotYet,
    Objective,
    Oracle,
    PoissonLabels,
    PoolDataModule,
    Posterior,
    Question,
    Selection,
    SettingError,
    Source,
    Step,
    Synthesised,
    TopK,
    Uncertain,
)
from baldvae_pl.acquisition import bald
from baldvae_pl.data.batches import to_floats
from baldvae_pl.geometry.graph import neighbour_graph
from baldvae_pl.geometry.poisson import pseudo_labels
from baldvae_pl.geometry.space import points
from baldvae_pl.joint import Joint as JointObjective
from baldvae_pl.loop.processes import pool_data
from baldvae_pl.networks import DenseVAE, DigitsNet, JointVAE
from baldvae_pl.pool import FOR_AUDIT, SYNTHESISED
from baldvae_pl.posterior import Draws, DropoutDraws, eval_mode
from baldvae_pl.runs.tables import read_rounds
from baldvae_pl.seeding import Purpose, make_generator

TRUTH = Digits()(Path()).train


def fit(
    folder: Path,
    rounds: ActiveLearning,
    model: Any = None,
    ckpt_path: Path | None = None,
    **data: Any,
) -> PoolDataModule:
    """A run of few steps on real digits that leaves checkpoints."""
    settings = {"initial_labels": 30, "steps_per_round": 4, "batch_size": 8, "seed": 3} | data
    module = PoolDataModule(**settings)
    checkpoint = ModelCheckpoint(
        filename="last", save_on_train_epoch_end=True, save_top_k=-1, enable_version_counter=False
    )
    trainer = Trainer(
        accelerator="cpu",
        logger=CSVLogger(str(folder), "run", 0),
        callbacks=[rounds, checkpoint],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    path = None if ckpt_path is None else str(ckpt_path)
    trainer.fit(model or Classifier(DigitsNet), datamodule=module, ckpt_path=path)
    return module


LAST = Path("run/version_0/checkpoints/last.ckpt")


# What ranks


class PixelSum(NetworkScore):
    def score(self, network: nn.Module, images: Tensor) -> Tensor:
        assert not network.training
        assert not torch.is_grad_enabled()
        return images.sum((1, 2, 3)) * float(network.trunk(images).shape[1] == 1024)


def test_an_acquisition_function_may_see_the_network(tmp_path: Path) -> None:
    rounds = ActiveLearning(
        rounds=1, query_size=25, function=PixelSum(), complement=NoComplements(), mc_samples=3
    )
    pool = fit(tmp_path, rounds).pool
    darkest_last = TRUTH.images.float().sum((1, 2, 3))
    darkest_last[pool.acquired_in == 0] = -1
    expected = darkest_last.argsort(descending=True, stable=True)[:25]
    assert (pool.acquired_in == 1).nonzero().flatten().tolist() == sorted(expected.tolist())


def test_epig_is_about_images_of_the_pool_under_the_draws_of_the_round(tmp_path: Path) -> None:
    rounds = ActiveLearning(
        rounds=1, query_size=25, function=EPIG(9), complement=NoComplements(), mc_samples=5
    )
    networks: list[nn.Module] = []

    class Watched(ActiveLearning):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
            if trainer.current_epoch == 0:
                networks.append(deepcopy(pl_module.network))
                pool = pool_data(trainer).pool
                pool.keep_for_audit(pool.unlabelled[:40])
            super().on_train_epoch_end(trainer, pl_module)

    rounds.__class__ = Watched
    pool = fit(tmp_path, rounds).pool
    in_audit = pool.acquired_in == FOR_AUDIT
    assert in_audit.sum() == 40
    trainable = (~in_audit).nonzero().flatten()
    drawn = torch.randperm(len(trainable), generator=make_generator(3, 0, Purpose.TARGETS))[:9]
    draws = DropoutDraws(networks[0], 5, make_generator(3, 0, Purpose.POSTERIOR))
    log_probs = draws(to_floats(TRUTH.images))
    scores = EPIG().given(log_probs[trainable[drawn]])(log_probs)
    bought = scores[pool.acquired_in == 1]
    assert len(bought) == 25
    assert bought.min() >= scores[pool.acquired_in == -1].max() - 1e-6
    # What is told of the purchase are BALD scores all the same.
    torch.testing.assert_close(
        pool.scores[pool.acquired_in == 1], bald(log_probs)[pool.acquired_in == 1]
    )


def test_epig_needs_draws_that_disagree(tmp_path: Path) -> None:
    rounds = ActiveLearning(
        function=EPIG(), complement=NoComplements(), posterior=Deterministic(), rounds=1
    )
    with pytest.raises(SettingError, match=r"1 draw cannot .* --acquisition\.function EPIG needs"):
        fit(tmp_path, rounds)


def test_features_that_there_are_not_are_no_space(tmp_path: Path) -> None:
    choose = KCenter(space="features")
    plain = {"rounds": 1, "complement": NoComplements(), "mc_samples": 3}
    with pytest.raises(SettingError, match=r"^--acquisition\.initial_selection\.space: features"):
        fit(tmp_path, ActiveLearning(initial_selection=choose, **plain))
    trunkless = Classifier(lambda: nn.Sequential(nn.Dropout(0.2), no_dropout()))
    with pytest.raises(SettingError, match=r"^--acquisition\.selection\.space: .* Sequential has"):
        fit(tmp_path, ActiveLearning(selection=choose, **plain), trunkless)


def no_dropout() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def test_margin_needs_no_dropout(tmp_path: Path) -> None:
    model = Classifier(no_dropout)
    rounds = ActiveLearning(
        rounds=1,
        query_size=25,
        function="margin",
        complement=NoComplements(),
        posterior=Deterministic(),
    )
    weights: dict[str, Tensor] = {}

    class Watched(ActiveLearning):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
            if trainer.current_epoch == 0:
                weights.update(deepcopy(pl_module.network.state_dict()))
            super().on_train_epoch_end(trainer, pl_module)

    rounds.__class__ = Watched
    pool = fit(tmp_path, rounds, model).pool
    network = no_dropout()
    network.load_state_dict(weights)
    with torch.no_grad():
        first, second = network(to_floats(TRUTH.images)).softmax(-1).topk(2).values.unbind(-1)
    margin = (first - second).where(pool.acquired_in != 0, torch.inf)
    bought = (pool.acquired_in == 1).nonzero().flatten()
    kept = (pool.acquired_in == -1).nonzero().flatten()
    assert len(bought) == 25
    assert margin[bought].max() <= margin[kept].min() + 1e-6


@pytest.mark.parametrize(
    ("function", "complement", "words"),
    [
        ("bald", NoComplements(), "--acquisition.function bald needs draws"),
        ("mean_std", NoComplements(), "--acquisition.function mean_std needs draws"),
        ("margin", Uncertain(), "--acquisition.complement Uncertain needs draws"),
        ("margin", Duplicate(), "--acquisition.complement Duplicate needs draws"),
    ],
)
def test_what_needs_disagreement_is_refused_with_one_pass(
    function: str, complement: Any, words: str, tmp_path: Path
) -> None:
    rounds = ActiveLearning(
        function=function, complement=complement, posterior=Deterministic(), vae=DenseVAE()
    )
    with pytest.raises(SettingError, match=words):
        fit(tmp_path, rounds)
    assert not list(tmp_path.rglob("*.csv"))


# Posteriors that are fitted


class Noted(Posterior):
    """Two members: the weights at the middle and at the end of a round."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []
        self.members: list[dict[str, Tensor]] = []
        self.fitted: Tensor = torch.empty(0)

    def on_train_start(self, network: nn.Module) -> None:
        self.calls, self.members = [], []

    def on_train_step(self, network: nn.Module, step: int, steps: int) -> None:
        self.calls.append((step, steps))
        if step in (steps // 2, steps - 1):
            self.members.append(deepcopy(network.state_dict()))

    def fit(self, network: nn.Module, images: Tensor, labels: Tensor) -> None:
        assert not network.training
        self.fitted = labels.clone()

    def __call__(self, network: nn.Module, mc_samples: int, generator: torch.Generator) -> Draws:
        members = [deepcopy(network) for _ in self.members]
        for member, weights in zip(members, self.members, strict=True):
            member.load_state_dict(weights)

        @torch.no_grad()
        def draws(images: Tensor) -> Tensor:
            logits = []
            for member in members:
                with eval_mode(member):
                    logits.append(member(images))
            return torch.stack(logits, 1).log_softmax(-1)

        return draws

    def state_dict(self) -> dict[str, Any]:
        return {"members": self.members}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.members = state["members"]


def test_a_posterior_may_be_fitted_while_the_network_trains(tmp_path: Path) -> None:
    posterior = Noted()
    rounds = ActiveLearning(
        rounds=1, query_size=20, complement=NoComplements(), posterior=posterior
    )
    pool = fit(tmp_path, rounds).pool
    assert posterior.calls == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert posterior.fitted.tolist() == pool.labels[pool.labelled].tolist()
    saved = torch.load(tmp_path / LAST, weights_only=True)["callbacks"]["ActiveLearning"]
    assert len(saved["posterior"]["members"]) == 2

    # A run that is made longer buys with what was fitted before it was stopped.
    longer, other = Noted(), tmp_path / "other"
    whole = ActiveLearning(rounds=2, query_size=20, complement=NoComplements(), posterior=Noted())
    expected = fit(other, whole).pool
    again = ActiveLearning(rounds=2, query_size=20, complement=NoComplements(), posterior=longer)
    assert torch.equal(
        fit(tmp_path, again, ckpt_path=tmp_path / LAST).pool.acquired_in, expected.acquired_in
    )


# Objectives


class Watching(Objective):
    def __init__(self, unlabelled: Any) -> None:
        self.unlabelled, self.unlabelled_batch_size = unlabelled, 13
        self.seen: list[Tensor] = []
        self.autoencoders: set[int] = set()

    def __call__(self, step: Step) -> Tensor:
        assert step.unlabelled is not None
        assert 0 <= step.unlabelled.min() <= step.unlabelled.max() <= 1
        self.seen.append(step.unlabelled)
        self.autoencoders.add(id(step.autoencoder))
        return F.cross_entropy(step.network(step.images), step.labels)


@pytest.mark.parametrize("which", ["U", "W"])
def test_an_objective_gets_the_unlabelled_images_that_it_asks_for(
    which: str, tmp_path: Path
) -> None:
    objective, vae = Watching(which), DenseVAE()
    rounds = ActiveLearning(rounds=0, query_size=20, complement=AllNew(), vae=vae, mc_samples=2)
    data = fit(tmp_path, rounds, Classifier(DigitsNet, objective=objective), steps_per_round=60)
    assert [len(batch) for batch in objective.seen] == [13] * 60
    assert objective.autoencoders == {id(vae)}
    known = {bytes(image.numpy()): index for index, image in enumerate(TRUTH.images)}
    pixels = (torch.cat(objective.seen) * 255).round().to(torch.uint8)
    seen = {known[bytes(image.numpy())] for image in pixels}
    labelled = set(data.pool.labelled.tolist())
    assert bool(seen & labelled) == (which == "W")
    assert len(seen) > 500


def test_after_views_batch_normalisation_knows_the_images_as_they_are(tmp_path: Path) -> None:
    def network() -> nn.Module:
        layers = [nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5)]
        return nn.Sequential(*layers, nn.Linear(108, 10))

    found = {}
    for objective in (FixMatch(), CrossEntropy()):
        rounds = ActiveLearning(rounds=0, query_size=5, complement=NoComplements(), mc_samples=2)
        model = Classifier(network, objective=objective)
        fit(tmp_path / type(objective).__name__, rounds, model, steps_per_round=5)
        trained: Any = model.network
        convolution, first = trained[0], trained[1]
        assert first.momentum == 0.1
        with torch.no_grad():
            seen = convolution(to_floats(TRUTH.images))  # fewer than FOR_STATISTICS
        expected = seen.mean((0, 2, 3)), seen.var((0, 2, 3))
        found[type(objective)] = all(
            torch.allclose(one, other, rtol=1e-3, atol=1e-6)
            for one, other in zip((first.running_mean, first.running_var), expected, strict=True)
        )
    assert found == {FixMatch: True, CrossEntropy: False}


def test_the_graph_alone_is_in_the_records_beside_the_network_that_learns_from_it(
    tmp_path: Path,
) -> None:
    objective = PoissonLabels(space="images")
    rounds = ActiveLearning(rounds=1, query_size=20, complement=NoComplements(), mc_samples=2)
    data = fit(tmp_path, rounds, Classifier(DigitsNet, objective=objective), steps_per_round=60)
    pool, rows = data.pool, read_rounds(tmp_path / LAST.parents[1] / "rounds.csv")
    for row in rows:
        bought = (pool.acquired_in >= 0) & (pool.acquired_in <= int(row["round"]))
        labels_N = TRUTH.labels.where(bought, torch.tensor(-1))
        graph = neighbour_graph(to_floats(TRUTH.images).flatten(1))
        guesses_N = pseudo_labels(graph, labels_N, 10)[0].argmax(1)
        right = (guesses_N == TRUTH.labels)[~bought].double().mean().item()
        assert float(row["graph_acc"]) == pytest.approx(right, abs=1e-6)
    assert [float(row["graph_acc"]) > 0.7 for row in rows] == [True, True]
    assert float(rows[1]["test_acc"]) > 0.5


class Joint(DenseVAE):
    """A classifier on the latent means, whose decoder makes the complements."""

    def __init__(self) -> None:
        super().__init__()
        self.classify = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 10))

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.encode(images)[0])


class Both(Objective):
    unlabelled = "W"
    trains_autoencoder = True

    def __call__(self, step: Step) -> Tensor:
        assert step.autoencoder is step.network
        assert step.unlabelled is not None
        mean, _ = step.autoencoder.encode(step.unlabelled)
        decoded = step.autoencoder.decode(mean)
        loss = F.cross_entropy(step.network(step.images), step.labels)
        return loss + F.binary_cross_entropy(decoded, step.unlabelled)


def test_an_autoencoder_may_be_a_part_of_the_module(tmp_path: Path) -> None:
    rounds = ActiveLearning(rounds=1, query_size=10, complement=AllNew("mean"), mc_samples=3)
    made: list[Tensor] = []

    class Watched(ActiveLearning):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
            with torch.no_grad(), eval_mode(pl_module.network):
                mean, _ = pl_module.network.encode(to_floats(TRUTH.images))
                made.append(pl_module.network.decode(mean))
            super().on_train_epoch_end(trainer, pl_module)

    rounds.__class__ = Watched
    pool = fit(tmp_path, rounds, Classifier(Joint, objective=Both())).pool
    assert not rounds.uses_vae
    parents = pool.generated.parents
    assert len(parents) == 10
    expected = (made[0][parents].clamp(0, 1) * 255).round().to(torch.uint8)
    assert (expected.int() - pool.generated.images.int()).abs().max() <= 1
    assert (
        torch.load(tmp_path / LAST, weights_only=True)["callbacks"]["ActiveLearning"]["vae"] is None
    )


@pytest.mark.parametrize("selection", [TopK(), ClusterMargin(space="images"), BatchBALD()])
def test_first_labels_are_not_chosen_by_scores(selection: Selection, tmp_path: Path) -> None:
    words = f"initial_selection: {type(selection).__name__} goes by scores, and there are none"
    with pytest.raises(SettingError, match=words):
        fit(tmp_path, ActiveLearning(initial_selection=selection, complement=NoComplements()))


@pytest.mark.parametrize("selection", [BADGE(), GAAL(), ASAL()])
def test_first_labels_are_not_chosen_by_a_network(selection: Selection, tmp_path: Path) -> None:
    words = f"initial_selection: {type(selection).__name__} needs a trained network, and there is"
    with pytest.raises(SettingError, match=words):
        fit(tmp_path, ActiveLearning(initial_selection=selection, complement=NoComplements()))


def near_latents(candidates: Any) -> Tensor:
    return points(candidates, torch.arange(candidates.query_size), "latents")


def test_an_autoencoder_that_is_not_trained_yet_chooses_no_first_labels(tmp_path: Path) -> None:
    network = Classifier(JointVAE, objective=JointObjective())
    rounds = ActiveLearning(initial_selection=near_latents, complement=AllNew(), mc_samples=3)
    with pytest.raises(SettingError, match=r"initial_selection: latents .* before round 0: .* own"):
        fit(tmp_path, rounds, network)


@pytest.mark.parametrize(
    ("network", "objective", "words"),
    [
        (DigitsNet, JointObjective(), "Joint trains an autoencoder, and DigitsNet is none"),
        (JointVAE, CrossEntropy(), "of JointVAE, whose autoencoder CrossEntropy does not train"),
        (JointVAE, Consistency(), "of JointVAE, whose autoencoder Consistency does not train"),
        (
            JointVAE,
            PoissonLabels(),
            "latents would be those of JointVAE, .* PoissonLabels does not",
        ),
    ],
)
def test_an_autoencoder_has_to_be_there_and_to_be_trained(
    network: Any, objective: Objective, words: str, tmp_path: Path
) -> None:
    rounds = ActiveLearning(complement=AllNew(), mc_samples=3, vae=DenseVAE())
    with pytest.raises(SettingError, match=f"^--model.objective: .*{words}"):
        fit(tmp_path, rounds, Classifier(network, objective=objective))


# Questions


class White(Selection):
    """Asks about images of one grey level each."""

    def __call__(self, candidates: Any) -> Synthesised:
        levels = torch.arange(1, candidates.query_size + 1) / 255
        return Synthesised(levels.view(-1, 1, 1, 1).expand(-1, *candidates.image_shape))


class Levels(Oracle):
    """Labels an image that is not in W by its grey level, any other by the truth."""

    def __init__(self) -> None:
        self.questions: list[Question] = []

    def answer(self, question: Question) -> Any:
        self.questions.append(question)
        for index, image in zip(question.indices.tolist(), question.images, strict=True):
            label = int(TRUTH.labels[index]) if index >= 0 else int(image.float().mean()) % 10
            yield Answer(index, label)


def test_an_image_that_is_not_in_w_can_be_asked_about(tmp_path: Path) -> None:
    oracle = Levels()
    rounds = ActiveLearning(
        rounds=2, query_size=5, selection=White(), complement=NoComplements(), mc_samples=3
    )
    data = fit(tmp_path, rounds, oracle=oracle)
    generated = data.pool.generated
    assert generated.labels.tolist() == [1, 2, 3, 4, 5] * 2
    assert generated.parents.tolist() == list(range(-1, -11, -1))
    assert generated.kinds.tolist() == [SYNTHESISED] * 10
    assert generated.images[:5, 0, 0, 0].tolist() == [1, 2, 3, 4, 5]
    assert [row["labelled"] for row in rounds.history] == [30, 35, 40]
    assert [row["unlabelled"] for row in rounds.history] == [1267] * 3
    first, *others = oracle.questions
    assert first.probs_K_C is None
    for question in others:
        assert question.probs_K_C is not None
        torch.testing.assert_close(question.probs_K_C.sum(1), torch.ones(5))
    table = (tmp_path / "run/version_0/acquisitions.csv").read_text()
    assert table.count("synthesised") == 10
    trained = Counter(int(x) for _, y in data.train_dataloader() for x in y)
    assert sum(trained.values()) == 4 * 8


class Slow(Oracle):
    """Has so many answers, and no more until somebody raises the number."""

    def __init__(self, patience: int) -> None:
        self.patience, self.asked = patience, []

    def answer(self, question: Question) -> Any:
        for index in question.indices.tolist():
            if len(self.asked) == self.patience:
                raise NotYet("later")
            self.asked.append(index)
            yield Answer(index, int(TRUTH.labels[index]))


def test_a_run_that_waits_goes_on_without_training_or_scoring_again(tmp_path: Path) -> None:
    def rounds() -> ActiveLearning:
        return ActiveLearning(rounds=2, query_size=20, complement=Duplicate(), mc_samples=3)

    whole = fit(tmp_path / "whole", rounds(), oracle=Slow(1000))
    first = Slow(30 + 7)
    with pytest.raises(NotYet):
        fit(tmp_path / "other", rounds(), oracle=first)
    second, again = Slow(1000), rounds()
    scored: list[int] = []

    class Counting(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            scored.append(self.current_epoch)
            return super().training_step(batch, batch_idx)

    goes_on = fit(
        tmp_path / "other",
        again,
        Counting(DigitsNet),
        tmp_path / "other" / LAST,
        oracle=second,
    )
    assert set(scored) == {1, 2}  # round 0 is not trained again
    assert not {*first.asked} & {*second.asked}
    assert goes_on.pool.digest() == whole.pool.digest()


class Twice(Selection):
    def __call__(self, candidates: Any) -> Tensor:
        return candidates.labelled[:1].repeat(2) if candidates.query_size == 6 else self.fails()

    def fails(self) -> Tensor:
        raise RuntimeError("out of\n order")


@pytest.mark.parametrize(
    ("query_size", "words"), [(6, "chosen twice"), (7, "RuntimeError: out of order. Fix it")]
)
def test_a_purchase_is_checked_before_a_label_is_paid_for(
    query_size: int, words: str, tmp_path: Path
) -> None:
    oracle = Levels()
    rounds = ActiveLearning(
        rounds=1,
        query_size=query_size,
        selection=Twice(),
        complement=NoComplements(),
        mc_samples=3,
    )
    with pytest.raises(SettingError, match=f"--acquisition.selection: .*{words}"):
        fit(tmp_path, rounds, oracle=oracle)
    assert len(oracle.questions) == 1  # the first labels


# Complements and formats


def test_no_image_is_complemented_more_often_than_its_cap(tmp_path: Path) -> None:
    counts = {}
    for cap in (None, 1):
        rounds = ActiveLearning(
            rounds=6,
            query_size=20,
            complement=Duplicate("lowest", max_per_parent=cap),
            mc_samples=3,
        )
        parents = fit(tmp_path / str(cap), rounds).pool.generated.parents
        counts[cap] = max(Counter(parents.tolist()).values())
    assert counts[None] > 1
    assert counts[1] == 1


def components(root: Path) -> Source:
    digits = Digits()(root)
    pixels = [part.images.flatten(1).numpy() / 255 for part in (digits.train, digits.test)]
    pca = PCA(16, random_state=0).fit(pixels[0])
    train, test = (torch.tensor(pca.transform(x), dtype=torch.float32) for x in pixels)
    return Source(
        Images(train, digits.train.labels), Images(test, digits.test.labels), digits.classes
    )


def test_w_may_be_vectors(tmp_path: Path) -> None:
    def head() -> nn.Module:
        return nn.Sequential(nn.Dropout(0.2), nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 10))

    rounds = ActiveLearning(rounds=3, query_size=50, complement=Duplicate(), mc_samples=10)
    data = fit(
        tmp_path,
        rounds,
        Classifier(head, optimizer=lambda w: torch.optim.Adam(w, 0.01)),
        source=components,
        steps_per_round=100,
    )
    generated = data.pool.generated
    assert generated.images.dtype == torch.float32
    assert torch.equal(generated.images, data.train.images[generated.parents])
    assert rounds.history[-1]["test/acc"] > 0.7  # chance is 0.1


def test_shapes_follow_from_the_data(tmp_path: Path) -> None:
    def three(root: Path) -> Source:
        del root
        images = torch.randint(0, 256, (60, 3, 12, 14), dtype=torch.uint8)
        part = Images(images, torch.arange(60) % 3)
        return Source(part, part, ["a", "b", "c"])

    model, vae = Classifier(DigitsNet), VAE(epochs=1)
    vae.adapt((3, 12, 14), 3)
    rounds = ActiveLearning(
        rounds=1, query_size=5, complement=AllNew(), vae=vae.network, mc_samples=3
    )
    pool = fit(tmp_path, rounds, model, source=three).pool
    assert pool.generated.images.shape == (5, 3, 12, 14)
    assert model(torch.rand(2, 3, 12, 14)).shape == (2, 3)
