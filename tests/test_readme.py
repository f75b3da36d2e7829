"""Examples, commands, options and links of README.md and docs/ work as they stand."""

import argparse
import functools
import inspect
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers import rounds_of
from killed import ran
from PIL import Image

import baldvae_pl
from baldvae_pl.cli.app import BaldVAECLI, make_cli, plan
from baldvae_pl.cli.configs import find_config, find_yaml
from baldvae_pl.cli.parser import MOVED_OPTIONS, plugins
from baldvae_pl.experiments.arguments import parse_compare

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RESULTS = ROOT / "docs" / "results" / "README.md"
EVERY_TEXT = [*DOCUMENTS, RESULTS, ROOT / "lightning_logs" / "README.md", ROOT / "CHANGELOG.md"]

OF_OTHERS = {
    *(
        "configs",
        "methods",
        "seeds",
        "jobs",
        "only",
        "list",
        "slurm",
        "folder",
        "baseline",
    ),  # compare
    *("out", "labels", "accuracies"),  # baldvae report
    *("host", "page_only"),  # baldvae label
    *("table", "tree", "copy", "labels"),  # baldvae labels
    *("file",),  # baldvae tasks
    *("data", "cifar10"),  # benchmarks/speed.py
    *("requeue", "signal", "open-mode", "output", "array", "parsable", "nodes"),  # sbatch
    *("dependency", "wrap", "ntasks-per-node"),  # sbatch too
    *("trainer.logger.tracking_uri", "trainer.logger.run_id", "trainer.logger.offline"),
    *("trainer.logger.id", "trainer.logger.resume"),
    *("logdir", "index-url", "check", "help", "upgrade-deps"),  # tensorboard, pip, ruff, venv
    "model.optimizer.fused",  # torch.optim.Adam
}
"""Options of commands with parsers of their own."""


def blocks(*documents: Path) -> dict[str, str]:
    """Each block of code below a `<!-- tested: NAME -->`, by that name."""
    found: dict[str, str] = {}
    marked = r"<!-- tested: (\S+) -->\n```\w+\n(.*?)```"
    for document in documents or DOCUMENTS:
        for name, block in re.findall(marked, document.read_text(encoding="utf-8"), re.DOTALL):
            assert name not in found, f"two blocks are named {name}"
            found[name] = block
    return found


