"""A folder that people label, as a source of W."""

from pathlib import Path

import pytest
from pictures import noise, save

from baldvae_pl import UnlabelledFolder
from baldvae_pl.errors import SettingError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def fill(root: Path, *names: str) -> None:
    for seed, name in enumerate(names):
        save(root / name, noise(8, 8, 3, seed=seed))


def test_a_plain_folder_is_all_of_w_at_any_depth(tmp_path: Path) -> None:
    fill(tmp_path / "p", "b.png", "a/c.jpg", "test/cat/d.png")
    source = UnlabelledFolder()(tmp_path / "p")
    assert source.files == ["a/c.jpg", "b.png", "test/cat/d.png"]
    assert source.train.labels.tolist() == [-1, -1, -1]
    assert len(source.test.labels) == 0
    assert source.classes == []
    assert source.labels_file == tmp_path / "p" / "labels.csv"


def test_class_folders_are_labels_that_are_there_already(tmp_path: Path) -> None:
    root = tmp_path / "p"
    fill(root, "unlabelled/x/a.png", "train/dog/b.png", "train/cat/c.png", "test/dog/d.png")
    fill(root, "other/e.png")
    source = UnlabelledFolder(classes=["otter"])(root)
    assert source.classes == ["otter", "cat", "dog"]
    assert source.files == ["train/cat/c.png", "train/dog/b.png", "unlabelled/x/a.png"]
    assert source.train.labels.tolist() == [1, 2, -1]
    assert source.test.labels.tolist() == [2]
    assert source.train.images.shape == (3, 3, 32, 32)


def test_parts_are_not_copied(tmp_path: Path) -> None:
    fill(tmp_path / "p", "unlabelled/a.png", "test/dog/d.png", "test/cat/d.png")
    source = UnlabelledFolder()(tmp_path / "p")
    storages = {part.images.untyped_storage().data_ptr() for part in (source.train, source.test)}
    assert len(storages) == 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/a.png", "unlabelled/b.png"], r"a\.png lies in no class folder"),
        (["test/dog/a.png", "train/readme.txt"], "there is no image to label"),
        (["train/dog/a.png", "train/Dog/b.png"], "'dog' differs from the class 'Dog' in case"),
        (["line\nbreak.png"], "has a line break"),
    ],
)
def test_what_cannot_be_labelled_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        if name.endswith(".png"):
            fill(tmp_path / "p", name)
        else:
            (tmp_path / "p" / name).parent.mkdir(parents=True)
    with pytest.raises(SettingError, match=message):
        UnlabelledFolder()(tmp_path / "p")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="there is no folder"):
        UnlabelledFolder()(tmp_path / "none")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["cat", "cat"], "given twice"),
        (["cat", "CAT"], "'CAT' differs from the class 'cat'"),
        (["é", "e\u0301"], "given twice"),
        (["cat", ""], "can be printed"),
        (["cat", "cannot tell"], r"a word of labels\.csv"),
    ],
)
def test_classes_that_cannot_stand_side_by_side(classes: list[str], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        UnlabelledFolder(classes=classes)


def test_one_class_cannot_be_told_from_another(tmp_path: Path) -> None:
    fill(tmp_path / "p", "a.png")
    with pytest.raises(SettingError, match="'cat' alone cannot be told from another"):
        UnlabelledFolder(classes=["cat"])(tmp_path / "p")
