"""The data module without a Trainer: pools, questions, batches of a round, checkpoints' checks."""

import hashlib
import io
import json
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import refusal
from lightning.pytorch.plugins import Precision
from lightning.pytorch.plugins.precision import HalfPrecision
from torch import Tensor

from baldvae_pl.data.answers import Answers
from baldvae_pl.data.batches import RoundBatches, like_w, to_floats
from baldvae_pl.data.images import Images, Source, check_range
from baldvae_pl.data.module import PoolDataModule
from baldvae_pl.data.sources import DataSource, Digits
from baldvae_pl.errors import SettingError
from baldvae_pl.objective import CrossEntropy, Objective, Step
from baldvae_pl.oracle import CANNOT_TELL, WITHDRAWN, Answer, NotYet, Oracle, Question
from baldvae_pl.seeding import Purpose, make_generator
from baldvae_pl.selection import Candidates, RandomSubset

CLASSES = ["ant", "bee", "cat"]


def numbered(numbers: range) -> Images:
    """Images whose every pixel is their number; labels go round the classes."""
    labels = torch.arange(numbers.start, numbers.stop)
    images = labels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    return Images(images, labels % len(CLASSES))


def twelve(root: Path) -> Source:
    return Source(numbered(range(12)), numbered(range(200, 205)), CLASSES)


def twelve_others(root: Path) -> Source:
    return Source(numbered(range(1, 13)), numbered(range(200, 205)), CLASSES)


def twelve_of_other_classes(root: Path) -> Source:
    return Source(numbered(range(12)), numbered(range(200, 205)), ["ant", "bee", "dog"])


def twelve_vectors(root: Path) -> Source:
    """Vectors whose first number is their index, beyond [0, 1]."""
    train, test = (
        Images(torch.arange(3.0 * size).view(size, 3) / 3 - shift, torch.arange(size) % 3)
        for size, shift in ((12, 0), (5, 100))
    )
    return Source(train, test, CLASSES)


def question_of(data: PoolDataModule, indices: Tensor, round: int = 0) -> Question:
    return Question(round, indices, data.train.images[indices], data.classes)


def buy_first_labels(data: PoolDataModule, balanced: bool = False) -> None:
    """As the callback does at the begin of a run."""
    among = Candidates(
        priorities_N=torch.zeros(len(data.pool.labels)),
        labelled=data.pool.labelled,
        query_size=data.initial_size,
        highest=data.pool.highest_unlabelled,
        map=lambda function, indices: function(data.train.images[indices]),
        generator=make_generator(data.seed, 0, Purpose.INITIAL_LABELS),
        known_labels_N=data.train.labels,
    )
    chosen = RandomSubset(balanced)(among)
    labels = data.ask(question_of(data, chosen)).labels
    data.pool.acquire(chosen, torch.tensor([labels[i] for i in chosen.tolist()]), round=0)


def module_of_twelve(**options: object) -> PoolDataModule:
    options = {"source": twelve, "initial_labels": 4, "batch_size": 5} | options
    data = PoolDataModule(**options)
    data.setup("fit")
    return data


def data_of_twelve(
    *,
    round: int = 0,
    rank: int = 0,
    world_size: int = 1,
    balanced: bool = False,
    objective: object = None,
    **options: object,
) -> PoolDataModule:
    """With its first labels, in a round of a run."""
    data = module_of_twelve(**options)
    buy_first_labels(data, balanced)
    data.trainer = SimpleNamespace(
        current_epoch=round,
        global_rank=rank,
        world_size=world_size,
        lightning_module=SimpleNamespace(objective=objective),
        precision_plugin=Precision(),
    )
    return data


# Initial pools


def test_some_images_are_labelled_and_a_second_setup_keeps_the_pools() -> None:
    data = data_of_twelve()
    labelled = data.pool.labelled
    assert len(labelled) == 4
    assert sorted([*labelled.tolist(), *data.pool.unlabelled.tolist()]) == list(range(12))
    assert torch.equal(data.pool.labels[labelled], labelled % 3)
    assert set(data.pool.acquired_in[labelled].tolist()) == {0}
    data.pool.acquire(data.pool.unlabelled[:2], torch.tensor([0, 1]), round=1)
    pool = data.pool
    data.setup("validate")
    assert data.pool is pool


def test_initial_labels_are_uniform_over_the_images_and_a_matter_of_the_seed_alone() -> None:
    draws = torch.stack([data_of_twelve(seed=seed).pool.labelled for seed in range(500)])
    spread = math.sqrt(500 * (1 / 3) * (2 / 3))
    assert (draws.flatten().bincount(minlength=12) - 500 / 3).abs().max() < 4 * spread
    torch.manual_seed(5)
    other_options = data_of_twelve(seed=3, batch_size=2, steps_per_round=1)
    assert torch.equal(other_options.pool.labelled, draws[3])


