"""`baldvae labels`: what people have answered, counted, and written for other tools."""

import argparse
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from baldvae_pl.answer import CANNOT_TELL
from baldvae_pl.data.image_folder import find_images, some_of
from baldvae_pl.data.labels import LABELS, MADE, LabelsFile, as_named, names_of
from baldvae_pl.data.tally import Tally
from baldvae_pl.errors import SettingError
from baldvae_pl.runs.tables import write_csv


class Labelled(NamedTuple):
    """An image with its class, and what it is for: "train", "audit" or "test"."""

    file: str
    label: str
    split: str


def main(arguments: list[str]) -> None:
    """Count the labels of a folder, and write what is asked for.

    Raises:
        SettingError: If there is no folder or no labels file, or something cannot be written.
    """
    parser = argparse.ArgumentParser(
        "baldvae labels", description=__doc__ and __doc__.strip(), allow_abbrev=False
    )
    parser.add_argument("folder", type=Path, help="of the images")
    parser.add_argument("--labels", type=Path, help="the file (default: labels.csv in the folder)")
    parser.add_argument("--table", type=Path, help="write a CSV file with file, label and split")
    parser.add_argument("--tree", type=Path, help="make this folder with split/class/file in it")
    parser.add_argument("--copy", action="store_true", help="of copies instead of links")
    own = parser.parse_args(arguments)
    path = own.labels or own.folder / LABELS
    if not own.folder.is_dir() or not path.is_file():
        raise SettingError(
            f"{own.folder}: there is no {'such folder' if not own.folder.is_dir() else path}. Name "
            "the folder of the images, and the file by --labels if it lies elsewhere."
        )
    file = LabelsFile(path, "--labels")
    there = {image.path for image in find_images(own.folder, "folder").images}
    names = names_of(there)
    tally = Tally([], (as_named(row, names) for row in file.rows))
    labelled = labelled_images(there, tally)
    for text in summary(labelled, there, tally, file.complaints):
        print(text)
    if own.table is not None:
        write_csv(own.table, Labelled._fields, labelled)
        print(f"Wrote {len(labelled):,} rows to {own.table}")
    if own.tree is not None:
        make_tree(own.folder, own.tree, labelled, own.copy)
        print(f"{own.tree} holds {len(labelled):,} {'copies' if own.copy else 'links'}")


def labelled_images(there: set[str], tally: Tally) -> list[Labelled]:
    """Return the images of a folder that have a class, by an answer or by their class folder.

    Args:
        there: The files.
        tally: Of the answers.
    """
    found, answers = [], tally.labels
    for file in sorted(there):
        part, *rest = file.split("/")
        label, split = answers.get(file), "audit" if file in tally.audit else "train"
        if label is None and part in ("train", "test") and len(rest) > 1:
            label, split = rest[0], part
        if label is not None and label != CANNOT_TELL:
            found.append(Labelled(file, label, split))
    return found


def summary(
    labelled: list[Labelled], there: set[str], tally: Tally, complaints: list[str]
) -> list[str]:
    """Return in words what there is."""
    answers = tally.labels
    counts = Counter((each.label, each.split) for each in labelled)
    lines = [f"{len(there):,} images, {len(labelled):,} with a class"]
    for name in sorted({label for label, _ in counts}):
        parts = [
            f"{counts[name, split]:,} {split}"
            for split in ("train", "audit", "test")
            if counts[name, split]
        ]
        lines.append(f"  {name}: {', '.join(parts)}")
    if unsure := sum(label == CANNOT_TELL for label in answers.values()):
        lines.append(f"  {CANNOT_TELL}: {unsure:,}")
    if made := sum(file.startswith(f"{MADE}/") for file in answers):
        lines.append(f"{made:,} answers are about images that a selection made")
    if gone := [f for f in answers if f not in there and not f.startswith(f"{MADE}/")]:
        lines.append(f"{len(gone):,} answers are about files that are not here ({some_of(gone)})")
    return lines + tally.complaints() + complaints


def make_tree(root: Path, tree: Path, labelled: list[Labelled], copy: bool) -> None:
    """Make a folder that `ImageFolder` of torchvision and others read, a class a folder.

    Raises:
        SettingError: If it is there already, or cannot be made.
    """
    if tree.exists() and any(tree.iterdir()):
        raise SettingError(f"--tree: {tree} is not empty. Name a folder that is new.")
    try:
        for each in labelled:
            place = tree / each.split / each.label / each.file
            place.parent.mkdir(parents=True, exist_ok=True)
            source = (root / each.file).absolute()
            if copy:
                shutil.copy2(source, place)
            else:
                place.symlink_to(os.path.relpath(source, place.parent))
    except OSError as error:
        raise SettingError(
            f"--tree: {tree} cannot be made ({error}). Make room, or take --copy where files "
            "cannot be linked."
        ) from error
