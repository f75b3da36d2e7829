"""The entry: answers without torch what needs none, and help pages that fit the real parser."""

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

from baldvae_pl import __version__
from baldvae_pl.cli.help import render
from baldvae_pl.main import RUN_COMMANDS, help_of, main
from baldvae_pl.oracle import NotYet

WITHOUT_TORCH = [
    ["--version"],
    ["--help"],
    [],
    *([command, "--help"] for command in RUN_COMMANDS),
    ["compare", "--help"],
    ["report", "--help"],
]


def options_in(page: str) -> set[str]:
    return set(re.findall(r"^ +(--[\w.+]+)", page, re.MULTILINE))


def test_version_help_and_report_import_neither_torch_nor_lightning(tmp_path: Path) -> None:
    curves = Path(__file__).parent.parent / "docs" / "results" / "repeated_full" / "runs.csv"
    answers = [*WITHOUT_TORCH, ["report", str(curves), f"--out={tmp_path}"]]
    script = (
        "import contextlib, io, sys\n"
        "from baldvae_pl.main import main\n"
        f"for arguments in {answers!r}:\n"
        "    with contextlib.redirect_stdout(io.StringIO()):\n"
        "        try:\n"
        "            code = main(arguments)\n"
        "        except SystemExit as end:\n"
        "            code = end.code\n"
        "    heavy = {'torch', 'lightning', 'torchvision'} & set(sys.modules)\n"
        "    print(code, *heavy)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines() == ["0"] * len(WITHOUT_TORCH) + ["None"]
    assert (tmp_path / "report.md").is_file()


@pytest.mark.parametrize("arguments", WITHOUT_TORCH, ids=" ".join)
def test_help_and_version_answer(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    said = capsys.readouterr().out
    if arguments == ["--version"]:
        assert said == f"baldvae {__version__}\n"
    elif arguments in (["--help"], []):
        for command in (*RUN_COMMANDS, "compare", "report"):
            assert command in said
    elif arguments[0] in RUN_COMMANDS:
        for option in ("data.source", "acquisition.query_size", "vae.epochs", "seed_everything"):
            assert f"--{option}" in said
        assert "--acquisition.vae" not in said


@pytest.mark.parametrize("command", RUN_COMMANDS)
def test_a_help_page_has_the_options_of_the_real_parser(command: str) -> None:
    shown, real = options_in(help_of(command)), options_in(render(command))
    # Lightning's own options may differ between its patch releases.
    assert {o for o in shown ^ real if not o.startswith("--trainer.")} == set()
    assert len(shown) > 80


def test_the_help_of_a_plug_in_is_answered_by_the_real_parser(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["fit", "--acquisition.selection.help=Power"])
    assert caught.value.code == 0
    assert "--acquisition.selection.coldness" in capsys.readouterr().out


def test_a_run_that_waits_ends_with_a_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wait(_: object) -> None:
        raise NotYet("12 images are left in to_label.csv.")

    monkeypatch.setattr("baldvae_pl.cli.app.run", wait)
    with pytest.raises(SystemExit) as caught, contextlib.redirect_stdout(io.StringIO()):
        main(["fit"])
    assert caught.value.code == 75
    first, second = capsys.readouterr().err.splitlines()
    assert first == "baldvae: waiting: 12 images are left in to_label.csv."
    assert "--ckpt_path last" in second
