"""Fresh networks whose shapes follow from the data."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from baldvae_pl.errors import SettingError

NetworkFactory = Callable[..., nn.Module]
Beside = Callable[[nn.Module, tuple[int, ...], int], dict[str, nn.Module]]


def following(
    factory: NetworkFactory, image_shape: tuple[int, ...], num_classes: int
) -> NetworkFactory:
    """Return a factory with what the data say filled in, where it leaves that open.

    Open is a parameter named ``num_classes``, ``image_shape`` or ``channels`` that is None.

    Args:
        factory: A class, a function, or a partial of one.
        image_shape: (channels, height, width), or (features,) of vectors.
        num_classes: Number of classes.
    """
    return partial(factory, **_open_facts(factory, image_shape, num_classes))


def adapted(
    network: nn.Module,
    factory: NetworkFactory,
    image_shape: tuple[int, ...],
    num_classes: int,
    beside: Beside | None = None,
) -> tuple[nn.Module, NetworkFactory]:
    """Return a network for these data and what makes fresh ones like it.

    The network that is there is kept if its weights have the right shapes already, and the global
    generator is left as it was, so that asking changes nothing.

    Args:
        network: That is there.
        factory: See `following`.
        image_shape: Likewise.
        num_classes: Likewise.
        beside: (network, image_shape, num_classes) -> modules by name; what each fresh network has
            as ``beside``.

    Raises:
        SettingError: If something is to be beside a sequence, all of whose modules take part in it.
    """
    if not _open_facts(factory, image_shape, num_classes) and beside is None:
        return network, factory
    follows = following(factory, image_shape, num_classes)

    def with_more(fresh: nn.Module) -> nn.Module:
        parts = {} if beside is None else beside(fresh, image_shape, num_classes)
        if parts and isinstance(fresh, nn.Sequential):
            raise SettingError(
                f"--model.network: {type(fresh).__name__} is a sequence, beside which nothing can "
                "be trained. Put it into a module with a forward of its own."
            )
        if parts:
            fresh.add_module("beside", nn.ModuleDict(parts))
        return fresh

    with torch.random.fork_rng(devices=[]):
        fresh = follows()
        if shapes_of(network) != shapes_of(fresh):
            network = with_more(fresh)
        elif not hasattr(network, "beside"):
            network = with_more(network)
    return network, follows if beside is None else lambda: with_more(follows())


def shapes_of(network: nn.Module) -> dict[str, torch.Size]:
    """Return the shapes of a network's own weights, without those beside it."""
    weights = network.state_dict().items()
    return {name: w.shape for name, w in weights if not name.startswith("beside.")}


def first_made(factory: NetworkFactory) -> nn.Module:
    """Return a network as its factory makes it before the data are known.

    On the command line a network takes over what the one in whose place it is put has left open;
    that is no value for a parameter with a default of its own.
    """
    if not isinstance(factory, partial):
        return factory()
    # jsonargparse's partial is of a helper that gets the class as an argument.
    whose = next((arg for arg in factory.args if isinstance(arg, type)), factory.func)
    own = inspect.signature(whose).parameters
    closed = {k for k, p in own.items() if p.default not in (None, inspect.Parameter.empty)}
    given = {k: v for k, v in factory.keywords.items() if v is not None or k not in closed}
    made: nn.Module = factory.func(*factory.args, **given)
    return made


def _open_facts(
    factory: NetworkFactory, image_shape: tuple[int, ...], num_classes: int
) -> dict[str, Any]:
    """Return the facts for those parameters of a factory that are None."""
    facts = {"num_classes": num_classes, "image_shape": image_shape, "channels": image_shape[0]}
    parameters = inspect.signature(factory).parameters.values()
    # A partial that the command line makes has its options in keywords alone.
    given = {p.name: p.default for p in parameters} | getattr(factory, "keywords", {})
    return {name: fact for name, fact in facts.items() if given.get(name, fact) is None}
