"""Everything is tried on a few images before anything expensive begins."""

from collections.abc import Iterable
from math import isinf
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn

from baldvae_pl.acquisition import NEED_DISAGREEMENT, NetworkScore
from baldvae_pl.complement import Autoencoder, Complement
from baldvae_pl.data.batches import to_floats
from baldvae_pl.data.module import PoolDataModule
from baldvae_pl.epig import EPIG, Acquisition
from baldvae_pl.errors import SettingError, refused
from baldvae_pl.loop.processes import dry_run
from baldvae_pl.loop.scoring import generate
from baldvae_pl.objective import Objective
from baldvae_pl.oracle import Oracle
from baldvae_pl.posterior import (
    Posterior,
    PosteriorFunction,
    eval_mode,
    has_trunk_and_head,
)
from baldvae_pl.rivals import Judge, Regenerated
from baldvae_pl.selection import Selection, SelectionFunction

WHOLE_ROUNDS = {
    "check_val_every_n_epoch": 1,
    "val_check_interval": 1.0,
    "max_steps": -1,
    "limit_train_batches": 1.0,
    "limit_val_batches": 1.0,
    "overfit_batches": 0.0,
    "accumulate_grad_batches": 1,
}
"""Settings by which Lightning would cut a round short; each round has the same compute and test."""


def check_whole_rounds(trainer: Trainer) -> None:
    """Raise a SettingError if the trainer would not run whole epochs, each with a test."""
    if dry_run(trainer):
        return
    for name, needed in WHOLE_ROUNDS.items():
        if getattr(trainer, name) != needed:
            raise SettingError(
                f"--trainer.{name}: {getattr(trainer, name)} would cut a round short, which is "
                "one epoch with its own batches and one test at its end. Leave it out."
            )


def check_sizes(
    trainer: Trainer, data: PoolDataModule, objective: Any, rounds: int | None, query_size: int
) -> None:
    """Raise a SettingError if there are too few images to share or to buy, or no end."""
    batch_sizes = {"--data.batch_size": data.batch_size}
    if getattr(objective, "unlabelled", None) is not None:
        batch_sizes["--model.objective.unlabelled_batch_size"] = objective.unlabelled_batch_size
    size = len(data.pool.labels)
    for name, batch_size in batch_sizes.items():
        if batch_size < trainer.world_size:
            raise SettingError(
                f"{name}: {batch_size} images cannot be shared among {trainer.world_size} "
                "processes. Take at least as many."
            )
        if batch_size > size:
            raise SettingError(
                f"{name}: {batch_size} is more than the {size} images of the data set. Take at "
                f"most {size}."
            )
    if isinf(data.epochs_per_round):
        raise SettingError("--data.epochs_per_round: must be a finite number, got inf.")
    unlabelled = size - data.initial_size
    if rounds == 0 and unlabelled:
        rank_zero_warn(
            f"--data.initial_labels: {data.initial_size} of the {size} images are trained on, and "
            "with --acquisition.rounds 0 the others never are. Take all to train on every label."
        )
    if rounds != 0 and query_size > unlabelled:
        raise SettingError(
            f"--acquisition.query_size: {query_size} is more than the {unlabelled} images "
            f"that are unlabelled at the start. Take at most {unlabelled}, or fewer "
            "--data.initial_labels."
        )


def check_module(pl_module: LightningModule, warm_start: bool) -> None:
    """Raise a SettingError if a module lacks what a round uses."""
    name = type(pl_module).__name__
    parts = ["network"] if warm_start else ["network", "reset_parameters"]
    if missing := [part for part in parts if not hasattr(pl_module, part)]:
        raise SettingError(f"{name} lacks {' and '.join(missing)}, see ActiveLearning.")
    if not is_overridden("validation_step", pl_module):
        raise SettingError(f"{name} lacks validation_step, by which a round is tested.")


def ranks_by_disagreement(function: Acquisition, selection: Selection | SelectionFunction) -> bool:
    """Whether what is bought is worth nothing if all posterior draws agree."""
    needs = isinstance(function, EPIG) or function in NEED_DISAGREEMENT
    return getattr(selection, "ranks", True) and needs


def needs_disagreement(
    function: Acquisition,
    selection: Selection | SelectionFunction,
    policy: Complement,
) -> str | None:
    """Return which choice is worth nothing if all posterior draws agree, if one is."""
    if ranks_by_disagreement(function, selection):
        name = "EPIG" if isinstance(function, EPIG) else getattr(function, "__name__", "")
        return f"--acquisition.function {name}"
    if policy.needs_disagreement:
        return f"--acquisition.complement {type(policy).__name__}"
    return None


