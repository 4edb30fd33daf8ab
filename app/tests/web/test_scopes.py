"""A scope holds in every answer: all routes are asked by somebody who may see one folder.

Two services are compared, see `tests.support.scopes`: in one, the rest of the archive does not exist. Their answers are
the same, to the last header. Besides, no answer has a name or an id of the rest.
"""

from __future__ import annotations

import base64
import binascii
import html
import io
import json
import re
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import pytest
from fastapi.routing import iter_route_contexts
from httpx import Response
from pypdf import PdfReader

from tests.support.clients import TestClient
from tests.support.fakes import MemoryIndex
from tests.support.html import fields_of
from tests.support.pictures import GREEN, RED, encoded
from tests.support.scopes import (
    BESIDE,
    FURTHER,
    HIDDEN,
    PEOPLE,
    SCOPED,
    SEEN,
    UNNAMED,
    VIOLET,
    WHOLE,
    World,
    at_one_time,
    face_of,
    further,
    image_of,
    ingested,
    make_files,
)

UNKNOWN: Final = "00000000-0000-5000-8000-000000000000"
_ID: Final = re.compile(r"[0-9a-f]{64}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
PAGE: Final = {"Accept": "text/html"}
_DIFFERENT: Final = {
    "request_id", "took_ms", "started_at", "uptime_seconds", "gpus", "id", "created_at", "kept_id",
    # of the journal, which all share
    "changed_at", "at", "number", "person_id",
}  # fmt: skip
_VOLATILE: Final = (
    (re.compile(r'data-rendered="\d+"'), "NOW"),
    (re.compile(r"[0-9a-f]{32}"), "REQUEST"),
    (re.compile(r'^"([0-9]+)-[0-9a-f]{8}"$'), r'"\1-CHANGED_AT"'),  # an ETag has a digest of the times in the body
    (re.compile(r"oceano-[0-9]{4}-[0-9-]+"), "oceano-NOW-"),
    (re.compile(r"((?:/|%2F)kept(?:/|%2F))[A-Za-z0-9_-]{16}"), r"\1KEPT"),
    (re.compile(r"[0-9.,]+ (ms|s|seconds?|minutes?)\b"), "TIME"),
    (re.compile(r"\d\d:\d\d(:\d\d)?"), "HH:MM"),
    (re.compile(r"[0-9.]+ [kMG]B used of"), "SIZE"),
    (re.compile(r"^/person/[0-9a-f-]{36}$"), "/person/NEW"),  # a header: ids of new people are random
)


@dataclass
class Call:
    """A request for a route; `path` is filled in."""

    path: str
    options: dict[str, Any] = field(default_factory=dict)

    def ask(self, client: TestClient, method: str, key: Mapping[str, str]) -> Response:
        options = dict(self.options)
        headers = {**key, **options.pop("headers", {})}
        response: Response = client.request(method, self.path, headers=headers, **options)
        return response

    def mentions(self, text: str) -> bool:
        return text in unquote(self.path) or text in repr(self.options)


@dataclass
class Ids:
    """What a request may ask for."""

    archive: Path

    def __post_init__(self) -> None:
        seen, hidden = self.archive / SEEN, self.archive / HIDDEN
        self.own, self.zoe, self.shared = (
            seen / "2019" / "alma-1.jpg", seen / "2019" / "zoe-2.jpg", seen / "2019" / "shared-copy.jpg",
        )  # fmt: skip
        self.other, self.like = hidden / "benita-1.jpg", hidden / "zoe-benita-2.jpg"
        self.files = (self.own, self.zoe, self.shared, self.other, self.like)
        self.faces = (*map(face_of, self.files), further(self.archive, SEEN, 10)[0].face_id, UNKNOWN)
        self.images = (*map(image_of, self.files), "f" * 64)
        self.people = (*PEOPLE.values(), UNKNOWN)
        self.unnamed = [one.face_id for one in further(self.archive, SEEN, 10)[-UNNAMED:]]
        self.group = min(self.unnamed)
        self.hidden_group = min(one.face_id for one in further(self.archive, HIDDEN, 1010)[-UNNAMED:])
        self.folders = (
            "/", str(self.archive), str(seen), f"{seen}/", f"{seen}/2019", f"{seen}/../{HIDDEN}", str(hidden),
            str(self.archive / BESIDE), f"{seen}-pri", str(self.archive / "none"), str(seen).upper(),
        )  # fmt: skip


@dataclass
class Asker:
    """Somebody who asks a service: what they got before is in later requests."""

    client: TestClient
    ids: Ids
    foreign: Mapping[str, str]
    kept: list[str] = field(default_factory=list)

    def first(self, path: str, **options: Any) -> Any:
        return Call(path, options).ask(self.client, "POST", SCOPED).json()


def _forms(asker: Asker) -> list[dict[str, Any]]:
    """The fields of a search with everything that may tell of other pictures."""
    ids = asker.ids
    return [
        {"threshold": "-1", "limit": "1000"},
        {"sort": "newest", "threshold": "-1"}, {"sort": "oldest", "group_by": "image_id"}, {"group_by": "person"},
        {"group_by": "alike"}, {"group_by": "day", "taken_from": "2019"}, *({"person": one} for one in PEOPLE.values()),
        {"unnamed": "true"}, {"named": "true"}, {"identify": "true"},
        {"taken_from": "2019-06-11", "taken_to": "2019-06-11"}, {"undated": "true"}, {"min_face": "30"},
        *({"image_id": image} for image in ids.images), *({"folder": folder} for folder in ids.folders),
        {"folder": [f"{asker.ids.archive}/{HIDDEN}", f"{asker.ids.archive}/{SEEN}"]},
        *({"with_face_id": face} for face in ids.faces), *({"not_face_id": face} for face in ids.faces),
    ]  # fmt: skip


def _pages(asker: Asker) -> list[str]:
    """The same as query strings of pages."""
    ids = asker.ids
    faces = [face_of(one) for one in (ids.shared, ids.other)]
    return [
        "", "least=0.2", "sort=newest", "sort=oldest&least=0.2&group=image", "group=person", "group=alike", "group=day",
        "from=2019&to=2019", "undated=1", "named=Benita", "named=Zoe", "min_face=30", f"after={asker.foreign['page']}",
        *(f"folder={folder}" for folder in (*ids.folders, HIDDEN, BESIDE, SEEN, "bis", "bisson")),
        *(f"photo={image_of(one)}" for one in (ids.shared, ids.other)), *(f"with={face}" for face in faces),
        *(f"not={face}" for face in faces), *(f"example={face}" for face in faces),
        "sureness=likely&bands=0.41,0.52",
    ]  # fmt: skip


def _searches(asker: Asker) -> Iterator[Call]:
    for form in _forms(asker):
        yield Call("/search", {"data": form, "files": {"image": encoded(RED)}})
    for colour in (GREEN, VIOLET):
        yield Call("/search", {"files": {"image": encoded(colour)}})
    for face in asker.ids.faces:
        yield Call("/search", {"data": {"face_id": face, "threshold": "-1"}, "files": {"image": encoded(RED)}})


def _faces(asker: Asker, template: str, *queries: str) -> Iterator[Call]:
    """Ask for every face, and for one with all queries."""
    for face in (*asker.ids.faces, "no-face"):
        yield Call(template.format(face_id=face) + (f"?{queries[0]}" if queries else ""))
    for query in queries[1:]:
        yield Call(f"{template.format(face_id=face_of(asker.ids.zoe))}?{query}")


def _images(asker: Asker, template: str, *queries: str) -> Iterator[Call]:
    for image in (*asker.ids.images, "no-image"):
        for query in queries or ("",):
            yield Call(template.format(image_id=image) + (f"?{query}" if query else ""))


def _more(asker: Asker) -> Iterator[Call]:
    yield Call("/search/more", {"data": {"after": asker.foreign["api"]}})
    for form in ({"threshold": "-1"}, {"threshold": "-1", "sort": "newest"}, {"folder": str(asker.ids.archive)}):
        found = asker.first("/search", data={**form, "limit": "7"}, files={"image": encoded(RED)})
        after = found["faces"][0]["next"]
        while after:
            call = Call("/search/more", {"data": {"after": after, "limit": "40"}})
            yield call
            after = call.ask(asker.client, "POST", SCOPED).json()["next"]


def _form_of(asker: Asker, colour: tuple[int, int, int] = RED) -> dict[str, Any]:
    page = asker.client.post("/", files={"image": encoded(colour)}, headers=SCOPED).text
    return {**dict(fields_of(page, "keep")), "days": "30"}


def _keeps(asker: Asker) -> Iterator[Call]:
    form = _form_of(asker)
    for filters in ("", f"folder={asker.ids.archive}/{HIDDEN}", f"not={face_of(asker.ids.other)}"):
        yield Call("/kept", {"data": {**form, "name": "Ana", "filters": filters}})
    for face in asker.ids.faces:
        yield Call("/kept", {"data": {"name": "stored", "days": "1", "person": face}})


def _of_kept(asker: Asker, template: str, *queries: str) -> Iterator[Call]:
    for kept in (*asker.kept, asker.foreign["kept"], "none"):
        yield Call(template.format(kept_id=kept) + (f"?{queries[0]}" if queries[0] else ""))
    for query in queries[1:]:
        yield Call(f"{template.format(kept_id=asker.kept[0])}?{query}")


def _exports(asker: Asker) -> list[str]:
    kinds = [f"format={kind}" for kind in ("csv", "json", "paths", "zip", "previews", "pdf")]
    return [*kinds, "format=zip&estimate=1", "format=csv&least=0.2", "format=json&group=image&sort=newest"]


def _tokens(asker: Asker, path: str) -> Iterator[Call]:
    form = {name: value for name, value in _form_of(asker).items() if name == "query"}
    for query in (*_exports(asker), *(f"format=csv&{one}" for one in _pages(asker)[:20] if "after=" not in one)):
        yield Call(f"{path}?{query}", {"data": form})


def _photographs(asker: Asker, path: str, queries: Sequence[str]) -> Iterator[Call]:
    for query in queries:
        yield Call(f"{path}?{query}{'&' if query else ''}facets=1&lang=en", {"files": {"image": encoded(RED)}})
    yield Call(path, {"files": {"image": encoded(GREEN)}})


def _facets(asker: Asker) -> Iterator[Call]:
    form = {name: value for name, value in _form_of(asker).items() if name == "query"}
    for query in _pages(asker):
        yield Call(f"/results/facets?{query}", {"data": form})


def _photo_pages(asker: Asker) -> Iterator[Call]:
    yield from _images(asker, "/photo/{image_id}", f"from=/face/{face_of(asker.ids.other)}&lang=en")
    for face in asker.ids.faces:
        yield Call(f"/photo/{image_of(asker.ids.shared)}?face={face}&from=/face/{face_of(asker.ids.own)}&lang=en")
        yield Call(f"/photo/{image_of(asker.ids.own)}?face={face_of(asker.ids.own)}&from=/face/{face}")


def _batches(asker: Asker) -> Iterator[Call]:
    queries = [{"face_id": [face], **form} for face in asker.ids.faces for form in ({}, {"threshold": -1, "limit": 99})]
    yield Call("/search/batch", {"json": {"queries": queries}})


def _pairs(asker: Asker) -> Iterator[Call]:
    yield Call("/help/similarity?s=0.5&lang=en")
    for face in asker.ids.faces:
        yield Call(f"/help/similarity?a={face_of(asker.ids.own)}&b={face}&lang=en")


def _people(asker: Asker, template: str, *queries: str) -> Iterator[Call]:
    for person in (*asker.ids.people, "nobody"):
        for query in queries or ("",):
            yield Call(template.format(person_id=person) + (f"?{query}" if query else ""))


def _fresh(asker: Asker, half: int = 0) -> str:
    """Add a person with faces that had no name, of whom there is nothing elsewhere; the version is 1."""
    faces = asker.ids.unnamed[2 * half : 2 * half + 2]
    made = asker.first("/people", json={"name": "Fresh", "face_ids": faces, "replace": True})
    return str(made["person"]["id"])


def _changes(asker: Asker, template: str, **body: Any) -> Iterator[Call]:
    for person in (PEOPLE["Benita"], UNKNOWN, _fresh(asker)):
        for version in ({}, {"version": 99}, {"version": 1}):
            yield Call(template.format(person_id=person), {"json": {**body, **version}})


def _namings(asker: Asker, template: str) -> Iterator[Call]:
    for face in (*asker.ids.faces, asker.ids.hidden_group, asker.ids.group):
        for person in (PEOPLE["Benita"], _fresh(asker)):
            yield Call(template.format(person_id=person), {"json": {"face_ids": [face], "version": 1}})
    own = {"face_ids": asker.ids.unnamed[:1], "version": 1}
    yield Call(template.format(person_id=_fresh(asker)), {"json": own})


def _merges(asker: Asker) -> Iterator[Call]:
    for hidden in (PEOPLE["Benita"], UNKNOWN):
        for person, other in ((_fresh(asker), hidden), (hidden, _fresh(asker))):
            others = [{"id": other, "version": 1}]
            yield Call(f"/people/{person}/merge", {"json": {"others": others, "version": 1}})
    others = [{"id": _fresh(asker, 1), "version": 1}]
    yield Call(f"/people/{_fresh(asker)}/merge", {"json": {"others": others, "version": 1}})


def _new_people(asker: Asker) -> Iterator[Call]:
    yield Call("/people", {"json": {"name": "Nobody"}})
    for face in asker.ids.faces:
        yield Call("/people", {"json": {"name": "Somebody", "face_ids": [face], "replace": True}})


def _dismissals(asker: Asker) -> Iterator[Call]:
    for face in (*asker.ids.faces, asker.ids.group, asker.ids.hidden_group):
        for kind in ("set_aside", None):
            yield Call("/faces/dismiss", {"json": {"face_ids": [face], "kind": kind}})


def _forms_of_people(asker: Asker, what: str, **fields: str) -> Iterator[Call]:
    for person in (PEOPLE["Alma"], PEOPLE["Benita"], UNKNOWN):
        for version in (1, 99):
            yield Call(f"/person/{person}/{what}?lang=en", {"data": {**fields, "version": version}})
    yield Call(f"/person/{_fresh(asker)}/{what}?lang=en", {"data": {**fields, "version": 1}})


def _few_faces(asker: Asker) -> tuple[str, ...]:
    return (*(face_of(path) for path in (asker.ids.own, asker.ids.shared, asker.ids.other)), UNKNOWN)


def _face_forms(asker: Asker) -> Iterator[Call]:
    for face in _few_faces(asker):
        for person in (PEOPLE["Alma"], PEOPLE["Violeta"], PEOPLE["Benita"]):
            for what in ("reject", "cover"):
                sent = {"version": 99, "id": face, "do": what}
                yield Call(f"/person/{person}/faces?lang=en", {"data": sent})
    for what in ("cover", "reject"):
        sent = {"version": 1, "id": asker.ids.unnamed[0], "do": what}
        yield Call(f"/person/{_fresh(asker)}/faces?lang=en", {"data": sent})


def _suggestion_forms(asker: Asker) -> Iterator[Call]:
    for face in _few_faces(asker):
        for person in (PEOPLE["Violeta"], PEOPLE["Benita"]):
            for answer in ("yes", "no"):
                yield Call(f"/person/{person}/suggestions?lang=en", {"data": {"version": 99, answer: face}})
    yield Call(f"/person/{_fresh(asker)}/suggestions?lang=en", {"data": {"version": 1, "no": face_of(asker.ids.zoe)}})


def _merge_forms(asker: Asker) -> Iterator[Call]:
    pairs = ((PEOPLE["Alma"], PEOPLE["Benita"]), (PEOPLE["Benita"], PEOPLE["Alma"]), (PEOPLE["Violeta"], PEOPLE["Zoe"]))
    for one, other in pairs:
        yield Call(f"/person/{one}/merge", {"data": {"with": other, "version": 1, "other_version": 1}})
    sent = {"with": _fresh(asker, 1), "version": 1, "other_version": 1}
    yield Call(f"/person/{_fresh(asker)}/merge", {"data": sent})


def _naming_forms(asker: Asker) -> Iterator[Call]:
    for name in ("", "Benita", "Zoe"):  # a new person has another id at each service
        yield Call("/naming?lang=en", {"data": {"id": face_of(asker.ids.own), "name": name, "next": "/people"}})
    for face in _few_faces(asker):
        for person in (PEOPLE["Violeta"], PEOPLE["Benita"]):
            yield Call("/naming?lang=en", {"data": {"id": face, "person": f"{person}:99"}})
    yield Call("/naming", {"data": {"of_group": asker.ids.hidden_group, "name": "Eva"}})


def _once(*paths: str, **options: Any) -> Callable[[Asker], Iterator[Call]]:
    return lambda _: iter([Call(path, options) for path in paths])


RANGE: Final = {"headers": {"Range": "bytes=0-99"}}
ROUTES: Final[dict[tuple[str, str], Callable[[Asker], Iterator[Call]]]] = {
    ("GET", "/health"): _once("/health"),
    ("GET", "/openapi.json"): _once("/openapi.json"),
    ("GET", "/metrics"): _once("/metrics"),
    ("GET", "/status"): lambda _: iter([Call("/status"), Call("/status?lang=en", {"headers": PAGE})]),
    ("POST", "/search"): _searches,
    ("POST", "/search/more"): _more,
    ("POST", "/search/batch"): _batches,
    ("POST", "/detect"): _once("/detect", files={"image": encoded(RED)}),
    ("POST", "/compare"): _once("/compare", files={"image_a": encoded(RED), "image_b": encoded(GREEN)}),
    ("GET", "/faces/{face_id}"): lambda asker: _faces(asker, "/faces/{face_id}"),
    ("POST", "/faces/{face_id}/search"): lambda asker: _faces(
        asker, "/faces/{face_id}/search", "threshold=-1&limit=500", f"folder={asker.ids.archive}"
    ),
    ("GET", "/thumbs/{face_id}"): lambda asker: _faces(asker, "/thumbs/{face_id}"),
    ("GET", "/images/{image_id}"): lambda asker: _images(asker, "/images/{image_id}"),
    ("GET", "/images/{image_id}/preview"): lambda asker: _images(asker, "/images/{image_id}/preview", "width=640"),
    ("GET", "/images/{image_id}/file"): lambda asker: iter(
        [
            *_images(asker, "/images/{image_id}/file", "", "download=1"),
            *(Call(f"/images/{one}/file", RANGE) for one in asker.ids.images),
        ]
    ),
    ("GET", "/people"): lambda asker: iter(
        [
            *(
                Call(f"/people?{one}")
                for one in ("", "order=name", "name=e", "hidden=all", "limit=1", "limit=1&order=name")
            ),
            *(
                Call(f"/people?{one}&lang=en", {"headers": PAGE})
                for one in ("", "order=name", "q=e", "q=Benita", "tab=groups", "tab=hidden", "tab=single", "tab=aside")
            ),
            Call(f"/people?after={asker.foreign['people']}"),
        ]
    ),
    ("GET", "/people/groups"): _once("/people/groups", "/people/groups?limit=1"),
    ("GET", "/people/unnamed"): _once("/people/unnamed", "/people/unnamed?limit=1"),
    ("GET", "/people/dismissed"): _once(
        "/people/dismissed", "/people/dismissed?limit=1", "/people/dismissed?kind=not_a_face"
    ),
    ("GET", "/people/groups/{group_id}"): lambda asker: iter(
        [
            Call(f"/people/groups/{one}{query}")
            for one in (asker.ids.group, asker.ids.hidden_group, *asker.ids.people, *asker.ids.faces, "none")
            for query in ("", "?limit=2")
        ]
    ),
    ("GET", "/people/{person_id}"): lambda asker: _people(asker, "/people/{person_id}"),
    ("GET", "/people/{person_id}/faces"): lambda asker: _people(
        asker, "/people/{person_id}/faces", "", "order=oldest&limit=7", "order=similarity&limit=1000"
    ),
    ("GET", "/people/{person_id}/suggestions"): lambda asker: _people(asker, "/people/{person_id}/suggestions"),
    ("GET", "/people/{person_id}/together"): lambda asker: _people(asker, "/people/{person_id}/together"),
    ("POST", "/people"): _new_people,
    ("PATCH", "/people/{person_id}"): lambda asker: _changes(asker, "/people/{person_id}", name="Eva"),
    ("DELETE", "/people/{person_id}"): lambda asker: _changes(asker, "/people/{person_id}"),
    ("POST", "/people/{person_id}/faces"): lambda asker: _namings(asker, "/people/{person_id}/faces"),
    ("POST", "/people/{person_id}/reject"): lambda asker: _namings(asker, "/people/{person_id}/reject"),
    ("POST", "/people/{person_id}/split"): lambda asker: _namings(asker, "/people/{person_id}/split"),
    ("POST", "/people/{person_id}/merge"): _merges,
    ("POST", "/faces/dismiss"): _dismissals,
    ("GET", "/changes"): _once("/changes", f"/changes?person_id={PEOPLE['Alma']}"),
    ("POST", "/changes/{number}/undo"): _once("/changes/1/undo", "/changes/99/undo"),
    ("GET", "/group/{group_id}"): lambda asker: iter(
        Call(f"/group/{one}?lang=en") for one in (asker.ids.group, asker.ids.hidden_group, "none")
    ),
    ("GET", "/person/{person_id}"): lambda asker: _people(
        asker, "/person/{person_id}", "lang=en&done=1", "lang=es&order=similarity"
    ),
    ("GET", "/person/{person_id}/merge"): lambda asker: _people(
        asker, "/person/{person_id}/merge", "lang=en", "q=e", *(f"with={one}" for one in PEOPLE.values())
    ),
    ("GET", "/person/{person_id}/delete"): lambda asker: _people(asker, "/person/{person_id}/delete", "lang=en"),
    ("POST", "/person/{person_id}/edit"): lambda asker: _forms_of_people(asker, "edit", name="Eva"),
    ("POST", "/person/{person_id}/hide"): lambda asker: _forms_of_people(asker, "hide", hidden="1"),
    ("POST", "/person/{person_id}/faces"): _face_forms,
    ("POST", "/person/{person_id}/suggestions"): _suggestion_forms,
    ("POST", "/person/{person_id}/merge"): _merge_forms,
    ("POST", "/person/{person_id}/delete"): lambda asker: _forms_of_people(asker, "delete"),
    ("GET", "/naming"): lambda asker: iter(
        Call(f"/naming?{one}&lang=en")
        for one in (
            *(f"id={face}" for face in _few_faces(asker)),
            f"of_group={asker.ids.group}",
            f"of_group={asker.ids.hidden_group}",
            f"above=0.3&person_face={face_of(asker.ids.zoe)}",
        )
    ),
    ("POST", "/naming"): _naming_forms,
    ("POST", "/dismiss"): lambda asker: iter(
        Call("/dismiss", {"data": {"id": face, "kind": kind}})
        for face in (*_few_faces(asker), asker.ids.hidden_group, asker.ids.unnamed[-1])
        for kind in ("set_aside", "not_a_face")
    ),
    ("POST", "/undo"): _once("/undo", data={"number": "1"}),
    ("GET", "/"): _once("/?lang=en"),
    ("POST", "/"): lambda asker: _photographs(asker, "/", ["", "least=0.2&group=person"]),
    ("POST", "/results"): lambda asker: _photographs(asker, "/results", _pages(asker)[:9]),
    ("POST", "/results/facets"): _facets,
    ("GET", "/face/{face_id}"): lambda asker: _faces(
        asker, "/face/{face_id}", *(f"{one}&facets=1&lang=en" for one in _pages(asker))
    ),
    ("GET", "/face/{face_id}/facets"): lambda asker: _faces(asker, "/face/{face_id}/facets", "", "least=0.2"),
    ("GET", "/face/{face_id}/export"): lambda asker: _faces(asker, "/face/{face_id}/export", *_exports(asker)),
    ("GET", "/search/{key}"): _once("/search/abcdefgh?lang=en", f"/search/abcdefgh?folder={HIDDEN}&lang=en"),
    ("GET", "/photo/{image_id}"): _photo_pages,
    ("GET", "/help/similarity"): _pairs,
    ("POST", "/kept"): _keeps,
    ("GET", "/kept/{kept_id}"): lambda asker: _of_kept(asker, "/kept/{kept_id}", "facets=1", *_pages(asker)[:9]),
    ("GET", "/kept/{kept_id}/facets"): lambda asker: _of_kept(asker, "/kept/{kept_id}/facets", "", "least=0.2"),
    ("GET", "/kept/{kept_id}/export"): lambda asker: _of_kept(asker, "/kept/{kept_id}/export", *_exports(asker)),
    ("POST", "/kept/{kept_id}/rename"): lambda asker: _of_kept(asker, "/kept/{kept_id}/rename", "name=Eva"),
    ("POST", "/kept/{kept_id}/delete"): lambda asker: _of_kept(asker, "/kept/{kept_id}/delete", ""),
    ("POST", "/export"): lambda asker: _tokens(asker, "/export"),
    ("GET", "/sign-in"): _once("/sign-in?lang=en"),
    ("POST", "/sign-in"): _once("/sign-in", data={"name": "ana", "password": "wrong-password"}),
    ("GET", "/sign-in/oidc"): _once("/sign-in/oidc"),
    ("GET", "/sign-in/oidc/callback"): _once("/sign-in/oidc/callback?code=1&state=2"),
    ("GET", "/account"): _once("/account?lang=en"),
    ("POST", "/sign-out"): _once("/sign-out"),
    ("POST", "/sign-out/everywhere"): _once("/sign-out/everywhere"),
    ("POST", "/purpose"): _once("/purpose", data={"purpose": "a case"}),
    ("GET", "/keys"): _once("/keys"),
    ("POST", "/keys"): _once("/keys", data={"name": "more", "role": "admin", "folders": "", "days": ""}),
    ("POST", "/keys/{key_id}/revoke"): _once(f"/keys/{'0' * 16}/revoke"),
    ("GET", "/audit"): _once("/audit"),
    ("GET", "/audit/export"): _once("/audit/export?format=csv", "/audit/export?format=json"),
}
LAST: Final = [
    ("POST", "/kept"), ("POST", "/kept/{kept_id}/rename"), ("POST", "/kept/{kept_id}/delete"),
    ("POST", "/naming"), ("PATCH", "/people/{person_id}"),
    ("POST", "/people/{person_id}/faces"), ("POST", "/people/{person_id}/reject"),
    ("POST", "/people/{person_id}/split"), ("POST", "/people/{person_id}/merge"), ("POST", "/people"),
    ("POST", "/person/{person_id}/faces"), ("POST", "/person/{person_id}/suggestions"),
    ("POST", "/faces/dismiss"), ("POST", "/dismiss"), ("POST", "/person/{person_id}/merge"),
    ("POST", "/person/{person_id}/edit"), ("POST", "/person/{person_id}/hide"),
    ("POST", "/person/{person_id}/delete"), ("DELETE", "/people/{person_id}"),
]  # fmt: skip
OF_ALL_FOLDERS: Final = {
    ("GET", "/metrics"), ("GET", "/keys"), ("POST", "/keys"), ("POST", "/keys/{key_id}/revoke"), ("GET", "/audit"),
    ("GET", "/audit/export"), ("GET", "/changes"), ("POST", "/changes/{number}/undo"), ("POST", "/undo"),
}  # fmt: skip


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, World]:
    """A service with all folders, and one with the folder of the scope only."""
    base = tmp_path_factory.mktemp("scopes")
    archive = make_files(base)
    found = []
    for place, names in enumerate(((HIDDEN, BESIDE, SEEN), (SEEN,))):
        index = MemoryIndex()
        found.append(ingested(base / f"data{place}", archive, names, index))
        at_one_time(index)
    whole, alone = found
    return whole, alone


