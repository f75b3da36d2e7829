"""The site is built strictly, and, slowly, its tutorial is run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sphinx.util.inventory import InventoryFile

import baldvae_pl
from baldvae_pl import networks

pytestmark = pytest.mark.xdist_group("site")  # which is built once

ROOT = Path(__file__).parents[1]


def built(folder: Path, *options: str) -> Path:
    """Build the site, and let no warning pass."""
    beside_python = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": beside_python}  # the tutorial calls baldvae
    environment.pop("MPLBACKEND", None)  # of a command in this process, and not the notebook's
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "-c", "docs", ".", folder, *options],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("site"), "-D", "nb_execution_mode=off")


def test_all_that_can_be_imported_from_the_package_is_in_the_reference(site: Path) -> None:
    inventory = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="").data
    kinds = ("class", "function", "data", "exception")
    shown = {name.rpartition(".")[2] for kind in kinds for name in inventory[f"py:{kind}"]}
    assert {*baldvae_pl.__all__, *networks.__all__} <= shown


def test_every_document_is_a_page_and_the_first_leads_to_them(site: Path) -> None:
    documents = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    for document in documents:
        assert (site / document.relative_to(ROOT)).with_suffix(".html").is_file()
    (first,) = re.findall(r"url=([^\"]+)", (site / "index.html").read_text())
    assert (site / first).is_file()
    assert 'href="../README.html"' in (site / first).read_text()


@pytest.mark.slow
def test_the_tutorial_is_run_and_says_what_came_of_it(tmp_path: Path) -> None:
    shown = (built(tmp_path) / "docs" / "tutorial.html").read_text()
    accuracies = [float(x) for x in re.findall(r"labels \+ 0 generated, accuracy ([\d.]+)%", shown)]
    assert len(accuracies) == 7
    assert accuracies[0] < 70
    assert accuracies[-1] > 90
    assert "<iframe srcdoc=" in shown
    assert shown.count("<img alt") == 2  # what was asked, and the comparison
    assert not (ROOT / "docs" / "lightning_logs").exists()
