"""The files that a run leaves behind, to the letter, and that a crash does not spoil them."""

import csv
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baldvae_pl.errors import SettingError
from baldvae_pl.pool import Pool
from baldvae_pl.runs.records import in_one_line, write_acquisitions, write_csv, write_rounds
from baldvae_pl.runs.tables import read_rounds

HISTORY = [
    {
        "round": 0,
        "labelled": 3,
        "unlabelled": 7,
        "generated": 0,
        "test/acc": 0.5,
        "test/nll": 1.23456789,
        "test/ece": 1e-9,
        "test/acc_mc": 1 / 3,
        "test/nll_mc": 123456.789,
        "test/ece_mc": 0.0,
        "acquired": 3,
        "complemented": 1,
        "acquired/redundancy": 0.875,
        "bald/threshold": 0.125,
        "bald/labelled_max": 0.25,
        "bald/margin": -0.125,
        "bald/labelled_mean": 0.0625,
        "bald/unlabelled_max": 0.75,
        "bald/unlabelled_mean": 0.1,
        "seconds/train": 2.5,
        "seconds/evaluate": 0.5,
        "seconds/evaluate_mc": 1.5,
        "seconds/score": 3.0,
        "seconds/select": 0.25,
        "seconds/complement": 0.0,
        "not in the file": 9.0,
    },
    {"round": 1, "labelled": 6, "unlabelled": 4, "generated": 1, "bald/threshold": 0.375},
    {"round": 2, "labelled": 8, "unlabelled": 2, "generated": 4, "test/acc": 0.75},
]

ROUNDS = """\
round,labelled,unlabelled,generated,test_acc,test_nll,test_ece,test_acc_mc,test_nll_mc,test_ece_mc,\
acquired,complemented,acquired_redundancy,bald_threshold,bald_labelled_max,bald_margin,bald_labelled_mean,\
bald_unlabelled_max,bald_unlabelled_mean,seconds_train,seconds_evaluate,seconds_evaluate_mc,\
seconds_score,seconds_select,seconds_complement,checksum
0,3,7,0,0.5,1.234568,1e-09,0.3333333,123456.8,0,3,1,0.875,0.125,0.25,-0.125,0.0625,0.75,0.1,2.5,0.5,1.5,\
3,0.25,0,xb23898a0
1,6,4,1,,,,,,,,,,0.375,,,,,,,,,,,,xe6fbe5c0
2,8,2,4,0.75,,,,,,,,,,,,,,,,,,,,,x0d84b6a9
"""

ACQUISITIONS = """\
round,kind,index,label,score,threshold,file
0,initial,1,7,,,
0,initial,4,5,,,
0,initial,9,6,,,
1,acquired,8,3,0.75,0.125,
1,acquired,2,1,0.125,0.125,
1,acquired,6,2,0.125,0.125,
1,complement,4,5,0.25,0.125,
2,acquired,3,0,0.5,0.375,
2,acquired,0,4,0.375,0.375,
2,complement,9,6,0.6,0.375,
2,complement,4,5,0.4,0.375,
2,complement,8,3,0.4,0.375,
"""


def pool_after_two_purchases() -> Pool:
    pool = Pool(10, (1, 2, 2))

    def images(n: int) -> torch.Tensor:
        return torch.zeros((n, 1, 2, 2), dtype=torch.uint8)

    pool.acquire(torch.tensor([9, 4, 1]), torch.tensor([6, 5, 7]), 0)
    scores = torch.tensor([0.125, 0.125, 0.75])
    pool.acquire(torch.tensor([6, 2, 8]), torch.tensor([2, 1, 3]), 1, scores)
    pool.extend(images(1), torch.tensor([4]), 1, torch.tensor([0.25]), 0.125)
    pool.acquire(torch.tensor([0, 3]), torch.tensor([4, 0]), 2, torch.tensor([0.375, 0.5]))
    scores = torch.tensor([0.4, 0.4, 0.6])
    pool.extend(images(3), torch.tensor([8, 4, 9]), 2, scores, 0.375)
    return pool


def test_what_complements_are_has_columns_only_where_there_are_any(tmp_path: Path) -> None:
    path = tmp_path / "rounds.csv"
    write_rounds(path, [*HISTORY, {"round": 3, "labelled": 9, "complement/acc": 0.5}])
    *rows, last = read_rounds(path)
    assert last["complement_acc"] == "0.5"
    assert {row["complement_acc"] for row in rows} == {""}
    write_rounds(path, HISTORY)
    assert "complement_acc" not in read_rounds(path)[0]