@pytest.fixture(scope="module")
def clients(worlds: tuple[World, World]) -> Iterator[tuple[TestClient, TestClient]]:
    with worlds[0].client() as whole, worlds[1].client() as alone:
        yield whole, alone


@pytest.fixture(scope="module")
def askers(worlds: tuple[World, World], clients: tuple[TestClient, TestClient]) -> tuple[Asker, Asker]:
    """The one with the scope at both services; each has kept a search. They know cursors of somebody who sees all."""
    ids, whole = Ids(worlds[0].archive), clients[0]
    form = {"threshold": "-1", "limit": "3"}
    page = whole.get(f"/face/{face_of(ids.zoe)}", headers=WHOLE).text
    search = whole.post("/search", data=form, files={"image": encoded(RED)}, headers=WHOLE).json()
    keep = {**dict(fields_of(page, "keep")), "name": f"{HIDDEN} kept", "days": "1"}
    foreign = {
        "api": search["faces"][0]["next"],
        "page": re.findall(r"[?&;]after=([A-Za-z0-9_-]+)", page)[0],
        "people": whole.get("/people?limit=1", headers=WHOLE).json()["next"],
        "kept": whole.post("/kept", data=keep, headers=WHOLE).headers["location"].rpartition("/")[2],
    }
    found = []
    for client in clients:
        asker = Asker(client, ids, foreign)
        kept = client.post("/kept", data={**_form_of(asker), "name": "mine"}, headers=SCOPED)
        asker.kept.append(kept.headers["location"].rpartition("/")[2])
        found.append(asker)
    return found[0], found[1]


