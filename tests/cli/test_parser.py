"""Command lines and files that cannot work: one sentence each, before anything is trained."""

from pathlib import Path

import pytest
import yaml
from helpers import QUIET, refusal, write_tree
from hypothesis import given
from hypothesis import strategies as st

from baldvae_pl.cli.parser import MOVED_OPTIONS, plugins, strictly
from baldvae_pl.runs.yaml_files import KeyTwiceError, check_keys, load_yaml

pytestmark = pytest.mark.usefixtures("elsewhere")


def refused(*arguments: str) -> str:
    """The one sentence that a bad command line ends with; nothing has been written then."""
    said = refusal(*arguments, *QUIET)
    assert not Path("lightning_logs").exists()
    return said


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--acquisition.function=nope"], "--acquisition.function: 'nope' is unknown"),
        (
            ["--acquisition.function=no.such"],
            "--acquisition.function: 'no.such' cannot be imported",
        ),
        (["--acquisition.query_size=1278"], "Take at most 1277"),
        (["--acquisition.query_size=0"], "acquisition.query_size"),
        (["--acquisition.query_size=nan"], "acquisition.query_size"),
        (["--acquisition.rounds=-1"], "acquisition.rounds"),
        (["--acquisition.mc_samples=1"], "Take at least 2"),
        (["--data.initial_labels=1298"], "Take at most 1297"),
        (["--data.steps_per_round=0"], "data.steps_per_round"),
        (["--trainer.max_epochs=3"], "follows from --acquisition.rounds"),
        (["--trainer.max_time=00:00:01:00"], "would cut a round short"),
        (
            ["--acquisition.selection=Power", "--acquisition.selection.coldness=inf"],
            "--coldness",
        ),
        (["--acquisition.complement=math.pi"], "--acquisition.complement: 'math.pi' is not what"),
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
        (
            ["--model.network=MNISTNet", "--model.network.image_shape=[1,28,28]"],
            "--model.network: for images of shape (1, 8, 8)",
        ),
        (["--trainer.default_root_dir=garbage.ckpt/x"], "cannot be written"),
        (["--acquisition.qurey_size=3"], "Did you mean --acquisition.query_size?"),
        (["--acquisition.mc_samples=1000000000000"], "--acquisition.mc_samples: 1000000000000"),
        (
            ["--acquisition.posterior=MCDropout", "--acquisition.posterior.nested=0"],
            "--acquisition.posterior.nested: must be at least 1",
        ),
        (["--acquisition.warm_start=maybe"], "--acquisition.warm_start"),
        (["--data.batch_size=1000000000000"], "Take at most 1297"),
        (["--data.epochs_per_round=nan"], "--data.epochs_per_round"),
        (["--data.epochs_per_round=inf"], "--data.epochs_per_round: must be a finite number"),
        (["--data.epochs_per_round=-1"], "--data.epochs_per_round"),
        (["--data.scoring_batch_size=0"], "--data.scoring_batch_size"),
        (["--data.initial_labels=three"], "--data.initial_labels"),
        (["--data.source=math.sqrt"], "--data.source: TypeError"),
        (["--data.oracle=math.pi"], "--data.oracle: 'math.pi' is not what it takes"),
        (["--vae.likelihood=poisson"], "--vae.likelihood"),
        (
            ["--vae.network=torch.nn.Identity"],
            "Identity makes images and encodes none",
        ),
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
        (
            [
                *("--acquisition.complement=NoComplements", "--trainer.devices=3"),
                "--data.batch_size=2",
            ],
            "shared",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_input_is_one_sentence_before_training(args: list[str], words: str) -> None:
    Path("garbage.ckpt").write_text("garbage")
    assert words in refused("fit", "--config=digits.yaml", *args)


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
        (
            "acquisition: {selection: {class_path: Power, init_args: {coldness: .inf}}}",
            "--acquisition.selection.coldness: must be a finite number",
        ),
        ("acquisition: {query_sise: 5}", "acquisition.query_sise"),
        ("rounds: 3", "mine.yaml: there is no option 'rounds'. Did you mean --acquisition.rounds?"),
        ("latent: mean", "no option 'latent'. Did you mean --acquisition.complement.latent?"),
        (
            "data: {root: 1}\nvae: {epochs: 2}\ndata: {}",
            "key data is given twice, in lines 1 and 3",
        ),
        (
            "data:\n  root: a\n  root: b",
            "mine.yaml: the key data.root is given twice",
        ),
        (
            "data: {root: 2024_05}",
            "--data.root: YAML takes what is given for 202405, which",
        ),
        (
            "method: 7",
            "what is given for 7, which is no text. Put it in quotes",
        ),
        (
            "data: {source: {class_path: ImageFolder, init_args: {cache_folder: 12}}}",
            "mine.yaml: --data.source.cache_folder: YAML takes what is given for 12, which is no",
        ),
        (
            "data: {source: {class_path: Digits, subset: 9}}",
            "mine.yaml: --data.source: beside class_path stands 'subset'. Put the options of",
        ),
        (
            "model: {network: {class_path: DigitsNet, init_args: {chan: 1}}}",
            "mine.yaml: --model.network: what it names has no option 'chan'",
        ),
        (
            "trainer: {logger: {class_path: CSVLogger, init_args: {foo: 1}}}",
            "mine.yaml: --trainer.logger: what it names has no option 'foo'",
        ),
        (
            "trainer: {strategy: ddp_spawn}",
            "--trainer.strategy: ddp_spawn gives each process a copy",
        ),
        ("seed_everything: null", "seed_everything"),
        (": : :", "Problems parsing config"),
        ("- 1", "Unexpected config"),
        ("", "Unexpected config"),
    ],
)
def test_bad_file_is_one_sentence_before_training(text: str, words: str) -> None:
    Path("mine.yaml").write_text(text)
    assert words in refused("fit", "--config=digits.yaml", "--config=mine.yaml")


