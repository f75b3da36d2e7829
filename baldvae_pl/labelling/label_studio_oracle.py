"""Label Studio, asked by HTTP: a server that is there by itself, where people annotate.

With the standard library alone, as its own SDK would bring seventy packages. What is said about
Label Studio was seen with version 1.23.
"""

import json
import os
import re
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from filelock import FileLock
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from baldvae_pl.data.labels import LabelsFile
from baldvae_pl.data.question_file import OpenQuestion, question_in
from baldvae_pl.data.tally import Tally
from baldvae_pl.errors import SettingError
from baldvae_pl.labelling.label_studio import (
    ANNOTATOR,
    PROJECT,
    Task,
    classes_of,
    import_rows,
    label_config,
    moment,
    rows_of,
    tasks_of,
    url_prefix_of,
)
from baldvae_pl.oracle import Answer, NotYet, Oracle, Question
from baldvae_pl.runs.folder import RunFolder

URL, TOKEN = "--data.oracle.url", "--data.oracle.token"

BATCH = 100
"""Tasks a request: so few that a request of a killed process is over when the next one begins."""

NO_CONFIG = ("<View></View>", "<View/>")
UNCERTAIN = "Uncertainty sampling"
REFRESH = "/api/token/refresh"

ALL_ANEW = 100
"""Polls after which all is read again, should the server's clock have been set back."""