def check_network(
    network: nn.Module,
    posterior: Posterior | PosteriorFunction,
    mc_samples: int,
    data: PoolDataModule,
    disagreement_for: str | None,
) -> None:
    """Try a network and its posterior on a few images of W.

    Args:
        network: Of the classifier.
        posterior: Makes its draws.
        mc_samples: Number of draws T.
        data: Holds W.
        disagreement_for: What needs draws that disagree, if anything does.

    Raises:
        SettingError: If it does not take them, has another number of outputs than there are
            classes, or all draws of its posterior agree and may not.
    """
    name, images = type(network).__name__, data.train.images[:8]
    shape, floats = tuple(images.shape[1:]), to_floats(images)
    if isinstance(posterior, Posterior):
        with refused("--acquisition.posterior"):
            posterior.on_train_start(network)
            posterior.on_train_step(network, 0, 1)
        with refused("--acquisition.posterior"), eval_mode(network):
            posterior.fit(network, images, data.train.labels[:8].clamp(min=0))
        hooks = ("on_train_step", "fit")
        if any(getattr(type(posterior), hook) is not getattr(Posterior, hook) for hook in hooks):
            disagreement_for = None  # to be seen only after a training
    try:
        log_probs_N_T_C = posterior(network, min(8, mc_samples), torch.Generator())(floats)
    except SettingError:
        raise
    except Exception as error:
        raise SettingError(f"--model.network: for images of shape {shape}: {error}") from error
    try:
        posterior(network, mc_samples, torch.Generator())(floats[:1])
    except RuntimeError as error:
        raise SettingError(
            f"--acquisition.mc_samples: {mc_samples} draws do not fit into the memory ({error}). "
            "Take fewer."
        ) from error
    check_outputs(network, log_probs_N_T_C.shape[-1], data)
    if disagreement_for is not None and log_probs_N_T_C.shape[1] == 1:
        raise SettingError(
            f"--acquisition.mc_samples: 1 draw cannot disagree with itself, and {disagreement_for} "
            "needs draws that do. Take at least 2, or a function such as margin with "
            "--acquisition.complement NoComplements."
        )
    agree = torch.equal(log_probs_N_T_C[:, :1].expand_as(log_probs_N_T_C), log_probs_N_T_C)
    if disagreement_for is not None and agree:
        raise SettingError(
            f"--model.network: all posterior draws of {name} agree, so {disagreement_for} is 0 "
            "everywhere. It needs nn.Dropout layers that take part in forward, with p above 0 and "
            "not so near 1 that nothing gets through."
        )
    if has_trunk_and_head(network):
        parts: Any = network
        with eval_mode(network), torch.no_grad():
            whole = network(floats).log_softmax(-1)
            in_parts = parts.head(parts.trunk(floats)).log_softmax(-1)
        if not torch.allclose(whole, in_parts, atol=1e-4):
            raise SettingError(
                f"--model.network: forward of {name} is not head(trunk(images)), by which it would "
                "be scored. Make it so, or rename one of the two to be scored by whole passes."
            )


def check_space(setting: str, selection: Any, network: nn.Module | None) -> None:
    """Raise a SettingError if a selection looks at features, and there are none.

    Args:
        setting: ``--acquisition.selection``, or that of the first labels.
        selection: To be asked for its ``space``.
        network: None before round 0.
    """
    if getattr(selection, "space", None) != "features":
        return
    if network is None:
        raise SettingError(
            f"{setting}.space: features are those of the trained network, and there is none before "
            "round 0. Take latents or images."
        )
    if not hasattr(network, "trunk"):
        raise SettingError(
            f"{setting}.space: features are what a network's trunk makes, and "
            f"{type(network).__name__} has none. Give it a trunk and a head, or take latents or "
            "images."
        )


def check_who_answers(selection: Selection | SelectionFunction, data: PoolDataModule) -> None:
    """Raise a SettingError if a selection makes images that nobody looks at, or a judge cannot."""
    sees = isinstance(data.oracle, Oracle) and not data.oracle.knows_w_alone
    makes = getattr(selection, "makes_images", False)
    if makes and not sees:
        raise SettingError(
            f"--acquisition.selection: {type(selection).__name__} asks about images that are not "
            "in the data set, and whoever labels sees only those that are. Give --data.oracle "
            "Judge, or where people label People, or an Oracle of your own."
        )
    if makes and data.people is not None and data.train.images.dtype != torch.uint8:
        raise SettingError(
            f"--acquisition.selection: {type(selection).__name__} would make vectors, which nobody "
            "can look at. Leave --data.embedding out."
        )
    if isinstance(data.oracle, Judge):
        if data.people is not None:
            raise SettingError(
                "--data.oracle: Judge learns the labels of the data set, and it has none. Take "
                "People, or SimulatedPerson."
            )
        with refused("--data.oracle.network"):
            data.oracle.try_on(data.train.images[:2], len(data.classes))


def check_first(selection: Selection | SelectionFunction) -> None:
    """Raise a SettingError if first labels are to be chosen by what is not there yet."""
    if getattr(selection, "ranks", False):
        raise SettingError(
            f"--acquisition.initial_selection: {type(selection).__name__} goes by scores, and "
            "there are none before round 0. Take RandomSubset, Unexplored, Typical, ProbCover or "
            "KCenter; one of your own says ranks = False."
        )
    if getattr(selection, "needs_network", False):
        raise SettingError(
            f"--acquisition.initial_selection: {type(selection).__name__} needs a trained network, "
            "and there is none before round 0. Take RandomSubset, Unexplored, Typical, ProbCover "
            "or KCenter."
        )


