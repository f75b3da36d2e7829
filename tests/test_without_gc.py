"""Imports without looking for garbage, and what stays as it was."""

import gc
import subprocess
import sys

import torch  # noqa: F401

from baldvae_pl.imports import import_without_gc

NEW = """
import gc, sys
from baldvae_pl.imports import import_without_gc
while_importing = []
class Finder:
    def find_spec(self, name, *_):
        while_importing.append(gc.isenabled())
sys.meta_path.insert(0, Finder())
try:
    import_without_gc("no_such_module")
except ModuleNotFoundError:
    print(gc.isenabled(), gc.get_freeze_count())
module = import_without_gc("colorsys")
print(while_importing, module.__name__, gc.isenabled(), gc.get_freeze_count() > 1000)
"""

READY = """
import gc, sys
import baldvae_pl.cli.ready
print("baldvae_pl.cli.app" in sys.modules, gc.isenabled(), gc.get_freeze_count() > 100_000)
"""


def printed(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_nothing_is_collected_while_a_new_module_is_imported() -> None:
    assert printed(NEW) == "True 0\n[False, False] colorsys True True\n"


def test_a_process_that_runs_are_copies_of_has_imported_everything() -> None:
    assert printed(READY) == "True True True\n"


def test_objects_of_a_process_that_has_torch_are_left_alone() -> None:
    assert "torch" in sys.modules
    frozen = gc.get_freeze_count()
    assert import_without_gc("subprocess") is subprocess
    assert gc.get_freeze_count() == frozen
