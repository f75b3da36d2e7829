"""Runs that differ in their complements alone are one run, bit for bit, until the first is due.

What such a run has in common with one that was made before, it does not make again: it goes on from
a copy of a checkpoint of that one, its ``branch.ckpt``, or its last if no labelled image has
reached the threshold yet.
"""

import shutil
from importlib import import_module
from typing import Any

import torch
import yaml

from baldvae_pl.complement import Complement, NoComplements
from baldvae_pl.runs.checkpoints import RunCheckpoint, newest_checkpoint, read_checkpoint
from baldvae_pl.runs.files import replacing
from baldvae_pl.runs.folder import RunFolder
from baldvae_pl.runs.settings import flat

COMPLEMENT = "acquisition.complement"


def may_share(mine: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether a run is another one, too, until a labelled image reaches the threshold.

    Args:
        mine: Its settings, by their dotted names.
        theirs: Those of the other one, which is made before.
    """
    if mine["data.oracle"] is not None:  # it would be asked twice, or keeps a ledger of its own
        return False
    ours, its = policy_of(mine), policy_of(theirs)
    if not all(vars(policy).get("waits", False) for policy in (ours, its)):
        return False
    if not issubclass(ours, NoComplements) and threshold(mine) != threshold(theirs):
        return False
    names = {name for name in (*mine, *theirs) if not name.startswith((COMPLEMENT, "method"))}
    return all(mine.get(name) == theirs.get(name) for name in names)


def policy_of(settings: dict[str, Any]) -> type[Complement]:
    """Return the class of the complement policy."""
    module, _, name = settings[f"{COMPLEMENT}.class_path"].rpartition(".")
    policy: type[Complement] = getattr(import_module(module), name)
    return policy


def threshold(settings: dict[str, Any]) -> Any:
    """Return the policy's threshold; that of a policy without one is the default."""
    return settings.get(f"{COMPLEMENT}.init_args.threshold", "lowest")


def shared_checkpoint(run: RunFolder, vae: bool) -> RunCheckpoint | None:
    """Return the newest checkpoint of a run before a labelled image reached the threshold.

    Args:
        run: The one that was made before.
        vae: Whether it has to hold a trained VAE.
    """
    branched = run.branch.is_file()
    checkpoint = read_checkpoint(run.branch) if branched else newest_checkpoint(run)
    if checkpoint is None:
        return None
    margins = [row.get("bald/margin", 1.0) for row in checkpoint.rounds["history"]]
    if any(margin <= 0 for margin in margins) or (vae and checkpoint.rounds["vae"] is None):
        return None
    return checkpoint


def share(run: RunFolder, settings: str, before: RunFolder) -> int:
    """Let a run that is not begun go on from another one, if it has anything to give.

    Args:
        run: Its folder.
        settings: Its settings, as YAML.
        before: The other one's folder.

    Returns:
        The number of rounds that it need not make.
    """
    needs_vae = not issubclass(policy_of(flat(yaml.safe_load(settings))), NoComplements)
    checkpoint = shared_checkpoint(before, needs_vae)
    if checkpoint is None:
        return 0
    content = checkpoint.content
    content["callbacks"]["RunSettings"]["settings"] = settings
    rounds = len(checkpoint.rounds["history"])
    for number in range(rounds):
        if before.snapshot(number).is_file():
            run.snapshot(number).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(before.snapshot(number), run.snapshot(number))
    with replacing(run.last) as file:
        torch.save(content, file)
    return rounds