def test_the_default_is_digits_with_twenty_labels() -> None:
    data = PoolDataModule()
    data.setup("fit")
    buy_first_labels(data)
    assert isinstance(data.load, Digits)
    assert (len(data.pool.labelled), len(data.pool.unlabelled)) == (20, 1277)
    assert len(data.test.labels) == 500


def test_all_images_may_be_labelled_but_no_more() -> None:
    assert data_of_twelve(initial_labels=12).pool.labelled.tolist() == list(range(12))
    with pytest.raises(SettingError, match=r"--data\.initial_labels: 13 .* 12 images"):
        data_of_twelve(initial_labels=13)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (torch.tensor([0, 1]), "asked for 4 labels, it answered tensor"),
        (torch.tensor([[0], [1], [2], [0]]), "asked for 4 labels"),
        (torch.tensor([0.0, 1.0, 2.0, 1.0]), "asked for 4 labels"),
        ([0, 1, 2, 0], r"asked for 4 labels, it answered \[0, 1, 2, 0\]\. It must return a tensor"),
        (None, "asked for 4 labels, it answered None"),
        (torch.tensor([0, 1, 3, 2]), "it answered 3 for image .* from 0 to 2, CANNOT_TELL"),
        (torch.tensor([0, -1, 1, 2]), "it answered -1 for image "),
        (torch.tensor([True, False, True, True]), "it answered True for image "),
    ],
    ids=str,
)
def test_an_oracle_that_answers_nonsense_is_an_error(answer: object, words: str) -> None:
    with pytest.raises(SettingError, match=rf"--data\.oracle: {words}"):
        data_of_twelve(oracle=lambda indices: answer)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, y: (x.float(), y), r"images of type torch.float32 and shape \(12, 1, 2, 2\)"),
        (
            lambda x, y: (x[:, 0], y),
            r"neither torch.uint8 \(n, C, H, W\) nor torch.float32 \(n, D\)",
        ),
        (lambda x, y: (x.numpy(), y), "not a Source of Images, which hold torch tensors"),
        (lambda x, y: (x, y.int()), "labels of type torch.int32"),
        (lambda x, y: (x, y[:, None]), r"labels of shape \(12, 1\)"),
        (lambda x, y: (x, y[1:]), "12 images, but 11 labels"),
        (lambda x, y: (x, y + 1), "labels from 1 to 3, with 3 classes"),
    ],
)
def test_a_source_that_is_not_as_described_is_refused(
    change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], words: str
) -> None:
    def changed(root: Path) -> Source:
        source = twelve(root)
        return source._replace(train=Images(*change(*source.train)))

    with pytest.raises(SettingError, match=words):
        data_of_twelve(source=changed)


def test_an_unknown_source_names_the_known_ones() -> None:
    said = refusal("fit", "--config=digits.yaml", "--data.source=nosuch")
    assert "--data.source: 'nosuch'" in said
    assert "CIFAR10, Digits, FashionMNIST, ImageFolder, MNIST" in said


@pytest.mark.parametrize("name", ["relu", "nosuch.thing"])
def test_an_unknown_oracle_is_an_error_that_names_no_function_of_torch(name: str) -> None:
    said = refusal("fit", "--config=digits.yaml", f"--data.oracle={name}")
    assert f"--data.oracle: '{name}'" in said
    assert "import path" in said
    assert "AggregationType" not in said


def test_a_source_that_returns_something_else_is_refused() -> None:
    for wrong in (None, ("train", "test", CLASSES)):
        with pytest.raises(SettingError, match=r"--data\.source: it returned .*, not a Source"):
            data_of_twelve(source=lambda root, wrong=wrong: wrong)


def test_initial_labels_may_be_balanced_or_all() -> None:
    for seed in range(20):
        labels = data_of_twelve(balanced=True, initial_labels=7, seed=seed).pool
        counts = labels.labels[labels.labelled].bincount().tolist()
        assert sorted(counts) == [2, 2, 3]
    everything = data_of_twelve(initial_labels="all").pool
    assert everything.labelled.tolist() == list(range(12))


def test_a_pool_may_be_a_part_of_the_data_set_and_repeated() -> None:
    class Twelve(DataSource):
        def load(self, root: Path) -> Source:
            return twelve(root)

    data = data_of_twelve(source=Twelve(subset=5, repeats=3), initial_labels=15)
    assert data.train.images.shape == (15, 1, 2, 2)
    assert len(data.train.labels[:5].unique()) > 1
    assert torch.equal(data.train.labels, data.train.labels[:5].repeat(3))
    fingerprints = {
        data_of_twelve(source=Twelve(**options)).fingerprint
        for options in ({}, {"subset": 5}, {"repeats": 2}, {"subset": 5, "repeats": 3})
    }
    assert len(fingerprints) == 4


def test_the_root_is_what_the_source_is_called_with(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Path] = []

    def source(root: Path) -> Source:
        given.append(root)
        return twelve(root)

    monkeypatch.setenv("HOME", "/home/ant")
    module_of_twelve(source=source, root="~/images")
    module_of_twelve(source=source, root="here")
    assert given == [Path("/home/ant/images"), Path("here")]


