"""Imports what takes seconds."""

import gc
import sys
from importlib import import_module
from typing import Any


def import_without_gc(name: str) -> Any:
    """Import a module and all that it imports, without looking for garbage in between.

    Python would look through all objects again and again while there are more and more of them:
    more than a quarter of the time. What is imported stays, so it is not looked through later
    either, unless a process that already has torch calls this: its objects are not ours.
    """
    if "torch" in sys.modules:
        return import_module(name)
    gc.collect()
    gc.disable()
    try:
        module = import_module(name)
        gc.freeze()
    finally:
        gc.enable()
    return module
