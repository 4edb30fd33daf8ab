"""Checks the audit log: every number, every digest, and what the anchor file says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final, Literal

from app.catalog import NO_DIGEST, AuditLog, Pruned, RawEntry, chained
from app.security.anchors import Anchor, AnchorFile

FindingKind = Literal["changed", "missing", "cut_off", "recomputed", "pruned_early", "anchor_damaged"]

_SLACK: Final = timedelta(days=1)
_MOST: Final = 20  # findings of one kind of check
_AT_ONCE: Final = 500  # anchors


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """Something that is wrong.

    Attributes:
        kind: `changed` (an entry has not the content of its digest, or does not follow the one before), `missing`
            (entries were removed), `cut_off` (an anchor names a later entry than there is), `recomputed` (an anchor
            names another digest), `pruned_early` (an anchor names an entry that was not old enough to be pruned: one of
            `audit.pruned` was forged, or AUDIT_DAYS was less then), `anchor_damaged` (a line of the anchor file cannot
            be read).
        number: of the first entry that it concerns; of the line for `anchor_damaged`.
        message: one English sentence.
    """

    kind: FindingKind
    number: int
    message: str


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What a check found.

    Attributes:
        entries: number of entries that were checked.
        first: number of the first one; 0 if there is none.
        last: number of the last one; 0 if there is none.
        anchors: number of anchors that were compared.
        findings: by number; at most some of each kind.
    """

    entries: int
    first: int
    last: int
    anchors: int
    findings: tuple[AuditFinding, ...]

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    @property
    def first_wrong(self) -> int | None:
        """Number of the first wrong entry; None if nothing is wrong, or only the anchor file."""
        return min((one.number for one in self.findings if one.kind != "anchor_damaged"), default=None)


def check_audit(log: AuditLog, anchors: AnchorFile, days: int) -> AuditReport:
    """Check all entries in pages, then the anchors; entries may be appended and pruned meanwhile.

    Args:
        log: the entries.
        anchors: what they are compared with.
        days: `AUDIT_DAYS`.

    Raises:
        OceanoError: `ledger_unavailable`.
        OSError: the anchor file cannot be read.
    """
    chain = _Chain(log)
    chain.check()
    compared = _Compared(log, days)
    compared.check(anchors)
    findings = sorted([*chain.findings, *compared.findings], key=lambda one: one.number)
    return AuditReport(chain.entries, chain.first, chain.last, compared.anchors, tuple(findings))


class _Chain:
    """Checks the entries."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log
        self.entries = self.first = self.last = 0
        self.findings: list[AuditFinding] = []
        self._digest: str | None = NO_DIGEST  # of the entry before; None: it is not known

    def check(self) -> None:
        newest = self._log.newest_number()
        for entry in self._entries(newest or 0):
            if entry.number != self.last + 1 or not self.first:
                self._begin(entry.number)
            self._digest = self._checked(entry)
            self.last = entry.number
            self.entries += 1

    def _entries(self, through: int) -> Iterator[RawEntry]:
        after = 0
        while page := self._log.raw_page(after, through):
            yield from page
            after = page[-1].number

    def _begin(self, number: int) -> None:
        """Find the digest before an entry that is not the next one: the first one, or the next one after others."""
        expected = self.last + 1
        is_first = not self.first or (self._log.oldest() or 0) >= number  # else the others were pruned meanwhile
        if is_first:
            self.first, self.entries = number, 0
        if number == expected:
            return
        pruned = self._log.pruned(number - 1) if is_first else None
        self._digest = None if pruned is None else pruned.digest
        if pruned is None:
            known = self._log.pruned()
            start = known.through + 1 if is_first and known and expected <= known.through < number else expected
            self._add("missing", start, f"entries {start} to {number - 1} are missing")

    def _checked(self, entry: RawEntry) -> str | None:
        """Check an entry; return the digest that it has."""
        try:
            texts = [None if text is None else text.decode("utf-8") for text in entry.texts]
        except UnicodeDecodeError:
            self._add("changed", entry.number, f"entry {entry.number} is not text any more")
            return None
        *content, digest = texts
        if not entry.is_text or digest is None:
            self._add("changed", entry.number, f"entry {entry.number} has values of another kind")
        elif self._digest is not None and digest != chained(entry.number, content, self._digest):
            self._add("changed", entry.number, f"entry {entry.number} was changed, or does not follow the one before")
        return digest

    def _add(self, kind: FindingKind, number: int, message: str) -> None:
        if len(self.findings) < _MOST:
            self.findings.append(AuditFinding(kind, number, message))


class _Compared:
    """Compares the anchors with the entries."""

    def __init__(self, log: AuditLog, days: int) -> None:
        self._log = log
        self._days = days
        self._newest = 0  # of the anchors so far
        self.anchors = 0
        self.findings: list[AuditFinding] = []

    def check(self, file: AnchorFile) -> None:
        lines = file.read()
        while some := list(islice(lines, _AT_ONCE)):
            anchors = [one for one in some if isinstance(one, Anchor)]
            for line in some:
                if isinstance(line, int):
                    self._add("anchor_damaged", line, f"line {line} of {file.path} cannot be read")
            self._compare(anchors)

    def _compare(self, anchors: list[Anchor]) -> None:
        found = self._log.digests([one.number for one in anchors])
        newest = self._log.newest_number() or 0
        pruned = self._log.pruned()
        for one in anchors:
            self.anchors += 1
            is_first, self._newest = one.number > self._newest, max(one.number, self._newest)
            if is_first and pruned is not None and one.number <= pruned.through and self._is_too_new(one, pruned):
                text = f"entry {one.number} was pruned before it was {self._days} days old (AUDIT_DAYS)"
                self._add("pruned_early", one.number, text)
            digest = found.get(one.number)
            if digest is None and pruned is not None and one.number == pruned.through:
                digest = pruned.digest
            if digest is not None and digest != one.digest:
                text = f"entry {one.number} is another one than the anchor file has: the log was computed anew"
                self._add("recomputed", one.number, text)
            elif digest is None and one.number > newest:
                text = f"the log ends at entry {newest}, but the anchor file has entry {one.number}"
                self._add("cut_off", newest + 1, text)

    def _is_too_new(self, anchor: Anchor, pruned: Pruned) -> bool:
        """Return whether the entry of an anchor, which was written soon after it, was too new to be pruned."""
        if not self._days:
            return False
        try:
            at = min(datetime.fromisoformat(pruned.at), datetime.now(UTC))
            return datetime.fromisoformat(anchor.at) > at - timedelta(days=self._days) + _SLACK
        except (ValueError, TypeError):  # not a time, which is a finding of the chain
            return False

    def _add(self, kind: FindingKind, number: int, message: str) -> None:
        if len(self.findings) < _MOST:
            self.findings.append(AuditFinding(kind, number, message))
