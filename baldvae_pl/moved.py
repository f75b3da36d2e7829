"""Import paths of version 0.2, which users' YAML and code may still say."""

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

MOVED = {
    "augmentation": "networks.augmentation",
    "batches": "data.batches",
    "checkpoints": "runs.checkpoints",
    "datasets": "data.sources",
    "files": "runs.files",
    "image_folder": "data.image_folder",
    "predictions": "loop.predictions",
    "records": "runs.records",
    "rounds": "loop.rounds",
    "settings": "errors",
    "summary": "experiments.statistics",
}


class MovedModules(MetaPathFinder, Loader):
    """Makes ``import baldvae_pl.rounds`` import `baldvae_pl.loop.rounds`, and so on."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """Find a module that has moved."""
        del path, target
        package, _, name = fullname.partition(".")
        found = package == "baldvae_pl" and name in MOVED
        return spec_from_loader(fullname, self) if found else None

    def exec_module(self, module: ModuleType) -> None:
        """Put the module that it is now into its place."""
        name = module.__name__.partition(".")[2]
        sys.modules[module.__name__] = import_module(f"baldvae_pl.{MOVED[name]}")


sys.meta_path.append(MovedModules())
