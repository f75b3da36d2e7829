"""Learning loss: the ranking loss by hand, what moves whose weights, and what is looked at."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional.classification import binary_auroc

from baldvae_pl import (
    VAAL,
    ActiveLearning,
    Classifier,
    CrossEntropy,
    LearningLoss,
    NoComplements,
    PoolDataModule,
    PredictedLoss,
    SettingError,
    Step,
)
from baldvae_pl.data.batches import to_floats
from baldvae_pl.networks import (
    CIFAR10Net,
    DigitsNet,
    JointVAE,
    LeNet,
    MNISTNet,
    ResNet18,
    VectorNet,
)
from baldvae_pl.posterior import eval_mode
from baldvae_pl.rivals.learning_loss import LossModule, look_into, ranking_loss

SHIPPED: list[tuple[Any, tuple[int, ...]]] = [
    (DigitsNet, (1, 8, 8)),
    (MNISTNet, (1, 28, 28)),
    (LeNet, (1, 28, 28)),
    (CIFAR10Net, (3, 32, 32)),
    (ResNet18, (3, 32, 32)),
    (JointVAE, (3, 32, 32)),
    (VectorNet, (40,)),
]


def extended(network: Any, image_shape: tuple[int, ...] = (1, 8, 8)) -> Any:
    parts = LearningLoss().beside(network, image_shape, 10)
    network.add_module("beside", nn.ModuleDict(parts))
    return network


def test_the_ranking_loss_is_that_of_the_paper_pair_by_pair() -> None:
    predicted = torch.tensor([3.0, 0.2, 9.0, 0.7, 1.0])
    losses = torch.tensor([5.0, 1.0, 0.0, 2.0, 5.0])
    # The first with the fifth, equal, counts as lower: 1 + (3 - 1); the second with the fourth,
    # which is higher: 1 + (0.2 - 0.7); the third has nobody.
    loss, right = ranking_loss(predicted, losses, margin=1.0)
    assert loss.item() == pytest.approx((3.0 + 0.5) / 2)
    assert right.item() == 0.5
    loss, _ = ranking_loss(predicted, losses, margin=0.25)
    assert loss.item() == pytest.approx((2.25 + 0) / 2)
    alone, _ = ranking_loss(predicted[:1], losses[:1], margin=1.0)
    assert alone.item() == 0


def test_the_module_is_a_layer_a_tap_and_one_over_all() -> None:
    module = LossModule([2, 3], width=4)
    taps = [torch.randn(5, 2), torch.randn(5, 3)]
    weights: Any = module.hidden
    hidden = [
        (tap @ layer.weight.T + layer.bias).clamp(min=0)
        for layer, tap in zip(weights, taps, strict=True)
    ]
    expected = torch.cat(hidden, 1) @ module.out.weight[0] + module.out.bias
    torch.testing.assert_close(module(taps), expected)


def test_taps_are_the_last_activations_of_each_resolution() -> None:
    images = torch.rand(2, 1, 28, 28)
    network = LeNet()
    layers: Any = network.trunk
    assert [type(layer).__name__ for layer in layers] == [
        *("Normalize", "Conv2d", "MaxPool2d", "ReLU"),
        *("Conv2d", "MaxPool2d", "ReLU", "Flatten"),
    ]
    seen = [images]
    for layer in layers:
        seen.append(layer(seen[-1]))
    features, taps = look_into(network.trunk, images)
    torch.testing.assert_close(features, seen[-1])
    expected = [seen[n].mean((2, 3)) for n in (2, 4, 5, 7)]  # 24, 12, 8 and 4 pixels
    torch.testing.assert_close(taps, expected)
    assert not any(layer._forward_hooks for layer in layers)


def test_taps_of_a_resnet_are_its_four_stages() -> None:
    network: Any = ResNet18().eval()
    images = torch.rand(2, 3, 16, 16)
    _, taps = look_into(network.trunk, images)
    normalize, trunk = network.trunk
    seen = trunk.relu(trunk.bn1(trunk.conv1(normalize(images))))
    expected = []
    for stage in (trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4):
        seen = stage(seen)
        expected.append(seen.mean((2, 3)))
    torch.testing.assert_close(taps, expected)


def test_taps_of_vectors_are_the_features() -> None:
    vectors = torch.randn(3, 40)
    network = VectorNet(image_shape=(40,))
    features, taps = look_into(network.trunk, vectors)
    torch.testing.assert_close(taps, [features])


@pytest.mark.parametrize(("network", "shape"), SHIPPED, ids=lambda value: str(value))
def test_every_shipped_classifier_trains_and_is_scored_with_it(
    network: Any, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    made = extended(network(num_classes=10, image_shape=shape) if network is not ResNet18
                    else network(10), shape)  # fmt: skip
    images, labels = torch.rand(6, *shape), torch.arange(6)
    loss = LearningLoss()(Step(made, images, labels))
    loss.backward()
    assert all(w.grad is not None for w in made.beside["loss"].parameters())
    with eval_mode(made), torch.no_grad():
        scores = PredictedLoss().score(made, images)
    assert scores.shape == (6,)
    assert len(scores.unique()) == 6


def gradients(network: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    loss.backward()
    return {n: w.grad for n, w in network.named_parameters() if w.grad is not None}


@pytest.mark.parametrize("done", [0.0, 0.59, 0.6, 0.99])
def test_the_ranking_loss_moves_module_and_trunk_and_later_the_module_alone(done: float) -> None:
    torch.manual_seed(0)
    network = extended(DigitsNet()).eval()  # without dropout, so that both see the same
    other = deepcopy(network)
    images, labels = torch.rand(8, 1, 8, 8), torch.arange(8)
    both = gradients(network, LearningLoss(weight=2.0)(Step(network, images, labels, done=done)))
    plain = gradients(other, CrossEntropy()(Step(other, images, labels)))
    for name, gradient in both.items():
        part = name.split(".")[0]
        if part == "beside":
            assert name not in plain
            of_differences = name == "beside.loss.out.bias"  # which it has no part in
            assert (gradient.abs().sum() > 0) != of_differences
        elif part == "head" or done >= 0.6:  # their order moves no loss
            torch.testing.assert_close(gradient, plain[name])
        else:
            assert not torch.allclose(gradient, plain[name])


def test_the_network_begins_with_the_weights_that_it_has_with_every_objective() -> None:
    weights = []
    for objective in (CrossEntropy(), LearningLoss()):
        model = Classifier(LeNet, objective=objective)
        model.adapt((1, 28, 28), 7)
        model.adapt((1, 28, 28), 7)
        torch.manual_seed(5)
        model.reset_parameters()
        weights.append(model.network.state_dict())
    plain, with_module = weights
    assert plain.keys() < with_module.keys()
    for name, weight in plain.items():
        assert torch.equal(weight, with_module[name])
    assert {name.split(".")[0] for name in with_module.keys() - plain.keys()} == {"beside"}


def test_to_ask_again_what_the_data_are_changes_no_weight() -> None:
    model: Any = Classifier(LeNet, objective=LearningLoss())
    before = deepcopy(model.network.state_dict())  # with what a warm start begins
    model.adapt((1, 28, 28), 10)
    network, beside = model.network, model.network.beside
    model.adapt((1, 28, 28), 10)
    assert model.network is network
    assert model.network.beside is beside
    for name, weight in before.items():
        assert torch.equal(weight, network.state_dict()[name])


def test_a_class_more_makes_another_network_and_another_module() -> None:
    model: Any = Classifier(LeNet, objective=LearningLoss())
    model.adapt((1, 28, 28), 2)
    model.adapt((1, 28, 28), 3)
    assert model.network.head[-1].out_features == 3
    assert "loss" in model.network.beside


def test_a_sequence_has_nothing_beside_it() -> None:
    class Both(nn.Sequential):
        def __init__(self, num_classes: int | None = None) -> None:
            super().__init__(nn.Flatten(), nn.Dropout(), nn.Linear(64, num_classes or 10))

    model = Classifier(Both, objective=VAAL())
    with pytest.raises(SettingError, match=r"^--model\.network: Both is a sequence, beside which"):
        model.adapt((1, 8, 8), 10)


def test_scores_are_no_coarser_in_mixed_precision() -> None:
    torch.manual_seed(0)
    network = extended(DigitsNet()).eval()
    images = torch.rand(300, 1, 8, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        coarse = PredictedLoss().score(network, images)
    assert coarse.dtype == torch.float32
    assert len(coarse.unique()) > 250
    with torch.no_grad():
        torch.testing.assert_close(
            coarse, PredictedLoss().score(network, images), rtol=0.05, atol=5e-3
        )


@pytest.mark.slow
def test_it_learns_on_real_digits_which_images_the_network_will_get_wrong(tmp_path: Path) -> None:
    data = PoolDataModule(initial_labels=100, steps_per_round=300, batch_size=32, seed=1)
    rounds = ActiveLearning(
        rounds=0, query_size=20, function=PredictedLoss(), complement=NoComplements(), mc_samples=2
    )
    model: Any = Classifier(DigitsNet, objective=LearningLoss())
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        callbacks=[rounds],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=data)
    images, labels = to_floats(data.test.images), data.test.labels
    with eval_mode(model.network), torch.no_grad():
        losses = F.cross_entropy(model(images), labels, reduction="none")
        predicted = PredictedLoss().score(model.network, images)
    high = (losses >= losses.median()).int()
    assert binary_auroc(predicted.sigmoid(), high) > 0.7


@pytest.mark.parametrize(
    ("option", "value"),
    [("weight", -1.0), ("margin", -0.1), ("detach_after", 1.1), ("detach_after", -0.1)],
)
def test_a_value_that_is_none_is_refused(option: str, value: float) -> None:
    options: dict[str, Any] = {option: value}
    with pytest.raises(SettingError, match=rf"^--model\.objective\.{option}: must be .* got "):
        LearningLoss(**options)


def test_a_network_without_a_trunk_is_refused() -> None:
    with pytest.raises(SettingError, match=r"LearningLoss looks into .* and Linear has none"):
        LearningLoss().beside(nn.Linear(4, 2), (4,), 2)


def test_what_nothing_predicts_is_not_asked_for() -> None:
    with pytest.raises(SettingError, match=r"^--acquisition\.function: .*objective LearningLoss"):
        PredictedLoss().score(DigitsNet(), torch.rand(1, 1, 8, 8))
