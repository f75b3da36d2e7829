"""Snapshots, and the page that is made of them: the numbers are those of the run's own tables."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import RUN, SMALL
from hypothesis import given, settings
from hypothesis import strategies as st
from killed import ran
from people import browser  # noqa: F401 (a fixture)
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torchmetrics.classification import MulticlassCalibrationError

from baldvae_pl.experiments.writing import COLUMNS
from baldvae_pl.loop.dashboard import ORDER, pixels
from baldvae_pl.loop.picturing import gallery, reliability_of
from baldvae_pl.main import main
from baldvae_pl.reports import figures
from baldvae_pl.reports.figures import KNOWN, style_of, svg, wins
from baldvae_pl.reports.galleries import MOST_ROUNDS, evenly
from baldvae_pl.reports.pictures import CAPTION, WIDTH, data_uri, sheet
from baldvae_pl.runs.folder import RunFolder
from baldvae_pl.runs.snapshots import BINS, MOST, Snapshot, read_snapshot


class Page(HTMLParser):
    """The elements of a page, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


def snapshots_of(run: RunFolder) -> list[Snapshot]:
    found = [read_snapshot(run.snapshot(number)) for number in range(4)]
    assert None not in found
    return [snapshot for snapshot in found if snapshot is not None]


def test_a_snapshot_says_what_the_tables_say(finished_run: Path) -> None:
    run = RunFolder(finished_run / RUN)
    rounds, bought = pd.read_csv(run.rounds), pd.read_csv(run.acquisitions)
    made = 0
    for number, snapshot in enumerate(snapshots_of(run)):
        table = snapshot.confusion_C_C
        assert table.sum() == snapshot.reliability[:, 0].sum() == 500
        accuracy = table.diagonal().sum() / table.sum()
        assert accuracy == pytest.approx(rounds["test_acc_mc"][number], abs=1e-6)
        right = (snapshot.reliability[:, 0] * snapshot.reliability[:, 2]).sum()
        assert right == pytest.approx(table.diagonal().sum())
        mine = bought[bought["round"] == number + 1]
        acquired = mine[mine["kind"] == "acquired"][:MOST]
        assert snapshot.bought.labels.tolist() == acquired["label"].tolist()
        assert snapshot.bought.scores == pytest.approx(acquired["score"].to_numpy(), rel=1e-5)
        if number < 3:
            assert snapshot.passed.scores.max() <= snapshot.bought.scores.min()
            assert len(snapshot.passed.scores) == MOST // 2
            assert (np.diff(snapshot.passed.scores) <= 0).all()
        assert (np.diff(snapshot.beliefs) >= 0).all()
        sure = snapshot.doubtful.labels == snapshot.doubtful.guesses
        assert snapshot.beliefs[sure] == pytest.approx(snapshot.doubtful.confidences[sure])
        assert (snapshot.beliefs[~sure] <= snapshot.doubtful.confidences[~sure]).all()
        complements = mine[mine["kind"] == "complement"].sort_values("score", ascending=False)
        shown = complements["score"].to_numpy()[: MOST // 2]
        assert snapshot.parents.scores == pytest.approx(shown, rel=1e-5)
        if 0 < len(complements) <= MOST // 2:
            made += len(complements)
            mean = rounds["complement_distance"][number]
            assert snapshot.distances.mean() == pytest.approx(mean, rel=1e-5)
            mean = rounds["complement_bald"][number]
            assert snapshot.complements.scores.mean() == pytest.approx(mean, rel=1e-3)
    assert made > 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(2, 5))
