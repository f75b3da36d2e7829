"""Label Studio without it: the forms of its files, and a small server that behaves as it does.

What it exports here was exported by Label Studio 1.23.2, which slow/test_label_studio_server.py
asks itself.
"""

import csv
import json
import re
import socket
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import torch
from helpers import refusal

from baldvae_pl.data.labels import COLUMNS, LabelsFile, Row
from baldvae_pl.data.question_file import Asked, OpenQuestion, write_question
from baldvae_pl.errors import SettingError
from baldvae_pl.labelling.label_studio import (
    import_rows,
    label_config,
    main,
    rows_of,
    tasks_of,
)
from baldvae_pl.labelling.label_studio_oracle import Away, LabelStudio, Server
from baldvae_pl.oracle import NotYet, Question
from baldvae_pl.runs.folder import RunFolder

FILES = ["a.png", "b é.png", "sub/c'd\"e.png", "p%20q+#&.png"]
LEGACY = "0123456789abcdef0123456789abcdef01234567"
PERSONAL = "eyJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCJ9.c2VjcmV0LXNpZ25hdHVyZQ"
NO_QUESTION = Question(3, torch.tensor([0]), torch.zeros(1, 1, 1, 1), [])


def question(root: Path = Path("/home/ann/my photos"), round: int = 3) -> OpenQuestion:
    probs = [[0.2, 0.8], [0.6, 0.4], [0.9, 0.1], [0.5, 0.5]]
    asked = [
        Asked(file, "query", rank + 1, 0.7 - rank / 10, probs[rank])
        for rank, file in enumerate(FILES)
    ]
    if not round:
        asked = [each._replace(why="first", score=None, probs=None) for each in asked]
    labels = str(root / "labels.csv")
    classes = ["cat", "dog"]
    return OpenQuestion(round, 0, "", str(root), labels, classes, classes, asked, [], None, 1.0)


def region(*classes: str, name: str = "label", kind: str = "choices") -> dict[str, Any]:
    return {"from_name": name, "to_name": "image", "type": kind, "value": {kind: [*classes]}}


def annotation(number: int, *classes: str, time: str = "", **more: Any) -> dict[str, Any]:
    """As in an export, without keys that nobody reads."""
    when = time or f"2026-11-25T21:54:{10 + number}.559445Z"
    return {
        "id": number,
        "completed_by": 1,
        "result": [region(*classes)] if classes else [],
        "was_cancelled": False,
        "created_at": when,
        "updated_at": when,
        "lead_time": 1.5,
    } | more


def task(number: int, file: str | None, *annotations: dict[str, Any], **data: Any) -> dict:
    data = {"image": "/data/local-files/?d=my%20photos/a.png", "round": 3, "why": "query"} | data
    data |= {"file": file} if file else {}
    return {"id": number, "annotations": [*annotations], "drafts": [], "data": data}


def line(file: str, label: str, second: int, **more: str) -> Row:
    row = Row(file, label, "labelstudio:1", "1.5", "3", "query")
    return row._replace(time=f"2026-11-25T21:54:{second}.559445Z", **more)


# Tasks and the labelling setup


def test_the_first_choice_has_the_lowest_score_whatever_its_bald() -> None:
    tasks = tasks_of(question())
    assert [each["predictions"][0]["score"] for each in tasks] == [0.25, 0.5, 0.75, 1.0]
    assert [each["data"]["bald"] for each in tasks] == pytest.approx([0.7, 0.6, 0.5, 0.4])
    assert {each["predictions"][0]["model_version"] for each in tasks} == {"round_3"}
    assert [each["predictions"][0]["result"] for each in tasks] == [
        [region(guess)] for guess in ("dog", "cat", "cat", "cat")
    ]
    assert tasks_of(question(), version="v")[0]["predictions"][0]["model_version"] == "v"
    first = tasks_of(question(round=0))
    assert [each["data"] | {"image": ""} for each in first[:1]] == [
        {"image": "", "file": "a.png", "why": "first", "round": 0, "rank": 1, "bald": None}
    ]
    assert not any("predictions" in each for each in first)


