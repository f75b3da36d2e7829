"""The data module without a Trainer: initial pools, batches of a round, and checkpoints' checks."""

import hashlib
import io
import math
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.plugins import Precision
from torch import Tensor

from baldvae_pl.data.batches import Gather, RoundBatches, TestBatches, to_8_bit, to_unit_interval
from baldvae_pl.data.module import PoolDataModule
from baldvae_pl.data.sources import Images, Source
from baldvae_pl.errors import SettingError
from baldvae_pl.seeding import Purpose

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


def data_of_twelve(
    *, round: int = 0, rank: int = 0, world_size: int = 1, **options: object
) -> PoolDataModule:
    options = {"source": twelve, "initial_labels": 4, "batch_size": 5} | options
    data = PoolDataModule(**options)
    data.setup("fit")
    data.label_initial()
    data.trainer = SimpleNamespace(current_epoch=round, global_rank=rank, world_size=world_size)
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
    data.label_initial()
    assert (len(data.pool.labelled), len(data.pool.unlabelled)) == (20, 1277)
    assert len(data.test.labels) == 500


def test_all_images_may_be_labelled_but_no_more() -> None:
    assert data_of_twelve(initial_labels=12).pool.labelled.tolist() == list(range(12))
    with pytest.raises(SettingError, match=r"--data\.initial_labels: 13 .* 12 images"):
        data_of_twelve(initial_labels=13)


def test_an_unknown_source_names_the_known_ones() -> None:
    with pytest.raises(SettingError, match=r"--data\.source: 'nosuch' .* MNIST, digits"):
        PoolDataModule(source="nosuch")


def test_an_unknown_oracle_is_an_error_that_names_no_function_of_torch() -> None:
    with pytest.raises(SettingError, match=r"--data\.oracle: 'relu'") as caught:
        data_of_twelve(oracle="relu")
    assert "AggregationType" not in str(caught.value)


@pytest.mark.parametrize(
    "answer", [[0, 1], [0, 1, 3, 2], [0, -1, 1, 2], [0.0, 1.0, 2.0, 1.0]], ids=str
)
def test_an_oracle_that_answers_nonsense_is_an_error(answer: list[float]) -> None:
    with pytest.raises(SettingError, match=r"--data\.oracle: asked for 4 labels"):
        data_of_twelve(oracle=lambda indices: torch.tensor(answer))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, y: (x.float(), y), "images of type torch.float32"),
        (lambda x, y: (x[:, 0], y), r"not \(n, C, H, W\)"),
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


@pytest.mark.parametrize(("size", "batch_size", "world_size"), [(10, 3, 1), (10, 3, 3), (7, 9, 4)])
def test_test_images_are_shared_out_once_in_equally_many_batches(
    size: int, batch_size: int, world_size: int
) -> None:
    shares = [list(TestBatches(size, batch_size, (r, world_size))) for r in range(world_size)]
    assert sorted(torch.cat([x for share in shares for x in share]).tolist()) == [*range(size)]
    assert len({len(share) for share in shares}) == 1
    assert all(1 <= len(batch) <= batch_size for share in shares for batch in share)


def test_initial_labels_may_be_balanced_or_all() -> None:
    for seed in range(20):
        labels = data_of_twelve(balanced_initial_labels=True, initial_labels=7, seed=seed).pool
        counts = labels.labels[labels.labelled].bincount().tolist()
        assert sorted(counts) == [2, 2, 3]
    everything = data_of_twelve(initial_labels="all").pool
    assert everything.labelled.tolist() == list(range(12))


def test_a_pool_may_be_a_part_of_the_data_set_and_repeated() -> None:
    data = data_of_twelve(subset=5, repeats=3, initial_labels=15)
    assert data.train.images.shape == (15, 1, 2, 2)
    assert len(data.train.labels[:5].unique()) > 1
    assert torch.equal(data.train.labels, data.train.labels[:5].repeat(3))
    fingerprints = {
        data_of_twelve(**options).fingerprint
        for options in ({}, {"subset": 5}, {"repeats": 2}, {"subset": 5, "repeats": 3})
    }
    assert len(fingerprints) == 4


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


def round_batches(
    items: int, batch_size: int, steps: int, round: int = 0, share: tuple[int, int] = (0, 1)
) -> list[list[int]]:
    seeds = (0, round, Purpose.BATCHES)
    sampler = RoundBatches(100 + torch.arange(items), batch_size, steps, seeds, share)
    assert len(sampler) == steps
    return [batch.tolist() for batch in sampler]


@pytest.mark.parametrize(
    ("items", "batch_size", "steps"), [(10, 4, 9), (3, 8, 5), (64, 64, 2), (100, 7, 3), (1, 1, 1)]
)
def test_a_round_has_its_steps_and_each_pass_sees_all_items(
    items: int, batch_size: int, steps: int
) -> None:
    batches = round_batches(items, batch_size, steps)
    assert [len(batch) for batch in batches] == [batch_size] * steps
    seen = list(chain(*batches))
    for start in range(0, len(seen) - items + 1, items):
        assert sorted(seen[start : start + items]) == list(range(100, 100 + items))
    rest = seen[len(seen) - len(seen) % items :]
    assert len(set(rest)) == len(rest)