def test_the_reliability_diagram_holds_the_calibration_error(
    seed: int, count: int, classes: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    probs_N_C = (4 * torch.randn(count, classes, generator=generator)).softmax(1)
    labels_N = torch.randint(classes, (count,), generator=generator)
    table = reliability_of(probs_N_C, labels_N)
    assert table.shape == (BINS, 3)
    error = (table[:, 0] * (table[:, 1] - table[:, 2]).abs()).sum() / count
    peer = MulticlassCalibrationError(classes, n_bins=BINS)(probs_N_C, labels_N)
    assert float(error) == pytest.approx(float(peer), abs=1e-5)


def test_a_damaged_snapshot_is_none_and_the_page_does_without(
    finished_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished_run / RUN, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    for number, size in enumerate((0, 50, 2000)):
        path = run.snapshot(number)
        path.write_bytes(path.read_bytes()[:size])
        assert read_snapshot(path) is None
    run.acquisitions.unlink()
    main(["report", str(run.path)])
    text = run.report.read_text()
    assert "What was bought" not in text
    assert "Where it is wrong" in text


def test_the_page_is_one_file_that_says_what_the_run_came_to(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["report", str(finished_run / RUN), f"--out={tmp_path}"])
    assert str(tmp_path / "report.html") in capsys.readouterr().out
    text = (tmp_path / "report.html").read_text()
    assert len(text) < 5_000_000
    rounds = pd.read_csv(finished_run / RUN / "rounds.csv")
    assert f"<b>{rounds['test_acc'].iloc[-1]:.2%}</b>test accuracy at the end" in text
    assert f"<b>{rounds['complemented'].sum():.0f}</b>complements made" in text
    assert "Begun from digits + bald_vae, with seed 0." in text
    plugins = "function bald, selection TopK, complement Uncertain, posterior MCDropout"
    assert f"This run: {plugins}, T = 4; 25 images a round." in text
    bought = pd.read_csv(finished_run / RUN / "acquisitions.csv")
    for number, labels in enumerate((15, 40, 65)):
        mine = bought[(bought["round"] == number + 1) & (bought["kind"] == "acquired")]
        most, scores = mine["label"].value_counts(), mine["score"]
        assert (
            f"After round {number}, with {labels} labels: 25 bought, {most.max()} of class "
            f"{most.idxmax()}, BALD {scores.max():.2f} to {scores.min():.2f}" in text
        )
    page = Page(text)
    ids = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "iframe")
        if tag == "img":
            assert str(attributes["src"]).startswith("data:image/")
            assert attributes["alt"]
        if tag == "a" and str(attributes.get("href")).startswith("#"):
            assert str(attributes["href"])[1:] in ids
        if tag == "figure":
            assert len(str(attributes["aria-label"])) > 20
    outside = re.findall(r'(?:src|href|url)[=(]"?(https?:[^" )]+)', text)
    assert [address for address in outside if "w3.org" not in address] == []
    bought = sum(len(snapshot.bought.labels) for snapshot in snapshots_of(
        RunFolder(finished_run / RUN)
    ))  # fmt: skip
    assert sum(tag == "img" for tag, _ in page.elements) > bought > 0


def test_the_page_opens_in_a_browser_in_light_and_dark(
    finished_run: Path,
    tmp_path: Path,
    browser: object,  # noqa: F811
) -> None:
    main(["report", str(finished_run / RUN), f"--out={tmp_path}"])
    errors, inks = [], []
    for scheme in ("light", "dark"):
        page = browser.new_context(color_scheme=scheme).new_page()  # type: ignore[attr-defined]
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((tmp_path / "report.html").as_uri())
        inks.append(page.evaluate("getComputedStyle(document.querySelector('svg')).color"))
        broken = "[...document.images].filter(i => !i.naturalWidth).length"
        assert page.evaluate(broken) == 0
    assert errors == []
    assert len({*inks}) == 2


def test_a_run_that_is_not_begun_and_a_folder_without_runs_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="there is no rounds"):
        main(["report", str(tmp_path)])
    (tmp_path / "rounds.csv").write_text("round,labelled\n")
    with pytest.raises(SystemExit, match="is damaged"):
        main(["report", str(tmp_path)])


def test_tensorboard_tells_the_story_in_order_and_says_what_each_number_is(
    finished_run: Path,
) -> None:
    events = EventAccumulator(str(finished_run / RUN)).Reload()
    tags = sorted(tag for tag in events.Tags()["scalars"] if tag[0].isdigit())
    groups = [*dict.fromkeys(tag.split("/")[0].split(" ")[1] for tag in tags)]
    assert groups == [group for group in ORDER if group in groups]
    assert groups[0] == "test"
    for tag in tags:
        about = events.SummaryMetadata(tag).summary_description
        assert about.endswith("x: the number of labels.")
        assert len(about) > len("x: the number of labels.") + 10, tag
    assert [point.step for point in events.Scalars("1 test/acc")] == [15, 40, 65, 90]
    pictures = {tag for tag in events.Tags()["images"] if tag.startswith("images/")}
    assert "images/5 errors and reliability" in pictures
    assert len(pictures) == 6
    assert [point.step for point in events.Images("images/6 classes and seconds")] == [
        15,
        40,
        65,
        90,
    ]
    assert "custom_scalars__config__" in events.Tags()["tensors"]
    about = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    started = HParamsPluginData.FromString(about).session_start_info
    assert started.group_name == "digits/version_0, seed 0"
    assert started.hparams["function"].string_value == "bald"


def test_purchases_accuracy_and_seconds_are_drawn(finished_run: Path) -> None:
    folder = RunFolder(finished_run / RUN)
    rounds, acquisitions = pd.read_csv(folder.rounds), pd.read_csv(folder.acquisitions)
    snapshot = snapshots_of(folder)[-1]
    figure = figures.progress(rounds, acquisitions, snapshot)
    bought, right, time = figure.axes
    table = np.asarray(bought.images[0].get_array())
    labelled = acquisitions[acquisitions["kind"] != "complement"]
    assert table.shape == (10, 4)
    for round, label in zip(labelled["round"], labelled["label"], strict=True):
        table[label, round] -= 1
    assert not table.any()
    widths: list[float] = [bar.get_width() for bar in right.patches]  # type: ignore[attr-defined]
    confusion = snapshot.confusion_C_C
    assert widths == pytest.approx(100 * confusion.diagonal() / confusion.sum(1))
    assert [text.get_text() for text in right.texts] == [f"{width:.1f}" for width in widths]
    heights = sum(bar.get_height() for bar in time.patches)  # type: ignore[attr-defined]
    assert heights == pytest.approx(rounds.filter(like="seconds_").sum().sum())
    assert pixels(figure).shape == (400, 1400, 3)


