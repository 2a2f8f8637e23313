"""What every store keeps of a passage beside its vectors, and how a filter is asked of it.

Stores differ in what they can compare: some take `true` for 1, some know no fractions, some stumble over quotes in
names. So a passage is kept as what it is found by: keys, which are hashes of fixed length, and numbers.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np

from parkway.core.errors import InvalidRequest
from parkway.retrieval.document import EVERYONE, Passage, Value
from parkway.retrieval.index.index import Between, Filter, Vectors

MAX_DOCUMENT_ID_BYTES = 4096
MAX_PASSAGE_BYTES = 1 << 20
"""With everything that a passage carries."""

_decode = msgspec.json.Decoder(Passage).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Entry:
    """A passage as a store keeps it.

    Attributes:
        text: The passage, whole, as JSON.
        document, content: Keys of its document and of what is embedded of it; `content` is None where that is unknown.
        edition: Its document and version; `edition_of` and `read_edition` are inverse.
        access: Keys of those who may see it.
        facts: Keys of what its metadata says: one for each value.
        numbers: What ranges are asked of: for each field's key its numbers; dates are seconds since 1970.
    """

    passage_id: str
    text: str
    document: str
    edition: str
    content: str | None
    access: list[str]
    facts: list[str]
    numbers: dict[str, list[float]]

    def payload(self) -> dict[str, Any]:
        """As Qdrant keeps it."""
        payload: dict[str, Any] = {
            "passage": self.text,
            "document": self.document,
            "edition": self.edition,
            "access": self.access,
            "facts": self.facts,
        }
        if self.content is not None:
            payload["content"] = self.content
        if self.numbers:
            payload["numbers"] = self.numbers
        return payload


@dataclass(frozen=True, slots=True)
class Range:
    """One of a passage's numbers under the key `field` lies between both; None is open."""

    field: str
    at_least: float | None
    at_most: float | None


@dataclass(frozen=True, slots=True)
class Conditions:
    """A filter, in the words of entries; all must hold.

    Attributes:
        access: One of these keys; empty: nobody may see anything.
        documents, passages: One of these; None: any.
        facts: Of each group one; a group that is empty can never hold.
        ranges: Each.
    """

    access: list[str]
    documents: list[str] | None
    facts: list[list[str]]
    ranges: list[Range]
    passages: list[str] | None = None

    @property
    def impossible(self) -> bool:
        """Nothing can be found: the store need not be asked."""
        nothing = self.documents == [] or self.passages == []
        return nothing or not self.access or any(not group for group in self.facts)

    @property
    def only_access(self) -> bool:
        """Nothing but who asks is a condition."""
        return self.documents is None and self.passages is None and not self.facts and not self.ranges


def entries(passages: Sequence[Passage], vectors: Vectors, dimensions: int) -> list[Entry]:
    """What is to be kept of `passages`, once it is clear that they and their vectors can be.

    Raises:
        ValueError: A shape is wrong, a vector is not of length 1, a passage is too large or not text; nothing is kept.
    """
    shape = np.shape(vectors)
    if shape != (len(passages), dimensions) and (len(passages) or len(shape) != 2):
        raise ValueError(
            f"{len(passages)} passages need vectors of the shape ({len(passages)}, {dimensions}), got {shape}: "
            f"this index was made for an encoder of {dimensions} dimensions"
        )
    lengths = np.linalg.norm(np.asarray(vectors, np.float32), axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) < 1e-2))  # negated: NaN is wrong, too
    if wrong.size:
        first = int(wrong[0])
        raise ValueError(f"vectors must have length 1; that of passage {first} has {lengths[first]:g}")
    return [_entry(passage) for passage in passages]


def for_everyone(passages: Iterable[Passage]) -> bool:
    """Whether whoever asks may see all of these."""
    return all(EVERYONE in passage.access for passage in passages)


def query_vector(vector: Vectors, dimensions: int) -> list[float]:
    """A query's vector as stores take it.

    Raises:
        InvalidRequest: It is of another encoder, or not of numbers.
    """
    found = np.asarray(vector, np.float32)
    if found.shape != (dimensions,):
        raise InvalidRequest(f"the query's vector has the shape {found.shape}; this index has ({dimensions},)")
    if not np.isfinite(found).all():
        raise InvalidRequest("the query's vector has values that are not finite")
    return found.tolist()


