"""The pool as points in a space: clusters, neighbours, and the graph that they make."""

from baldvae_pl.geometry.badge import BADGE
from baldvae_pl.geometry.cover import ProbCover
from baldvae_pl.geometry.diverse import ClusterMargin, KCenter
from baldvae_pl.geometry.poisson_labels import PoissonLabels
from baldvae_pl.geometry.typical import Typical
from baldvae_pl.geometry.unexplored import Unexplored

__all__ = [
    "BADGE",
    "ClusterMargin",
    "KCenter",
    "PoissonLabels",
    "ProbCover",
    "Typical",
    "Unexplored",
]
