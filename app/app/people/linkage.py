"""Average linkage on a graph of neighbours, with pairs that must stay apart.

Groups that an edge of the graph connects merge in the order of the mean similarity of all their pairs, as long as it
reaches the cut: hierarchical agglomerative graph clustering (Dhulipala et al., ICML 2021). The mean needs no pairs: it
is the product of the sums of the embeddings, divided by the numbers of faces.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np

from app.core.types import Floats

T = TypeVar("T")
_SEVERAL: Final = 3  # clear faces whose mean is steadier than a single face

_ROUNDING: Final = 1e-6  # a mean that was computed twice may differ by this much


@dataclass(slots=True)
class Node:
    """A face, or a group from an earlier run.

    Attributes:
        total: sum of the embeddings of its clear faces, (D,); of a face that is not clear its embedding.
        clear: number of its clear faces; 0: the node can join a group, but not make groups merge.
        images: the images of its faces.
        person: the person that its faces are named as.
        apart: the numbers of the nodes that it must not be in one group with.
    """

    total: Floats
    clear: int
    images: set[str]
    person: str | None = None
    apart: set[int] = field(default_factory=set)


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
        if not one.images.isdisjoint(other.images):
            return False
        return all(self.find(number) != b for number in one.apart) and all(
            self.find(number) != a for number in other.apart
        )

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
        into.images = _larger_with(into.images, node.images)
        into.apart = _larger_with(into.apart, node.apart)
        self._parent[number] = root


def _larger_with(one: set[T], other: set[T]) -> set[T]:
    """Return the union, in the set that is larger."""
    large, small = (one, other) if len(one) >= len(other) else (other, one)
    large.update(small)
    return large