def _routes(client: TestClient) -> list[tuple[str, str]]:
    app: Any = client.app
    return [
        (method, str(route.path))
        for route in iter_route_contexts(app.routes)
        for method in sorted((route.methods or {"GET"}) - {"HEAD", "OPTIONS"})
    ]


def test_the_test_knows_how_to_ask_every_route(clients: tuple[TestClient, TestClient]) -> None:
    routes = _routes(clients[0])
    assert len(routes) > 30
    assert [one for one in routes if one not in ROUTES] == [("GET", "/static")]  # files of the program


def _known(clients: tuple[TestClient, TestClient]) -> list[tuple[str, str]]:
    routes = [one for one in _routes(clients[0]) if one in ROUTES]
    return [*(one for one in routes if one not in LAST), *(one for one in LAST if one in routes)]


def test_every_answer_is_as_if_there_were_nothing_else(
    clients: tuple[TestClient, TestClient], askers: tuple[Asker, Asker], worlds: tuple[World, World]
) -> None:
    secrets = _secrets(worlds[0])
    wrong: list[str] = []
    statuses: dict[tuple[str, str], set[int]] = {}
    for method, path in _known(clients):
        for call, twin in zip(ROUTES[method, path](askers[0]), ROUTES[method, path](askers[1]), strict=True):
            found, expected = call.ask(clients[0], method, SCOPED), twin.ask(clients[1], method, SCOPED)
            statuses.setdefault((method, path), set()).add(found.status_code)
            if (one := _plain(found)) != (other := _plain(expected)):
                wrong.append(f"{method} {call.path} {call.options}: {_first_difference(one, other)}")
            told = secrets.in_text(_all_text(found, call))
            wrong += [f"{method} {call.path}: {secret}" for secret in told if not call.mentions(secret)]
    assert wrong == []
    refused = {route for route, seen in statuses.items() if seen == {403}}
    assert refused == OF_ALL_FOLDERS & set(statuses)
    quiet = {"/sign-out", "/account", "/sign-in", "/health"}
    for (method, path), seen in statuses.items():  # a request that is wrong in itself would prove nothing
        fine = any(status < 400 for status in seen)
        assert fine or (method, path) in refused or path.startswith(tuple(quiet)), (method, path, seen)


