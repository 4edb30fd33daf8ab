"""Three photographs of a person as one query, against the best single one of them.

    REAL_PACK_DIR=... REAL_FACES_DIR=... .venv/bin/python app/bench/combined.py

The faces are those of the named people in `people` and `groups`, and strangers in `hard`. Every three faces of a person
are a query; all other faces are the gallery. `sharp` takes the photographs as they are, `poor` makes copies of them
small, blurred and strongly compressed. The ways to combine: `mean` of the embeddings, scaled to norm 1; `weighted` mean
by quality; `average` and `max` of the three similarities. `single` is one of the three, averaged; `best` is the one of
the three that finds the most, which a user cannot know beforehand.

The last line is one JSON object. For each set and way: `found`, the share of a person's other faces that are found, and
`strangers`, how many are let in by a hundred queries, at the threshold of the pack (`at_pack`) and at the threshold
where so many strangers are let in by a query on average (`at_..._strangers`); `rank_1`, the share of queries whose most
similar face is the person. `lets_in`, for several thresholds: the queries of which one photograph lets a stranger in
there, and in how many of them all three combined do not. `at_own` is the same at the highest threshold at which one of
the query's own three photographs lets a stranger in, and what is found there.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from app.core.boxes import area
from app.core.config import load_settings
from app.core.types import Face, Floats, Picture, Pixels
from app.embeddings import FaceEngine
from app.packs.store import find_pack
from app.service import combined
from bench.pictures import folder_of, read_picture

IN_GROUPS = {
    "bbt3": ("sheldon", "howard", "penny", "raj", "leonard"),
    "bbt4": ("leonard", "amy", "raj", "penny", "sheldon", "bernadette"),
    "bbt5": ("raj", "penny", "sheldon", "leonard", "howard"),
}
EXAMPLES = 3
SHARES = (0.0, 0.01, 0.1)  # strangers let in by a query
THRESHOLDS = (0.2, 0.25, 0.3)
COMBINED = ("mean", "weighted", "average", "max")
WAYS = ("single", "best", *COMBINED)
COPIES = 3  # poor copies of a photograph


@dataclass(frozen=True, slots=True)
class Known:
    """A face and who it is; strangers have names of their own."""

    name: str
    face: Face


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """The similarities of one query to the gallery, (ways, faces), and which of these are the person.

    Rows: each single photograph, then those of `COMBINED`.
    """

    similarities: Floats
    mates: np.ndarray


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        pack = find_pack(str(folder_of("REAL_PACK_DIR")), Path(folder))
        engine = FaceEngine(pack, load_settings(None, device="cpu"), many=True)
        said: dict[str, Any] = {"pack": pack.name, "threshold": pack.threshold}
        photographs = folder_of("REAL_FACES_DIR")
        sets: dict[str, list[Callable[[Pixels], Pixels]]] = {
            "sharp": [lambda pixels: pixels],
            "poor": [partial(_poor, copy=copy) for copy in range(COPIES)],
        }
        for name, spoils in sets.items():
            galleries = [list(_faces(engine, photographs, spoil)) for spoil in spoils]
            trials = [trial for faces in galleries for trial in _trials(faces)]
            said[name] = _summary(trials, pack.threshold) | {
                "faces": len(galleries[0]),
                "queries": len(trials),
                "strangers_mean_sd": _strangers(galleries[0]),
            }
    print(json.dumps(said))


def _faces(engine: FaceEngine, folder: Path, spoil: Callable[[Pixels], Pixels]) -> Iterator[Known]:
    for path in sorted(folder.glob("people/*/*")):
        for face in _analyzed(engine, spoil(read_picture(path)))[:1]:
            yield Known(path.parent.name, face)
    for name, people in IN_GROUPS.items():
        (path,) = folder.glob(f"groups/{name}.*")
        found = _analyzed(engine, read_picture(path))
        if len(found) == len(people):
            yield from map(Known, people, sorted(found, key=lambda face: face.bbox[0]))
    for path in sorted(folder.glob("hard/*")):
        for face in _analyzed(engine, spoil(read_picture(path)))[:1]:
            yield Known(f"of {path.name}", face)  # not compared with each other


def _analyzed(engine: FaceEngine, pixels: Pixels) -> list[Face]:
    """The faces, largest first."""
    height, width = pixels.shape[:2]
    found = engine.analyze([Picture("0" * 64, pixels, "PNG", None, width, height)])[0]
    return sorted(found, key=lambda face: -area(face.bbox))


def _poor(pixels: Pixels, *, copy: int) -> Pixels:
    """The same photograph, small, blurred and compressed; each differently."""
    rng = np.random.default_rng((copy, int(pixels.sum())))
    height, width = pixels.shape[:2]
    share = float(rng.uniform(32, 64)) / min(height, width)
    small = cv2.resize(pixels, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), float(rng.uniform(0.3, 0.9)))
    _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 60))])
    read = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return cv2.resize(read, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)


def _trials(faces: list[Known]) -> Iterator[Trial]:
    embeddings = np.stack([one.face.embedding for one in faces])
    names = [one.name for one in faces]
    for name in sorted(set(names)):
        own = [place for place, other in enumerate(names) if other == name]
        if len(own) <= EXAMPLES:
            continue
        for chosen in combinations(own, EXAMPLES):
            rest = np.array([place for place in range(len(faces)) if place not in chosen])
            examples = embeddings[list(chosen)]
            singles = examples @ embeddings[rest].T
            weights = np.array([[faces[place].face.quality] for place in chosen], np.float32)
            weighted = (weights * examples).sum(axis=0)
            rows = [
                *singles,
                combined(list(examples)) @ embeddings[rest].T,
                weighted / np.linalg.norm(weighted) @ embeddings[rest].T,
                singles.mean(axis=0),
                singles.max(axis=0),
            ]
            mates = np.array([names[place] == name for place in rest])
            yield Trial(np.asarray(np.stack(rows), np.float32), mates)


def _strangers(faces: list[Known]) -> list[float]:
    """Mean and standard deviation of the similarities of faces of different people."""
    named = [one for one in faces if not one.name.startswith("of ")]
    pairs = [float(a.face.embedding @ b.face.embedding) for a, b in combinations(named, 2) if a.name != b.name]
    return [round(float(np.mean(pairs)), 3), round(float(np.std(pairs)), 3)]


def _summary(trials: list[Trial], threshold: float) -> dict[str, Any]:
    levels = {f"at_{share:g}_strangers": {way: _level(trials, way, share) for way in WAYS} for share in SHARES}
    table = {"at_pack": dict.fromkeys(WAYS, threshold)} | levels
    return {name: {way: _counts(trials, way, level) for way, level in row.items()} for name, row in table.items()} | {
        "rank_1": {way: round(float(np.mean([_rank_1(trial, way) for trial in trials])), 4) for way in WAYS},
        "at_own": _at_own(trials),
        "lets_in": {f"{level:g}": _lets_in(trials, level) for level in THRESHOLDS},
    }


def _rows(trial: Trial, way: str) -> Floats:
    """The similarities of a way; all single ones for `single` and `best`."""
    if way in ("single", "best"):
        return trial.similarities[:EXAMPLES]
    return trial.similarities[[EXAMPLES + COMBINED.index(way)]]


def _level(trials: list[Trial], way: str, share: float) -> float:
    """The lowest threshold at which a query lets in at most so many strangers on average."""
    strangers = np.sort(np.concatenate([_rows(trial, way)[:, ~trial.mates].ravel() for trial in trials]))[::-1]
    queries = sum(len(_rows(trial, way)) for trial in trials)
    return float(strangers[int(share * queries)]) + 1e-6


def _counts(trials: list[Trial], way: str, level: float) -> dict[str, float]:
    found: list[float] = []
    strangers: list[float] = []
    for trial in trials:
        reach = _rows(trial, way) >= level
        mates = reach[:, trial.mates].mean(axis=1)
        chosen = [int(mates.argmax())] if way == "best" else range(len(mates))
        found += [float(mates[one]) for one in chosen]
        strangers += [float(reach[one, ~trial.mates].sum()) for one in chosen]
    return {
        "threshold": round(level, 3),
        "found": round(float(np.mean(found)), 4),
        "strangers": round(100 * float(np.mean(strangers)), 2),
    }


def _rank_1(trial: Trial, way: str) -> float:
    rows = _rows(trial, way)
    right = trial.mates[rows.argmax(axis=1)]
    return float(right.max() if way == "best" else right.mean())


def _lets_in(trials: list[Trial], level: float) -> dict[str, int]:
    """Queries of which one photograph lets a stranger in; for each way, how many of them let none in."""
    some = [trial for trial in trials if _top_stranger(trial, "single") >= level]
    strict = {way: sum(_top_stranger(trial, way) < level for trial in some) for way in COMBINED}
    return {"queries": len(some)} | strict


def _at_own(trials: list[Trial]) -> dict[str, dict[str, float]]:
    said = {}
    for way in ("best", *COMBINED):
        strict, found = [], []
        for trial in trials:
            level = _top_stranger(trial, "single")
            strict.append(_top_stranger(trial, way) < level)
            found.append((_rows(trial, way)[:, trial.mates] >= level).mean(axis=1).max())
        said[way] = {"strict": round(float(np.mean(strict)), 3), "found": round(float(np.mean(found)), 4)}
    return said


def _top_stranger(trial: Trial, way: str) -> float:
    return float(_rows(trial, way)[:, ~trial.mates].max())


if __name__ == "__main__":
    main()
