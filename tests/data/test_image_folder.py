"""What is found in a folder of images, and what is left out."""

import os
from pathlib import Path
from typing import Any

import pytest
from pictures import noise, save, three_images

from baldvae_pl.data.image_folder import find_images
from baldvae_pl.errors import SettingError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return three_images(tmp_path / "images")


def test_images_are_found_by_name_at_any_depth_and_nothing_else(folder: Path) -> None:
    for name in ("notes.txt", ".hidden.png", ".cache/x.png", "a/._10.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    save(folder / "a" / "deep" / "UPPER.JPG", noise(4, 4))
    save(folder / "ünï 雪.png", noise(4, 4))
    save(folder / ("n" * 250 + ".png"), noise(4, 4))
    found = [image.path for image in find_images(folder, "--data.root").images]
    names = ["a/10.png", "a/deep/UPPER.JPG", "b/1.png", "b/2.png", "n" * 250 + ".png", "ünï 雪.png"]
    assert found == names


def test_links_are_followed_but_not_in_circles(folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "1.png", noise(4, 4))
    (folder / "c").symlink_to(tmp_path / "elsewhere")
    (folder / "d").symlink_to(tmp_path / "elsewhere")  # twice is no circle
    paths = [image.path for image in find_images(folder, "--data.root").images]
    assert paths == ["a/10.png", "b/1.png", "b/2.png", "c/1.png", "d/1.png"]
    (folder / "a" / "back").symlink_to(folder)
    with pytest.raises(SettingError, match=r"--data\.root: .*a/back is a link that leads back"):
        find_images(folder, "--data.root")


@pytest.mark.parametrize("name", ["missing", "a_file"])
def test_what_is_no_folder_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "a_file").write_text("x")
    with pytest.raises(SettingError, match=rf"--data\.predict_folder: .*{name}' cannot be read"):
        find_images(tmp_path / name, "--data.predict_folder")


def test_thumbnails_of_systems_and_network_drives_are_no_images(folder: Path) -> None:
    hidden = [".thumbs", "@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX", "a/lost+found"]
    for name in hidden:
        save(folder / name / "1.png", noise(4, 4))
    found = find_images(folder, "--data.root")
    assert [image.path for image in found.images] == ["a/10.png", "b/1.png", "b/2.png"]
    assert found.left_out == ["hidden folders: 6 (#recycle/, $RECYCLE.BIN/, .thumbs/, …)"]


def test_what_is_left_out_is_counted_by_kind(folder: Path) -> None:
    assert find_images(folder, "--data.root").left_out == []
    for name in ("a.heic", "b.HEIC", "c.txt", "raw", ".DS_Store", "a/._10.png"):
        (folder / name).write_text("x")
    os.mkfifo(folder / "pipe.png")
    found = find_images(folder, "--data.root")
    assert len(found.images) == 3
    assert sorted(found.left_out) == [
        "files .heic: 2",
        "files .txt: 1",
        "files without an ending: 1",
        "hidden files: 2",
        "pipes, sockets and devices: 1",
    ]


def test_a_folder_below_that_cannot_be_read_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refuse(place: Path) -> Any:
        if Path(place).name == "b":
            raise PermissionError(13, "Permission denied")
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(SettingError, match=r"^--data\.root: '.*images/b' cannot be read .*rights"):
        find_images(folder, "--data.root")
