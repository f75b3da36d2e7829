"""`baldvae compare` on real digits: pairs, a kill in between, one run at a time, and its errors."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from filelock import FileLock
from helpers import SMALL, assert_same_results, baldvae, rounds_of, scalars_of
from killed import ran

from baldvae_pl.cli.app import plan
from baldvae_pl.complement import Uncertain
from baldvae_pl.errors import SettingError
from baldvae_pl.experiments import compare
from baldvae_pl.experiments.compare import pair_up
from baldvae_pl.experiments.run import Run
from baldvae_pl.experiments.sharing import may_share, may_share_first_round, share
from baldvae_pl.main import main
from baldvae_pl.runs.files import make_folder
from baldvae_pl.runs.folder import FIRST_ROUND, Identity, RunFolder
from baldvae_pl.runs.records import write_rounds
from baldvae_pl.selection import TopK

OPTIONS = [option for option in SMALL[2:] if not option.startswith("--trainer.log")]
GRID = ["compare", "--configs=digits", "--folder=grid", "--jobs=2", *OPTIONS]
METHODS = ["bald_vae", "vae_all"]

pytestmark = pytest.mark.xdist_group("compare")  # makes the grid once


def run_of(folder: Path, method: str, seed: int) -> Path:
    return folder / f"seed_{seed}" / "lightning_logs" / f"digits+{method}" / "version_0"


def first_round_of(folder: Path, seed: int) -> Path:
    of_the_seed = folder / f"seed_{seed}"
    return of_the_seed / FIRST_ROUND / run_of(folder, "bald_vae", seed).relative_to(of_the_seed)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods and two seeds, finished."""
    place = tmp_path_factory.mktemp("compare")
    done = ran(*GRID, "--methods", *METHODS, "--seeds", "0", "1", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "digits+vae_all:1 is finished" in done.stderr
    return place / "grid"


def test_runs_of_a_seed_are_paired_and_share_their_vae(grid: Path) -> None:
    bought, networks = {}, {}
    for seed in (0, 1):
        for method in METHODS:
            run = run_of(grid, method, seed)
            last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
            initial = last["PoolDataModule"]["pool"]["acquired_in"] == 0
            bought[method, seed] = initial.nonzero().flatten().tolist()
            networks[method, seed] = last["callbacks"]["ActiveLearning"]["vae"]
        # Before the first complement all methods are the same run.
        first = [rounds_of(run_of(grid, method, seed))["test_acc"][0] for method in METHODS]
        assert len(set(first)) == 1
        assert bought["bald_vae", seed] == bought["vae_all", seed]
        for name, weight in networks["bald_vae", seed].items():
            assert torch.equal(weight, networks["vae_all", seed][name])
        assert len(list(grid.glob(f"seed_{seed}/**/vae.ckpt"))) == 1  # trained by one of them
        assert len(rounds_of(first_round_of(grid, seed))) == 1
        for method in METHODS:
            rounds = [
                pd.read_csv(path / "rounds.csv")
                for path in (first_round_of(grid, seed), run_of(grid, method, seed))
            ]
            seconds = [table["seconds_train"][0] for table in rounds]
            assert seconds[0] == seconds[1]  # is of the one that made it
    assert bought["bald_vae", 0] != bought["bald_vae", 1]
    assert any(
        not torch.equal(weight, networks["bald_vae", 1][name])
        for name, weight in networks["bald_vae", 0].items()
    )


def test_a_seed_has_one_vae_for_the_same_images_and_settings_of_it(tmp_path: Path) -> None:
    def vae(configs: str, method: str, *options: str) -> str:
        return Run(configs.split("+"), method, 0, tmp_path, list(options)).arguments[-1]

    first = vae("digits", "bald_vae")
    assert first == vae("digits+label_efficiency", "vae_all", "--acquisition.warm_start=true")
    others = ["--vae.epochs=3", "--vae.network.init_args.latent=4", "--data.source.subset=100"]
    assert len({first, *(vae("digits", "bald_vae", other) for other in others)}) == 4


@pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")  # pytest's own are in argv
def test_settings_that_are_parsed_once_are_those_of_each_seed(tmp_path: Path) -> None:
    for seed in (0, 7):
        run = Run(["digits"], "bald_vae", seed, tmp_path, ["--vae.epochs=3"])
        *arguments, shared_vae = run.arguments
        assert plan(arguments).settings == run.settings
        assert f"seed_everything: {seed}\n" in run.settings
        assert shared_vae.startswith(f"--vae.shared_path={tmp_path}/vae/")


def test_a_report_is_left_beside_the_runs(grid: Path) -> None:
    gathered = pd.read_csv(grid / "runs.csv")
    for (method, seed), rounds in gathered.groupby(["method", "seed"]):
        written = rounds_of(run_of(grid, method, seed))
        assert rounds["test_acc"].tolist() == pytest.approx(written["test_acc"].tolist())
    assert len(gathered) == 2 * 2 * 4
    assert (grid / "digits.svg").stat().st_size > 10_000
    assert "| bald_vae" in (grid / "report.md").read_text()


def test_each_run_says_which_it_is(grid: Path) -> None:
    for method in METHODS:
        for seed in (0, 1):
            found = RunFolder(run_of(grid, method, seed)).read_identity()
            assert found == Identity(["digits"], method, seed)


def test_what_is_finished_is_not_repeated(grid: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in grid.rglob("*.ckpt")}
    done = ran(*GRID, "--methods", *METHODS, "--seeds", "0", "1", cwd=grid.parent)
    assert done.returncode == 0, done.stderr
    assert "is finished" not in done.stderr
    assert {path: path.stat().st_mtime_ns for path in grid.rglob("*.ckpt")} == before


def test_other_settings_are_refused_in_the_same_folder(grid: Path) -> None:
    done = ran(*GRID, "--methods=vae_all", "--seeds=0", "--data.batch_size=7", cwd=grid.parent)
    assert done.returncode == 1
    assert "--data.batch_size: 7 is not what the run of" in done.stderr
    assert len(list(grid.glob("seed_*/lightning_logs/*/version_*"))) == 4


@pytest.mark.slow
def test_one_run_alone_is_the_same(grid: Path, tmp_path: Path) -> None:
    seeds = ["--seeds", "0", "1", "--only=vae_all:1"]
    done = ran(*GRID, "--methods", *METHODS, *seeds, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    one, other = (run_of(folder, "vae_all", 1) for folder in (grid, tmp_path / "grid"))
    pd.testing.assert_frame_equal(rounds_of(one), rounds_of(other), check_exact=True)
    assert len(list(tmp_path.rglob("version_*"))) == 1
    assert not (tmp_path / "grid" / "report.md").exists()


def test_the_runs_are_listed_as_they_are_named_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    configs = ["--configs", "digits", "digits+label_efficiency", "--methods", *METHODS]
    main(["compare", *configs, "--seeds", "3", "1", "--list"])
    named = [f"{method}:{seed}" for seed in (3, 1) for method in METHODS]
    assert capsys.readouterr().out.split() == named
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_comparison_that_was_killed_goes_on(grid: Path, tmp_path: Path) -> None:
    command = [*GRID, "--methods", *METHODS, "--seeds", "1"]
    begun: dict[Path, str] = {}
    for wait, how in (("last.ckpt", signal.SIGTERM), ("previous.ckpt", signal.SIGKILL)):
        process = subprocess.Popen(
            [sys.executable, "-m", "baldvae_pl", *command],
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that its runs can be killed with it
        )
        until = time.monotonic() + 120
        while not list(tmp_path.rglob(wait)) and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.1)
        for path in tmp_path.rglob(wait):
            log = path.parents[4] / f"{path.parents[2].name}.log"
            # One that goes on from another's rounds has their checkpoint before it starts.
            begun[log] = log.read_text() if log.is_file() else ""
        if how is signal.SIGKILL:
            os.killpg(process.pid, how)
        else:
            process.send_signal(how)
        _, said = process.communicate()
        if how is signal.SIGTERM:
            assert process.returncode == 143
            assert "`compare` needs the same command only" in said
    done = baldvae(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert any("it begins again" in text for text in begun.values())
    for log, text in begun.items():  # a run that has a checkpoint goes on from it
        assert log.read_text().count("it begins again") == text.count("it begins again")
    for method in METHODS:
        one, other = (run_of(folder, method, 1) for folder in (grid, tmp_path / "grid"))
        pd.testing.assert_frame_equal(rounds_of(one), rounds_of(other), check_exact=True)
        assert (one / "acquisitions.csv").read_bytes() == (other / "acquisitions.csv").read_bytes()
    assert len(list(tmp_path.rglob("version_*"))) == 3  # one of the first round


def test_a_run_that_fails_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("acquisition: {function: no.such}\n")
    short = ["--seeds=0", "--acquisition.rounds=1"]
    done = ran(*GRID, "--methods", "broken", "bald_o", *short, cwd=tmp_path)
    assert done.returncode == 1
    assert "1 of 2 runs failed" in done.stderr
    assert "--acquisition.function: 'no.such' cannot be imported" in done.stderr
    assert len(rounds_of(run_of(tmp_path / "grid", "bald_o", 0))) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--methods=nope"], "nope: there is no such YAML file here"),
        (["--configs=nope"], "nope: there is no such YAML file here"),
        (["--jobs=0"], "--jobs: must be at least 1, got 0"),
        (["--only=bald_o:7"], "--only: bald_o:7 is none of the methods and seeds"),
        (["--seeds=x"], "argument --seeds: invalid int value: 'x'"),
        (["--seeds=-1"], "--seeds: must be from 0 to 4294967295, got -1"),
        (["--data.batchsize=3"], "Did you mean --data.batch_size?"),
        (["--data.batch_size=x"], "data.batch_size"),
        (["--ckpt_path=last"], "--ckpt_path"),
        (["--seed_everything=7"], "Use --seeds"),
        (["--config=digits.yaml"], "Use --configs"),
        (["--methods", "bald_o", "bald_o.yaml"], "two have one name"),
    ],
)
def test_bad_options_of_compare(
    options: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compare, "get_ready", lambda _: None)
    with pytest.raises(SystemExit) as caught:
        main(["compare", "--configs=digits", *options])
    said = caught.value.code if isinstance(caught.value.code, str) else capsys.readouterr().err
    assert words in said
    assert not list(tmp_path.iterdir())