def test_a_sheet_has_all_pictures_above_their_captions() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (11, 3, 100, 50), generator=generator, dtype=torch.uint8)
    probs = torch.rand(11, 3, generator=generator)
    labels = torch.tensor([-2, -1, *([1] * 9)])
    one = gallery(pixels, labels, torch.rand(11, generator=generator), probs)
    assert one.pictures.shape == (11, 64, 32, 3)
    assert one.guesses.tolist() == probs.argmax(1).tolist()
    drawn = sheet([one, one], ["cat", "dog", "something with a long name"])
    assert drawn.shape == (2 * 2 * (2 * WIDTH + CAPTION), 8 * (WIDTH + 8), 3)
    # The second gallery's first picture is below the first's.
    cell = 2 * WIDTH + CAPTION
    assert (
        drawn[: 2 * WIDTH, 4 : 4 + WIDTH] == drawn[cell : cell + 2 * WIDTH, 4 : 4 + WIDTH]
    ).all()


@pytest.mark.parametrize(("side", "kind"), [(8, "png"), (28, "png"), (48, "jpeg")])
def test_a_picture_in_a_page_is_the_picture(side: int, kind: str, tmp_path: Path) -> None:
    import base64

    pixels = np.full((side, side, 3), 200, dtype=np.uint8)
    head, data = data_uri(pixels).split(",")
    assert head == f"data:image/{kind};base64"
    (tmp_path / "x").write_bytes(base64.b64decode(data))
    with Image.open(tmp_path / "x") as read:
        assert np.abs(np.asarray(read.convert("RGB")).astype(int) - 200).max() <= 2


def test_of_many_rounds_some_are_shown_the_first_and_the_last_among_them() -> None:
    assert evenly([3, 5]) == [3, 5]
    assert evenly([]) == []
    some = evenly([*range(300)])
    assert len({*some}) == MOST_ROUNDS
    assert (some[0], some[-1]) == (0, 299)


@pytest.mark.slow
def test_two_processes_leave_the_snapshots_of_one(finished_run: Path, tmp_path: Path) -> None:
    done = ran(*SMALL, "--trainer.devices=2", "--trainer.accelerator=cpu",
               "--acquisition.rounds=1", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = RunFolder(tmp_path / RUN)
    rounds = pd.read_csv(run.rounds)
    for number in range(2):
        snapshot = read_snapshot(run.snapshot(number))
        assert snapshot is not None
        table = snapshot.confusion_C_C
        accuracy = table.diagonal().sum() / table.sum()
        assert accuracy == pytest.approx(rounds["test_acc_mc"][number], abs=1e-6)


def test_no_two_shipped_methods_look_alike_and_no_name_is_mathematics() -> None:
    configs = Path(__file__).parents[2] / "configs"
    shipped = {path.stem for path in configs.glob("methods/*.yaml")}
    assert shipped <= {*KNOWN}
    assert len({tuple(style_of(method).values()) for method in KNOWN}) == len(KNOWN)
    assert style_of("mine") == style_of("mine")
    share = pd.DataFrame([[np.nan, 1.0], [0.0, np.nan]], index=["$_$", "b"], columns=["$_$", "b"])
    assert "$_$" in svg(wins(share))


def test_predictions_that_are_no_numbers_do_not_end_a_round() -> None:
    table = reliability_of(torch.full((3, 2), torch.nan), torch.tensor([0, 1, 1]))
    assert table[0, 0] == 3


def test_a_byte_that_a_disk_has_changed_is_no_traceback(finished_run: Path, tmp_path: Path) -> None:
    path = RunFolder(finished_run / RUN).snapshot(1)
    content, sound = path.read_bytes(), read_snapshot(path)
    assert sound is not None
    noticed = 0
    generator = torch.Generator().manual_seed(0)
    for place in torch.randint(len(content), (60,), generator=generator).tolist():
        changed = bytearray(content)
        changed[place] ^= 0xFF
        (tmp_path / "x.npz").write_bytes(changed)
        found = read_snapshot(tmp_path / "x.npz")
        noticed += found is None
        if found is not None:  # a byte that nothing depends on, such as one of a date
            assert (found.confusion_C_C == sound.confusion_C_C).all()
            assert (found.bought.pictures == sound.bought.pictures).all()
    assert noticed > 30


def test_a_comparison_of_one_round_has_a_page_without_winners(tmp_path: Path) -> None:
    rows = pd.DataFrame({"method": ["bald_o", "<b>"], "test_acc": [0.5, 0.7]})
    rows = rows.assign(config="x", seed=0, round=0, labelled=10, unlabelled=5, generated=0)
    table = rows.reindex(columns=COLUMNS)
    table.to_csv(tmp_path / "runs.csv", index=False)
    main(["report", str(tmp_path)])
    text = (tmp_path / "report.html").read_text()
    assert "Who wins" not in text
    assert "&lt;b&gt;" in text
    assert "<b></b>" not in text
