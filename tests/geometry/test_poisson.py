"""Poisson learning against dense solutions and closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from torch import Tensor

from baldvae_pl.geometry.graph import neighbour_graph
from baldvae_pl.geometry.poisson import SHARPNESS, poisson, pseudo_labels


def blobs(sizes: list[int], gap: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    whose_N = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return torch.randn(len(whose_N), 2, generator=generator) + gap * whose_N[:, None], whose_N


def some_labels(classes_N: Tensor, per_class: int) -> Tensor:
    labels_N = torch.full_like(classes_N, -1)
    for c in classes_N.unique():
        labels_N[(classes_N == c).nonzero()[:per_class, 0]] = c
    return labels_N


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_pseudo_inverse_of_the_laplacian_centred_by_degree(seed: int) -> None:
    z, classes_N = blobs([30, 25, 20], gap=2, seed=seed)
    graph, labels_N = neighbour_graph(z), some_labels(classes_N, 2)
    weights = graph.toarray()
    degrees_N = weights.sum(1)
    known = labels_N >= 0
    sources_N_C = np.zeros((75, 3))
    one_hot = np.eye(3)[labels_N[known]]
    sources_N_C[known] = one_hot - one_hot.mean(0)
    expected = np.linalg.pinv(np.diag(degrees_N) - weights) @ sources_N_C
    expected -= degrees_N @ expected / degrees_N.sum()
    found = poisson(graph, labels_N, 3)
    assert found.numpy() == pytest.approx(expected, abs=2e-3 * np.abs(expected).max())


def test_of_two_images_that_are_joined_the_scores_are_known() -> None:
    graph = sparse.csr_array(np.array([[0.0, 0.5], [0.5, 0.0]]))
    # The sources are ±1/2, the Laplacian's one eigenvalue other than 0 is 1.
    found = poisson(graph, torch.tensor([0, 1]), 2)
    assert found.numpy() == pytest.approx(np.array([[0.5, -0.5], [-0.5, 0.5]]), abs=1e-5)


def test_parts_of_the_graph_without_a_label_get_no_score_and_those_with_one_its_class() -> None:
    z, classes_N = blobs([20, 20, 20], gap=100)
    labels_N = some_labels(classes_N, 1)
    labels_N[classes_N == 2] = -1
    found = poisson(neighbour_graph(z, 5), labels_N, 3)
    assert (found[:20].argmax(1) == 0).all()
    assert (found[20:40].argmax(1) == 1).all()
    assert (found[40:] == 0).all()
    # Faintly, since its class is the only one that is known there.
    assert found[:20].numpy() == pytest.approx(np.full((20, 3), [[5e-7, -5e-7, 0]]), abs=1e-9)


def test_an_island_with_a_label_changes_nothing_elsewhere() -> None:
    z, classes_N = blobs([30, 25, 12], gap=2)
    classes_N[55:] = 0  # the island's, of a class that the rest has too
    z[55:] += 1000
    labels_N = some_labels(classes_N, 2)
    graph = neighbour_graph(z, 5)
    alone = poisson(neighbour_graph(z[:55], 5), labels_N[:55], 2)
    labels_N[60] = 0
    found = poisson(graph, labels_N, 2)
    assert found[:55].numpy() == pytest.approx(alone.numpy(), abs=1e-5)
    assert (found[55:].argmax(1) == 0).all()
    probs, confidence = pseudo_labels(graph, labels_N, 2)
    assert (probs[55:].argmax(1) == 0).all()
    assert (confidence[55:] > 0.51).nonzero().flatten().tolist() == [5]  # the label itself


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 99), classes=st.integers(2, 4), gap=st.floats(0, 5))
def test_scores_sum_to_zero_and_follow_a_renaming(seed: int, classes: int, gap: float) -> None:
    z, classes_N = blobs([15] * classes, gap, seed)
    graph, labels_N = neighbour_graph(z, 5), some_labels(classes_N, 2)
    found = poisson(graph, labels_N, classes)
    scale = found.abs().max()
    assert (found.sum(1).abs() <= 1e-3 * scale).all()
    renamed = torch.where(labels_N < 0, -1, classes - 1 - labels_N)
    assert torch.equal(poisson(graph, renamed, classes), found.flip(1))
    assert torch.equal(poisson(graph, labels_N, classes + 1)[:, :classes], found)


def test_pseudo_labels_are_the_softmax_in_which_the_median_margin_is_sharp() -> None:
    z, classes_N = blobs([31, 30, 30], gap=2)
    graph, labels_N = neighbour_graph(z), some_labels(classes_N, 1)
    probs, confidence = pseudo_labels(graph, labels_N, 3)
    scores = poisson(graph, labels_N, 3)
    unknown = labels_N < 0
    assert torch.equal(probs.argmax(1)[unknown], scores.argmax(1)[unknown])
    assert probs.sum(1).numpy() == pytest.approx(1, abs=1e-6)
    assert torch.equal(confidence, probs.amax(1))
    assert torch.equal(probs[~unknown], torch.eye(3)[labels_N[~unknown]])
    first, second = scores.sort(descending=True).values[:, :2].double().unbind(1)
    odds = SHARPNESS * (first - second) / (first - second).median()
    top = probs.double().sort(descending=True).values
    found = (top[:, 0] / top[:, 1]).log()
    assert found[unknown].numpy() == pytest.approx(odds[unknown].numpy(), rel=1e-3, abs=1e-4)


def test_pseudo_labels_are_right_and_sure_within_clusters_that_lie_apart() -> None:
    z, classes_N = blobs([40, 40, 40], gap=4)
    probs, confidence = pseudo_labels(neighbour_graph(z), some_labels(classes_N, 1), 3)
    right = probs.argmax(1) == classes_N
    surest = confidence.argsort(descending=True)[:60]
    assert right.float().mean() > 0.9
    assert right[surest].all()


def test_where_no_label_tells_anything_all_classes_are_alike() -> None:
    z, classes_N = blobs([20, 20], gap=100)
    labels_N = some_labels(classes_N, 1)
    labels_N[classes_N == 1] = -1  # one label alone, and its class might be that of all
    probs, confidence = pseudo_labels(neighbour_graph(z, 5), labels_N, 2)
    assert (probs[1:] == 0.5).all()
    assert confidence[0] == 1
