"""Training the small networks of several seeds at once, as one network with one more dimension."""

import copy
from collections.abc import Callable

import pandas as pd
import torch
import torch.nn.functional as F
from timing import seconds
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from baldvae_pl.data.batches import to_floats
from baldvae_pl.data.images import Images
from baldvae_pl.networks import LeNet, MNISTNet

COUNT, STEPS, BATCH = 5, 10, 64


def seeds(train: Images) -> pd.DataFrame:
    """Time of a step of one of five networks, each with batches, masks and Adam of its own."""
    rows = []
    for make in (LeNet, MNISTNet):
        networks = [make().train() for _ in range(COUNT)]
        shape = (COUNT, BATCH)
        images = to_floats(train.images[: COUNT * BATCH]).unflatten(0, shape)
        labels = train.labels[: COUNT * BATCH].unflatten(0, shape)
        ways = {
            "one after the other": one_by_one(networks, images, labels),
            "vmap": together(networks, images, labels),
        }
        times = seconds(ways, 5)
        per_step = [round(1e3 * times[way] / (STEPS * COUNT), 2) for way in ways]
        ratio = round(times["one after the other"] / times["vmap"], 2)
        rows.append([make.__name__, *per_step, ratio])
    columns = ["what", "one after the other, ms a step", "vmap, ms a step", "speed of vmap"]
    return pd.DataFrame(rows, columns=columns)


def one_by_one(networks: list[nn.Module], images: Tensor, labels: Tensor) -> Callable[[], None]:
    """Return some steps of each network, as its own run would make them."""
    optimizers = [torch.optim.Adam(network.parameters()) for network in networks]

    def steps() -> None:
        for network, optimizer, x, y in zip(networks, optimizers, images, labels, strict=True):
            for _ in range(STEPS):
                optimizer.zero_grad()
                F.cross_entropy(network(x), y).backward()
                optimizer.step()

    return steps


def together(networks: list[nn.Module], images: Tensor, labels: Tensor) -> Callable[[], None]:
    """Return the same number of steps of all of them, by torch.func."""
    stacked, buffers = stack_module_state(networks)
    parameters = {name: weight.detach().requires_grad_() for name, weight in stacked.items()}
    template = copy.deepcopy(networks[0]).to("meta")

    def loss(weights: dict[str, Tensor], other: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        logits: Tensor = functional_call(template, (weights, other), (x,))
        return F.cross_entropy(logits, y)

    gradients = vmap(grad(loss), randomness="different")
    optimizer = torch.optim.Adam(parameters.values())

    def steps() -> None:
        for _ in range(STEPS):
            plain = {name: weight.detach() for name, weight in parameters.items()}
            found = gradients(plain, buffers, images, labels)
            for name, weight in parameters.items():
                weight.grad = found[name]
            optimizer.step()

    return steps
