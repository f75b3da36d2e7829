"""Measures of class probabilities, and of whether training has come to anything."""

from torch import nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from baldvae_pl.errors import SettingError


def probability_metrics(num_classes: int) -> MetricCollection:
    """Return accuracy and expected calibration error (15 bins, L1) of class probabilities."""
    return MetricCollection(
        {
            "acc": MulticlassAccuracy(num_classes, average="micro"),
            "ece": MulticlassCalibrationError(num_classes, n_bins=15),
        },
        prefix="test/",
    )


def check_weights(module: nn.Module, when: str, setting: str) -> None:
    """Raise a SettingError if training has led to weights that are NaN or infinite."""
    if not all(bool(weight.isfinite().all()) for weight in module.parameters()):
        raise diverged(when, setting)


def diverged(when: str, setting: str) -> SettingError:
    """Return the error for a training that diverged."""
    return SettingError(
        f"{setting}: the loss has become NaN or infinite {when}. Take a lower learning rate, "
        "--trainer.precision 32-true, or --trainer.gradient_clip_val 1."
    )
