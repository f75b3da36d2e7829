"""Learning loss (Yoo and Kweon 2019): a small module learns to predict the loss of each image.

What it expects the highest loss for is bought. From each resolution of the trunk it sees the mean
of the activations, a tap; of each tap it makes 128 numbers, and of all of them the predicted loss.
It learns the order of the losses and not their size, which falls while the network learns: for
images i and j with losses l_i > l_j and predictions m_i and m_j the second term of the loss is

    max(0, margin - (m_i - m_j)).

From a share of the round on its gradients no longer reach the network.

Other than in the source, the taps are found by their resolution, so that every network has some;
for a ResNet they are the source's four. All steps have the round's optimizer.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baldvae_pl.acquisition import NetworkScore
from baldvae_pl.complement import in_precision_of
from baldvae_pl.errors import SettingError
from baldvae_pl.objective import Objective, Step
from baldvae_pl.posterior import PASS, eval_mode, has_trunk_and_head


class LossModule(nn.Module):
    """Taps to predicted losses.

    Args:
        channels: Numbers of each tap.
        width: Numbers that it makes of each.
    """

    def __init__(self, channels: list[int], width: int = 128) -> None:
        super().__init__()
        self.hidden = nn.ModuleList(nn.Linear(size, width) for size in channels)
        self.out = nn.Linear(width * len(channels), 1)

    def forward(self, taps: list[Tensor]) -> Tensor:
        """Return one number an image, shape (n,), from taps of shape (n, channels)."""
        hidden = [layer(tap).relu() for layer, tap in zip(self.hidden, taps, strict=True)]
        predicted: Tensor = self.out(torch.cat(hidden, 1))[:, 0]
        return predicted


class LearningLoss(Objective):
    """Cross-entropy, and a module that learns which images have the higher one.

    Bought by ``--acquisition.function PredictedLoss``. The share of pairs that it puts in the right
    order, in training, is ``train/ranked``.

    Args:
        weight: Of the ranking loss.
        margin: By which predictions of a pair should differ.
        detach_after: The share of a round from which on the module no longer moves the network.
    """

    def __init__(self, weight: float = 1.0, margin: float = 1.0, detach_after: float = 0.6) -> None:
        for name, value in (("weight", weight), ("margin", margin)):
            if value < 0:
                raise SettingError(f"--model.objective.{name}: must be at least 0, got {value}.")
        if not 0 <= detach_after <= 1:
            raise SettingError(
                f"--model.objective.detach_after: must be from 0 to 1, got {detach_after}."
            )
        self.weight = weight
        self.margin = margin
        self.detach_after = detach_after

    def beside(
        self,
        network: nn.Module,
        image_shape: tuple[int, ...],
        num_classes: int,  # noqa: ARG002
    ) -> dict[str, nn.Module]:
        """Return the module that predicts losses."""
        parts: Any = network
        if not has_trunk_and_head(network):
            raise SettingError(
                f"--model.objective: LearningLoss looks into a network's trunk, and "
                f"{type(network).__name__} has none. Give it a trunk and a head, or take "
                "CrossEntropy."
            )
        with eval_mode(network), torch.no_grad():
            _, taps = look_into(parts.trunk, torch.zeros(1, *image_shape))
        return {"loss": LossModule([tap.shape[1] for tap in taps])}

    def __call__(self, step: Step) -> Tensor:
        """Return the loss in nats."""
        network: Any = step.network
        features, taps = look_into(network.trunk, step.images)
        losses_n = F.cross_entropy(network.head(features), step.labels, reduction="none")
        if step.done >= self.detach_after:
            taps = [tap.detach() for tap in taps]
        predicted_n = network.beside["loss"](taps)
        ranking, right = ranking_loss(predicted_n, losses_n.detach(), self.margin)
        self.measures = {"ranked": right}
        return losses_n.mean() + self.weight * ranking


class PredictedLoss(NetworkScore):
    """The loss that an image would have if it were labelled, as `LearningLoss` predicts it."""

    def score(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return scores_N, which are good for their order alone."""
        parts: Any = network
        module = loss_module_of(network)
        scores = []
        for part in images.split(PASS):  # all of its activations are in memory
            taps = [in_precision_of(module, tap) for tap in look_into(parts.trunk, part)[1]]
            with torch.autocast(images.device.type, enabled=False):  # 8 bits make too many ties
                scores.append(module(taps))
        return torch.cat(scores)


def loss_module_of(network: Any) -> nn.Module:
    """Return the module that predicts losses, or raise a SettingError if there is none."""
    parts = getattr(network, "beside", {})
    if "loss" not in parts:
        raise SettingError(
            "--acquisition.function: PredictedLoss asks the module that LearningLoss trains. Take "
            "--model.objective LearningLoss."
        )
    module: nn.Module = parts["loss"]
    return module


def look_into(trunk: nn.Module, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the features that a trunk makes of images, and its taps on the way.

    Args:
        trunk: Of a network.
        images: As it takes them.

    Returns:
        Features; and of each resolution, the highest first, the last activations before the next,
        averaged over the image, shape (n, channels). Where there are none, as in a network of
        vectors, the features are the tap.
    """
    last: dict[torch.Size, Tensor] = {}

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001
        images_of_features = isinstance(output, Tensor) and output.ndim == 4
        learns = any(True for _ in module.parameters())  # else they may be the images, normalised
        if images_of_features and output[0, 0].numel() > 1 and (last or learns):
            last[output.shape[2:]] = output

    hooks = [module.register_forward_hook(keep) for module in trunk.modules()]
    try:
        features = trunk(images)
    finally:
        for hook in hooks:
            hook.remove()
    return features, [tap.mean((2, 3)) for tap in last.values()] or [features.flatten(1)]


def ranking_loss(predicted_n: Tensor, losses_n: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Return the mean ranking loss over pairs, the first with the last and so on inwards.

    Args:
        predicted_n: What the module says.
        losses_n: Of each image, without gradient.
        margin: By which predictions should differ.

    Returns:
        The loss, and the share of pairs whose order is right.
    """
    pairs = len(losses_n) // 2
    if pairs == 0:
        return predicted_n.sum() * 0, predicted_n.new_ones(())
    sign = torch.where(losses_n > losses_n.flip(0), 1.0, -1.0)[:pairs]
    lead = sign * (predicted_n - predicted_n.flip(0))[:pairs]
    return (margin - lead).clamp(min=0).mean(), (lead > 0).float().mean()
