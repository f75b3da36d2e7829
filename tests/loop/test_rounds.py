"""The callback: one round against the algorithm, step by step, and the plain-Python use."""

import csv
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import scalars_of
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional as F

from baldvae_pl.acquisition import bald
from baldvae_pl.complement import AllNew, Complement, Duplicate, NoComplements, Uncertain
from baldvae_pl.data.batches import like_w, to_floats
from baldvae_pl.data.module import PoolDataModule
from baldvae_pl.errors import SettingError
from baldvae_pl.loop.guards import check_scores
from baldvae_pl.loop.processes import even_batches
from baldvae_pl.loop.rounds import ActiveLearning
from baldvae_pl.modules import VAE, Classifier, train_vae
from baldvae_pl.networks import DigitsNet
from baldvae_pl.posterior import DropoutDraws
from baldvae_pl.runs.folder import RunFolder
from baldvae_pl.seeding import Purpose, make_generator
from baldvae_pl.selection import BatchBALD, Random, Softmax

CLASSES = 10
POLICIES: dict[str, Callable[[], Complement]] = {
    "uncertain": Uncertain,
    "none": NoComplements,
    "all_new": AllNew,
    "duplicate": Duplicate,
}


class StepwisePosterior:
    """Two draws that disagree by an amount read off the image: few levels, so many ties."""

    def __init__(self, network: nn.Module, mc_samples: int, generator: torch.Generator) -> None:
        self.network = network

    def __call__(self, images: Tensor) -> Tensor:
        level = (images.sum((1, 2, 3)) * 255).round().long() % 7
        gap = level.float() / 14
        probs_N_T_C = torch.zeros(len(images), 2, CLASSES)
        probs_N_T_C[:, 0, 0] = probs_N_T_C[:, 1, 1] = 0.5 + gap
        probs_N_T_C[:, 0, 1] = probs_N_T_C[:, 1, 0] = 0.5 - gap
        return probs_N_T_C.log()


