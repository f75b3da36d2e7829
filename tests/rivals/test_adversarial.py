"""Methods with a discriminator: which line of their loss moves whose weights, by autograd alone."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baldvae_pl import (
    VAAL,
    VAEACGAN,
    BayesianAugmentation,
    Classifier,
    LeastLabelled,
    Objective,
    Regenerated,
    SettingError,
    Step,
)
from baldvae_pl.elbo import negative_elbo
from baldvae_pl.networks import DigitsNet
from baldvae_pl.networks.generators import held
from baldvae_pl.posterior import eval_mode
from baldvae_pl.rivals.adversarial import LATENT
from baldvae_pl.selection import Candidates

SHAPE = (1, 8, 8)
IMAGES = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 2, 3, 4, 0])
OTHERS = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(2))


def extended(objective: Objective) -> Any:
    """A network in eval mode, so that it sees the same image each time."""
    torch.manual_seed(0)
    network = DigitsNet(5, SHAPE)
    network.add_module("beside", nn.ModuleDict(objective.beside(network, SHAPE, 5)))
    return network.eval()


def generated(network: Any, z: Tensor, labels: Tensor) -> Tensor:
    return network.beside["generator"](torch.cat([z, torch.eye(5)[labels]], 1))


def gradients(network: nn.Module, objective: Objective, step: Step) -> dict[str, Tensor]:
    torch.manual_seed(3)
    objective(step).backward()
    return {name: w.grad for name, w in network.named_parameters() if w.grad is not None}


def check(found: dict[str, Tensor], network: nn.Module, part: str, line: Tensor) -> None:
    """Raise if a part has another gradient than that of its own line."""
    own = {name: w for name, w in network.named_parameters() if part in name.split(".")}
    assert own
    expected = torch.autograd.grad(line, list(own.values()), retain_graph=True)
    for name, gradient in zip(own, expected, strict=True):
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-7)
        assert gradient.abs().sum() > 0


def minus_log(logits: Tensor) -> Tensor:
    return -logits.sigmoid().log().mean()


def minus_log_not(logits: Tensor) -> Tensor:
    return -(1 - logits.sigmoid()).log().mean()


def minus_log_class(logits: Tensor, labels: Tensor) -> Tensor:
    return -logits.softmax(1).gather(1, labels[:, None]).log().mean()


def test_held_gives_gradients_to_what_it_is_given_and_none_to_itself() -> None:
    layer, inputs = nn.Linear(3, 2), torch.randn(4, 3, requires_grad=True)
    held(layer)(inputs).sum().backward()
    assert layer.weight.grad is None
    assert inputs.grad is not None
    torch.testing.assert_close(inputs.grad, layer.weight.sum(0).expand(4, 3))
    torch.testing.assert_close(held(layer)(inputs), layer(inputs))


@pytest.mark.parametrize("learns_from", ["L", "W"])
def test_each_part_of_vae_acgan_is_moved_by_its_own_line_alone(learns_from: Any) -> None:
    objective = VAEACGAN(learns_from)
    assert objective.unlabelled == (None if learns_from == "L" else "W")
    network = extended(objective)
    unlabelled = None if learns_from == "L" else OTHERS
    found = gradients(network, objective, Step(network, IMAGES, LABELS, unlabelled))
    images, labels = IMAGES, LABELS
    if learns_from == "W":
        images, labels = OTHERS, network(OTHERS).argmax(1)
    torch.manual_seed(3)
    mean, log_var = network.beside["encoder"].encode(images)
    z_q = mean + torch.randn(len(images), LATENT) * (0.5 * log_var).exp()
    new, copies = generated(network, torch.randn(len(images), LATENT), labels), None
    copies = generated(network, z_q.detach(), labels)
    divergence = 0.5 * (mean**2 + log_var.exp() - 1 - log_var).mean()
    squares = (generated(network, z_q, labels) - images).square().mean()
    check(found, network, "encoder", squares + divergence)
    real, fooled = network.beside["discriminator"](images), network.beside["discriminator"](new)
    generator = minus_log(fooled) + minus_log_class(network(new), labels)
    generator = generator + 0.75 * (copies - images).square().mean()
    check(found, network, "generator", generator)
    of_copies = network.beside["discriminator"](copies)
    discriminator = minus_log(real) + minus_log_not(fooled) + minus_log_not(of_copies)
    check(found, network, "discriminator", discriminator)
    if learns_from == "W":  # the classifier learns from images of the classes of L
        mean, log_var = network.beside["encoder"].encode(IMAGES)
        z = torch.randn(len(IMAGES), LATENT)
        new = generated(network, z, LABELS)
        z_q = mean + torch.randn(len(IMAGES), LATENT) * (0.5 * log_var).exp()
        copies = generated(network, z_q, LABELS)
    classifier = sum(minus_log_class(network(part), LABELS) for part in (IMAGES, new, copies))
    assert isinstance(classifier, Tensor)
    check(found, network, "trunk", classifier)
    check(found, network, "head", classifier)
    assert set(objective.measures) == {"encoder", "generator", "discriminator", "classifier"}
    assert objective.measures["classifier"].item() == pytest.approx(classifier.item(), rel=1e-5)


def test_each_part_of_bayesian_augmentation_is_moved_by_its_own_line_alone() -> None:
    objective = BayesianAugmentation()
    network = extended(objective)
    found = gradients(network, objective, Step(network, IMAGES, LABELS))
    torch.manual_seed(3)
    made = generated(network, torch.randn(len(IMAGES), LATENT), LABELS)
    fooled = network.beside["discriminator"](made)
    check(found, network, "generator", minus_log(fooled) + minus_log_class(network(made), LABELS))
    check(
        found,
        network,
        "discriminator",
        minus_log(network.beside["discriminator"](IMAGES)) + minus_log_not(fooled),
    )
    classifier = minus_log_class(network(IMAGES), LABELS) + minus_log_class(network(made), LABELS)
    check(found, network, "trunk", classifier)
    check(found, network, "head", classifier)
    assert set(objective.measures) == {"generator", "discriminator", "classifier"}


def test_each_part_of_vaal_is_moved_by_its_own_line_alone() -> None:
    objective = VAAL(adversarial=0.5)
    assert objective.unlabelled == "U"
    network = extended(objective)
    found = gradients(network, objective, Step(network, IMAGES, LABELS, OTHERS))
    torch.manual_seed(3)
    elbo = sum(
        sum(negative_elbo(network.beside["vae"], part, "bernoulli")) for part in (IMAGES, OTHERS)
    )
    labelled, unlabelled = (network.beside["vae"].encode(part)[0] for part in (IMAGES, OTHERS))
    tell = network.beside["discriminator"]
    hides = minus_log(tell(labelled)) + minus_log(tell(unlabelled))
    check(found, network, "vae", elbo / 64 + 0.5 * hides)
    tells = minus_log(tell(labelled)) + minus_log_not(tell(unlabelled))
    check(found, network, "discriminator", tells)
    check(found, network, "trunk", minus_log_class(network(IMAGES), LABELS))
    check(found, network, "head", minus_log_class(network(IMAGES), LABELS))


def test_vaal_learns_which_images_have_no_label_and_buys_those() -> None:
    torch.manual_seed(0)
    objective = VAAL(adversarial=0.0)  # nothing hides
    network = extended(objective).train()
    optimizer = torch.optim.Adam(network.parameters())
    dark, bright = 0.3 * torch.rand(40, *SHAPE), 1 - 0.3 * torch.rand(40, *SHAPE)
    for _ in range(60):
        optimizer.zero_grad()
        step = Step(network, dark[:20], torch.zeros(20, dtype=torch.long), bright[:20])
        objective(step).backward()
        optimizer.step()
    with eval_mode(network), torch.no_grad():
        scores = LeastLabelled().score(network, torch.cat([dark[20:], bright[20:]]))
    assert scores[20:].min() > scores[:20].max()


def candidates(network: nn.Module) -> Candidates:
    return Candidates(
        priorities_N=torch.zeros(6),
        labelled=torch.arange(6),
        query_size=2,
        highest=lambda priorities, count: priorities.topk(count).indices,
        map=lambda function, indices: function(IMAGES[indices]),
        generator=torch.Generator().manual_seed(7),
        network=network,
        image_shape=SHAPE,
    )


def test_a_complement_is_generated_from_its_parents_code_and_label() -> None:
    network = extended(VAEACGAN())
    parents = torch.tensor([1, 4, 5])
    with torch.no_grad():
        of, made = Regenerated().make(parents, LABELS, candidates(network))
        mean, log_var = network.beside["encoder"].encode(IMAGES[parents])
        noise = torch.randn(3, LATENT, generator=torch.Generator().manual_seed(7))
        expected = generated(network, mean + noise * (0.5 * log_var).exp(), LABELS[parents])
    assert torch.equal(of, parents)
    torch.testing.assert_close(made, expected)


def test_a_class_that_the_generator_does_not_know_yet_gets_no_complement() -> None:
    network = extended(VAEACGAN())
    labels = torch.tensor([0, 1, 7, 3, 7, 0])
    with torch.no_grad():
        of, made = Regenerated().make(torch.tensor([1, 2, 3]), labels, candidates(network))
        none, nothing = Regenerated().make(torch.tensor([2, 4]), labels, candidates(network))
    assert of.tolist() == [1, 3]
    assert made.shape == (2, *SHAPE)
    assert none.shape == (0,)
    assert nothing.shape == (0, *SHAPE)


def test_what_nothing_trains_is_not_asked_for() -> None:
    network = DigitsNet(5, SHAPE)
    with pytest.raises(SettingError, match=r"^--acquisition\.function: .*objective VAAL"):
        LeastLabelled().score(network, IMAGES)


@pytest.mark.parametrize("objective", [VAEACGAN(), BayesianAugmentation(), VAAL()])
@pytest.mark.parametrize("shape", [(40,), (1, 7, 9)])
def test_what_they_cannot_make_is_refused(objective: Objective, shape: tuple[int, ...]) -> None:
    words = rf"^--model\.objective: {type(objective).__name__} .* of 8 pixels or more"
    with pytest.raises(SettingError, match=words):
        objective.beside(nn.Identity(), shape, 10)


@pytest.mark.slow
def test_it_learns_to_make_real_digits_of_the_class_it_is_asked_for() -> None:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, *SHAPE) / 16
    labels = torch.tensor(labels)
    torch.manual_seed(0)
    network: Any = DigitsNet()
    objective = VAEACGAN()
    network.add_module("beside", nn.ModuleDict(objective.beside(network, SHAPE, 10)))
    model = Classifier(DigitsNet, partial(torch.optim.Adam, betas=(0.5, 0.999)), objective)
    model.network = network
    optimizer = model.configure_optimizers()
    assert [group["lr"] for group in optimizer.param_groups] == [0.001, 0.0003]
    seen = []
    for _ in range(500):
        part = torch.randint(200, (32,))
        optimizer.zero_grad()
        objective(Step(network, images[part], labels[part])).backward()
        optimizer.step()
        seen.append({name: float(value) for name, value in objective.measures.items()})
    assert seen[-1]["classifier"] < 0.5 * seen[0]["classifier"]
    with eval_mode(network), torch.no_grad():
        codes = torch.cat([torch.randn(200, LATENT), torch.eye(10)[labels[:200]]], 1)
        made = network.beside["generator"](codes)
        truth = torch.stack([images[labels == digit].mean(0) for digit in range(10)])
        nearest = torch.cdist(made.flatten(1), truth.flatten(1)).argmin(1)
        assert (network(images[200:]).argmax(1) == labels[200:]).float().mean() > 0.7
    assert (nearest == labels[:200]).float().mean() > 0.4  # that of one class for all is 0.1
