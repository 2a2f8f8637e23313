"""A ring reads only what has changed, and misses nothing: not what came late, not what was deleted by hand."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, update

from parkway.core.errors import InvalidKey
from parkway.policy import key_ring
from parkway.policy.key_ring import KeyRing
from parkway.policy.keys import KeyStore
from parkway.store.schema import keys
from parkway.store.sql import Database

LONG_AGO_MS = 1_000_000


@pytest.fixture
def store(database: Database) -> KeyStore:
    return KeyStore(database)


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An entry for each time that everything was read: how many keys there were."""
    counts: list[int] = []
    read = key_ring._everything

    def counted(*arguments: object) -> object:
        news = read(*arguments)  # pyright: ignore[reportArgumentType]
        counts.append(len(news.entries))
        return news

    monkeypatch.setattr(key_ring, "_everything", counted)
    return counts


def knows(ring: KeyRing, plain: str) -> bool:
    try:
        ring.identify(f"Bearer {plain}")
    except InvalidKey:
        return False
    return True


async def test_what_comes_and_goes_is_read_alone(store: KeyStore, database: Database, whole: list[int]) -> None:
    ring = KeyRing()
    made = [store.create(f"key {number}") for number in range(5)]
    await ring.load(database)
    assert whole == [5]
    (gone, its_text), *others = made
    before = {plain: ring.identify(f"Bearer {plain}") for _, plain in others}
    store.revoke(gone.key_id)
    _, fresh = store.create("fresh", owner="ada", scopes=["model:m"])
    at_once, both = store.create("at once")
    store.revoke(at_once.key_id)
    await ring.load(database)
    await ring.load(database)
    assert whole == [5], "once is enough"
    assert not knows(ring, its_text)
    assert not knows(ring, both)
    assert ring.identify(f"Bearer {fresh}").scopes == frozenset({"model:m"})
    assert all(ring.identify(f"Bearer {plain}") is caller for plain, caller in before.items())


async def test_a_clock_that_is_behind_hides_nothing(store: KeyStore, database: Database, whole: list[int]) -> None:
    ring = KeyRing()
    key, plain = store.create("revoked by another clock")
    store.create("newest")
    await ring.load(database)
    late, late_text = store.create("created by another clock")
    with database.begin() as connection:
        connection.execute(update(keys).where(keys.c.key_id == late.key_id).values(created_ms=LONG_AGO_MS))
    await ring.load(database)
    assert knows(ring, late_text)
    assert whole == [2, 3]
    with database.begin() as connection:
        connection.execute(update(keys).where(keys.c.key_id == key.key_id).values(revoked_ms=LONG_AGO_MS))
    await ring.load(database)
    assert not knows(ring, plain)


async def test_what_is_deleted_by_hand_is_gone(store: KeyStore, database: Database, whole: list[int]) -> None:
    ring = KeyRing()
    key, plain = store.create("deleted")
    other, other_text = store.create("other")
    await ring.load(database)
    kept = ring.identify(f"Bearer {other_text}")
    with database.begin() as connection:
        connection.execute(delete(keys).where(keys.c.key_id == key.key_id))
    await ring.load(database)
    assert not knows(ring, plain)
    assert ring.identify(f"Bearer {other_text}") is kept, "what is as it was stays the same object"
    assert whole == [2, 1]
    with database.begin() as connection:
        connection.execute(update(keys).where(keys.c.key_id == other.key_id).values(owner="ada"))
    ring.forget()
    await ring.load(database)
    assert ring.identify(f"Bearer {other_text}").user == "ada"