def test_addresses_lead_to_the_files_whatever_their_names() -> None:
    served = [each["data"]["image"] for each in tasks_of(question())]
    assert served[:2] == [
        "/data/local-files/?d=my%20photos/a.png",
        "/data/local-files/?d=my%20photos/b%20%C3%A9.png",
    ]
    assert [parse_qs(urlsplit(x).query)["d"] for x in served] == [[f"my photos/{x}"] for x in FILES]
    elsewhere = tasks_of(question(), "https://example.com/x/")
    assert elsewhere[3]["data"]["image"] == "https://example.com/x/p%2520q%2B%23%26.png"
    asked = [Asked("a\udcff.png", "query", 1)]
    with pytest.raises(SettingError, match=r"--data.root: .* no Unicode. Rename it"):
        tasks_of(question()._replace(asked=asked))


def test_the_setup_holds_any_class_and_keeps_what_somebody_made_of_it() -> None:
    names = ["cat", "d&o <g> \"é\" 'x'", *map(str, range(3, 12))]
    config = label_config(names)
    choices = [*ET.fromstring(config).iter("Choice")]
    assert [each.get("value") for each in choices] == names
    assert [each.get("hotkey") for each in choices] == [*"123456789", None, None]
    assert "value=\"d&amp;o &lt;g&gt; &quot;é&quot; 'x'\"" in config
    ours = ET.fromstring(config).find("Choices")
    assert ours is not None
    assert (ours.get("name"), ours.get("toName"), ours.get("showInLine")) == (
        ("label", "image", "true")
    )
    own = (
        '<View><Header value="Which?"/><Image name="image" value="$image"/><Choices name="label" '
        'toName="image"><Choice value="cat" background="red"/></Choices></View>'
    )
    assert label_config(["cat"], own) == own
    extended = label_config(["dog", "cat"], own)
    assert 'background="red"' in extended
    assert "Which?" in extended
    values = [each.attrib for each in ET.fromstring(extended).iter("Choice")]
    assert values == [{"value": "cat", "background": "red"}, {"value": "dog", "hotkey": "2"}]
    with pytest.raises(SettingError, match=r"--data.oracle.project: .* no Choices"):
        label_config(["cat"], '<View><Image name="image" value="$image"/></View>')
    with pytest.raises(SettingError, match=r"--data.source.classes: "):
        label_config([])


# Exports


def test_annotations_become_rows_in_the_order_of_their_times() -> None:
    corrected = annotation(2, "dog", time="2026-11-25T21:54:40.559445Z", lead_time=None)
    both = [corrected, annotation(1, "cat")]
    colleague = annotation(4, "cat", completed_by={"id": 7, "email": "bo@example.com"})
    export = [
        task(1, "b é.png", *both),
        task(2, "a.png", annotation(3, was_cancelled=True), colleague),
        task(3, "c.png"),
        task(4, "other/d.png", annotation(5, "e\u0301", completed_by=None), round=None, why=None),
    ]
    rows, complaints = rows_of(export)
    assert complaints == []
    assert rows == [
        line("b é.png", "cat", 11),
        line("a.png", "cannot tell", 13),
        line("a.png", "cat", 14, annotator="labelstudio:7"),
        line("other/d.png", "é", 15, annotator="labelstudio", round="", why="import"),
        line("b é.png", "dog", 40, seconds=""),
    ]
    assert rows_of(json.dumps(export)) == (rows, [])


JSON_MIN = [
    {
        "image": "/data/local-files/?d=my%20photos/a.png",
        "file": "a.png",
        "round": 3,
        "why": "query",
        "rank": 1,
        "bald": 0.3,
        "id": 1,
        "label": "cat",
        "annotator": 1,
        "annotation_id": 1,
        "created_at": "2026-11-25T21:54:29.559428Z",
        "updated_at": "2026-11-25T21:54:29.559445Z",
        "lead_time": 1.5,
    }
]
CSV = (
    '"annotation_id","annotator","bald","created_at","file","id","image","label","lead_time",'
    '"rank","round","updated_at","why"\n'
    '1,"1",0.3,"2026-11-25T21:54:29.559428Z","a.png",1,"/data/local-files/?d=my%20photos/a.png",'
    '"cat",1.5,1,3,"2026-11-25T21:54:29.559445Z","query"\n'
)


def test_all_exports_say_the_same_but_for_what_was_skipped() -> None:
    whole = task(1, "a.png", annotation(19, "cat"))
    rows = [line("a.png", "cat", 29)]
    assert rows_of([whole]) == (rows, [])
    for export in (JSON_MIN, json.dumps(JSON_MIN), CSV, CSV.replace(",", "\t")):
        found, complaints = rows_of(export)
        assert found == rows
        assert complaints == [
            "JSON-MIN and CSV lack the tasks that were skipped, each of them a 'cannot tell'; "
            "export as JSON to have these too"
        ]


