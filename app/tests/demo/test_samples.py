"""demo.samples: a real model finds one real person in all her photographs, and takes no stranger for her."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.core.config import Settings
from app.demo import write_samples
from app.embeddings import FaceEngine
from app.images.decoding import decode
from app.packs.store import find_pack


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder)
    return folder


def test_samples_are_the_same_each_time_and_those_that_are_there_stay(folder: Path, tmp_path: Path) -> None:
    query = write_samples(tmp_path)
    assert query.is_file()
    written = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(written) > 15
    assert written == {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    query.write_bytes(b"mine")
    write_samples(tmp_path)
    assert query.read_bytes() == b"mine"


@pytest.mark.real
def test_the_free_pack_finds_her_in_every_picture_and_in_no_stranger(
    free_pack: Path, folder: Path, tmp_path: Path
) -> None:
    engine = FaceEngine(find_pack(str(free_pack), tmp_path), Settings(_env_file=None, device="cpu"))
    query = folder / "eileen-collins" / "portrait.jpg"
    (her,) = engine.analyze([decode(query.read_bytes(), max_pixels=1 << 26)])[0]
    for path in folder.rglob("*.jpg"):
        faces = engine.analyze([decode(path.read_bytes(), max_pixels=1 << 26)])[0]
        similarity = max(float(face.embedding @ her.embedding) for face in faces)
        assert (similarity >= engine.pack.threshold) == (path.parent == query.parent), (path, similarity)
