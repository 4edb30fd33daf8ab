"""How many strangers reach a similarity: as the words of a result expect it, and in fact.

    REAL_PACK_DIR=... REAL_FACES_DIR=... .venv/bin/python app/bench/sureness.py

`photographs`: the faces of the named people in `people` and `groups`, all pairs of different people. `expected` comes
from a normal distribution with mean and deviation of all pairs, as an index of the service fits them; `held_out` from
one that never saw the two people whose pairs it predicts; `pack` from the numbers that the pack has beforehand;
`actual` is counted. `drawn`: the same for drawn people (see bench/faces.py), where there are enough pairs for the far
tail: expected from a sample, as the service takes it, and counted among all.

The last line is one JSON object: for each similarity, the number of pairs at or above it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from statistics import NormalDist
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from app.core.boxes import area
from app.core.config import load_settings
from app.core.types import Floats, Picture, Strangers
from app.embeddings import FaceEngine
from app.packs.store import find_pack
from app.service.strangers import fit, fitted
from bench.faces import FACES_OF_ONE, People
from bench.pictures import folder_of, read_picture

IN_GROUPS = {
    "bbt3": ("sheldon", "howard", "penny", "raj", "leonard"),
    "bbt4": ("leonard", "amy", "raj", "penny", "sheldon", "bernadette"),
    "bbt5": ("raj", "penny", "sheldon", "leonard", "howard"),
}
SIMILARITIES = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35)
DRAWN = 100_000
QUERIES = 800
SAMPLE = 2000
FAR_SIMILARITIES = (0.15, 0.2, 0.25, 0.3)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        pack = find_pack(str(folder_of("REAL_PACK_DIR")), Path(folder))
        engine = FaceEngine(pack, load_settings(None, device="cpu"), many=True)
        said: dict[str, Any] = {"pack": pack.name, "threshold": pack.threshold}
        said["photographs"] = _photographs(list(_faces(engine, folder_of("REAL_FACES_DIR"))), pack.strangers)
    print(json.dumps(said | {"drawn": _drawn()}))


def _faces(engine: FaceEngine, folder: Path) -> Iterator[tuple[str, Floats]]:
    """Names and embeddings."""
    for path in sorted(folder.glob("people/*/*")):
        found = sorted(_analyzed(engine, path), key=lambda one: -one[0])
        yield from ((path.parent.name, embedding) for _, _, embedding in found[:1])
    for name, people in IN_GROUPS.items():
        (path,) = folder.glob(f"groups/{name}.*")
        found = sorted(_analyzed(engine, path), key=lambda one: one[1])
        if len(found) == len(people):
            yield from zip(people, (embedding for _, _, embedding in found), strict=True)


def _analyzed(engine: FaceEngine, path: Path) -> list[tuple[float, float, Floats]]:
    """Area, left edge and embedding of each face."""
    pixels = read_picture(path)
    height, width = pixels.shape[:2]
    (faces,) = engine.analyze([Picture("0" * 64, pixels, "PNG", None, width, height)])
    return [(area(face.bbox), face.bbox[0], face.embedding) for face in faces]


def _photographs(faces: list[tuple[str, Floats]], of_pack: Strangers) -> dict[str, Any]:
    of_person = {
        name: np.stack([embedding for other, embedding in faces if other == name]) for name in {one for one, _ in faces}
    }
    pairs = {
        frozenset(names): (of_person[names[0]] @ of_person[names[1]].T).ravel()
        for names in combinations(sorted(of_person), 2)
    }
    every = np.concatenate([*pairs.values()])
    known = fit(every)
    held_out = dict.fromkeys(SIMILARITIES, 0.0)
    for names, similarities in pairs.items():
        others = fit(np.concatenate([one for other, one in pairs.items() if not other & names]))
        for similarity in SIMILARITIES:
            held_out[similarity] += _expected(others, similarity, len(similarities))
    return {
        "people": len(of_person),
        "faces": len(faces),
        "pairs": len(every),
        "fit": _rounded(known),
        "pack": _rounded(of_pack),
        "highest": round(float(every.max()), 3),
        "strangers": {
            str(similarity): {
                "actual": int((every >= similarity).sum()),
                "expected": round(_expected(known, similarity, len(every)), 1),
                "held_out": round(held_out[similarity], 1),
                "pack": round(_expected(of_pack, similarity, len(every)), 1),
            }
            for similarity in SIMILARITIES
        },
    }


def _drawn() -> dict[str, Any]:
    people = People()
    stored = people.faces(people.identities(DRAWN // FACES_OF_ONE), FACES_OF_ONE)
    random = np.random.default_rng(3)
    sample = fitted(stored[random.choice(DRAWN, SAMPLE, replace=False)], 0.4)
    if sample is None:
        sys.exit("the sample shows few people")
    queries = random.choice(DRAWN, QUERIES, replace=False)
    actual = dict.fromkeys(FAR_SIMILARITIES, 0)
    pairs = 0
    for query in queries:
        similarities = stored @ stored[query]
        own = query // FACES_OF_ONE * FACES_OF_ONE
        strangers = np.delete(similarities, slice(own, own + FACES_OF_ONE))
        pairs += len(strangers)
        for similarity in FAR_SIMILARITIES:
            actual[similarity] += int((strangers >= similarity).sum())
    return {
        "pairs": pairs,
        "fit": _rounded(sample),
        "strangers": {
            str(similarity): {"actual": number, "expected": round(_expected(sample, similarity, pairs), 1)}
            for similarity, number in actual.items()
        },
    }


def _expected(strangers: Strangers, similarity: float, pairs: int) -> float:
    return pairs * (1 - NormalDist(strangers.mean, strangers.deviation).cdf(similarity))


def _rounded(strangers: Strangers) -> dict[str, float]:
    return {"mean": round(strangers.mean, 4), "deviation": round(strangers.deviation, 4)}


if __name__ == "__main__":
    main()
