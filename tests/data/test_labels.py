"""labels.csv: what it says, whoever writes it, and that no answer is ever lost."""

import csv
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baldvae_pl.data.labels import COLUMNS, LabelsFile, Row
from baldvae_pl.data.tally import Tally, like_another, why_no_class
from baldvae_pl.errors import SettingError

HEADER = ",".join(COLUMNS)


def test_an_answer_is_a_line_that_a_spreadsheet_reads(tmp_path: Path) -> None:
    file = LabelsFile(tmp_path / "labels.csv")
    row = Row("süß/a, b.png", 'say "cat"', "Ann", "1.5", "3", "query", "2026-11-25T10:00:00Z")
    file.append([row])
    header, line = (tmp_path / "labels.csv").read_text(encoding="utf-8").splitlines()
    assert header == "time,file,label,annotator,seconds,round,why"
    assert line == '2026-11-25T10:00:00Z,"süß/a, b.png","say ""cat""",Ann,1.5,3,query'
    assert LabelsFile(tmp_path / "labels.csv").rows == [row] == file.rows


def test_a_row_without_a_time_gets_the_present_one_in_utc(tmp_path: Path) -> None:
    file = LabelsFile(tmp_path / "labels.csv")
    file.append([Row("a", "cat")])
    assert file.rows[0].time.endswith("Z")
    assert len(file.rows[0].time) == 20


cells = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=9)


@given(st.lists(st.tuples(cells, cells, cells), max_size=6), st.integers(0, 6))
def test_what_was_appended_is_read_again_by_any_reader(
    tmp_path_factory: pytest.TempPathFactory, written: list[tuple[str, str, str]], split: int
) -> None:
    path = tmp_path_factory.mktemp("any") / "labels.csv"
    one, other = LabelsFile(path), LabelsFile(path)
    rows = [Row(f"f{file}", f"l{label}", f"w{who}x") for file, label, who in written]
    one.append(rows[:split])
    other.append(rows[split:])
    one.refresh()
    said = [(row.file, row.label, row.annotator) for row in LabelsFile(path).rows]
    assert [(row.file, row.label, row.annotator) for row in one.rows] == said
    assert [file for file, _, _ in said] == [row.file for row in rows]
    if rows:
        with path.open(encoding="utf-8", newline="") as file:
            assert [row["file"] for row in csv.DictReader(file)] == [row.file for row in rows]


def test_a_torn_last_row_is_ended_and_said_and_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"{HEADER}\n,a.png,cat,,,,\n,b.")
    file = LabelsFile(path)
    assert [row.file for row in file.rows] == ["a.png"]
    assert path.read_text().endswith(",b.")  # reading changes nothing
    file.append([Row("c.png", "dog")])
    assert file.complaints == ["row 3 has 2 cells instead of 7 and is passed over"]
    assert "\n,b.\n" in path.read_text()  # nothing is ever taken out of the file
    assert [row.file for row in LabelsFile(path).rows] == ["a.png", "c.png"]


