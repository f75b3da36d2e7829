"""The `baldvae` command. What needs neither torch nor Lightning is answered without them."""

import errno
import io
import locale
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import NoReturn

from baldvae_pl import __version__
from baldvae_pl.errors import SettingError, is_of_other_processes
from baldvae_pl.imports import import_without_gc
from baldvae_pl.runs.signals import (
    Stopped,
    end_with_parent,
    say_how_to_go_on,
    stop_on_signals,
)

RUN_COMMANDS = ("fit", "validate", "test", "predict")
"""Commands of Lightning's Trainer."""

OTHER_COMMANDS = {
    "compare": "baldvae_pl.experiments.compare",
    "report": "baldvae_pl.experiments.report",
    "label": "baldvae_pl.labelling.command",
    "labels": "baldvae_pl.labelling.tables",
    "tasks": "baldvae_pl.labelling.label_studio",
}

WAITING = 75
"""Exit code of a run that ends because an answer is not there yet (EX_TEMPFAIL of sysexits.h)."""

HELP = """usage: baldvae COMMAND [options]

Pool-based active learning with complements for uncertain labelled images.

commands, each with --help:
  baldvae fit        run active learning: train, test, score, buy labels, complement
  baldvae test       test a trained run; also: validate
  baldvae predict    classify and rank the images of a folder with a trained run
  baldvae label      run active learning with people: they answer on a page in the browser
  baldvae labels     count what people have answered, and write it for other tools
  baldvae tasks      exchange questions and answers with Label Studio
  baldvae compare    make paired runs of several methods and seeds
  baldvae report     write a page of a run, or tables and figures of many

options:
  --version          print the version
  --help             print this help

Begin with: baldvae fit --config digits.yaml
"""

IGNORED_WARNINGS = (
    "does not have many workers",  # gathering tensors is faster than worker processes
    "Found .* module.* in eval mode",  # the frozen VAE
    "exists and is not empty",  # a resumed run goes on in its own folder
    "The dirpath has changed from",  # predicting writes no checkpoints
    "LightningCLI's args parameter",  # `compare` parses the settings of its runs
    ".*isinstance\\(treespec, LeafSpec\\)",  # Lightning's, since torch 2.9
    "`max_epochs` was not set",  # it follows from the number of rounds
    "is smaller than the logging interval",  # what is logged is of a whole round
    "`weights_only` was not set",  # our own reader takes no code
    "Total length of `list` across ranks is zero",  # people may have no test images
    "It is recommended to use .*sync_dist=True",  # torchmetrics and `Processes` reduce
    "The `srun` command is available on your system but is not used",
)

UNSAID = (
    "GPU available: False",
    "TPU available",
    "HPU available",
    "💡 Tip",
    "`Trainer.fit` stopped",
)
"""How lines of Lightning's begin that say nothing about the run."""


def main(args: Sequence[str] | None = None) -> None:
    """Run `baldvae`; bad settings end it with one sentence and exit code 1 or 2."""
    if args is None:
        speak_utf8()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # any terminal gets what it can show
            stream.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv[1:] if args is None else args)
    try:
        answer_at_once(arguments)
        run(arguments, from_outside=args is None)
    except BrokenPipeError:
        end_without_a_reader(arguments)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # which rich has turned into an exit
            end_without_a_reader(arguments)
        raise


def run(arguments: list[str], from_outside: bool) -> None:
    """Run a command that needs more than a page of help."""
    for text in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", f".*{text}")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(is_worth_saying)
    # Figures are files; a notebook hands down a backend that may not be there.
    os.environ["MPLBACKEND"] = "agg"
    sys.path.append(str(Path.cwd()))  # so that `my_file.my_function` here is an import path
    stop_on_signals()
    end_with_parent()
    try:
        if arguments[0] in OTHER_COMMANDS:
            import_without_gc(OTHER_COMMANDS[arguments[0]]).main(arguments[1:])
        else:
            import_without_gc("baldvae_pl.cli.app").run(None if from_outside else arguments)
    except SettingError as error:
        sys.exit(f"baldvae: error: {error}")
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        say_how_to_go_on()
        sys.exit(f"baldvae: error: {error}. Make room on the disk.")
    except Stopped:
        say_how_to_go_on(arguments[0])
        raise
    except Exception as error:
        end_for_known_reasons(error)
        raise


