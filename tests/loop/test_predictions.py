"""`baldvae predict` and `baldvae test` on a trained run, against the definitions."""

import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers import SMALL, refusal, rounds_of
from killed import ran
from PIL import Image

from baldvae_pl.acquisition import bald
from baldvae_pl.data.batches import to_floats
from baldvae_pl.data.sources import Digits
from baldvae_pl.epig import EPIG
from baldvae_pl.main import main
from baldvae_pl.networks import DigitsNet
from baldvae_pl.posterior import DropoutDraws
from baldvae_pl.seeding import Purpose, make_generator

pytestmark = pytest.mark.xdist_group("predictions")  # makes the run once

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]

SPELLED = f"""
from baldvae_pl.data.sources import Digits

def spelled(root):
    return Digits()(root)._replace(classes={NAMES})
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run on digits, and 100 of its test images as files."""
    here = tmp_path_factory.mktemp("run")
    (here / "spelled.py").write_text(SPELLED)
    options = ["--data.source=spelled.spelled", "--seed_everything=3", "--data.steps_per_round=60"]
    done = ran(*SMALL, *options, cwd=here)
    assert done.returncode == 0, done.stderr
    (here / "new" / "deep").mkdir(parents=True)
    for number, image in enumerate(Digits()(here).test.images[:100, 0].numpy()):
        folder = here / "new" / ("deep" if number % 2 else ".")
        Image.fromarray(image).save(folder / f"{number:02}.png")
    return here


@pytest.fixture
def trained(run: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options that name the run, in its folder."""
    monkeypatch.chdir(run)
    monkeypatch.setattr(sys, "argv", ["baldvae"])
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("HOME", str(run))  # the cache
    last = run / "lightning_logs/digits/version_0/checkpoints/last.ckpt"
    config = run / "lightning_logs/digits/version_0/config.yaml"
    return [f"--config={config}", f"--ckpt_path={last}", *QUIET]


def expected_rows(run: Path) -> pd.DataFrame:
    """Predictions by the definitions, from the checkpoint's weights and masks."""
    last = run / "lightning_logs/digits/version_0/checkpoints/last.ckpt"
    state = torch.load(last, weights_only=True)["state_dict"]
    network = DigitsNet()
    network.load_state_dict({key.removeprefix("network."): w for key, w in state.items()})
    files = [f"{n:02}.png" for n in range(0, 100, 2)] + [
        f"deep/{n:02}.png" for n in range(1, 100, 2)
    ]
    images = torch.stack([Digits()(run).test.images[int(file[-6:-4])] for file in files])
    draws = DropoutDraws(network, 4, make_generator(3, 3, Purpose.POSTERIOR))
    log_probs_N_T_C = draws(to_floats(images))
    mean_N_C = log_probs_N_T_C.exp().mean(1)
    return pd.DataFrame(
        {
            "file": files,
            "class": [NAMES[number] for number in mean_N_C.argmax(1).tolist()],
            "probability": mean_N_C.max(1).values.tolist(),
            "entropy": torch.special.entr(mean_N_C).sum(-1).tolist(),
            "bald": bald(log_probs_N_T_C).tolist(),
        }
    ).sort_values("file", ignore_index=True)


def test_predict_writes_a_row_an_image(run: Path, trained: list[str]) -> None:
    before = {path: path.read_bytes() for path in run.rglob("version_0/**/*") if path.is_file()}
    main(["predict", *trained, "--predictions.folder=new"])
    found = pd.read_csv("predictions.csv")
    pd.testing.assert_frame_equal(found, expected_rows(run), rtol=1e-5, atol=1e-6)
    assert found["class"].nunique() > 2
    after = {path: path.read_bytes() for path in run.rglob("version_0/**/*") if path.is_file()}
    assert after == before  # the run is as it was


def test_predict_needs_neither_the_images_of_the_run_nor_its_seed(
    run: Path, trained: list[str]
) -> None:
    options = ["--data.source=MNIST", "--data.root=nowhere", "--seed_everything=8"]
    main(["predict", *trained, *options, "--predictions.folder=new", "--predictions.file=o.csv"])
    pd.testing.assert_frame_equal(pd.read_csv("o.csv"), expected_rows(run), rtol=1e-5, atol=1e-6)


def test_predict_sorts_by_bald(run: Path, trained: list[str]) -> None:
    main(["predict", *trained, "--predictions.folder=new", "--predictions.sort_by=bald"])
    found = pd.read_csv("predictions.csv")
    expected = expected_rows(run).sort_values("bald", ascending=False, ignore_index=True)
    assert found["bald"].is_monotonic_decreasing
    pd.testing.assert_frame_equal(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "sort_by",
    [
        "margin",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("max_entropy", "least_confidence")
        ),
    ],
)
def test_any_function_ranks(run: Path, trained: list[str], sort_by: str) -> None:
    folder = ["--predictions.folder=new", "--acquisition.function=margin"]
    main(["predict", *trained, *folder, f"--predictions.sort_by={sort_by}"])
    found, expected = pd.read_csv("predictions.csv"), expected_rows(run)
    column = "entropy" if sort_by == "max_entropy" else sort_by
    assert found[column].is_monotonic_decreasing
    assert "margin" in found  # of the run's function
    both = found.merge(expected, on="file", suffixes=("", "_expected"))
    assert len(both) == 100
    assert both["bald"].to_numpy() == pytest.approx(both["bald_expected"].to_numpy(), abs=1e-6)
    if sort_by == "least_confidence":
        assert found[column].to_numpy() == pytest.approx(1 - found["probability"], abs=1e-6)


