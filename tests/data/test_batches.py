"""Batches of a round and of a test, and the formats of images."""

import threading
from itertools import chain
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baldvae_pl.data.batches import (
    Gather,
    RoundBatches,
    TestBatches,
    images_at_once,
    like_w,
    read_ahead,
    to_floats,
)
from baldvae_pl.data.images import Images
from baldvae_pl.seeding import Purpose


def numbered(numbers: range) -> Images:
    """Images whose every pixel is their number; labels go round three classes."""
    labels = torch.arange(numbers.start, numbers.stop)
    images = labels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    return Images(images, labels % 3)


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


def test_gather_takes_vectors_as_they_are() -> None:
    parts = [Images(torch.randn(n, 5), torch.arange(n)) for n in (4, 3)]
    images, labels = Gather(*parts)[torch.tensor([6, 0, 3, 4])]
    assert images.dtype == torch.float32
    assert torch.equal(images, torch.cat([parts[1].images, parts[0].images])[[2, 3, 6, 0]])
    assert labels.tolist() == [2, 0, 3, 0]


# Batches of a test


@pytest.mark.parametrize(("size", "batch_size", "world_size"), [(10, 3, 1), (10, 3, 3), (7, 9, 4)])
def test_test_images_are_shared_out_once_in_equally_many_batches(
    size: int, batch_size: int, world_size: int
) -> None:
    shares = [list(TestBatches(size, batch_size, (r, world_size))) for r in range(world_size)]
    assert sorted(torch.cat([x for share in shares for x in share]).tolist()) == [*range(size)]
    assert len({len(share) for share in shares}) == 1
    assert all(1 <= len(batch) <= batch_size for share in shares for batch in share)


@pytest.mark.parametrize(
    ("numbers", "expected"), [(1, 4096), (1024, 4096), (3072, 1365), (10**5, 41), (10**9, 1)]
)
def test_as_many_images_at_once_as_fit_into_16_mb(numbers: int, expected: int) -> None:
    assert images_at_once(numbers) == expected


# Formats


def test_every_8_bit_level_survives_the_way_to_floats_and_back() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    floats = to_floats(images)
    assert (floats.dtype, floats.min(), floats.max()) == (torch.float32, 0, 1)
    torch.testing.assert_close(floats.flatten(), torch.arange(256) / 255)
    back = like_w(floats, torch.uint8)
    assert back.dtype == torch.uint8
    assert torch.equal(back, images)


def test_floats_are_rounded_to_the_nearest_grey_level_and_clamped() -> None:
    pixels = torch.tensor([-3, -1e-6, 0.49, 0.51, 99.6, 254.49, 254.51, 255.1, 1000]) / 255
    assert like_w(pixels, torch.uint8).tolist() == [0, 0, 0, 1, 100, 254, 255, 255, 255]


def test_vectors_are_their_own_floats_and_never_rounded_nor_clamped() -> None:
    vectors = torch.tensor([[-3.5, 0.123456, 1000]])
    assert to_floats(vectors) is vectors
    assert torch.equal(like_w(vectors, torch.float32), vectors)
    of_half_precision = like_w(vectors.bfloat16(), torch.float32)
    assert of_half_precision.dtype == torch.float32
    torch.testing.assert_close(of_half_precision, vectors.bfloat16().float(), rtol=0, atol=0)


@given(st.integers(1, 30), st.integers(1, 9), st.booleans())
def test_what_is_read_ahead_is_what_is_there(count: int, size: int, by_index: bool) -> None:
    images = torch.rand(count, 1, 2, 2)
    order = torch.randperm(count)
    slices = [slice(start, start + size) for start in range(0, count, size)]
    parts = [order[part] for part in slices] if by_index else slices
    read = [*read_ahead(images, parts)]
    assert len(read) == len(parts)
    for part, batch in zip(parts, read, strict=True):
        assert torch.equal(batch, images[part])


def test_the_next_part_is_read_while_one_works_with_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = numbered(range(6)).images
    begun = [threading.Event() for _ in range(3)]
    make = torch.from_numpy

    def notice(read: Any) -> torch.Tensor:
        begun[int(read[0, 0, 0, 0]) // 2].set()
        return make(read)

    before = {*threading.enumerate()}
    monkeypatch.setattr(torch, "from_numpy", notice)
    batches = read_ahead(images, [slice(0, 2), slice(2, 4), slice(4, 6)])
    assert next(batches)[:, 0, 0, 0].tolist() == [0, 1]
    assert begun[1].wait(timeout=60)
    assert not begun[2].is_set()  # memory holds one part more, and not two
    assert next(batches)[:, 0, 0, 0].tolist() == [2, 3]
    assert begun[2].wait(timeout=60)
    batches.close()  # as when the work fails
    assert {*threading.enumerate()} == before
