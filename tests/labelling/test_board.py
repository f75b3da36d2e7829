"""What the labelling page shows and does, without HTTP."""

from pathlib import Path
from typing import Any

import pytest
from boards import FILES, board_of, question_of

from baldvae_pl.data.labels import LabelsFile, Row
from baldvae_pl.data.question_file import Asked, write_json, write_question
from baldvae_pl.labelling import board as board_module
from baldvae_pl.labelling.board import Board, Refused
from baldvae_pl.runs.folder import RunFolder


def files_of(items: list[dict[str, Any]]) -> list[str]:
    return [item["file"] for item in items]


def give(board: Board, file: str, label: str, who: str = "Ann") -> None:
    (image,) = [image for image, name in board._files.items() if name == file]
    board.answer(who, [image], label, 2.0, "label")


def test_the_question_comes_first_and_then_the_rest_of_its_ranking(tmp_path: Path) -> None:
    board = board_of(tmp_path)
    assert files_of(board.next("t", [], 9)) == FILES[:3]
    for file in FILES[:2]:
        give(board, file, "cat")
    assert files_of(board.next("t", [], 9)) == ["c.png"]
    give(board, "c.png", "dog")
    assert files_of(board.next("t", [], 9)) == FILES[3:5]  # of the budget, two are left
    assert board.next("another tab", [], 9) == []
    give(board, "d.png", "dog")
    give(board, "e.png", "dog")
    assert board.next("t", [], 9) == []  # the budget of five is spent


def test_an_answer_is_a_row_with_all_that_there_is_to_know(tmp_path: Path) -> None:
    board = board_of(tmp_path)
    board.next("t", [], 3)
    give(board, "b.png", "dog")
    (row,) = LabelsFile(tmp_path / "labels.csv").rows
    assert row._replace(time="") == Row("b.png", "dog", "Ann", "2.0", "2", "query", "")
    state = board.state("t", [])
    assert state["question"] == {"round": 2, "total": 3, "answered": 1}
    assert state["classes"] == [{"name": "cat", "count": 0}, {"name": "dog", "count": 1}]
    assert (state["budget"], state["spent"], state["seconds"]) == (5, 1, 2.0)
    assert state["annotators"] == {"Ann": 1}


def test_cannot_tell_costs_what_the_user_says(tmp_path: Path) -> None:
    board = board_of(tmp_path)
    board.next("t", [], 3)
    give(board, "a.png", "cannot tell")
    assert board.state("t", [])["spent"] == 0.5
    assert board.state("t", [])["cannot_tell"] == 1


def test_nobody_is_shown_what_somebody_else_has_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(board_module.time, "monotonic", lambda: now)
    board = board_of(tmp_path)
    mine = board.next("one", [], 2)
    assert files_of(mine) == FILES[:2]
    assert files_of(board.next("two", [], 2)) == ["c.png"]
    assert files_of(board.next("one", [], 2)) == FILES[:2]  # loaded again: the same go on
    now += 8
    board.state("one", [mine[0]["id"]])  # still open, the other one is not
    now += 8
    assert files_of(board.next("two", [], 9)) == ["b.png", "c.png"]


def test_what_is_skipped_comes_last(tmp_path: Path) -> None:
    board = board_of(tmp_path)
    first = board.next("t", [], 1)[0]["id"]
    assert files_of(board.next("t", [first], 9)) == ["b.png", "c.png", "a.png"]


def test_undo_takes_back_ones_own_answers_one_after_the_other(tmp_path: Path) -> None:
    board = board_of(tmp_path)
    board.next("t", [], 3)
    give(board, "a.png", "cat")
    give(board, "b.png", "dog")
    give(board, "c.png", "dog", who="Ben")
    assert board.undo("Ann")["file"] == "b.png"
    assert board.undo("Ann")["file"] == "a.png"
    with pytest.raises(Refused, match="no answer of yours"):
        board.undo("Ann")
    rows = LabelsFile(tmp_path / "labels.csv").rows
    assert [(r.file, r.label) for r in rows[3:]] == [("b.png", "withdrawn"), ("a.png", "withdrawn")]
    assert files_of(board.next("t", [], 9)) == ["a.png", "b.png"]


def test_undoing_a_correction_brings_back_what_was_said_before(tmp_path: Path) -> None:
    board = board_of(tmp_path)
    board.next("t", [], 3)
    give(board, "a.png", "cat", who="Ben")
    give(board, "a.png", "dog")
    assert board.undo("Ann")["file"] == "a.png"
    assert LabelsFile(tmp_path / "labels.csv").rows[-1].label == "cat"
    with pytest.raises(Refused):
        board.undo("Ann")