def test_epig_takes_its_targets_from_the_folder(run: Path, trained: list[str]) -> None:
    """All of the folder, as it has no more images than there are to be targets."""
    options = ["--predictions.folder=new", "--data.scoring_batch_size=7"]
    main(["predict", *trained, *options, "--predictions.sort_by=EPIG"])
    found = pd.read_csv("predictions.csv")
    assert found["EPIG"].is_monotonic_decreasing
    last = run / "lightning_logs/digits/version_0/checkpoints/last.ckpt"
    network = DigitsNet()
    state = torch.load(last, weights_only=True)["state_dict"]
    network.load_state_dict({key.removeprefix("network."): w for key, w in state.items()})
    images = torch.stack([Digits()(run).test.images[int(file[-6:-4])] for file in found["file"]])
    draws = DropoutDraws(network, 4, make_generator(3, 3, Purpose.POSTERIOR))
    log_probs_N_T_C = draws(to_floats(images))
    expected = EPIG().given(log_probs_N_T_C)(log_probs_N_T_C)
    assert found["EPIG"].to_numpy() == pytest.approx(expected.numpy(), abs=1e-5)
    main(["predict", *trained, *options, "--acquisition.function=EPIG"])
    again = pd.read_csv("predictions.csv")
    assert again.merge(found, on="file")["EPIG_x"].tolist() == pytest.approx(
        again.merge(found, on="file")["EPIG_y"].tolist(), abs=1e-6
    )


def test_a_function_of_another_shape_is_named(trained: list[str]) -> None:
    Path("wide.py").write_text("def wide(log_probs_N_T_C):\n    return log_probs_N_T_C[0, :, 0]\n")
    options = ["--predictions.folder=new", "--predictions.sort_by=wide.wide"]
    assert "--predictions.sort_by wide: RuntimeError" in refusal("predict", *trained, *options)


def test_unreadable_images_are_left_out_on_request(run: Path, trained: list[str]) -> None:
    Path("mixed").mkdir()
    Path("mixed/broken.png").write_bytes(b"x")
    Path("mixed/a note.txt").write_text("x")
    shutil.copy("new/02.png", "mixed/02.png")
    options = [
        "--predictions.skip_unreadable=true",
        "--predictions.cache_folder=there",
        "--predictions.file=m.csv",
    ]
    main(["predict", *trained, *options, "--predictions.folder=mixed"])
    found, expected = pd.read_csv("m.csv"), expected_rows(run)
    assert found["file"].tolist() == ["02.png"]
    assert found["bald"].item() == pytest.approx(
        expected["bald"][expected["file"] == "02.png"].item(), abs=1e-6
    )
    assert len([path for path in Path("there").iterdir() if path.suffix != ".lock"]) == 1


def test_small_batches_change_nothing(run: Path, trained: list[str]) -> None:
    main(["predict", *trained, "--predictions.folder=new", "--data.scoring_batch_size=7"])
    expected = expected_rows(run)
    pd.testing.assert_frame_equal(pd.read_csv("predictions.csv"), expected, rtol=1e-5, atol=1e-6)


def test_two_processes_predict_each_image_once(run: Path, trained: list[str]) -> None:
    ddp = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]
    options = ["--predictions.folder=new", "--data.scoring_batch_size=30"]
    done = ran("predict", *trained, *ddp, *options, cwd=run)
    assert done.returncode == 0, done.stderr
    expected = expected_rows(run)
    pd.testing.assert_frame_equal(pd.read_csv("predictions.csv"), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "--predictions.folder: predict needs a folder"),
        (["--predictions.folder=gone"], "--predictions.folder: 'gone' cannot be read"),
        (["--predictions.folder=empty"], "--predictions.folder: there is no image in 'empty'"),
        (["--predictions.folder=broken"], "1 of 1 images in 'broken' cannot be read: x.png"),
        (["--predictions.folder=new", "--predictions.file=no/p.csv"], "there is no folder 'no'"),
        (["--predictions.folder=new", "--ckpt_path=null"], "--ckpt_path: predict needs"),
        (
            ["--predictions.folder=new", "--model.network=baldvae_pl.networks.MNISTNet"],
            "are of another network",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_predicted_is_one_sentence(
    options: list[str], words: str, trained: list[str]
) -> None:
    Path("predictions.csv").unlink(missing_ok=True)
    for name in ("empty", "broken"):
        Path(name).mkdir(exist_ok=True)
    Path("broken/x.png").write_bytes(b"x")
    with pytest.raises(SystemExit) as caught:
        main(["predict", *trained, *options])
    assert words in str(caught.value.code)
    assert not Path("predictions.csv").exists()


def test_testing_prints_both_ways_of_predicting(
    run: Path, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["test", *trained])
    table = capsys.readouterr().out
    printed = {}
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.split("│")]
        if len(cells) == 4 and cells[1].startswith("test/"):
            printed[cells[1].replace("/", "_")] = float(cells[2])
    row = rounds_of(run / "lightning_logs/digits/version_0").iloc[-1]
    names = {f"test_{m}{mc}" for m in ("acc", "nll", "ece") for mc in ("", "_mc")}
    assert printed.keys() == names
    for name in names:
        assert printed[name] == pytest.approx(row[name], rel=1e-5), name
    events = list(Path("lightning_logs/digits/version_0/test").glob("events*"))
    assert events