def test_a_whole_last_row_that_an_editor_has_not_ended_counts(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"{HEADER}\n,a.png,cat,,,,\n,b.png,dog,,,,")
    file = LabelsFile(path)
    assert [row.file for row in file.rows] == ["a.png"]  # it may be in the midst of writing
    os.utime(path, (0, 0))
    assert file.refresh()
    assert not file.refresh()
    assert [row.file for row in file.rows] == ["a.png", "b.png"]
    assert file.complaints == []
    file.append([Row("c.png", "dog")])
    assert [row.file for row in LabelsFile(path).rows] == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff{header}\r\n,a.png,cat,,,,\r\n",
        "file;label;time;annotator;seconds;round;why\na.png;cat;;;;;\n",
        "file,label,note,time,annotator,seconds,round,why\na.png,cat,hm,,,,,\n",
        '"time","file","label","annotator","seconds","round","why"\n"","a.png","cat","","","",""\n',
    ],
    ids=["windows", "semicolons", "own order and columns", "quoted"],
)
def test_spreadsheets_save_it_in_their_own_way(tmp_path: Path, content: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(content.replace("{header}", HEADER), encoding="utf-8", newline="")
    file = LabelsFile(path)
    assert [(row.file, row.label) for row in file.rows] == [("a.png", "cat")]
    file.append([Row("b.png", "dog", why="query")])
    again = LabelsFile(path)
    assert [(row.file, row.label, row.why) for row in again.rows][1] == ("b.png", "dog", "query")
    assert again.complaints == []


def test_a_file_that_was_saved_anew_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    file = LabelsFile(path)
    file.append([Row("a.png", "cat"), Row("b.png", "cat")])
    generation = file.generation
    path.write_text(
        f"{HEADER}\n,a.png,dog,,,,\n,b.png,dog,,,,\n,c.png,dog,,,,\n" + ",d,x,,,,\n" * 9
    )
    assert file.refresh()
    assert [row.label for row in file.rows[:3]] == ["dog"] * 3
    assert file.generation > generation
    path.unlink()
    assert file.refresh()
    assert file.rows == []


def test_an_edit_of_the_same_length_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    file = LabelsFile(path)
    file.append([Row(f"{i}.png", "cat") for i in range(100)])
    path.write_text(path.read_text().replace(",3.png,cat", ",3.png,dog"))
    assert file.refresh()
    assert file.rows[3].label == "dog"
    assert len(file.rows) == 100


def test_a_file_that_is_saved_in_pieces_is_read_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    file = LabelsFile(path)
    file.append([Row(f"{i}.png", "cat") for i in range(100)])
    content = path.read_bytes()

    def save() -> None:
        with path.open("wb", buffering=0) as saved:
            for start in range(0, len(content), 500):
                saved.write(content[start : start + 500])
                time.sleep(0.05)

    saving = threading.Thread(target=save)
    saving.start()
    time.sleep(0.1)
    file.refresh()
    saving.join()
    assert len(file.rows) == 100
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b'[{"id": 1}]', b"a,b\rc,d\r", b"x" * 5000])
def test_reading_and_refused_writing_change_no_other_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "export.json"
    path.write_bytes(content)
    os.utime(path, (0, 0))
    with pytest.raises(SettingError, match="has no column time"):
        LabelsFile(path)
    path.write_bytes(content)  # just now: it may not be whole yet
    with pytest.raises(SettingError, match="has no header"):
        LabelsFile(path).append([Row("a.png", "cat")])
    assert path.read_bytes() == content


def test_a_quote_that_is_never_closed_spoils_no_other_row(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f'{HEADER}\n,"a.png,cat,,,,\n,b.png,dog,,,,\n')
    file = LabelsFile(path)
    assert [row.file for row in file.rows] == ["b.png"]
    assert file.complaints == ["row 2 has 2 cells instead of 7 and is passed over"]


def test_labels_that_cannot_be_classes_make_none() -> None:
    rows = [Row("a", "ship"), Row("b", "Ship"), Row("c", "../x"), Row("d", "Cannot Tell")]
    tally = Tally([], rows)
    assert [*tally.classes] == ["ship"]
    assert tally.undeclared == {"b": "Ship", "c": "../x", "d": "Cannot Tell"}
    assert "'Ship' is no class (1 images), but 'ship' is" in tally.complaints()[0]


def test_a_row_of_the_wrong_width_is_said_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"{HEADER}\na.png,cat\n,b.png,dog,,,,\n,d.png,cat\n")
    file = LabelsFile(path)
    assert [row.file for row in file.rows] == ["b.png"]
    assert file.complaints == [
        f"row {row} has {cells} cells instead of 7 and is passed over"
        for row, cells in ((2, 2), (4, 3))
    ]
    file.append([Row("c.png", "cat")])
    assert "a.png,cat\n" in path.read_text()


def test_another_table_is_refused_with_the_header_that_it_needs(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("image,class\na,b\n")
    with pytest.raises(SettingError, match=r"has no column time, file, label.*time,file,label"):
        LabelsFile(tmp_path / "labels.csv")


def test_what_cannot_be_written_is_said_and_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "labels.csv"
    file = LabelsFile(path)
    file.append([Row("a.png", "cat")])
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SettingError, match=r"No space left.*Nothing of this was saved"):
        file.append([Row("b.png", "dog")])
    assert path.read_bytes() == before
    monkeypatch.undo()
    file.append([Row("b.png", "dog")])
    assert [row.file for row in file.rows] == ["a.png", "b.png"]


def test_half_a_row_on_a_full_disk_is_taken_away_again(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    file = LabelsFile(path)
    file.append([Row("a.png", "cat")])
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 30, limits[1]))
    try:
        with pytest.raises(SettingError, match=r"Nothing of this was saved"):
            file.append([Row(f"{i}.png", "a class with a long name") for i in range(3)])
        assert path.read_bytes() == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    file.append([Row("b.png", "dog")])
    assert [row.file for row in LabelsFile(path).rows] == ["a.png", "b.png"]
    assert LabelsFile(path).complaints == []


def test_the_file_and_its_folder_are_on_the_disk_before_append_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    file = LabelsFile(tmp_path / "labels.csv")
    file.append([Row("a.png", "cat")])
    assert synced == [str(tmp_path / "labels.csv"), str(tmp_path)]
    file.append([Row("b.png", "cat")])
    assert synced[2:] == [str(tmp_path / "labels.csv")]


