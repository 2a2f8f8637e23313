"""Verification: reads an audit chain from its beginning and says where it was touched."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec

from parkway.core.errors import InvalidRequest
from parkway.policy.chain import Entry, Link, Seal, decode_entry, hash_before_genesis, link_hash, sealed_by

MAX_FAULTS = 20
"""Faults told one by one; a chain that was renumbered has one at every entry."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong at one entry."""

    sequence: int
    what: str


@dataclass(frozen=True, slots=True)
class Head:
    """An entry that is known from elsewhere: a later verification must find it."""

    sequence: int
    hash: str

    @classmethod
    def parse(cls, text: str) -> Head:
        """`SEQUENCE:HASH`. Raises InvalidRequest."""
        number, _, digest = text.partition(":")
        if not number.isdigit() or len(digest) != 64 or not all(char in "0123456789abcdef" for char in digest):
            raise InvalidRequest(f"{text!r} is no head; one is SEQUENCE:HASH as `parkway audit verify` prints it")
        return cls(int(number), digest)


@dataclass(slots=True)
class Report:
    """What a verification found. The chain is whole if there are no faults.

    Attributes:
        entries: Entries that were read.
        first: The first whose hash was checked, but for entry 0: what is before it was removed as its retention says.
        head: The newest entry.
        sealed_to: Up to which entry a seal of the key proves the chain; None without a key, or without such a seal.
        sealed: Seals that were checked.
        lost: Decisions of which the chain itself says that they were lost.
    """

    entries: int = 0
    first: int = 1
    head: Head | None = None
    sealed_to: int | None = None
    sealed: int = 0
    lost: int = 0
    more_faults: int = 0
    faults: list[Fault] = field(default_factory=list)

    def fault(self, sequence: int, what: str) -> None:
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(Fault(sequence, what))
        else:
            self.more_faults += 1


def verify(links: Callable[[], Iterable[Link]], key: bytes | None = None, heads: Iterable[Head] = ()) -> Report:
    """Reads the chain and checks every hash, every number, and every seal where the key is known.

    Args:
        links: Gives the chain in order; called a second time where its beginning was removed.
        heads: What the chain is known to have held. An end that was cut off shows only by them.
    """
    return _Verifier(links, key, {head.sequence: head.hash for head in heads}).run()


class _Verifier:
    def __init__(self, links: Callable[[], Iterable[Link]], key: bytes | None, heads: dict[int, str]) -> None:
        self._links = links
        self._key = key
        self._heads = heads
        self._report = Report()
        self._installation: str | None = None
        self._before: bytes | None = None  # None: not known, so that the next hash is taken as it is
        self._at = -1

    def run(self) -> Report:
        report = self._report
        checkpoint: Seal | None = None
        for link in self._links():
            report.entries += 1
            if self._at == 0 and link.sequence > 1:
                checkpoint = self._newest_checkpoint()
                if checkpoint is not None:
                    self._at, self._before = checkpoint.sequence, bytes.fromhex(checkpoint.hash)
                    report.first = checkpoint.sequence + 1
            if checkpoint is not None and link.sequence <= checkpoint.sequence:
                continue  # waits to be removed
            self._check(link)
        self._finish()
        return report

    def _check(self, link: Link) -> None:
        report = self._report
        entry = self._entry_of(link)
        if self._at == -1:
            self._begin(link, entry)
        elif link.sequence <= self._at:
            report.fault(link.sequence, f"entry {link.sequence} stands behind entry {self._at}: it was put in or moved")
            return
        elif link.sequence != self._at + 1:
            report.fault(self._at + 1, f"entries {self._at + 1} to {link.sequence - 1} are missing")
            self._before = None
        if self._before is not None and link_hash(self._before, link.entry) != link.hash:
            report.fault(
                link.sequence,
                f"entry {link.sequence} does not fit its hash and the hash before: it was changed or put in, or the "
                "one before it was",
            )
        if entry is not None:
            self._check_entry(link, entry)
        expected = self._heads.pop(link.sequence, None)
        if expected is not None and expected != link.hash.hex():
            report.fault(link.sequence, f"entry {link.sequence} is another one than when its hash was noted elsewhere")
        self._at, self._before = link.sequence, link.hash

    def _entry_of(self, link: Link) -> Entry | None:
        try:
            return decode_entry(link.entry)
        except msgspec.DecodeError:
            self._report.fault(link.sequence, f"entry {link.sequence} cannot be read: it was changed")
            return None

    def _begin(self, link: Link, entry: Entry | None) -> None:
        if link.sequence != 0:
            self._report.fault(0, f"the beginning is missing: the first entry is {link.sequence}")
        elif entry is not None:
            self._installation = entry.detail
            self._before = hash_before_genesis(entry.detail)

    def _check_entry(self, link: Link, entry: Entry) -> None:
        report = self._report
        if (entry.sequence, entry.at_ms) != (link.sequence, link.at_ms):
            report.fault(link.sequence, f"entry {link.sequence} says that it is entry {entry.sequence}")
        if entry.kind == "lost":
            report.lost += entry.count
        if entry.seal is None:
            return
        if entry.seal.installation != self._installation:
            report.fault(link.sequence, f"the seal in entry {link.sequence} is of another installation")
        if entry.kind == "anchor" and self._before is not None:
            before = (self._at, self._before.hex())
            if (entry.seal.sequence, entry.seal.hash) != before:
                report.fault(link.sequence, f"the seal in entry {link.sequence} is not of the entry before it")
        if self._key is None:
            return
        report.sealed += 1
        if sealed_by(self._key, entry.seal):
            report.sealed_to = entry.seal.sequence
        else:
            report.fault(link.sequence, f"the seal in entry {link.sequence} was not made with this key")

    def _newest_checkpoint(self) -> Seal | None:
        """By which the chain may begin later than at entry 1; one that the key did not seal is told when it is read."""
        newest = None
        for link in self._links():
            if b'"kind":"checkpoint"' in link.entry and (entry := self._quietly(link)) is not None:
                newest = entry.seal or newest
        if newest is None or len(newest.hash) != 64:
            return None
        return newest

    def _quietly(self, link: Link) -> Entry | None:
        try:
            entry = decode_entry(link.entry)
        except msgspec.DecodeError:
            return None
        return entry if entry.kind == "checkpoint" else None

    def _finish(self) -> None:
        report = self._report
        if self._before is not None:
            report.head = Head(self._at, self._before.hex())
        for sequence in sorted(self._heads):
            if sequence > self._at:
                report.fault(
                    self._at + 1,
                    f"the end is missing: the chain ends at entry {self._at}, and had an entry {sequence}",
                )
            elif sequence >= report.first:
                report.fault(sequence, f"entry {sequence}, whose hash was noted elsewhere, is missing")