def _entry(passage: Passage) -> Entry:
    if len(passage.document_id.encode("utf-8", "replace")) > MAX_DOCUMENT_ID_BYTES:
        raise ValueError(
            f"the id of a document has more than {MAX_DOCUMENT_ID_BYTES} bytes: {passage.document_id[:80]!r}"
        )
    try:
        _check_numbers(passage.metadata.values())
        text = _encode(passage).decode()
        _decode(text)
    except (ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise ValueError(f"passage {passage.passage_id} of {passage.document_id!r} cannot be kept: {error}") from error
    if len(text) > MAX_PASSAGE_BYTES:
        raise ValueError(
            f"passage {passage.passage_id} of {passage.document_id!r} is larger than {MAX_PASSAGE_BYTES} bytes"
        )
    facts: dict[str, None] = {}
    numbers: dict[str, list[float]] = {}
    for name, value in passage.metadata.items():
        for single in _singles(value):
            facts[_fact(name, single)] = None
            if (number := _number(single)) is not None:
                numbers.setdefault(_field(name, single), []).append(number)
    return Entry(
        passage_id=str(uuid.UUID(passage.passage_id)),
        text=text,
        document=document_key(passage.document_id),
        edition=edition_of(passage.document_id, passage.version),
        content=content_key(passage.content) if passage.content else None,
        access=[access_key(name) for name in dict.fromkeys(passage.access)],
        facts=list(facts),
        numbers=numbers,
    )


def _check_numbers(values: Iterable[Value]) -> None:
    for value in values:
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError(f"{value} has more than 64 bits")


def passage_of(text: str | bytes) -> Passage:
    """The passage of `Entry.text`."""
    return _decode(text)


def conditions(wanted: Filter) -> Conditions:
    """A filter as it is asked of entries. Who is nobody sees nothing, not even what is for everyone.

    Raises:
        InvalidRequest: A range is neither of numbers nor of dates, or the id of a passage is no UUID.
    """
    facts: list[list[str]] = []
    ranges: list[Range] = []
    for name, value in wanted.metadata.items():
        if isinstance(value, Between):
            ranges.append(_range(name, value))
        else:
            singles = [
                single for each in (value if isinstance(value, tuple) else (value,)) for single in _singles(each)
            ]
            facts.append(sorted({_fact(name, single) for single in singles}))
    return Conditions(
        access=sorted(access_key(name) for name in wanted.seen_by) if wanted.principals else [],
        documents=None if wanted.documents is None else sorted(document_key(name) for name in wanted.documents),
        facts=facts,
        ranges=ranges,
        passages=None if wanted.passages is None else _passage_ids(wanted.passages),
    )


def _passage_ids(ids: Iterable[str]) -> list[str]:
    try:
        return sorted({str(uuid.UUID(each)) for each in ids})
    except ValueError as error:
        raise InvalidRequest(f"ids of passages are UUIDs: {error}") from error


def edition_of(document_id: str, version: str) -> str:
    return json.dumps([document_id, version])


def read_edition(edition: str) -> tuple[str, str]:
    """Document and version."""
    document_id, version = json.loads(edition)
    return document_id, version


def document_key(document_id: str) -> str:
    return _key("document", document_id)


def content_key(content: str) -> str:
    return _key("content", content)


def access_key(principal: str) -> str:
    return _key("access", principal)


@functools.lru_cache(4096)
def _key(kind: str, *parts: str) -> str:
    """A UUID: stores keep those in 16 bytes and compare them at once, whatever somebody called his things."""
    joined = json.dumps([kind, *parts]).encode()
    return str(uuid.UUID(bytes=hashlib.blake2b(joined, digest_size=16).digest()))


def _singles(value: Value) -> Iterable[str | int | float | bool]:
    """A list says several things at once."""
    return value if isinstance(value, list) else (value,)


def _fact(name: str, value: str | int | float | bool) -> str:
    """Equal for equal values: 1 is 1.0, and neither is true or "1"."""
    if isinstance(value, bool):
        return _key("fact", name, "bool", str(value))
    if isinstance(value, str):
        return _key("fact", name, "text", value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return _key("fact", name, "number", repr(value))


def _number(value: str | float | bool) -> float | None:
    """What a range compares; None of what is neither a number nor a date."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return _seconds(value)
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _seconds(text: str) -> float | None:
    """Seconds since 1970 of a date or time in ISO 8601; without a time zone it is UTC. None of other texts."""
    if not (10 <= len(text) <= 40 and text[4] == "-" and text[7] == "-"):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (OverflowError, ValueError):
        return None


def _field(name: str, value: str | float) -> str:
    """The key of a field's numbers; its dates are another."""
    return _key("field", name, "date" if isinstance(value, str) else "number").replace("-", "")


def _range(name: str, between: Between) -> Range:
    ends = [end for end in (between.at_least, between.at_most) if end is not None]
    if not ends or len({isinstance(end, str) for end in ends}) > 1:
        raise InvalidRequest(f"a range of `{name}` needs one end or two, both numbers or both dates")
    numbers = [_number(end) for end in (between.at_least, between.at_most) if end is not None]
    if None in numbers:
        raise InvalidRequest(f"a range of `{name}` is between numbers, or dates such as 2026-01-31, not {ends!r}")
    at_least = None if between.at_least is None else _number(between.at_least)
    at_most = None if between.at_most is None else _number(between.at_most)
    return Range(_field(name, ends[0]), at_least, at_most)
