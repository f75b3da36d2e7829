"""The `baldvae` command. What needs neither torch nor Lightning is answered without them."""

import errno
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module, resources
from pathlib import Path
from typing import NoReturn

from baldvae_pl import __version__
from baldvae_pl.errors import SettingError
from baldvae_pl.runs.signals import Stopped, say_how_to_go_on, stop_on_signals

RUN_COMMANDS = ("fit", "validate", "test", "predict")
"""Commands of Lightning's Trainer."""

WAITING = 75
"""Exit code of a run that ends because an answer is not there yet (EX_TEMPFAIL of sysexits.h)."""

HELP = """usage: baldvae COMMAND [options]

Pool-based active learning with complements for uncertain labelled images.

commands, each with --help:
  baldvae fit        run active learning: train, test, score, buy labels, complement
  baldvae test       test a trained run; also: validate
  baldvae predict    classify and rank the images of a folder with a trained run
  baldvae compare    make paired runs of several methods and seeds
  baldvae report     write tables and figures of finished runs

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
)


def main(args: Sequence[str] | None = None) -> None:
    """Run `baldvae`; bad settings end it with one sentence and exit code 1 or 2."""
    arguments = list(sys.argv[1:] if args is None else args)
    answer_at_once(arguments)
    for text in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", f".*{text}")
    sys.path.append(str(Path.cwd()))  # so that `my_file.my_function` here is an import path
    stop_on_signals()
    try:
        if arguments[0] in ("compare", "report"):
            import_module(f"baldvae_pl.experiments.{arguments[0]}").main(arguments[1:])
        else:
            import_module("baldvae_pl.cli.app").run(None if args is None else arguments)
    except SettingError as error:
        sys.exit(f"baldvae: error: {error}")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        say_how_to_go_on()
        sys.exit(f"baldvae: error: {error}. Make room on the disk.")
    except Stopped:
        say_how_to_go_on()
        raise
    except Exception as error:
        end_for_known_reasons(error)
        raise


def answer_at_once(arguments: list[str]) -> None:
    """Print the version or a help page and exit, if that is all that is asked for."""
    command, *rest = arguments or ["--help"]
    if command == "--version":
        answer(f"baldvae {__version__}\n")
    if command in ("--help", "-h"):
        answer(HELP)
    if command in RUN_COMMANDS and rest and rest[-1] in ("--help", "-h"):
        answer(help_of(command))


def answer(text: str) -> NoReturn:
    """Print a text and exit."""
    print(text, end="")
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
    oracle = sys.modules.get("baldvae_pl.oracle")
    if oracle is not None and isinstance(error, oracle.NotYet):
        reason = str(error) or "the oracle has not answered yet."
        print(f"baldvae: waiting: {reason}", file=sys.stderr)
        print("Go on with the same command and --ckpt_path last.", file=sys.stderr)
        sys.exit(WAITING)
