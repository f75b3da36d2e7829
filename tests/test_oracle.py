"""Oracles by themselves; what the data module makes of their answers is in data/test_module.py."""

from collections.abc import Iterator

import pytest
import torch

from baldvae_pl import oracle
from baldvae_pl.oracle import CANNOT_TELL, WITHDRAWN, Answer, KnownLabels, NotYet, Oracle, Question


def test_known_labels_are_those_of_the_images_in_the_order_of_the_question() -> None:
    labels = KnownLabels(torch.tensor([4, 5, 6, 7]))
    answer = labels(torch.tensor([3, 0, 3]))
    assert answer.tolist() == [7, 4, 7]
    assert answer.dtype == torch.int64
    with pytest.raises(IndexError):
        labels(torch.tensor([4]))


def test_the_words_of_an_answer_are_part_of_every_ledger() -> None:
    assert (CANNOT_TELL, WITHDRAWN) == ("cannot tell", "withdrawn")


def test_a_question_of_the_first_labels_has_no_scores_yet() -> None:
    question = Question(0, torch.tensor([2]), torch.zeros(1, 1, 2, 2), ["a", "b"])
    assert (question.files, question.scores, question.probs_K_C) == (None, None, None)


def test_an_oracle_has_to_answer() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Oracle()


def test_an_oracle_sees_images_classes_and_guesses_and_answers_as_they_come() -> None:
    class Bright(Oracle):
        """Takes the brightest for the last class, tells no guess of a half, and then goes home."""

        def answer(self, question: Question) -> Iterator[Answer]:
            for row, index in enumerate(question.indices.tolist()):
                if question.probs_K_C[row].max() <= 0.5:
                    yield Answer(index, CANNOT_TELL)
                elif question.images[row].max() > 100:
                    yield Answer(index, len(question.classes) - 1)
                else:
                    raise NotYet("too dark")

    images = torch.tensor([200, 150, 7], dtype=torch.uint8).view(3, 1, 1, 1)
    guesses = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]])
    question = Question(3, torch.tensor([8, 2, 5]), images, ["a", "b"], probs_K_C=guesses)
    answers = Bright().answer(question)
    assert next(answers) == Answer(image=8, label=1)
    assert next(answers) == Answer(image=2, label="cannot tell")
    with pytest.raises(NotYet, match="too dark"):
        next(answers)


def test_not_yet_is_no_mistake_of_a_setting() -> None:
    assert not issubclass(NotYet, ValueError | RuntimeError | OSError)
    assert issubclass(oracle.NotYet, Exception)
