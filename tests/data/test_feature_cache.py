"""Vectors that a frozen network has made once are used again only if they are whole and its own."""

import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from baldvae_pl import Digits, Images, SettingError, Source
from baldvae_pl.data.feature_cache import BATCH, PIECE, Embedder
from baldvae_pl.data.module import PoolDataModule

CPU = torch.device("cpu")


class Projection(nn.Module):
    """Counts the images that it sees, and may die of them.

    Args:
        scale: Of its weights.
        dies_after: So many images.
    """

    def __init__(self, scale: float = 1.0, dies_after: float = float("inf")) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(scale * torch.randn(64, 3, generator=generator))
        self.dies_after, self.seen = dies_after, 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        if self.seen > self.dies_after:
            os._exit(9)
        return images.flatten(1) @ self.weight


@pytest.fixture(scope="module")
def digits() -> Source:
    return Digits()(Path())


def embedder(folder: Path, network: nn.Module | None = None) -> Embedder:
    return Embedder(lambda: network or Projection(), CPU, str(folder))


def vectors_of(source: Source, folder: Path, network: nn.Module | None = None) -> Tensor:
    return embedder(folder, network)(source.train.images, "digits", "W")


def seen(source: Source, folder: Path, scale: float = 1.0) -> int:
    """How many images the network has to see, but for the one that tells the length."""
    network = Projection(scale)
    vectors_of(source, folder, network)
    return network.seen - 1


def files_of(folder: Path) -> dict[str, bytes]:
    entries = [entry for entry in folder.iterdir() if entry.is_dir()]
    return {path.name: path.read_bytes() for entry in entries for path in entry.iterdir()}


def test_vectors_are_those_of_the_network_made_once(digits: Source, tmp_path: Path) -> None:
    made = vectors_of(digits, tmp_path)
    expected = (digits.train.images.float() / 255).flatten(1) @ Projection().weight
    torch.testing.assert_close(made, expected.detach())
    assert (made.dtype, made.requires_grad) == (torch.float32, False)
    assert seen(digits, tmp_path) == 0
    assert torch.equal(vectors_of(digits, tmp_path), made)


def test_who_changes_what_was_read_leaves_the_entry_alone(digits: Source, tmp_path: Path) -> None:
    vectors_of(digits, tmp_path).zero_()
    assert seen(digits, tmp_path) == 0


@pytest.mark.parametrize("dies_after", [1 + BATCH, 1 + PIECE, 1 + PIECE + BATCH, 1 + 2 * PIECE])
def test_a_killed_embedding_goes_on_where_it_was_to_the_same_bits(
    dies_after: int, digits: Source, tmp_path: Path
) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    dying = Projection(dies_after=dies_after)
    process = multiprocessing.get_context("fork").Process(
        target=vectors_of, args=(digits, killed, dying)
    )
    process.start()
    process.join()
    assert process.exitcode == 9
    done = (dies_after - 1) // PIECE * PIECE
    assert seen(digits, killed) == len(digits.train.labels) - done
    vectors_of(digits, whole)
    assert files_of(killed) == files_of(whole)


@pytest.mark.parametrize("file", ["vectors", "checksums"])
@pytest.mark.parametrize("how", ["changed", "cut", "gone"])
def test_a_damaged_piece_is_made_again_alone(
    file: str, how: str, digits: Source, tmp_path: Path
) -> None:
    vectors_of(digits, tmp_path)
    before = files_of(tmp_path)
    (path,) = tmp_path.glob(f"vectors-*/{file}")
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    if how == "cut":
        content = content[:-3]
    path.write_bytes(content)
    if how == "gone":
        path.unlink()
    size = len(digits.train.labels)
    assert seen(digits, tmp_path) == (size if how == "gone" else size % PIECE)
    assert files_of(tmp_path) == before


def test_other_weights_images_or_layers_are_another_entry(digits: Source, tmp_path: Path) -> None:
    size = len(digits.train.labels)
    assert seen(digits, tmp_path) == size
    assert seen(digits, tmp_path, scale=2) == size
    network = Projection()
    embedder(tmp_path, network)(digits.train.images, "others", "W")
    assert network.seen == 1 + size
    behind = embedder(tmp_path, nn.Sequential(Projection(), nn.ReLU()))
    assert behind(digits.train.images, "digits", "W").min() == 0
    assert len([*tmp_path.glob("vectors-*")]) == 4
    assert seen(digits, tmp_path) == 0


def test_an_address_in_what_python_says_of_a_network_does_not_tell_it_from_itself(
    tmp_path: Path,
) -> None:
    class Named(Projection):
        def extra_repr(self) -> str:
            return repr(object())

    assert embedder(tmp_path, Named()).key == embedder(tmp_path, Named()).key


def test_making_a_network_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    Embedder(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), CPU, str(tmp_path))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_source_of_vectors_keeps_its_pictures_labels_and_files(
    digits: Source, tmp_path: Path
) -> None:
    named = digits._replace(files=[str(i) for i in range(len(digits.train.labels))])
    source = embedder(tmp_path).source(named)
    assert source.pictures is digits.train.images
    assert source.train.labels is digits.train.labels
    assert (source.files, source.classes) == (named.files, named.classes)
    assert torch.equal(source.train.images, embedder(tmp_path)(digits.train.images, "x", "W"))
    torch.testing.assert_close(
        source.test.images,
        ((digits.test.images.float() / 255).flatten(1) @ Projection().weight).detach(),
    )
    prints = {
        embedder(tmp_path, Projection(scale)).source(of).fingerprint
        for scale in (1, 2)
        for of in (named, named._replace(fingerprint="another"))
    }
    assert len(prints) == 4


def test_without_test_images_there_are_no_vectors_of_them(digits: Source, tmp_path: Path) -> None:
    none = Images(digits.test.images[:0], digits.test.labels[:0])
    assert embedder(tmp_path).source(digits._replace(test=none)).test.images.shape == (0, 3)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Conv2d(1, 2, 3), r"numbers of shape \(1, 2, 6, 6\). It must return \(n, D\)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(9, 2)), "--data.embedding: RuntimeError: mat1"),
        (Projection(float("nan")), "NaN or infinite"),
    ],
)
def test_a_network_that_makes_no_vectors_is_refused(
    network: nn.Module, message: str, digits: Source, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=message):
        vectors_of(digits, tmp_path, network)


def test_vectors_are_not_embedded_again(digits: Source, tmp_path: Path) -> None:
    vectors = embedder(tmp_path).source(digits)
    with pytest.raises(SettingError, match="are vectors already"):
        embedder(tmp_path).source(vectors)


def test_a_cache_that_cannot_be_written_is_one_sentence(digits: Source, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match=r"cannot be kept in .* MB of room"):
        vectors_of(digits, tmp_path / "file")


def test_another_network_is_not_the_one_of_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    one, other, none = (PoolDataModule(embedding=e) for e in (Projection, twice, None))
    for data in (one, other, none):
        data.setup("fit")
    assert one.pool.image_shape == (3,)
    assert one.state_dict()["embedded"]["picture_shape"] == [1, 8, 8]
    one.check(one.state_dict())
    for data in (other, none):
        with pytest.raises(SettingError, match=r"--data.embedding: .* another network"):
            data.check(one.state_dict())


def twice() -> nn.Module:
    return Projection(2)
