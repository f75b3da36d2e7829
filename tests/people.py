"""People for tests: a folder of real digits, `baldvae label`, and somebody at a real browser."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from baldvae_pl.data.labels import LabelsFile, Row

SETTINGS = """
data:
  source:
    class_path: UnlabelledFolder
    init_args: {image_size: 8, channels: 1}
  root: digits
  budget: 60
  initial_labels: 20
  batch_size: 16
  steps_per_round: 20
acquisition: {rounds: null, query_size: 20, mc_samples: 4, complement: NoComplements}
trainer: {enable_progress_bar: false, enable_model_summary: false, log_every_n_steps: 10}
"""

WAIT = 60.0


def write_digits(folder: Path, count: int = 150) -> dict[str, str]:
    """Write real digits under names without a meaning, and return what they are."""
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1)).tolist()
    secret = {}
    for number, i in enumerate(order[:count]):
        pixels = (images[i].reshape(8, 8) * (255 / 16)).round().astype("uint8")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
        secret[f"{number:03}.png"] = str(labels[i])
    return secret


def answers_of(path: Path) -> list[Row]:
    """Rows that are answers: no audit marks, no classes."""
    return [row for row in LabelsFile(path).rows if row.label and row.file]


def until(true: Callable[[], Any], what: str, seconds: float = WAIT) -> Any:
    """Wait until something is true, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited for {seconds} s: {what}")


class Desk:
    """`baldvae label` in a folder, to be started again and again.

    Args:
        folder: Holds ``digits`` and the runs.
        options: More of the command's.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.options = folder, options
        (folder / "desk.yaml").write_text(SETTINGS)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = folder / "desk.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def labels(self) -> Path:
        return self.folder / "digits" / "labels.csv"

    @property
    def runs(self) -> list[Path]:
        return sorted((self.folder / "lightning_logs" / "desk").glob("version_*"))

    def start(self) -> str:
        """Start it and return the address, once the page is there."""
        command = [sys.executable, "-m", "baldvae_pl", "label", "--config", "desk.yaml"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port), *self.options],
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        said: str = until(lambda: re.findall(r"http\S+", self.log.read_text()), "the address")[-1]
        until(self._answers, "the server")
        return said

    def _answers(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self, all_at_once: bool = True) -> None:
        """Kill -9: both processes, or only the outer one, which the other one notices."""
        assert self.process is not None
        if all_at_once:
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=30)


@contextmanager
def desk(folder: Path, *options: str) -> Iterator[Desk]:
    """A desk that is cleared at the end."""
    made = Desk(folder, *options)
    try:
        yield made
    finally:
        if made.process is not None and made.process.poll() is None:
            os.killpg(made.process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, driven by Playwright."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("there is no chromium here")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


class Person:
    """Somebody at the page, who answers by the keyboard alone.

    Args:
        browser: Of the fixture.
        address: With the token.
        secret: What the images are.
        name: Typed into the page.
        size: Of the window.
    """

    def __init__(
        self,
        browser: Any,
        address: str,
        secret: dict[str, str],
        name: str = "",
        size: tuple[int, int] = (1200, 850),
    ) -> None:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]})
        self.page = context.new_page()
        self.secret, self.errors = secret, list[str]()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.goto(address)
        if name:
            self.page.fill("#who", name)
            self.page.keyboard.press("Tab")

    def shown(self) -> str | None:
        """The image on the screen, once it is there."""
        name: str | None = self.page.evaluate("document.body.dataset.shown || null")
        return name

    def saved(self) -> int:
        """How many answers the page says were saved."""
        return int(self.page.evaluate("document.body.dataset.saved || 0"))

    def classes(self) -> list[str]:
        names: list[str] = self.page.eval_on_selector_all(
            "#classes button", "all => all.map(b => b.dataset.class)"
        )
        return names

    def make_class(self, name: str) -> None:
        self.page.keyboard.press("n")
        self.page.keyboard.type(name)
        self.page.keyboard.press("Enter")
        until(lambda: name in self.classes(), f"the class {name}")

    def answer(self, count: int = 1, label: str | None = None) -> list[str]:
        """Answer so many images by the number keys, and return which."""
        done = []
        for _ in range(count):
            image: str = until(self.shown, "an image")
            said = label or self.secret[image]
            if said not in self.classes():
                self.make_class(said)
            before = self.saved()
            self.page.keyboard.press("1234567890"[self.classes().index(said)])
            until(lambda before=before: self.saved() > before, f"{image} is saved")
            done.append(image)
        return done

    def text(self, selector: str) -> str:
        found: str = self.page.inner_text(selector)
        return found

    def close(self) -> None:
        self.page.context.close()
