"""BALD-VAE: pool-based active learning with complements for uncertain labelled images.

What a user's code needs is here; it is imported when it is first used, since torch takes seconds.
"""

from importlib import import_module
from typing import Any

from baldvae_pl import moved as _moved

__version__ = "0.3.0.dev0"

_NAMES = {
    "loop.rounds": ["ActiveLearning"],
    "data.module": ["PoolDataModule"],
    "data.embedding": ["Embedding", "Timm", "Torchvision"],
    "data.images": ["Images", "Source"],
    "data.unlabelled": ["UnlabelledFolder"],
    "labelling.label_studio_oracle": ["LabelStudio"],
    "data.sources": ["CIFAR10", "MNIST", "DataSource", "Digits", "FashionMNIST", "ImageFolder"],
    "modules": ["VAE", "Classifier", "train_vae"],
    "errors": ["SettingError"],
    "acquisition": ["NetworkScore"],
    "epig": ["EPIG"],
    "geometry": [
        "BADGE",
        "ClusterMargin",
        "KCenter",
        "PoissonLabels",
        "ProbCover",
        "Typical",
        "Unexplored",
    ],
    "complement": [
        "AllNew",
        "Autoencoder",
        "Complement",
        "Duplicate",
        "NoComplements",
        "Purchase",
        "Uncertain",
    ],
    "fixmatch": ["FixMatch"],
    "joint": ["Joint"],
    "objective": ["Consistency", "CrossEntropy", "Objective", "Step"],
    "oracle": [
        "CANNOT_TELL",
        "WITHDRAWN",
        "Answer",
        "NotYet",
        "Oracle",
        "People",
        "Question",
        "SimulatedPerson",
    ],
    "policies": ["AffineCopy", "Informed", "Mixed", "MostUncertain", "Retrieval"],
    "posterior": ["Deterministic", "MCDropout", "Posterior"],
    "rivals": [
        "ASAL",
        "GAAL",
        "VAAL",
        "VAEACGAN",
        "BayesianAugmentation",
        "Judge",
        "LearningLoss",
        "LeastLabelled",
        "PredictedLoss",
        "Regenerated",
    ],
    "selection": [
        "BatchBALD",
        "Candidates",
        "Power",
        "Random",
        "RandomSubset",
        "Selection",
        "Softmax",
        "Softrank",
        "Synthesised",
        "TopK",
    ],
}
_ROOM = {name: room for room, names in _NAMES.items() for name in names}

__all__ = sorted(_ROOM)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _ROOM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"baldvae_pl.{_ROOM[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_ROOM]


del _moved
