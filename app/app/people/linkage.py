"""Average linkage on a graph of neighbours, with pairs that must stay apart.

Groups that an edge of the graph connects merge in the order of the mean similarity of all their pairs, as long as it
reaches the cut: hierarchical agglomerative graph clustering (Dhulipala et al., ICML 2021). The mean needs no pairs: it
is the product of the sums of the embeddings, divided by the numbers of faces.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from app.core.types import Floats

_SEVERAL: Final = 3  # clear faces whose mean is steadier than a single face

_ROUNDING: Final = 1e-6  # a mean that was computed twice may differ by this much
_NOBODY: Final[frozenset[str]] = frozenset()


class Images:
    """The images of some faces, as numbers; those of groups from an earlier run take 8 bytes each.

    Args:
        new: images of new faces.
        earlier: images of a group from an earlier run.
    """

    def __init__(self, new: Iterable[int] = (), earlier: Sequence[int] = ()) -> None:
        self._new = set(new)
        self._earlier: list[npt.NDArray[np.int64]] = [np.unique(np.array(earlier, np.int64))] if earlier else []

    def isdisjoint(self, other: Images) -> bool:
        """Return whether no image is in both."""
        if not self._new.isdisjoint(other._new):
            return False
        if self._has_any(other._new) or other._has_any(self._new):
            return False
        return not any(
            len(np.intersect1d(one, two, assume_unique=True)) for one in self._earlier for two in other._earlier
        )

    def update(self, other: Images) -> None:
        """Add the images of another object, which must not be used afterwards."""
        if len(self._new) < len(other._new):
            self._new, other._new = other._new, self._new
        self._new |= other._new
        self._earlier += other._earlier

    def _has_any(self, new: set[int]) -> bool:
        return any(_contains(stored, image) for stored in self._earlier for image in new)


def _contains(ordered: npt.NDArray[np.int64], value: int) -> bool:
    place = int(np.searchsorted(ordered, value))
    return place < len(ordered) and int(ordered[place]) == value


@dataclass(slots=True)
class Node:
    """A face, or a group from an earlier run.

    Attributes:
        total: sum of the embeddings of its clear faces, (D,); of a face that is not clear its embedding.
        clear: number of its clear faces; 0: the node can join a group, but not make groups merge.
        images: the images of its faces.
        person: the person that its faces are named as.
        rejected: the persons that a face of it is not.
    """

    total: Floats
    clear: int
    images: Images
    person: str | None = None
    rejected: frozenset[str] = _NOBODY


class Linkage:
    """Merges nodes; afterwards `find` gives the group of each.

    Args:
        nodes: the nodes; they are changed. Their order decides between equal similarities.
        cut: lowest mean similarity of groups that merge.
        group_cut: the same if one of them has three clear faces or more; at most `cut`.
    """

    def __init__(self, nodes: Sequence[Node], cut: float, group_cut: float) -> None:
        self._nodes = nodes
        self._cut = cut
        self._group_cut = group_cut
        self._parent = list(range(len(nodes)))

    def find(self, number: int) -> int:
        """Return the number of the node that stands for the group of a node."""
        parent = self._parent
        while parent[number] != number:
            parent[number] = number = parent[parent[number]]
        return number

    def merge_clear(self, edges: Iterable[tuple[int, int]]) -> None:
        """Merge the groups of clear faces that edges connect, the most similar first."""
        left = [(a, b) for a, b in edges if self._nodes[a].clear and self._nodes[b].clear]
        merged = True
        while merged:  # a pair below its cut has another look once its groups are larger
            merged, left = self._merge_best(left)

    def _merge_best(self, edges: Iterable[tuple[int, int]]) -> tuple[bool, list[tuple[int, int]]]:
        """Merge what reaches its cut; return whether there was something, and the edges that may reach it later."""
        heap = [(-self._similarity(a, b), a, b) for a, b in {self._roots(a, b) for a, b in edges}]
        heapq.heapify(heap)
        merged, later = False, []
        while heap:
            key, first, second = heapq.heappop(heap)
            a, b = self._roots(first, second)
            if a == b or not self._allowed(a, b):
                continue
            similarity = self._similarity(a, b)
            if similarity < -key - _ROUNDING:  # a group has grown since; others may be more similar now
                heapq.heappush(heap, (-similarity, a, b))
            elif similarity >= self._needed(a, b):
                self._merge(a, b)
                merged = True
            elif similarity >= self._group_cut:
                later.append((a, b))
        return merged, later

    def join_poor(self, edges: Iterable[tuple[int, int]]) -> None:
        """Let each face that is not clear join the most similar group of clear faces; the groups' means stay."""
        pairs = set()
        for a, b in edges:
            for poor, other in ((a, b), (b, a)):
                if not self._nodes[poor].clear and self._nodes[poor].person is None:
                    root = self.find(other)
                    if self._nodes[root].clear and self._similarity(poor, root) >= self._needed(poor, root):
                        pairs.add((-self._similarity(poor, root), poor, root))
        for _, poor, root in sorted(pairs):
            if self._parent[poor] == poor and self._allowed(poor, root):
                self._take(root, poor)

    def unite(self, a: int, b: int) -> None:
        """Merge two groups whatever speaks against it."""
        a, b = self._roots(a, b)
        if a != b:
            self._merge(a, b)

    def _roots(self, a: int, b: int) -> tuple[int, int]:
        a, b = self.find(a), self.find(b)
        return (a, b) if a < b else (b, a)

    def _needed(self, a: int, b: int) -> float:
        """Return the cut; the mean of several pairs of strangers is seldom as high as one pair can be."""
        return self._group_cut if max(self._nodes[a].clear, self._nodes[b].clear) >= _SEVERAL else self._cut

    def _similarity(self, a: int, b: int) -> float:
        one, other = self._nodes[a], self._nodes[b]
        return float(np.dot(one.total, other.total)) / (max(one.clear, 1) * max(other.clear, 1))

    def _allowed(self, a: int, b: int) -> bool:
        one, other = self._nodes[a], self._nodes[b]
        if one.person is not None and other.person is not None and one.person != other.person:
            return False
        if one.person in other.rejected or other.person in one.rejected:
            return False
        return one.images.isdisjoint(other.images)

    def _merge(self, a: int, b: int) -> None:
        one, other = self._nodes[a], self._nodes[b]
        if one.clear and other.clear:
            one.total = one.total + other.total
        elif other.clear:
            one.total = other.total
        one.clear += other.clear
        one.person = one.person if one.person is not None else other.person
        self._take(a, b)

    def _take(self, root: int, number: int) -> None:
        """Put a node into a group without a change of the group's mean."""
        into, node = self._nodes[root], self._nodes[number]
        into.images.update(node.images)
        if node.rejected:
            into.rejected |= node.rejected
        self._parent[number] = root
