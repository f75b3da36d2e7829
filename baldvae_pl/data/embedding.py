"""Frozen networks that turn pictures into vectors, on which a small network learns from few labels.

An embedding is called without arguments and returns an `nn.Module` from float images in [0, 1],
shape (n, C, H, W), to vectors of shape (n, D). Add one by writing a function or a module of your
own that does so: its import path is what ``--data.embedding`` takes.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2

from baldvae_pl.errors import SettingError, refused


class Embedding(ABC):
    """Makes a frozen network. Options of a subclass are the parameters of its ``__init__``.

    Args:
        image_size: Height and width that the network gets; left out, those it was trained with.
    """

    def __init__(self, image_size: int | None = None) -> None:
        if image_size is not None and image_size < 1:
            raise SettingError(
                f"--data.embedding.image_size: must be at least 1, got {image_size}."
            )
        self.image_size = image_size

    @abstractmethod
    def __call__(self) -> nn.Module:
        """Return the network with its weights: images in [0, 1] (n, C, H, W) -> (n, D)."""

    def prepared(
        self,
        network: nn.Module,
        usual_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        interpolation: str,
    ) -> nn.Module:
        """Return a network that scales and normalises its images as its weights expect."""
        size = self.image_size or usual_size
        mode = InterpolationMode(interpolation)
        return nn.Sequential(
            v2.RGB(), v2.Resize((size, size), mode), v2.Normalize(mean, std), network
        )


class Timm(Embedding):
    """A network of timm, the collection of pretrained image networks, without its classifier.

    Args:
        name: As timm names it, with or without the tag of its weights.
        weights: A file of weights, .pt, .pth or .safetensors; left out, they are downloaded.
        image_size: Height and width that the network gets; left out, those it was trained with.
    """

    def __init__(
        self,
        name: str = "tf_efficientnet_lite0",
        weights: str | None = None,
        image_size: int | None = None,
    ) -> None:
        super().__init__(image_size)
        self.name = name
        self.weights = weights

    def __call__(self) -> nn.Module:
        """Return the network, or raise a SettingError if it or its weights cannot be had."""
        try:
            timm: Any = import_module("timm")
        except ImportError as error:
            raise SettingError(
                "--data.embedding: Timm needs the package timm. Install it by "
                "pip install 'baldvae[embedding]', or take Torchvision."
            ) from error
        if not timm.is_model(self.name):
            raise SettingError(
                f"--data.embedding.name: timm has no network {self.name!r}. Take one of "
                "https://huggingface.co/timm."
            )
        try:
            network = timm.create_model(self.name, pretrained=self.weights is None, num_classes=0)
        except Exception as error:  # whatever a network or half a file leads to
            raise not_to_be_had(self.name, error) from error
        if self.weights is not None:
            load_weights(network, self.weights, timm.models.load_state_dict)
        expected = timm.data.resolve_model_data_config(network)
        size, interpolation = expected["input_size"][-1], expected["interpolation"]
        return self.prepared(network, size, expected["mean"], expected["std"], interpolation)


class Torchvision(Embedding):
    """A classifier of torchvision without its last linear layer.

    Args:
        name: As torchvision names it, such as resnet18 or convnext_tiny.
        weights: ``DEFAULT`` or another name of torchvision's, which are downloaded; or a file of
            weights, .pt or .pth.
        image_size: Height and width that the network gets; left out, those it was trained with.
    """

    def __init__(
        self, name: str = "resnet18", weights: str = "DEFAULT", image_size: int | None = None
    ) -> None:
        super().__init__(image_size)
        self.name = name
        self.weights = weights

    def __call__(self) -> nn.Module:
        """Return the network, or raise a SettingError if it or its weights cannot be had."""
        with refused("--data.embedding.name"):
            there = torchvision.models.get_model_weights(self.name)
            named = self.weights in there.__members__
            expected: Any = (there[self.weights] if named else there.DEFAULT).transforms()
            network = torchvision.models.get_model(self.name)
        if named:
            try:
                state = there[self.weights].get_state_dict(progress=False)
            except Exception as error:  # whatever a network or half a file leads to
                raise not_to_be_had(self.name, error) from error
            network.load_state_dict(state)
        else:
            load_weights(network, self.weights, read_weights)
        linear = [name for name, layer in network.named_modules() if type(layer) is nn.Linear]
        with refused("--data.embedding.name"):
            network.set_submodule(linear[-1], nn.Identity())
        mean, std = tuple(expected.mean), tuple(expected.std)
        size, interpolation = expected.crop_size[0], expected.interpolation.value
        return self.prepared(network, size, mean, std, interpolation)


def not_to_be_had(name: str, error: Exception) -> SettingError:
    """Return the error that says that weights cannot be downloaded."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return SettingError(
        f"--data.embedding.weights: those of {name} are not here and cannot be downloaded "
        f"({reason}). Give a file with them."
    )


def read_weights(path: str) -> Any:
    """Return what a file of weights holds; no code in it is run."""
    return torch.load(path, map_location="cpu", weights_only=True)


def load_weights(network: nn.Module, path: str, read: Any) -> None:
    """Load a file of weights by the names of its tensors or, if these are others, by their order.

    Other libraries name the layers of the same network differently. A classifier that the network
    does not have comes last, and is passed over.

    Args:
        network: Changed in place.
        path: Of the file.
        read: Returns what it holds.

    Raises:
        SettingError: If it cannot be read, or its tensors are of other shapes.
    """
    own = network.state_dict()
    try:
        state: Mapping[str, Tensor] = read(str(Path(path).expanduser()))
        if not own.keys() <= state.keys():
            pairs = list(zip(own, state, strict=False))
            if any(a.rpartition(".")[2] != b.rpartition(".")[2] for a, b in pairs):
                raise KeyError("its tensors have other names, and another order")
            state = {name: state[other] for name, other in pairs}
        network.load_state_dict({name: state[name] for name in own})
    except (OSError, RuntimeError, KeyError, AttributeError, EOFError, UnpicklingError) as error:
        reason = " ".join(str(error).split()).strip("'")
        raise SettingError(
            f"--data.embedding.weights: {path!r} holds no weights of this network "
            f"({type(error).__name__}: {reason[:200]}). Give a file of a state dict."
        ) from error