WRITER = """
import sys
from pathlib import Path
from baldvae_pl.data.labels import LabelsFile, Row
file = LabelsFile(Path(sys.argv[1]))
for i in range(50):
    file.append([Row(f"{sys.argv[2]}-{i}.png", "cat")])
assert "torch" not in sys.modules
"""


def test_several_processes_write_at_once_and_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(number)])
        for number in range(3)
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    rows = LabelsFile(path).rows
    assert {row.file for row in rows} == {f"{w}-{i}.png" for w in range(3) for i in range(50)}
    assert len(rows) == 150


def test_the_last_row_of_a_file_counts() -> None:
    tally = Tally(["cat", "dog"])
    for file, label in [("a", "cat"), ("a", "dog"), ("b", "cat"), ("b", "withdrawn")]:
        tally.take(Row(file, label))
    tally.take(Row("c", "cannot tell"))
    assert tally.labels == {"a": "dog", "c": "cannot tell"}
    assert [tally.label(file) for file in "abcd"] == ["dog", None, "cannot tell", None]
    assert tally.spent() == 2
    assert tally.spent(cannot_tell_cost=0.25) == 1.25


def test_a_class_that_nobody_declared_is_no_answer_until_it_is_made() -> None:
    tally = Tally(["cat", "dog"], [Row("a", "otter"), Row("b", "cat")])
    assert tally.labels == {"b": "cat"}
    assert tally.undeclared == {"a": "otter"}
    tally.take(Row("", "otter", why="class"))
    assert tally.labels == {"a": "otter", "b": "cat"}
    assert [*tally.classes] == ["cat", "dog", "otter"]
    assert tally.undeclared == {}


def test_without_declared_classes_each_label_makes_one_in_order_of_appearance() -> None:
    tally = Tally([], [Row("a", "dog"), Row("b", "cannot tell"), Row("c", "cat"), Row("d", "dog")])
    assert [*tally.classes] == ["dog", "cat"]


def test_once_for_the_audit_always_for_the_audit() -> None:
    rows = [Row("a", "", why="audit"), Row("a", "cat", why="audit"), Row("a", "dog", why="review")]
    tally = Tally(["cat", "dog"], rows)
    assert [*tally.audit] == ["a"]
    assert tally.label("a") == "dog"
    assert Tally(["cat", "dog"], rows[:1]).label("a") is None


def test_annotators_disagree_when_their_last_words_do() -> None:
    rows = [Row("a", "cat", "Ann"), Row("a", "dog", "Ben"), Row("b", "cat", "Ann")]
    tally = Tally([], rows)
    assert tally.disagreements == {"a": {"Ann": "cat", "Ben": "dog"}}
    tally.take(Row("a", "cat", "Ben"))
    assert tally.disagreements == {}


def test_the_digest_knows_what_rows_say_and_not_how_they_are_written(tmp_path: Path) -> None:
    one, other = tmp_path / "one.csv", tmp_path / "other.csv"
    one.write_text(f"{HEADER}\n,a.png,cat,,,,\n,b.png,dog,,,,\n")
    other.write_text(
        "file;label;time;annotator;seconds;round;why\r\na.png;cat;;;;;\r\nb.png;cow;;;;;\r\n"
    )
    files = [LabelsFile(path) for path in (one, other)]
    assert files[0].digest(1) == files[1].digest(1)
    assert files[0].digest(2) != files[1].digest(2)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "can be printed"),
        ("a\tb", "can be printed"),
        (" cat", "blank"),
        ("x" * 101, "longer"),
        ("Cannot Tell", "a word of labels.csv"),
        ("withdrawn", "a word of labels.csv"),
        ("DOG", "'dog' in case"),
        ("ﬁsh", "'fish' in case or Unicode form"),
        ("a/b", "folder"),
        ("..", "folder"),
    ],
)
def test_names_that_cannot_be_classes(name: str, why: str) -> None:
    assert why in (why_no_class(name, ["dog", "fish"]) or "")


def test_names_that_can() -> None:
    assert why_no_class("sea otter", ["otter"]) is None
    assert like_another("dog", ["dog", "cat"]) is None


def test_names_of_files_need_not_be_valid_text(tmp_path: Path) -> None:
    file = LabelsFile(tmp_path / "labels.csv")
    name = os.fsdecode(b"broken\xff.png")
    file.append([Row(name, "cat")])
    assert LabelsFile(tmp_path / "labels.csv").rows[0].file == name