def test_a_source_is_read_once_by_all_hooks() -> None:
    read: list[Path] = []

    def source(root: Path) -> Source:
        read.append(root)
        return twelve(root)

    data = PoolDataModule(source, initial_labels=4)
    data.prepare_data()
    for stage in ("fit", "validate", "test"):
        data.setup(stage)
    assert len(read) == 1


def test_a_prediction_reads_no_data_set_and_makes_no_pool() -> None:
    def source(root: Path) -> Source:
        raise AssertionError("was read")

    data = PoolDataModule(source)
    data.trainer = SimpleNamespace(predicting=True)
    data.prepare_data()
    data.setup("predict")
    assert not hasattr(data, "pool")


def test_a_source_that_fails_is_named_in_one_sentence() -> None:
    def source(root: Path) -> Source:
        raise RuntimeError("no\n such disk.")

    with pytest.raises(SettingError, match=r"^--data\.source: RuntimeError: no such disk\. Fix"):
        module_of_twelve(source=source)


# Vectors in place of pictures


def test_vectors_are_pooled_batched_and_left_as_they_are() -> None:
    data = data_of_twelve(source=twelve_vectors, round=1, batch_size=6, steps_per_round=2)
    assert (data.pool.image_shape, data.pool.generated.images.dtype) == ((3,), torch.float32)
    assert data.pictures is None
    parents = data.pool.labelled[:2]
    made = torch.tensor([[500.0, 0.25, -7], [501, 0.125, -8]])
    data.pool.extend(made, parents, 1, torch.ones(2), 0.5)
    rows = {*map(tuple, [*data.train.images[data.pool.labelled].tolist(), *made.tolist()])}
    for batch in data.train_dataloader():
        images, labels = data.on_after_batch_transfer(batch, 0)
        assert images is batch[0]
        assert labels is batch[1]
        assert {*map(tuple, images.tolist())} == rows  # six items in batches of six
    for batch in data.val_dataloader():
        assert batch[0].max() < 0


def test_vectors_get_the_precision_of_the_trainer() -> None:
    data = data_of_twelve(source=twelve_vectors)
    data.trainer.precision_plugin = HalfPrecision("bf16-true")
    images, _ = data.on_after_batch_transfer((data.train.images, data.train.labels), 0)
    assert images.dtype == torch.bfloat16
    torch.testing.assert_close(images.float(), data.train.images, atol=0, rtol=0.01)


def test_pictures_are_for_people_alone() -> None:
    pictures = numbered(range(12)).images
    data = module_of_twelve(source=lambda root: twelve_vectors(root)._replace(pictures=pictures))
    assert data.pictures is pictures
    assert data.fingerprint == module_of_twelve(source=twelve_vectors).fingerprint
    of_images = module_of_twelve()
    assert of_images.pictures is of_images.train.images


def test_the_fingerprint_of_vectors_is_that_of_their_bits() -> None:
    data = module_of_twelve(source=twelve_vectors)
    content = b"".join(x.numpy().tobytes() for x in (*data.train, *data.test))
    assert data.fingerprint == hashlib.sha256(content).hexdigest()

    def nudged(root: Path) -> Source:
        source = twelve_vectors(root)
        source.train.images[4, 1] = torch.nextafter(source.train.images[4, 1], torch.tensor(9.0))
        return source

    assert module_of_twelve(source=nudged).fingerprint != data.fingerprint


def test_pools_of_vectors_survive_a_checkpoint_also_without_their_images() -> None:
    data = data_of_twelve(source=twelve_vectors)
    data.pool.extend(torch.randn(2, 3), data.pool.labelled[:2], 1, torch.rand(2), 0.25)
    state = through_a_file(data.state_dict())
    resumed, predicting = module_of_twelve(source=twelve_vectors), PoolDataModule()
    for other in (resumed, predicting):
        other.load_state_dict(state)
        assert other.pool.digest() == data.pool.digest()
        assert other.pool.image_shape == (3,)
    assert predicting.classes == CLASSES


# Questions


class Says(Oracle):
    """Answers with what it was told to, one after the other, and keeps the questions."""

    def __init__(self, *answers: object) -> None:
        self.answers = answers
        self.questions: list[Question] = []

    def answer(self, question: Question) -> Iterator[Answer]:
        self.questions.append(question)
        for answer in self.answers:
            if isinstance(answer, Exception):
                raise answer
            yield Answer(*answer) if isinstance(answer, tuple) else answer

    @property
    def asked(self) -> list[list[int]]:
        return [question.indices.tolist() for question in self.questions]


def lines_of(file: Path) -> list[tuple[object, ...]]:
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [tuple(value for key, value in line.items() if key != "crc") for line in lines]