def test_the_report_command_answers_and_refuses(
    grid: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    main(["report", str(grid / "runs.csv"), f"--out={tmp_path}", "--accuracies", "50", "99.9"])
    assert "labels for 99.9 %" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        main(["report", str(tmp_path / "nothing")])
    assert "there is no rounds.csv in" in str(caught.value.code)


@pytest.mark.slow
def test_two_comparisons_share_a_folder(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "baldvae_pl",
        *GRID,
        "--methods",
        "bald_o",
        "--seeds",
        "0",
        "1",
    ]
    both = [
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[0].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert all("The results are in" in one and "failed" not in one for one in said)


def test_a_report_leaves_out_what_is_damaged(
    grid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(grid, tmp_path / "grid", ignore=shutil.ignore_patterns("*.ckpt", "runs.csv"))
    folder = tmp_path / "grid"
    rounds = run_of(folder, "bald_vae", 0) / "rounds.csv"
    rounds.write_bytes(rounds.read_bytes().replace(b"\n0,", b"\n0,9", 1))
    config = run_of(folder, "vae_all", 1) / "config.yaml"
    config.write_text("a: [")
    (run_of(folder, "vae_all", 0) / "run.json").write_text("[")
    main(["report", str(folder)])
    said = capsys.readouterr().out
    assert f"left out: {rounds} is damaged" in said
    assert f"left out: {config} is damaged" in said
    found = pd.read_csv(folder / "runs.csv")
    runs = set(found[["method", "seed"]].itertuples(index=False, name=None))
    assert runs == {("bald_vae", 1), ("vae_all", 0)}


SHARING = [
    *("--data.source.subset=600", "--data.steps_per_round=40", "--data.initial_labels=40"),
    *("--acquisition.query_size=25", "--acquisition.mc_samples=10", "--acquisition.rounds=4"),
    *("--vae.epochs=1", "--data.eval_batch_size=1000"),
]
"""Complements begin in a later round, and W has another shape than networks have by default."""


@pytest.mark.slow
def test_what_runs_share_is_made_once_and_gives_the_same_bits(
    real_data: Path, tmp_path: Path
) -> None:
    options = [*SMALL[-2:], *SHARING, f"--data.root={real_data}"]
    command = ["compare", "--configs=mnist+lenet", "--folder=grid", *options]
    methods = ["bald_vae", "bald_o", "duplicate", "margin", "vae_all"]
    pair = ["--methods", *methods, "--seeds=0", "--jobs=2"]
    done = baldvae(*command, *pair, cwd=tmp_path, timeout=900)
    assert done.returncode == 0, done.stderr

    def run(folder: Path, method: str) -> RunFolder:
        place = folder / "grid/seed_0/lightning_logs" / f"mnist+lenet+{method}"
        return RunFolder(place / "version_0")

    tables = {method: pd.read_csv(run(tmp_path, method).rounds) for method in methods}
    shared = int((tables["bald_vae"]["bald_margin"] <= 0).to_numpy().nonzero()[0][0])
    assert shared > 0
    whole = "mnist+lenet+bald_vae:0", shared
    first = f"{whole[0]} (first round)", 1
    for method, (of, rounds) in (
        *(("bald_o", whole), ("duplicate", whole)),
        *(("margin", first), ("vae_all", first), ("bald_vae", first)),
    ):
        what = "1 round" if rounds == 1 else f"{rounds} rounds"
        said = f"mnist+lenet+{method}:0 goes on from {what} of {of}"
        assert said in " ".join(done.stdout.split())
        (tmp_path / method).mkdir()
        alone = baldvae(*command, f"--methods={method}", "--seeds=0", cwd=tmp_path / method)
        assert alone.returncode == 0, alone.stderr
        both = run(tmp_path, method).path, run(tmp_path / method, method).path
        assert_same_results(*both)
        curves = [scalars_of(path) for path in both]
        for of_steps in ("train/loss", "epoch"):  # are with the run that made the round
            shorter, longer = (curve.pop(of_steps) for curve in curves)
            assert shorter.items() <= longer.items()
        # Those of the VAE are with the run that trained it.
        elsewhere = {"vae/reconstruction", "vae/divergence"} - curves[0].keys()
        assert curves[0] == {name: x for name, x in curves[1].items() if name not in elsewhere}
        if method == "bald_vae":
            continue
        seconds = [tables[name]["seconds_train"].tolist() for name in ("bald_vae", method)]
        assert seconds[0][:rounds] == seconds[1][:rounds]  # is of the one that made it
        assert seconds[0][rounds] != seconds[1][rounds]
        assert run(tmp_path, method).snapshot(0).is_file()


@pytest.mark.parametrize(
    ("mine", "theirs", "may", "may_first"),
    [
        (["bald_o"], ["bald_vae"], True, True),
        (["duplicate"], ["bald_vae"], True, True),
        (["duplicate"], ["bald_o"], True, True),
        (["bald_vae"], ["bald_o"], False, False),  # which trains no VAE
        (["bald_vae"], ["mixed"], True, True),
        (["bald_o"], ["bald_vae", "--acquisition.complement.threshold=0.9"], False, True),
        (["bald_o"], ["vae_all"], False, True),
        (["vae_all"], ["bald_vae"], False, True),
        (["vae_all"], ["bald_o"], False, False),
        (["bald_o"], ["margin"], False, True),
        (["random", "--acquisition.query_size=3"], ["margin"], False, True),
        (["bald_o", "--acquisition.mc_samples=3"], ["bald_o"], False, False),
        (["bald_o"], ["bald_vae", "--model.objective=FixMatch"], False, False),
        (["bald_o"], ["bald_vae", "--acquisition.complement=test_compare.Mine"], False, True),
        (["bald_o", "--acquisition.selection=test_compare.first"], ["bald_o"], False, True),
        (["bald_o", "--acquisition.selection=test_compare.Refuses"], ["bald_o"], False, False),
        (["bald_o"], ["bald_o", "--acquisition.selection=test_compare.Refuses"], False, True),
        (["bald_o"], ["margin", "--data.source=UnlabelledFolder"], False, False),
        (["bald_o", "--data.source=UnlabelledFolder"],) * 2 + (False, False),
        (["gaal"], ["gaal"], False, False),
    ],
)
def test_which_runs_share(
    mine: list[str], theirs: list[str], may: bool, may_first: bool, tmp_path: Path
) -> None:
    settings = [
        Run(["digits"], method, 0, tmp_path, options).flat for method, *options in (mine, theirs)
    ]
    assert may_share(*settings) == may
    assert may_share_first_round(*settings) == may_first


def test_the_order_of_methods_does_not_matter_to_what_is_shared(tmp_path: Path) -> None:
    runs = [
        Run(["digits"], method, seed, tmp_path / str(seed), [])
        for method in ("bald_o", "margin", "duplicate", "bald_vae")
        for seed in (0, 1)
    ]
    first = pair_up(runs)
    assert [*map(str, first)] == [f"digits+bald_vae:{seed} (first round)" for seed in (0, 1)]
    pairs = {str(run): str(run.before) for run in runs}
    assert pairs == {
        f"digits+{method}:{seed}": f"digits+bald_vae:{seed}{of}"
        for method, of in (
            *(("bald_o", ""), ("duplicate", "")),
            *(("margin", " (first round)"), ("bald_vae", " (first round)")),
        )
        for seed in (0, 1)
    }
    (bald_o, *_), last = runs, runs[-2]
    assert bald_o.waits(runs)
    assert last.waits([*first, *runs])
    assert not last.waits(runs)


def test_what_is_begun_does_not_change_who_makes_a_first_round(tmp_path: Path) -> None:
    bald_vae, vae_all, margin = (
        Run(["digits"], method, 0, tmp_path, []) for method in ("bald_vae", "vae_all", "margin")
    )
    make_folder(bald_vae.folder.checkpoints)
    bald_vae.folder.last.touch()
    (first,) = pair_up([margin, bald_vae, vae_all])
    assert first.folder == bald_vae.first_round().folder
    assert [run.before for run in (bald_vae, vae_all, margin)] == [None, first, first]
    margin.before = None
    assert not pair_up([margin, bald_vae])  # for one run it need not be made
    assert margin.before is None
    make_folder(first.folder.path)
    first.folder.rounds.write_text("round,labelled,unlabelled,test_acc\n0,20,9,0.5\n")
    assert [str(run) for run in pair_up([margin, bald_vae])] == [str(first)]  # but it is there
    assert str(margin.before) == str(first)


def test_where_complements_are_due_at_once_the_first_round_is_shared_still(
    finished_run: Path, tmp_path: Path
) -> None:
    bald_vae, bald_o, margin = (
        Run(["digits"], method, 0, tmp_path, SMALL[2:])
        for method in ("bald_vae", "bald_o", "margin")
    )
    (first,) = pair_up([bald_vae, bald_o, margin])
    assert (bald_o.before, bald_vae.before) == (bald_vae, first)
    shutil.copytree(finished_run / "lightning_logs/digits/version_0", bald_vae.folder.path)
    bald_vae.folder.branch.unlink(missing_ok=True)
    content = torch.load(bald_vae.folder.last, weights_only=True)
    history = content["callbacks"]["ActiveLearning"]["history"]
    history[0]["bald/margin"] = 0.1
    write_rounds(bald_vae.folder.rounds, history)
    assert bald_o.waits([bald_vae])
    history[0]["bald/margin"] = 0.0
    torch.save(content, bald_vae.folder.last)
    write_rounds(bald_vae.folder.rounds, history)
    assert not bald_o.waits([bald_vae])  # though it is not finished, nothing will come of it
    assert compare.shared_rounds(bald_o) == (0, None)
    del history[1:]
    for column in [*history[0]]:
        if column.startswith(("bald/", "acquired", "complemented")):
            del history[0][column]
    make_folder(first.folder.checkpoints)
    content["callbacks"]["RunSettings"]["settings"] = first.settings
    torch.save(content, first.folder.last)
    assert compare.shared_rounds(bald_o) == (1, first)
    assert compare.shared_rounds(bald_o) == (0, None)  # it is begun


class Mine(Uncertain):
    """May choose other parents."""


def first(candidates):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """A selection that is a function, as users write one."""
    return candidates.highest(candidates.priorities_N, 1)


class Refuses(TopK):
    """A selection whose options are wrong."""

    def __init__(self) -> None:
        raise SettingError("--acquisition.selection: wrong")


def test_what_is_of_other_code_or_damaged_or_too_long_is_not_shared(
    finished_run: Path, tmp_path: Path
) -> None:
    bald_o = Run(["digits"], "bald_o", 0, tmp_path, SMALL[2:])
    before = RunFolder(tmp_path / "before")
    shutil.copytree(finished_run / "lightning_logs/digits/version_0", before.path)
    before.branch.unlink(missing_ok=True)
    content = torch.load(before.last, weights_only=True)
    history = content["callbacks"]["ActiveLearning"]["history"]
    for row in history:
        row["bald/margin"] = 1.0
    torch.save(content, before.last)
    (before.checkpoints / "previous.ckpt").unlink()
    run = RunFolder(tmp_path / "run")
    assert share(run, bald_o.settings, 4, before) == 4
    assert share(run, bald_o.settings, 4, before) == 0  # it is begun
    copied = torch.load(run.last, weights_only=True)["callbacks"]
    assert copied["RunSettings"]["settings"] == bald_o.settings
    run.last.unlink()
    assert share(run, bald_o.settings, 3, before) == 0  # too long
    with FileLock(run.path / ".lock"):
        assert share(run, bald_o.settings, 4, before) == 0  # somebody else works there
    history[2]["bald/margin"] = 0.0
    torch.save(content, before.last)
    assert share(run, bald_o.settings, 4, before) == 0  # complements may have begun
    history[2]["bald/margin"] = 1.0
    content["callbacks"]["RunSettings"]["code"] = "another"
    torch.save(content, before.last)
    assert share(run, bald_o.settings, 4, before) == 0
    before.last.write_bytes(b"damaged")
    assert share(run, bald_o.settings, 4, before) == 0
    assert not run.last.exists()
