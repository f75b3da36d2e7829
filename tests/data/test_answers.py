"""The ledger: what is in its file after every answer, and what it makes of a file it finds."""

import json
import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baldvae_pl.data import answers as module
from baldvae_pl.data.answers import Ledger
from baldvae_pl.errors import SettingError
from baldvae_pl.oracle import CANNOT_TELL, WITHDRAWN, Answer, Label


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run" / "answers.jsonl"


def lines_of(file: Path) -> list[object]:
    """The lines, without their check sums."""
    text = file.read_text()
    assert text.endswith("\n")
    lines = [json.loads(line) for line in text.splitlines()]
    assert all(len(line.pop("crc")) == 8 for line in lines)
    return lines


def asked(ledger: Ledger, round: int, *indices: int) -> None:
    ledger.ask(round, torch.tensor(indices))


# What is written


def test_every_question_and_answer_is_a_line_in_the_order_of_their_coming(file: Path) -> None:
    ledger = Ledger(file, "these")
    assert lines_of(file) == [{"data": "these"}]
    asked(ledger, 0, 7, 1093)
    assert lines_of(file)[1:] == [{"round": 0, "asked": [7, 1093]}]
    ledger.record(0, [Answer(1093, 5)])
    assert lines_of(file)[2:] == [{"round": 0, "image": 1093, "label": 5}]
    ledger.record(0, iter([Answer(7, CANNOT_TELL), Answer(7, 3)]))
    asked(ledger, 1, -1)
    ledger.record(1, [Answer(7, WITHDRAWN)])
    assert lines_of(file)[3:] == [
        {"round": 0, "image": 7, "label": "cannot tell"},
        {"round": 0, "image": 7, "label": 3},
        {"round": 1, "asked": [-1]},
        {"round": 1, "image": 7, "label": "withdrawn"},
    ]


def test_a_question_that_is_asked_again_is_written_once_and_another_one_anew(file: Path) -> None:
    for _ in range(2):
        ledger = Ledger(file, "these")
        asked(ledger, 2, 5, 3)
        asked(ledger, 2, 5, 3)
        assert ledger.asked == {2: [5, 3]}
    assert lines_of(file)[1:] == [{"round": 2, "asked": [5, 3]}]
    asked(ledger, 2, 3, 5)  # the order is part of the question
    assert lines_of(file)[2:] == [{"round": 2, "asked": [3, 5]}]
    assert Ledger(file, "these").asked == {2: [3, 5]}


def test_nothing_to_write_is_no_line(file: Path) -> None:
    ledger = Ledger(file, "these")
    ledger.record(0, [])
    assert lines_of(file) == [{"data": "these"}]
    assert ledger.known(0) == {}


def test_a_line_is_on_the_disk_and_so_is_its_folder_before_the_next_one(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[object] = []
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        synced = Path(f"/proc/self/fd/{descriptor}").readlink()
        done.append((synced.name, file.read_text().count("\n") if file.exists() else None))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    ledger = Ledger(file, "these")
    # The folder above names the folder, which names the file since then.
    assert done == [(file.parent.parent.name, None), ("answers.jsonl", 1), ("run", 1)]
    done.clear()
    asked(ledger, 0, 1, 2)
    assert done == [("answers.jsonl", 2)]
    for count, image in enumerate((1, 2), 3):
        ledger.record(0, [Answer(image, 0)])
        done.append("returned")
        assert done[-2:] == [("answers.jsonl", count), "returned"]
    assert len(done) == 5


def test_without_a_file_everything_is_in_memory_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ledger = Ledger(None, "these")
    asked(ledger, 0, 1, 2)
    ledger.record(0, [Answer(1, 4), Answer(9, 0)])
    assert ledger.asked == {0: [1, 2]}
    assert ledger.known(0) == {1: 4, 9: 0}
    assert ledger.corrections(0) == {9: 0}
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "a_file").write_text("x")
    with pytest.raises(SettingError, match=r"a_file/answers\.jsonl cannot be written .* Make room"):
        Ledger(tmp_path / "a_file" / "answers.jsonl", "these")


