"""Tables that a run leaves behind for people: `rounds.csv` and `acquisitions.csv`.

Both are written whole from the checkpointed history and pool, never appended to, so that a run
that was killed and resumed leaves the same files as one that was not.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from baldvae_pl.pool import COMPLEMENT, SYNTHESISED, Pool
from baldvae_pl.runs.files import replacing
from baldvae_pl.runs.tables import ROUND_COLUMNS, as_text, row_checksum, write_csv

KINDS = {COMPLEMENT: "complement", SYNTHESISED: "synthesised"}
ACQUISITION_COLUMNS = ["round", "kind", "index", "label", "score", "threshold", "file"]


def write_rounds(path: Path, history: Sequence[dict[str, float]]) -> None:
    """Write a row a round, in order; a cell without a value is empty.

    What else a user's module logs as ``test/*``, what people answered, what complements are and
    what the neighbour graph knows get columns where there is any. The last column is a check sum of
    the row, as reports are made from this file alone.
    """
    more = ("test/", "answers/", "complement/", "graph/")
    keys = {key for row in history for key in row if key.startswith(more)}
    own = sorted(keys - set(ROUND_COLUMNS))
    columns = [*ROUND_COLUMNS, *own]
    header = [column.replace("/", "_") for column in columns]
    rows = [[as_text(row.get(column)) for column in columns] for row in history]
    write_csv(path, [*header, "checksum"], [[*row, row_checksum(row)] for row in rows])


def write_log(path: Path, history: Sequence[dict[str, float]]) -> None:
    """Write a line a round, as the terminal shows it."""
    with replacing(path, "w", encoding="utf-8") as file:
        file.writelines(f"{in_one_line(row)}\n" for row in history)


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


def in_one_line(row: dict[str, float]) -> str:
    """Describe a round in one line; it shows when no labelled image was uncertain enough."""
    text = f"round {row['round']}: {row['labelled']} labels + {row['generated']} generated, "
    if "test/acc_low" in row:
        text += (
            f"accuracy {row['test/acc']:.1%} (95 % interval {row['test/acc_low']:.1%} to "
            f"{row['test/acc_high']:.1%}, {row['test/images']} images)"
        )
    elif "test/images" in row:
        text += "no test images"
    else:
        text += f"test accuracy {row.get('test/acc', float('nan')):.2%}"
    if "answers/agreement" in row:
        text += f"; of the new answers it had predicted {row['answers/agreement']:.0%}"
    if "acquired" in row and "bald/threshold" not in row:
        text += f"; {row['acquired']} more answers have come"
    elif "acquired" in row:
        text += (
            f"; bought {row['acquired']}, complemented {row['complemented']} (highest labelled "
            f"score {row['bald/labelled_max']:.3g}, threshold {row['bald/threshold']:.3g})"
        )
    return text