def test_rounds_and_passes_are_shuffled_differently_and_repeatably() -> None:
    one = round_batches(30, 30, 2)
    assert one == round_batches(30, 30, 2)
    assert one[0] != one[1]
    assert one[0] != sorted(one[0])
    assert one[0] != round_batches(30, 30, 2, round=1)[0]
    sampler = RoundBatches(100 + torch.arange(30), 30, 2, (0, 0, Purpose.BATCHES))
    assert [b.tolist() for b in sampler] == [b.tolist() for b in sampler]
    sampler.set_epoch(1)
    assert [b.tolist() for b in sampler] == round_batches(30, 30, 2, round=1)


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_out_each_batch(world_size: int) -> None:
    whole = round_batches(10, 8, 4)
    shares = [round_batches(10, 8, 4, share=(rank, world_size)) for rank in range(world_size)]
    for step, batch in enumerate(whole):
        assert sorted(chain(*(share[step] for share in shares))) == sorted(batch)
        sizes = [len(share[step]) for share in shares]
        assert max(sizes) - min(sizes) <= 1


@settings(deadline=None, max_examples=50, derandomize=True)
@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=3).filter(sum), data=st.data())
def test_gather_is_indexing_into_the_parts_end_to_end(
    sizes: list[int], data: st.DataObject
) -> None:
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    parts = [numbered(range(start, start + n)) for start, n in zip(starts, sizes, strict=True)]
    indices = torch.tensor(data.draw(st.lists(st.integers(0, sum(sizes) - 1), max_size=8))).long()
    images, labels = Gather(*parts)[indices]
    together = numbered(range(sum(sizes)))
    assert torch.equal(images, together.images[indices])
    assert torch.equal(labels, together.labels[indices])


@pytest.mark.parametrize("index", [5, -1])
def test_gather_has_no_image_beyond_its_parts(index: int) -> None:
    with pytest.raises(IndexError):
        Gather(numbered(range(5)))[torch.tensor([0, index])]


# Pixels


def test_8_bit_images_survive_the_way_to_floats_and_back() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    data = data_of_twelve()
    data.trainer.precision_plugin = Precision()
    floats, labels = data.on_after_batch_transfer((images, torch.tensor([3])), 0)
    assert (floats.dtype, floats.min(), floats.max()) == (torch.float32, 0, 1)
    assert labels.tolist() == [3]
    torch.testing.assert_close(floats.flatten(), torch.arange(256) / 255)
    assert torch.equal(floats, to_unit_interval(images))
    assert torch.equal(to_8_bit(floats), images)
    assert to_8_bit(floats).dtype == torch.uint8


def test_floats_are_rounded_to_the_nearest_grey_level_and_clamped() -> None:
    pixels = torch.tensor([-3, -1e-6, 0.49, 0.51, 99.6, 254.49, 254.51, 255.1, 1000]) / 255
    assert to_8_bit(pixels).tolist() == [0, 0, 0, 1, 100, 254, 255, 255, 255]


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
    for key, value in data.pool.generated.items():
        assert torch.equal(resumed.pool.generated[key], value), key


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


def test_a_source_gets_the_settings_that_it_has_parameters_for() -> None:
    given = []

    def choosy(root: Path, channels: int = 1, skip_unreadable: bool = False) -> Source:
        given.append((channels, skip_unreadable))
        return twelve(root)

    data_of_twelve(source=choosy)
    data_of_twelve(source=choosy, channels=3)
    data_of_twelve(source=choosy, channels=3, skip_unreadable=True)
    assert given == [(1, False), (3, False), (3, True)]
    with pytest.raises(SettingError, match=r"--data\.image_size: 16 cannot be chosen, as choosy"):
        data_of_twelve(source=choosy, image_size=16)


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


def test_answers_are_kept_for_the_images_they_were_given_for(tmp_path: Path) -> None:
    asked: list[int] = []

    def oracle(indices: torch.Tensor) -> torch.Tensor:
        asked.extend(indices.tolist())
        return indices % 3

    def data(shade: int) -> PoolDataModule:
        made = PoolDataModule(twelve, initial_labels=4, oracle=oracle)
        made.setup("fit")
        made.fingerprint = f"{shade}"
        made.answers_file = tmp_path / "answers.pt"
        return made

    assert data(1).ask(torch.tensor([5, 3])).tolist() == [2, 0]
    assert data(1).ask(torch.tensor([3, 7, 5])).tolist() == [0, 1, 2]
    assert asked == [5, 3, 7]
    assert data(2).ask(torch.tensor([3])).tolist() == [0]  # other images
    assert asked == [5, 3, 7, 3]