def test_what_cannot_be_understood_is_said() -> None:
    def said(*items: Any) -> list[str]:
        rows, complaints = rows_of([*items])
        assert rows == []
        return complaints

    rectangle = region("cat", name="r", kind="rectanglelabels")
    assert said(task(1, "a.png", annotation(1, result=[rectangle]))) == [
        "a.png, annotation 1: what is no choice of a class is left out (rectanglelabels)",
        "a.png, annotation 1: left out, as it has no class",
    ]
    assert said(task(1, "a.png", annotation(2, "cat", "dog"))) == [
        "a.png, annotation 2: left out, as it has 2 classes"
    ]
    assert said(task(1, "a.png", annotation(3))) == [
        "a.png, annotation 3: left out, as it has no class"
    ]
    assert said(task(1, None, annotation(4, "cat"), image="data:image/png;base64,AAAA")) == [
        "a task, annotation 4: left out, as it has no name of a file"
    ]
    timeless = {"created_at": None, "updated_at": "soon"}
    assert said(task(1, "a.png", annotation(5, "cat", **timeless))) == [
        "a.png, annotation 5: left out, as it has no time"
    ]
    draft = task(1, "a.png") | {"drafts": [{"id": 1, "result": [region("cat")]}]}
    assert said(draft) == ["a.png: a class was chosen in Label Studio, but not submitted"]
    flat = JSON_MIN[0] | {"label": {"choices": ["cat", "dog"]}}
    assert said(flat)[0] == "a.png, annotation 1: left out, as it has 2 classes"
    unlabelled = {key: value for key, value in JSON_MIN[0].items() if key != "label"}
    assert said(unlabelled)[0] == "a.png, annotation 1: left out, as it has no class"
    assert said(JSON_MIN[0] | {"label": [{"rectanglelabels": ["cat"]}]})[:2] == [
        "a.png, annotation 1: what is no choice of a class is left out (regions)",
        "a.png, annotation 1: left out, as it has no class",
    ]
    nobody = dict.fromkeys(("label", "annotation_id", "annotator", "updated_at"))
    assert len(said(JSON_MIN[0] | nobody)) == 1  # a task without an answer


def test_a_choice_beside_other_regions_counts_and_so_does_one_of_another_name() -> None:
    rectangle = region("dog", name="r", kind="rectanglelabels")
    both = annotation(1, result=[rectangle, region("dog", name="sure"), region("cat")])
    rows, complaints = rows_of([task(1, "a.png", both)])
    assert rows == [line("a.png", "cat", 11)]
    assert complaints == [
        "a.png, annotation 1: what is no choice of a class is left out (rectanglelabels)"
    ]
    own = annotation(1, result=[region("dog", name="animal")])
    assert rows_of([task(1, "a.png", own)]) == ([line("a.png", "dog", 11)], [])


def test_who_skips_skips_the_guess_as_well_but_a_later_choice_is_said() -> None:
    skipped = annotation(1, "cat", was_cancelled=True)
    assert rows_of([task(1, "a.png", skipped)]) == ([line("a.png", "cannot tell", 11)], [])
    later = skipped | {"updated_at": "2026-11-25T21:54:40.559445Z"}
    rows, complaints = rows_of([task(1, "a.png", later)])
    assert rows == [line("a.png", "cannot tell", 40)]
    assert complaints == ["a.png, annotation 1: 'cat' in what was skipped is 'cannot tell'"]


@pytest.mark.parametrize(
    ("image", "file"),
    [
        ("/data/local-files/?d=my%20photos/sub/b%20%C3%A9.png", "my photos/sub/b é.png"),
        ("/data/upload/2/742e9b9f-img_00.png", "img_00.png"),
        ("https://example.com/x/p%2520q.png?size=1", "p%20q.png"),
    ],
)
def test_a_task_that_does_not_say_its_file_is_known_by_its_address(image: str, file: str) -> None:
    rows, complaints = rows_of([task(1, None, annotation(1, "cat"), image=image)])
    assert rows == [line(file, "cat", 11)]
    assert complaints == [
        "1 answers are of tasks that do not say their file; it was taken from the address of the "
        f"image, such as {file!r}"
    ]
    if "local-files" in image:
        prefix = "/data/local-files/?d=my%20photos/"
        rows, complaints = rows_of([task(1, None, annotation(1, "cat"), image=image)], prefix)
        assert (rows[0].file, complaints) == ("sub/b é.png", [])


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"a": 1}]', "[", "a,b\n1,2\n"])
def test_what_is_no_export_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"it has neither|Expecting"):
        rows_of(text)