@pytest.mark.parametrize("option", MOVED_OPTIONS)
def test_an_option_that_has_moved_names_the_new_one(option: str) -> None:
    new = MOVED_OPTIONS[option]
    said = refused("fit", "--config=digits.yaml", f"--{option}=3")
    assert f"--{option} is now --{new}, in a file " in said
    section, name = option.split(".")
    Path("mine.yaml").write_text(f"{section}: {{{name}: 3}}")
    said = refused("fit", "--config=digits.yaml", "--config=mine.yaml")
    assert f"mine.yaml: --{option} is now --{new}, in a file " in said
    assert f"{new.rpartition('.')[2]}: ..." in said


@pytest.mark.parametrize(
    ("option", "old", "new"),
    [
        ("acquisition.selection", "top_k", "TopK"),
        ("acquisition.selection", "power", "Power"),
        ("acquisition.selection", "softmax", "Softmax"),
        ("acquisition.selection", "softrank", "Softrank"),
        ("acquisition.selection", "batch_bald", "BatchBALD"),
        ("acquisition.complement", "uncertain", "Uncertain"),
        ("acquisition.complement", "none", "NoComplements"),
        ("acquisition.complement", "all_new", "AllNew"),
        ("acquisition.complement", "duplicate", "Duplicate"),
        ("data.source", "digits", "Digits"),
    ],
)
def test_a_name_of_an_earlier_version_leads_to_the_new_one(option: str, old: str, new: str) -> None:
    words = f"--{option}: '{old}' is unknown. Did you mean {new}?"
    assert words in refused("fit", "--config=digits.yaml", f"--{option}={old}")
    section, name = option.split(".")
    Path("mine.yaml").write_text(f"{section}: {{{name}: {old}}}")
    assert words in refused("fit", "--config=digits.yaml", "--config=mine.yaml")


def test_the_function_random_is_now_a_selection() -> None:
    words = "--acquisition.function: random is now a selection. Give --acquisition.selection Random"
    assert words in refused("fit", "--config=digits.yaml", "--acquisition.function=random")
    Path("mine.yaml").write_text("acquisition: {function: random}")
    assert words in refused("fit", "--config=digits.yaml", "--config=mine.yaml")


@pytest.mark.parametrize(
    ("option", "there"),
    [
        (
            "acquisition.selection",
            "ASAL, BADGE, BatchBALD, ClusterMargin, GAAL, KCenter, Power, ProbCover, Random, "
            "RandomSubset, Softmax, Softrank, TopK, Typical, Unexplored",
        ),
        (
            "acquisition.initial_selection",
            "ASAL, BADGE, BatchBALD, ClusterMargin, GAAL, KCenter, Power, ProbCover, Random, "
            "RandomSubset, Softmax, Softrank, TopK, Typical, Unexplored",
        ),
        (
            "acquisition.complement",
            "AffineCopy, AllNew, Duplicate, Mixed, MostUncertain, NoComplements, Regenerated, "
            "Retrieval, Uncertain",
        ),
        ("acquisition.posterior", "Deterministic, MCDropout"),
        ("data.source", "CIFAR10, Digits, FashionMNIST, ImageFolder, MNIST"),
        ("data.embedding", "Timm, Torchvision"),
        (
            "model.objective",
            "BayesianAugmentation, Consistency, CrossEntropy, FixMatch, Joint, LearningLoss, "
            "PoissonLabels, VAAL, VAEACGAN",
        ),
    ],
)
def test_a_wrong_name_lists_what_there_is(option: str, there: str) -> None:
    assert set(there.split(", ")) <= set(plugins()[option])
    names = ", ".join(plugins()[option])  # other tests may have made classes of their own
    words = f"--{option}: 'nope' is not what it takes. Choose one of {names}, or give an import"
    assert words in refused("fit", "--config=digits.yaml", f"--{option}=nope")
    section, name = option.split(".")
    Path("mine.yaml").write_text(f"{section}: {{{name}: nope}}")
    assert words in refused("fit", "--config=digits.yaml", "--config=mine.yaml")


WITH_OPTIONS = [
    ("acquisition.selection", "Power", "coldness"),
    ("acquisition.initial_selection", "RandomSubset", "balanced"),
    ("acquisition.posterior", "MCDropout", "nested"),
    ("data.source", "Digits", "subset, repeats"),
]


