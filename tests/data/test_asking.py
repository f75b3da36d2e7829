"""Asking people: the pools follow labels.csv, whatever is written into it, whenever."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baldvae_pl.answer import CANNOT_TELL, WITHDRAWN
from baldvae_pl.data.asking import AskedPeople
from baldvae_pl.data.images import Images, Source
from baldvae_pl.data.labels import COLUMNS, LabelsFile, Row
from baldvae_pl.data.people import NOBODY_CAN_TELL, UNKNOWN, PeoplesLabels
from baldvae_pl.data.question_file import answers_in, question_in
from baldvae_pl.errors import SettingError
from baldvae_pl.oracle import Answer, NotYet, Oracle, People, Question, SimulatedPerson
from baldvae_pl.pool import Pool
from baldvae_pl.runs.folder import RunFolder

FILES = [f"{letter}.png" for letter in "abcdefgh"]


def source_of(files: list[str] = FILES, given_labels: dict[str, int] | None = None) -> Source:
    labels = torch.tensor([(given_labels or {}).get(file, -1) for file in files])
    images = torch.zeros(len(files), 1, 2, 2, dtype=torch.uint8)
    nothing = Images(images[:0], labels[:0])
    return Source(Images(images, labels), nothing, ["cat", "dog"], files, labels_file=Path("-"))


def people_of(
    tmp_path: Path, source: Source | None = None, oracle: Oracle | None = None
) -> AskedPeople:
    source = source or source_of()
    labels = PeoplesLabels(tmp_path / "labels.csv", source)
    pool = Pool(len(source.train.labels), (1, 2, 2))
    people = AskedPeople(labels, pool, oracle or People(), tmp_path)
    people.folder = RunFolder(tmp_path / "run")
    return people


def asked(*indices: int, round: int = 1) -> Question:
    images = torch.zeros(len(indices), 1, 2, 2, dtype=torch.uint8)
    names = [FILES[index] for index in indices]
    return Question(round, torch.tensor(indices), images, ["cat", "dog"], names)


def write(tmp_path: Path, *rows: tuple[str, str]) -> None:
    LabelsFile(tmp_path / "labels.csv").append(Row(*row) for row in rows)


def test_nobody_answers_now_so_the_run_ends_and_says_where_to_answer(tmp_path: Path) -> None:
    people = people_of(tmp_path)
    with pytest.raises(NotYet, match=r"2 images have no label yet.*to_label\.csv.*same command"):
        people.ask(asked(3, 1), ["cat", "dog"])
    assert people.folder is not None
    question = question_in(people.folder.question)
    assert question is not None
    assert [(each.file, each.why, each.rank) for each in question.asked] == [
        ("d.png", "query", 1),
        ("b.png", "query", 2),
    ]
    assert people.open_question(1) is not None
    assert people.open_question(1).tolist() == [3, 1]
    assert people.open_question(2) is None


def test_what_is_filled_in_in_the_table_is_taken_over_into_the_labels_file(tmp_path: Path) -> None:
    people = people_of(tmp_path)
    with pytest.raises(NotYet):
        people.ask(asked(3, 1), ["cat", "dog"])
    assert people.folder is not None
    table = people.folder.to_label
    text = table.read_text().replace("d.png,,", "d.png,dog,").replace("b.png,,", "b.png,cat,")
    table.write_text(text)
    assert [*answers_in(table)] == [("d.png", "dog"), ("b.png", "cat")]
    again = people_of(tmp_path)
    answers = again.ask(asked(3, 1), ["cat", "dog"])
    assert answers.labels == {3: 1, 1: 0}
    rows = LabelsFile(tmp_path / "labels.csv").rows
    assert [(row.file, row.label, row.annotator, row.why) for row in rows] == [
        ("d.png", "dog", "to_label.csv", "query"),
        ("b.png", "cat", "to_label.csv", "query"),
    ]


def test_a_table_that_was_taken_over_is_not_taken_over_again(tmp_path: Path) -> None:
    people = people_of(tmp_path)
    with pytest.raises(NotYet):
        people.ask(asked(3, 1), ["cat", "dog"])
    assert people.folder is not None
    table = people.folder.to_label
    table.write_text(table.read_text().replace("d.png,,", "d.png,dog,"))
    with pytest.raises(NotYet, match="1 images have no label yet"):
        people_of(tmp_path).ask(asked(3, 1), ["cat", "dog"])
    assert "d.png" not in table.read_text()  # only what is still open is left in it
    write(tmp_path, ("d.png", "cat"))  # corrected elsewhere
    with pytest.raises(NotYet):
        people_of(tmp_path).ask(asked(3, 1), ["cat", "dog"])
    assert [row.label for row in LabelsFile(tmp_path / "labels.csv").rows] == ["dog", "cat"]


def test_a_table_is_looked_at_while_a_run_waits(tmp_path: Path) -> None:
    people = people_of(tmp_path, oracle=People(wait=True))
    assert people.folder is not None
    table = people.folder.to_label

    def fill() -> None:
        while not table.exists():
            time.sleep(0.01)
        text = table.read_text()
        table.write_text(text.replace("d.png,,", "d.png,dog,").replace("b.png,,", "b.png,cat,"))

    filling = threading.Thread(target=fill)
    filling.start()
    assert people.ask(asked(3, 1), ["cat", "dog"]).labels == {3: 1, 1: 0}
    filling.join()


def test_rows_that_were_taken_out_do_not_make_a_run_wait_for_ever(tmp_path: Path) -> None:
    write(tmp_path, ("d.png", "dog"), ("b.png", "cat"))
    people = people_of(tmp_path)
    people.rows = 9
    assert people.ask(asked(3, 1), ["cat", "dog"]).labels == {3: 1, 1: 0}


def test_a_question_is_not_opened_again_for_what_has_been_answered(tmp_path: Path) -> None:
    people = people_of(tmp_path)
    with pytest.raises(NotYet):
        people.ask(asked(3, 1), ["cat", "dog"])
    people.pool.acquire(torch.tensor([3]), torch.tensor([1]), 1)
    again = people.open_question(1)
    assert again is not None
    assert again.tolist() == [1]
    people.pool.acquire(torch.tensor([1]), torch.tensor([1]), 1)
    assert people.open_question(1) is None


def test_an_image_of_the_audit_that_was_gone_for_a_while_is_not_trained_on(tmp_path: Path) -> None:
    LabelsFile(tmp_path / "labels.csv").append([Row("a.png", "", why="audit")])
    gone = people_of(tmp_path, source_of(FILES[1:]))
    gone.take_over(gone.late_answers())
    state = {"pool": gone.pool.state_dict(), **gone.state_dict()}
    back = people_of(tmp_path)
    with pytest.warns(UserWarning, match="1 new images join it"):
        back.check(state)
    back.pool.load_state_dict(state["pool"])
    back.load_state_dict(state)
    assert back.pool.in_audit(answered=False).tolist() == [0]


def test_a_question_is_complete_at_the_row_that_completes_it_whenever_it_is_looked_at(
    tmp_path: Path,
) -> None:
    write(tmp_path, ("a.png", "cat"))
    people = people_of(tmp_path)
    people.rows = 1
    write(tmp_path, ("d.png", "dog"), ("h.png", "cat"), ("b.png", "cat"), ("g.png", "dog"))
    people.labels.file.refresh()
    answers = people.ask(asked(3, 1), ["cat", "dog"])
    assert answers.rows == 4  # not 5: what came later counts from the next round on
    assert answers.labels == {3: 1, 1: 0}
    assert answers.corrections == {0: 0, 7: 0}  # not asked, and taken all the same


def test_an_answer_taken_back_before_the_last_one_is_awaited_again(tmp_path: Path) -> None:
    write(tmp_path, ("d.png", "dog"), ("d.png", WITHDRAWN), ("b.png", "cat"))
    people = people_of(tmp_path)
    with pytest.raises(NotYet, match="1 images"):
        people.ask(asked(3, 1), ["cat", "dog"])
    write(tmp_path, ("d.png", CANNOT_TELL))
    people.labels.file.refresh()
    assert people.ask(asked(3, 1), ["cat", "dog"]).labels == {3: CANNOT_TELL, 1: 0}


def test_the_first_question_wants_two_classes(tmp_path: Path) -> None:
    write(tmp_path, ("d.png", "dog"), ("b.png", "dog"))
    people = people_of(tmp_path)
    with pytest.raises(NotYet, match="All labels so far are of one class"):
        people.ask(asked(3, 1, round=0), ["cat", "dog"])
    write(tmp_path, ("h.png", "cat"))
    people.labels.file.refresh()
    answers = people.ask(asked(3, 1, round=0), ["cat", "dog"])
    assert (answers.labels, answers.corrections) == ({3: 1, 1: 1}, {7: 0})


words = st.sampled_from(["cat", "dog", CANNOT_TELL, WITHDRAWN])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 7), words), max_size=25), st.integers(0, 25))
def test_the_pool_is_what_the_file_says_by_whatever_steps_it_came_there(
    tmp_path_factory: pytest.TempPathFactory, answers: list[tuple[int, str]], split: int
) -> None:
    tmp_path = tmp_path_factory.mktemp("any")
    people = people_of(tmp_path)
    for part in (answers[:split], answers[split:]):
        write(tmp_path, *((FILES[index], label) for index, label in part))
        late = people.late_answers()
        people.take_over(late)
        people.pool.give(late.corrections, round=1)
    last = dict(answers)
    codes = {"cat": 0, "dog": 1, CANNOT_TELL: NOBODY_CAN_TELL, WITHDRAWN: UNKNOWN}
    expected = [codes[last[i]] if i in last else UNKNOWN for i in range(8)]
    assert people.pool.answers_N.tolist() == expected
    assert people.pool.labelled.tolist() == [i for i in range(8) if expected[i] >= 0]
    assert people.late_answers().corrections == {}


def test_labels_of_class_folders_count_unless_a_row_says_otherwise(tmp_path: Path) -> None:
    people = people_of(tmp_path, source_of(given_labels={"a.png": 1, "b.png": 1}))
    write(tmp_path, ("b.png", "cat"))
    assert people.late_answers().corrections == {0: 1, 1: 0}


def test_the_audit_is_drawn_once_for_all_runs_and_never_trained_on(tmp_path: Path) -> None:
    write(tmp_path, ("a.png", "cat"), ("b.png", "dog"))
    one, other = people_of(tmp_path), people_of(tmp_path)
    one.draw_audit(3, first=1, seed=0, note=True)
    audit = one.pool.in_audit(answered=False).tolist()
    assert len(audit) == 3
    assert {0, 1}.isdisjoint(audit)
    other.draw_audit(3, first=1, seed=5, note=False)  # another seed draws none anew
    assert other.pool.in_audit(answered=False).tolist() == audit
    rows = [row for row in LabelsFile(tmp_path / "labels.csv").rows if row.why == "audit"]
    assert [row.file for row in rows] == [FILES[i] for i in audit]
    write(tmp_path, (FILES[audit[0]], "dog"), (FILES[audit[1]], CANNOT_TELL))
    late = one.late_answers()
    one.pool.give(late.corrections, 0)
    assert one.pool.in_audit(answered=True).tolist() == audit[:1]
    assert one.pool.in_audit(answered=False).tolist() == audit[2:]
    assert one.pool.labelled.tolist() == [0, 1]
    assert set(audit).isdisjoint(one.pool.trainable.tolist())
    assert set(audit).isdisjoint(one.pool.unlabelled.tolist())


def test_processes_draw_the_same_audit_whoever_notes_it_first(tmp_path: Path) -> None:
    before = people_of(tmp_path)
    before.draw_audit(3, first=1, seed=2, note=False)
    noting = people_of(tmp_path)
    noting.draw_audit(3, first=1, seed=2, note=True)
    after = people_of(tmp_path)
    after.draw_audit(3, first=1, seed=2, note=False)
    pools = [each.pool.acquired_in.tolist() for each in (before, noting, after)]
    assert pools[0] == pools[1] == pools[2]


def test_too_large_an_audit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"--data.audit: with 4 first labels, 5 is more than"):
        people_of(tmp_path).draw_audit(5, first=4, seed=0, note=True)


def test_a_new_run_begins_with_all_that_was_ever_answered(tmp_path: Path) -> None:
    write(tmp_path, ("a.png", "cat"), ("h.png", "dog"), ("c.png", CANNOT_TELL))
    known = people_of(tmp_path).known_first()
    assert known.corrections == {0: 0, 7: 1, 2: CANNOT_TELL}
    assert known.rows == 3


def test_a_run_that_was_killed_at_its_first_question_begins_with_the_same_labels(
    tmp_path: Path,
) -> None:
    write(tmp_path, ("a.png", "cat"))
    people = people_of(tmp_path)
    people.take_over(people.known_first())
    with pytest.raises(NotYet):
        people.ask(asked(3, 1, round=0), ["cat", "dog"])
    write(tmp_path, ("g.png", "dog"))
    again = people_of(tmp_path).known_first()
    assert (again.rows, again.corrections) == (1, {0: 0})
    # If the file was saved anew, all that it says is taken.
    (tmp_path / "labels.csv").write_text(",".join(COLUMNS) + "\n,g.png,dog,,,,\n,b.png,cat,,,,\n")
    anew = people_of(tmp_path).known_first()
    assert (anew.rows, anew.corrections) == (2, {6: 1, 1: 0})


def test_classes_that_are_made_while_labelling_come_last_and_keep_their_numbers(
    tmp_path: Path,
) -> None:
    people = people_of(tmp_path)
    LabelsFile(tmp_path / "labels.csv").append(
        [Row("", "otter", why="class"), Row("a.png", "otter"), Row("b.png", "cat")]
    )
    late = people.late_answers()
    assert late.classes == ["cat", "dog", "otter"]
    assert late.corrections == {0: 2, 1: 0}
    # A class folder that appears later is no reason to renumber what a run has learnt.
    grown = source_of()._replace(classes=["cat", "cow", "dog"])
    later = people_of(tmp_path, grown)
    later.classes = ["cat", "dog", "otter"]
    found = later.late_answers()
    assert found.classes == ["cat", "dog", "otter", "cow"]
    assert found.corrections == {0: 2, 1: 0}


def test_what_cannot_be_taken_is_said_once(tmp_path: Path) -> None:
    write(tmp_path, ("gone.png", "cat"), ("a.png", "Dog"), ("b.png", "cat"))
    LabelsFile(tmp_path / "labels.csv").append(
        [Row("b.png", "cat", "Ann"), Row("b.png", "dog", "Ben")]
    )
    people = people_of(tmp_path)
    with pytest.warns(UserWarning, match=r"labels\.csv: ") as said:
        people.labels.complain()
    texts = "\n".join(str(each.message) for each in said)
    assert "1 files are not among the images (gone.png). Their rows stay" in texts
    assert "'Dog' is no class (1 images), but 'dog' is" in texts
    assert "annotators disagree about 1 images, such as b.png" in texts
    people.labels.complain()  # pytest makes an error of nothing; a second warning would be shown
    assert people.late_answers().corrections == {1: 1}


def test_a_ledger_of_another_folder_is_refused(tmp_path: Path) -> None:
    write(tmp_path, ("x.png", "cat"), ("y.png", "dog"))
    with pytest.raises(SettingError, match=r"none of the 2 files.*belongs to another folder"):
        people_of(tmp_path).labels.complain()


def test_names_in_another_unicode_form_are_found(tmp_path: Path) -> None:
    write(tmp_path, ("cafe\u0301.png", "cat"))
    people = people_of(tmp_path, source_of(["café.png", "b.png"]))
    assert people.late_answers().corrections == {0: 0}


def test_a_folder_may_grow_and_shrink_between_two_starts(tmp_path: Path) -> None:
    write(tmp_path, ("b.png", "dog"), ("c.png", "cat"), ("h.png", "cat"))
    people = people_of(tmp_path)
    late = people.late_answers()
    people.take_over(late)
    people.pool.give(late.corrections, 1)
    state = {"pool": people.pool.state_dict(), **people.state_dict()}
    files = ["0.png", *FILES[1:7]]  # one is new, a.png and h.png are gone
    changed = people_of(tmp_path, source_of(files))
    with pytest.warns(UserWarning, match="1 new images join it, 2 are gone"):
        changed.check(state)
    changed.pool.load_state_dict(state["pool"])
    changed.load_state_dict(state)
    assert changed.pool.labels.tolist() == [-1, 1, 0, -1, -1, -1, -1]
    assert len(changed.pool.unlabelled) == 5
    assert len(LabelsFile(tmp_path / "labels.csv").rows) == 3  # a removed one keeps its row
    with pytest.raises(SettingError, match="none of its files is in"):
        people_of(tmp_path, source_of(["y.png"])).check(state)


def test_rows_that_were_changed_are_noticed_when_a_run_goes_on(tmp_path: Path) -> None:
    write(tmp_path, ("b.png", "dog"))
    people = people_of(tmp_path)
    people.take_over(people.late_answers())
    state = people.state_dict()
    text = (tmp_path / "labels.csv").read_text()
    (tmp_path / "labels.csv").write_text(text.replace("dog", "cat"))
    again = people_of(tmp_path)
    with pytest.warns(UserWarning, match="is not the file that this run began with"):
        again.load_state_dict(state)


class Clerk(Oracle):
    """Answers by itself where people would be asked."""

    def __init__(self, count: int) -> None:
        self.count = count

    def answer(self, question: Question) -> list[Answer]:
        return [Answer(index, 1) for index in question.indices.tolist()[: self.count]]


def test_a_program_may_answer_in_place_of_people_and_its_answers_are_in_the_file(
    tmp_path: Path,
) -> None:
    people = people_of(tmp_path, oracle=Clerk(9))
    assert people.ask(asked(3, 1), ["cat", "dog"]).labels == {3: 1, 1: 1}
    rows = LabelsFile(tmp_path / "labels.csv").rows
    assert [(row.file, row.label, row.annotator) for row in rows] == [
        ("d.png", "dog", "Clerk"),
        ("b.png", "dog", "Clerk"),
    ]
    lazy = people_of(tmp_path, oracle=Clerk(0))
    with pytest.raises(SettingError, match="it ended with 1 of 1 images without an answer"):
        lazy.ask(asked(0), ["cat", "dog"])


def test_a_function_of_indices_cannot_stand_in_for_people(tmp_path: Path) -> None:
    labels = PeoplesLabels(tmp_path / "labels.csv", source_of())
    function: Callable[[torch.Tensor], torch.Tensor] = torch.zeros_like
    with pytest.raises(SettingError, match="a function of global indices cannot know"):
        AskedPeople(labels, Pool(8, (1, 2, 2)), function, tmp_path)


def test_a_simulated_person_errs_as_often_as_it_is_told_and_always_about_the_same_images() -> None:
    labels_N = torch.arange(4000) % 10
    indices = torch.arange(4000)
    question = Question(1, indices, torch.zeros(4000, 1, 1, 1), [str(i) for i in range(10)])
    person = SimulatedPerson(mistakes=0.1, cannot_tell=0.05)
    person.source = SimpleNamespace(train=SimpleNamespace(labels=labels_N))
    answers = {answer.image: answer.label for answer in person.answer(question)}
    unsure = sum(label == CANNOT_TELL for label in answers.values())
    wrong = [i for i, x in answers.items() if x not in (CANNOT_TELL, int(labels_N[i]))]
    assert abs(unsure / 4000 - 0.05) < 0.012
    assert abs(len(wrong) / 4000 - 0.1) < 0.016
    assert len({(answers[i] - i) % 10 for i in wrong}) == 9  # each other class, none left out
    back = {a.image: a.label for a in person.answer(question.of(indices.flip(0)[:500]))}
    assert all(answers[image] == label for image, label in back.items())


def test_a_simulated_person_goes_home(tmp_path: Path) -> None:
    table = tmp_path / "secret.csv"
    table.write_text("file,label\na.png,dog\nb.png,cat\n")
    person = SimulatedPerson(session=1, labels=str(table))
    answers = iter(person.answer(asked(0, 1)))
    assert next(answers) == Answer(0, 1)
    with pytest.raises(NotYet, match="goes home after 1"):
        next(answers)
    with pytest.raises(SettingError, match=r"knows no class of c\.png"):
        next(iter(person.answer(asked(2))))
    with pytest.raises(SettingError, match=r"--data.oracle.mistakes: 1.5 is no share"):
        SimulatedPerson(mistakes=1.5)
