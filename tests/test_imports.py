"""The house rule: nouns load no craft, no wing imports a higher one, and old paths lead on."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import baldvae_pl

PACKAGE = Path(baldvae_pl.__file__).parent
WINGS = [
    "networks",
    "geometry",
    "runs",
    "reports",
    "data",
    "rivals",
    "labelling",
    "modules",
    "loop",
    "cli",
    "experiments",
]
"""Each may import itself and those before it."""
DOORS = {"main", "__main__", "__init__", "moved"}
"""Start everything, so they may import everything."""


def imports_of(file: Path) -> set[str]:
    """Top-level and nested imports alike, as dotted names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


NOUNS = sorted(path for path in PACKAGE.glob("*.py") if path.stem not in DOORS)


@pytest.mark.parametrize("file", NOUNS, ids=lambda path: path.stem)
def test_a_noun_imports_torch_numpy_and_other_nouns_alone(file: Path) -> None:
    nouns = {f"baldvae_pl.{path.stem}" for path in NOUNS} | {"baldvae_pl"}
    standard = sys.stdlib_module_names | {"torch", "numpy"}
    for name in imports_of(file):
        known = name.split(".")[0] in standard or name.rpartition(".")[0] in nouns
        assert known, f"{file.stem} imports {name}"


@pytest.mark.parametrize(
    "file", sorted(PACKAGE.glob("*/*.py")), ids=lambda p: f"{p.parent.stem}.{p.stem}"
)
def test_no_wing_imports_a_higher_one(file: Path) -> None:
    higher = {f"baldvae_pl.{wing}" for wing in WINGS[WINGS.index(file.parent.stem) + 1 :]}
    for name in imports_of(file):
        assert ".".join(name.split(".")[:2]) not in higher, f"{file} imports {name}"


def test_every_folder_is_a_wing() -> None:
    assert {path.parent.stem for path in PACKAGE.glob("*/__init__.py")} == {*WINGS}


def test_the_nouns_load_neither_lightning_nor_jsonargparse() -> None:
    nouns = ", ".join(f"baldvae_pl.{path.stem}" for path in NOUNS)
    craft = "{'lightning', 'jsonargparse', 'pandas', 'torchvision'}"
    loaded = f"{craft} & {{name.split('.')[0] for name in sys.modules}}"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, {nouns}; print({loaded})"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("old", "name"),
    [
        ("rounds", "ActiveLearning"),
        ("data", "PoolDataModule"),
        ("modules", "VAE"),
        ("modules", "Classifier"),
        ("modules", "train_vae"),
        ("networks", "MNISTNet"),
        ("networks", "DenseVAE"),
        ("augmentation", "crop_and_flip"),
        ("datasets", "Source"),
        ("datasets", "Images"),
        ("batches", "RoundBatches"),
        ("settings", "SettingError"),
        ("complement", "at_least_as_uncertain"),
        ("acquisition", "bald"),
    ],
)
def test_import_paths_of_version_0_2_go_on_working(old: str, name: str) -> None:
    found: dict[str, object] = {}
    exec(f"from baldvae_pl.{old} import {name} as found", found)
    assert getattr(found["found"], "__name__", None) == name


def test_what_a_user_needs_comes_from_the_package_itself() -> None:
    for name in baldvae_pl.__all__:
        assert getattr(baldvae_pl, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        _ = baldvae_pl.Nonsense
