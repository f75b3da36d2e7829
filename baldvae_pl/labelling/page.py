"""The labelling page over HTTP: one static file, a few addresses, and who may use them.

Only who knows the token gets in: it comes once in the address, and then in a cookie that no other
site can use. Requests for another host, or from another site's page, are refused, images have ids
instead of paths, and the page itself may load nothing from anywhere else.
"""

import hmac
import ipaddress
import json
import secrets
from collections.abc import Callable, Iterable
from importlib import resources
from typing import Any

from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from baldvae_pl.data.decoding import show
from baldvae_pl.errors import SettingError
from baldvae_pl.labelling.board import Board, Refused

LARGEST_REQUEST = 2**17
"""Bytes of a request."""

LONGEST_SIDE = 1600
"""Pixels of an image that is shown."""

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

ROUTES = Map(
    [
        Rule("/", endpoint="page", methods=["GET"]),
        Rule("/favicon.ico", endpoint="icon", methods=["GET"]),
        Rule("/state", endpoint="state", methods=["POST"]),
        Rule("/next", endpoint="next", methods=["POST"]),
        Rule("/answer", endpoint="answer", methods=["POST"]),
        Rule("/undo", endpoint="undo", methods=["POST"]),
        Rule("/class", endpoint="make_class", methods=["POST"]),
        Rule("/guess", endpoint="guess", methods=["POST"]),
        Rule("/review", endpoint="review", methods=["POST"]),
        Rule("/report", endpoint="report", methods=["GET"]),
        Rule("/image/<string(length=16):image>", endpoint="image", methods=["GET"]),
        Rule("/complement/<int:number>", endpoint="complement", methods=["GET"]),
    ]
)