class LabelStudio(Oracle):
    """People who annotate in Label Studio, a server that is started by itself.

    Each image that is asked about becomes a task of a project there, and each annotation a row of
    the labels file. A skipped task means "cannot tell"; what is corrected there counts, too. An
    annotation that is deleted there stays in the file: correct it instead.

    Args:
        url: Address of the server.
        token: A personal access token, or a legacy one; left out, the environment variable
            ``LABEL_STUDIO_API_KEY``, which keeps it out of the run's files.
        project: Title of the project; it is made if there is none. One for each folder of images.
        wait: Whether the run stays while people annotate. Else it ends with exit code 75, and the
            same command goes on when the answers are there.
        images: What the addresses of the images begin with; left out, the server reads them from
            its own disk, below ``LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT``, the folder above theirs.
        seconds: Between two looks for answers.

    Attributes:
        folder: Of the run, where it leaves its open question.
    """

    waits_for_the_file = True
    knows_w_alone = True

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        token: str | None = None,
        project: str = "baldvae",
        wait: bool = True,
        images: str | None = None,
        seconds: float = 2.0,
    ) -> None:
        if not seconds > 0:
            raise SettingError(f"--data.oracle.seconds: {seconds} is not above 0.")
        self.url, self.token, self.project = url, token, project
        self.wait, self.images, self.seconds = wait, images, seconds
        self.folder: Path | None = None
        self._server: Server | None = None
        self._asked: OpenQuestion | None = None  # what the server has
        self._project = 0
        self._since: str | None = None
        self._polls = 0
        self._away = False
        self._said: set[str] = set()

    def answer(self, question: Question) -> Iterable[Answer]:
        """See to it that the server has the question, and take over what was annotated since.

        Raises:
            NotYet: If answers are missing, and it does not wait.
            SettingError: If the server cannot be used; one that was there may be away for a while.
        """
        del question  # the file says more
        asked = None if self.folder is None else question_in(RunFolder(self.folder).question)
        if asked is None:
            raise SettingError("--data.oracle: there is no run folder with a question to be sent.")
        labels, began = LabelsFile(Path(asked.labels)), time.monotonic()
        try:
            new = self._take(labels, asked)
        except Away as error:
            if self._asked is None or not self.wait:
                raise
            if not self._away:
                rank_zero_warn(f"{error} It is tried again until it does.")
            self._away = True
            time.sleep(self.seconds)
            return ()
        self._away = False
        said = Tally(asked.declared, labels.rows)
        left = [each.file for each in asked.asked if said.label(each.file) is None]
        where = f"{self._server.url if self._server else self.url}/projects/{self._project}/data"
        if not self.wait and (left or not new):
            lacks = f"{len(left):,} images have no answer yet" if left else "two classes are needed"
            raise NotYet(f"{lacks} in Label Studio. Label at {where}.")
        if left:
            self._say_once(f"Label Studio asks for {len(asked.asked):,} labels at {where}")
        there = {row.file for row in labels.rows if row.annotator.startswith(ANNOTATOR)}
        if vain := there.intersection(left):  # nobody is asked by the server for these again
            self._say_once(
                f"{len(vain):,} images have an answer in Label Studio that does not count, such as "
                f"{min(vain)}: it was withdrawn since, or is no class. Correct it at {where}.",
                rank_zero_warn,
            )
        if not new:  # a server that takes long to tell is asked less often
            took = time.monotonic() - began
            time.sleep(max(self.seconds, min(4 * took, 10 * self.seconds)))
        return ()

    def _take(self, labels: LabelsFile, asked: OpenQuestion) -> int:
        """Append what is new, and return how much that is."""
        if self._server is None:
            token = self.token or os.environ.get("LABEL_STUDIO_API_KEY")
            self._server = Server(self.url, token)
        prefix = url_prefix_of(asked, self.images)
        self._polls += 1
        if asked != self._asked:
            # Two runs that share their labels do not both send what is missing.
            with FileLock(labels.path.with_name(f".{labels.path.name}.sending.lock"), mode=0o666):
                tasks = self._send(self._server, labels, asked, prefix)
            self._asked = asked
        else:
            since = self._since if self._polls % ALL_ANEW else None
            tasks = self._server.tasks(self._project, since)
        ours = [task for task in tasks if image_of(task).startswith(prefix)]
        if len(ours) < len(tasks):
            self._say_once(f"{PROJECT}: tasks of images elsewhere are left alone, unlike {prefix}")
        # A draft is what somebody chooses just now.
        rows, complaints = rows_of([task | {"drafts": []} for task in ours], prefix)
        new = import_rows(labels, rows)
        for text in complaints:
            self._say_once(f"Label Studio: {text}.", rank_zero_warn)
        if tasks:  # what was written at about the same time may appear later
            newest = max(datetime.fromisoformat(task["updated_at"]) for task in tasks)
            self._since = moment((newest - timedelta(minutes=1)).isoformat())
        return new

    def _send(
        self, server: "Server", labels: LabelsFile, asked: OpenQuestion, prefix: str
    ) -> list[Task]:
        """Make tasks of the images that are not there yet; return those that were."""
        wanted = tasks_of(asked, prefix)
        config = label_config(classes_of(asked, labels))
        self._project = server.find_or_make_project(self.project, config)
        if self.images is None and wanted:
            server.serve_folder(self._project, Path(asked.root), wanted[0]["data"]["image"])
        tasks = server.tasks(self._project)
        there = {image_of(task): task for task in tasks}
        files = {task["data"].get("file"): image_of(task) for task in tasks}
        for task in wanted:
            file, image = task["data"]["file"], task["data"]["image"]
            if image not in there and file in files:
                raise SettingError(
                    f"{PROJECT}: the {file!r} of the project {self.project!r} is another image "
                    f"({files[file]}, not {image}). Name another project."
                )
        server.import_tasks(self._project, [x for x in wanted if image_of(x) not in there])
        again = [x for x in wanted if image_of(x) in there]
        server.import_predictions(
            self._project,
            [
                prediction | {"task": there[image_of(task)]["id"]}
                for task in again
                for prediction in task.get("predictions", [])
                if prediction["model_version"]
                not in {each["model_version"] for each in there[image_of(task)]["predictions"]}
            ],
        )
        if wanted and "predictions" in wanted[0]:
            version = wanted[0]["predictions"][0]["model_version"]
            server.ask_in_order(self._project, version)
        return tasks

    def _say_once(self, text: str, say: Any = rank_zero_info) -> None:
        if text not in self._said:
            self._said.add(text)
            say(text)


def image_of(task: Task) -> str:
    """Return the address of a task's image, by which it is known: file names may be the same."""
    return str(task["data"].get("image"))


class Away(SettingError):  # noqa: N818 (it may pass)
    """The server does not answer now; it may later."""


