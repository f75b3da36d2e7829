"""The command: its options, its configurations, its errors, and several processes."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from conftest import SMALL, rounds_of, write_fashion_mnist, write_tree

from baldvae_pl import __version__
from baldvae_pl.cli.app import main
from baldvae_pl.cli.parser import shipped_configs

RUN = Path("lightning_logs/digits/version_0")
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
OVERLAYS = {  # and what they set
    "all_labels.yaml": "initial_labels: all",
    "bald_o.yaml": "complement: none",
    "bald_vae.yaml": "complement: uncertain",
    "batch_bald.yaml": "selection: batch_bald",
    "duplicate.yaml": "complement: duplicate",
    "label_efficiency.yaml": "query_size: 10",
    "lenet.yaml": "baldvae_pl.networks.LeNet",
    "least_confidence.yaml": "function: least_confidence",
    "margin.yaml": "function: margin",
    "max_entropy.yaml": "function: max_entropy",
    "mean_std.yaml": "function: mean_std",
    "power_bald.yaml": "selection: power",
    "random.yaml": "function: random",
    "repeated.yaml": "repeats: 4",
    "smoke.yaml": "steps_per_round: 20",
    "softmax_bald.yaml": "coldness: 8",
    "softrank_bald.yaml": "selection: softrank",
    "vae_all.yaml": "complement: all_new",
    "variation_ratios.yaml": "function: variation_ratios",
}
CONFIGS = [
    *("digits.yaml", "mnist.yaml", "mnist_top500.yaml", "fashion_mnist.yaml"),
    *("cifar10.yaml", "cifar10_resnet.yaml", "image_folder.yaml"),
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["baldvae"])


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """The one sentence that a bad command line ends with; no training has begun then."""
    with pytest.raises(SystemExit) as caught:
        main(list(args))
    assert caught.value.code != 0
    assert not list(Path.cwd().rglob("*.csv"))
    if isinstance(caught.value.code, str):
        return caught.value.code
    return capsys.readouterr().err.split("error: ")[-1]


def test_shipped_configs_are_all_listed_here() -> None:
    assert {path.name for path in shipped_configs().iterdir()} == {*CONFIGS, *OVERLAYS}
    for path in shipped_configs().iterdir():
        assert path.read_text().startswith("# ")


@pytest.mark.parametrize(
    ("config", "overlay"),
    [*((config, "") for config in CONFIGS), *(("mnist.yaml", overlay) for overlay in OVERLAYS)],
)
def test_every_config_parses(config: str, overlay: str, capsys: pytest.CaptureFixture[str]) -> None:
    overlays = [f"--config={overlay}"] if overlay else []
    with pytest.raises(SystemExit) as caught:
        main(["fit", f"--config={config}", *overlays, "--print_config"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert OVERLAYS.get(overlay, "complement: uncertain") in printed


@pytest.mark.parametrize(
    "command",
    [
        ["--version"],
        ["--help"],
        ["fit", "--help"],
        ["validate", "--help"],
        ["test", "--help"],
        ["predict", "--help"],
        ["compare", "--help"],
        ["report", "--help"],
    ],
    ids=" ".join,
)
def test_help_and_version_answer(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(command)
    assert caught.value.code == 0
    said = capsys.readouterr().out
    if command == ["--version"]:
        assert said.split()[-1] == __version__
    elif command == ["--help"]:
        assert "baldvae compare" in said
    elif command[0] not in ("compare", "report"):
        for option in ("data.source", "acquisition.query_size", "vae.epochs", "seed_everything"):
            assert f"--{option}" in said
        assert "--acquisition.vae" not in said


def test_a_network_without_type_hints_takes_the_place_of_one_with_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("untyped.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Sequential):\n"
        "    def __init__(self, num_classes=10, dropout=0.5):\n"
        "        super().__init__(\n"
        "            nn.Flatten(), nn.Dropout(dropout), nn.Linear(64, num_classes)\n        )\n"
    )
    monkeypatch.syspath_prepend(".")
    own = ["--config=smoke.yaml", "--config=bald_o.yaml", "--model.network=untyped.Net"]
    main(["fit", "--config=digits.yaml", *own, *QUIET])
    (settings,) = Path("lightning_logs").glob("*/*/config.yaml")
    model = yaml.safe_load(settings.read_text())["model"]
    arguments = {"num_classes": 10, "dropout": 0.5}
    assert model["network"] == {"class_path": "untyped.Net", "init_args": arguments}


def test_wheel_brings_the_configs(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, root]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"baldvae_pl/configs/{name}" for name in (*CONFIGS, *OVERLAYS)} <= set(names)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--acquisition.function=nope"], "--acquisition.function: 'nope' is unknown"),
        (
            ["--acquisition.function=no.such"],
            "--acquisition.function: 'no.such' cannot be imported",
        ),
        (["--acquisition.complement=nope"], "all_new, duplicate, none, uncertain"),
        (["--data.source=nope"], "Choose one of CIFAR10, FashionMNIST, ImageFolder, MNIST, digits"),
        (["--acquisition.query_size=1278"], "Take at most 1277"),
        (["--acquisition.query_size=0"], "acquisition.query_size"),
        (["--acquisition.query_size=nan"], "acquisition.query_size"),
        (["--acquisition.rounds=-1"], "acquisition.rounds"),
        (["--acquisition.mc_samples=1"], "Take at least 2"),
        (["--data.initial_labels=1298"], "Take at most 1297"),
        (["--data.steps_per_round=0"], "data.steps_per_round"),
        (["--trainer.max_epochs=3"], "follows from --acquisition.rounds"),
        (["--trainer.max_time=00:00:01:00"], "would cut a round short"),
        (["--acquisition.selection=power", "--acquisition.coldness=inf"], "Take a finite one"),
        (["--acquisition.complement=math.pi"], "is not a Complement"),
        (["--vae.network.image_shape=[1,28,28]"], "--vae.network: for images of shape (1, 8, 8)"),
        (["--trainer.limit_val_batches=0"], "would cut a round short"),
        (["--trainer.val_check_interval=0.5"], "would cut a round short"),
        (["--trainer.callbacks=ModelCheckpoint"], "Use --checkpoint_every_round"),
        (["--trainer.check_val_every_n_epoch=2"], "would cut a round short"),
        (["--ckpt_path=last"], "no run in"),
        (["--ckpt_path=missing.ckpt"], "there is no such file"),
        (["--ckpt_path=garbage.ckpt"], "damaged or something else"),
        (["--vae.ckpt_path=garbage.ckpt"], "holds no weights for this --vae.network"),
        (["--seed_everything=-1"], "seed_everything"),
        (["--seed_everything=true"], "seed_everything"),
        (["--config=missing.yaml"], "missing.yaml"),
        (["--acquisition.qurey_size=3"], "qurey_size"),
        (["--model.network=baldvae_pl.networks.MNISTNet"], "for images of shape (1, 8, 8)"),
        (["--trainer.default_root_dir=garbage.ckpt/x"], "cannot be written"),
        (["--acquisition.qurey_size=3"], "Did you mean --acquisition.query_size?"),
        (["--acquisition.mc_samples=1000000000000"], "--acquisition.mc_samples: 1000000000000"),
        (["--acquisition.nested=0"], "acquisition.nested"),
        (["--acquisition.warm_start=maybe"], "--acquisition.warm_start"),
        (["--data.batch_size=1000000000000"], "Take at most 1297"),
        (["--data.epochs_per_round=nan"], "--data.epochs_per_round"),
        (["--data.epochs_per_round=inf"], "--data.epochs_per_round: inf is no number"),
        (["--data.epochs_per_round=-1"], "--data.epochs_per_round"),
        (["--data.scoring_batch_size=0"], "--data.scoring_batch_size"),
        (["--data.initial_labels=three"], "--data.initial_labels"),
        (["--data.source=math.sqrt"], "--data.source: TypeError"),
        (["--data.oracle=math.pi"], "--data.oracle: 'math.pi' is not a Callable"),
        (["--vae.likelihood=poisson"], "--vae.likelihood"),
        (["--vae.network=torch.nn.Identity"], "'Identity' object has no attribute 'encode'"),
        (["--vae.network.latent=0"], "latent"),
        (["--vae.optimizer.lr=-1"], "--vae.optimizer: ValueError: Invalid learning rate: -1"),
        (["--model.optimizer.lr=-1"], "--model.optimizer: ValueError: Invalid learning rate"),
        (["--model.optimizer.lr=nan"], "lr"),
        (["--model.network=DigitsNet", "--model.network.num_classes=3"], "Set its num_classes"),
        (["--model.network.num_classes=0"], "num_classes"),
        (["--seed_everything=4294967296"], "--seed_everything"),
        (["--trainer.devices=0"], "devices"),
        (["--trainer.accelerator=nope"], "--trainer: ValueError: You selected an invalid acc"),
        (["--trainer.strategy=nope"], "--trainer: ValueError: You selected an invalid strategy"),
        (["--trainer.precision=7"], "--trainer.precision"),
        (["--trainer.max_steps=5"], "would cut a round short"),
        (["--checkpoint_every_round=maybe"], "--checkpoint_every_round"),
        (["--ckpt_path=."], "--ckpt_path: '.' is not a checkpoint"),
        (["--acquisition.complement=none", "--trainer.devices=3", "--data.batch_size=2"], "shared"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_input_is_one_sentence_before_training(
    args: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("garbage.ckpt").write_text("garbage")
    said = refused(capsys, "fit", "--config=digits.yaml", *QUIET, *args)
    assert words in said
    assert len(said.splitlines()) == 1
    assert not Path("lightning_logs").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("acquisition: {query_size: null}", "--acquisition.query_size: null is no value"),
        ("data: {epochs_per_round: null}", "--data.epochs_per_round: null is no value"),
        ("data: {source: null}", "--data.source: null is no value"),
        ("model: {network: null}", "--model.network: null is no value"),
        ("vae: {epochs: null}", "--vae.epochs: null is no value"),
        ("data: null", "mine.yaml: data: None are no options"),
        ("acquisition: [1, 2]", "mine.yaml: acquisition: [1, 2] are no options"),
        ("data: {seed: 3}", "data.seed follows from seed_everything"),
        ("data: {batch_size: [1]}", "--data.batch_size"),
        ("acquisition: {query_size: .nan}", "--acquisition.query_size"),
        ("acquisition: {query_size: .inf}", "--acquisition.query_size"),
        ("acquisition: {query_sise: 5}", "acquisition.query_sise"),
        ("rounds: 3", "does not accept option 'rounds'"),
        ("seed_everything: null", "seed_everything"),
        (": : :", "Problems parsing config"),
        ("- 1", "Unexpected config"),
        ("", "Unexpected config"),
    ],
)
def test_bad_file_is_one_sentence_before_training(
    text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.yaml").write_text(text)
    said = refused(capsys, "fit", "--config=digits.yaml", "--config=mine.yaml", *QUIET)
    assert words in said
    assert len(said.splitlines()) == 1
    assert not Path("lightning_logs").exists()


@pytest.mark.parametrize(
    ("part", "when"), [("model", "in round 0"), ("vae", "in its training")], ids=["model", "vae"]
)
def test_a_loss_that_is_no_number_says_when_and_what_to_try(part: str, when: str) -> None:
    wild = [f"--{part}.optimizer=torch.optim.SGD", f"--{part}.optimizer.lr=1e30"]
    with pytest.raises(SystemExit) as caught:
        main([*SMALL, *wild])
    said = str(caught.value.code)
    assert f"--{part}.optimizer: the loss has become NaN or infinite {when}" in said
    assert "Take a lower learning rate" in said
    assert not list(Path.cwd().rglob("last.ckpt"))


def test_one_class_for_every_image_is_warned_of() -> None:
    blind = ["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.5"]
    with pytest.warns(UserWarning, match="Round 0: the classifier gives every test image the same"):
        main([*SMALL, *blind, "--acquisition.rounds=0", "--data.initial_labels=1"])


def test_testing_needs_a_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--ckpt_path: test needs" in refused(capsys, "test", "--config=digits.yaml", *QUIET)


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed", "64-true"])
def test_other_precisions_run(precision: str) -> None:
    main([*SMALL, "--acquisition.rounds=1", f"--trainer.precision={precision}"])
    assert rounds_of(RUN)["labelled"].tolist() == [15, 40]


def test_max_epochs_is_refused_in_a_file_too(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text("trainer: {max_epochs: 3}\n")
    said = refused(capsys, "fit", "--config=digits.yaml", "--config=mine.yaml")
    assert "follows from --acquisition.rounds" in said


def test_missing_mnist_names_files_and_the_way_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", no_network)
    said = refused(capsys, "fit", "--config=mnist.yaml", "--data.root=here", *QUIET)
    assert "train-images-idx3-ubyte" in said
    assert "here/MNIST/raw" in said
    assert "--config digits.yaml" in said


def test_checkpoint_of_another_run_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    run = [*SMALL, "--acquisition.rounds=0", "--acquisition.complement=none"]
    main(run)
    last = RUN / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    Path("other.py").write_text(
        "from baldvae_pl.data.sources import digits\n"
        "def evens(root):\n"
        "    source = digits(root)\n"
        "    return source._replace(train=type(source.train)(*(x[::2] for x in source.train)))\n"
    )
    sys.path.insert(0, ".")

    def said(*args: str) -> str:
        with pytest.raises(SystemExit) as caught:
            main([*run, f"--ckpt_path={last}", *args])
        return str(caught.value.code)

    mixed = "--resume_changed=true"
    try:
        assert "--data.source: other.evens is not what" in said("--data.source=other.evens")
        words = "made with other images or labels (1297 of 10 classes)"
        assert words in said("--data.source=other.evens", mixed)
    finally:
        sys.path.remove(".")
    assert "--model.augmentation: crop is not what" in said("--model.augmentation=crop")
    assert "--trainer.precision: bf16-mixed is not" in said("--trainer.precision=bf16-mixed")
    assert "--seed_everything: 1 is not what" in said("--seed_everything=1")
    assert "Give --seed_everything 0" in said("--seed_everything=1", mixed)
    assert "of another network" in said("--model.network=torch.nn.Identity", mixed)
    assert "--acquisition.complement: uncertain is not what" in said(
        "--acquisition.complement=uncertain"
    )
    assert "has no VAE" in said("--acquisition.complement=uncertain", mixed)
    assert last.read_bytes() == before
    assert len(rounds_of(RUN)) == 1


def test_a_run_is_tested_and_its_vae_used_again(capsys: pytest.CaptureFixture[str]) -> None:
    main(SMALL)
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
        assert all(torch.equal(taken[key], value) for key, value in weights.items())
        assert not again.with_name("vae.ckpt").exists()  # none was trained


def test_the_saved_config_starts_the_same_run(tmp_path: Path) -> None:
    main([*SMALL, "--acquisition.rounds=1", "--acquisition.complement=duplicate"])
    main(["fit", f"--config={RUN / 'config.yaml'}"])
    again = RUN.with_name("version_1") / "acquisitions.csv"
    assert again.read_bytes() == (RUN / "acquisitions.csv").read_bytes()


def test_fast_dev_run_goes_through_everything() -> None:
    main([*SMALL, "--trainer.fast_dev_run=true"])
    assert not Path("lightning_logs").exists() or not list(Path("lightning_logs").rglob("*.csv"))


def test_fashion_mnist_from_end_to_end() -> None:
    write_fashion_mnist(Path("here"), train=300, test=50)
    main(
        [
            "fit",
            "--config=fashion_mnist.yaml",
            "--config=smoke.yaml",
            "--data.root=here",
            *QUIET,
            "--acquisition.query_size=30",
        ]
    )
    rounds = rounds_of(Path("lightning_logs/fashion_mnist+smoke/version_0"))
    assert rounds["labelled"].tolist() == [100, 130, 160]
    assert rounds["unlabelled"].tolist() == [200, 170, 140]


def test_own_images_from_end_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    write_tree(Path("pets"), train=90, test=30, classes=["cat", "dog", "eel"])
    run = [
        *("fit", "--config=image_folder.yaml", "--config=smoke.yaml", "--data.root=pets", *QUIET),
        *("--data.initial_labels=20", "--acquisition.query_size=10", "--data.epochs_per_round=1"),
        *("--model.network=CIFAR10Net", "--model.network.num_classes=3", "--acquisition.rounds=1"),
        "--data.cache_folder=cache",
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
    with pytest.raises(SystemExit) as caught:
        main([*run, "--ckpt_path=last", "--acquisition.rounds=3"])
    assert "made with other images" in str(caught.value.code)


def test_settings_of_images_are_refused_where_they_mean_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = refused(capsys, "fit", "--config=digits.yaml", "--data.channels=3", *QUIET)
    assert "--data.channels: 3 cannot be chosen, as digits has no such option" in said
    said = refused(capsys, "fit", "--config=image_folder.yaml", "--data.channels=2", *QUIET)
    assert "data.channels" in said
    write_tree(Path("one"), train=4, test=2, classes=["cat"])
    said = refused(capsys, "fit", "--config=image_folder.yaml", "--data.root=one", *QUIET)
    assert "not two or more" in said or "two classes" in said
    said = refused(capsys, "fit", "--config=image_folder.yaml", "--data.root=nowhere", *QUIET)
    assert "--data.root: there is no folder nowhere/train" in said


def test_mnist_from_end_to_end(real_data: Path) -> None:
    main(
        [
            "fit",
            "--config=mnist.yaml",
            "--config=smoke.yaml",
            f"--data.root={real_data}",
            "--data.subset=20000",
            "--acquisition.rounds=1",
            "--acquisition.mc_samples=2",
            "--data.steps_per_round=30",
            *QUIET,
        ]
    )
    run = Path("lightning_logs/mnist+smoke/version_0")
    rounds = rounds_of(run)
    assert rounds["labelled"].tolist() == [100, 200]
    assert rounds["unlabelled"].tolist() == [19_900, 19_800]
    assert (rounds["test_acc"] > 0.4).all()