@dataclass(frozen=True)
class Secrets:
    """Names and ids of what is not in the scope."""

    names: tuple[str, ...]
    ids: frozenset[str]

    def in_text(self, text: str) -> list[str]:
        return [*(name for name in self.names if name in text), *self.ids.intersection(_ID.findall(text))]


def _secrets(world: World) -> Secrets:
    hidden = [path for name in (HIDDEN, BESIDE) for path in (world.archive / name).iterdir()]
    images = {image_of(path) for path in hidden} - {image_of(world.archive / HIDDEN / "benita-original.jpg")}
    index = world.index
    assert isinstance(index, MemoryIndex)
    faces = [one for one in index.points.values() if not any(f.endswith(f"/{SEEN}") for f in one.payload.folder)]
    ids = {*images, *(one.payload.image_id for one in faces), *(one.face_id for one in faces)}
    assert len(ids) > 4 * FURTHER
    ids.add(PEOPLE["Benita"])
    return Secrets((HIDDEN, BESIDE, "benita", "Benita", "further-1010", "warthog"), frozenset(ids))


def _plain(response: Response) -> Any:
    """What an answer says, without what differs between any two answers."""
    left_out = {"date", "x-request-id", "content-length", "server"}
    headers = {name: _fixed(value) for name, value in response.headers.items() if name not in left_out}
    return [response.status_code, headers, _body(response)]


