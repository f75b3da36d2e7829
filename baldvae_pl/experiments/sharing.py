"""Runs that differ in their complements alone are one run, bit for bit, until the first is due.

What such a run has in common with one that was made before, it does not make again: it goes on from
a copy of a checkpoint of that one, its ``branch.ckpt``, or its last if no labelled image has
reached the threshold yet.
"""

from importlib import import_module
from typing import Any

import torch
import yaml
from filelock import FileLock, Timeout

from baldvae_pl import __version__
from baldvae_pl.complement import Complement
from baldvae_pl.errors import SettingError
from baldvae_pl.runs.checkpoints import RunCheckpoint, newest_checkpoint, read_checkpoint
from baldvae_pl.runs.files import make_folder, replacing
from baldvae_pl.runs.folder import RunFolder
from baldvae_pl.runs.resuming import digest_of_code
from baldvae_pl.runs.settings import flat

COMPLEMENT = "acquisition.complement"

MAY_DIFFER = (
    *(COMPLEMENT, "acquisition.rounds", "method"),
    *("trainer.default_root_dir", "vae.shared_path"),
)
"""How settings begin in which such runs may differ."""


def may_share(mine: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether a run is another one, too, until a labelled image reaches the threshold.

    Args:
        mine: Its settings, by their dotted names.
        theirs: Those of the other one, which is made before.
    """
    if any(name.startswith("data.oracle") and value is not None for name, value in mine.items()):
        return False  # it would be asked twice
    names = {name for name in (*mine, *theirs) if not name.startswith(MAY_DIFFER)}
    if any(mine.get(name) != theirs.get(name) for name in names):
        return False
    ours, its = policy_in(mine), policy_in(theirs)
    if ours is None or its is None or ours.threshold != its.threshold:
        return False
    return its.needs_vae or not ours.needs_vae


def uses_vae(settings: dict[str, Any]) -> bool:
    """Whether a run that others may share trains a VAE for its complements."""
    policy = policy_in(settings)
    return policy is not None and policy.needs_vae


def policy_in(settings: dict[str, Any]) -> Complement | None:
    """Make the complement policy of some settings; None if it may make some from the beginning.

    A subclass may choose other parents than its base, so each class says by itself that it waits.
    """
    module, _, name = settings[f"{COMPLEMENT}.class_path"].rpartition(".")
    kind: type[Complement] = getattr(import_module(module), name)
    if not vars(kind).get("waits", False):
        return None
    start = f"{COMPLEMENT}.init_args."
    options = {key.removeprefix(start): x for key, x in settings.items() if key.startswith(start)}
    return kind(**options)


def shared_checkpoint(
    settings: dict[str, Any], rounds: int, before: RunFolder
) -> RunCheckpoint | None:
    """Return the newest checkpoint that two runs have in common, if there is one.

    Args:
        settings: Of the run that is to go on from it, by their dotted names.
        rounds: The most that it may have made by then.
        before: The folder of the other one.
    """
    try:
        branched = before.branch.is_file()
        found = read_checkpoint(before.branch) if branched else newest_checkpoint(before)
    except SettingError:  # damaged, or of another version: it has nothing to give
        return None
    if found is None or (found.version, found.code) != (__version__, digest_of_code()):
        return None
    history = found.rounds["history"]
    reached = any(row.get("bald/margin", 1.0) <= 0 for row in history)
    alike = may_share(settings, flat(yaml.safe_load(found.settings)))
    return found if alike and not reached and len(history) <= rounds else None


def share(run: RunFolder, settings: str, rounds: int, before: RunFolder) -> int:
    """Let a run that is not begun go on from another one, if it has anything to give.

    Args:
        run: Its folder.
        settings: Its settings, as YAML.
        rounds: How many it is to make.
        before: The other one's folder.

    Returns:
        The number of rounds that it need not make.
    """
    make_folder(run.path)
    try:
        with FileLock(run.path / ".lock", timeout=0):
            found = None
            if not run.last.is_file():
                found = shared_checkpoint(flat(yaml.safe_load(settings)), rounds, before)
            if found is None:
                return 0
            found.content["callbacks"]["RunSettings"]["settings"] = settings
            made = len(found.rounds["history"])
            for number in range(made):
                if before.snapshot(number).is_file():
                    with replacing(run.snapshot(number)) as file:
                        file.write(before.snapshot(number).read_bytes())
            with replacing(run.last) as file:
                torch.save(found.content, file)
            return made
    except Timeout:  # another comparison has just begun it
        return 0