def test_answers_that_come_one_by_one_are_each_on_the_disk_before_the_next(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    seen: list[list[tuple[object, ...]]] = []

    class Watching(Oracle):
        def answer(self, question: Question) -> Iterator[Answer]:
            for index in question.indices.tolist():
                seen.append(lines_of(file)[1:])
                yield Answer(index, index % 3)
            seen.append(lines_of(file)[1:])

    data = module_of_twelve(oracle=Watching())
    data.open_ledger(file)
    answers = data.ask(question_of(data, torch.tensor([5, 3, 7]), round=2))
    assert answers.labels == {5: 2, 3: 0, 7: 1}
    assert list(answers.labels) == [5, 3, 7]
    assert answers.corrections == {}
    asked, given = (2, [5, 3, 7]), [(2, 5, 2), (2, 3, 0), (2, 7, 1)]
    assert seen == [[asked, *given[:count]] for count in range(4)]


def test_a_question_says_everything_about_its_images() -> None:
    data = module_of_twelve(oracle=Says((5, 2), (3, 0), (7, 1)))
    indices = torch.tensor([5, 3, 7])
    data.ask(
        Question(
            round=2,
            indices=indices,
            images=data.train.images[indices],
            classes=data.classes,
            files=["5.png", "3.png", "7.png"],
            scores=torch.tensor([0.5, 0.3, 0.7]),
            probs_K_C=torch.eye(3),
        )
    )
    (question,) = data.oracle.questions
    assert (question.round, question.classes) == (2, CLASSES)
    assert torch.equal(question.images, data.train.images[[5, 3, 7]])
    assert question.files == ["5.png", "3.png", "7.png"]


def test_who_has_no_answer_yet_is_asked_for_the_rest_alone_when_the_run_goes_on(
    tmp_path: Path,
) -> None:
    file, indices = tmp_path / "answers.jsonl", torch.tensor([5, 3, 7, 2])
    data = module_of_twelve(oracle=Says((3, 0), (2, 1), NotYet("gone for lunch")))
    data.open_ledger(file)
    question = question_of(data, indices)._replace(
        files=[f"{i}.png" for i in indices.tolist()],
        scores=torch.tensor([0.5, 0.3, 0.7, 0.2]),
        probs_K_C=torch.arange(12.0).view(4, 3),
    )
    with pytest.raises(NotYet, match="gone for lunch"):
        data.ask(question)

    again = module_of_twelve(oracle=Says((7, 1), (5, 2)))
    again.open_ledger(file)
    assert again.open_question(0).tolist() == [5, 3, 7, 2]
    assert again.ask(question).labels == {5: 2, 3: 0, 7: 1, 2: 1}
    (left,) = again.oracle.questions
    assert left.indices.tolist() == [5, 7]
    assert torch.equal(left.images, data.train.images[[5, 7]])
    assert left.files == ["5.png", "7.png"]
    torch.testing.assert_close(left.scores, torch.tensor([0.5, 0.7]))
    assert left.probs_K_C.tolist() == [[0, 1, 2], [6, 7, 8]]
    assert again.ask(question).labels == {5: 2, 3: 0, 7: 1, 2: 1}  # all are known: nobody is asked
    assert len(again.oracle.questions) == 1


def test_the_last_answer_for_an_image_counts_and_cannot_tell_is_one() -> None:
    data = module_of_twelve(oracle=Says((5, 0), (3, CANNOT_TELL), (5, 2), (3, 1), (7, CANNOT_TELL)))
    answers = data.ask(question_of(data, torch.tensor([5, 3, 7])))
    assert answers.labels == {5: 2, 3: 1, 7: CANNOT_TELL}


def test_an_answer_that_is_taken_back_is_asked_again_the_next_time() -> None:
    data = module_of_twelve(oracle=Says((5, 0), (3, 1), (5, WITHDRAWN)))
    question = question_of(data, torch.tensor([5, 3]))
    with pytest.raises(SettingError, match="with 1 of 2 images without an answer"):
        data.ask(question)
    data.oracle = Says((5, 1))
    assert data.ask(question).labels == {5: 1, 3: 1}
    assert data.oracle.asked == [[5]]


def test_corrections_are_of_images_that_were_bought_before() -> None:
    data = data_of_twelve(oracle=None, seed=1)
    first, second, *_ = data.pool.labelled.tolist()
    new = data.pool.unlabelled[:2]
    data.oracle = Says(
        (first, 2),
        (new[0].item(), 0),
        (second, WITHDRAWN),
        (first, 1),
        (new[1].item(), 1),
        (new[0].item(), 2),
    )
    answers = data.ask(question_of(data, new, round=1))
    assert answers.labels == {new[0].item(): 2, new[1].item(): 1}
    assert answers.corrections == {first: 1, second: WITHDRAWN}
    assert data.ask(question_of(data, new, round=1)) == answers  # a round that is repeated


def test_who_takes_an_answer_back_may_give_another_one_after_a_restart(tmp_path: Path) -> None:
    def start(*answers: object) -> Answers:
        data = module_of_twelve(oracle=Says(*answers))
        data.open_ledger(tmp_path / "answers.jsonl")
        data.pool.acquire(torch.tensor([5]), torch.tensor([0]), round=0)
        return data.ask(question_of(data, torch.tensor([7]), round=1))

    data = module_of_twelve(oracle=Says((5, 0)))
    data.open_ledger(tmp_path / "answers.jsonl")
    data.ask(question_of(data, torch.tensor([5])))
    with pytest.raises(NotYet):
        start((5, WITHDRAWN), NotYet())
    assert start((5, 2), (7, 1))[:2] == ({7: 1}, {5: 2})


def test_what_this_run_has_not_bought_is_no_correction(tmp_path: Path) -> None:
    """Another start, with other settings, had bought it."""
    file = tmp_path / "answers.jsonl"
    data = module_of_twelve(oracle=Says((5, 0), (3, 0)))
    data.open_ledger(file)
    data.ask(question_of(data, torch.tensor([5, 3])))
    again = module_of_twelve(oracle=Says((3, 2), (7, 1), (5, 1)))
    again.open_ledger(file)
    again.pool.acquire(torch.tensor([5]), torch.tensor([0]), round=0)
    answers = again.ask(question_of(again, torch.tensor([7]), round=1))
    assert answers[:2] == ({7: 1}, {5: 1})
    assert again.ledger.known(1) == {5: 1, 3: 2, 7: 1}  # for the day when 3 is bought


def test_images_that_are_not_in_the_data_set_are_asked_about_by_their_pixels() -> None:
    data = module_of_twelve(oracle=Says((-1, 2), (-2, CANNOT_TELL)))
    images = torch.full((2, 1, 2, 2), 77, dtype=torch.uint8)
    answers = data.ask(Question(1, torch.tensor([-1, -2]), images, CLASSES))
    assert answers.labels == {-1: 2, -2: CANNOT_TELL}
    assert torch.equal(data.oracle.questions[0].images, images)


@pytest.mark.parametrize("oracle", [None, lambda indices: indices * 0])
def test_who_knows_indices_alone_refuses_images_that_are_not_in_the_data_set(
    oracle: Callable[[Tensor], Tensor] | None,
) -> None:
    data = module_of_twelve(oracle=oracle)
    images = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    with pytest.raises(SettingError, match=r"--data\.oracle: .* not in the data set.* Give an Or"):
        data.ask(Question(1, torch.tensor([3, -1]), images, CLASSES))
    assert data.ledger.known(1) == {}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            (4, 0),
            r"it answered Answer\(image=4, label=0\), which is no Answer for an image that was",
        ),
        ((-1, 0), r"it answered Answer\(image=-1, label=0\), which is no Answer for an"),
        ("0", "it answered 0, which is no Answer for an image"),
        (None, "it answered None, which is no Answer"),
        ((3, 3), r"it answered 3 for image 3\. A label is a whole number from 0 to 2, CANNOT_TELL"),
        ((3, -1), r"it answered -1 for image 3\. A label"),
        ((3, "bee"), r"it answered 'bee' for image 3\. A label"),
        ((3, 1.0), r"it answered 1\.0 for image 3\. A label"),
        ((3, True), r"it answered True for image 3\. A label"),
        ((3, None), r"it answered None for image 3\. A label"),
        (
            RuntimeError("the line\n is dead."),
            r"RuntimeError: the line is dead\. Fix it, or choose",
        ),
        (KeyError(), r"KeyError\. Fix it, or choose another\."),
    ],
    ids=str,
)
def test_a_wrong_answer_is_refused_and_those_before_it_are_kept(
    wrong: object, words: str, tmp_path: Path
) -> None:
    file, indices = tmp_path / "answers.jsonl", torch.tensor([5, 3])
    data = module_of_twelve(oracle=Says((5, 2), wrong, (3, 1)))
    data.open_ledger(file)
    with pytest.raises(SettingError, match=rf"^--data\.oracle: {words}") as caught:
        data.ask(question_of(data, indices))
    assert len(str(caught.value).splitlines()) == 1
    assert lines_of(file)[1:] == [(0, [5, 3]), (0, 5, 2)]
    again = module_of_twelve(oracle=Says((3, 1)))
    again.open_ledger(file)
    assert again.ask(question_of(again, indices)).labels == {5: 2, 3: 1}


