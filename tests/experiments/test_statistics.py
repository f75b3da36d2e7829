"""Tables of a comparison against numbers that were worked out by hand."""

import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from baldvae_pl.errors import SettingError
from baldvae_pl.experiments import statistics, writing
from baldvae_pl.experiments.writing import write

LABELS = [10, 20, 40]
CURVES = {  # by method, then by seed
    "bald_o": {0: [0.5, 0.7, 0.9], 1: [0.6, 0.8, 0.7], 2: [0.5, 0.6, 0.7]},
    "bald_vae": {0: [0.5, 0.8, 0.95], 1: [0.6, 0.7, 0.75], 2: [0.5, 0.65, 0.8]},
}


def rounds_of(curves: dict[str, dict[int, list[float]]]) -> pd.DataFrame:
    rows = [
        {
            "config": "mnist",
            "method": method,
            "seed": seed,
            "round": number,
            "labelled": labelled,
            "unlabelled": 100 - labelled,
            "test_acc": accuracy,
            "generated": number * (method == "bald_vae"),
        }
        for method, of_seeds in curves.items()
        for seed, accuracies in of_seeds.items()
        for number, (labelled, accuracy) in enumerate(zip(LABELS, accuracies, strict=True))
    ]
    return pd.DataFrame(rows)


ROUNDS = rounds_of(CURVES)
FULL = ROUNDS.iloc[:1].assign(method="all_labels", labelled=100, unlabelled=0, test_acc=0.99)


def test_curves_leave_out_what_was_trained_on_everything() -> None:
    both = pd.concat([ROUNDS, FULL])
    curves = statistics.curves(both)
    assert list(curves) == ["bald_o", "bald_vae"]
    assert curves["bald_o"].loc[20].tolist() == [0.7, 0.8, 0.6]
    assert statistics.ceiling(both) == 0.99
    assert statistics.ceiling(ROUNDS) is None


def test_the_area_is_the_mean_accuracy_over_labels() -> None:
    curve = pd.Series([0.5, 0.7, 0.9], index=LABELS)
    assert statistics.mean_accuracy(curve) == pytest.approx((10 * 0.6 + 20 * 0.8) / 30)


@pytest.mark.parametrize(
    ("accuracies", "drop"),
    [([0.5, 0.7, 0.9], 0), ([0.6, 0.8, 0.7], 0.1), ([0.9, 0.5, 0.6], 0.4), ([0.5], 0)],
)
def test_the_largest_drop_is_from_one_point_to_the_next(
    accuracies: list[float], drop: float
) -> None:
    curve = pd.Series(accuracies, index=LABELS[: len(accuracies)])
    assert statistics.largest_drop(curve) == pytest.approx(drop)


@pytest.mark.parametrize(
    ("level", "expected"),
    [(0.5, "≤ 10"), (0.7, "20"), (0.75, "> 40 (1 of 2 runs)"), (0.95, "> 40 (0 of 2 runs)")],
)
def test_runs_that_do_not_get_there_count_as_later_than_all(level: float, expected: str) -> None:
    table = pd.DataFrame({0: [0.5, 0.7, 0.9], 1: [0.5, 0.7, 0.7]}, index=LABELS)
    assert statistics.median_labels_needed(table, level) == expected


def test_a_median_that_was_reached_says_by_how_many() -> None:
    table = pd.DataFrame({0: [0.5, 0.7, 0.9], 1: [0.9, 0.7, 0.7], 2: [0.5] * 3}, index=LABELS)
    assert statistics.median_labels_needed(table, 0.9) == "40 (2 of 3 runs)"


def test_one_seed_has_no_interval_and_no_test() -> None:
    rounds = pd.DataFrame(
        {
            "method": ["bald_o"] * 2 + ["margin"] * 2,
            "seed": 0,
            "labelled": [10, 20] * 2,
            "unlabelled": 5,
            "generated": 0,
            "test_acc": [0.5, 0.6, 0.5, 0.8],
        }
    )
    table = statistics.differences(rounds, [10, 20], [("margin", "bald_o")])
    text = "\n".join(writing.explain(table, "bald_o"))
    assert "With one seed nothing says how much of them is chance." in text
    assert "|           20 |" in text
    assert "nan" not in text
    assert "Wilcoxon" not in text


def test_the_interval_is_students() -> None:
    values = np.array([1.0, 2.0, 4.0])
    low, high = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
    assert statistics.interval(values) == pytest.approx((high - low) / 2)
    assert math.isnan(statistics.interval(values[:1]))


