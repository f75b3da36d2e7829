"""What is imported at once, and what stays as it was."""

import gc
import subprocess
import sys

import pytest

from baldvae_pl.imports import import_at_once

NEW = """
import gc, sys
from baldvae_pl.imports import import_at_once
while_importing = []
class Finder:
    def find_spec(self, name, *_):
        while_importing.append(gc.isenabled())
sys.meta_path.insert(0, Finder())
module = import_at_once("colorsys")
print(while_importing, module.__name__, gc.isenabled(), gc.get_freeze_count() > 1000)
"""


def test_nothing_is_collected_while_a_new_module_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", NEW], capture_output=True, text=True, check=True)
    assert done.stdout == "[False] colorsys True True\n"


def test_what_is_there_is_not_imported_again_and_freezes_nothing() -> None:
    frozen = gc.get_freeze_count()
    assert import_at_once("subprocess") is subprocess
    assert gc.get_freeze_count() == frozen
    assert gc.isenabled()


@pytest.mark.parametrize("enabled", [True, False])
def test_collecting_is_as_before_where_nothing_can_be_imported(enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(ModuleNotFoundError):
            import_at_once("baldvae_pl.no_such_module")
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
        gc.unfreeze()