def fit(
    folder: Path, rounds: ActiveLearning, model: LightningModule | None = None, **data: Any
) -> PoolDataModule:
    """Run on real digits with few steps."""
    settings = {"initial_labels": 30, "steps_per_round": 3, "batch_size": 8, "seed": 3} | data
    module = PoolDataModule(**settings)
    trainer = Trainer(
        accelerator="cpu",
        logger=TensorBoardLogger(str(folder), "run", 0),
        callbacks=[rounds],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(model or Classifier(DigitsNet), datamodule=module)
    return module


def trainer_of(data: PoolDataModule) -> Trainer:
    assert data.trainer is not None
    return data.trainer


def records(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "run" / "version_0" / name).open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("policy", ["uncertain", "none", "all_new", "duplicate"])
def test_rounds_follow_the_algorithm(policy: str, tmp_path: Path) -> None:
    vae = VAE().network
    asked: list[Tensor] = []
    data = PoolDataModule(seed=3)
    data.setup("fit")
    truth = data.train

    def oracle(indices: Tensor) -> Tensor:
        asked.append(indices)
        return truth.labels[indices]

    rounds = ActiveLearning(
        rounds=2, query_size=40, complement=POLICIES[policy](), posterior=StepwisePosterior, vae=vae
    )
    pool = fit(tmp_path, rounds, oracle=oracle).pool

    # The same by hand, image by image.
    scores = bald(StepwisePosterior(vae, 2, torch.Generator())(to_floats(truth.images)))
    labelled = sorted(asked[0].tolist())
    assert len(labelled) == 30
    parents: list[int] = []
    for round in (0, 1):
        unlabelled = [i for i in range(len(scores)) if i not in labelled]
        chosen = sorted(unlabelled, key=lambda i: (-scores[i].item(), i))[:40]
        threshold = scores[chosen[-1]].item()
        assert asked[round + 1].tolist() == chosen
        new = {
            "uncertain": [i for i in labelled if scores[i] >= threshold],
            "duplicate": [i for i in labelled if scores[i] >= threshold],
            "all_new": sorted(chosen),
            "none": [],
        }[policy]
        parents += new
        row = rounds.history[round]
        assert row["bald/threshold"] == threshold
        assert row["complemented"] == len(new)
        assert row["bald/labelled_max"] == max(scores[i].item() for i in labelled)
        assert row["labelled"] == 30 + 40 * round
        labelled = sorted(labelled + chosen)
    assert pool.labelled.tolist() == labelled
    assert torch.equal(pool.labels[pool.labelled], truth.labels[pool.labelled])
    assert pool.generated.parents.tolist() == parents
    assert torch.equal(pool.generated.labels, truth.labels[parents])
    if policy == "duplicate":
        assert torch.equal(pool.generated.images, truth.images[parents])
    if policy in ("uncertain", "all_new"):
        first = pool.generated.parents[pool.generated.rounds == 1]
        noise_of = make_generator(3, 0, Purpose.COMPLEMENT)
        with torch.no_grad():
            mean, log_var = vae.encode(to_floats(truth.images[first]))
            z = mean + torch.randn(mean.shape, generator=noise_of) * (0.5 * log_var).exp()
            by_hand = like_w(vae.decode(z), torch.uint8)
        assert torch.equal(pool.generated.images[: len(first)], by_hand)
    if policy != "none":
        assert len(parents) > 0
    assert len(rounds.history) == 3
    for round in (0, 1):  # what complements are, image by image
        row, these = rounds.history[round], pool.generated.rounds == round + 1
        if not these.any():
            assert not [key for key in row if key.startswith("complement/")]
            continue
        of, images = pool.generated.parents[these], to_floats(pool.generated.images[these])
        log_probs = StepwisePosterior(vae, 2, torch.Generator())(images)
        pairs = list(zip(images, to_floats(truth.images[of]), strict=True))
        apart = [float(((one - other) ** 2).mean() ** 0.5) for one, other in pairs]
        right = log_probs.exp().mean(1).argmax(1) == truth.labels[of]
        assert row["complement/distance"] == pytest.approx(sum(apart) / len(apart), rel=1e-5)
        assert row["complement/bald"] == pytest.approx(bald(log_probs).mean().item(), rel=1e-5)
        assert row["complement/parent_bald"] == pytest.approx(scores[of].mean().item(), rel=1e-5)
        assert row["complement/acc"] == pytest.approx(right.float().mean().item())
        if policy == "duplicate":
            assert row["complement/distance"] == 0
            assert row["complement/bald"] == pytest.approx(row["complement/parent_bald"])
        else:
            assert row["complement/distance"] > 0
    assert "acquired" not in rounds.history[-1]  # no label is bought after the last training


def test_random_buys_by_seed_alone(tmp_path: Path) -> None:
    def bought(name: str, **data: Any) -> Tensor:
        rounds = ActiveLearning(
            rounds=1, query_size=50, selection=Random(), complement=NoComplements()
        )
        pool = fit(tmp_path / name, rounds, **data).pool
        chosen = (pool.acquired_in == 1).nonzero().flatten()
        assert rounds.history[0]["bald/threshold"] == pool.scores[chosen].min().item()
        return chosen

    first = bought("a")
    assert torch.equal(first, bought("b", scoring_batch_size=100, steps_per_round=1))
    assert not torch.equal(first, bought("c", seed=4))
    # Uniform over U: the mean index of 50 of 1,297 lies within five standard errors of the middle.
    assert abs(first.float().mean() - 648) < 5 * 1297 / 12**0.5 / 50**0.5


def test_a_selection_decides_and_the_threshold_is_the_lowest_bald_in_it(tmp_path: Path) -> None:
    rounds = ActiveLearning(rounds=1, query_size=20, selection=Softmax(5), complement=Duplicate())
    data = fit(tmp_path / "softmax", rounds)
    pool, row = data.pool, rounds.history[0]
    chosen = (pool.acquired_in == 1).nonzero().flatten()
    assert row["bald/threshold"] == pool.scores[chosen].min().item()
    assert row["bald/unlabelled_max"] > row["bald/threshold"]
    top = fit(
        tmp_path / "top", ActiveLearning(rounds=1, query_size=20, complement=NoComplements())
    ).pool
    assert set(chosen.tolist()) != set((top.acquired_in == 1).nonzero().flatten().tolist())


def test_batch_bald_buys_by_the_rounds_own_draws(tmp_path: Path) -> None:
    rounds = ActiveLearning(
        rounds=1, query_size=6, selection=BatchBALD(), complement=NoComplements(), mc_samples=12
    )
    pool = fit(tmp_path, rounds, initial_labels=900).pool
    row = rounds.history[0]
    assert row["acquired"] == 6
    chosen = (pool.acquired_in == 1).nonzero().flatten()
    assert row["bald/threshold"] == pool.scores[chosen].min().item()
    again = ActiveLearning(
        rounds=1, query_size=6, selection=BatchBALD(), complement=NoComplements(), mc_samples=12
    )
    same = fit(tmp_path / "again", again, initial_labels=900, scoring_batch_size=50).pool
    assert torch.equal(pool.acquired_in, same.acquired_in)


def test_how_alike_the_images_of_a_purchase_are(tmp_path: Path) -> None:
    model = Classifier(DigitsNet)
    rounds = ActiveLearning(rounds=1, query_size=7, complement=NoComplements())
    rounds.folder = RunFolder(tmp_path / "another")
    data = fit(tmp_path, ActiveLearning(rounds=0, complement=NoComplements()), model)
    rounds._acquire(rounds._round(trainer_of(data), model, 0), row := {"round": 0, "labelled": 30})
    bought = (data.pool.acquired_in == 1).nonzero().flatten()
    with torch.no_grad():
        features = model.network.trunk(to_floats(data.train.images[bought])).flatten(1)
    pairs = [
        F.cosine_similarity(features[i], features[j], dim=0).item()
        for i in range(7)
        for j in range(7)
        if i != j
    ]
    assert row["acquired/redundancy"] == pytest.approx(sum(pairs) / len(pairs), abs=1e-5)


@pytest.mark.parametrize(
    ("count", "size", "expected"), [(60_000, 4096, 2500), (10_000, 4096, 834), (100, 128, 100)]
)
def test_batches_are_dealt_evenly(count: int, size: int, expected: int) -> None:
    found = even_batches(count, size)
    batches = -(-count // found)
    assert min(found, count) == expected
    assert batches == 1 or batches % 12 == 0


def test_own_acquisition_function_decides(tmp_path: Path) -> None:
    def least_sure_of_zero(log_probs_N_T_C: Tensor) -> Tensor:
        return -log_probs_N_T_C[:, 0, 0]

    rounds = ActiveLearning(
        rounds=1,
        query_size=60,
        function=least_sure_of_zero,
        complement=NoComplements(),
        posterior=StepwisePosterior,
    )
    data = fit(tmp_path, rounds)
    log_probs = StepwisePosterior(nn.Identity(), 2, torch.Generator())(to_floats(data.train.images))
    priority = -log_probs[:, 0, 0]
    start = (data.pool.acquired_in == 0).tolist()
    unlabelled = [i for i in range(len(priority)) if not start[i]]
    expected = sorted(unlabelled, key=lambda i: (-priority[i].item(), i))[:60]
    chosen = (data.pool.acquired_in == 1).nonzero().flatten()
    assert chosen.tolist() == sorted(expected)
    assert rounds.history[0]["bald/threshold"] == bald(log_probs)[expected].min().item()


def test_the_last_purchase_takes_what_is_left(tmp_path: Path) -> None:
    rounds = ActiveLearning(rounds=10, query_size=500, complement=NoComplements(), mc_samples=2)
    pool = fit(tmp_path, rounds).pool
    assert [row["labelled"] for row in rounds.history] == [30, 530, 1030, 1297]
    assert [row.get("acquired") for row in rounds.history] == [500, 500, 267, None]
    assert len(pool.unlabelled) == 0


def test_curves_are_drawn_against_the_number_of_labels(tmp_path: Path) -> None:
    rounds = ActiveLearning(rounds=2, query_size=20, mc_samples=3, complement=Duplicate())
    fit(tmp_path, rounds)
    curves = scalars_of(tmp_path / "run" / "version_0")
    for tag in ("test/acc", "test/nll", "test/ece", "test/acc_mc", "pool/generated"):
        assert list(curves[tag]) == [30, 50, 70]
    for tag in ("bald/threshold", "bald/labelled_max", "bald/unlabelled_mean", "pool/complemented"):
        assert list(curves[tag]) == [30, 50]
    for row, line in zip(rounds.history, records(tmp_path, "rounds.csv"), strict=True):
        assert curves["test/acc"][int(row["labelled"])] == pytest.approx(float(line["test_acc"]))
        assert float(line["seconds_train"]) > 0


class Own(LightningModule):
    """A user's module, as the README shows it."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))
        self.first_weights: list[Tensor] = []

    def reset_parameters(self) -> None:
        self.network[2].reset_parameters()
        self.first_weights.append(self.network[2].weight.detach().clone())

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        assert 0 <= images.min() <= images.max() <= 1
        return F.cross_entropy(self.network(images), labels)

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        images, labels = batch
        self.log("test/acc", (self.network(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_own_module_and_trainer(tmp_path: Path) -> None:
    model = Own()
    rounds = ActiveLearning(rounds=2, query_size=10, mc_samples=5, complement=Duplicate())
    data = fit(tmp_path, rounds, model, steps_per_round=40)
    assert len(data.pool.labelled) == 50
    assert all(row["test/acc"] > 0.3 for row in rounds.history)  # chance is 0.1
    assert len(model.first_weights) == 3
    assert not torch.equal(model.first_weights[0], model.first_weights[1])


def test_vae_learns_to_reconstruct_and_its_seed_fixes_it(tmp_path: Path) -> None:
    def trained(seed: int, epochs: int) -> tuple[VAE, float]:
        seed_everything(seed + 100)  # the global seed must not matter
        vae = VAE(epochs=epochs, batch_size=16)
        data = PoolDataModule(seed=5)
        data.setup("fit")
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        train_vae(vae, data, trainer)
        images = to_floats(data.test.images)
        error = F.mse_loss(vae.network.decode(vae.network.encode(images)[0]), images).item()
        of_mean_image = F.mse_loss(images.mean(0).expand_as(images), images).item()
        return vae, error / of_mean_image

    vae, relative_error = trained(1, epochs=10)
    assert relative_error < 0.6
    assert not any(parameter.requires_grad for parameter in vae.parameters())
    weights = [[*trained(seed, epochs=2)[0].parameters()] for seed in (1, 2)]
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_vae_loss_is_minus_the_evidence_lower_bound(likelihood: str) -> None:
    vae = VAE(likelihood=likelihood)
    logged: dict[str, torch.Tensor] = {}
    vae.log_dict = lambda parts, **kwargs: logged.update(parts)
    vae.log = lambda *args, **kwargs: None
    vae._trainer = SimpleNamespace(current_epoch=0)  # no loop has to run
    pixels = torch.randint(0, 256, (7, 1, 8, 8), dtype=torch.uint8)
    vae.on_train_epoch_start()
    torch.manual_seed(0)
    loss = vae.training_step((pixels, torch.zeros(7)), 0)
    vae.on_train_epoch_end()

    torch.manual_seed(0)
    images = to_floats(pixels)
    mean, log_var = vae.network.encode(images)
    q = torch.distributions.Normal(mean, (log_var / 2).exp())
    decoded = vae.network.decode(q.rsample())
    if likelihood == "bernoulli":
        log_p = images * decoded.log() + (1 - images) * (1 - decoded).log()
    else:  # the best variance that all pixels can share is their mean squared error
        sigma = (decoded - images).square().mean().sqrt()
        log_p = torch.distributions.Normal(decoded, sigma).log_prob(images)
        worse = torch.distributions.Normal(decoded, sigma * 1.01).log_prob(images)
        assert worse.mean() < log_p.mean()
    divergence = torch.distributions.kl_divergence(q, torch.distributions.Normal(0, 1))
    expected = -log_p.sum() / 7, divergence.sum() / 7
    torch.testing.assert_close(logged["vae/reconstruction"], expected[0])
    torch.testing.assert_close(logged["vae/divergence"], expected[1])
    torch.testing.assert_close(loss, expected[0] + expected[1])


class FunctionalDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Dropout(0.5)
        self.linear = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(F.dropout(images.flatten(1), training=self.training))


class ScaledAfterwards(DigitsNet):
    def forward(self, images: Tensor) -> Tensor:
        return 2 * super().forward(images)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), "no active nn.Dropout"),
        (FunctionalDropout, "all posterior draws of FunctionalDropout agree"),
        (lambda: DigitsNet(num_classes=7), "outputs 7 classes; the data set has 10"),
        (lambda: nn.Sequential(nn.Dropout(), nn.Linear(9, 10)), r"images of shape \(1, 8, 8\)"),
        (ScaledAfterwards, r"ScaledAfterwards is not head\(trunk\(images\)\)"),
    ],
)
def test_unusable_networks_are_refused_before_training(
    network: Any, words: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=words):
        fit(tmp_path, ActiveLearning(complement=NoComplements()), Classifier(network))
    assert not list(tmp_path.rglob("*.csv"))


def test_module_without_reset_is_refused_unless_it_starts_warm(tmp_path: Path) -> None:
    class NoReset(Own):
        reset_parameters = property()  # type: ignore[assignment]

    with pytest.raises(SettingError, match="NoReset lacks reset_parameters"):
        fit(tmp_path, ActiveLearning(complement=NoComplements()), NoReset())
    warm = ActiveLearning(
        rounds=1, query_size=5, complement=NoComplements(), warm_start=True, mc_samples=3
    )
    assert len(fit(tmp_path, warm, NoReset()).pool.labelled) == 35


def test_a_callback_makes_one_run(tmp_path: Path) -> None:
    rounds = ActiveLearning(rounds=1, query_size=5, complement=NoComplements(), mc_samples=3)
    fit(tmp_path, rounds)
    with pytest.raises(SettingError, match="has made a run already"):
        fit(tmp_path, rounds)


class SaysItsMode(nn.Module):
    """A VAE that paints its images white in training mode."""

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean = torch.full((len(images), 64), float(self.training))
        return mean, torch.full_like(mean, -100)

    def decode(self, z: Tensor) -> Tensor:
        return z.view(-1, 1, 8, 8).clamp(0, 1)


def test_the_vae_is_in_eval_mode_when_it_complements(tmp_path: Path) -> None:
    vae = SaysItsMode()
    rounds = ActiveLearning(rounds=1, query_size=5, complement=AllNew(), vae=vae, mc_samples=3)
    pool = fit(tmp_path, rounds).pool
    assert len(pool.generated.images) == 5
    assert pool.generated.images.max() == 0
    assert vae.training


def test_policy_that_needs_a_vae_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"needs a VAE\. Give the argument vae"):
        fit(tmp_path, ActiveLearning(complement=Uncertain()))


def test_scores_that_are_no_numbers_are_refused() -> None:
    good, none, bad = torch.tensor([0.0, 0.1]), torch.zeros(2), torch.tensor([0.1, torch.nan])
    check_scores(good, good, 3, ranked=True)
    check_scores(none, none, 3, ranked=False)
    with pytest.raises(SettingError, match="the scores of round 3 are not finite"):
        check_scores(bad, bad, 3, ranked=False)
    with pytest.raises(SettingError, match="its scores of round 3"):
        check_scores(good, bad, 3, ranked=True)
    with pytest.raises(SettingError, match="after round 3 all posterior draws agree"):
        check_scores(none, none, 3, ranked=True)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: x.exp().mean(1), r"a tensor of shape \(8, 10\)"),
        (lambda x: x.mean((1, 2)).numpy(), "it gives ndarray"),
        (lambda x: x.mean((1, 2)) * torch.nan, "8 finite scores"),
        (lambda x, y: x, "TypeError: .*missing 1 required positional argument"),
    ],
)
def test_an_acquisition_function_is_tried_before_anything_else(
    function: Callable[..., object], words: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=f"--acquisition.function: .*{words}"):
        fit(tmp_path, ActiveLearning(complement=NoComplements(), function=function))
    assert not list(tmp_path.rglob("*.csv"))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e10, 1e30])
def test_scores_of_saturated_logits_are_finite(scale: float) -> None:
    head = nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 10))
    head[1].weight.data *= scale
    network = nn.Sequential(nn.Flatten(), head)
    draws = DropoutDraws(network, 20, torch.Generator().manual_seed(0))
    scores = bald(draws(torch.rand(50, 1, 8, 8)))
    assert ((scores >= 0) & (scores <= math.log(10) + 1e-6)).all()