def test_p_values_are_corrected_as_by_holm() -> None:
    p = np.array([0.01, 0.04, 0.03, 0.005])
    assert statistics.holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm(np.array([0.6, 0.9])) == pytest.approx([1, 1])
    assert len(statistics.holm(np.array([]))) == 0


PAIRS = [("bald_vae", "bald_o")]


def test_differences_are_paired_by_seed() -> None:
    found = statistics.differences(ROUNDS, LABELS, PAIRS).set_index("measure")
    assert found.index.tolist() == ["at 20", "at 40", "mean", "largest drop"]  # not the start
    assert found["method"].unique().tolist() == ["bald_vae"]
    assert found["from"].unique().tolist() == ["bald_o"]
    at_the_end = found.loc["at 40"]
    assert at_the_end["difference"] == pytest.approx((5 + 5 + 10) / 3)
    assert 5 <= at_the_end["low"] < at_the_end["difference"] < at_the_end["high"] <= 10
    assert at_the_end["p"] == pytest.approx(0.25)  # the smallest that three seeds allow
    assert found.loc["at 20", "difference"] == pytest.approx((10 - 10 + 5) / 3)
    assert found.loc["largest drop", "difference"] == pytest.approx(-10 / 3)
    assert (found["p corrected"] >= found["p"]).all()


def test_seeds_that_one_of_two_lacks_are_no_pairs() -> None:
    fewer = ROUNDS[(ROUNDS["method"] == "bald_o") | (ROUNDS["seed"] < 2)]
    found = statistics.differences(fewer, [40], PAIRS).set_index("measure")
    assert found.loc["at 40", "seeds"] == 2
    assert found.loc["at 40", "difference"] == pytest.approx(5)
    assert (found.loc["at 40", "low"], found.loc["at 40", "high"]) == pytest.approx((5, 5))


def test_equal_differences_are_ties() -> None:
    accuracies = {"bald_o": [0.9012, 0.8123, 0.7, 0.6, 0.5], "bald_vae": []}
    gains = [0.0123, 0.0123, 0.0123, -0.0123, 0.0123]
    accuracies["bald_vae"] = [a + d for a, d in zip(accuracies["bald_o"], gains, strict=True)]
    rounds = rounds_of(
        {m: {s: [0.1, a, 0.5] for s, a in enumerate(of)} for m, of in accuracies.items()}
    )
    found = statistics.differences(rounds, [20], PAIRS).set_index("measure")
    # By enumeration: 12 of the 32 signs of five equal ranks are at least as uneven as 4 to 1.
    assert found.loc["at 20", "p"] == pytest.approx(12 / 32)


def test_methods_are_compared_to_the_baseline_and_complements_to_copies() -> None:
    both = ("bald_vae", "duplicate")
    assert writing.compared_pairs(["bald_o", *both], "bald_o") == [
        ("bald_vae", "bald_o"),
        ("duplicate", "bald_o"),
        both,
    ]
    assert writing.compared_pairs(both, "duplicate") == [both]
    assert writing.compared_pairs(["bald_vae", "random"], "bald_o") == []


def test_runs_that_ended_early_are_left_out_and_named(tmp_path: Path) -> None:
    last = (ROUNDS["method"] == "bald_vae") & (ROUNDS["seed"] == 1) & (ROUNDS["labelled"] == 40)
    early = pd.concat([ROUNDS[~last], FULL])
    assert statistics.unfinished(early).to_dict() == {("bald_vae", 1): 20}
    write_runs(tmp_path, early)
    write(tmp_path, tmp_path, baseline="bald_o")
    text = (tmp_path / "report.md").read_text()
    assert "Left out: bald_vae with seed 1, which ends at 20 labels." in text
    found = pd.read_csv(tmp_path / "summary.csv").set_index("method")
    assert found["seeds"].to_dict() == {"bald_o": 3, "bald_vae": 2}
    assert found.loc["bald_vae", "at 40 (%)"].startswith("87.50 ")  # seeds 0 and 2
    assert len(pd.read_csv(tmp_path / "runs.csv")) == len(early)  # nothing is lost


def test_the_levels_are_the_highest_that_were_reached() -> None:
    assert statistics.levels(ROUNDS) == [80, 90, 95]
    assert statistics.levels(ROUNDS[ROUNDS["method"] == "bald_o"]) == [70, 80, 90]