def speak_utf8() -> None:
    """Begin again in Python's UTF-8 mode where the locale is another.

    Files are read and written in UTF-8 then, by the libraries too, and names of files are what they
    are; the terminal gets its own encoding.
    """
    is_utf8 = sys.flags.utf8_mode or locale.getencoding().lower() in ("utf-8", "utf8")
    if is_utf8 or os.environ.get("PYTHONUTF8") == "1":
        return
    terminal = f"{sys.stdout.encoding}:backslashreplace"
    environment = {**os.environ, "PYTHONUTF8": "1", "PYTHONIOENCODING": terminal}
    command = [sys.executable, *sys.orig_argv[1:]]
    if os.name == "nt":  # where a process cannot become another
        sys.exit(subprocess.call(command, env=environment))
    os.execve(sys.executable, command, environment)


def is_worth_saying(record: logging.LogRecord) -> bool:
    """Whether a line of Lightning's says something about the run."""
    return not record.getMessage().startswith(UNSAID)


def end_without_a_reader(arguments: list[str]) -> NoReturn:
    """End as a command does whose output goes to a pipe that was closed, with exit code 141."""
    with suppress(OSError):
        print("baldvae: what reads its output has closed the pipe.", file=sys.stderr, flush=True)
        if arguments[:1] in (["fit"], ["compare"]):
            say_how_to_go_on()
    with suppress(OSError):  # what is not written yet would be a traceback at the very end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(141)


def answer_at_once(arguments: list[str]) -> None:
    """Print the version, a help page or that there is no such command, and exit, if that is all."""
    command, *rest = arguments or ["--help"]
    if command == "--version":
        answer(f"baldvae {__version__}\n")
    if command in ("--help", "-h"):
        answer(HELP)
    known = (*RUN_COMMANDS, *OTHER_COMMANDS)
    if not command.startswith("-") and command not in known:
        like = get_close_matches(command, known, 1)
        meant = f" Did you mean {like[0]}?" if like else ""
        there = ", ".join(sorted(known))
        text = f"baldvae: error: there is no command {command!r}.{meant} There are {there}."
        print(text, file=sys.stderr)
        sys.exit(2)
    if command in RUN_COMMANDS and rest and rest[-1] in ("--help", "-h"):
        answer(help_of(command))


def answer(text: str) -> NoReturn:
    """Print a text and exit."""
    print(text, end="", flush=True)
    sys.exit(0)


def help_of(command: str) -> str:
    """Return the help page of a command, as `baldvae_pl.cli.help` has written it."""
    pages = resources.files("baldvae_pl.cli") / "help_pages"
    return (pages / f"{command}.txt").read_text(encoding="utf-8")


def end_for_known_reasons(error: Exception) -> None:
    """Exit with a sentence if an exception of a module that is loaded says what to do."""
    lightning = sys.modules.get("lightning.fabric.utilities.exceptions")
    if lightning is not None and isinstance(error, lightning.MisconfigurationException):
        sys.exit(f"baldvae: error: {error}")
    if is_of_other_processes(error):
        text = " ".join(str(error).split())
        sys.exit(
            f"baldvae: error: --trainer.devices: the processes of this run do not find each other, "
            f"or one has ended ({text}). Start all of them again with --ckpt_path last."
        )
    oracle = sys.modules.get("baldvae_pl.oracle")
    if oracle is not None and isinstance(error, oracle.NotYet):
        reason = str(error) or "the oracle has not answered yet."
        print(f"baldvae: waiting: {reason}", file=sys.stderr)
        if "same command" not in reason:
            print("Go on with the same command and --ckpt_path last.", file=sys.stderr)
        sys.exit(WAITING)
