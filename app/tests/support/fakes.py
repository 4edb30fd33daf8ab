"""Fakes: an engine that needs no model and an index that needs no disk."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from app.core.paths import folders_of
from app.core.types import (
    DeviceInfo,
    EngineHealth,
    Face,
    FaceFilter,
    FacePoint,
    FaceRecord,
    Floats,
    IndexInfo,
    Match,
    ModelPack,
    Picture,
    Pixels,
    Score,
    ScrollPage,
)
from app.images import DecoderPool, decode
from app.index.payload import conditions_of, folder_spellings, is_unit, require_hash

FAKE_PACK = ModelPack("fake", Path("/nowhere"), Path("/nowhere/det.onnx"), Path("/nowhere/rec.onnx"), "f" * 64, 512)


def decode_here(pool: DecoderPool, data: bytes, *, name: str = "", admission: object = None, **options: Any) -> Picture:
    """Decode in this process, in place of `DecoderPool.decode`: to start a decoder process takes 0.4 s."""
    return decode(data, **options)


def embedding_of(seed: int) -> Floats:
    """A unit vector of its own for each seed."""
    vector = np.random.default_rng(seed).normal(size=512).astype(np.float32)
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def picture_of(pixels: Pixels, image_id: str = "a" * 64) -> Picture:
    """A picture that was decoded with every pixel."""
    height, width = pixels.shape[:2]
    return Picture(image_id, pixels, "PNG", None, width, height)


class FakeEngine:
    """Sees one face in the middle of any picture that is not black; pictures of one mean colour are one person."""

    pack = FAKE_PACK
    device = DeviceInfo("cpu", "CPUExecutionProvider", "a fake")
    concurrency = 2
    batch = 4
    _count = threading.Lock()

    def __init__(self) -> None:
        self.health = EngineHealth(True, 1.0)
        self.pictures = 0

    def analyze(self, pictures: Sequence[Picture], timings: dict[str, float] | None = None) -> list[list[Face]]:
        with self._count:
            self.pictures += len(pictures)
        if timings is not None:
            timings |= {"detect": 1.0, "embed": 1.0}
        return [self._faces(picture) for picture in pictures]

    def check(self) -> EngineHealth:
        return self.health

    def measure_runtimes(self) -> None:
        """A fake has none."""

    @staticmethod
    def _faces(picture: Picture) -> list[Face]:
        height, width = picture.height, picture.width
        colour = tuple(round(float(value) / 16) for value in picture.pixels.reshape(-1, 3).mean(axis=0))
        if colour == (0, 0, 0):
            return []
        seed = int.from_bytes(hashlib.sha256(repr(colour).encode()).digest()[:4], "big")
        box = (width * 0.25, height * 0.25, width * 0.75, height * 0.75)
        centre = (width / 2, height / 2)
        return [Face(box, (centre,) * 5, 0.9, 0.8, "direct", embedding_of(seed))]


class MemoryIndex:
    """The FaceIndex Protocol over a dict, every answer exact."""

    def __init__(self) -> None:
        self.points: dict[str, FacePoint] = {}
        self.flushed: set[str] = set()
        self._lock = threading.Lock()

    def upsert(self, points: Sequence[FacePoint]) -> None:
        with self._lock:
            for point in points:
                self.points.setdefault(point.face_id, point)

    def flush(self) -> None:
        self.flushed = set(self.points)

    def search(
        self, embedding: Floats, *, limit: int, threshold: float | None = None, where: FaceFilter | None = None
    ) -> list[Match]:
        matches = [
            Match(point.face_id, float(embedding @ point.embedding), point.payload) for point in self._where(where)
        ]
        matches = [match for match in matches if threshold is None or match.similarity >= threshold]
        return sorted(matches, key=lambda match: -match.similarity)[:limit]

    def search_batch(
        self,
        embeddings: Sequence[Floats],
        *,
        limit: int,
        threshold: float | None = None,
        where: FaceFilter | None = None,
    ) -> list[list[Match]]:
        return [self.search(one, limit=limit, threshold=threshold, where=where) for one in embeddings]

    def search_scores(
        self, embeddings: Sequence[Floats], *, limit: int, threshold: float | None = None, candidates: int = 128
    ) -> list[list[Score]]:
        ids = sorted(self.points)
        if not ids:
            return [[] for _ in embeddings]
        similarities = np.stack(embeddings) @ np.stack([self.points[face_id].embedding for face_id in ids]).T
        found = []
        for row in similarities.tolist():
            best = sorted(zip(row, ids, strict=True), key=lambda pair: -pair[0])[:limit]
            found.append([Score(face_id, value) for value, face_id in best if threshold is None or value >= threshold])
        return found

    def search_exact(
        self, embedding: Floats, *, limit: int, threshold: float | None = None, where: FaceFilter | None = None
    ) -> list[Score]:
        scores = [Score(point.face_id, float(embedding @ point.embedding)) for point in self._where(where)]
        scores = [score for score in scores if threshold is None or score.similarity >= threshold]
        return sorted(scores, key=lambda score: -score.similarity)[:limit]

    def retrieve(self, face_ids: Sequence[str], *, with_embedding: bool = False) -> list[FaceRecord]:
        found = [self.points[face_id] for face_id in face_ids if face_id in self.points]
        return [FaceRecord(one.face_id, one.payload, one.embedding if with_embedding else None) for one in found]

    def scroll(
        self,
        *,
        limit: int,
        offset: str | None = None,
        where: FaceFilter | None = None,
        with_embedding: bool = False,
    ) -> ScrollPage:
        ids = sorted(point.face_id for point in self._where(where))
        ids = [face_id for face_id in ids if offset is None or face_id >= offset]
        page = tuple(self.retrieve(ids[:limit], with_embedding=with_embedding))
        return ScrollPage(page, ids[limit] if len(ids) > limit else None)

    def damaged_faces(self) -> Iterator[str]:
        for face_id, point in self.points.items():
            if not is_unit(point.embedding):
                yield face_id

    def set_payload(self, face_ids: Sequence[str], *, person: str | None) -> None:
        for face_id in set(face_ids) & self.points.keys():
            point = self.points[face_id]
            payload = dataclasses.replace(point.payload, person=person)
            self.points[face_id] = dataclasses.replace(point, payload=payload)

    def set_paths(self, face_ids: Sequence[str], *, paths: Sequence[str]) -> None:
        for face_id in set(face_ids) & self.points.keys():
            point = self.points[face_id]
            payload = dataclasses.replace(point.payload, path=paths[0], folder=folders_of(*paths))
            self.points[face_id] = dataclasses.replace(point, payload=payload)

    def set_phash(self, face_ids: Sequence[str], *, phash: str) -> None:
        for face_id in set(face_ids) & self.points.keys():
            point = self.points[face_id]
            payload = dataclasses.replace(point.payload, phash=require_hash(phash))
            self.points[face_id] = dataclasses.replace(point, payload=payload)

    def delete(self, face_ids: Sequence[str]) -> None:
        for face_id in face_ids:
            self.points.pop(face_id, None)

    def count(self, where: FaceFilter | None = None) -> int:
        return len(self._where(where))

    def facet(
        self, key: Literal["person", "folder", "image_id"], *, limit: int = 100, where: FaceFilter | None = None
    ) -> dict[str, int]:
        values: Counter[str] = Counter()
        for point in self._where(where):
            value = getattr(point.payload, key)
            values.update(value if isinstance(value, tuple) else [value] if value is not None else [])
        return dict(values.most_common(limit))

    def info(self) -> IndexInfo:
        return IndexInfo("embedded", "faces__fake__ffffffff", len(self.points), 0, 1, False, 0)

    def maintain(self, *, wait: bool = False) -> None:
        pass

    def backup(self, folder: Path) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass

    def _where(self, where: FaceFilter | None) -> list[FacePoint]:
        with self._lock:
            points = list(self.points.values())
        if where is None:
            return points
        return [point for point in points if _holds(where, point)]


def _instant(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _holds(where: FaceFilter, point: FacePoint) -> bool:
    payload = point.payload

    def within(value: str | None, earliest: str | None, latest: str | None) -> bool:
        if earliest is None and latest is None:
            return True
        if value is None:
            return False
        return (earliest is None or _instant(earliest) <= _instant(value)) and (
            latest is None or _instant(value) <= _instant(latest)
        )

    conditions = conditions_of(where)

    return (
        (where.person is None or payload.person in conditions["person"])
        and payload.person not in where.not_person
        and not (where.unnamed and payload.person)
        and not (where.named and payload.person is None)
        and (where.folder is None or not set(folder_spellings(where.folder) or ()).isdisjoint(payload.folder))
        and not (where.undated and payload.taken_at)
        and (where.image_id is None or payload.image_id in conditions["image_id"])
        and within(payload.taken_at, conditions.get("taken_from"), conditions.get("taken_to"))
        and within(payload.ingested_at, conditions.get("ingested_from"), conditions.get("ingested_to"))
        and payload.det_score >= (where.min_det_score or 0)
        and payload.quality >= (where.min_quality or 0)
        and not set(where.without) & set(payload.flaws)
    )