def test_curves_are_drawn_alike_in_every_figure() -> None:
    axes = Figure().subplots(1, 2)
    writing.draw_curves(axes[0], pd.concat([ROUNDS, FULL]), "both")
    writing.draw_curves(axes[1], ROUNDS[ROUNDS["method"] == "bald_vae"], "one")
    drawn = {line.get_label(): line for line in axes[0].lines}
    assert drawn["bald_o"].get_xdata().tolist() == LABELS
    assert drawn["bald_o"].get_ydata().tolist() == pytest.approx([160 / 3, 70, 230 / 3])
    assert set(drawn["all of W"].get_ydata()) == {99.0}
    (band,) = axes[1].collections
    edges = band.get_paths()[0].vertices
    assert sorted(set(edges[edges[:, 0] == 40, 1])) == pytest.approx([75, 95])
    assert sorted(set(edges[edges[:, 0] == 10, 1])) == pytest.approx([50, 60])
    (alone,) = axes[1].lines
    for look in ("get_color", "get_marker", "get_linestyle"):
        assert getattr(alone, look)() == getattr(drawn["bald_vae"], look)()
        assert getattr(alone, look)() != getattr(drawn["bald_o"], look)()


def test_the_summary_counts_means_and_complements() -> None:
    found = statistics.per_method(ROUNDS, [40], [90]).set_index("method")
    mine = found.loc["bald_o"]
    half = statistics.interval(np.array([90.0, 70, 70]))
    assert mine["at 40 (%)"] == f"76.67 ± {half:.2f}"
    assert mine["largest drop (mean, worst)"] == "3.33, 10.00"
    assert mine["labels for 90 %"] == "> 40 (1 of 3 runs)"
    assert found["complements"].tolist() == ["0", "2"]
    more = ROUNDS.assign(generated=ROUNDS["generated"] + ROUNDS["seed"].clip(upper=1))
    assert statistics.per_method(more, [40], [90])["complements"].tolist() == ["0.7", "2.7"]
    assert found["seeds"].tolist() == [3, 3]


def test_label_counts_are_those_that_all_have() -> None:
    more = ROUNDS.iloc[:1].assign(labelled=15)
    assert statistics.label_counts(pd.concat([ROUNDS, more])) == LABELS
    assert statistics.label_counts(ROUNDS, 2) == [10, 40]


def write_runs(root: Path, rounds: pd.DataFrame) -> None:
    for (method, seed), table in rounds.groupby(["method", "seed"]):
        run = root / f"seed_{seed}" / "lightning_logs" / f"mnist+{method}" / "version_0"
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(f"seed_everything: {seed}\n")
        table.drop(columns=["config", "method", "seed"]).to_csv(run / "rounds.csv", index=False)


def test_a_report_of_the_gathered_table_is_that_of_the_runs(tmp_path: Path) -> None:
    write_runs(tmp_path / "runs", pd.concat([ROUNDS, FULL]))
    write(tmp_path / "runs", tmp_path / "first", baseline="bald_o")
    write(tmp_path / "first" / "runs.csv", tmp_path / "second", baseline="bald_o")
    names = {path.name for path in (tmp_path / "second").iterdir()}
    assert names == {
        *(
            "runs.csv",
            "summary.csv",
            "differences.csv",
            "report.md",
            "report.html",
            "mnist.png",
            "mnist.svg",
        )
    }
    for name in names:
        first, second = (tmp_path / part / name for part in ("first", "second"))
        assert first.read_bytes() == second.read_bytes(), name
    text = (tmp_path / "first" / "report.md").read_text()
    for words in ("Trained on all of W: 99.00%", "no p can be below 0.25", "| bald_vae", "76.67 ±"):
        assert words in text
    hyperparameters = tmp_path / "first" / "hparams"
    assert len(list(hyperparameters.iterdir())) == 6
    logged = EventAccumulator(str(hyperparameters / "mnist+bald_vae_0")).Reload()
    values = {tag: logged.Scalars(tag)[0].value for tag in logged.Tags()["scalars"]}
    assert values == pytest.approx(
        {
            **{"compare/at 10": 50, "compare/at 20": 80, "compare/at 40": 95},
            **{"compare/mean": 100 * (10 * 0.65 + 20 * 0.875) / 30, "compare/largest drop": 0},
            **{"compare/complements": 2, "compare/labels for 80 %": 20},
            **{"compare/labels for 90 %": 40, "compare/labels for 95 %": 40},
        }
    )


