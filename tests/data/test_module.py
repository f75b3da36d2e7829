"""The data module without a Trainer: pools, questions, batches of a round, checkpoints' checks."""

import hashlib
import io
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.plugins import Precision
from lightning.pytorch.plugins.precision import HalfPrecision
from torch import Tensor

from baldvae_pl.data.batches import RoundBatches, like_w, to_floats
from baldvae_pl.data.images import Images, Source
from baldvae_pl.data.module import PoolDataModule
from baldvae_pl.data.sources import Digits
from baldvae_pl.errors import SettingError
from baldvae_pl.objective import CrossEntropy, Objective, Step
from baldvae_pl.oracle import CANNOT_TELL, WITHDRAWN, Answer, NotYet, Oracle, Question
from baldvae_pl.pool import Pool
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