@pytest.mark.parametrize("name", [name for name in blocks() if name.endswith(".sh")])
def test_marked_commands_run_beside_the_marked_files(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # has the cache of vectors
    (document,) = [document for document in DOCUMENTS if name in blocks(document)]
    for file, block in blocks(document).items():
        (tmp_path / file).write_text(block, encoding="utf-8")
    for line in blocks(document)[name].replace("\\\n", " ").splitlines():
        command, *arguments = shlex.split(line)
        assert command == "baldvae"
        done = ran(*arguments, "--trainer.enable_progress_bar=false", cwd=tmp_path)
        assert done.returncode == 0, done.stderr


def test_plain_python_example_runs(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (elsewhere / "plain.py").write_text(blocks()["plain.py"])
    runpy.run_path("plain.py", run_name="__main__")
    history = eval(capsys.readouterr().out.strip().splitlines()[-1])
    assert [labelled for labelled, _ in history] == [20, 40, 60, 80]
    assert history[-1][1] > 0.6  # chance is 0.1


def test_the_five_own_things_run(tmp_path: Path) -> None:
    for name in ("mine.py", "mine.yaml", "write_images.py"):
        (tmp_path / name).write_text(blocks()[name])
    subprocess.run([sys.executable, "write_images.py"], cwd=tmp_path, check=True)
    configs = [f"--config={name}" for name in ("digits.yaml", "mine.yaml", "smoke.yaml")]
    done = ran("fit", *configs, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "lightning_logs").glob("*/version_0")
    rounds = rounds_of(run)
    assert rounds["unlabelled"].tolist() == [980, 960, 940]
    assert not (run / "checkpoints" / "vae.ckpt").exists()


def test_shards_are_the_images_that_were_put_into_them(tmp_path: Path) -> None:
    writer = pytest.importorskip("webdataset", reason="needs webdataset").TarWriter
    for name in ("shards.py", "shards.yaml"):
        (tmp_path / name).write_text(blocks()[name])
    (tmp_path / "my_shards").mkdir()
    digits = baldvae_pl.Digits()(tmp_path)
    for split, part in (("train", digits.train), ("test", digits.test)):
        for shard, places in enumerate(torch.arange(len(part.labels)).tensor_split(3)):
            with writer(str(tmp_path / "my_shards" / f"{split}-{shard:04}.tar")) as file:
                for i in places.tolist():
                    pixels, label = part.images[i, 0].numpy(), str(int(part.labels[i]))
                    file.write({"__key__": f"{i:06}", "png": Image.fromarray(pixels), "cls": label})
    configs = [f"--config={name}" for name in ("digits.yaml", "shards.yaml", "smoke.yaml")]
    for folder, command in (
        ("one", ["fit", *configs]),
        ("two", ["fit", *configs]),  # from the files that the first start has made
        ("three", ["fit", *configs[::2], "--data.root=."]),
    ):
        root = f"--trainer.default_root_dir={folder}"
        assert ran(*command, root, cwd=tmp_path).returncode == 0
    tables = [
        rounds_of(next((tmp_path / folder).glob("lightning_logs/*/version_0")))
        for folder in ("one", "two", "three")
    ]
    pd.testing.assert_frame_equal(tables[0], tables[1], check_exact=True)
    pd.testing.assert_frame_equal(tables[0], tables[2], check_exact=True)


def test_an_oracle_that_waits_for_somebody_ends_the_run_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "desk.py").write_text(blocks()["desk.py"])
    first, again = map(shlex.split, blocks()["desk.commands"].splitlines())
    small = ["--config=smoke.yaml", "--config=bald_o.yaml", "--trainer.enable_progress_bar=false"]
    truth, codes, command = baldvae_pl.Digits()(tmp_path).train.labels, [], first
    while not codes or codes[-1] == 75:
        done = ran(*command[1:], *small, cwd=tmp_path)
        codes.append(done.returncode)
        asked = (tmp_path / "desk" / "to_label.txt").read_text().split()
        with (tmp_path / "desk" / "answered.txt").open("a") as answered:
            words = ["?" if int(i) % 10 == 0 else str(int(truth[int(i)])) for i in asked]
            answered.writelines(f"{i} {word}\n" for i, word in zip(asked, words, strict=True))
        command = again
    assert codes == [75, 75, 75, 0], done.stderr
    (run,) = (tmp_path / "lightning_logs").glob("*/version_0")
    rounds, bought = rounds_of(run), pd.read_csv(run / "acquisitions.csv")
    assert rounds["unlabelled"].tolist() == [1277, 1257, 1237]
    assert rounds["labelled"].iloc[-1] == len(bought) < 60
    assert (bought["index"] % 10 != 0).all()
    assert bought["label"].tolist() == truth[bought["index"].to_numpy()].tolist()


def not_run(document: Path) -> str:
    """The text of a document without what is run above, on whole lines."""
    text = document.read_text(encoding="utf-8").replace("\\\n", " ")
    return re.sub(r"<!-- tested: .*?```\w+\n.*?```", "", text, flags=re.DOTALL)


def links() -> Iterator[tuple[Path, str]]:
    for document in EVERY_TEXT:
        found = re.findall(r"\]\((?!https?:)([^)]+)\)", document.read_text(encoding="utf-8"))
        yield from ((document, target) for target in sorted(set(found)))


def anchors(document: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    ("document", "target"),
    [pytest.param(*link, id=f"{link[0].relative_to(ROOT)}: {link[1]}") for link in links()],
)
def test_links_lead_somewhere(document: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    there = document.parent / path if path else document
    assert there.exists()
    assert not anchor or anchor in anchors(there)


class ParsersError(Exception):
    """Carries the parsers out of the command line before it parses anything."""


class Parsers(BaldVAECLI):
    def parse_arguments(self, parser: object, args: object) -> None:
        raise ParsersError(self._subcommand_parsers)


@pytest.fixture(scope="module")
def options() -> set[str]:
    """All that the parser knows, and the options of the shipped plug-ins."""
    with pytest.raises(ParsersError) as caught:
        make_cli(Parsers, ["fit"])
    known = {
        option.removeprefix("--")
        for parser in caught.value.args[0].values()
        for option in parser._option_string_actions
    }
    for setting, names in plugins().items():
        for made in (getattr(baldvae_pl, name, None) for name in names):
            if made is not None:  # a test's own class may be among them
                known |= {f"{setting}.{option}" for option in inspect.signature(made).parameters}
    return known


@pytest.mark.parametrize("document", [*DOCUMENTS, RESULTS], ids=lambda d: str(d.relative_to(ROOT)))
def test_every_option_in_commands_and_in_the_text_exists(document: Path, options: set[str]) -> None:
    code = re.findall(r"```sh\n.*?```|`[^`\n]+`", not_run(document), re.DOTALL)
    named = {option for part in code for option in re.findall(r"(?<!\S)`?--([a-z][\w.-]*)", part)}
    assert named - options - OF_OTHERS == set()


def test_options_that_moved_are_where_they_are_said_to_be(options: set[str]) -> None:
    assert {*MOVED_OPTIONS.values()} <= options
    assert not {*MOVED_OPTIONS} & options


def commands() -> Iterator[tuple[Path, str]]:
    """Of `sh` blocks and tables, but for those that are run above; each on one line."""
    for document in [*DOCUMENTS, RESULTS]:
        text = not_run(document)
        lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
                 for line in block.splitlines()]  # fmt: skip
        for command in [*lines, *re.findall(r"^\|.*?`(baldvae [^`\n]+)`", text, re.MULTILINE)]:
            if re.match(r"baldvae (fit|test|validate|predict|compare) ", command):
                yield document, command.partition(" #")[0].strip()


def settings_of(command: str) -> Iterator[list[str]]:
    """The arguments of each `baldvae fit` or the like that a command makes."""
    _, subcommand, *words = shlex.split(command)
    if subcommand == "compare":
        chosen, rest = parse_compare(words)
        for config in chosen.configs:
            for method in chosen.methods:
                names = [*config.split("+"), method]
                yield ["fit", *(f"--config={find_yaml(name)}" for name in names), *rest]
    else:
        parser = argparse.ArgumentParser(allow_abbrev=False)
        parser.add_argument("--ckpt_path")  # there is no run to go on with
        parser.add_argument("--config", action="append", default=[])
        known, rest = parser.parse_known_args(words)
        # A user's own configuration is like the template.
        shipped = [
            name if Path(find_config(name)).is_file() else "image_folder.yaml"
            for name in known.config
        ]
        yield [subcommand, *(f"--config={name}" for name in shipped), *rest]


@pytest.mark.xdist_group("commands")  # many mean the same, which is found out once a process
@pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")  # pytest's own are in argv
@pytest.mark.parametrize(
    ("document", "command"),
    [
        pytest.param(
            *(document, command),
            id=f"{document.relative_to(ROOT)} {number}",
            # Those that made the results are many times ten methods.
            marks=[pytest.mark.slow] if document == RESULTS else [],
        )
        for number, (document, command) in enumerate(commands())
    ],
)
def test_commands_parse(document: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(RESULTS.parent / "regimes")
    for arguments in settings_of(command):
        assert settings(*arguments)


@functools.cache
def settings(*arguments: str) -> str:
    """What arguments mean: many commands mean the same."""
    return plan(list(arguments)).settings