@pytest.mark.parametrize(
    ("given", "count"), [([], "3 of 3"), ([(5, 1)], "2 of 3"), ([(5, 1), (3, 1)], "1 of 3")]
)
def test_an_oracle_that_ends_early_says_so_and_how_to_wait(
    given: list[tuple[int, int]], count: str
) -> None:
    data = module_of_twelve(oracle=Says(*given))
    with pytest.raises(
        SettingError, match=rf"--data\.oracle: .*{count} images .* NotYet"
    ) as caught:
        data.ask(question_of(data, torch.tensor([5, 3, 7])))
    assert len(str(caught.value).splitlines()) == 1
    assert data.ledger.known(0) == dict(given)


def test_an_oracle_whose_answers_are_no_answers_at_all_is_named() -> None:
    class Mute(Oracle):
        def answer(self, question: Question) -> Iterable[Answer]:
            return None

    data = module_of_twelve(oracle=Mute())
    with pytest.raises(SettingError, match=r"--data\.oracle: TypeError"):
        data.ask(question_of(data, torch.tensor([5])))


def test_a_function_may_say_not_yet() -> None:
    def later(indices: Tensor) -> Tensor:
        raise NotYet("ask tomorrow")

    with pytest.raises(NotYet, match="ask tomorrow"):
        data_of_twelve(oracle=later)


