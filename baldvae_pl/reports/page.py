"""The page of a report: a file of its own, which needs no network, and no program but a browser."""

from collections.abc import Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from baldvae_pl.reports import figures


def filled(
    title: str, subtitle: str, numbers: Sequence[tuple[str, str]], parts: Sequence[dict[str, Any]]
) -> str:
    """Return the template with its contents.

    Args:
        title: Of the page.
        subtitle: Below it.
        numbers: Names and values that are shown first.
        parts: As `part` makes them.
    """
    template = resources.files("baldvae_pl.reports") / "page.html"
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made = environment.from_string(template.read_text(encoding="utf-8"))
    return made.render(title=title, subtitle=subtitle, numbers=numbers, parts=parts)


def part(id: str, title: str, *texts: str, **contents: Any) -> dict[str, Any]:
    """Return a part of the page.

    Args:
        id: Of its link.
        title: Its heading.
        texts: Sentences.
        contents: ``figures``; ``rounds`` with pictures; ``tables``, as HTML; ``code``, names and
            texts; ``folded``, names and HTML that is shown on demand.
    """
    nothing: dict[str, Any] = {"figures": [], "rounds": [], "tables": [], "code": [], "folded": []}
    return {"id": id, "title": title, "texts": texts} | nothing | contents


def drawn(figure: Figure, alt: str) -> dict[str, str]:
    """Return a figure for a part; who cannot see it is told what it shows."""
    return {"svg": figures.svg(figure), "alt": alt}
