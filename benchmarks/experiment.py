"""A whole experiment of active learning: ours, in a plain PyTorch loop, and with Baal."""

import tempfile
import time
from collections.abc import Callable
from statistics import median

import pandas as pd
import torch
from baal.active import ActiveLearningDataset
from baal.active.active_loop import ActiveLearningLoop
from baal.active.heuristics import BALD
from baal.bayesian.dropout import patch_module as baal_dropout
from baal.modelwrapper import ModelWrapper, TrainingArgs
from lightning.pytorch import Trainer
from timing import QUIET
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from baldvae_pl import (
    ActiveLearning,
    Classifier,
    Images,
    MCDropout,
    NoComplements,
    PoolDataModule,
    Source,
)
from baldvae_pl.acquisition import bald
from baldvae_pl.data.batches import to_floats
from baldvae_pl.networks import MNISTNet

SIZE, TEST, INITIAL, QUERY, PURCHASES, STEPS, BATCH = 6000, 1000, 100, 100, 3, 100, 64


def ours(source: Source, draws: int, nested: int) -> float:
    """Return the accuracy after the last purchase."""
    data = PoolDataModule(
        lambda root: source, initial_labels=INITIAL, batch_size=BATCH, steps_per_round=STEPS
    )
    rounds = ActiveLearning(
        PURCHASES,
        QUERY,
        complement=NoComplements(),
        posterior=MCDropout(nested),
        mc_samples=draws,
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(**QUIET, default_root_dir=folder, callbacks=[rounds])
        trainer.fit(Classifier(MNISTNet), datamodule=data)
    return rounds.history[-1]["test/acc"]


def plain_loop(source: Source, draws: int) -> float:
    """The same by hand: T passes with dropout on, images that are read once into memory."""
    images, labels = to_floats(source.train.images), source.train.labels
    order = torch.randperm(SIZE)
    labelled, unlabelled = order[:INITIAL], order[INITIAL:]

    def train() -> nn.Module:
        net = MNISTNet()
        optimizer = torch.optim.Adam(net.parameters())
        for _ in range(STEPS):
            batch = labelled[torch.randint(len(labelled), (BATCH,))]
            loss = F.cross_entropy(net(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return net

    @torch.no_grad()
    def score(net: nn.Module, part: Tensor) -> Tensor:
        return bald(torch.stack([net(part).log_softmax(-1) for _ in range(draws)], 1))

    for _ in range(PURCHASES):
        net = train()
        scores = torch.cat([score(net, images[part]) for part in unlabelled.split(256)])
        best = scores.argsort(descending=True)
        labelled = torch.cat([labelled, unlabelled[best[:QUERY]]])
        unlabelled = unlabelled[best[QUERY:]]
        accuracy(net, source.test)
    return accuracy(train(), source.test)


def with_baal(source: Source, draws: int) -> float:
    """The same with Baal, at its own settings of scoring."""
    images, labels = source.train
    pool = ActiveLearningDataset(TensorDataset(to_floats(images), labels))
    pool.label_randomly(INITIAL)

    def train() -> ModelWrapper:
        net = baal_dropout(MNISTNet())
        passes = round(STEPS * BATCH / len(pool))
        args = TrainingArgs(
            optimizer=torch.optim.Adam(net.parameters()),
            batch_size=BATCH,
            epoch=passes,
            use_cuda=False,
            workers=0,
            criterion=nn.CrossEntropyLoss(),
        )
        wrapper = ModelWrapper(net, args)
        wrapper.train_on_dataset(pool)
        args.batch_size = TrainingArgs.batch_size
        return wrapper

    for _ in range(PURCHASES):
        wrapper = train()

        def score(dataset: TensorDataset, wrapper: ModelWrapper = wrapper) -> object:
            return wrapper.predict_on_dataset(dataset, draws, verbose=False)

        ActiveLearningLoop(pool, score, BALD(), QUERY).step()
        accuracy(wrapper.model, source.test)
    return accuracy(train().model, source.test)


@torch.no_grad()
def accuracy(net: nn.Module, test: Images) -> float:
    """Share of right answers in eval mode."""
    net.eval()
    images = to_floats(test.images)
    right = [net(part).argmax(1) for part in images.split(256)]
    return (torch.cat(right) == test.labels).float().mean().item()


def experiment(source: Source, repeats: int = 1) -> pd.DataFrame:
    """Seconds of each, and as a multiple of ours at the same number of draws."""
    small = source._replace(
        train=Images(*(part[:SIZE] for part in source.train)),
        test=Images(*(part[:TEST] for part in source.test)),
    )
    ways: dict[str, Callable[[], float]] = {
        "ours, T = 20 independent": lambda: ours(small, 20, 1),
        "ours, T = 100 (default)": lambda: ours(small, 100, 10),
        "plain PyTorch loop, T = 20": lambda: plain_loop(small, 20),
        "Baal 2.1, T = 20": lambda: with_baal(small, 20),
    }
    # What only the first run of a process takes, so that it is in none of them.
    first = Images(*(part[: INITIAL + 2 * QUERY * PURCHASES] for part in source.train))
    ours(small._replace(train=first), 2, 1)
    times: dict[str, list[float]] = {name: [] for name in ways}
    reached: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            began = time.perf_counter()
            reached[name].append(100 * way())
            times[name].append(time.perf_counter() - began)
    table = pd.DataFrame({"way": list(ways)})
    table["seconds"] = [round(median(times[name]), 1) for name in ways]
    table["times ours"] = (table["seconds"] / table["seconds"][0]).round(1)
    table["accuracy (%)"] = [round(median(reached[name]), 1) for name in ways]
    return table
