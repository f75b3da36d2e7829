"""Folders of images: what is found, how it is decoded, and the cache."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from baldvae_pl.data import image_folder
from baldvae_pl.data.image_folder import DecodedFolder, decode, find_images, read_images
from baldvae_pl.errors import SettingError

SHAPE = (3, 4, 4)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, pixels: np.ndarray | Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def read(
    folder: Path, shape: tuple[int, int, int] = SHAPE, skip: bool = False, cache: str = "cache"
) -> DecodedFolder:
    """Read with a cache beside the folder."""
    found = find_images(folder, "--data.root")
    cache = str(folder.parent / cache)
    return read_images(folder, found, shape, skip, cache, "--data.root", "--data.source")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images, named so that their order is not that of their making."""
    for number, name in enumerate(["b/2.png", "a/10.png", "b/1.png"]):
        save(tmp_path / "images" / name, noise(4, 4, 3, seed=number))
    return tmp_path / "images"


# Decoding


def rgb_of_grey(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[None], 3, 0)


def test_lossless_images_keep_their_pixels(tmp_path: Path) -> None:
    pixels = noise(4, 4, 3)
    for end in ("png", "bmp", "tif", "ppm", "webp"):
        path = save(tmp_path / f"x.{end}", pixels, **({"lossless": True} if end == "webp" else {}))
        assert np.array_equal(decode(path, SHAPE), pixels.transpose(2, 0, 1)), end


def test_grey_and_colour_become_what_is_asked_for(tmp_path: Path) -> None:
    grey = noise(4, 4)
    path = save(tmp_path / "grey.png", grey)
    assert np.array_equal(decode(path, (1, 4, 4)), grey[None])
    assert np.array_equal(decode(path, SHAPE), rgb_of_grey(grey))
    colour = noise(4, 4, 3)
    luma = np.array(Image.fromarray(colour).convert("L"))  # ITU-R 601-2
    assert np.array_equal(decode(save(tmp_path / "c.png", colour), (1, 4, 4)), luma[None])


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    image = Image.fromarray((noise(4, 4) % 4).astype(np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    expected = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]])[np.array(image)]
    for end in ("png", "gif"):
        path = save(tmp_path / f"x.{end}", image)
        assert np.array_equal(decode(path, SHAPE), expected.transpose(2, 0, 1)), end


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    pixels = noise(4, 4, 4)
    pixels[..., 3] = [[0, 255, 0, 255]] * 4
    expected = np.where(pixels[..., 3:] == 0, 255, pixels[..., :3])
    assert np.array_equal(
        decode(save(tmp_path / "x.png", pixels), SHAPE), expected.transpose(2, 0, 1)
    )
    half = np.full((4, 4, 2), [0, 51], np.uint8)  # a fifth of black on white
    grey = Image.fromarray(half, "LA")
    assert np.array_equal(
        decode(save(tmp_path / "la.png", grey), (1, 4, 4)), np.full((1, 4, 4), 204)
    )


def test_cmyk_and_one_bit(tmp_path: Path) -> None:
    cyan = Image.new("CMYK", (4, 4), (255, 0, 0, 0))
    found = decode(save(tmp_path / "x.tif", cyan), SHAPE)
    assert np.array_equal(found, np.broadcast_to([[[0]], [[255]], [[255]]], SHAPE))
    bits = noise(4, 4) > 127
    path = save(tmp_path / "x.png", Image.fromarray(bits))
    assert np.array_equal(decode(path, SHAPE), rgb_of_grey(bits * np.uint8(255)))


def test_sixteen_bits_and_floats_are_scaled_to_eight(tmp_path: Path) -> None:
    grey = noise(4, 4)
    for end in ("png", "tif"):
        path = save(tmp_path / f"x.{end}", Image.fromarray(grey.astype(np.uint16) * 257))
        assert np.array_equal(decode(path, (1, 4, 4)), grey[None]), end
    values = grey.astype(np.float32) / 255
    values[0, 0] = 7  # beyond white
    path = save(tmp_path / "f.tif", Image.fromarray(values))
    grey[0, 0] = 255
    assert np.array_equal(decode(path, (1, 4, 4)), grey[None])


def test_the_first_frame_of_an_animation_counts(tmp_path: Path) -> None:
    frames = [Image.fromarray(noise(4, 4, seed=seed)) for seed in range(3)]
    path = save(tmp_path / "x.gif", frames[0], save_all=True, append_images=frames[1:])
    assert np.array_equal(decode(path, (1, 4, 4))[0], np.array(frames[0]))


