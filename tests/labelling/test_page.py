"""The labelling page over HTTP: who gets in, and what leaves."""

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boards import FILES, board_of
from helpers import RUN
from PIL import Image
from werkzeug.test import Client, TestResponse

from baldvae_pl.data.labels import LabelsFile
from baldvae_pl.labelling.page import LARGEST_REQUEST, Page

TOKEN = "t" * 43
HERE = "http://127.0.0.1:8080"


class Browser:
    """A browser that has been let in."""

    def __init__(self, root: Path, host: str = "127.0.0.1") -> None:
        self.client = Client(Page(board_of(root), TOKEN, 8080, host))
        assert self.get(f"/?token={TOKEN}").status_code == 303

    def get(self, path: str, base: str = HERE) -> TestResponse:
        return self.client.get(path, base_url=base)

    def post(self, path: str, content: Any = None, **options: Any) -> TestResponse:
        options.setdefault("headers", {"Origin": HERE})
        options.setdefault("content_type", "application/json")
        data = options.pop("data", json.dumps({"who": "Ann", "tab": "t", **(content or {})}))
        return self.client.post(path, base_url=HERE, data=data, **options)

    def next(self) -> list[dict[str, Any]]:
        images: list[dict[str, Any]] = self.post("/next", {"count": 9}).json["images"]
        return images


def test_only_who_knows_the_token_gets_in(tmp_path: Path) -> None:
    client = Client(Page(board_of(tmp_path), TOKEN, 8080))
    for address in ("/", "/?token=", f"/?token={TOKEN}x", "/image/" + "0" * 16):
        assert client.get(address, base_url=HERE).status_code == 403
    entered = client.get(f"/?token={TOKEN}", base_url=HERE)
    assert (entered.status_code, entered.headers["Location"]) == (303, "/")
    cookie = entered.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert client.get("/", base_url=HERE).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example:8080", "127.0.0.1:9999", "127.0.0.1", "192.168.0.7:8080"]
)
def test_no_other_name_leads_here(tmp_path: Path, host: str) -> None:
    browser = Browser(tmp_path)
    assert browser.get(f"/?token={TOKEN}", base=f"http://{host}").status_code == 403


def test_who_listens_everywhere_is_known_by_addresses_and_by_no_name(tmp_path: Path) -> None:
    browser = Browser(tmp_path, host="0.0.0.0")
    token = f"/?token={TOKEN}"
    assert browser.get(token, base="http://192.168.0.7:8080").status_code == 303
    assert browser.get(token, base="http://evil.example:8080").status_code == 403


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"headers": {}}, 403),
        ({"headers": {"Origin": "http://evil.example"}}, 403),
        ({"headers": {"Origin": "null"}}, 403),
        ({"content_type": "text/plain"}, 415),
        ({"data": "no JSON"}, 409),
        ({"data": "[]"}, 409),
        ({"data": "9" * 5000 + "[" * 90000}, 409),
        ({"data": b"{" + b" " * LARGEST_REQUEST + b"}"}, 413),
        ({"content": {"count": {}}}, 400),
        ({"content": {"who": "x" * 51}}, 200),
    ],
)
def test_requests_of_other_sites_and_broken_ones(
    tmp_path: Path, options: dict[str, Any], status: int
) -> None:
    browser = Browser(tmp_path)
    answer = browser.post("/next", **options)
    assert answer.status_code == status
    assert not (tmp_path / "labels.csv").exists()


def test_the_page_may_load_nothing_from_elsewhere(tmp_path: Path) -> None:
    page = Browser(tmp_path).get("/")
    policy = page.headers["Content-Security-Policy"]
    nonce = policy.split("'nonce-")[1].split("'")[0]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert f'<script nonce="{nonce}">' in page.text
    assert "NONCE" not in page.text
    assert "http" not in page.text.replace("http://www.w3.org/2000/svg", "")
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["X-Frame-Options"] == "DENY"


def test_an_answer_is_saved_when_the_page_says_so(tmp_path: Path) -> None:
    browser = Browser(tmp_path)
    first = browser.next()[0]
    saved = browser.post("/answer", {"images": [first["id"]], "label": "dog", "seconds": 1.5})
    assert saved.json == {"saved": 1}
    (row,) = LabelsFile(tmp_path / "labels.csv").rows
    assert (row.file, row.label, row.annotator, row.seconds) == ("a.png", "dog", "Ann", "1.5")
    assert browser.post("/undo").json["image"]["file"] == "a.png"
    assert browser.post("/class", {"name": "otter"}).json == {"saved": 1}
    assert browser.post("/guess", {"image": first["id"]}).json["guess"][0]["name"] == "dog"
    assert browser.post("/state").json["question"]["answered"] == 0
    assert browser.post("/review", {"order": "doubt"}).json == {"images": []}


def test_what_cannot_be_saved_is_said_loudly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = Browser(tmp_path)
    first = browser.next()[0]
    answer = {"images": [first["id"]], "label": "dog", "seconds": 1}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    refused = browser.post("/answer", answer)
    assert refused.status_code == 507
    assert refused.json["error"].startswith("NOT SAVED.")
    assert "No space left" in refused.json["error"]
    monkeypatch.undo()
    assert browser.post("/answer", answer).json == {"saved": 1}
    assert len(LabelsFile(tmp_path / "labels.csv").rows) == 1


def test_images_have_ids_and_no_paths(tmp_path: Path) -> None:
    browser = Browser(tmp_path)
    first = browser.next()[0]
    shown = browser.get(f"/image/{first['id']}")
    assert shown.mimetype == "image/webp"
    image = np.asarray(Image.open(io.BytesIO(shown.data)))
    assert (image == np.asarray(Image.open(tmp_path / "a.png"))).all()
    for path in ("../../etc/passwd", "..%2f..%2fetc%2fpasswd", "-1", "a.png", "0" * 16):
        assert browser.get(f"/image/{path}").status_code in (404, 409)
    for path in ("-1", "0", "..%2freview.json"):
        assert browser.get(f"/complement/{path}").status_code == 404


def test_an_image_that_is_gone_or_broken_is_said(tmp_path: Path) -> None:
    browser = Browser(tmp_path)
    first, second, _ = browser.next()
    (tmp_path / FILES[0]).unlink()
    (tmp_path / FILES[1]).write_bytes(b"<svg onload='alert(1)'/>")
    gone, broken = (browser.get(f"/image/{item['id']}") for item in (first, second))
    assert (gone.status_code, broken.status_code) == (404, 404)
    assert "is not there any more" in gone.json["error"]
    assert "cannot be shown" in broken.json["error"]
    assert broken.mimetype == "application/json"


def test_wrong_methods_and_addresses(tmp_path: Path) -> None:
    browser = Browser(tmp_path)
    assert browser.get("/answer").status_code == 405
    assert browser.get("/labels.csv").status_code == 404
    assert browser.get("/favicon.ico").status_code == 204


def test_the_run_is_shown_as_the_report_shows_it(finished_run: Path, tmp_path: Path) -> None:
    browser = Browser(tmp_path)
    early = browser.get("/report")
    assert early.status_code == 409
    assert "There is no round yet" in early.json["error"]
    shutil.copytree(finished_run / RUN, tmp_path / "version_0", dirs_exist_ok=True)
    shown = browser.get("/report")
    assert shown.status_code == 200
    assert shown.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "What was bought" in shown.text
    assert Client(browser.client.application).get("/report", base_url=HERE).status_code == 403
