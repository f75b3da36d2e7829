"""The site: ``sphinx-build -W -c docs . site`` makes it of README.md and docs/, strictly."""

import re

from sphinx.application import Sphinx

from baldvae_pl import __version__

project = "baldvae"
version = release = __version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
# Documents stay where GitHub shows them, so that their links lead to the same places here.
root_doc = "docs/index"
include_patterns = ["README.md", "CHANGELOG.md", "docs/**", "lightning_logs/README.md"]
exclude_patterns = [".*", "build", "data", "lightning_logs/*/*", "site"]  # not to be searched
templates_path = ["templates"]

html_theme = "furo"
html_title = f"baldvae {version}"
html_additional_pages = {"index": "index.html"}  # leads to docs/index.html
html_show_copyright = False

myst_heading_anchors = 4
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_timeout = 600  # seconds a cell
nb_execution_raise_on_error = True
nb_merge_streams = True

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_inherit_docstrings = False  # Lightning's are on its own pages
autodoc_preserve_defaults = True
autodoc_typehints = "description"
napoleon_use_ivar = True


def unlink_folders(app: Sphinx, document: str, source: list[str]) -> None:
    """Leave the text of links to folders, which GitHub shows and a site of pages does not."""
    place = app.env.doc2path(document).parent
    source[0] = re.sub(
        r"\[([^\]]+)\]\(([\w./]+)\)",
        lambda link: link[1] if (place / link[2]).is_dir() else link[0],
        source[0],
    )


def setup(app: Sphinx) -> None:
    """Connect what is above."""
    app.connect("source-read", unlink_folders)
