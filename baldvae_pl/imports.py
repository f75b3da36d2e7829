"""Imports what takes seconds."""

import gc
import sys
from importlib import import_module
from typing import Any


def import_at_once(name: str) -> Any:
    """Import a module and all that it imports, without looking for garbage in between or in it.

    Python would look through all objects again and again while there are more and more of them:
    a third of the time. What is imported stays, so it is not looked through later either.
    """
    if name in sys.modules:
        return sys.modules[name]
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        return import_module(name)
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
