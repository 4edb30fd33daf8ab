"""Real people, one face of each named by hand: suggestions find all others, and none above the line is wrong."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from app.core.config import Settings
from app.core.types import FaceRecord
from app.metrics import Metrics
from app.people import Author, Profile
from app.service import open_services
from tests.support.running import environment, oceano
from tests.system.test_groups import IN_GROUPS

ANA = Author("test")


def _people(records: list[FaceRecord]) -> dict[str, str]:
    """Return whose the faces are, by face_id, as far as it is known."""
    found: dict[str, str] = {}
    of_image: dict[str, list[FaceRecord]] = {}
    for record in sorted(records, key=lambda one: one.payload.bbox[0]):
        path = Path(record.payload.path)
        if path.parent.parent.name == "people":
            found[record.face_id] = path.parent.name
        elif path.stem in IN_GROUPS:
            of_image.setdefault(path.stem, []).append(record)
    for image, faces in of_image.items():
        found |= dict(zip([one.face_id for one in faces], IN_GROUPS[image], strict=True))
    return found


@pytest.mark.real
def test_one_name_each_suggests_all_other_faces_and_nothing_wrong_above_the_line(
    tmp_path: Path, real_pack: Path, real_faces: Path
) -> None:
    env = environment(tmp_path, MODEL_NAME=real_pack, DEVICE="cpu")
    for folder in ("people", "groups"):
        assert oceano("ingest", real_faces / folder, env=env).returncode == 0
    settings = Settings(_env_file=None, data_dir=tmp_path, model_name=str(real_pack), device="cpu")
    with closing(open_services(settings, Metrics())) as services:
        records = list(services.index.scroll(limit=1000).records)
        whose, people = _people(records), services.people
        assert len(whose) == 56
        persons = {}
        for name in sorted({*whose.values()}):
            clear = [one for one in records if whose.get(one.face_id) == name and not one.payload.flaws]
            first = min(clear, key=lambda one: one.face_id)
            persons[name] = people.naming.create(Profile(name=name), [first.face_id], ANA).person
        confirmed = 0
        for name, person in persons.items():
            assert person is not None
            suggested = {one.record.face_id: one for one in people.suggestions(person.id, limit=100)}
            own = [face_id for face_id, other in whose.items() if other == name]
            missing = [face_id for face_id in own if face_id not in suggested]
            assert len(missing) == 1  # the named one
            assert [one for one in suggested if whose.get(one, name) != name] == []
            sure = [face_id for face_id, one in suggested.items() if one.sure]
            people.naming.assign(person.id, person.version, sure, ANA, source="confirmed")
            confirmed += len(set(sure) & set(own))
        assert confirmed >= 0.95 * (len(whose) - len(persons))
        named = {one.face_id: one.payload.person for one in services.index.scroll(limit=1000).records}
        names = {person.id: name for name, person in persons.items() if person is not None}
        assert all(names[str(named[face_id])] == name for face_id, name in whose.items() if named[face_id])
        stored = services.index.retrieve([*whose], with_embedding=True)
        identified = people.identify([one.embedding for one in stored if one.embedding is not None])
        assert [one is not None and one.person.name for one in identified] == [*whose.values()]
