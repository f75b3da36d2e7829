"""What runs have in common, bit for bit, is made once.

Runs that differ in how they buy have one first round, up to its purchase; those that differ in
their complements alone are one run until the first complement is due. What such a run has in common
with one that was made before, it does not make again: it goes on from a copy of a checkpoint of
that one, its ``branch.ckpt``, or its last if that is as far as they are alike.
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
from baldvae_pl.runs.settings import LABELLED_BY_PEOPLE, flat

COMPLEMENT, SELECTION = "acquisition.complement", "acquisition.selection"

MAY_DIFFER = (
    *(COMPLEMENT, "acquisition.rounds", "method"),
    *("trainer.default_root_dir", "vae.shared_path"),
)
"""How settings begin in which runs may differ that are alike until complements are due."""

BUYING = (SELECTION, "acquisition.function", "acquisition.query_size")
"""How settings begin in which runs may differ, too, that have one first round."""


def may_share(mine: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether a run is another one, too, until a labelled image reaches the threshold.

    Args:
        mine: Its settings, by their dotted names.
        theirs: Those of the other one, which is made before.
    """
    if not are_alike(mine, theirs, MAY_DIFFER):
        return False
    ours, its = policy_in(mine), policy_in(theirs)
    return ours is not None and its is not None and ours.threshold == its.threshold


def may_share_first_round(mine: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether a run is another one, too, until its first purchase."""
    return are_alike(mine, theirs, (*MAY_DIFFER, *BUYING))


def are_alike(mine: dict[str, Any], theirs: dict[str, Any], but_for: tuple[str, ...]) -> bool:
    """Whether settings are the same, but for some, and the VAE that one needs is in the other."""
    source = str(mine.get("data.source.class_path")).rpartition(".")[2]
    has_oracle = any(name.startswith("data.oracle") and mine[name] is not None for name in mine)
    if has_oracle or source == LABELLED_BY_PEOPLE:
        return False  # it would be asked twice
    names = {name for name in (*mine, *theirs) if not name.startswith(but_for)}
    if any(mine.get(name) != theirs.get(name) for name in names):
        return False
    return needs_vae(theirs) is True or needs_vae(mine) is False


def needs_vae(settings: dict[str, Any]) -> bool | None:
    """Whether the complements or the purchases of a run need a VAE; None if it cannot be told."""
    made = [part_in(settings, part) for part in (COMPLEMENT, SELECTION)]
    return None if None in made else any(getattr(part, "needs_vae", False) for part in made)


def policy_in(settings: dict[str, Any]) -> Complement | None:
    """Make the complement policy of some settings; None if it may make some from the beginning.

    A subclass may choose other parents than its base, so each class says by itself that it waits.
    """
    policy: Complement | None = part_in(settings, COMPLEMENT)
    return policy if vars(type(policy)).get("waits", False) else None


def part_in(settings: dict[str, Any], name: str) -> Any:
    """Make a part of some settings, or return its name if it is a function.

    Returns:
        None if it is not that simple: an option may be wrong, which its own run says, or have
        options of its own.
    """
    if f"{name}.class_path" not in settings:
        return settings[name]
    start = f"{name}.init_args."
    options = {key.removeprefix(start): x for key, x in settings.items() if key.startswith(start)}
    module, _, kind = settings[f"{name}.class_path"].rpartition(".")
    try:
        return getattr(import_module(module), kind)(**options)
    except Exception:  # it is the user's code
        return None


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
    has_bought = any("acquired" in row for row in history)
    alike = may_share if has_bought else may_share_first_round
    shared = alike(settings, flat(yaml.safe_load(found.settings)))
    return found if shared and not reached and len(history) <= rounds else None


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
