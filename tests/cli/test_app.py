"""The command: its configurations, what it leaves behind, and data from end to end."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from helpers import QUIET, RUN, SMALL, refusal, rounds_of, write_fashion_mnist, write_tree

from baldvae_pl.cli import app
from baldvae_pl.cli.configs import FOLDERS, shipped_configs
from baldvae_pl.main import main

ROOT = Path(__file__).parent.parent.parent
CONFIGS = sorted(shipped_configs().rglob("*.yaml"))
METHODS = [path for path in CONFIGS if path.parent.name == "methods"]
PRECISIONS = [
    "bf16-mixed",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("bf16-true", "64-true")),
]
TINY = [
    *("--data.steps_per_round=1", "--acquisition.rounds=0", "--acquisition.mc_samples=2"),
    *("--vae.epochs=1", *QUIET),
]
"""Options of a run of a second."""

pytestmark = pytest.mark.usefixtures("elsewhere")


def read(path: Path) -> dict[str, Any]:
    settings = yaml.safe_load(path.read_text())
    assert isinstance(settings, dict)
    return settings


def assert_holds(printed: Any, wanted: Any, name: str = "") -> None:
    """What is printed has each wanted key with its value; a class may be named by its short name.

    Its options may be printed beside it.
    """
    if isinstance(printed, dict) and "class_path" in printed:
        plugin = wanted if isinstance(wanted, dict) else {"class_path": wanted}
        if "class_path" in plugin:
            classes = [part["class_path"].rpartition(".")[2] for part in (printed, plugin)]
            assert classes[0] == classes[1], name
        for key, value in plugin.get("init_args", {}).items():
            assert_holds(printed["init_args"][key], value, f"{name}.{key}")
    elif isinstance(wanted, dict):
        for key, value in wanted.items():
            assert_holds(printed[key], value, f"{name}.{key}")
    else:
        assert printed == wanted, name


def test_shipped_configs_lie_in_their_folders_and_say_what_they_are() -> None:
    assert {path.parent.name for path in CONFIGS} == {*FOLDERS}
    assert {path.parent.parent for path in CONFIGS} == {shipped_configs()}
    assert len({path.name for path in CONFIGS}) == len(CONFIGS)  # found by bare name
    for path in CONFIGS:
        assert path.read_text().startswith("# ")


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_found_by_its_name_and_sets_what_it_says(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    below = [] if config.parent.name == "experiments" else ["--config=mnist.yaml"]
    with pytest.raises(SystemExit) as caught:
        main(["fit", *below, f"--config={config.name}", "--print_config"])
    assert caught.value.code == 0
    assert_holds(yaml.safe_load(capsys.readouterr().out), read(config))


@pytest.mark.parametrize(
    "method",
    [path for path in CONFIGS if path.parent.name == "methods"],
    ids=lambda path: path.stem,
)
def test_a_method_sets_function_selection_and_complement_and_what_it_trains_or_asks(
    method: Path,
) -> None:
    settings = read(method)
    assert settings["acquisition"].keys() == {"function", "selection", "complement"}
    rest = {f"{section}.{name}" for section in settings for name in settings[section]}
    of_its_own = {
        "learning_loss": {"model.objective"},
        "vaal": {"model.objective"},
        "vae_acgan": {"model.objective", "model.optimizer"},
        "bayesian_augmentation": {"model.objective", "model.optimizer"},
        "gaal": {"data.oracle"},
    }
    asked = {f"acquisition.{name}" for name in ("function", "selection", "complement")}
    assert rest - asked == of_its_own.get(method.stem, set())


@pytest.mark.parametrize(
    "names",
    [("mnist", "mnist_top500", "fashion_mnist"), ("cifar10", "cifar10_resnet", "image_folder")],
    ids="=".join,
)
def test_experiments_on_alike_images_have_the_same_vae(names: tuple[str, ...]) -> None:
    first, *others = (read(shipped_configs() / "experiments" / f"{n}.yaml")["vae"] for n in names)
    assert first
    for other in others:
        assert other == first


def test_without_settings_a_run_is_bald_vae(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["fit", "--print_config"])
    assert caught.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert_holds(printed, read(shipped_configs() / "methods" / "bald_vae.yaml"))


def test_a_network_without_type_hints_takes_the_place_of_one_with_them() -> None:
    Path("untyped.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Sequential):\n"
        "    def __init__(self, num_classes=10, dropout=0.5):\n"
        "        super().__init__(\n"
        "            nn.Flatten(), nn.Dropout(dropout), nn.Linear(64, num_classes)\n        )\n"
    )
    own = ["--config=smoke.yaml", "--config=bald_o.yaml", "--model.network=untyped.Net"]
    main(["fit", "--config=digits.yaml", *own, *QUIET])
    (settings,) = Path("lightning_logs").glob("*/*/config.yaml")
    model = yaml.safe_load(settings.read_text())["model"]
    assert model["network"]["class_path"] == "untyped.Net"
    assert model["network"]["init_args"]["dropout"] == 0.5
    assert model["network"]["init_args"].get("num_classes") in (None, 10)


def test_wheel_brings_the_configs(tmp_path: Path) -> None:
    wanted = {f"baldvae_pl/configs/{p.relative_to(shipped_configs())}" for p in CONFIGS}
    pages = {f"baldvae_pl/cli/help_pages/{c}.txt" for c in ("fit", "validate", "test", "predict")}
    if importlib.util.find_spec("hatchling") is None:  # what it would be told
        build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
        wheel = build["targets"]["wheel"]
        assert wheel["packages"] == ["baldvae_pl"]
        assert wheel["force-include"] == {"configs": "baldvae_pl/configs"}
        assert shipped_configs() == ROOT / "configs"
        assert all((ROOT / page).is_file() for page in pages)
        return
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    subprocess.run([*command, "--no-build-isolation", "-w", tmp_path, ROOT], check=True)
    (built,) = tmp_path.glob("*.whl")
    assert wanted | pages <= set(zipfile.ZipFile(built).namelist())


@pytest.mark.parametrize(
    ("part", "when"), [("model", "in round 0"), ("vae", "in its training")], ids=["model", "vae"]
)
def test_a_loss_that_is_no_number_says_when_and_what_to_try(part: str, when: str) -> None:
    said = refusal(*SMALL, f"--{part}.optimizer=torch.optim.SGD", f"--{part}.optimizer.lr=1e30")
    assert f"--{part}.optimizer: the loss has become NaN or infinite {when}" in said
    assert "Take a lower learning rate" in said
    assert not list(Path.cwd().rglob("last.ckpt"))


def test_one_class_for_every_image_is_warned_of() -> None:
    blind = ["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.5"]
    with pytest.warns(UserWarning, match="Round 0: the classifier gives every test image the same"):
        main([*SMALL, *blind, "--acquisition.rounds=0", "--data.initial_labels=1"])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_other_precisions_run(precision: str) -> None:
    main([*SMALL, "--acquisition.rounds=1", f"--trainer.precision={precision}"])
    assert rounds_of(RUN)["labelled"].tolist() == [15, 40]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_all_that_encodes_and_moves_images_runs_in_other_precisions(precision: str) -> None:
    main(
        [
            *(*SMALL, "--acquisition.rounds=1", f"--trainer.precision={precision}"),
            *("--model.objective=FixMatch", "--acquisition.initial_selection=Unexplored"),
            *("--acquisition.complement=MostUncertain", "--acquisition.selection=KCenter"),
            *("--acquisition.selection.space=latents", "--acquisition.complement.threshold=0.01"),
        ]
    )
    assert rounds_of(RUN)["labelled"].tolist() == [15, 40]


def test_checkpoint_of_another_run_is_refused() -> None:
    run = [*SMALL, "--acquisition.rounds=0", "--acquisition.complement=NoComplements"]
    main(run)
    last = RUN / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    Path("other.py").write_text(
        "from baldvae_pl.data.sources import Digits\n"
        "def evens(root):\n"
        "    source = Digits()(root)\n"
        "    return source._replace(train=type(source.train)(*(x[::2] for x in source.train)))\n"
    )

    def said(*args: str) -> str:
        return refusal(*run, f"--ckpt_path={last}", *args)

    mixed = "--resume_changed=true"
    assert "--data.source: other.evens is not what" in said("--data.source=other.evens")
    words = "made with other images or labels (1297 of 10 classes)"
    assert words in said("--data.source=other.evens", mixed)
    assert "--model.augmentation: crop is not what" in said("--model.augmentation=crop")
    assert "--trainer.precision: bf16-mixed is not" in said("--trainer.precision=bf16-mixed")
    assert "--seed_everything: 1 is not what" in said("--seed_everything=1")
    assert "Give --seed_everything 0" in said("--seed_everything=1", mixed)
    assert "of another network" in said("--model.network=torch.nn.Identity", mixed)
    uncertain = "--acquisition.complement=Uncertain"
    words = "--acquisition.complement.class_path: baldvae_pl.Uncertain is not what"
    assert words in said(uncertain)
    assert "has no VAE" in said(uncertain, mixed)
    assert last.read_bytes() == before
    assert len(rounds_of(RUN)) == 1


def test_a_run_is_tested_and_its_vae_used_again(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished_run / "lightning_logs", "lightning_logs")
    config = (RUN / "config.yaml").read_text()
    last = RUN / "checkpoints" / "last.ckpt"
    capsys.readouterr()
    main(["test", "--config=digits.yaml", f"--ckpt_path={last}", *QUIET])
    line = next(x for x in capsys.readouterr().out.splitlines() if "test/acc" in x)
    accuracy = float(line.strip("│ ").split("│")[1])
    assert accuracy == pytest.approx(rounds_of(RUN)["test_acc"].iloc[-1], abs=1e-6)
    assert (RUN / "config.yaml").read_text() == config  # it is the fit's
    assert list((RUN / "test").glob("events*"))

    checkpoints = [last, last.with_name("vae.ckpt")]
    weights = torch.load(last, weights_only=True)["callbacks"]["ActiveLearning"]["vae"]
    for version, checkpoint in enumerate(checkpoints, start=1):
        main([*SMALL, "--acquisition.rounds=0", f"--vae.ckpt_path={checkpoint}"])
        again = RUN.with_name(f"version_{version}") / "checkpoints" / "last.ckpt"
        taken = torch.load(again, weights_only=True)["callbacks"]["ActiveLearning"]["vae"]
        assert taken.keys() == weights.keys()
        assert all(torch.equal(taken[key], value) for key, value in weights.items())
        assert not again.with_name("vae.ckpt").exists()  # none was trained


def test_the_saved_config_starts_the_same_run() -> None:
    main([*SMALL, "--acquisition.rounds=1", "--acquisition.complement=Duplicate"])
    main(["fit", f"--config={RUN / 'config.yaml'}"])
    again = RUN.with_name("version_1") / "acquisitions.csv"
    assert again.read_bytes() == (RUN / "acquisitions.csv").read_bytes()


@pytest.mark.parametrize(
    ("configs", "options", "identity"),
    [
        (["digits"], [], {"configs": ["digits"], "method": "bald_vae"}),
        (["digits", "bald_o"], [], {"configs": ["digits"], "method": "bald_o"}),
        (["digits", "bald_o", "smoke"], [], {"configs": ["digits", "smoke"], "method": "bald_o"}),
        (["digits", "bald_o"], ["--method=mine"], {"configs": ["digits", "bald_o"]}),
        (["digits", "smoke", "digits"], ["--method=digits"], {"configs": ["digits", "smoke"]}),
        (["digits"], ["--acquisition.complement=AllNew"], {"method": "vae_all"}),
        (
            ["digits"],
            ["--acquisition.function=margin", "--acquisition.complement=NoComplements"],
            {"configs": ["digits"], "method": "margin, TopK, NoComplements"},
        ),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_a_run_says_which_it_is(
    configs: list[str], options: list[str], identity: dict[str, Any]
) -> None:
    named = [f"--config={config}.yaml" for config in configs]
    main(["fit", *named, *TINY, "--seed_everything=3", *options])
    run = Path("lightning_logs", "+".join(configs), "version_0")
    said = json.loads((run / "run.json").read_text())
    assert said.keys() == {"configs", "method", "seed", "job", "crc"}
    assert said["seed"] == 3
    assert identity.items() <= said.items()
    if "--method=mine" in options:
        assert said["method"] == "mine"


def test_a_run_started_from_the_config_of_another_says_that_it_is_the_same() -> None:
    main(["fit", "--config=digits.yaml", "--config=bald_o.yaml", "--config=smoke.yaml", *TINY])
    run = Path("lightning_logs/digits+bald_o+smoke/version_0")
    first = json.loads((run / "run.json").read_text())
    main(["fit", f"--config={run / 'config.yaml'}"])
    assert json.loads((run.with_name("version_1") / "run.json").read_text()) == first
    main(["fit", f"--config={run / 'config.yaml'}", "--seed_everything=4", "--method=mine"])
    third = json.loads((run.with_name("version_2") / "run.json").read_text())
    assert (third["method"], third["seed"]) == ("mine", 4)


def test_labels_that_no_training_uses_are_said() -> None:
    with pytest.warns(
        UserWarning, match=r"--data\.initial_labels: 20 of the 1297 images are trained"
    ):
        main(["fit", "--config=digits.yaml", "--config=bald_o.yaml", *TINY])


def test_fast_dev_run_goes_through_everything() -> None:
    main([*SMALL, "--trainer.fast_dev_run=true"])
    assert not Path("lightning_logs").exists() or not list(Path("lightning_logs").rglob("*.csv"))


def test_margin_needs_neither_dropout_nor_draws_that_disagree() -> None:
    Path("plain.py").write_text(
        "from torch import nn\n\n\ndef net(num_classes: int = 10) -> nn.Module:\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))\n"
    )
    without = ["--model.network=plain.net", "--acquisition.complement=NoComplements"]
    assert "Sequential has no active nn.Dropout layer" in refusal(*SMALL, *without)
    margin = ["--acquisition.function=margin", "--acquisition.posterior=Deterministic"]
    main([*SMALL, *without, *margin, "--acquisition.rounds=1", "--acquisition.mc_samples=1"])
    assert rounds_of(RUN)["labelled"].tolist() == [15, 40]
    bought = pd.read_csv(RUN / "acquisitions.csv").query("kind == 'acquired'")
    assert len(bought) == 25


@pytest.mark.slow
def test_fashion_mnist_from_end_to_end() -> None:
    write_fashion_mnist(Path("here"), train=300, test=50)
    main(
        [
            *("fit", "--config=fashion_mnist.yaml", "--config=smoke.yaml", "--data.root=here"),
            *QUIET,
            "--acquisition.query_size=30",
        ]
    )
    rounds = rounds_of(Path("lightning_logs/fashion_mnist+smoke/version_0"))
    assert rounds["labelled"].tolist() == [100, 130, 160]
    assert rounds["unlabelled"].tolist() == [200, 170, 140]


def test_networks_follow_from_a_folder_of_images_without_being_told() -> None:
    write_tree(Path("pets"), train=90, test=15, classes=["cat", "dog", "eel"])
    main(
        [
            *("fit", "--config=smoke.yaml", "--data.source=ImageFolder", "--data.root=pets"),
            *("--data.source.image_size=20", "--data.source.cache_folder=cache"),
            *("--model.network=CIFAR10Net", "--vae.network=ConvVAE", *QUIET),
        ]
    )
    (run,) = Path("lightning_logs").glob("*/version_0")
    assert rounds_of(run)["labelled"].tolist() == [20, 40, 60]
    weights = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    outputs = [w for k, w in weights["state_dict"].items() if k.endswith("bias")][-1]
    assert len(outputs) == 3
    assert weights["PoolDataModule"]["pool"]["generated"]["images"].shape[1:] == (3, 20, 20)
    assert weights["callbacks"]["ActiveLearning"]["vae"] is not None


def test_own_images_from_end_to_end() -> None:
    write_tree(Path("pets"), train=90, test=30, classes=["cat", "dog", "eel"])
    run = [
        *("fit", "--config=image_folder.yaml", "--config=smoke.yaml", "--data.root=pets", *QUIET),
        *("--data.initial_labels=20", "--acquisition.query_size=10", "--data.epochs_per_round=1"),
        *("--model.network=CIFAR10Net", "--acquisition.rounds=1"),
        "--data.source.cache_folder=cache",
    ]
    main(run)
    folder = Path("lightning_logs/image_folder+smoke/version_0")
    bought = pd.read_csv(folder / "acquisitions.csv")
    assert (bought["kind"] != "complement").sum() == 30
    for row in bought.itertuples():
        assert Path("pets", row.file).is_file()
        assert row.file.split("/")[:2] == ["train", ["cat", "dog", "eel"][row.label]]
    rounds = rounds_of(folder)
    assert rounds["test_acc"].iloc[-1] > 0.6  # the tints are easy; chance is 1/3

    # It goes on while the images are the same, and not with another one among them.
    main([*run, "--ckpt_path=last", "--acquisition.rounds=2"])
    assert rounds_of(folder)["labelled"].tolist() == [20, 30, 40]
    shutil.copy("pets/train/cat/0000.jpg", "pets/train/dog/0001.jpg")
    said = refusal(*run, "--ckpt_path=last", "--acquisition.rounds=3")
    assert "made with other images" in said


MNIST = ["--config=mnist.yaml", "--config=lenet.yaml", "--config=smoke.yaml"]


def test_mnist_from_end_to_end(real_data: Path) -> None:
    main(
        [
            *("fit", *MNIST, f"--data.root={real_data}"),
            *("--data.source.subset=2000", "--acquisition.rounds=1", "--acquisition.mc_samples=2"),
            *("--data.steps_per_round=30", *QUIET),
        ]
    )
    run = Path("lightning_logs/mnist+lenet+smoke/version_0")
    rounds = rounds_of(run)
    assert rounds["labelled"].tolist() == [100, 200]
    assert rounds["unlabelled"].tolist() == [1_900, 1_800]
    assert (rounds["test_acc"] > 0.4).all()


@pytest.mark.parametrize(("there", "looks"), [(True, "1"), (False, "0")])
def test_only_where_there_is_a_gpu_do_steps_look_for_its_driver(
    there: bool, looks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    monkeypatch.setattr("torch.cuda.is_available", lambda: there)
    monkeypatch.setattr(app, "make_cli", lambda *_: None)
    app.run(["fit"])
    assert os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] == looks