def test_classes_are_made_unless_they_are_like_another(tmp_path: Path) -> None:
    board = board_of(tmp_path)
    board.make_class("otter", "Ann")
    assert [c["name"] for c in board.state("t", [])["classes"]] == ["cat", "dog", "otter"]
    board.make_class("otter", "Ben")  # at the same time
    assert len(LabelsFile(tmp_path / "labels.csv").rows) == 1
    for name, reason in [("Cat", "in case"), ("", "needs a name")]:
        with pytest.raises(Refused, match=reason):
            board.make_class(name, "Ann")
    assert LabelsFile(tmp_path / "labels.csv").rows[0].why == "class"


def test_unknown_images_and_classes_are_refused(tmp_path: Path) -> None:
    board = board_of(tmp_path)
    image = board.next("t", [], 1)[0]["id"]
    with pytest.raises(Refused, match="no class 'cow'"):
        board.answer("Ann", [image], "cow", 1, "label")
    for unknown in ("0" * 16, "../labels.csv", ""):
        with pytest.raises(Refused, match="not known here"):
            board.answer("Ann", [unknown], "cat", 1, "label")
        with pytest.raises(Refused, match="not known here"):
            board.path(unknown)
    assert not (tmp_path / "labels.csv").exists()


def test_several_images_at_once_share_the_time(tmp_path: Path) -> None:
    board = board_of(tmp_path)
    ids = [item["id"] for item in board.next("t", [], 3)]
    board.answer("Ann", ids, "cat", 6.0, "label")
    rows = LabelsFile(tmp_path / "labels.csv").rows
    assert [(row.file, row.label, row.seconds) for row in rows] == [
        (file, "cat", "2.0") for file in FILES[:3]
    ]


def test_a_guess_is_told_to_those_who_ask(tmp_path: Path) -> None:
    board = board_of(tmp_path)
    (item,) = board.next("t", [], 1)
    assert "probs" not in item
    assert board.guess(item["id"]) == [
        {"name": "dog", "probability": 0.7},
        {"name": "cat", "probability": 0.3},
    ]


def test_a_new_question_and_rows_of_others_are_seen_at_once(tmp_path: Path) -> None:
    board = board_of(tmp_path)
    board.next("t", [], 3)
    LabelsFile(tmp_path / "labels.csv").append([Row(FILES[0], "cat"), Row(FILES[1], "Cow")])
    state = board.state("t", [])
    assert state["question"]["answered"] == 1
    (warning,) = state["warnings"]
    assert warning.startswith("'Cow' is no class (1 images). Until it is one")
    asked = [Asked("e.png", "query", 1)]
    write_question(RunFolder(tmp_path / "version_0"), question_of(tmp_path, round=3, asked=asked))
    assert files_of(board.next("t", [], 9)) == ["e.png"]


def test_before_anything_is_asked_there_is_nothing_to_answer(tmp_path: Path) -> None:
    board = Board(lambda: None, lambda: {"alive": True, "ended": None})
    assert board.state("t", []) == {
        "question": None,
        "process": {"alive": True, "ended": None},
        "classes": [],
        "curve": [],
    }
    assert board.next("t", [], 1) == []
    with pytest.raises(Refused, match="still starting"):
        board.answer("Ann", ["0"], "cat", 1, "label")


def test_the_review_shows_the_doubted_first_with_what_is_said_of_them_now(tmp_path: Path) -> None:
    board = board_of(tmp_path)
    entries = [
        {"file": "a.png", "label": "cat", "doubt": 0.2, "bald": 0.9, "neighbours": ["b.png"]},
        {"file": "b.png", "label": "cat", "doubt": 0.8, "bald": 0.1, "neighbours": []},
    ]
    write_json(RunFolder(tmp_path / "version_0").review, {"images": entries})
    LabelsFile(tmp_path / "labels.csv").append([Row("b.png", "dog", "Ann", why="review")])
    doubted = board.review("doubt")
    assert files_of(doubted) == ["b.png", "a.png"]
    assert [(item["label"], item["reviewed"]) for item in doubted] == [
        ("dog", True),
        ("cat", False),
    ]
    uncertain = board.review("uncertain")
    assert files_of(uncertain) == ["a.png", "b.png"]
    assert uncertain[0]["neighbours"] == [{"id": doubted[0]["id"], "label": "dog"}]
    board.answer("Ann", [uncertain[0]["id"]], "dog", 1.0, "review")
    assert LabelsFile(tmp_path / "labels.csv").rows[-1].why == "review"