# The labels file


def test_to_import_again_adds_nothing_and_a_correction_adds_one_row(tmp_path: Path) -> None:
    labels = LabelsFile(tmp_path / "labels.csv")
    first = annotation(1, "cat")
    export = [task(1, "a.png", first), task(2, "b é.png", annotation(2, was_cancelled=True))]
    assert import_rows(labels, rows_of(export)[0]) == 2
    assert import_rows(labels, rows_of(export)[0]) == 0
    assert import_rows(LabelsFile(labels.path), rows_of(export)[0] * 2) == 0
    corrected = first | {"result": [region("dog")], "updated_at": "2026-11-25T22:00:00Z"}
    assert import_rows(labels, rows_of([task(1, "a.png", corrected), export[1]])[0]) == 1
    assert import_rows(labels, rows_of(export)[0]) == 0  # the old export: not back to "cat"
    assert [(row.file, row.label) for row in labels.rows] == [
        ("a.png", "cat"),
        ("b é.png", "cannot tell"),
        ("a.png", "dog"),
    ]
    assert labels.rows[-1].time == "2026-11-25T22:00:00.000000Z"
    with labels.path.open(newline="") as file:
        assert next(csv.reader(file)) == [*COLUMNS]


def test_an_old_export_is_not_imported_behind_its_correction(tmp_path: Path) -> None:
    labels = LabelsFile(tmp_path / "labels.csv")
    old = task(1, "a.png", annotation(1, "cat"))
    new = task(1, "a.png", annotation(1, "dog", time="2026-11-25T22:00:00+00:00"))
    assert import_rows(labels, rows_of([new])[0]) == 1
    assert import_rows(labels, rows_of([old])[0]) == 0
    assert [row.label for row in labels.rows] == ["dog"]


def test_two_that_import_at_once_add_each_answer_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = LabelsFile.append
    monkeypatch.setattr(LabelsFile, "append", lambda *args: time.sleep(0.02) or append(*args))
    path = tmp_path / "labels.csv"
    export = [task(i, f"{i}.png", annotation(i, "cat")) for i in range(40)]
    rows = [row._replace(time=row.time[:17] + "59Z") for row in rows_of(export)[0]]
    counts: list[int] = []

    def run() -> None:
        counts.append(import_rows(LabelsFile(path), rows))

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counts) == [0] * 5 + [40]
    assert len(LabelsFile(path).rows) == 40


# The command


def test_the_command_writes_tasks_and_reads_what_comes_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file = RunFolder(tmp_path / "run"), tmp_path / "to" / "tasks.json"
    with pytest.raises(SettingError, match="asks nothing now"):
        main(["export", str(run.path)])
    LabelsFile(tmp_path / "labels.csv").append([Row("", "fox", why="class")])
    asked = question(tmp_path)._replace(declared=[])
    write_question(run, asked)
    main(["export", str(run.path), f"--file={file}", "--images=https://example.com/x"])
    assert json.loads(file.read_text()) == tasks_of(asked, "https://example.com/x/")
    setup = ET.fromstring((tmp_path / "to" / "label_config.xml").read_text())
    assert [each.get("value") for each in setup.iter("Choice")] == ["cat", "dog", "fox"]
    assert capsys.readouterr().out.startswith(f"4 tasks are in {file}, ")

    export, labels = tmp_path / "export.csv", tmp_path / "labels.csv"
    export.write_text("\ufeff" + CSV)
    for new in (1, 0):
        main(["import", str(export), f"--labels={labels}"])
        said = capsys.readouterr().out.splitlines()
        assert said[0] == f"{new} of 1 answers are new in {labels}; older ones are passed over."
        assert said[1].startswith(f"{export}: JSON-MIN and CSV lack the tasks that were skipped")
    assert LabelsFile(labels).rows[1:] == [line("a.png", "cat", 29)]
    for content in ("x", '[{"annotations": [1]}]', '[{"annotations": 1}]'):
        export.write_text(content)
        with pytest.raises(SettingError, match=r"^EXPORT: .* is no export of Label Studio \(.*\)"):
            main(["import", str(export), f"--labels={labels}"])
    with pytest.raises(SettingError, match=r"EXPORT: there is no file .*none.json"):
        main(["import", str(tmp_path / "none.json"), f"--labels={labels}"])