@pytest.mark.parametrize(("option", "name", "there"), WITH_OPTIONS)
def test_a_wrong_option_lists_those_that_there_are(option: str, name: str, there: str) -> None:
    words = f"--{option}: {name} has no option 'nope'; its options are: {there}"
    given = (f"--{option}={name}", f"--{option}.nope=3")
    assert words in refused("fit", "--config=digits.yaml", *given)


def wrong_option_in_a_file(option: str, name: str) -> str:
    """The sentence for an option ``nope`` of a plug-in."""
    section, short = option.split(".")
    Path("mine.yaml").write_text(
        f"{section}: {{{short}: {{class_path: {name}, init_args: {{nope: 3}}}}}}"
    )
    return refused("fit", "--config=digits.yaml", "--config=mine.yaml")


@pytest.mark.parametrize(("option", "name", "there"), WITH_OPTIONS)
def test_a_wrong_option_in_a_file_is_named(option: str, name: str, there: str) -> None:
    assert "'nope'" in wrong_option_in_a_file(option, name)


@pytest.mark.parametrize(("option", "name", "there"), WITH_OPTIONS)
def test_a_wrong_option_in_a_file_lists_those_that_there_are(
    option: str, name: str, there: str
) -> None:
    said = wrong_option_in_a_file(option, name)
    assert f"{name} has no option 'nope'; its options are: {there}" in said


def test_a_wrong_option_of_a_plug_in_that_a_file_names_lists_those_that_there_are() -> None:
    said = refused("fit", "--config=digits.yaml", "--data.source.channels=3")
    assert "--data.source: Digits has no option 'channels'; its options are: subset" in said


def test_max_epochs_is_refused_in_a_file_too() -> None:
    Path("mine.yaml").write_text("trainer: {max_epochs: 3}\n")
    said = refused("fit", "--config=digits.yaml", "--config=mine.yaml")
    assert "follows from --acquisition.rounds" in said


def test_testing_needs_a_checkpoint() -> None:
    assert "--ckpt_path: test needs" in refused("test", "--config=digits.yaml")


def test_missing_mnist_names_files_and_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", no_network)
    said = refused("fit", "--config=mnist.yaml", "--data.root=here")
    assert "train-images-idx3-ubyte" in said
    assert "here/MNIST/raw" in said
    assert "--config digits.yaml" in said


def test_settings_of_images_are_refused_where_they_mean_nothing() -> None:
    said = refused("fit", "--config=digits.yaml", "--data.source.channels=3")
    assert "--data.source: Digits has no option 'channels'" in said
    said = refused("fit", "--config=image_folder.yaml", "--data.source.channels=2")
    assert "channels" in said
    write_tree(Path("one"), train=4, test=2, classes=["cat"])
    said = refused("fit", "--config=image_folder.yaml", "--data.root=one")
    assert "not two or more" in said or "two classes" in said
    said = refused("fit", "--config=image_folder.yaml", "--data.root=nowhere")
    assert "--data.root: there is no folder nowhere/train" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--latent=mean"], "--latent=mean. Did you mean --acquisition.complement.latent?"),
        (["--model.network.channels=3"], "--model.network: what it names has no option 'channels'"),
        (["--acquisition.complement.laten=3"], "--acquisition.complement: Uncertain has no option"),
        (["--predictions.sort_by_bald=true"], "is now --predictions.sort_by"),
        (["--predictions.sort_by=balt"], "--predictions.sort_by: 'balt' is unknown. Choose one of"),
        (["--data={root: a, root: b}"], "the key root is given twice, in lines 1 and 1"),
        (
            ["--acquisition.mc_samples=1000000000000"],
            "--acquisition.mc_samples: 10000000",
        ),
    ],
)
def test_an_option_is_named_in_full(arguments: list[str], words: str) -> None:
    assert words in refused("fit", "--config=digits.yaml", *arguments)


def test_keys_may_be_merged_and_a_file_of_a_section_has_none_twice() -> None:
    Path("a.yaml").write_text("<<: {root: a}\nroot: b\n")
    Path("c.yaml").write_text("x: &x {a: 1}\ny: {<<: *x, <<: *x, a: 2}\nz: [&l {b: [*x]}, *l]\n")
    for file in ("a.yaml", "c.yaml"):
        check_keys(Path(file).read_text())
    assert load_yaml(Path("c.yaml"))["y"] == {"a": 2}
    Path("data.yaml").write_text("root: a\nroot: b\n")
    said = refused("fit", "--config=digits.yaml", "--data=data.yaml")
    assert "data.yaml" in said
    assert "the key root is given twice, in lines 1 and 2" in said


@given(
    st.recursive(
        st.integers(0, 9),
        lambda below: st.dictionaries(st.sampled_from("abcdef"), below, max_size=4),
        max_leaves=20,
    )
)
def test_what_yaml_writes_has_no_key_twice_and_written_twice_it_has(content: object) -> None:
    for style in (True, False):
        text = yaml.safe_dump({"top": content}, default_flow_style=style)
        assert strictly(text) == {"top": content}
    with pytest.raises(KeyTwiceError, match="the key top is given twice, in lines 1 and "):
        strictly(text + text)