class Unauthorised(SettingError):  # noqa: N818 (an access token may be old)
    """The server does not take the token, or no longer."""


class Stay(HTTPRedirectHandler):
    """Follows no redirection, which would take the token elsewhere."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Return nothing, so that it is an error."""


class Server:
    """A Label Studio.

    Args:
        url: Its address.
        token: A personal access token, or a legacy one.
        timeout: Seconds without an answer until it counts as away.

    Raises:
        SettingError: If the address or the token cannot be one. As in all methods, and never with
            the token in what it says.
    """

    def __init__(self, url: str, token: str | None, timeout: float = 60.0) -> None:
        try:
            parts = urlsplit(url)
            _ = parts.port  # raises, too
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise SettingError(
                f"{URL}: that is no address such as http://127.0.0.1:8080, without a user's name."
            )
        self.url = url.rstrip("/")
        self._token = (token or "").strip()
        if not re.fullmatch(r"[!-~]+", self._token):
            raise SettingError(
                f"{TOKEN}: it is missing, or no token. Copy one from the account's page in Label "
                "Studio, best into the environment variable LABEL_STUDIO_API_KEY."
            )
        self._personal = self._token.count(".") == 2  # a JWT, good for nothing but access tokens
        self._access: str | None = None
        self._timeout = timeout
        here = parts.hostname in ("localhost", "127.0.0.1", "::1")
        self._opener = build_opener(Stay, *[ProxyHandler({})] * here)

    def find_or_make_project(self, title: str, config: str) -> int:
        """Return the number of the project of that title, with the classes of that setup added."""
        title, found, page = title.strip(), [], 1
        while page:
            query = {"title": title, "page_size": BATCH, "page": page}
            answer = self._call("GET", "/api/projects/", query=query)
            if "results" not in answer:
                raise self._stranger()
            found += [each for each in answer["results"] if each.get("title") == title]
            page = page + 1 if answer.get("next") else 0
        if not found:
            options = {
                "title": title,
                "label_config": config,
                "sampling": UNCERTAIN,
                "skip_queue": "IGNORE_SKIPPED",  # "cannot tell" is an answer, not to be asked again
            }
            return int(self._call("POST", "/api/projects/", options, PROJECT)["id"])
        project = min(found, key=lambda each: int(each["id"]))
        old = str(project.get("label_config"))
        classes = [choice.get("value", "") for choice in ET.fromstring(config).iter("Choice")]
        new = config if old in NO_CONFIG else label_config(classes, old)
        if new != old:
            self._change(project["id"], label_config=new)
        return int(project["id"])

    def ask_in_order(self, project: int, version: str) -> None:
        """Make a project show its tasks in the order of the predictions of that version."""
        self._change(project, model_version=version, sampling=UNCERTAIN)

    def tasks(self, project: int, since: str | None = None) -> list[Task]:
        """Return tasks with annotations and predictions: all, or those changed since a time.

        An export says the same, but leaves a copy on the server's disk each time.
        """
        changed = {
            "filter": "filter:tasks:updated_at",
            "operator": "greater_or_equal",
            "type": "Datetime",
            "value": since,
        }
        view = {"filters": {"conjunction": "and", "items": [changed] if since else []}}
        query = {"project": project, "fields": "all", "resolve_uri": "false", "page_size": BATCH}
        tasks: list[Task] = []
        while True:
            page = {"query": json.dumps(view), "page": len(tasks) // BATCH + 1}
            answer = self._call("GET", "/api/tasks", query=query | page)
            tasks += answer.get("tasks", [])
            if len(tasks) >= answer.get("total", 0) or len(answer["tasks"]) < BATCH:
                return tasks

    def import_tasks(self, project: int, tasks: Sequence[Task]) -> None:
        """Add tasks, with their predictions."""
        for start in range(0, len(tasks), BATCH):
            part = tasks[start : start + BATCH]
            answer = self._call("POST", f"/api/projects/{project}/import", part)
            predictions = sum(len(task.get("predictions", [])) for task in part)
            self._check(answer.get("task_count"), len(part), "tasks")
            self._check(answer.get("prediction_count"), predictions, "predictions")

    def import_predictions(self, project: int, predictions: Sequence[Task]) -> None:
        """Add predictions to tasks that are there, which they name by ``task``."""
        for start in range(0, len(predictions), BATCH):
            part = predictions[start : start + BATCH]
            answer = self._call("POST", f"/api/projects/{project}/import/predictions", part)
            self._check(answer.get("created"), len(part), "predictions")

    def serve_folder(self, project: int, folder: Path, address: str) -> None:
        """Make the server show the images of a folder on its disk, and try it with one address."""
        path = "/api/storages/localfiles"
        try:
            there = self._call("GET", path, query={"project": project})["results"]
            if not {each["path"] for each in there} & {str(folder), *map(str, folder.parents)}:
                store = {"project": project, "path": str(folder), "use_blob_urls": True}
                self._call("POST", path, store | {"title": folder.name})
            self._send("GET", address)
        except (Away, Unauthorised):
            raise
        except SettingError as error:
            raise SettingError(
                f"{error} It has to be started with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true "
                f"and LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={folder.parent} to show the images of "
                "this folder; or give --data.oracle.images, an address below which they are."
            ) from None

    def _change(self, project: int, **settings: str) -> None:
        self._call("PATCH", f"/api/projects/{project}/", settings, PROJECT)

    def _check(self, taken: Any, sent: int, what: str) -> None:
        if taken != sent:
            raise SettingError(
                f"{URL}: Label Studio at {self.url} took {taken or 0} of {sent} {what}. Its log "
                "says why; the labelling setup of the project may lack a class."
            )

    def _call(
        self,
        method: str,
        path: str,
        body: Any = None,
        setting: str = URL,
        query: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return what the server answers to a request; a list as ``results``."""
        path = f"{path}?{urlencode(query)}" if query else path
        try:
            content = self._send(method, path, body, setting)
        except Unauthorised:
            if not self._personal:
                raise
            self._access = None  # they last five minutes
            content = self._send(method, path, body, setting)
        try:
            answer = json.loads(content)
        except ValueError:
            raise self._stranger() from None
        return answer if isinstance(answer, dict) else {"results": answer}

    def _send(self, method: str, path: str, body: Any = None, setting: str = URL) -> bytes:
        headers = {"Content-Type": "application/json"}
        if path != REFRESH:
            headers["Authorization"] = self._authorisation()
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.url + path, data, headers, method=method)
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                content: bytes = answer.read()
                return content
        except HTTPError as error:
            raise self._refusal(error, setting) from None
        except (OSError, HTTPException, UnicodeError) as error:
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
            raise Away(
                f"{URL}: Label Studio at {self.url} does not answer ({reason}). Start it, or give "
                "its address."
            ) from None

    def _authorisation(self) -> str:
        if not self._personal:
            return f"Token {self._token}"
        if self._access is None:
            answer = self._call("POST", REFRESH, {"refresh": self._token}, TOKEN)
            self._access = str(answer.get("access"))
        return f"Bearer {self._access}"

    def _stranger(self) -> SettingError:
        return SettingError(f"{URL}: what answers at {self.url} is no Label Studio.")

    def _refusal(self, error: HTTPError, setting: str) -> SettingError:
        """Say why, but no secret."""
        try:
            said = json.loads(error.read())
            said = said.get("validation_errors") or said["detail"]
        except (OSError, HTTPException, ValueError, AttributeError, KeyError):
            said = error.reason
        why = " ".join(f"{error.code}: {said}".split()).rstrip(".")[:500]
        for secret in filter(None, (self._token, self._access)):
            why = why.replace(secret, "...")
        server = f"Label Studio at {self.url}"
        if error.code == 401:
            return Unauthorised(
                f"{TOKEN}: {server} does not take it ({why}). Copy one from the account's page."
            )
        if error.code == 429 or error.code >= 500:
            return Away(f"{URL}: {server} has failed ({why}). Its log says more.")
        if 300 <= error.code < 400:
            where = error.headers.get("Location")
            return SettingError(f"{URL}: {self.url} leads on to {where}. Give that address.")
        return SettingError(f"{setting}: {server} refuses {urlsplit(error.url).path} ({why}).")