class Page:
    """The WSGI application.

    Args:
        board: What it shows and does.
        token: Who knows it gets in.
        port: Of the server.
        host: The address that it listens on.
    """

    def __init__(self, board: Board, token: str, port: int, host: str = "127.0.0.1") -> None:
        self.board, self.token, self.port, self.host = board, token, port, host
        self.cookie = f"baldvae-{port}"  # a browser sends it to all ports of a host
        page = resources.files("baldvae_pl.labelling") / "page.html"
        self.html = page.read_text(encoding="utf-8")

    def __call__(self, environ: Any, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        request = Request(environ)
        request.max_content_length = LARGEST_REQUEST
        try:
            response = self.answer_to(request)
        except HTTPException as error:
            response = as_json({"error": error.description}, error.code or 400)
        except Refused as error:
            response = as_json({"error": str(error)}, 409)
        except SettingError as error:
            lost = request.path in ("/answer", "/undo", "/class")
            response = as_json({"error": f"NOT SAVED. {error}" if lost else str(error)}, 507)
        except (TypeError, ValueError, OverflowError):
            response = as_json({"error": "A number was expected."}, 400)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        answered: Iterable[bytes] = response(environ, start_response)
        return answered

    def answer_to(self, request: Request) -> Response:
        """Return the response to a request, once it is clear that it may have one."""
        if not self.is_here(request.host):
            return as_json({"error": f"This page is not {request.host}."}, 403)
        endpoint, values = ROUTES.bind_to_environ(request.environ).match()
        given = request.args.get("token")
        if endpoint == "page" and given is not None and self.is_token(given):
            response = Response(status=303, headers={"Location": "/"})
            response.set_cookie(
                self.cookie, self.token, max_age=30 * 86400, httponly=True, samesite="Strict"
            )
            return response
        if not self.is_token(request.cookies.get(self.cookie, "")):
            words = "Open the address that the terminal shows; it ends with a token."
            return as_json({"error": words}, 403)
        if request.method == "POST":
            if request.headers.get("Origin") != f"http://{request.host}":
                return as_json({"error": "This request came from another site."}, 403)
            if request.mimetype != "application/json":
                return as_json({"error": "Requests are JSON."}, 415)
        answer: Response = getattr(self, f"on_{endpoint}")(request, **values)
        return answer

    def is_here(self, host: str) -> bool:
        """Whether a Host header names this server: else a name may lead here from anywhere."""
        name, _, port = host.rpartition(":")
        if port != str(self.port):
            return False
        if name in ("127.0.0.1", "localhost", "[::1]", self.host):
            return True
        try:  # who listens on other addresses is known by any of them, but by no name
            ipaddress.ip_address(name.strip("[]"))
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def is_token(self, given: str) -> bool:
        """Whether this is the token."""
        return hmac.compare_digest(given.encode(), self.token.encode())

    def on_page(self, _: Request) -> Response:
        """The page itself; its script and style are known by a number used once."""
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
            "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        )
        html = self.html.replace("NONCE", nonce)
        return Response(html, mimetype="text/html", headers={"Content-Security-Policy": policy})

    def on_icon(self, _: Request) -> Response:
        """There is none."""
        return Response(status=204)

    def on_state(self, request: Request) -> Response:
        """What is asked, how far it is, and what the process does."""
        asked = body_of(request)
        return as_json(self.board.state(str(asked.get("tab")), texts_in(asked, "open")))

    def on_next(self, request: Request) -> Response:
        """The next images for a tab."""
        asked = body_of(request)
        count = min(100, max(1, int(asked.get("count", 1))))
        skipped = texts_in(asked, "skipped")
        return as_json({"images": self.board.next(str(asked.get("tab")), skipped, count)})

    def on_answer(self, request: Request) -> Response:
        """An answer; it is on the disk once this says so."""
        asked = body_of(request)
        images, who = texts_in(asked, "images"), name_in(asked)
        seconds = min(3600.0, max(0.0, float(asked.get("seconds", 0))))
        if not images:
            raise Refused("No image was chosen.")
        self.board.answer(who, images, str(asked.get("label")), seconds, str(asked.get("mode")))
        return as_json({"saved": len(images)})

    def on_undo(self, request: Request) -> Response:
        """Take back the last answer."""
        return as_json({"image": self.board.undo(name_in(body_of(request)))})

    def on_make_class(self, request: Request) -> Response:
        """A new class."""
        asked = body_of(request)
        self.board.make_class(str(asked.get("name")), name_in(asked))
        return as_json({"saved": 1})

    def on_guess(self, request: Request) -> Response:
        """The prediction of one image: only when somebody asks, as it sways."""
        return as_json({"guess": self.board.guess(str(body_of(request).get("image")))})

    def on_review(self, request: Request) -> Response:
        """Labelled images that may be labelled wrongly."""
        order = str(body_of(request).get("order"))
        return as_json({"images": self.board.review(order)})

    def on_report(self, _: Request) -> Response:
        """The run as `baldvae report` shows it, as far as it is."""
        policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
        headers = {"Content-Security-Policy": policy}
        return Response(self.board.report(), mimetype="text/html", headers=headers)

    def on_image(self, request: Request, image: str) -> Response:
        """An image that the page has named, whole or small."""
        path = self.board.path(image)
        side = 160 if request.args.get("size") == "small" else LONGEST_SIDE
        try:
            shown = show(path.read_bytes(), side)
        except FileNotFoundError:
            return as_json({"error": f"{path.name} is not there any more."}, 404)
        except Exception as error:  # whatever Pillow raises for a broken file
            return as_json({"error": f"{path.name} cannot be shown: {error}"}, 404)
        private = {"Cache-Control": "private, max-age=600"}
        return Response(shown, mimetype="image/webp", headers=private)

    def on_complement(self, _: Request, number: int) -> Response:
        """The complement of an image of the review."""
        path = self.board.complement(number)
        if path is None or not path.is_file():
            return as_json({"error": "There is no such complement."}, 404)
        return Response(path.read_bytes(), mimetype="image/png")


def body_of(request: Request) -> dict[str, Any]:
    """Return the JSON object of a request."""
    try:
        content = json.loads(request.get_data())
    except (ValueError, RecursionError) as error:
        raise Refused("This is no JSON.") from error
    if not isinstance(content, dict):
        raise Refused("This is no JSON object.")
    return content


def name_in(content: dict[str, Any]) -> str:
    """Return who asks."""
    name = str(content.get("who") or "").strip()
    if len(name) > 50 or not name.isprintable():
        raise Refused("A name has at most 50 characters that can be printed.")
    return name


def texts_in(content: dict[str, Any], key: str) -> list[str]:
    """Return a list of texts."""
    found = content.get(key, [])
    return [str(text) for text in found] if isinstance(found, list) else []


def as_json(content: Any, status: int = 200) -> Response:
    """Return a response."""
    return Response(json.dumps(content), status=status, mimetype="application/json")
