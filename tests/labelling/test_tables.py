"""`baldvae labels`: what people have answered, for other tools."""

from pathlib import Path

import pandas as pd
import pytest
from helpers import refusal
from pictures import noise, save
from torchvision.datasets import ImageFolder

from baldvae_pl.data.labels import LabelsFile, Row
from baldvae_pl.main import main


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for seed, name in enumerate(["unlabelled/a.png", "unlabelled/x/a.png", "unlabelled/c.png"]):
        save(root / name, noise(4, 4, 3, seed=seed))
    save(root / "train/cat/d.png", noise(4, 4, 3, seed=7))
    save(root / "test/dog/e.png", noise(4, 4, 3, seed=8))
    rows = [
        Row("unlabelled/a.png", "dog", "Ann"),
        Row("unlabelled/x/a.png", "cat", "Ann", why="audit"),
        Row("unlabelled/c.png", "cannot tell", "Ann"),
        Row("unlabelled/gone.png", "cat", "Ann"),
        Row("unlabelled/a.png", "cat", "Ben"),
    ]
    LabelsFile(root / "labels.csv").append(rows)
    return root


def test_answers_are_counted(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["labels", str(photos)])
    assert capsys.readouterr().out.splitlines() == [
        "5 images, 4 with a class",
        "  cat: 2 train, 1 audit",
        "  dog: 1 test",
        "  cannot tell: 1",
        "1 answers are about files that are not here (unlabelled/gone.png)",
        "annotators disagree about 1 images, such as unlabelled/a.png (Ann: dog, Ben: cat). The "
        "last answer counts",
    ]


def test_a_table_has_a_row_an_image_with_a_class(photos: Path, tmp_path: Path) -> None:
    main(["labels", str(photos), "--table", str(tmp_path / "t.csv")])
    assert pd.read_csv(tmp_path / "t.csv").to_numpy().tolist() == [
        ["test/dog/e.png", "dog", "test"],
        ["train/cat/d.png", "cat", "train"],
        ["unlabelled/a.png", "cat", "train"],
        ["unlabelled/x/a.png", "cat", "audit"],
    ]


@pytest.mark.parametrize("options", [[], ["--copy"]], ids=["links", "copies"])
def test_a_tree_is_what_torchvision_reads(photos: Path, tmp_path: Path, options: list[str]) -> None:
    tree = tmp_path / "out" / "tree"
    main(["labels", str(photos), "--tree", str(tree), *options])
    dataset = ImageFolder(str(tree / "train"))
    assert dataset.classes == ["cat"]
    assert len(dataset) == 2
    assert [path.is_symlink() for path in tree.rglob("*.png")] == [not options] * 4
    audited = tree / "audit" / "cat" / "unlabelled" / "x" / "a.png"
    assert audited.read_bytes() == (photos / "unlabelled" / "x" / "a.png").read_bytes()
    assert "is not empty" in refusal("labels", str(photos), "--tree", str(tree))


def test_what_is_not_there_is_said(photos: Path, tmp_path: Path) -> None:
    assert "there is no such folder" in refusal("labels", str(tmp_path / "none"))
    (photos / "labels.csv").unlink()
    assert "there is no" in refusal("labels", str(photos))
