"""The labelling page in a real browser, beside a real run on real digits."""

import csv
import os
import time
from pathlib import Path
from typing import Any

import pytest
from people import Person, answers_of, browser, desk, until, write_digits

assert browser  # a fixture

pytestmark = pytest.mark.xdist_group("browser")


def rounds(run: Path) -> list[dict[str, str]]:
    if not (run / "rounds.csv").exists():
        return []
    with (run / "rounds.csv").open(newline="") as file:
        return [*csv.DictReader(file)]


@pytest.mark.slow
def test_forty_digits_by_the_keyboard_with_undo_reload_and_kill(
    tmp_path: Path, browser: Any
) -> None:
    secret = write_digits(tmp_path / "digits")
    with desk(tmp_path) as office:
        person = Person(browser, office.start(), secret, "Ann")
        first = person.answer(7)
        wrong = person.answer(1, label=secret[first[0]])
        person.page.keyboard.press("u")
        until(lambda: person.shown() == wrong[0], "what was taken back is shown again")
        right = person.answer(4)
        assert right[0] == wrong[0]
        before = until(person.shown, "an image")
        person.page.reload()
        assert until(person.shown, "the same image after a reload") == before
        office.kill()  # between two answers
        person.page.keyboard.press("1")
        until(lambda: "NOT SAVED" in person.text("body"), "the page says that it is not saved")
        assert before not in [row.file for row in answers_of(office.labels)]
        person.errors.clear()  # of the requests while nobody answered
        person.page.goto(office.start())
        assert until(person.shown, "the same image after a kill") == before
        rest = person.answer(9)
        until(lambda: rounds(office.runs[-1]), "the first round")
        until(lambda: "Batch 1: 0 of 20" in person.text("#batch"), "the second question")
        person.page.reload()  # what was shown before belongs to the rest of the first ranking
        until(person.shown, "an image")
        assert "Asked by the classifier" in person.text("#why")
        second = person.answer(20)
        until(lambda: len(rounds(office.runs[-1])) == 2, "the second round")
        assert len(office.runs) == 1  # killed and started again, it is one run
        rows = answers_of(office.labels)
        last = {row.file: row.label for row in rows}
        assert last == {file: secret[file] for file in [*first, *right, *rest, *second]}
        assert len(last) == 40
        assert len(rows) == 42  # one was wrong, and taken back
        assert {row.annotator for row in rows} == {"Ann"}
        assert [row["labelled"] for row in rounds(office.runs[-1])] == ["20", "40"]
        assert person.errors == []


def test_two_people_at_once_are_never_shown_the_same(tmp_path: Path, browser: Any) -> None:
    secret = write_digits(tmp_path / "digits")
    with desk(tmp_path) as office:
        address = office.start()
        ann = Person(browser, address, secret, "Ann")
        ben = Person(browser, address, secret, "Ben")
        seen = {"Ann": list[str](), "Ben": list[str]()}
        for _ in range(10):
            pair = until(ann.shown, "an image"), until(ben.shown, "an image")
            assert pair[0] != pair[1]
            seen["Ann"] += ann.answer()
            seen["Ben"] += ben.answer()
        assert len({*seen["Ann"], *seen["Ben"]}) == 20
        by = {row.file: row.annotator for row in answers_of(office.labels)}
        assert by == {file: name for name, files in seen.items() for file in files}
        assert ann.errors == ben.errors == []


def test_wrong_labels_are_reviewed_many_are_answered_at_once_and_the_curve_is_drawn(
    tmp_path: Path, browser: Any
) -> None:
    secret = write_digits(tmp_path / "digits")
    with desk(tmp_path, "--data.audit=12", "--data.steps_per_round=60") as office:
        person = Person(browser, office.start(), secret, "Ann")
        answered = person.answer(20)
        lie = "1" if secret[answered[-1]] != "1" else "7"
        liar = person.answer(1, label=lie)[0]
        person.answer(11)
        until(lambda: rounds(office.runs[-1]), "the first round")
        until(lambda: "Batch 1" in person.text("#batch"), "the second question")

        person.page.click("text=Progress")
        until(lambda: "95 % interval (Wilson)" in person.text("#curve"), "the curve")
        assert "measured with 12 others" in person.text("#curve")
        assert person.page.locator("#curve polygon").count() == 1

        person.page.click("text=Review")
        until(lambda: "of 32" in person.text("#place"), "all labelled images")
        places = [person.page.evaluate("document.body.dataset.shown")]
        while places[-1] != liar and len(places) < 32:
            person.page.keyboard.press("ArrowRight")
            now = places[-1]
            until(
                lambda now=now: person.page.evaluate("document.body.dataset.shown") != now, "next"
            )
            places.append(person.page.evaluate("document.body.dataset.shown"))
        assert f"label: {lie}" in person.text("#pair")
        person.page.keyboard.press("1234567890"[person.classes().index(secret[liar])])
        until(lambda: answers_of(office.labels)[-1].file == liar, "the correction")
        assert answers_of(office.labels)[-1][1] == secret[liar]
        assert answers_of(office.labels)[-1].why == "review"

        person.page.click("text=Grid")
        until(lambda: person.page.locator(".tile img").count() == 20, "twenty tiles")
        person.page.keyboard.press("Space")
        person.page.keyboard.press("ArrowRight")
        person.page.keyboard.press("Space")
        chosen = person.page.eval_on_selector_all(
            ".tile[aria-pressed=true]", "all => all.map(t => t.getAttribute('aria-label'))"
        )
        person.page.keyboard.press("1")
        until(lambda: person.page.locator(".tile img").count() == 18, "two tiles fewer")
        rows = answers_of(office.labels)[-2:]
        assert [row.file for row in rows] == chosen
        assert {row.label for row in rows} == {person.classes()[0]}
        assert person.errors == []


def test_the_page_fits_a_telephone_and_is_there_in_half_a_second(
    tmp_path: Path, browser: Any
) -> None:
    secret = write_digits(tmp_path / "digits", 60)
    with desk(tmp_path) as office:
        address = office.start()
        person = Person(browser, address, secret, size=(360, 740))
        until(person.shown, "an image")
        for name in ("7", "a class with a rather long name", "3"):
            person.make_class(name)
        width = "document.documentElement.scrollWidth"
        for view in ("Label", "Grid", "Review", "Progress"):
            person.page.click(f"nav >> text={view}")
            time.sleep(0.3)
            assert person.page.evaluate(width) <= 360, view
        office.stop()
        assert office.process is not None
        assert office.process.returncode == 143
        began = time.monotonic()
        office.start()
        assert time.monotonic() - began < float(os.environ.get("BALDVAE_PATIENCE", "3"))
        assert person.errors == [] or all("ERR_CONNECTION" in e for e in person.errors)
