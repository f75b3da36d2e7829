"""`baldvae label`: the page at once, and beside it a `fit` that asks people and waits for them.

This process needs no torch, so that the page is there in half a second, while the other one loads.
They end together, but for a run that is finished: then the page stays for the review.
"""

import argparse
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import Any

import werkzeug.serving

from baldvae_pl.errors import SettingError
from baldvae_pl.labelling.board import Board
from baldvae_pl.labelling.page import Page
from baldvae_pl.runs.files import make_folder
from baldvae_pl.runs.folder import RUNS, RunFolder, experiment_part
from baldvae_pl.runs.signals import WITH_PARENT, Stopped
from baldvae_pl.runs.yaml_files import UNREADABLE, load_yaml

DESCRIPTION = """Label what the classifier asks about, on a page in the browser, while it trains.
Everything else is an option of `baldvae fit`, for example --data.root and --data.budget; the same
command goes on with a run that was stopped."""


class Server(werkzeug.serving.ThreadedWSGIServer):
    """Werkzeug's server, with an address that must be free."""

    allow_reuse_address = os.name != "nt"


class Silent(werkzeug.serving.WSGIRequestHandler):
    """Writes no line for each request."""

    def log(self, type: str, message: str, *args: Any) -> None:
        """Say nothing."""


def main(arguments: list[str]) -> None:
    """Serve the page and run the training process until one of them ends.

    Raises:
        SettingError: If the address cannot be used.
    """
    parser = argparse.ArgumentParser("baldvae label", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--port", type=int, default=8090, help="of the page (default: 8090)")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address that the page listens on; any other than the default lets other machines in, "
        "without encryption. `ssh -L 8090:127.0.0.1:8090 HOST` is safer",
    )
    parser.add_argument("--no_browser", action="store_true", help="do not open a browser")
    parser.add_argument(
        "--page_only", action="store_true", help="train nothing, only show the page"
    )
    own, rest = parser.parse_known_args(arguments)
    experiment = experiment_of(rest)
    token = token_of(experiment)
    fit = Fit(rest, asks=sets_an_oracle(rest))
    board = Board(lambda: newest(experiment), fit.says)
    server = serve(Page(board, token, own.port, own.host), own.host, own.port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    where = "127.0.0.1" if own.host in ("0.0.0.0", "::") else own.host
    address = f"http://{where}:{own.port}/?token={token}"
    print(f"Label on {address}", flush=True)
    if own.host not in ("127.0.0.1", "localhost", "::1"):
        print(
            f"It listens on {own.host}: whoever reaches this machine and has that address sees the "
            "images and can answer, and others on the way can read both, as nothing is encrypted.",
            flush=True,
        )
    if not own.no_browser and sys.stdout.isatty():
        webbrowser.open(address)
    try:
        if not own.page_only:
            fit.run()
            print("The page stays for the review; Ctrl-C ends it.", flush=True)
        signal.pause() if hasattr(signal, "pause") else threading.Event().wait()
    except Stopped:
        fit.stop()
        raise


class Fit:
    """The training process.

    Args:
        arguments: Of ``baldvae fit``.
        asks: Whether they name an oracle of the user's; otherwise people are waited for.
    """

    def __init__(self, arguments: list[str], asks: bool = False) -> None:
        waits = [] if asks else ["--data.oracle=People", "--data.oracle.wait=true"]
        self.command = [sys.executable, "-m", "baldvae_pl", "fit", *arguments, *waits]
        self.process: subprocess.Popen[bytes] | None = None
        self.ended: str | None = None

    def run(self) -> None:
        """Run it to its end.

        Raises:
            SystemExit: With its exit code, if it fails or has to wait for something else.
        """
        environment = {**os.environ, WITH_PARENT: "1"}
        # It reads nothing, but notices by it when this process is gone.
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, env=environment)
        code = self.process.wait()
        if code < 0:
            print(
                f"baldvae: the training process was killed by signal {-code}. All answers are kept,"
                " and the same command goes on.",
                file=sys.stderr,
            )
        if code:
            sys.exit(code if code > 0 else 128 - code)
        self.ended = "The run is finished."

    def says(self) -> dict[str, Any]:
        """Return whether it is alive, and how it ended."""
        alive = self.process is not None and self.process.poll() is None
        return {"alive": alive, "ended": self.ended}

    def stop(self) -> None:
        """End it, which takes a moment."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=10)


def serve(page: Page, host: str, port: int) -> Server:
    """Return the page's server.

    Raises:
        SettingError: If the address cannot be used.
    """
    try:
        with socket.create_connection((host, port), timeout=0.2):
            in_use = host not in ("0.0.0.0", "::")
    except OSError:
        in_use = False
    try:
        if in_use:
            raise OSError("it is in use")
        return Server(host, port, page, handler=Silent)
    except Stopped:
        raise
    except (OSError, OverflowError, SystemExit) as error:  # Werkzeug's for an address in use
        raise SettingError(
            f"--port: {port} on {host} cannot be used ({error or 'it is in use'}). Give another."
        ) from error


def options_of(arguments: list[str]) -> tuple[argparse.Namespace, list[dict[str, Any]]]:
    """Return the options of `fit` that matter here, and what its configurations say."""
    known = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    known.add_argument("-c", "--config", action="append", default=[])
    known.add_argument("--trainer.default_root_dir", dest="folder")
    found, _ = known.parse_known_args(arguments)
    configs = []
    for config in found.config:
        with suppress(*UNREADABLE):
            settings = load_yaml(Path(config))
            configs.append(settings if isinstance(settings, dict) else {})
    return found, configs


def sets_an_oracle(arguments: list[str]) -> bool:
    """Whether the user has chosen an oracle other than people."""
    _, configs = options_of(arguments)
    chosen = [config.get("data", {}).get("oracle") for config in configs]
    names = [x.get("class_path", "") if isinstance(x, dict) else x for x in chosen if x]
    given = any(argument.startswith("--data.oracle") for argument in arguments)
    return given or any(str(name).rpartition(".")[2] != "People" for name in names)


def experiment_of(arguments: list[str]) -> Path:
    """Return the folder of the runs that these options of `fit` make."""
    found, configs = options_of(arguments)
    said = [(config.get("trainer") or {}).get("default_root_dir") for config in configs]
    folder = found.folder or next(filter(None, reversed(said)), None)
    name = "+".join(map(experiment_part, found.config)) or "default"
    return Path(folder or ".").expanduser().absolute() / RUNS / name


def newest(experiment: Path) -> RunFolder | None:
    """Return the newest run that people label."""
    runs = [RunFolder(path) for path in experiment.glob("version_*")]
    runs = [run for run in runs if run.question.exists()]
    return max(runs, key=lambda run: run.version, default=None)


def token_of(experiment: Path) -> str:
    """Return the token of an experiment's page, the same at each start: open pages go on."""
    path = experiment / ".page_token"
    try:
        token = path.read_text(encoding="ascii").strip()
        if len(token) >= 32:
            return token
    except (OSError, ValueError):
        pass
    token = secrets.token_urlsafe(32)
    try:
        make_folder(experiment)
        path.unlink(missing_ok=True)
        private = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(private, "w", encoding="ascii") as file:
            file.write(token)
    except OSError as error:
        raise SettingError(
            f"--trainer.default_root_dir: {experiment} cannot be written ({error}). Name a folder "
            "that can."
        ) from error
    return token
