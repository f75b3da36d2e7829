"""The map of W for TensorBoard's projector."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from google.protobuf import text_format
from helpers import RUN, SMALL
from killed import ran
from PIL import Image
from tensorboard.plugins.projector import EmbeddingInfo, ProjectorConfig

from baldvae_pl import Digits
from baldvae_pl.loop.projector import DIMENSIONS, SIDE, Map, small, sprites, write_map


@pytest.fixture(scope="module")
def run(finished_run: Path) -> Path:
    return finished_run / RUN


@pytest.fixture(scope="module")
def points(run: Path) -> EmbeddingInfo:
    text = (run / "projector_config.pbtxt").read_text()
    (found,) = text_format.Parse(text, ProjectorConfig()).embeddings
    return found


@pytest.fixture(scope="module")
def about(run: Path, points: EmbeddingInfo) -> pd.DataFrame:
    return pd.read_csv(run / points.metadata_path, sep="\t")


def test_the_map_shows_the_last_purchase_among_labelled_and_unlabelled_images(
    run: Path, about: pd.DataFrame
) -> None:
    table = pd.read_csv(run / "acquisitions.csv")
    bought = table[table["kind"] != "complement"].set_index("index")
    pools = about.set_index("image")["pool"]
    assert pools.index.is_unique
    assert set(pools.index[pools == "bought now"]) == set(bought.index[bought["round"] == 3])
    assert set(pools.index[pools == "labelled"]) == set(bought.index[bought["round"] < 3])
    assert not set(pools.index[pools == "unlabelled"]) & set(bought.index)
    assert pools.value_counts().to_dict() == {"unlabelled": 400, "labelled": 65, "bought now": 25}
    ours = about[about["pool"] == "bought now"].set_index("image")
    scores = bought.loc[ours.index, "score"]
    assert ours["BALD"].to_numpy() == pytest.approx(scores.to_numpy(), abs=1e-4)
    assert (bought.loc[ours.index, "label"] == ours["class"]).all()


def test_a_point_has_its_picture_and_what_the_trunk_makes_of_it(
    run: Path, points: EmbeddingInfo, about: pd.DataFrame
) -> None:
    images = Digits()(run).train.images[about["image"].to_numpy()]
    width, height = points.sprite.single_image_dim
    sheet = np.asarray(Image.open(run / points.sprite.image_path))
    columns = sheet.shape[1] // width
    for place in (0, 1, columns, len(about) - 1):
        row, column = divmod(place, columns)
        shown = sheet[row * height : (row + 1) * height, column * width : (column + 1) * width]
        assert (shown == images[place, 0].numpy()).all()
    vectors = np.loadtxt(run / points.tensor_path, delimiter="\t")
    assert vectors.shape == (len(about), DIMENSIONS)
    spread = vectors.std(0)
    assert (np.diff(spread) <= 1e-3 * spread[0]).all()  # principal components, the widest first


def test_a_pool_may_be_smaller_than_the_dimensions_of_the_map(tmp_path: Path) -> None:
    few = ["--data.source.subset=21", "--data.batch_size=8", "--vae.batch_size=8"]
    few += ["--acquisition.query_size=3", "--acquisition.rounds=2"]
    done = ran(*SMALL, *few, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    about = pd.read_csv(tmp_path / RUN / "projector" / "about.tsv", sep="\t")
    assert about["pool"].value_counts().to_dict() == {"labelled": 18, "bought now": 3}
    assert about["trained with from round"].value_counts().to_dict() == {0: 15, 1: 3, 2: 3}
    vectors = np.loadtxt(tmp_path / RUN / "projector" / "vectors.tsv", delimiter="\t")
    assert vectors.shape == (21, 21)


@pytest.mark.parametrize(("side", "count", "channels"), [(8, 5, 1), (64, 4, 3), (40, 1, 3)])
def test_large_pictures_are_made_smaller(side: int, count: int, channels: int) -> None:
    colours = torch.arange(count, dtype=torch.uint8)[:, None, None, None] * 40
    pictures = small(colours.expand(count, channels, side, side), torch.arange(count).flip(0))
    less = min(side, SIDE)
    assert pictures.shape == (count, channels, less, less)
    columns = int(np.ceil(np.sqrt(count)))
    sheet = sprites(pictures)
    assert sheet.size == (columns * less, columns * less)
    pixels = np.asarray(sheet).reshape(columns, less, columns, less, -1)
    for place in range(count):
        row, column = divmod(place, columns)
        assert (pixels[row, :, column] == 40 * (count - 1 - place)).all()


def test_a_name_that_is_no_text_is_written_so_that_a_browser_can_read_it(tmp_path: Path) -> None:
    about = pd.DataFrame({"class": ["a\tb", "c"], "image": ["\udcff.png", "x.png"]})
    pictures = torch.zeros(2, 3, 4, 7, dtype=torch.uint8)
    write_map(Map(np.eye(2), about, pictures), tmp_path)
    read = pd.read_csv(tmp_path / "projector" / "about.tsv", sep="\t")
    assert read["class"].tolist() == ["a\tb", "c"]
    assert read["image"].tolist() == ["\\udcff.png", "x.png"]
    config = (tmp_path / "projector_config.pbtxt").read_text()
    (entry,) = text_format.Parse(config, ProjectorConfig()).embeddings
    assert [*entry.sprite.single_image_dim] == [7, 4]