def check_outputs(network: nn.Module, outputs: int, data: PoolDataModule) -> None:
    """Raise a SettingError if a network does not have an output for each class."""
    if outputs != (classes := len(data.classes)):
        way_out = "Leave its num_classes out, so that it follows." if data.people else ""
        raise SettingError(
            f"--model.network: {type(network).__name__} outputs {outputs} classes; the data set "
            f"has {classes}. {way_out or 'Set its num_classes.'}"
        )


def check_function(function: Acquisition, network: nn.Module, data: PoolDataModule) -> None:
    """Raise a SettingError if an acquisition function does not score a few images."""
    with refused("--acquisition.function"), eval_mode(network), torch.no_grad():
        if isinstance(function, NetworkScore):
            images = data.train.images[:8]
            count, scores_N = len(images), function.score(network, to_floats(images))
        else:
            generator = torch.Generator().manual_seed(0)
            logits_N_T_C = torch.randn(8, 4, len(data.classes), generator=generator)
            log_probs_N_T_C = logits_N_T_C.log_softmax(-1)
            if isinstance(function, EPIG):
                function = function.given(log_probs_N_T_C)
            count, scores_N = 8, function(log_probs_N_T_C)
    if not isinstance(scores_N, Tensor):
        found = type(scores_N).__name__
    elif scores_N.shape != (count,):
        found = f"a tensor of shape {tuple(scores_N.shape)}"
    elif not scores_N.isfinite().all():
        found = "scores that are not finite"
    else:
        return
    raise SettingError(
        f"--acquisition.function: for {count} images it gives {found}. It must give a tensor of "
        f"{count} finite scores."
    )


def check_objective(objective: Any, network: nn.Module, users: Iterable[Any]) -> None:
    """Raise a SettingError if nothing is, or nothing trains, the autoencoder that is needed.

    Args:
        objective: Of the classifier.
        network: Likewise.
        users: Complement policy and selections, of which some may need one.
    """
    loss, name = type(objective).__name__, type(network).__name__
    encodes = isinstance(network, Autoencoder)
    trains = getattr(objective, "trains_autoencoder", False)
    if trains and not encodes:
        raise SettingError(
            f"--model.objective: {loss} trains an autoencoder, and {name} is none. Take "
            "--model.network baldvae_pl.networks.JointVAE, or another network that has encode and "
            "decode."
        )
    needed = any(getattr(user, "needs_vae", False) for user in (objective, *users))
    if needed and encodes and isinstance(objective, Objective) and not trains:
        raise SettingError(
            f"--model.objective: complements and latents would be those of {name}, whose "
            f"autoencoder {loss} does not train. Take --model.objective Joint."
        )


def check_codes(
    autoencoder: Any, network: Any, complement: Complement, users: dict[str, Any]
) -> None:
    """Raise a SettingError if codes of images are asked for, and nothing makes them.

    Args:
        autoencoder: The generator of the run, if it has one.
        network: Of the classifier.
        complement: Its policy.
        users: Selections and the objective, by their settings.
    """
    if isinstance(complement, Regenerated) and "encoder" not in getattr(network, "beside", {}):
        raise SettingError(
            "--acquisition.complement: Regenerated asks the encoder and the generator that "
            "VAEACGAN trains. Take --model.objective VAEACGAN."
        )
    if autoencoder is None or hasattr(autoencoder, "encode"):
        return
    asking = [
        setting
        for setting, user in users.items()
        if getattr(user, "needs_vae", False) and getattr(user, "space", "latents") == "latents"
        if not getattr(user, "makes_images", False)
    ]
    asking += ["--acquisition.complement"] if complement.needs_vae else []
    if asking:
        raise SettingError(
            f"--vae.network: {type(autoencoder).__name__} makes images and encodes none, as "
            f"{asking[0]} asks it to. Take a VAE, such as baldvae_pl.networks.ConvVAE, or there "
            "something else."
        )


def check_autoencoder(
    policy: Complement, autoencoder: Autoencoder | None, needed: bool, data: PoolDataModule
) -> None:
    """Raise a SettingError if there is no autoencoder where one is needed, or it cannot be used."""
    if needed and autoencoder is None:
        raise SettingError(
            "ActiveLearning: its complement policy, a selection or the objective needs a VAE. Give "
            "the argument vae."
        )
    if policy.needs_vae and autoencoder is None:
        return
    images = data.train.images[:2]
    if not policy.needs_vae:
        with refused("--acquisition.complement"):
            generate(policy, autoencoder, images, torch.Generator())
        return
    try:
        complements = generate(policy, autoencoder, images, torch.Generator())
    except Exception as error:
        raise SettingError(
            f"--vae.network: for images of shape {tuple(images.shape[1:])}: {error}"
        ) from error
    if complements.shape != images.shape:
        raise SettingError(
            f"--vae.network: it makes images of shape {tuple(complements.shape[1:])}, the data "
            f"set's are {tuple(images.shape[1:])}. Set its image_shape."
        )