def test_an_answer_that_cannot_be_written_is_not_taken_for_known(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(file, "these")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(SettingError, match=r"cannot be written .*No space left"):
        ledger.record(0, [Answer(1, 4)])
    assert ledger.known(0) == {}


# What is found


@pytest.mark.parametrize("torn", [b"{", b'{"round": 0, "image": 3, "label": 1}', b"\xc3", b"\0\0"])
def test_a_torn_last_line_is_cut_off(file: Path, torn: bytes) -> None:
    ledger = Ledger(file, "these")
    asked(ledger, 0, 3)
    whole = file.read_bytes()
    file.write_bytes(whole + torn)
    again = Ledger(file, "these")
    assert file.read_bytes() == whole
    assert again.known(0) == {}
    again.record(0, [Answer(3, 2)])
    assert Ledger(file, "these").known(0) == {3: 2}


def test_a_file_of_a_torn_line_alone_begins_anew(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b'{"dat')
    Ledger(file, "these")
    assert lines_of(file) == [{"data": "these"}]


def test_wherever_a_killed_process_stops_writing_the_answers_before_are_kept(file: Path) -> None:
    ledger = Ledger(file, "these")
    asked(ledger, 0, 3, 4)
    ends = [len(file.read_bytes())]
    for image in (3, 4):
        ledger.record(0, [Answer(image, image % 3)])
        ends.append(len(file.read_bytes()))
    whole = file.read_bytes()
    for size in range(len(whole) + 1):
        file.write_bytes(whole[:size])
        known = Ledger(file, "these").known(0)
        assert known == {image: image % 3 for image in (3, 4) if ends[image - 2] <= size}


@pytest.mark.parametrize(
    "damaged",
    [
        b"nonsense",
        b"",
        b"[]",
        b"7",
        b"[" * 100_000,
        b'{"round": 0}',
        b'{"round": 0, "image": 3}',
        b'{"round": 0, "image": 3, "label": 1}',  # without a check sum
        b'{"round": 0, "image": 3, "label": 1, "crc": "00000000"}',
        b'{"round": 0, "image": 3, "label": 1, "crc": 7}',
        b'{"round": 0, "asked": [3',
        b"\xff\xfe",
        b"\0\0\0",
    ],
)
def test_a_damaged_line_is_named_and_passed_over(file: Path, damaged: bytes) -> None:
    ledger = Ledger(file, "these")
    asked(ledger, 0, 3, 4)
    begun = file.read_bytes()
    ledger.record(0, [Answer(4, 2)])
    content = begun + damaged + b"\n" + file.read_bytes()[len(begun) :]
    file.write_bytes(content)
    with pytest.warns(UserWarning, match=rf"{file.name}: damaged and passed over: line 3\. "):
        again = Ledger(file, "these")
    assert again.known(0) == {4: 2}
    assert again.asked == {0: [3, 4]}
    assert file.read_bytes() == content


def test_no_bit_can_change_an_answer(file: Path) -> None:
    ledger = Ledger(file, "these")
    asked(ledger, 0, 3, 4)
    ledger.record(0, [Answer(3, 1)])
    ledger.record(0, [Answer(4, 2)])
    whole = file.read_bytes()
    for position in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[position] ^= 1 << bit
            file.write_bytes(changed)
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                again = Ledger(file, "these")
            known = again.known(0)
            # The image whose answer is lost is asked about again; no other answer is.
            assert known.items() <= {3: 1, 4: 2}.items()
            assert len(known) >= (0 if whole[position] == ord("\n") else 1)
            if known != {3: 1, 4: 2} and position < len(whole) - 1:
                assert "damaged" in str(said[0].message)


def test_what_was_said_of_other_images_stays_in_the_file_and_is_passed_over(file: Path) -> None:
    def say(fingerprint: str, label: int) -> Ledger:
        ledger = Ledger(file, fingerprint)
        asked(ledger, 0, 1, 2)
        ledger.record(0, [Answer(1, label)])
        return ledger

    say("these", 5)
    others = say("others", 6)
    assert others.known(0) == {1: 6}
    before = file.read_bytes()
    these = Ledger(file, "these")
    assert these.known(0) == {1: 5}
    assert these.asked == {0: [1, 2]}
    assert lines_of(file)[-1] == {"data": "these"}
    assert file.read_bytes().startswith(before)
    these.record(0, [Answer(2, 8)])
    assert Ledger(file, "these").known(0) == {1: 5, 2: 8}
    assert Ledger(file, "others").known(0) == {1: 6}


def test_going_on_with_the_same_images_writes_nothing(file: Path) -> None:
    Ledger(file, "these").record(0, [Answer(1, 5)])
    before = file.read_bytes()
    Ledger(file, "these")
    assert file.read_bytes() == before


# What is known


def history(file: Path | None, *steps: tuple[int, list[int], list[tuple[int, Label]]]) -> Ledger:
    ledger = Ledger(file, "these")
    for round, indices, said in steps:
        asked(ledger, round, *indices)
        for image, label in said:
            ledger.record(round, [Answer(image, label)])
    return ledger


@pytest.mark.parametrize("read_back", [False, True])
def test_a_later_correction_does_not_change_what_an_earlier_round_knew(
    file: Path, read_back: bool
) -> None:
    ledger = history(
        file,
        (0, [1, 2, 3], [(1, 0), (2, 0), (3, CANNOT_TELL)]),
        (1, [4], [(2, 5), (4, 0)]),
        (2, [6], [(2, 7), (3, 1), (1, WITHDRAWN), (6, 0)]),
        (3, [1], [(1, 8)]),
    )
    if read_back:
        ledger = Ledger(file, "these")
    known = [ledger.known(round) for round in range(4)]
    assert [{i: found.get(i) for i in (1, 2, 3)} for found in known] == [
        {1: 0, 2: 0, 3: CANNOT_TELL},
        {1: 0, 2: 5, 3: CANNOT_TELL},
        {1: None, 2: 7, 3: 1},  # taken back, so that it is asked again
        {1: 8, 2: 7, 3: 1},
    ]
    assert all(found[6] == 0 for found in known)  # answered later only, and known all the same
    assert [ledger.corrections(round) for round in range(4)] == [
        {},
        {2: 5},
        {2: 7, 3: 1, 1: WITHDRAWN},
        {},
    ]


@pytest.mark.parametrize("read_back", [False, True])
def test_answers_to_an_earlier_question_of_the_same_round_are_no_corrections(
    file: Path, read_back: bool
) -> None:
    """A run that goes on with other settings asks about other images."""
    ledger = history(
        file,
        (3, [7, 8, 9], [(7, 4), (8, 6), (1, 0)]),
        (3, [9, 11], [(9, 2), (11, 3), (8, 5)]),
    )
    if read_back:
        ledger = Ledger(file, "these")
    assert ledger.corrections(3) == {1: 0, 8: 5}  # 7 was asked about, and 8 is changed afterwards
    assert ledger.known(3) == {7: 4, 8: 5, 1: 0, 9: 2, 11: 3}


def by_hand(given: Iterable[tuple[int, int, Label]], round: int) -> dict[int, Label]:
    """The last answer up to a round, or else the last one at all; none if it was taken back."""
    ordered = sorted(given, key=lambda answer: answer[0])  # stable
    images = {image for _, image, _ in ordered}
    labels = {}
    for image in images:
        own = [answer for answer in ordered if answer[1] == image]
        until = [answer for answer in own if answer[0] <= round]
        labels[image] = (until or own)[-1][2]
    return {image: label for image, label in labels.items() if label != WITHDRAWN}


@settings(deadline=None, max_examples=200, derandomize=True)
@given(
    given_answers=st.lists(
        st.tuples(
            st.integers(0, 3),
            st.integers(-2, 3),
            st.sampled_from([0, 1, CANNOT_TELL, WITHDRAWN]),
        ),
        max_size=12,
    ),
    round=st.integers(0, 4),
)
def test_the_last_answer_up_to_a_round_counts(
    given_answers: list[tuple[int, int, Label]], round: int
) -> None:
    ledger = Ledger(None, "these")
    for at, image, label in given_answers:
        ledger.record(at, [Answer(image, label)])
    assert ledger.known(round) == by_hand(given_answers, round)
