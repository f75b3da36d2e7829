"""For a process that others are copies of: everything is imported."""

from baldvae_pl.imports import import_without_gc

import_without_gc("baldvae_pl.cli.app")
