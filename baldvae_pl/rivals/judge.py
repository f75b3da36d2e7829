"""A judge: who answers for images that were made, in experiments without people."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.nn import functional as F

from baldvae_pl.answer import CANNOT_TELL, Answer
from baldvae_pl.data.batches import to_floats
from baldvae_pl.errors import SettingError
from baldvae_pl.networks import DigitsNet
from baldvae_pl.networks.making import following
from baldvae_pl.oracle import Oracle, Question
from baldvae_pl.seeding import Purpose, derive_seed

BATCH = 64
"""Images a step, by Adam with a learning rate of 0.001."""


class Judge(Oracle):
    """Tells the class of made images, as a network does that has learnt all labels of W.

    It learns apart from the run, on the CPU, when it is first asked about an image that is not in
    W, and gives the same answers at every start. Images of W get their own labels. The log says
    how much it knows of test images.

    Args:
        sure: If no class has this probability, it cannot tell.
        epochs: Passes over W.
        network: Makes the network; what it leaves open follows from the data.
        seed: Of its weights and batches.
    """

    simulates = True

    def __init__(
        self,
        sure: float = 0.9,
        epochs: int = 2,
        network: Callable[[], nn.Module] = DigitsNet,
        seed: int = 0,
    ) -> None:
        if not 0 <= sure <= 1:
            raise SettingError(f"--data.oracle.sure: {sure} is no probability from 0 to 1.")
        if epochs < 1:
            raise SettingError(f"--data.oracle.epochs: must be at least 1, got {epochs}.")
        self.sure = sure
        self.epochs = epochs
        self.make_network = network
        self.seed = seed
        self.network: nn.Module | None = None

    def answer(self, question: Question) -> Iterator[Answer]:
        """Answer all at once."""
        assert self.source is not None
        made = question.indices < 0
        labels = self.source.train.labels[question.indices.clamp(min=0)]
        if made.any():
            labels[made] = self.look(question.images[made], len(question.classes))
        for index, label in zip(question.indices.tolist(), labels.tolist(), strict=True):
            yield Answer(index, CANNOT_TELL if label < 0 else label)

    def try_on(self, images: Tensor, num_classes: int) -> None:
        """Raise whatever its network raises for images of W."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            network = following(self.make_network, tuple(images.shape[1:]), num_classes)()
            network.eval()(to_floats(images))

    @torch.no_grad()
    def look(self, images: Tensor, num_classes: int) -> Tensor:
        """Return the class of each image, or -1 where it is not sure."""
        if self.network is None:
            self.network = self.trained(num_classes)
            assert self.source is not None
            tested, truth = self.source.test
            told = self.look(tested, num_classes)
            right = (told == truth)[told >= 0].float().mean() if (told >= 0).any() else torch.nan
            rank_zero_info(
                f"The judge has learnt all {len(self.source.train.labels):,} labels. It is sure of "
                f"{(told >= 0).float().mean():.1%} of the test images, and right about "
                f"{right:.1%} of these."
            )
        probs = [self.network(to_floats(part)).softmax(1) for part in images.split(BATCH)]
        probability, label = torch.cat(probs).max(1)
        return label.where(probability >= self.sure, -1)

    @torch.enable_grad()
    def trained(self, num_classes: int) -> nn.Module:
        """Return a network that has learnt all labels of W."""
        assert self.source is not None
        images_N, labels_N = self.source.train
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, 0, Purpose.JUDGE))
            shape = tuple(images_N.shape[1:])
            network = following(self.make_network, shape, num_classes)()
            optimizer = torch.optim.Adam(network.parameters())
            for _ in range(self.epochs):
                for part in torch.randperm(len(labels_N)).split(BATCH):
                    logits: Any = network(to_floats(images_N[part]))
                    optimizer.zero_grad()
                    F.cross_entropy(logits, labels_N[part]).backward()
                    optimizer.step()
        return network.eval()
