"""Writes the help pages of the commands that would need seconds to import what they describe.

``python -m baldvae_pl.cli.help`` after an option has changed; a test says when one is missing.
"""

import contextlib
import io
import os
import re
import textwrap
from pathlib import Path

from baldvae_pl.main import RUN_COMMANDS

PAGES = Path(__file__).parent / "help_pages"


def render(command: str) -> str:
    """Return the help of the real parser, 100 columns wide and without colours."""
    os.environ |= {"COLUMNS": "100", "NO_COLOR": "1"}
    from baldvae_pl.cli.app import run  # takes seconds

    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        run([command, "--help"])
    usage, _, rest = output.getvalue().partition("\n\n")
    assert usage.startswith("usage:")
    rest = re.sub(r",\s+known\s+subclasses:\s+([^)]*)\)", own_classes, rest)
    # What Lightning brings is half of it, and comes last.
    groups = re.split(r"\n\n(?=\S)", rest.rstrip("\n"))
    groups.sort(key=lambda group: group.startswith("Customize every aspect"))
    text = "\n\n".join(groups)
    return f"usage: baldvae {command} [options]\n\n{text}\n"


def own_classes(found: re.Match[str]) -> str:
    """Shorten a list of classes to those of this package; torch alone has hundreds."""
    every = [name for name in re.split(r"[,\s]+", found[1]) if name.startswith("baldvae_pl.")]
    names = [name for name in every if ".rivals." not in name]  # parts of those by short names
    lines = textwrap.wrap(f"known: {', '.join(names)}", 76) if names else []
    return "".join([")", *(f"\n{' ' * 24}{line}" for line in lines)])


def main() -> None:
    """Write all pages."""
    PAGES.mkdir(exist_ok=True)
    for command in RUN_COMMANDS:
        (PAGES / f"{command}.txt").write_text(render(command), encoding="utf-8")


if __name__ == "__main__":
    main()