def test_answers_are_kept_for_the_images_they_were_given_for(tmp_path: Path) -> None:
    asked: list[int] = []

    def oracle(indices: Tensor) -> Tensor:
        asked.extend(indices.tolist())
        return indices % 3

    def ask(shade: int, *indices: int) -> list[object]:
        data = module_of_twelve(oracle=oracle)
        data.fingerprint = f"{shade}"
        data.open_ledger(tmp_path / "answers.jsonl")
        answers = data.ask(question_of(data, torch.tensor(indices)))
        return [answers.labels[index] for index in indices]

    assert ask(1, 5, 3) == [2, 0]
    assert ask(1, 3, 7, 5) == [0, 1, 2]
    assert asked == [5, 3, 7]
    assert ask(2, 3) == [0]  # other images
    assert asked == [5, 3, 7, 3]


def test_an_open_question_is_pinned_unless_it_cannot_be_asked_again(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    data = module_of_twelve(oracle=Says(NotYet()))
    assert data.open_question(0) is None  # no ledger yet
    data.open_ledger(file)
    assert data.open_question(0) is None
    with pytest.raises(NotYet):
        data.ask(question_of(data, torch.tensor([5, 3])))
    with pytest.raises(NotYet):
        data.ask(Question(1, torch.tensor([-1]), data.train.images[:1], CLASSES))

    again = module_of_twelve()
    again.open_ledger(file)
    assert again.open_question(0).tolist() == [5, 3]
    assert again.open_question(1) is None  # images that are not in W are made anew
    assert again.open_question(2) is None
    again.allow_changes = True
    assert again.open_question(0) is None  # other settings may ask about other images
    again.allow_changes = False
    again.pool.acquire(torch.tensor([3]), torch.tensor([0]), round=0)
    assert again.open_question(0) is None  # one of them is labelled already


# Batches


def test_an_oracle_is_asked_by_global_index_and_its_labels_are_trained_with() -> None:
    asked: list[int] = []

    def contrary(indices: Tensor) -> Tensor:
        asked.extend(indices.tolist())
        return 2 - indices % 3

    data = data_of_twelve(oracle=contrary, steps_per_round=4)
    assert asked == data.pool.labelled.tolist()
    for images, labels in data.train_dataloader():
        assert torch.equal(labels, 2 - images[:, 0, 0, 0] % 3)


def test_a_pass_of_training_sees_labelled_and_generated_images_once_each() -> None:
    data = data_of_twelve(round=1, batch_size=7, steps_per_round=2)
    labelled = data.pool.labelled
    generated = numbered(range(100, 103)).images
    data.pool.extend(generated, labelled[[0, 0, 3]], 1, torch.ones(3), 0.5)
    batches = list(data.train_dataloader())
    assert [len(labels) for _, labels in batches] == [7, 7]
    images, labels = (torch.cat(column) for column in zip(*batches, strict=True))
    assert images.dtype == torch.uint8
    numbers = images[:, 0, 0, 0].long()
    expected_label = {number: number % 3 for number in labelled.tolist()}
    expected_label |= dict(zip([100, 101, 102], (labelled[[0, 0, 3]] % 3).tolist(), strict=True))
    for one_pass in (slice(0, 7), slice(7, 14)):
        pairs = zip(numbers[one_pass].tolist(), labels[one_pass].tolist(), strict=True)
        assert dict(pairs) == expected_label


@pytest.mark.parametrize(
    ("epochs", "steps"), [(0, 3), (2.5, 3), (3.75, 3), (3.76, 4), (10, 8)], ids=str
)
def test_steps_grow_with_the_labels_alone(epochs: float, steps: int) -> None:
    """Four labels in batches of five: so many steps for so many passes, three at least."""
    data = data_of_twelve(steps_per_round=3, epochs_per_round=epochs)
    assert len(data.train_dataloader()) == steps
    parents = data.pool.labelled
    data.pool.extend(numbered(range(4)).images, parents, 1, torch.ones(4), 0.5)
    assert len(data.train_dataloader()) == steps  # as many as a method without complements
    data.pool.acquire(data.pool.unlabelled, torch.zeros(8, dtype=torch.long), 1)
    assert len(data.train_dataloader()) == max(3, math.ceil(epochs * 12 / 5))


def test_batches_leave_the_global_generator_alone() -> None:
    data = data_of_twelve(steps_per_round=3)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    for loader in (data.train_dataloader(), data.val_dataloader()):
        assert len(list(loader)) > 0
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_processes_share_out_the_test_set(world_size: int) -> None:
    shares = [
        list(data_of_twelve(rank=rank, world_size=world_size, eval_batch_size=2).val_dataloader())
        for rank in range(world_size)
    ]
    images, labels = (torch.cat(c) for c in zip(*chain(*shares), strict=True))
    assert images[:, 0, 0, 0].sort().values.tolist() == list(range(200, 205))
    assert torch.equal(labels, images[:, 0, 0, 0] % 3)


# Batches of unlabelled images


class Unlabelled(Objective):
    unlabelled_batch_size = 4

    def __init__(self, which: str) -> None:
        self.unlabelled = which

    def __call__(self, step: Step) -> Tensor:
        return step.images.sum()


def both_batches(data: PoolDataModule) -> list[dict[str, tuple[Tensor, Tensor]]]:
    return [batch for batch, *_ in data.train_dataloader()]


def numbers_in(batch: tuple[Tensor, Tensor]) -> list[int]:
    return batch[0][:, 0, 0, 0].tolist()


@pytest.mark.parametrize("objective", [None, CrossEntropy(), lambda step: step.images.sum()])
def test_without_an_objective_that_asks_for_more_batches_are_of_labelled_images(
    objective: object,
) -> None:
    data = data_of_twelve(objective=objective, steps_per_round=3)
    batches = list(data.train_dataloader())
    assert [len(labels) for _, labels in batches] == [5] * 3
    assert all(isinstance(batch, (tuple, list)) for batch in batches)


@pytest.mark.parametrize("which", ["U", "W"])
def test_each_step_has_a_batch_of_the_unlabelled_beside_an_unchanged_labelled_one(
    which: str,
) -> None:
    data = data_of_twelve(objective=Unlabelled(which), round=3, steps_per_round=6)
    batches = both_batches(data)
    assert len(batches) == 6
    alone = list(data_of_twelve(round=3, steps_per_round=6).train_dataloader())
    for batch, (images, labels) in zip(batches, alone, strict=True):
        assert torch.equal(batch["labelled"][0], images)
        assert torch.equal(batch["labelled"][1], labels)
    items = data.pool.unlabelled if which == "U" else torch.arange(12)
    seeds = (data.seed, 3, Purpose.UNLABELLED_BATCHES)
    expected = [batch.tolist() for batch in RoundBatches(items, 4, 6, seeds)]
    assert [numbers_in(batch["unlabelled"]) for batch in batches] == expected
    seen = {*chain(*expected)}
    assert seen == {*items.tolist()}  # 24 images: each of eight three times, or of twelve twice


@pytest.mark.parametrize("seed", range(5))
def test_no_image_of_the_labelled_is_among_the_unlabelled_and_indices_are_told(seed: int) -> None:
    data = data_of_twelve(objective=Unlabelled("U"), seed=seed, steps_per_round=9)
    data.pool.acquire(data.pool.unlabelled[:3], torch.zeros(3, dtype=torch.long), round=1)
    data.pool.set_aside(data.pool.unlabelled[:1])
    free = {*data.pool.unlabelled.tolist()}
    assert len(free) == 4
    for batch in both_batches(data):
        images, indices = batch["unlabelled"]
        assert {*indices.tolist()} == free
        assert torch.equal(indices, images[:, 0, 0, 0].long())


def test_rounds_and_seeds_have_other_unlabelled_batches() -> None:
    def batches(**options: object) -> list[list[int]]:
        data = data_of_twelve(objective=Unlabelled("W"), steps_per_round=4, **options)
        return [numbers_in(batch["unlabelled"]) for batch in both_batches(data)]

    one = batches()
    assert batches() == one
    assert batches(round=1) != one
    assert batches(seed=1) != one
    assert batches(batch_size=2) == one


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_out_unlabelled_batches_too(world_size: int) -> None:
    options = {"objective": Unlabelled("W"), "steps_per_round": 5}
    whole = both_batches(data_of_twelve(**options))
    shares = [
        both_batches(data_of_twelve(**options, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    for step, batch in enumerate(whole):
        for part in ("labelled", "unlabelled"):
            mine = [numbers_in(share[step][part]) for share in shares]
            assert sorted(chain(*mine)) == sorted(numbers_in(batch[part]))
            assert max(map(len, mine)) - min(map(len, mine)) <= 1


def test_when_all_are_labelled_these_are_the_unlabelled() -> None:
    data = data_of_twelve(initial_labels="all", objective=Unlabelled("U"), steps_per_round=3)
    seen = [numbers_in(batch["unlabelled"]) for batch in both_batches(data)]
    assert sorted(chain(*seen)) == list(range(12))


def test_complements_are_never_among_the_unlabelled() -> None:
    data = data_of_twelve(objective=Unlabelled("W"), steps_per_round=9)
    data.pool.extend(numbered(range(100, 104)).images, data.pool.labelled, 1, torch.ones(4), 0.5)
    batches = both_batches(data)
    assert max(chain(*(numbers_in(batch["unlabelled"]) for batch in batches))) < 12
    assert max(chain(*(numbers_in(batch["labelled"]) for batch in batches))) > 99


def test_both_parts_of_a_batch_become_floats() -> None:
    data = data_of_twelve(objective=Unlabelled("W"))
    batch = both_batches(data)[0]
    moved = data.on_after_batch_transfer(batch, 0)
    assert moved.keys() == batch.keys()
    for part, (images, labels) in batch.items():
        torch.testing.assert_close(moved[part][0], images / 255)
        assert torch.equal(moved[part][1], labels)


# Pixels


def test_8_bit_images_survive_the_way_to_floats_and_back() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    data = data_of_twelve()
    floats, labels = data.on_after_batch_transfer((images, torch.tensor([3])), 0)
    assert (floats.dtype, floats.min(), floats.max()) == (torch.float32, 0, 1)
    assert labels.tolist() == [3]
    torch.testing.assert_close(floats.flatten(), torch.arange(256) / 255)
    assert torch.equal(floats, to_floats(images))
    assert torch.equal(like_w(floats, torch.uint8), images)
    assert like_w(floats, torch.uint8).dtype == torch.uint8


# Checkpoints


def through_a_file(state: dict[str, object]) -> dict[str, object]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_the_pools_survive_a_checkpoint() -> None:
    data = data_of_twelve(seed=7)
    data.pool.acquire(data.pool.unlabelled[:3], torch.tensor([2, 1, 0]), 1, torch.rand(3))
    parents = data.pool.labelled[:2]
    data.pool.extend(numbered(range(50, 52)).images, parents, 1, torch.rand(2), 0.25)
    resumed = data_of_twelve(seed=7)
    resumed.load_state_dict(through_a_file(data.state_dict()))
    for name in ("acquired_in", "labels", "scores"):
        ours, theirs = getattr(resumed.pool, name), getattr(data.pool, name)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
    for name, value in data.pool.generated._asdict().items():
        assert torch.equal(getattr(resumed.pool.generated, name), value), name
    assert resumed.pool.digest() == data.pool.digest()


def test_the_fingerprint_is_the_sha_256_of_images_and_labels() -> None:
    data = data_of_twelve()
    pixels = bytes(number for number in range(12) for _ in range(4))
    rest = [data.train.labels, data.test.images, data.test.labels]
    content = pixels + b"".join(tensor.numpy().tobytes() for tensor in rest)
    assert data.fingerprint == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("change", ["theirs", "labels", "test images", "test labels"])
def test_every_change_of_the_data_is_seen(change: str) -> None:
    def changed(root: Path) -> Source:
        source = twelve(root)
        train, test = (Images(*(x.clone() for x in part)) for part in source[:2])
        if change == "labels":
            train.labels[3] = (train.labels[3] + 1) % 3
        elif change == "test images":
            test.images[0] ^= 1
        elif change == "test labels":
            test.labels[0] = (test.labels[0] + 1) % 3
        else:
            return source._replace(fingerprint="theirs")
        return source._replace(train=train, test=test)

    assert data_of_twelve(source=changed).fingerprint != data_of_twelve().fingerprint


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"source": twelve_others}, r"--ckpt_path: .*other images .*--data\.source"),
        ({"source": twelve_of_other_classes}, r"--ckpt_path: .*--data\.source"),
        ({"seed": 8}, r"--seed_everything: 7 is not .* Give --seed_everything 8\."),
    ],
    ids=["images", "classes", "seed"],
)
def test_a_checkpoint_of_other_data_or_seed_is_refused(
    other: dict[str, object], message: str
) -> None:
    data = data_of_twelve(seed=7)
    before = data.pool.acquired_in.clone()
    state = through_a_file(
        data_of_twelve(**({"seed": 7, "initial_labels": 5} | other)).state_dict()
    )
    with pytest.raises(SettingError, match=message):
        data.load_state_dict(state)
    assert torch.equal(data.pool.acquired_in, before)


def test_pixels_that_look_as_if_scaled_wrongly_are_said() -> None:
    generator = torch.Generator().manual_seed(0)
    sound = torch.randint(0, 256, (150, 1, 8, 8), generator=generator).to(torch.uint8)
    dark = sound // 16  # 12 bits in 16
    cut = sound.clamp(max=1) * 255  # floats of 0 to 255
    strokes = sound.where(sound > 200, 0)
    for images in (sound, strokes, torch.cat([sound, dark[:100]]), torch.zeros(9, 4)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check_range(images, "--data.source")
    with pytest.warns(
        UserWarning, match=r"^--data\.source: 100% .* of one colour.*12 bits in files"
    ):
        check_range(dark, "--data.source")
    with pytest.warns(
        UserWarning, match=r"--predictions\.folder: 100% .* black and white .*Floats"
    ):
        check_range(cut, "--predictions.folder")
