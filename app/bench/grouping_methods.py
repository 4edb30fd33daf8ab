"""Published methods that group the nodes of a graph of neighbours, to compare with `app.people`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix  # type: ignore[import-untyped]
from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]

Labels = npt.NDArray[np.int64]
ROUNDS = 20
RANKS = 24  # neighbours that rank-order looks at
RANK_CUTS = (0.7, 0.9, 1.1)  # lowest distance of rank-order that separates
EPSILONS = (0.0, 0.4, 0.5)  # distances below which HDBSCAN does not split


@dataclass(frozen=True, slots=True)
class Graph:
    """Similarities of neighbours, (N, N), each at its place in one or both directions."""

    directed: csr_matrix
    both: csr_matrix

    @classmethod
    def of(cls, count: int, rows: Sequence[tuple[int, int, float]]) -> Graph:
        values = np.array(rows, np.float64).reshape(-1, 3)
        places = (values[:, 0].astype(np.int64), values[:, 1].astype(np.int64))
        directed = csr_matrix((values[:, 2].astype(np.float32), places), shape=(count, count))
        return cls(directed, directed.maximum(directed.T).tocsr())


def components(graph: Graph) -> Labels:
    return np.asarray(connected_components(graph.both, directed=False)[1], np.int64)


def chinese_whispers(graph: Graph) -> Labels:
    """In each round every node, in random order, takes the label that its neighbours have with the most weight."""
    rng = np.random.default_rng(1)
    start, where = graph.both.indptr.tolist(), graph.both.indices.tolist()
    weights, labels = graph.both.data.tolist(), list(range(graph.both.shape[0]))
    for _ in range(ROUNDS):
        changed = 0
        for node in rng.permutation(len(labels)).tolist():
            votes: dict[int, float] = {}
            for place in range(start[node], start[node + 1]):
                label = labels[where[place]]
                votes[label] = votes.get(label, 0.0) + weights[place]
            if votes:
                best = max(votes, key=lambda label: (votes[label], -label))
                changed += best != labels[node]
                labels[node] = best
        if not changed:
            break
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def rank_order(graph: Graph, cut: float) -> Labels:
    """Connect two faces if few of the neighbours before the other are missing among the other's neighbours."""
    ranked = _ranked(graph.directed)
    places = [{node: rank for rank, node in enumerate(nodes)} for nodes in ranked]
    rows = []
    for one, nodes in enumerate(ranked):
        for rank, other in enumerate(nodes):
            if one < other or one not in places[other]:
                back = places[other].get(one, len(ranked[other]))
                missing = sum(node not in places[other] and node != other for node in nodes[: rank + 1])
                missing += sum(node not in places[one] and node != one for node in ranked[other][: back + 1])
                if missing / (1 + min(rank, back)) < cut:
                    rows.append((one, other, 1.0))
    return components(Graph.of(len(ranked), rows))


def hdbscan(graph: Graph, epsilon: float) -> Labels:
    """HDBSCAN of each connected component, from the distances of its neighbours; noise stays alone."""
    from sklearn.cluster import HDBSCAN  # type: ignore[import-not-found,import-untyped,unused-ignore]

    how = {"min_cluster_size": 2, "min_samples": 1, "metric": "precomputed", "cluster_selection_epsilon": epsilon}

    part = components(graph)
    labels = np.arange(len(part), dtype=np.int64)
    order = np.argsort(part, kind="stable")
    for nodes in np.split(order, np.flatnonzero(np.diff(part[order])) + 1):
        if len(nodes) < 3:
            labels[nodes] = nodes[0]
            continue
        inside = graph.both[nodes][:, nodes].toarray()
        distances = np.where(inside > 0, 1 - inside, 2.0)
        np.fill_diagonal(distances, 0)
        model = HDBSCAN(allow_single_cluster=True, copy=True, **how)
        found = model.fit_predict(distances.astype(np.float64))
        for label in range(int(found.max()) + 1):
            labels[nodes[found == label]] = nodes[found == label][0]
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _ranked(directed: csr_matrix) -> list[list[int]]:
    """The neighbours of each node, the most similar first."""
    parts = zip(directed.indptr[:-1].tolist(), directed.indptr[1:].tolist(), strict=True)
    return [directed.indices[a:b][np.argsort(-directed.data[a:b], kind="stable")][:RANKS].tolist() for a, b in parts]


METHODS: dict[str, Callable[[Graph], Labels]] = {
    "connected components": components,
    "Chinese Whispers": chinese_whispers,
    **{f"rank-order {cut}": partial(rank_order, cut=cut) for cut in RANK_CUTS},
}
if importlib.util.find_spec("sklearn"):
    METHODS |= {f"HDBSCAN {epsilon}": partial(hdbscan, epsilon=epsilon) for epsilon in EPSILONS}