def test_runs_with_all_labels_alone_are_a_report_without_curves(tmp_path: Path) -> None:
    write_runs(tmp_path, FULL)
    write(tmp_path, tmp_path, baseline="bald_o")
    assert "Trained on all of W: 99.00%" in (tmp_path / "report.md").read_text()
    assert not list(tmp_path.glob("*.png"))


def test_runs_of_plain_fit_are_named_by_their_folders(tmp_path: Path) -> None:
    table = ROUNDS[(ROUNDS["method"] == "bald_o") & (ROUNDS["seed"] == 0)]
    for name in ("mnist/version_3", "mnist+vae_all/version_0", "digits/copied"):
        (tmp_path / name).mkdir(parents=True)
        columns = ["config", "method", "seed"]
        table.drop(columns=columns).to_csv(tmp_path / name / "rounds.csv", index=False)
    found = writing.read(tmp_path).drop_duplicates(["config", "method", "seed"])
    assert set(zip(found["config"], found["method"], found["seed"], strict=True)) == {
        ("mnist", "bald_vae", 3),
        ("mnist", "vae_all", 0),
        ("digits", "bald_vae", -1),
    }


def test_runs_with_other_settings_than_the_newest_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_runs(tmp_path, ROUNDS[ROUNDS["method"] == "bald_o"])
    for seed, subset in ((0, 500), (1, 200), (2, 500)):
        run = tmp_path / f"seed_{seed}" / "lightning_logs" / "mnist+bald_o" / "version_0"
        text = f"seed_everything: {seed}\ndata: {{subset: {subset}, root: {seed}}}\n"
        (run / "config.yaml").write_text(text)
        os.utime(run / "rounds.csv", (seed, seed))
    assert set(writing.read(tmp_path)["seed"]) == {0, 2}
    assert "--data.subset is not that of the newest one" in capsys.readouterr().out


def test_another_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rounds.csv").write_text("round,labelled\n0,20\n")
    with pytest.raises(SettingError, match="has no column"):
        write(tmp_path / "rounds.csv", tmp_path / "out", baseline="bald_o")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"source: there is no rounds\.csv in"):
        write(tmp_path, tmp_path, baseline="bald_o")


def test_wins_are_counted_in_pairs_of_runs_by_hand() -> None:
    def run(config: str, method: str, seed: int, accuracies: list[float]) -> pd.DataFrame:
        return pd.DataFrame(
            {"config": config, "method": method, "seed": seed, "labelled": [10, 20],
             "unlabelled": [90, 80], "generated": 0, "test_acc": accuracies}
        )  # fmt: skip

    rounds = pd.concat(
        [
            *(run("x", "a", 0, [0.5, 0.9]), run("x", "b", 0, [0.6, 0.7])),  # a 0.70, b 0.65
            *(run("x", "a", 1, [0.5, 0.5]), run("x", "b", 1, [0.5, 0.5])),  # a tie
            *(run("y", "a", 0, [0.2, 0.2]), run("y", "b", 0, [0.3, 0.3])),
            run("y", "c", 3, [0.9, 0.9]),  # has no seed in common with the others
        ]
    )
    share = statistics.wins(rounds)
    assert share.loc["a", "b"] == pytest.approx(1.5 / 3)
    assert share.loc["b", "a"] == pytest.approx(1.5 / 3)
    assert share.loc["c"].isna().all()
    assert np.isnan(np.diag(share)).all()


def test_what_nobody_could_tell_is_said_of_a_run_that_is_left_out(tmp_path: Path) -> None:
    asks = ROUNDS[ROUNDS["method"] == "bald_o"].assign(method="gaal", labelled=[10, 12, 13] * 3)
    asks = asks.assign(acquired=[2, 1, np.nan] * 3, answers_cannot_tell=[28, 29, np.nan] * 3)
    write_runs(tmp_path / "runs", pd.concat([ROUNDS, asks]))
    write(tmp_path / "runs", tmp_path / "first", baseline="bald_o")
    write(tmp_path / "first" / "runs.csv", tmp_path / "second", baseline="bald_o")
    for part in ("first", "second"):
        text = (tmp_path / part / "report.md").read_text()
        for seed in (0, 1, 2):
            assert (
                f"Left out: gaal with seed {seed}, which ends at 13 labels: of 60 images that it "
                "asked about nobody could tell 57."
            ) in text