def _body(response: Response) -> Any:
    kind = response.headers.get("content-type", "").partition(";")[0]
    if kind == "application/json" and response.content:
        return _without(json.loads(response.content))
    if kind == "application/zip":
        with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    if kind == "application/pdf":
        pages = PdfReader(io.BytesIO(response.content)).pages
        return [(page.extract_text(), [image.data for image in page.images]) for page in pages]
    if kind.startswith("text/"):
        return _fixed(response.text)
    return response.content


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without(one) for name, one in value.items() if name not in _DIFFERENT}
    return [_without(one) for one in value] if isinstance(value, list) else value


def _fixed(text: str) -> str:
    for pattern, word in _VOLATILE:
        text = pattern.sub(word, text)
    return text


def _first_difference(one: Any, other: Any) -> str:
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return next(_first_difference(a, b) for a, b in zip(one, other, strict=True) if a != b)
    if isinstance(one, dict) and isinstance(other, dict):
        return next(
            f"{name}: {_first_difference(one.get(name), other.get(name))}"
            for name in {**one, **other}
            if one.get(name) != other.get(name)
        )
    a, b = str(one), str(other)
    at = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return f"{a[max(0, at - 60) : at + 60]!r} != {b[max(0, at - 60) : at + 60]!r}"


def _all_text(response: Response, call: Call) -> str:
    """All that can be read in an answer: its headers, its text in any form, the members of archives, cursors."""
    raw = response.content
    body = _body(response)
    text = raw.decode("utf-8", "replace")
    parts = [repr(dict(response.headers)), text, html.unescape(text), unquote(html.unescape(text)), repr(body)]
    for token in {*re.findall(r"[A-Za-z0-9_-]{60,}", text)}:
        if call.mentions(token):  # the page has links to itself
            continue
        try:
            held = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (ValueError, binascii.Error):
            continue
        parts.append(held.decode("latin-1"))
        ends = range(len(held) % 16, len(held), 16)  # ids of the matches of a page are at the end of a cursor
        parts += [str(uuid.UUID(bytes=held[at : at + 16])) for at in ends if len(held) - at <= 16 * 200]
    return "\n".join(parts)
