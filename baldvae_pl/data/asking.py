"""Asking people about W: the audit, the open question, and what came of it.

The pools follow the labels file: whatever it says by the time that a question is complete is taken
over, asked or not, so that no answer is ever lost, only late; but for a class that somebody gives a
made image after all, once the run has gone on without it.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from baldvae_pl.answer import CANNOT_TELL, WITHDRAWN, Answer, Label
from baldvae_pl.data.answers import Answers, check_answers
from baldvae_pl.data.people import NOBODY_CAN_TELL, UNKNOWN, PeoplesLabels, Said
from baldvae_pl.data.pictures import write_made
from baldvae_pl.data.question_file import (
    Asked,
    OpenQuestion,
    answers_in,
    question_in,
    write_question,
    write_to_label,
)
from baldvae_pl.data.tally import Tally
from baldvae_pl.errors import SettingError, refused
from baldvae_pl.oracle import LabelFunction, NotYet, Oracle, Question
from baldvae_pl.pool import SYNTHESISED, Pool
from baldvae_pl.runs.folder import RunFolder
from baldvae_pl.seeding import Purpose, make_generator


class AskedPeople:
    """People who label W.

    Args:
        labels: Their answers.
        pool: Follows them.
        oracle: Waits for them, or stands in for them.
        root: Folder of the images.
        budget: Answers that may be asked for in all; None: no limit.

    Attributes:
        classes: Those that there are by now.
        rows: How many rows of the labels file the pool has taken over.
        spent: What these have cost of the budget.
        folder: Of the run, where an open question is left; None: nowhere.
        places: Where the images of the checkpoint are, if W has changed since.
    """

    def __init__(
        self,
        labels: PeoplesLabels,
        pool: Pool,
        oracle: Oracle | LabelFunction,
        root: Path,
        budget: int | None = None,
    ) -> None:
        if not isinstance(oracle, Oracle):
            raise SettingError(
                "--data.oracle: a function of global indices cannot know these images. Give an "
                "Oracle, such as People."
            )
        self.labels, self.pool, self.oracle, self.root = labels, pool, oracle, root
        self.budget = budget
        self.classes = labels.said().classes
        self.rows = 0
        self.spent = 0.0
        self.folder: RunFolder | None = None
        self._table_seen: int | None = None
        self.places: Tensor | None = None

    def draw_audit(self, count: int, first: int, seed: int, note: bool) -> None:
        """Choose the images of the audit that are still missing, and take all out of U.

        Each process chooses the same, whether or not another one has noted it in the file by now.

        Args:
            count: Images of the audit.
            first: Images that have to be left for the first labels.
            seed: Of the choice.
            note: Whether this process notes them in the file.

        Raises:
            SettingError: If there are too few without an answer, or the file cannot be written.
        """
        labels = self.labels
        labels.file.check_writable()
        labels.file.refresh()
        labels.complain()
        said = labels.said()
        order = torch.randperm(len(said.labels_N), generator=make_generator(seed, 0, Purpose.AUDIT))
        first = max(0, first - int((said.labels_N >= 0).sum()))
        free = order[(said.labels_N == UNKNOWN)[order] & ~said.audit_N[order]]
        missing = max(0, count - int(said.audit_N.sum()))
        if missing and missing > len(free) - first:
            raise SettingError(
                f"--data.audit: with {first} first labels, {count} is more than the {len(free)} "
                "images that have no answer yet. Take fewer."
            )
        drawn = free[:missing].sort().values
        if note:
            labels.keep_for_audit(drawn)
        audit = torch.cat([said.audit_N.nonzero().flatten(), drawn])
        self.pool.keep_for_audit(audit[self.pool.in_unlabelled_N[audit]])

    def known_first(self) -> Answers:
        """Return all answers that are there when a run begins; its first question adds to them."""
        question = self._left_open()
        rows = len(self.labels.file.rows)
        if question is not None and question.round == 0:
            same = self.labels.file.digest(question.rows) == question.digest
            rows = question.rows if same else rows
        return self._answers_of(self.labels.said(rows), [])

    def late_answers(self) -> Answers:
        """Return what was answered or corrected since the last question was complete."""
        self.labels.file.refresh()
        self.labels.complain()
        return self._answers_of(self.labels.said(), [])

    def take_over(self, answers: Answers) -> None:
        """Note what belongs to answers beside the labels: how far the file is read, the classes."""
        self.rows, self.spent = answers.rows, answers.spent
        self.classes = answers.classes or self.classes

    def open_question(self, round: int) -> Tensor | None:
        """Return the images of an earlier start's question, if it is of this round."""
        question = self._left_open()
        if question is None or question.round != round:
            return None
        index = self.labels.index
        there = [index[asked.file] for asked in question.asked if asked.file in index]
        indices = torch.tensor(there, dtype=torch.long)
        open_N = self.pool.in_unlabelled_N.clone()
        open_N[self.pool.in_audit(answered=False)] = True
        return indices[open_N[indices]] if open_N[indices].any() else None

    def ask(self, question: Question, trained: list[str]) -> Answers:
        """Leave a question where people find it, and wait until all of it is answered.

        Args:
            question: About images of W, or made ones.
            trained: Classes that its predictions are of.

        Raises:
            SettingError: If an oracle that stands in for people fails or leaves images out.
            NotYet: If nobody answers now.
        """
        labels, round, indices = self.labels, question.round, question.indices.tolist()
        made = question.indices < 0
        if made.any():
            labels.know_made(question.indices[made], question.images[made])
            if self.folder is not None:
                write_made(self.root, question.images[made])
        audit = {*self.pool.in_audit(answered=False).tolist()}
        why = ["audit" if i in audit else "query" if round else "first" for i in indices]
        if self.folder is not None:
            self._take_spreadsheet(self.folder, round)
            write_question(self.folder, self._as_file(question, why, trained), self._answered())
            self.oracle.folder = self.folder.path
        asked = [labels.file_of(index) for index in indices]
        question = question._replace(files=asked)
        if asked:
            rank_zero_info(f"{len(asked)} images are asked about.{self._budget_left()}")
        least_classes = 0 if round else 2
        while (rows := labels.complete_at(asked, self.rows, least_classes)) is None:
            labels.complain()
            before, said = len(labels.file.rows), labels.said()
            left = [i for i, index in enumerate(indices) if said.label(index) == UNKNOWN]
            with refused("--data.oracle", but=NotYet):
                for answer in self._answers(question.of(torch.tensor(left).long())):
                    check_answers([answer], {*indices}, self.classes)
                    label, place = answer.label, indices.index(answer.image)
                    name = label if isinstance(label, str) else self.classes[label]
                    who = type(self.oracle).__name__
                    labels.answer(asked[place], name, who, round, why[place])
            while not labels.file.refresh() and len(labels.file.rows) == before:
                if not self.oracle.waits_for_the_file:
                    raise SettingError(
                        f"--data.oracle: it ended with {len(left)} of {len(indices)} images "
                        "without an answer, or all of one class. An oracle answers all, or raises "
                        "NotYet to end the run until it can."
                    )
                # Nothing has changed, so nothing has to be looked at but these two files.
                [*self._answers(question.of(torch.tensor(left).long()))]
                if self.folder is not None:
                    self._take_spreadsheet(self.folder, round)
        if self.folder is not None:
            self._take_spreadsheet(self.folder, round)
        return self._answers_of(labels.said(rows), indices)

    def state_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "files": list(self.labels.files),
            "all_classes": self.classes,
            "rows": self.rows,
            "spent": self.spent,
            "digest": self.labels.file.digest(self.rows),
        }

    def check(self, state: dict[str, Any]) -> None:
        """Raise a SettingError if the state is of another folder; it may have grown or shrunk."""
        there = int((self._where_now(state.get("files", [])) >= 0).sum())
        if not there:
            raise SettingError(
                "--ckpt_path: the checkpoint was made with other images: none of its files is in "
                f"{self.root}. Give the --data.root of that run."
            )
        new, gone = len(self.labels.files) - there, len(state["files"]) - there
        if new or gone:
            rank_zero_warn(
                f"--data.root: {self.root} has changed since the run was stopped: {new:,} new "
                f"images join it, {gone:,} are gone. Their labels stay in {self.labels.file.path}."
            )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the state that `state_dict` returned, when the pool has taken over its own."""
        generated = self.pool.generated
        made = generated.of(generated.kinds == SYNTHESISED)
        self.labels.know_made(made.parents, made.images)
        # Classes made since then count from the next question on.
        self.classes, self.rows = state["all_classes"], state["rows"]
        self.spent = state["spent"]
        if state["files"] != self.labels.files:
            self.places = self._where_now(state["files"])
            self.pool.move(self.places, len(self.labels.files))
            back = self.labels.said(self.rows).audit_N & self.pool.in_unlabelled_N
            self.pool.keep_for_audit(back.nonzero().flatten())  # gone for a while, and here again
        if self.labels.file.digest(self.rows) != state["digest"]:
            rank_zero_warn(
                f"{self.labels.file.path} is not the file that this run began with, or its first "
                "rows were changed. All that it says now counts from the next round on."
            )
            self.rows = len(self.labels.file.rows)

    def _where_now(self, files: list[str]) -> Tensor:
        """Return the place in W of the images of a checkpoint, -1 for those that are gone."""
        index = self.labels.index
        return torch.tensor([index.get(file, -1) for file in files], dtype=torch.long)

    def _answers_of(self, said: Said, asked: list[int]) -> Answers:
        """Return what differs from the pool, and the labels of what was asked."""
        classes = [*dict.fromkeys([*self.classes, *said.classes])]
        number = torch.tensor([classes.index(name) for name in said.classes] or [0])
        labels_N = said.labels_N.where(said.labels_N < 0, number[said.labels_N.clamp(min=0)])
        made = {index: int(number[x]) if x >= 0 else x for index, x in said.made.items()}
        said = said._replace(labels_N=labels_N, made=made)
        changed = (labels_N != self.pool.answers_N).nonzero().flatten().tolist()
        words: dict[int, Label] = {UNKNOWN: WITHDRAWN, NOBODY_CAN_TELL: CANNOT_TELL}

        def label(index: int) -> Label:
            found = said.label(index)
            return words.get(found, found)

        generated = self.pool.generated
        bought = dict(zip(generated.parents.tolist(), generated.labels.tolist(), strict=True))
        changed += [i for i, x in made.items() if bought.get(i, x) != x]
        return Answers(
            {index: label(index) for index in asked},
            {index: label(index) for index in changed if index not in {*asked}},
            classes,
            said.rows,
            said.spent,
        )

    def _left_open(self) -> OpenQuestion | None:
        return None if self.folder is None else question_in(self.folder.question)

    def _answers(self, question: Question) -> Iterable[Answer]:
        """Yield what the oracle answers; if nobody answers now, say where answers may be given."""
        try:
            yield from self.oracle.answer(question)
        except NotYet as error:
            if str(error) or self.folder is None:
                raise
            count = len(question.indices)
            what = (
                f"{count} images have no label yet."
                if count
                else "All labels so far are of one class, and it takes two to train: label others."
            )
            raise NotYet(
                f"{what} Fill in the column label of {self.folder.to_label}, or add rows to "
                f"{self.labels.file.path}, or answer on the page of `baldvae label`. Then the same "
                "command goes on."
            ) from None

    def _answered(self) -> dict[str, str]:
        return Tally(self.labels.declared, self.labels.rows()).labels

    def _budget_left(self) -> str:
        if self.budget is None:
            return ""
        left = self.budget - self.labels.said().spent
        return f" {left:g} of the budget of {self.budget} answers are left."

    def _take_spreadsheet(self, folder: RunFolder, round: int) -> None:
        """Take over what somebody has filled in in ``to_label.csv``."""
        about = folder.to_label.stat().st_mtime_ns if folder.to_label.exists() else None
        if about == self._table_seen:
            return
        self._table_seen = about
        question, labels = question_in(folder.question), self.labels
        if question is None or question.round != round:
            return
        why = {asked.file: asked.why for asked in question.asked}
        known = {row.file: row.label for row in labels.rows() if row.label}
        filled = {f: x for f, x in answers_in(folder.to_label) if f in why and labels.knows(f)}
        new = {file: label for file, label in filled.items() if known.get(file) != label}
        for file, label in new.items():
            labels.answer(file, label, folder.to_label.name, round, why[file])
        if new:  # so that nothing is taken over twice, once it has been corrected elsewhere
            write_to_label(folder.to_label, question, self._answered())
            self._table_seen = folder.to_label.stat().st_mtime_ns
            rank_zero_info(
                f"{len(new)} answers of {folder.to_label} were taken over into {labels.file.path}."
            )

    def _as_file(self, question: Question, why: list[str], trained: list[str]) -> OpenQuestion:
        def asked(
            indices: Tensor, why: list[str], scores: Tensor | None, probs_n_C: Tensor | None
        ) -> list[Asked]:
            return [
                Asked(
                    file=self.labels.file_of(index),
                    why=why[place],
                    rank=place + 1,
                    score=None if scores is None else round(float(scores[place]), 6),
                    probs=None
                    if probs_n_C is None
                    else [round(p, 4) for p in probs_n_C[place].tolist()],
                )
                for place, index in enumerate(indices.tolist())
            ]

        ahead = question.indices[:0] if question.ahead is None else question.ahead
        return OpenQuestion(
            round=question.round,
            rows=self.rows,
            digest=self.labels.file.digest(self.rows),
            root=str(self.root.absolute()),
            labels=str(self.labels.file.path.absolute()),
            declared=self.labels.declared,
            classes=trained,
            asked=asked(question.indices, why, question.scores, question.probs_K_C),
            ahead=asked(
                ahead, ["ahead"] * len(ahead), question.ahead_scores, question.ahead_probs_A_C
            ),
            budget=self.budget,
            cannot_tell_cost=self.labels.cannot_tell_cost,
        )
