"""The real Label Studio, with a process beside it that asks it and is killed, and killed itself."""

import json
import multiprocessing
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
import torch
from pictures import noise, save

from baldvae_pl.data.labels import LabelsFile, Row
from baldvae_pl.data.question_file import Asked, OpenQuestion, write_question
from baldvae_pl.data.tally import Tally
from baldvae_pl.errors import SettingError
from baldvae_pl.labelling import label_studio_oracle
from baldvae_pl.labelling.label_studio import rows_of, tasks_of
from baldvae_pl.labelling.label_studio_oracle import LabelStudio, Server
from baldvae_pl.oracle import NotYet, Question
from baldvae_pl.runs.folder import RunFolder

pytestmark = pytest.mark.slow

NAMES = ["a.png", "b é.png", "sub/c'd\".png", "p%20q+#&;.png", *(f"{i}.png" for i in range(8))]
CLASSES = ["cat", "d&o <g> \"é\" 'x'"]
NO_QUESTION = Question(3, torch.tensor([0]), torch.zeros(1, 1, 1, 1), [])
FORK = multiprocessing.get_context("fork")


class Studio:
    """A Label Studio with its data in a folder, on a port of its own."""

    def __init__(self, command: str, folder: Path) -> None:
        self.command, self.folder = command, folder
        self.token = secrets.token_hex(20)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        quiet = {"COLLECT_ANALYTICS": "false", "LATEST_VERSION_CHECK": "false", "SENTRY_DSN": ""}
        quiet |= {"FRONTEND_SENTRY_DSN": "", "FEATURE_FLAGS_OFFLINE": "true"}
        served = {"LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true"}
        served |= {"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(self.folder)}
        options = {
            "data-dir": str(self.folder / "data"),
            "internal-host": "127.0.0.1",
            "port": str(self.port),
            "username": "ann@example.com",
            "password": "only-for-this-test",
            "user-token": self.token,
        }
        line = [self.command, "start", "--no-browser", "--enable-legacy-api-token"]
        line += [f"--{name}={value}" for name, value in options.items()]
        with (self.folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                line,
                stdout=log,
                stderr=log,
                env=os.environ | quiet | served,
                start_new_session=True,
            )
        for _ in range(600):
            assert self.process.poll() is None, (self.folder / "log.txt").read_text()[-3000:]
            try:
                self.ask("GET", "/api/projects/")
                return
            except OSError:
                time.sleep(0.2)
        raise AssertionError((self.folder / "log.txt").read_text()[-3000:])

    def kill_only(self) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)

    def kill(self) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.kill_only()
        self.process.wait()

    def ask(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        headers = {"Authorization": f"Token {self.token}", "Content-Type": "application/json"}
        address = f"{self.url}{path}?{urlencode(query)}" if query else self.url + path
        data = None if body is None else json.dumps(body).encode()
        with urlopen(Request(address, data, headers, method=method), timeout=60) as answer:
            content = answer.read()
        return json.loads(content) if content[:1] in (b"{", b"[") else content

    def project(self, title: str) -> int:
        found = self.ask("GET", "/api/projects/", title=title)["results"]
        assert len(found) == 1
        return int(found[0]["id"])

    def tasks(self, title: str) -> dict[str, Any]:
        query = {"project": self.project(title), "fields": "all", "page_size": 100}
        tasks = self.ask("GET", "/api/tasks", **query)["tasks"]
        by_file = {task["data"]["file"]: task for task in tasks}
        assert len(by_file) == len(tasks)  # none twice
        return by_file

    def annotate(self, title: str, file: str, label: str | None) -> dict[str, Any]:
        task = self.tasks(title)[file]["id"]
        body = {"result": chosen(label), "was_cancelled": label is None, "lead_time": 1.5}
        made: dict[str, Any] = self.ask("POST", f"/api/tasks/{task}/annotations/", body)
        return made


def chosen(label: str | None) -> list[dict[str, Any]]:
    value = {"from_name": "label", "to_name": "image", "type": "choices"}
    return [value | {"value": {"choices": [label]}}] if label else []


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    command = os.environ.get("BALDVAE_LABEL_STUDIO") or shutil.which("label-studio")
    if command is None:
        pytest.skip("BALDVAE_LABEL_STUDIO names no label-studio, and there is none on the PATH")
    made = Studio(command, tmp_path_factory.mktemp("studio"))
    made.start()
    yield made
    made.kill()


class Asking(LabelStudio):
    """An oracle with a question about twelve images of a folder of its own."""

    def __init__(self, studio: Studio, title: str, token: str | None = None, **more: Any) -> None:
        super().__init__(studio.url, token or studio.token, title, seconds=0.2, **more)
        self.root = studio.folder / title
        self.folder = studio.folder / f"run of {title}"
        for seed, name in enumerate(NAMES):
            if not (self.root / name).exists():
                save(self.root / name, noise(8, 8, 3, seed=seed))
        probs = [0.25, 0.75]
        asked = [Asked(x, "query", i + 1, 0.5 - i / 100, probs) for i, x in enumerate(NAMES)]
        self.asked = OpenQuestion(
            *(3, 0, "", str(self.root), str(self.root / "labels.csv"), CLASSES, CLASSES),
            *(asked, [], None, 1.0),
        )
        write_question(RunFolder(self.folder), self.asked)

    def rows(self) -> list[Row]:
        return LabelsFile(self.root / "labels.csv").rows

    def said(self) -> list[tuple[str, str]]:
        return [(row.file, row.label) for row in self.rows()]

    def ask(self) -> None:
        """As a run does, until there are all answers."""
        while len(Tally(CLASSES, self.rows()).labels) < len(NAMES):
            self.answer(NO_QUESTION)


def start(asking: Asking, prepare: Callable[[], None] = lambda: None) -> Any:
    """Ask in a process of its own."""

    def run() -> None:
        prepare()
        try:
            asking.ask()
        except SettingError as error:
            print(error, file=sys.stderr)
            os._exit(1)

    process = FORK.Process(target=run)
    process.start()
    return process


def after(owner: Any, name: str, kth: int, do: Callable[[], None], before: bool = False) -> None:
    """See to it that something happens when a function is called for the k-th time."""
    function, calls = getattr(owner, name), 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if before and calls == kth:
            do()
        result = function(*args, **kwargs)
        if not before and calls == kth:
            do()
        return result

    setattr(owner, name, wrapped)


def kill_me() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_server_shows_the_images_in_our_order_and_takes_both_kinds_of_token(
    studio: Studio,
) -> None:
    title = "order"
    personal = studio.ask("POST", "/api/token/", {})["token"]
    oracle = Asking(studio, title, personal, wait=False)
    with pytest.raises(NotYet, match="12 images have no answer yet"):
        oracle.answer(NO_QUESTION)
    assert oracle._server is not None
    oracle._server._access = oracle._server._access[:-1] + "?"  # as after five minutes
    with pytest.raises(NotYet):
        oracle.answer(NO_QUESTION)
    bad = Server(studio.url, personal[:-4] + "AAAA")
    with pytest.raises(SettingError, match=r"^--data.oracle.token: ") as caught:
        bad.tasks(1)
    assert personal[:-4] not in str(caught.value)

    project = studio.project(title)
    tasks = studio.tasks(title)
    for name in NAMES:
        assert studio.ask("GET", tasks[name]["data"]["image"]) == (oracle.root / name).read_bytes()
    for name in NAMES:
        shown = studio.ask("GET", f"/api/projects/{project}/next")
        assert shown["data"]["file"] == name
        assert shown["predictions"][0]["result"][0]["value"] == {"choices": [CLASSES[1]]}
        studio.annotate(title, name, CLASSES[1] if name == "7.png" else "cat")
    with pytest.raises(HTTPError, match="404"):
        studio.ask("GET", f"/api/projects/{project}/next")
    assert [*oracle.answer(NO_QUESTION)] == []
    assert oracle.said() == [(x, CLASSES[1] if x == "7.png" else "cat") for x in NAMES]

    for form in ("JSON", "JSON_MIN", "CSV", "TSV"):
        query = {"exportType": form, "download_all_tasks": "true"}
        export = studio.ask("GET", f"/api/projects/{project}/export", **query)
        text = export.decode() if isinstance(export, bytes) else json.dumps(export)
        assert rows_of(text)[0] == oracle.rows(), form


def test_a_skipped_task_is_cannot_tell_and_a_correction_is_one_more_row(studio: Studio) -> None:
    title = "corrections"
    oracle = Asking(studio, title, wait=False)
    with pytest.raises(NotYet):
        oracle.answer(NO_QUESTION)
    made = studio.annotate(title, "a.png", "cat")
    studio.annotate(title, "b é.png", None)
    for _ in range(2):
        with pytest.raises(NotYet, match="10 images"):
            oracle.answer(NO_QUESTION)
    assert oracle.said() == [("a.png", "cat"), ("b é.png", "cannot tell")]
    studio.ask("PATCH", f"/api/annotations/{made['id']}/", {"result": chosen(CLASSES[1])})
    for fresh in (oracle, Asking(studio, title, wait=False)):  # the second one reads all anew
        with pytest.raises(NotYet, match="10 images"):
            fresh.answer(NO_QUESTION)
    assert oracle.said()[2:] == [("a.png", CLASSES[1])]
    assert [row.annotator for row in oracle.rows()] == ["labelstudio:1"] * 3
    assert [row.seconds for row in oracle.rows()] == ["1.5"] * 3

    # What is dropped without a word is noticed.
    project, server = studio.project(title), Server(studio.url, studio.token)
    task = studio.tasks(title)["0.png"]["id"]
    wrong = {"task": task, "model_version": "x", "score": 0.5, "result": chosen("zebra")}
    with pytest.raises(SettingError, match=r"took 0 of 1 predictions"):
        server.import_predictions(project, [wrong])
    # A class that somebody adds there stays when we add ours.
    config = studio.ask("GET", f"/api/projects/{project}/")["label_config"]
    config = config.replace("</Choices>", '<Choice value="fox" /></Choices>')
    studio.ask("PATCH", f"/api/projects/{project}/", {"label_config": config})
    asked = oracle.asked._replace(round=4, declared=[*CLASSES, "owl"], classes=[*CLASSES, "owl"])
    asked = asked._replace(asked=[each._replace(probs=[0.0, 0.2, 0.8]) for each in asked.asked])
    write_question(RunFolder(oracle.folder), asked)
    with pytest.raises(NotYet, match="10 images"):
        oracle.answer(NO_QUESTION)
    found = studio.ask("GET", f"/api/projects/{project}/")
    assert found["parsed_label_config"]["label"]["labels"] == [*CLASSES, "fox", "owl"]
    assert found["model_version"] == "round_4"
    versions = [x["model_version"] for x in studio.tasks(title)["0.png"]["predictions"]]
    assert versions == ["round_3", "round_4"]


@pytest.mark.parametrize("seed", [0, 1])
def test_an_asking_process_that_is_killed_anywhere_loses_nothing(studio: Studio, seed: int) -> None:
    title = f"killed {seed}"
    oracle, chance = Asking(studio, title), random.Random(seed)
    spots: list[tuple[Any, str, int, bool]] = [
        (Server, "find_or_make_project", 1, False),
        (Server, "import_tasks", 1, True),
        (HTTPConnection, "getresponse", 5, True),  # the first part of the tasks is on its way
        (Server, "_check", 3, True),  # between two parts of the tasks
        (Server, "import_tasks", 1, False),
        (Server, "ask_in_order", 1, True),
        (label_studio_oracle, "import_rows", 1, True),
        (label_studio_oracle, "import_rows", 1, False),
        (label_studio_oracle, "import_rows", 2, True),
        (LabelsFile, "append", 1, False),
    ]

    def prepare(spot: tuple[Any, str, int, bool]) -> None:
        label_studio_oracle.BATCH = 5
        owner, name, kth, before = spot
        after(owner, name, kth, kill_me, before)

    given: list[tuple[str, str]] = []
    for spot in spots:
        process = start(oracle, lambda spot=spot: prepare(spot))
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, spot
        if spot[0] is HTTPConnection:
            assert len(studio.tasks(title)) <= 5
        if len(given) < 6 and studio.tasks(title).keys() == {*NAMES}:
            name = NAMES[len(given)]
            given.append((name, chance.choice(CLASSES)))
            studio.annotate(title, *given[-1])
    for _ in range(4):  # anywhere
        process = start(oracle)
        time.sleep(chance.uniform(0, 0.6))
        process.kill()
        process.join()
    process = start(oracle)
    for name in NAMES[len(given) :]:
        given.append((name, chance.choice(CLASSES)))
        studio.annotate(title, *given[-1])
    process.join(60)
    assert process.exitcode == 0
    assert oracle.said() == given
    tasks = studio.tasks(title)
    assert tasks.keys() == {*NAMES}
    wanted = {task["data"]["file"]: task["predictions"][0] for task in tasks_of(oracle.asked)}
    for name, task in tasks.items():
        assert [each["score"] for each in task["predictions"]] == [wanted[name]["score"]]


def test_a_server_that_is_killed_and_comes_back_is_waited_for(studio: Studio) -> None:
    title = "restarted"
    oracle = Asking(studio, title)

    def prepare() -> None:
        label_studio_oracle.BATCH = 5
        after(Server, "_check", 3, studio.kill_only, before=True)

    process = start(oracle, prepare)  # the server dies amidst the tasks, before it is met
    process.join(60)
    assert process.exitcode == 1
    studio.kill()
    studio.start()
    assert 0 < len(studio.tasks(title)) < 12

    process = start(oracle)
    given = [(name, CLASSES[i % 2]) for i, name in enumerate(NAMES)]
    while len(studio.tasks(title)) < 12:
        time.sleep(0.1)
    for name, label in given[:5]:
        studio.annotate(title, name, label)
    studio.kill()  # right after it has taken in the fifth
    time.sleep(1)
    studio.start()
    for name, label in given[5:]:
        studio.annotate(title, name, label)
    process.join(60)
    assert process.exitcode == 0
    assert oracle.said() == given
