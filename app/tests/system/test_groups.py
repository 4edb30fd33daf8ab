"""Groups of unnamed faces: of real photographs, by the command and after an ingest; and of a run that is killed."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from itertools import combinations
from pathlib import Path

import pytest

from app.catalog import AuditFilter, AuditLog, Database, FaceTable, Ledger, open_sqlite
from app.core.types import face_ids_of
from app.demo import write_demo_gallery
from app.packs import find_pack
from bench.faces import People
from tests.people.grouped import World
from tests.support.dying import die_at
from tests.support.running import environment, ingest, oceano

CONTEXT = multiprocessing.get_context("forkserver")
IN_GROUPS = {  # from left to right
    "bbt3": ["sheldon", "howard", "penny", "raj", "leonard"],
    "bbt4": ["leonard", "amy", "raj", "penny", "sheldon", "bernadette"],
    "bbt5": ["raj", "penny", "sheldon", "leonard", "howard"],
}


def _groups(data: Path, collection: str, digest: str) -> dict[str, list[str | None]]:
    """The groups of the faces of each file, by path."""
    with closing(open_sqlite(data / "state" / "catalog.sqlite3")) as database:
        table, found = FaceTable(database, collection), {}
        for record in Ledger(database, collection).files("/"):
            ids = face_ids_of(str(record.image_id), digest, record.faces)
            known = table.known(ids)
            found[record.path] = [known[face_id].group_id if face_id in known else None for face_id in ids]
        return found


def _truth(path: Path, faces: int) -> list[str | None]:
    if path.parent.parent.name == "people":
        return [path.parent.name]
    return [*IN_GROUPS.get(path.stem, [None] * faces)]


@pytest.mark.real
def test_real_people_make_eight_groups_after_their_ingest(tmp_path: Path, real_pack: Path, real_faces: Path) -> None:
    env = environment(tmp_path, MODEL_NAME=real_pack)
    done = [oceano("ingest", real_faces / folder, env=env) for folder in ("people", "groups")]
    assert [one.returncode for one in done] == [0, 0]
    pack = find_pack(str(real_pack), tmp_path / "models")
    groups = _groups(tmp_path, f"faces__{pack.name}__{pack.short_digest}", pack.digest)
    faces: list[tuple[str, str]] = []  # whose and in which group
    for path, of_file in groups.items():
        assert len(set(of_file)) == len(of_file)
        for person, group in zip(_truth(Path(path), len(of_file)), of_file, strict=True):
            assert group is not None
            if person is not None:
                faces.append((person, group))
    assert len(faces) == 56
    sizes: dict[str, int] = defaultdict(int)
    for of_file in groups.values():
        for group in of_file:
            sizes[str(group)] += 1
    assert sum(size > 1 for size in sizes.values()) == 8
    together = [(one[0] == other[0]) for one, other in combinations(faces, 2) if one[1] == other[1]]
    same = sum(one[0] == other[0] for one, other in combinations(faces, 2))
    assert all(together)
    assert len(together) >= 0.97 * same


def test_an_ingest_groups_faces_unless_the_settings_say_no(tmp_path: Path, demo_models: Path) -> None:
    write_demo_gallery(tmp_path / "pictures", people=3, groups=1)
    env = environment(tmp_path / "data", MODEL_NAME=demo_models / "demo", GROUP_AFTER_INGEST="0")
    assert ingest(tmp_path / "pictures", env)["faces"] > 4
    done = oceano("group", "--json", env=env)
    first = json.loads(done.stdout)
    assert (first["faces"] > 4, first["left"], first["interrupted"]) == (True, 0, False)
    assert json.loads(oceano("group", "--json", env=env).stdout)["faces"] == 0
    assert json.loads(oceano("group", "--all", "--json", env=env).stdout)["faces"] == first["faces"]
    write_demo_gallery(tmp_path / "more", people=4, groups=0)
    again = oceano("ingest", tmp_path / "more", "--json", env=env | {"GROUP_AFTER_INGEST": "1"})
    assert json.loads(again.stdout)["faces"] > 0
    assert "There are no new faces to group" in oceano("group", env=env).stdout
    with closing(open_sqlite(tmp_path / "data" / "state" / "catalog.sqlite3")) as database:
        actions = [entry.action for entry in AuditLog(database).find(AuditFilter(), limit=20)]
    assert actions.count("command.group") == 4


def _faces(database: Database) -> World:
    people = People(512, seed=7)
    world = World(database)
    world.add(people.faces(people.identities(30), 8))
    return world


def _grouped_until(state: Path, border: str, times: int) -> None:
    die_at(FaceTable, "write", border, times)
    with closing(open_sqlite(state / "catalog.sqlite3")) as database:
        _faces(database).group(batch=50)


@pytest.fixture
def undisturbed(tmp_path: Path) -> Iterator[set[frozenset[str]]]:
    with closing(open_sqlite(tmp_path / "undisturbed" / "catalog.sqlite3")) as database:
        world = _faces(database)
        world.group(batch=50)
        yield world.partition()


def test_a_run_that_was_killed_loses_a_batch_at_most(tmp_path: Path, undisturbed: set[frozenset[str]]) -> None:
    for border, times in (("before", 1), ("after", 2), ("before", 4)):
        state = tmp_path / f"{border}-{times}"
        process = CONTEXT.Process(target=_grouped_until, args=(state, border, times))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        with closing(open_sqlite(state / "catalog.sqlite3")) as database:
            world = _faces(database)
            kept = 50 * (times - (border == "before"))
            assert len(world.places()) == kept
            assert world.group(batch=50).faces == len(world.ids) - kept
            assert world.partition() == undisturbed
