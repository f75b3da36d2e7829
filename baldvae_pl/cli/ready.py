"""For a process that others are copies of: everything is imported."""

from baldvae_pl.imports import import_at_once

import_at_once("baldvae_pl.cli.app")
