"""CSV files: written whole or not at all, and read by their check sums."""

import csv
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from baldvae_pl.errors import SettingError
from baldvae_pl.runs.files import replacing

ROUND_COLUMNS = [
    "round",
    "labelled",
    "unlabelled",
    "generated",
    "test/acc",
    "test/nll",
    "test/ece",
    "test/acc_mc",
    "test/nll_mc",
    "test/ece_mc",
    "acquired",
    "complemented",
    "acquired/redundancy",
    "bald/threshold",
    "bald/labelled_max",
    "bald/margin",
    "bald/labelled_mean",
    "bald/unlabelled_max",
    "bald/unlabelled_mean",
    "seconds/train",
    "seconds/evaluate",
    "seconds/evaluate_mc",
    "seconds/score",
    "seconds/select",
    "seconds/complement",
]
"""Keys of a round's row: TensorBoard's tags, and with "_" for "/" the columns of the file."""


def read_rounds(path: Path) -> list[dict[str, str]]:
    """Return the rows of a ``rounds.csv``; those of version 0.2 have no check sums.

    Raises:
        SettingError: If it is damaged or something else.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        sound = {"round", "labelled", "unlabelled", "test_acc"} <= {*header} and all(
            len(row) == len(header) and int(row[header.index("round")]) == number
            for number, row in enumerate(rows)
        )
        if sound and header[-1] == "checksum":
            columns = [column.replace("/", "_") for column in ROUND_COLUMNS]
            sound = header[: len(columns)] == columns and all(
                row[-1] == row_checksum(row[:-1]) for row in rows
            )
    except (OSError, ValueError, csv.Error):
        sound = False
    if not sound:
        raise SettingError(
            f"{path} is damaged. Go on with its run by --ckpt_path last, which writes it anew, or "
            "move its folder away."
        )
    return [dict(zip(header, row, strict=True)) for row in rows]


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file beside its target and rename it: a reader never sees half a file."""
    # Names of files need not be valid text.
    with replacing(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for row in rows:
            writer.writerow([as_text(x) for x in row])


def as_text(value: Any) -> str:
    """Return what a cell says."""
    if value is None:
        return ""
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def row_checksum(cells: Sequence[str]) -> str:
    """Return the CRC-32 of a row's cells: hexadecimal after an x, so that it is no number."""
    return f"x{zlib.crc32(','.join(cells).encode(errors='surrogateescape')):08x}"
