"""A labelling page's board with six images, for tests."""

from pathlib import Path
from typing import Any

from pictures import noise, save

from baldvae_pl.data.question_file import Asked, OpenQuestion, write_question
from baldvae_pl.labelling.board import Board
from baldvae_pl.runs.folder import RunFolder

FILES = [f"{letter}.png" for letter in "abcdef"]


def question_of(root: Path, **changed: Any) -> OpenQuestion:
    question = OpenQuestion(
        round=2,
        rows=0,
        digest="00000000",
        root=str(root),
        labels=str(root / "labels.csv"),
        declared=["cat", "dog"],
        classes=["cat", "dog"],
        asked=[Asked(file, "query", i + 1, 0.5, [0.3, 0.7]) for i, file in enumerate(FILES[:3])],
        ahead=[Asked(file, "ahead", i + 1, 0.2, [0.9, 0.1]) for i, file in enumerate(FILES[3:])],
        budget=5,
        cannot_tell_cost=0.5,
    )
    return question._replace(**changed)


def board_of(root: Path, **changed: Any) -> Board:
    run = RunFolder(root / "version_0")
    for seed, file in enumerate(FILES):
        save(root / file, noise(8, 8, 3, seed=seed))
    write_question(run, question_of(root, **changed))
    return Board(lambda: run, lambda: {"alive": True, "ended": None})