def test_rounds_csv(tmp_path: Path) -> None:
    write_rounds(tmp_path / "rounds.csv", HISTORY)
    assert (tmp_path / "rounds.csv").read_text() == ROUNDS


def test_acquisitions_csv(tmp_path: Path) -> None:
    write_acquisitions(tmp_path / "acquisitions.csv", pool_after_two_purchases(), HISTORY)
    assert (tmp_path / "acquisitions.csv").read_text() == ACQUISITIONS


def test_acquisitions_csv_names_files(tmp_path: Path) -> None:
    names = [f"train/{number}.png" for number in range(10)]
    names[3] = "train/a, b \udcff.png"  # a name that is not valid text
    path = tmp_path / "acquisitions.csv"
    write_acquisitions(path, pool_after_two_purchases(), HISTORY, names)
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [names[int(row["index"])] for row in rows]


def test_files_are_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "rounds.csv"
    write_rounds(path, HISTORY)
    write_rounds(path, HISTORY[:1])
    assert path.read_text().splitlines() == ROUNDS.splitlines()[:2]
    assert [file.name for file in tmp_path.iterdir()] == ["rounds.csv"]


def test_any_text_can_be_read_back(tmp_path: Path) -> None:
    rows = [["a,b", 'say "x"', None], ["line\nbreak", "ü", 3]]
    write_csv(tmp_path / "t.csv", ["x", "y", "z"], rows)
    with (tmp_path / "t.csv").open(newline="") as file:
        found = list(csv.reader(file))
    assert found == [["x", "y", "z"], ["a,b", 'say "x"', ""], ["line\nbreak", "ü", "3"]]


def crash(*arguments: object) -> None:
    raise OSError("no space left on device")


def rows_that_crash() -> Iterator[list[int]]:
    yield [1]
    crash()


@pytest.mark.parametrize("where", ["rows", "fsync", "replace"])
def test_a_crash_leaves_the_old_file(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rounds.csv"
    write_csv(path, ["x"], [[0]])
    with monkeypatch.context() as broken:
        if where == "fsync":
            broken.setattr(os, "fsync", crash)
        elif where == "replace":
            broken.setattr(Path, "replace", crash)
        for target in (path, tmp_path / "new.csv"):
            with pytest.raises(SettingError, match=r"cannot be written \(no space"):
                write_csv(target, ["x"], rows_that_crash() if where == "rows" else [[1], [2]])
    assert path.read_text() == "x\n0\n"
    assert not (tmp_path / "new.csv").exists()
    write_csv(path, ["x"], [[1], [2]])
    assert path.read_text() == "x\n1\n2\n"


def test_a_round_in_one_line() -> None:
    assert in_one_line(HISTORY[0]) == (
        "round 0: 3 labels + 0 generated, test accuracy 50.00%; bought 3, complemented 1 "
        "(highest labelled score 0.25, threshold 0.125)"
    )
    assert in_one_line(HISTORY[2]) == "round 2: 8 labels + 4 generated, test accuracy 75.00%"
    assert math.isnan(float(in_one_line(HISTORY[1]).split()[-1].rstrip("%")))


THREE = [{"round": n, "labelled": 20 + n, "unlabelled": 9, "test/acc": 0.5} for n in range(3)]


def test_a_table_of_rounds_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_rounds(tmp_path / "rounds.csv", THREE)
    rows = read_rounds(tmp_path / "rounds.csv")
    assert [row["labelled"] for row in rows] == ["20", "21", "22"]
    assert rows[0]["test_acc"] == "0.5"


@settings(deadline=None)
@given(data=st.data())
def test_a_table_that_was_changed_is_recognised(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rounds.csv")
        write_rounds(path, THREE)
        content, sound = bytearray(path.read_bytes()), read_rounds(path)
        position = data.draw(st.integers(content.index(b"\n") + 1, len(content) - 3))
        content[position] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
        try:
            found = read_rounds(path)
        except SettingError as error:
            said = str(error)
        else:
            assert found == sound
            return
        assert said.startswith(f"{path} is damaged. Go on")


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "\0\0", "round,labelled\n0,1\n"])
def test_what_is_no_table_of_rounds_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "rounds.csv").write_text(content)
    with pytest.raises(SettingError, match="is damaged"):
        read_rounds(tmp_path / "rounds.csv")
