"""Tables that a run leaves behind for people: `rounds.csv` and `acquisitions.csv`.

Both are written whole from the checkpointed history and pool, never appended to, so that a run
that was killed and resumed leaves the same files as one that was not.
"""

import csv
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from baldvae_pl.errors import SettingError
from baldvae_pl.pool import COMPLEMENT, SYNTHESISED, Pool
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

KINDS = {COMPLEMENT: "complement", SYNTHESISED: "synthesised"}
ACQUISITION_COLUMNS = ["round", "kind", "index", "label", "score", "threshold", "file"]


def write_rounds(path: Path, history: Sequence[dict[str, float]]) -> None:
    """Write a row a round, in order; a cell without a value is empty.

    What else a user's module logs as ``test/*`` gets columns of its own, and the last column is a
    check sum of the row, as reports are made from this file alone.
    """
    keys = {key for row in history for key in row if key.startswith("test/")}
    own = sorted(keys - set(ROUND_COLUMNS))
    columns = [*ROUND_COLUMNS, *own]
    header = [column.replace("/", "_") for column in columns]
    rows = [[as_text(row.get(column)) for column in columns] for row in history]
    write_csv(path, [*header, "checksum"], [[*row, row_checksum(row)] for row in rows])


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


def write_acquisitions(
    path: Path, pool: Pool, history: Sequence[dict[str, float]], files: Sequence[str] | None = None
) -> None:
    """Write a row for each label and each complement, by the first round that trains with it.

    Kinds are ``initial``, ``acquired`` (highest BALD first), ``complement`` (whose index is its
    parent's) and ``synthesised`` (whose index is negative, as it is not in W). ``files`` names the
    images of W, if they have names.
    """
    thresholds = {row["round"] + 1: row.get("bald/threshold") for row in history}
    rows: list[list[Any]] = []
    for index in pool.labelled.tolist():
        round = int(pool.acquired_in[index])
        label, score = int(pool.labels[index]), float(pool.scores[index])
        if round == 0:
            rows.append([round, "initial", index, label, None, None])
        else:
            rows.append([round, "acquired", index, label, score, thresholds[round]])
    of = pool.generated
    columns = (of.rounds, of.kinds, of.parents, of.labels, of.scores, of.thresholds)
    for round, kind, *rest in zip(*(column.tolist() for column in columns), strict=True):
        rows.append([round, KINDS[kind], *rest])
    order = {"initial": 0, "acquired": 1, "synthesised": 2, "complement": 3}
    rows.sort(key=lambda row: (row[0], order[row[1]], -(row[4] or 0), row[2]))
    named = [[*row, files[row[2]] if files and row[2] >= 0 else None] for row in rows]
    write_csv(path, ACQUISITION_COLUMNS, named)


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


def in_one_line(row: dict[str, float]) -> str:
    """Describe a round in one line; it shows when no labelled image was uncertain enough."""
    text = (
        f"round {row['round']}: {row['labelled']} labels + {row['generated']} generated, "
        f"test accuracy {row.get('test/acc', float('nan')):.2%}"
    )
    if "acquired" in row:
        text += (
            f"; bought {row['acquired']}, complemented {row['complemented']} (highest labelled "
            f"score {row['bald/labelled_max']:.3f}, threshold {row['bald/threshold']:.3f})"
        )
    return text
