"""Runs whose labels come from people, through the command, on real digits."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from helpers import refusal
from killed import forked, ran
from people import SETTINGS, answers_of, write_digits
from torchvision.io import read_image

from baldvae_pl.answer import CANNOT_TELL, WITHDRAWN
from baldvae_pl.data.labels import LabelsFile, Row
from baldvae_pl.data.pictures import made_files
from baldvae_pl.data.question_file import question_in
from baldvae_pl.main import main
from baldvae_pl.modules import Classifier
from baldvae_pl.runs.folder import RunFolder
from baldvae_pl.runs.snapshots import read_snapshot

COMMAND = ["fit", "--config=p.yaml", "--data.steps_per_round=8"]
RUN = RunFolder(Path("lightning_logs/p/version_0"))
LABELS = Path("digits/labels.csv")


@pytest.fixture
def secret(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("HOME", str(elsewhere / "home"))
    (elsewhere / "p.yaml").write_text(SETTINGS)
    known = write_digits(elsewhere / "digits", 120)
    rows = "".join(f"{file},{label}\n" for file, label in known.items())
    (elsewhere / "secret.csv").write_text("file,label\n" + rows)
    return known


def simulated(*more: str) -> list[str]:
    """Options for somebody who knows all answers, and the classes."""
    names = json.dumps([str(i) for i in range(10)])
    return [
        *("--data.oracle=SimulatedPerson", "--data.oracle.labels=secret.csv"),
        *(f"--data.source.classes={names}", *more),
    ]


def ends_waiting(*options: str) -> None:
    assert forked([*COMMAND, *options], Path.cwd()) == 75, said()


def said() -> str:
    """Return all that the commands in forks have said."""
    return Path("output.txt").read_text()


def pool_of_the_run() -> dict[str, Any]:
    pool: dict[str, Any] = torch.load(RUN.last, weights_only=True)["PoolDataModule"]["pool"]
    return pool


def answer_the_question(secret: dict[str, str]) -> list[str]:
    question = question_in(RUN.question)
    assert question is not None
    asked = [each.file for each in question.asked]
    LabelsFile(LABELS).append(Row(file, secret[file], "Ann") for file in asked)
    return asked


def test_a_run_ends_at_its_question_and_the_same_command_goes_on(
    secret: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Path.cwd() / "steps.txt"
    steps.touch()
    step = Classifier.training_step

    def counted(self: Classifier, batch: object, number: int) -> torch.Tensor:
        with steps.open("a") as file:
            file.write(f"{self.trainer.current_epoch}")
        return step(self, batch, number)

    monkeypatch.setattr(Classifier, "training_step", counted)
    ends_waiting()
    assert "20 images have no label yet. Fill in the column label of" in said()
    assert "Then the same command goes on." in said()
    assert "--ckpt_path" not in said()
    asked = []
    for round in range(2):
        asked += answer_the_question(secret)
        ends_waiting()
        assert steps.read_text().count(str(round)) == 8
        ends_waiting()  # still open: neither trained nor scored again
        assert steps.read_text().count(str(round)) == 8
    asked += answer_the_question(secret)
    assert forked(COMMAND, Path.cwd()) == 0, said()
    assert len({*asked}) == len(asked) == 60
    assert [run.name for run in RUN.path.parent.iterdir()] == ["version_0"]
    rounds = pd.read_csv(RUN.rounds)
    assert rounds["labelled"].tolist() == [20, 40, 60]
    assert "test_acc" in rounds
    assert rounds["test_acc"].isna().all()  # there is nothing to test on
    assert rounds["test_images"].tolist() == [0, 0, 0]
    assert rounds["answers_agreement"].notna().tolist() == [True, True, False]
    bought = pd.read_csv(RUN.acquisitions)
    assert sorted(bought["file"]) == sorted(asked)


def test_a_run_goes_on_on_another_machine_with_the_question_that_is_open(
    secret: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends_waiting()
    answer_the_question(secret)
    ends_waiting()
    before = question_in(RUN.question)
    other = Path.cwd().parent / "another machine"
    shutil.move(Path.cwd(), other)
    monkeypatch.chdir(other)
    ends_waiting()
    after = question_in(RUN.question)
    assert before is not None
    assert after is not None
    assert (after.asked, after.round, after.rows) == (before.asked, before.round, before.rows)
    assert after.root == str(other / "digits")
    answer_the_question(secret)
    ends_waiting()
    assert pd.read_csv(RUN.rounds)["labelled"].tolist() == [20, 40]


def test_a_table_that_is_filled_in_is_an_answer(secret: dict[str, str]) -> None:
    ends_waiting()
    table = pd.read_csv(RUN.to_label, dtype=str)
    table["label"] = [secret[file] for file in table["file"]]
    table.to_csv(RUN.to_label, index=False)
    ends_waiting()
    rows = answers_of(LABELS)
    assert {(row.annotator, row.why) for row in rows} == {("to_label.csv", "first")}
    table = pd.read_csv(RUN.to_label)
    assert table["label"].isna().all()
    assert table["guess"].isin([*secret.values(), *map(int, secret.values())]).all()
    assert (table["score"] >= 0).all()


def test_a_class_that_is_made_in_a_later_round_takes_part_from_then_on(
    secret: dict[str, str],
) -> None:
    ends_waiting()
    parity = {file: "even" if int(label) % 2 == 0 else "odd" for file, label in secret.items()}
    answer_the_question(parity)
    ends_waiting()
    first = torch.load(RUN.last, weights_only=True)
    assert first["PoolDataModule"]["classes"] == ["even", "odd"] or first["PoolDataModule"][
        "classes"
    ] == ["odd", "even"]
    LabelsFile(LABELS).append([Row("", "zero", why="class")])
    question = question_in(RUN.question)
    assert question is not None
    asked, earlier = question.asked[0].file, LabelsFile(LABELS).rows[0].file
    # One that was asked about, and one that was answered before: pictures of both are kept.
    answer_the_question(parity | {asked: "zero", earlier: "zero"})
    LabelsFile(LABELS).append([Row(earlier, "zero", "Ann")])
    ends_waiting()
    snapshot = read_snapshot(RUN.snapshot(0))
    assert snapshot is not None
    assert snapshot.classes[2:] == ["zero"]
    assert snapshot.bought.labels[0] == 2
    assert snapshot.confusion_C_C.shape == (2, 2)
    main(["report", str(RUN.path)])
    assert "zero" in RUN.report.read_text()
    assert "New classes: zero" in said()
    second = torch.load(RUN.last, weights_only=True)
    assert second["PoolDataModule"]["classes"][2:] == ["zero"]
    outputs = [
        next(w for k, w in reversed(c["state_dict"].items()) if k.endswith("bias"))
        for c in (first, second)
    ]
    assert [len(bias) for bias in outputs] == [2, 3]
    predict = [
        *("predict", f"--config={RUN.config}", f"--ckpt_path={RUN.last}"),
        *("--predictions.folder=digits", "--predictions.file=all.csv"),
    ]
    main(predict)
    assert set(pd.read_csv("all.csv")["class"]) <= {"even", "odd", "zero"}


def test_the_audit_is_asked_first_measured_with_and_never_trained_on(
    secret: dict[str, str],
) -> None:
    main([*COMMAND, *simulated("--data.audit=15", "--data.budget=65")])
    rounds = pd.read_csv(RUN.rounds)
    assert rounds["labelled"].tolist() == [20, 40, 50]
    assert rounds["test_images"].tolist() == [15, 15, 15]
    assert (rounds["test_acc_low"] <= rounds["test_acc"]).all()
    assert (rounds["test_acc"] <= rounds["test_acc_high"]).all()
    audit = {row.file for row in LabelsFile(LABELS).rows if row.why == "audit"}
    assert len(audit) == 15
    bought = set(pd.read_csv(RUN.acquisitions)["file"])
    assert audit.isdisjoint(bought)
    assert len(answers_of(LABELS)) == 65
    # Another run begins with all answers, has no budget left, and measures with the same audit.
    main([*COMMAND, *simulated("--data.audit=15", "--data.budget=65"), "--seed_everything=3"])
    again = RunFolder(RUN.path.with_name("version_1"))
    rounds = pd.read_csv(again.rounds)
    assert rounds["labelled"].tolist() == [50]
    assert rounds["test_images"].tolist() == [15]
    assert len(answers_of(LABELS)) == 65


def test_corrections_and_answers_that_nobody_asked_for_count_from_the_next_round_on(
    secret: dict[str, str],
) -> None:
    ends_waiting()
    asked = answer_the_question(secret)
    ends_waiting()
    other = next(file for file in secret if file not in asked)
    question = question_in(RUN.question)
    assert question is not None
    other = next(f for f in secret if f not in {*asked, *(each.file for each in question.asked)})
    wrong = str((int(secret[asked[0]]) + 1) % 10)
    LabelsFile(LABELS).append(
        [Row("", str(i), why="class") for i in range(10)]
        + [Row(asked[0], wrong), Row(asked[1], "withdrawn"), Row(other, secret[other])]
    )
    answer_the_question(secret)
    ends_waiting()
    state = torch.load(RUN.last, weights_only=True)["PoolDataModule"]
    files, pool, names = state["files"], state["pool"], state["all_classes"]
    assert names[pool["labels"][files.index(asked[0])]] == wrong
    assert pool["acquired_in"][files.index(asked[1])] == -1
    assert pool["acquired_in"][files.index(other)] == 1
    assert pd.read_csv(RUN.rounds)["labelled"].tolist() == [20, 40]


def test_answers_that_spend_the_budget_while_a_round_trains_are_trained_with(
    secret: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = "--data.budget=40"
    ends_waiting(budget)
    asked = answer_the_question(secret)
    step, others = Classifier.training_step, [file for file in secret if file not in asked][:20]

    def answered_beside(self: Classifier, batch: object, number: int) -> torch.Tensor:
        if self.trainer.current_epoch == 0 and number == 3:
            LabelsFile(LABELS).append(Row(file, secret[file], "Ann") for file in others)
        return step(self, batch, number)

    monkeypatch.setattr(Classifier, "training_step", answered_beside)
    main([*COMMAND, budget])
    table = pd.read_csv(RUN.rounds)
    assert table["labelled"].tolist() == [20, 40]
    assert table["acquired"].tolist()[0] == 20
    main([*COMMAND, budget])  # nothing is left to do
    assert pd.read_csv(RUN.rounds)["labelled"].tolist() == [20, 40]


def test_two_processes_ask_once_and_buy_what_one_buys(secret: dict[str, str]) -> None:
    one = ["--data.labels=one.csv", "--trainer.accelerator=cpu"]
    two = ["--data.labels=two.csv", "--trainer.accelerator=cpu", "--trainer.devices=2"]
    main([*COMMAND, *simulated(*one)])
    done = ran(*COMMAND, *simulated(*two), "--seed_everything=0", cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    rows = [[row[:2] for row in answers_of(Path(f"{name}.csv"))] for name in ("one", "two")]
    assert rows[0][:20] == rows[1][:20]  # later on, each process drops out other units
    assert [len({file for file, _ in each}) for each in rows] == [60, 60]
    assert [len(each) for each in rows] == [60, 60]


def test_what_a_run_was_measured_with_is_measured_again_or_said_to_be_missing(
    secret: dict[str, str],
) -> None:
    main([*COMMAND, *simulated("--data.audit=15", "--data.budget=65")])
    test = ["test", f"--config={RUN.config}", f"--ckpt_path={RUN.last}"]
    main(test)
    main([*COMMAND, *simulated("--data.labels=other.csv")])
    again = RunFolder(RUN.path.with_name("version_1"))
    said = refusal("test", f"--config={again.config}", f"--ckpt_path={again.last}")
    assert said.startswith("--data.audit: there is nothing to test on")


def test_cannot_tell_costs_what_it_is_said_to_cost(secret: dict[str, str]) -> None:
    free = simulated("--data.oracle.cannot_tell=0.3", "--data.cannot_tell_cost=0")
    main([*COMMAND, *free])
    rows = answers_of(LABELS)
    unsure = [row for row in rows if row.label == "cannot tell"]
    assert len(unsure) > 5
    assert len(rows) - len(unsure) == 60
    rounds = pd.read_csv(RUN.rounds)
    assert rounds["labelled"].iloc[-1] == 60
    assert rounds["answers_cannot_tell"].sum() + 20 - rounds["labelled"][0] == len(unsure)


def test_the_map_says_what_was_answered_and_nothing_of_what_was_not(secret: dict[str, str]) -> None:
    main([*COMMAND, *simulated("--data.oracle.cannot_tell=0.3", "--acquisition.rounds=1")])
    points = pd.read_csv(RUN.path / "projector" / "about.tsv", sep="\t")
    said = {row.file: row.label for row in answers_of(LABELS)}
    now = points[points["pool"] == "bought now"]
    assert {*now["class"]} > {"cannot tell"}
    assert now["class"].tolist() == [said[file] for file in now["image"]]
    assert {*points["class"][points["pool"] == "unlabelled"]} == {"?"}


def test_a_callback_of_the_trainer_may_end_a_run_before_it_asks_again(
    secret: dict[str, str],
) -> None:
    stop = [
        "--trainer.callbacks=EarlyStopping",
        *("--trainer.callbacks.monitor=test/acc", "--trainer.callbacks.mode=max"),
        *("--trainer.callbacks.patience=1", "--trainer.callbacks.min_delta=2"),
        "--trainer.callbacks.check_on_train_epoch_end=false",  # it would come after the question
    ]
    main([*COMMAND, *simulated("--data.audit=10"), *stop])
    assert pd.read_csv(RUN.rounds)["labelled"].tolist() == [20, 40]
    assert len(answers_of(LABELS)) == 50


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--data.budget=15"], "--data.budget: 15 answers are fewer than the first ones, 20"),
        (["--data.budget=null"], "--acquisition.rounds: null goes on until the budget is spent"),
        (["--data.audit=110", "--data.budget=200"], "--data.audit: with 20 first labels, 110 is"),
        (["--data.source.classes=[a]"], "'a' alone cannot be told from another"),
        (["--data.source.classes=[a,A]"], "'A' differs from the class 'a' in case"),
        (["--data.labels=none/labels.csv"], "--data.labels: none/labels.csv cannot be written"),
        (["--data.root=gone"], "there is no folder 'gone'"),
        (["--data.oracle=math.sqrt"], "a function of global indices cannot know these images"),
        (
            ["--model.network=baldvae_pl.networks.DigitsNet", "--model.network.num_classes=3"],
            "outputs 3 classes; the data set has 2. Leave its num_classes out",
        ),
        (
            [
                "--acquisition.initial_selection=RandomSubset",
                "--acquisition.initial_selection.balanced=true",
            ],
            "the data set has no labels of its own to balance by",
        ),
    ],
)
def test_what_cannot_work_is_one_sentence(
    secret: dict[str, str], options: list[str], sentence: str
) -> None:
    assert sentence in refusal(*COMMAND, *options)


def test_options_for_people_are_refused_where_labels_are_known(elsewhere: Path) -> None:
    said = refusal("fit", "--config=digits.yaml", "--data.audit=10")
    assert said.startswith("--data.audit: 10 is for images that people label")


def test_a_labels_file_of_another_folder_is_refused_before_anything_is_written(
    secret: dict[str, str],
) -> None:
    LabelsFile(LABELS).append([Row("x.png", "1"), Row("y.png", "2")])
    before = LABELS.read_bytes()
    assert "belongs to another folder" in refusal(*COMMAND)
    assert LABELS.read_bytes() == before


def test_the_review_doubts_a_wrong_label_and_shows_its_complement(secret: dict[str, str]) -> None:
    vae = [
        *("--acquisition.complement=Uncertain", "--vae.epochs=1", "--data.steps_per_round=200"),
        *("--vae.network=baldvae_pl.networks.DenseVAE", "--vae.network.latent=4"),
    ]
    lies = dict(secret)
    liar = "005.png"
    lies[liar] = str((int(secret[liar]) + 5) % 10)
    LabelsFile(LABELS).append(Row(file, label) for file, label in lies.items() if file < "058")
    main([*COMMAND, *simulated(*vae)])
    review = json.loads(RUN.review.read_text())["images"]
    assert liar in [e["file"] for e in sorted(review, key=lambda e: -e["doubt"])[:6]]
    entry = next(each for each in review if each["file"] == liar)
    assert entry["label"] == lies[liar]
    assert len(entry["neighbours"]) == 5
    assert liar not in entry["neighbours"]
    assert (RUN.review_pictures / f"{entry['complement']}.png").is_file()


def test_another_folder_begins_another_run_and_leaves_the_first_alone(
    secret: dict[str, str],
) -> None:
    ends_waiting()
    before = RUN.question.read_bytes(), RUN.config.read_bytes()
    shutil.copytree("digits", "others")
    Path("others/labels.csv").unlink(missing_ok=True)
    ends_waiting("--data.root=others")
    again = RunFolder(RUN.path.with_name("version_1"))
    assert (RUN.question.read_bytes(), RUN.config.read_bytes()) == before
    question = question_in(again.question)
    assert question is not None
    assert question.root == str(Path.cwd() / "others")
    assert "is about" in said()


@pytest.mark.slow
def test_two_processes_learn_of_a_class_and_stop_at_the_same_budget(
    secret: dict[str, str],
) -> None:
    two = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--data.budget=50"]
    ends_waiting(*two)
    parity = {file: "even" if int(label) % 2 == 0 else "odd" for file, label in secret.items()}
    answer_the_question(parity)
    ends_waiting(*two)
    LabelsFile(LABELS).append([Row("", "zero", why="class")])
    answer_the_question(parity | {f: "zero" for f, label in secret.items() if label == "0"})
    ends_waiting(*two)
    answer_the_question(parity)
    assert forked([*COMMAND, *two], Path.cwd()) == 0, said()
    assert "New classes: zero" in said()
    assert "Connection closed" not in said()
    assert pd.read_csv(RUN.rounds)["labelled"].tolist() == [20, 40, 50]
    assert len(answers_of(LABELS)) == 50


def test_a_warm_start_keeps_what_it_can_when_a_class_is_made(secret: dict[str, str]) -> None:
    warm = ["--acquisition.warm_start=true"]
    ends_waiting(*warm)
    parity = {file: "even" if int(label) % 2 == 0 else "odd" for file, label in secret.items()}
    answer_the_question(parity)
    ends_waiting(*warm)
    LabelsFile(LABELS).append([Row("", "zero", why="class")])
    answer_the_question(parity | {f: "zero" for f, label in secret.items() if label == "0"})
    before = torch.load(RUN.last, weights_only=True)["state_dict"]
    frozen = [*warm, "--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=1e-12"]
    ends_waiting(*frozen, "--resume_changed=true", "--ckpt_path=last")
    after = torch.load(RUN.last, weights_only=True)["state_dict"]
    same = [name for name, weight in before.items() if weight.shape == after[name].shape]
    assert len(same) < len(before)
    assert len(same) > 2
    for name in same:
        torch.testing.assert_close(before[name], after[name])


def test_people_are_asked_about_made_images_and_their_answers_are_trained_with(
    secret: dict[str, str],
) -> None:
    names = json.dumps([str(i) for i in range(10)])
    made = [
        *("--acquisition.selection=GAAL", "--acquisition.selection.steps=2", "--vae.epochs=1"),
        *("--vae.network=baldvae_pl.networks.DenseVAE", "--acquisition.query_size=4"),
        *(f"--data.source.classes={names}", "--data.budget=28"),
    ]
    ends_waiting(*made)
    answer_the_question(secret)
    ends_waiting(*made)
    question = question_in(RUN.question)
    assert question is not None
    assert question.ahead == []
    files = [each.file for each in question.asked]
    assert len({*files}) == 4
    assert all(file.startswith(".made/") for file in files)
    # A picture is what was scored, and its name follows from its pixels.
    images = torch.stack([read_image(f"digits/{file}") for file in files])
    assert images.shape == (4, 1, 8, 8)
    assert made_files(images) == files
    said = ["3", CANNOT_TELL, "5", "5"]
    LabelsFile(LABELS).append(Row(f, x, "Ann") for f, x in zip(files, said, strict=True))
    ends_waiting(*made)
    pool = pool_of_the_run()
    assert pool["generated"]["labels"].tolist() == [3, 5, 5]
    assert pool["generated"]["parents"].tolist() == [-1, -3, -4]
    assert torch.equal(pool["generated"]["images"], images[[0, 2, 3]])
    # What was said of them is corrected and taken back as of any other image.
    changed = [Row(files[2], "7", "Ann"), Row(files[3], WITHDRAWN, "Ann")]
    LabelsFile(LABELS).append(changed)
    question = question_in(RUN.question)
    assert question is not None
    LabelsFile(LABELS).append(Row(each.file, "0", "Ann") for each in question.asked)
    ends_waiting(*made)  # the answer that was taken back has left one over
    pool = pool_of_the_run()
    assert pool["generated"]["parents"].tolist() == [-1, -3, -5, -6, -7, -8]
    assert pool["generated"]["labels"].tolist() == [3, 7, 0, 0, 0, 0]


def test_nobody_can_look_at_made_images_who_knows_only_files(secret: dict[str, str]) -> None:
    made = ["--acquisition.selection=GAAL", "--vae.network=baldvae_pl.networks.DenseVAE"]
    assert "asks about images that are not in the data set" in refusal(*COMMAND, *simulated(*made))
