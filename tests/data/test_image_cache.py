"""Decoded folders of images: made, kept, checked and made again."""

import errno
import hashlib
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import noise, save, three_images
from PIL import Image

from baldvae_pl.data import image_cache
from baldvae_pl.data.image_cache import DecodedFolder, read_images
from baldvae_pl.data.image_folder import find_images
from baldvae_pl.errors import SettingError

SHAPE = (3, 4, 4)


def read(
    folder: Path, shape: tuple[int, int, int] = SHAPE, skip: bool = False, cache: str = "cache"
) -> DecodedFolder:
    """Read with a cache beside the folder."""
    found = find_images(folder, "--data.root")
    cache = str(folder.parent / cache)
    return read_images(folder, found, shape, skip, cache, "--data.root", "--data.source")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return three_images(tmp_path / "images")


def test_images_are_decoded_in_order_and_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read(folder)
    assert first.files == ["a/10.png", "b/1.png", "b/2.png"]
    expected = torch.stack([torch.tensor(noise(4, 4, 3, seed=s)) for s in (1, 2, 0)])
    assert torch.equal(first.images, expected.permute(0, 3, 1, 2))
    assert first.fingerprint == hashlib.sha256(first.images.numpy().tobytes()).hexdigest()

    def never(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
        raise AssertionError("decoded again")

    monkeypatch.setattr(image_cache, "decode", never)
    again = read(folder)
    assert torch.equal(again.images, first.images)
    assert again[1:] == first[1:]


def test_processes_share_the_work_and_keep_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    for number in range(200):
        save(tmp_path / "many" / f"{number:03}.png", np.full((4, 4), number, np.uint8))
    (tmp_path / "many" / "100.png").write_bytes(b"no image")
    decoded = read(tmp_path / "many", skip=True)
    assert decoded.images[:, 0, 0, 0].tolist() == [n for n in range(200) if n != 100]
    assert decoded.files[99:101] == ["099.png", "101.png"]


@pytest.mark.parametrize("change", ["size", "time", "added", "removed", "shape"])
def test_a_change_is_seen(folder: Path, change: str) -> None:
    before = read(folder)
    path, shape, expected = folder / "a" / "10.png", SHAPE, 3
    if change == "size":
        save(path, noise(9, 9, 3))
    elif change == "time":  # another image of the same size
        about = path.stat()
        path.write_bytes((folder / "b" / "1.png").read_bytes()[: about.st_size])
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    elif change == "added":
        save(folder / "z.png", noise(4, 4))
        expected = 4
    elif change == "removed":
        path.unlink()
        expected = 2
    else:
        shape = (3, 2, 2)
    after = read(folder, shape)
    assert len(after.images) == expected
    assert after.fingerprint != before.fingerprint


def test_changing_the_images_in_memory_changes_no_file(folder: Path) -> None:
    images = read(folder).images
    before = images.clone()
    images.zero_()
    assert torch.equal(read(folder).images, before)


def entries(folder: Path) -> list[Path]:
    """Return what is in the cache beside a folder, but for locks."""
    return [path for path in (folder.parent / "cache").iterdir() if path.suffix != ".lock"]


def test_a_decoding_that_is_broken_off_leaves_nothing_behind(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(content: bytes, shape: tuple[int, int, int]) -> np.ndarray:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(image_cache, "decode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            read(folder)
    assert entries(folder) == []
    assert len(read(folder).images) == 3


WHAT_TIME_DOES: dict[str, Callable[[Path], object]] = {
    "no index": lambda entry: (entry / "index.json").unlink(),
    "no pixels": lambda entry: (entry / "images").unlink(),
    "nothing": lambda entry: [path.unlink() for path in entry.iterdir()],
    "half the pixels": lambda entry: os.truncate(entry / "images", 70),
    "half the index": lambda entry: os.truncate(entry / "index.json", 70),
    "another pixel": lambda entry: change(entry / "images", -1),
    "another name": lambda entry: change(entry / "index.json", 12),
    "an index of something else": lambda entry: (entry / "index.json").write_text("[1]"),
}


def change(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("what", WHAT_TIME_DOES)
def test_an_entry_that_is_not_whole_is_made_again(
    folder: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    before = read(folder)
    images = before.images.clone()
    (entry,) = entries(folder)
    assert "damaged" not in caplog.text
    WHAT_TIME_DOES[what](entry)
    after = read(folder)
    assert torch.equal(after.images, images)
    assert after[1:] == before[1:]
    assert caplog.text.count(f"{entry} is damaged, not all there") == 1
    caplog.clear()
    read(folder)
    assert "damaged" not in caplog.text


def test_what_killed_starts_have_left_is_removed(folder: Path) -> None:
    read(folder)
    (entry,) = entries(folder)
    shutil.rmtree(entry)
    own = image_cache.temporary_of(entry)
    dead = image_cache.temporary_of(entry.with_name("dead-0"))
    alive = image_cache.temporary_of(entry.with_name("alive-0"))
    foreign = entry.with_name(".somebody's.tmp")
    for path in (own, dead, alive, foreign):
        path.mkdir()
        (path / "images").write_text("half")
    with image_cache.lock_of(entry.with_name("alive-0")):
        read(folder)
    assert {*entries(folder)} == {entry, alive, foreign}


def test_other_users_may_read_a_cache(folder: Path) -> None:
    umask = os.umask(0o022)
    try:
        read(folder)
    finally:
        os.umask(umask)
    (entry,) = entries(folder)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (entry, *sorted(entry.iterdir()))] == [
        0o755,
        0o644,
        0o644,
    ]


def test_a_whole_entry_is_read_without_writing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(folder)

    def never(*args: object, **kwargs: object) -> None:
        raise OSError("read-only")

    for name in ("mkdir", "rename", "unlink", "touch"):
        monkeypatch.setattr(Path, name, never)
    monkeypatch.setattr(image_cache, "lock_of", never)
    assert len(read(folder).images) == 3


def test_a_process_that_is_faster_is_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    make, others = image_cache.decode_into, []

    def slowly(*args: Any) -> Any:
        others.append(threading.Thread(target=read, args=(folder,)))
        others[-1].start()
        while "Another process decodes" not in caplog.text:
            time.sleep(0.01)
        return make(*args)

    monkeypatch.setattr(image_cache, "decode_into", slowly)
    assert len(read(folder).images) == 3
    others[0].join(timeout=10)
    assert len(others) == 1  # it found the entry whole and decoded nothing
    assert not others[0].is_alive()


def test_a_cache_that_cannot_be_written_is_named(folder: Path) -> None:
    (folder.parent / "a_file").write_text("x")
    with pytest.raises(
        SettingError, match=r"--data\.source\.cache_folder: .*/a_file'.*0\.0 MB of room"
    ):
        read(folder, cache="a_file")


# What cannot be read


def break_image(path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Leave a broken image and return what is said of it."""
    pixels = noise(64, 64, 3)
    if how == "truncated":
        whole = save(path, pixels, quality=100).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        return "truncated"
    if how == "not an image":
        path.write_bytes(b"hello")
        return "not an image"
    if how == "empty":
        path.write_bytes(b"")
        return "not an image"
    if how == "bomb":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        save(path, pixels)
        return "decompression bomb"
    path.symlink_to(path.with_name("gone.jpg"))
    return "No such file"


@pytest.mark.parametrize("how", ["truncated", "not an image", "empty", "bomb", "broken link"])
def test_an_unreadable_image_is_named_or_left_out(
    how: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = break_image(folder / "a" / "broken.jpg", how, monkeypatch)
    for _ in range(2):  # decoded, and from the cache
        with pytest.raises(SettingError) as caught:
            read(folder)
        said = str(caught.value)
        assert said.startswith("--data.root: 1 of 4 images in ")
        assert "a/broken.jpg (" in said
        assert words in said
        assert "--data.source.skip_unreadable true" in said
    assert read(folder, skip=True).files == ["a/10.png", "b/1.png", "b/2.png"]


def test_of_many_unreadable_images_some_are_named(folder: Path) -> None:
    for number in range(5):
        (folder / f"{number}.png").write_bytes(b"x")
    with pytest.raises(SettingError, match=r"5 of 8 .*: 0\.png .*1\.png .*2\.png \(.*\), …\. Fix"):
        read(folder)


def test_a_folder_without_a_readable_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for _ in range(2):
        with pytest.raises(SettingError, match=r"--data\.root: there is no image in .*empty"):
            read(tmp_path / "empty", skip=True)
        (tmp_path / "empty" / "x.png").write_bytes(b"x")


def test_tiny_images_and_strange_names(tmp_path: Path) -> None:
    names = ["é 你好.png", "x" * 251 + ".png", "'\"; rm -rf.png"]
    for name in names:
        save(tmp_path / "images" / "ünïcode" / name, noise(1, 1, 3))
    decoded = read(tmp_path / "images")
    assert sorted(decoded.files) == sorted(f"ünïcode/{name}" for name in names)
    assert (decoded.images == decoded.images[:, :, :1, :1]).all()  # one pixel, scaled up


def test_what_could_not_be_read_is_tried_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, read_bytes, opened = read(folder).images.clone(), Path.read_bytes, Path.open
    shutil.rmtree(folder.parent / "cache")
    away = OSError(errno.EIO, "Input/output error")

    def fails(method: Any) -> Any:
        def maybe(self: Path, *args: Any, **kwargs: Any) -> Any:
            if self == folder / "a" / "10.png":
                raise away
            return method(self, *args, **kwargs)

        return maybe

    with monkeypatch.context() as share:
        share.setattr(Path, "read_bytes", fails(read_bytes))
        share.setattr(Path, "open", fails(opened))
        for _ in range(2):
            with pytest.raises(SettingError, match=r"1 of 3 .*: a/10\.png \(Input/output error\)"):
                read(folder)
        assert read(folder, skip=True).files == ["b/1.png", "b/2.png"]
    after = read(folder, skip=True)
    assert after.files == ["a/10.png", "b/1.png", "b/2.png"]
    assert torch.equal(after.images, whole)


def test_a_file_that_changes_while_it_is_read_is_not_kept(folder: Path) -> None:
    found = find_images(folder, "--data.root")
    with (folder / "a" / "10.png").open("ab") as file:
        file.write(b"more")
    options = (str(folder.parent / "cache"), "--data.root", "--data.source")
    with pytest.raises(SettingError, match=r"a/10\.png \(it changed while it was read\)"):
        read_images(folder, found, SHAPE, False, *options)
    assert len(read(folder).images) == 3


def test_broken_images_are_not_decoded_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "broken.png").write_bytes(b"x")
    read(folder, skip=True)
    monkeypatch.setattr(image_cache, "decode", None)
    assert len(read(folder, skip=True).files) == 3


def test_it_is_said_how_many_images_there_are_and_what_is_left_out(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for _ in range(2):
        caplog.clear()
        read(folder)
        assert caplog.messages == [f"{folder}: 3 images"]
    (folder / "broken.png").write_bytes(b"x")
    (folder / "photo.HEIC").write_bytes(b"x")
    save(folder / "@eaDir" / "1.png", noise(4, 4))
    for _ in range(2):
        caplog.clear()
        read(folder, skip=True)
        assert caplog.messages == [
            f"{folder}: 3 images; left out: unreadable images: 1 (broken.png (not an image)); "
            "hidden folders: 1 (@eaDir/); files .heic: 1"
        ]


def test_without_a_home_folder_the_setting_that_helps_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_home(self: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", no_home)
    found = find_images(folder, "--data.root")
    with pytest.raises(SettingError, match=r"^--predictions\.cache_folder: .*no home folder here"):
        read_images(folder, found, SHAPE, False, None, "--predictions.folder", "--predictions")