# The server


class Fake:
    """As much of Label Studio as is used, in this process.

    Attributes:
        asked: What was asked, as (method, path, body).
        answers: By path, an answer in place of its own: (code, body).
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tokens = {f"Token {LEGACY}"}
        self.asked: list[tuple[str, str, Any]] = []
        self.answers: dict[str, tuple[int, Any]] = {}
        self.project: dict[str, Any] = {}
        self.tasks: list[dict[str, Any]] = []
        self.stores: list[dict[str, Any]] = []
        self.clock = 0
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(size) or "null")
                code, answer = fake.answer(self.command, self.path, body, self.headers)
                content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(code)
                if 300 <= code < 400:
                    self.send_header("Location", content.decode().strip('"'))
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_PATCH = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def now(self) -> str:
        self.clock += 1
        return f"2026-11-25T21:{self.clock // 60:02}:{self.clock % 60:02}.500000Z"

    def annotate(self, file: str, *classes: str, **more: Any) -> None:
        found = next(each for each in self.tasks if each["data"]["file"] == file)
        when = found["updated_at"] = self.now()
        found["annotations"].append(annotation(self.clock, *classes, time=when, **more))

    def answer(self, method: str, address: str, body: Any, headers: Any) -> tuple[int, Any]:
        path, query = urlsplit(address).path, parse_qs(urlsplit(address).query)
        self.asked.append((method, path, body))
        if path in self.answers:
            return self.answers[path]
        if path == "/api/token/refresh":
            self.tokens = {f"Bearer access-{self.clock}"}
            said = {"access": f"access-{self.clock}"}
            refused = 401, {"detail": f"{body['refresh']} is invalid"}
            return (200, said) if body["refresh"] == PERSONAL else refused
        if headers["Authorization"] not in self.tokens:
            return 401, {"detail": f"no: {headers['Authorization']}"}
        if path == "/data/local-files/":
            return (200, b"") if (self.root.parent / query["d"][0]).exists() else (404, b"<html>")
        if path == "/api/storages/localfiles":
            self.stores += [body] if method == "POST" else []
            return 200, self.stores
        if path == "/api/projects/" and method == "GET":
            return 200, {"results": [self.project] if self.project else [], "next": None}
        if path.startswith("/api/projects/") and "import" not in path:
            self.project |= {"id": 5} | body
            return 200, self.project
        if path == "/api/tasks":
            filters = json.loads(query["query"][0])["filters"]["items"]
            since = filters[0]["value"] if filters else ""
            if since:  # the only form that it reads
                datetime.strptime(since, "%Y-%m-%dT%H:%M:%S.%fZ")
            found = [each for each in self.tasks if each["updated_at"] >= since]
            start = 100 * (int(query["page"][0]) - 1)
            return 200, {"total": len(found), "tasks": found[start : start + 100]}
        if path.endswith("/import/predictions"):
            by_id = {each["id"]: each for each in self.tasks}
            for each in body:
                by_id[each["task"]]["predictions"].append(each)
            return 201, {"created": len(body)}
        for each in body:
            times = {"id": len(self.tasks) + 1, "updated_at": self.now()}
            self.tasks.append({"predictions": [], "annotations": [], "drafts": []} | each | times)
        count = sum(len(each.get("predictions", [])) for each in body)
        return 201, {"task_count": len(body), "prediction_count": count}


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    root = tmp_path / "my photos"
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    server = Fake(root)
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def oracle(fake: Fake, tmp_path: Path) -> LabelStudio:
    made = LabelStudio(fake.url, LEGACY, wait=False, seconds=0.01)
    write_question(RunFolder(tmp_path / "run"), question(fake.root))
    made.folder = tmp_path / "run"
    return made


def said_in_labels(fake: Fake) -> list[tuple[str, str]]:
    return [(row.file, row.label) for row in LabelsFile(fake.root / "labels.csv").rows]


def test_an_old_access_token_is_fetched_again_and_a_legacy_token_is_used_as_it_is(
    fake: Fake,
) -> None:
    server = Server(fake.url, PERSONAL)
    assert server.tasks(5) == []
    fake.clock = 1
    fake.tokens = set()  # five minutes later
    assert server.tasks(5) == []
    refresh, tasks = "/api/token/refresh", "/api/tasks"
    assert [path for _, path, _ in fake.asked] == [refresh, tasks, tasks, refresh, tasks]
    fake.tokens, fake.asked = {f"Token {LEGACY}"}, []
    assert Server(fake.url, f" {LEGACY}\n").tasks(5) == []
    assert [path for _, path, _ in fake.asked] == ["/api/tasks"]


def test_no_message_holds_the_token(fake: Fake) -> None:
    other = PERSONAL.replace("c2Vj", "xxxx")
    for token in (other, LEGACY[::-1]):
        with pytest.raises(SettingError) as caught:
            Server(fake.url, token).find_or_make_project("baldvae", label_config(["cat"]))
        assert re.fullmatch(
            r"--data\.oracle\.token: Label Studio at \S+ does not take it \(401: .*\.\.\..*\)\. "
            r"Copy one from the account's page\.",
            str(caught.value),
        )
        assert token not in str(caught.value)
        assert caught.value.__cause__ is None
    for token in ("", None, "two words", "line\nbreak", "é"):
        with pytest.raises(SettingError, match=r"^--data.oracle.token: it is missing, or no token"):
            Server(fake.url, token)
    assert LEGACY not in repr(vars(LabelStudio(token=None)))


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8080", "ftp://x", "http://", "http://ann:secret@x", "http://x:y"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(SettingError, match=r"^--data.oracle.url: that is no address") as caught:
        Server(url, LEGACY)
    assert "secret" not in str(caught.value)


def test_a_redirection_does_not_get_the_token(fake: Fake, tmp_path: Path) -> None:
    other = Fake(tmp_path)
    fake.answers["/api/tasks"] = 302, f"{other.url}/api/tasks?project=5&page=1"
    with pytest.raises(SettingError, match=rf"{fake.url} leads on to {other.url}/"):
        Server(fake.url, LEGACY).tasks(5)
    assert other.asked == []
    other.http.shutdown()
    other.http.server_close()


def test_counts_that_differ_are_an_error(fake: Fake) -> None:
    server, tasks = Server(fake.url, LEGACY), tasks_of(question())
    took = r"^--data.oracle.url: Label Studio at \S+ took {} of 4 {}\. "
    path = "/api/projects/5/import"
    for answer, what in (
        ({"task_count": 3, "prediction_count": 4}, (3, "tasks")),
        ({"task_count": 4, "prediction_count": 0}, (0, "predictions")),
        ({"import": 8}, (0, "tasks")),
    ):
        fake.answers[path] = 201, answer
        with pytest.raises(SettingError, match=took.format(*what)):
            server.import_tasks(5, tasks)
    fake.answers[f"{path}/predictions"] = 201, {"created": 1}
    with pytest.raises(SettingError, match=took.format(1, "predictions")):
        server.import_predictions(5, [{"task": i} for i in range(4)])


def test_many_tasks_go_and_come_in_parts(fake: Fake) -> None:
    asked = [Asked(f"{i}.png", "query", i + 1, 0.1, [1.0, 0.0]) for i in range(250)]
    tasks = tasks_of(question()._replace(asked=asked))
    server = Server(fake.url, LEGACY)
    server.import_tasks(5, tasks)
    assert [len(body) for _, _, body in fake.asked] == [100, 100, 50]
    assert [each["data"] for each in server.tasks(5)] == [each["data"] for each in tasks]
    assert len(server.tasks(5, fake.tasks[240]["updated_at"])) == 10


@pytest.mark.parametrize(
    ("code", "answer", "sentence"),
    [
        (
            400,
            {"detail": "Validation error", "validation_errors": {"title": ["Too short."]}},
            "--data.oracle.project: Label Studio at URL refuses /api/projects/5/ "
            "(400: {'title': ['Too short.']}).",
        ),
        (
            404,
            b"<html>",
            "--data.oracle.project: Label Studio at URL refuses /api/projects/5/ (404: Not Found).",
        ),
        (
            500,
            {"detail": "database is locked"},
            "--data.oracle.url: Label Studio at URL has failed (500: database is locked). Its log "
            "says more.",
        ),
        (
            302,
            "https://example.com/api/",
            "--data.oracle.url: URL leads on to https://example.com/api/. Give that address.",
        ),
        (200, b"<html>", "--data.oracle.url: what answers at URL is no Label Studio."),
    ],
)
def test_each_failure_is_one_sentence(code: int, answer: Any, sentence: str, fake: Fake) -> None:
    server = Server(fake.url, LEGACY)
    fake.answers["/api/projects/5/"] = code, answer
    with pytest.raises(SettingError) as caught:
        server.ask_in_order(5, "round_3")
    assert str(caught.value) == sentence.replace("URL", fake.url)
    assert isinstance(caught.value, Away) == (code == 500)
    fake.answers["/api/projects/"] = 200, {"results_": []}
    with pytest.raises(SettingError, match=r"is no Label Studio\.$"):
        server.find_or_make_project("baldvae", label_config(["cat"]))


def test_a_server_that_is_not_there_or_says_nothing_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Away, match=r"^--data.oracle.url: .* does not answer \(.*timed out\)"):
            Server(address, LEGACY, timeout=0.2).tasks(5)
    with pytest.raises(
        Away, match=r"does not answer \(.*refused\)\. Start it, or give its address"
    ):
        Server(address, LEGACY).tasks(5)


# The oracle


def test_a_question_is_sent_once_and_its_answers_come_by_the_labels_file(
    fake: Fake, oracle: LabelStudio
) -> None:
    fake.project = {"id": 5, "title": "baldvae", "label_config": label_config(["old", "cat"])}
    waiting = (
        rf"^4 images have no answer yet in Label Studio\. Label at {fake.url}/projects/5/data\.$"
    )
    for _ in range(2):
        with pytest.raises(NotYet, match=waiting):
            oracle.answer(NO_QUESTION)
    again = LabelStudio(fake.url, LEGACY, wait=False)  # as after a crash
    again.folder = oracle.folder
    with pytest.raises(NotYet, match=waiting):
        again.answer(NO_QUESTION)
    assert [each["data"]["file"] for each in fake.tasks] == FILES
    assert [len(each["predictions"]) for each in fake.tasks] == [1] * 4
    assert fake.stores == [
        {
            "project": 5,
            "path": str(fake.root),
            "use_blob_urls": True,
            "title": "my photos",
        }
    ]
    assert fake.project["model_version"] == "round_3"
    assert fake.project["sampling"] == "Uncertainty sampling"
    choices = [
        each.get("value") for each in ET.fromstring(fake.project["label_config"]).iter("Choice")
    ]
    assert choices == ["old", "cat", "dog"]

    fake.annotate("b é.png", "cat")
    fake.annotate("a.png", was_cancelled=True)
    with pytest.raises(NotYet, match=r"^2 images have no answer yet"):
        oracle.answer(NO_QUESTION)
    fake.annotate("b é.png", "dog")
    fake.annotate(FILES[2], "dog")
    fake.annotate(FILES[3], "dog")
    assert [*again.answer(NO_QUESTION)] == []
    with pytest.raises(NotYet, match="two classes are needed"):  # it is only asked while they lack
        oracle.answer(NO_QUESTION)
    assert said_in_labels(fake) == [
        ("b é.png", "cat"),
        ("a.png", "cannot tell"),
        ("b é.png", "dog"),
        (FILES[2], "dog"),
        (FILES[3], "dog"),
    ]


def test_a_later_round_brings_its_own_predictions_to_tasks_that_are_there(
    fake: Fake, oracle: LabelStudio
) -> None:
    write_question(RunFolder(oracle.folder), question(fake.root, round=0))
    for round in (0, 1, 1, 2):
        write_question(RunFolder(oracle.folder), question(fake.root, round))
        with pytest.raises(NotYet):
            oracle.answer(NO_QUESTION)
    versions = [each["model_version"] for each in fake.tasks[3]["predictions"]]
    assert versions == ["round_1", "round_2"]
    assert fake.tasks[3]["predictions"][1]["score"] == 1.0
    assert fake.project["model_version"] == "round_2"
    assert len(fake.tasks) == 4


def test_two_runs_that_share_their_labels_send_each_image_once(
    fake: Fake, oracle: LabelStudio
) -> None:
    slow, fake.answer = fake.answer, lambda *args: time.sleep(0.01) or slow(*args)
    oracles = [LabelStudio(fake.url, LEGACY, seconds=0.01) for _ in range(4)]
    for each in oracles:
        each.folder = oracle.folder
    threads = [threading.Thread(target=each.answer, args=(NO_QUESTION,)) for each in oracles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each["data"]["file"] for each in fake.tasks] == FILES
    assert [each._project for each in oracles] == [5] * 4


def test_images_that_only_have_the_same_name_are_not_mixed_up(
    fake: Fake, oracle: LabelStudio
) -> None:
    elsewhere = {"image": "/data/local-files/?d=others/a.png", "file": "a.png"}
    fake.answer(
        "POST",
        "/api/projects/5/import",
        [{"data": elsewhere}],
        {"Authorization": f"Token {LEGACY}"},
    )
    fake.annotate("a.png", "dog")
    with pytest.raises(SettingError, match=r"^--data.oracle.project: the 'a.png' .* another image"):
        oracle.answer(NO_QUESTION)
    fake.tasks[0]["data"]["file"] = "z.png"
    with pytest.raises(NotYet):
        oracle.answer(NO_QUESTION)
    assert said_in_labels(fake) == []


def test_images_that_the_server_does_not_show_are_an_error_that_says_how(
    fake: Fake, oracle: LabelStudio
) -> None:
    (fake.root / "a.png").unlink()
    start = (
        rf"^--data.oracle.url: .*404.* LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={fake.root.parent} "
    )
    with pytest.raises(SettingError, match=start):
        oracle.answer(NO_QUESTION)
    assert fake.tasks == []
    oracle.images = "https://example.com/x"
    with pytest.raises(NotYet):
        oracle.answer(NO_QUESTION)
    assert fake.tasks[0]["data"]["image"] == "https://example.com/x/a.png"


def test_a_server_that_goes_away_is_waited_for_but_not_at_first(
    fake: Fake, oracle: LabelStudio, recwarn: pytest.WarningsRecorder
) -> None:
    oracle.wait = True
    fake.answers["/api/projects/"] = 502, b""
    with pytest.raises(Away, match="has failed"):
        oracle.answer(NO_QUESTION)
    del fake.answers["/api/projects/"]
    assert [*oracle.answer(NO_QUESTION)] == []
    fake.answers["/api/tasks"] = 503, b""
    for _ in range(3):
        assert [*oracle.answer(NO_QUESTION)] == []
    assert len([each for each in recwarn if "has failed" in str(each.message)]) == 1
    del fake.answers["/api/tasks"]
    fake.annotate("a.png", "dog")
    assert [*oracle.answer(NO_QUESTION)] == []
    assert said_in_labels(fake) == [("a.png", "dog")]
    fake.tokens = set()
    with pytest.raises(SettingError, match=r"^--data.oracle.token: "):
        oracle.answer(NO_QUESTION)


def test_an_answer_that_does_not_count_is_said_once(
    fake: Fake, oracle: LabelStudio, recwarn: pytest.WarningsRecorder
) -> None:
    oracle.wait = True
    oracle.answer(NO_QUESTION)
    fake.annotate("a.png", "zebra")
    for _ in range(3):
        oracle.answer(NO_QUESTION)
    said = [str(each.message) for each in recwarn if "does not count" in str(each.message)]
    assert len(said) == 1
    assert said[0].startswith(
        "1 images have an answer in Label Studio that does not count, such as a.png"
    )


def test_an_oracle_without_a_question_or_with_a_wrong_option_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"^--data.oracle: there is no run folder"):
        LabelStudio(token=LEGACY).answer(NO_QUESTION)
    with pytest.raises(SettingError, match=r"^--data.oracle.seconds: 0"):
        LabelStudio(seconds=0)


def test_the_token_comes_from_the_environment(
    fake: Fake, oracle: LabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle.token = None
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    with pytest.raises(SettingError, match=r"^--data.oracle.token: .* LABEL_STUDIO_API_KEY"):
        oracle.answer(NO_QUESTION)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", LEGACY)
    with pytest.raises(NotYet):
        oracle.answer(NO_QUESTION)


def test_an_export_of_which_nothing_can_be_taken_is_no_success(tmp_path: Path) -> None:
    export = tmp_path / "export.json"
    export.write_text('[{"id": 1, "data": {"file": "a.png"}, "annotations": [{"id": 2}]}]')
    assert "could be taken" in refusal("tasks", "import", str(export), f"--labels={tmp_path}/l.csv")
    said = refusal("tasks", "import", str(export), "--labels=none/labels.csv")
    assert said == "--labels: there is no folder none to write labels.csv to."
