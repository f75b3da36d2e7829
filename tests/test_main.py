"""The entry: answers without torch what needs none, and help pages that fit the real parser."""

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from baldvae_pl import __version__
from baldvae_pl.cli.configs import find_config, find_yaml
from baldvae_pl.cli.help import render
from baldvae_pl.experiments.arguments import parse_compare, parse_report
from baldvae_pl.main import RUN_COMMANDS, end_for_known_reasons, help_of, main
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


def python(*options: str, cwd: Path, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, *options],
        capture_output=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=120,
    )


SEES = """
import sys
from baldvae_pl import main as entry
seen = sys.flags.utf8_mode, open(__file__).encoding, sys.argv[1:], "\u96ea"
entry.run = lambda *a, **k: print(*seen)
entry.main()
"""


@pytest.mark.parametrize("forced_off", [True, False])
@pytest.mark.parametrize("name", ["en_US.iso88591", "ko_KR.euckr", "C"])
def test_any_locale_reads_and_writes_utf8(tmp_path: Path, name: str, forced_off: bool) -> None:
    known = subprocess.run(["locale", "-a"], capture_output=True, text=True).stdout.split()
    if name not in known:
        pytest.skip(f"there is no locale {name} here")
    (tmp_path / "sees.py").write_text(SEES)
    off = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"} if forced_off else {}
    arguments = ["fit", "ü.yaml"]
    done = python("sees.py", *arguments, cwd=tmp_path, LC_ALL=name, **off)
    assert done.returncode == 0, done.stderr
    mode, encoding, *rest = done.stdout.split()
    assert (mode, encoding.lower()) == (b"1", b"utf-8")
    assert len(rest) == 3  # with what this terminal cannot show in some other form


def test_a_users_file_hides_no_module(tmp_path: Path) -> None:
    for name in ("random", "copy", "logging"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    command = Path(sys.executable).with_name("baldvae")
    done = python(str(command), "report", "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    done = python("-m", "baldvae_pl", "report", "--help", cwd=tmp_path, PYTHONSAFEPATH="1")
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_notebooks_plotting_backend_is_not_taken(tmp_path: Path) -> None:
    curves = Path(__file__).parent.parent / "docs" / "results" / "repeated_full" / "runs.csv"
    report = ["report", str(curves), "--out=out"]
    done = python("-m", "baldvae_pl", *report, cwd=tmp_path, MPLBACKEND="module://not.there")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["report", "RUNS", "--out=out"]])
def test_output_into_a_pipe_that_closes_ends_with_a_sentence(
    tmp_path: Path, arguments: list[str]
) -> None:
    curves = Path(__file__).parent.parent / "docs" / "results" / "repeated_full" / "runs.csv"
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run(
        [sys.executable, "-m", "baldvae_pl", *(a.replace("RUNS", str(curves)) for a in arguments)],
        stdout=writes,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        text=True,
    )
    os.close(writes)
    assert done.returncode == 141
    assert done.stderr.splitlines() == ["baldvae: what reads its output has closed the pipe."]


def test_a_home_folder_is_meant_in_every_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_compare(["--configs=digits", "--folder=~/x"])[0].folder == tmp_path / "x"
    assert parse_report(["~/a", "--out=~/b"]).source == tmp_path / "a"
    assert parse_report(["~/a", "--out=~/b"]).out == tmp_path / "b"
    (tmp_path / "mine.yaml").write_text("{}")
    assert find_config("~/mine.yaml") == find_yaml("~/mine") == str(tmp_path / "mine.yaml")


def test_processes_that_do_not_find_each_other_end_with_a_sentence() -> None:
    import torch

    error = torch.distributed.DistNetworkError("timed out\nafter 5 s")
    with pytest.raises(
        SystemExit, match=r"^baldvae: error: --trainer\.devices: .*\(timed out after"
    ):
        end_for_known_reasons(error)


def test_a_mistyped_command_is_told_all_there_are(tmp_path: Path) -> None:
    done = python("-m", "baldvae_pl", "reprot", "x", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.decode() == (
        "baldvae: error: there is no command 'reprot'. Did you mean report? There are compare, "
        "fit, label, labels, predict, report, tasks, test, validate.\n"
    )