def test_a_photograph_stands_upright(tmp_path: Path) -> None:
    pixels = noise(4, 4)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° clockwise
    path = save(tmp_path / "x.png", pixels, exif=exif)
    assert np.array_equal(decode(path, (1, 4, 4))[0], np.rot90(pixels, -1))


def test_the_centre_is_cropped_and_the_rest_scaled(tmp_path: Path) -> None:
    wide = noise(4, 10)
    assert np.array_equal(decode(save(tmp_path / "w.png", wide), (1, 4, 4))[0], wide[:, 3:7])
    high = noise(10, 4)
    assert np.array_equal(decode(save(tmp_path / "h.png", high), (1, 4, 4))[0], high[3:7])
    assert np.array_equal(decode(tmp_path / "w.png", (1, 4, 6))[0], wide[:, 2:8])  # not square
    blocks = noise(2, 2)
    large = blocks.repeat(80, 0).repeat(80, 1)
    found = decode(save(tmp_path / "large.png", large), (1, 4, 4))[0]
    assert np.abs(found[::3, ::3].astype(int) - blocks).max() <= 1  # the corners are one colour
    dot = np.array([[77]], np.uint8)
    assert np.array_equal(decode(save(tmp_path / "dot.png", dot), SHAPE), np.full(SHAPE, 77))
    line = np.full((1, 3000), 5, np.uint8)
    assert np.array_equal(decode(save(tmp_path / "line.png", line), SHAPE), np.full(SHAPE, 5))


def test_a_large_jpeg_looks_as_if_it_had_been_decoded_in_full(tmp_path: Path) -> None:
    y, x = np.mgrid[:480, :640]
    smooth = np.stack([y / 480, x / 640, (y + x) / 1120], -1) * 255
    path = save(tmp_path / "x.jpg", smooth.astype(np.uint8), quality=95)
    cropped = smooth[:, 80:560].reshape(16, 30, 16, 30, 3).mean((1, 3))
    assert np.abs(decode(path, (3, 16, 16)) - cropped.transpose(2, 0, 1)).max() < 6


# Finding


def test_images_are_found_by_name_at_any_depth_and_nothing_else(folder: Path) -> None:
    for name in ("notes.txt", ".hidden.png", ".cache/x.png", "a/._10.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    save(folder / "a" / "deep" / "UPPER.JPG", noise(4, 4))
    save(folder / "ünï 雪.png", noise(4, 4))
    save(folder / ("n" * 250 + ".png"), noise(4, 4))
    found = [image.path for image in find_images(folder, "--data.root")]
    names = ["a/10.png", "a/deep/UPPER.JPG", "b/1.png", "b/2.png", "n" * 250 + ".png", "ünï 雪.png"]
    assert found == names


def test_links_are_followed_but_not_in_circles(folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "1.png", noise(4, 4))
    (folder / "c").symlink_to(tmp_path / "elsewhere")
    (folder / "d").symlink_to(tmp_path / "elsewhere")  # twice is no circle
    paths = [image.path for image in find_images(folder, "--data.root")]
    assert paths == ["a/10.png", "b/1.png", "b/2.png", "c/1.png", "d/1.png"]
    (folder / "a" / "back").symlink_to(folder)
    with pytest.raises(SettingError, match=r"--data\.root: .*a/back is a link that leads back"):
        find_images(folder, "--data.root")


@pytest.mark.parametrize("name", ["missing", "a_file"])
def test_what_is_no_folder_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "a_file").write_text("x")
    with pytest.raises(SettingError, match=rf"--data\.predict_folder: .*{name}' cannot be read"):
        find_images(tmp_path / name, "--data.predict_folder")


# The cache


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

    monkeypatch.setattr(image_folder, "decode", never)
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


def test_a_decoding_that_is_broken_off_leaves_nothing_behind(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(image_folder, "decode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            read(folder)
    assert list((folder.parent / "cache").iterdir()) == []
    assert len(read(folder).images) == 3


def test_a_faster_process_is_no_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def too_late(self: Path, target: Path) -> Path:
        (Path(target) / "taken").mkdir(parents=True)
        for name in ("images", "index.json"):
            (Path(target) / name).write_bytes((self / name).read_bytes())
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", too_late)
    assert len(read(folder).images) == 3
    (entry,) = (folder.parent / "cache").iterdir()
    assert entry.name.startswith("images-")


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
