"""Keys: shown once, kept as hashes, compared in constant time, refused when revoked."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from parkway.core.errors import ExpiredKey, InvalidKey, InvalidRequest, MissingKey, NotFound, StartupError
from parkway.core.tasks import Tasks
from parkway.policy.caller import Caller
from parkway.policy.key_ring import KeyRing
from parkway.policy.keys import TOPIC, KeyStore, ensure_first_key, first_key
from parkway.store.home import Home
from parkway.store.revisions import Watch
from parkway.store.sql import Database

UNKNOWN = "pk-aaaaaaaaaaaa-" + "A" * 43


@pytest.fixture
def store(database: Database) -> KeyStore:
    return KeyStore(database)


@pytest.fixture
def ring() -> KeyRing:
    return KeyRing()


class TestKeyStore:
    def test_a_key_has_the_form_that_it_is_documented_to_have(self, store: KeyStore) -> None:
        key, plain = store.create("laptop")
        assert re.fullmatch(r"pk-[a-z0-9]{12}-[A-Za-z0-9]{43}", plain)
        assert plain.split("-")[1] == key.key_id
        assert (key.name, key.revoked_ms) == ("laptop", None)

    def test_no_two_keys_are_alike(self, store: KeyStore) -> None:
        made = [store.create("same name") for _ in range(20)]
        assert len({plain for _, plain in made}) == len({key.key_id for key, _ in made}) == 20

    def test_the_secret_is_nowhere_in_the_database(self, store: KeyStore, database: Database) -> None:
        _, plain = store.create("laptop")
        with database.read() as connection:
            kept = repr(connection.execute(text("SELECT * FROM keys")).all())
        assert plain.split("-")[2] not in kept

    def test_lists_all_oldest_first_with_their_state(self, store: KeyStore) -> None:
        first, _ = store.create("a")
        second, _ = store.create("b")
        store.revoke(first.key_id)
        listed = {key.key_id: key for key in store.list()}
        assert set(listed) == {first.key_id, second.key_id}
        assert listed[first.key_id].revoked_ms is not None
        assert listed[second.key_id] == second

    def test_revoking_again_keeps_the_first_time(self, store: KeyStore) -> None:
        key, _ = store.create("a")
        assert store.revoke(key.key_id) == store.revoke(key.key_id)

    @pytest.mark.parametrize("key_id", ["nobody", "", "' OR 1=1 --", "'; DROP TABLE keys; --", "é" * 1000])
    def test_revoking_what_is_not_there_is_told_and_changes_nothing(self, store: KeyStore, key_id: str) -> None:
        key, _ = store.create("a")
        with pytest.raises(NotFound, match="There is no key"):
            store.revoke(key_id)
        assert store.list() == [key]

    def test_a_name_that_looks_like_sql_is_a_name(self, store: KeyStore) -> None:
        name = "Robert'); DROP TABLE keys;--"
        key, _ = store.create(name)
        assert store.list() == [key]
        assert key.name == name

    @pytest.mark.parametrize("name", ["", "   ", "x" * 101, "two\nlines", "nul\0", "\x1b[31mred"])
    def test_a_name_that_cannot_be_shown_is_refused(self, store: KeyStore, name: str) -> None:
        with pytest.raises(InvalidRequest, match="1 to 100 printable characters") as caught:
            store.create(name)
        assert caught.value.message.isprintable()
        assert store.list() == []


class TestKeyRing:
    async def test_knows_who_holds_a_key(self, store: KeyStore, database: Database, ring: KeyRing) -> None:
        key, plain = store.create("laptop")
        store.create("other")
        await ring.load(database)
        assert ring.identify(f"Bearer {plain}") == Caller(key.key_id, "laptop")
        assert ring.identify(f"bearer  {plain} ") == Caller(key.key_id, "laptop")

    @pytest.mark.parametrize("header", [None, ""])
    def test_nothing_sent_is_told_with_what_to_send(self, ring: KeyRing, header: str | None) -> None:
        with pytest.raises(MissingKey, match=r"Authorization: Bearer pk-.*parkway key show"):
            ring.identify(header)

    @pytest.mark.parametrize(
        "header",
        [
            "Basic dXNlcjpwYXNz",
            "Bearer",
            "Bearer ",
            "Bearer sk-openai-0123456789",
            "Bearer pk-short-short",
            f"Bearer {UNKNOWN}x",
            f"Bearer {UNKNOWN[:-1]}",
            f"Bearer {UNKNOWN} {UNKNOWN}",
            f"Bearer {UNKNOWN[:-1]}\n",
            "Bearer pk-aaaaaaaaaaaa-" + "é" * 43,
            "Bearer pk-aaaaaaaaaaaa-" + "\u0664" * 43,
            "Bearer pk-' OR '1'='1-" + "A" * 43,
            f"Bearer {UNKNOWN}",
            UNKNOWN,
        ],
    )
    async def test_anything_else_is_refused_without_repeating_it(
        self, store: KeyStore, database: Database, ring: KeyRing, header: str
    ) -> None:
        store.create("laptop")
        await ring.load(database)
        with pytest.raises(InvalidKey) as caught:
            ring.identify(header)
        assert header.split(" ", 1)[-1].strip() not in caught.value.message or header in ("Bearer", "Bearer ")
        assert "A" * 43 not in caught.value.message

    @given(header=st.text(max_size=100))
    def test_no_header_whatever_breaks_it(self, header: str) -> None:
        with pytest.raises((MissingKey, InvalidKey)):
            KeyRing().identify(header)

    async def test_a_wrong_secret_of_a_known_key_is_refused(
        self, store: KeyStore, database: Database, ring: KeyRing
    ) -> None:
        _, plain = store.create("laptop")
        await ring.load(database)
        wrong = plain[:-1] + ("a" if plain[-1] != "a" else "b")
        with pytest.raises(InvalidKey, match="unknown, wrong or revoked"):
            ring.identify(f"Bearer {wrong}")

    async def test_unknown_and_known_ids_are_compared_alike_and_in_constant_time(
        self, store: KeyStore, database: Database, ring: KeyRing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, plain = store.create("laptop")
        await ring.load(database)
        compared: list[tuple[int, int]] = []
        compare = hmac.compare_digest

        def counted(one: bytes, other: bytes) -> bool:
            compared.append((len(one), len(other)))
            return compare(one, other)

        monkeypatch.setattr(hmac, "compare_digest", counted)
        ring.identify(f"Bearer {plain}")
        wrong = plain[:-1] + ("a" if plain[-1] != "a" else "b")
        for header in (f"Bearer {wrong}", f"Bearer {UNKNOWN}"):
            with pytest.raises(InvalidKey):
                ring.identify(header)
        assert compared == [(32, 32)] * 3

    async def test_a_revoked_key_is_refused_after_a_round_of_the_watch(
        self, store: KeyStore, database: Database, ring: KeyRing
    ) -> None:
        key, plain = store.create("laptop")
        watch = Watch(database, [TOPIC], interval_s=0.01)
        loaded = asyncio.Event()

        async def follow() -> None:
            async for _ in watch:
                await ring.load(database)
                loaded.set()

        async with Tasks("test") as tasks, asyncio.timeout(20):
            tasks.start(follow(), name="keys")
            await loaded.wait()
            assert ring.identify(f"Bearer {plain}").key_id == key.key_id
            loaded.clear()
            store.revoke(key.key_id)
            await loaded.wait()
            with pytest.raises(InvalidKey, match="unknown, wrong or revoked"):
                ring.identify(f"Bearer {plain}")

    async def test_the_secret_is_in_no_repr_and_no_log(
        self, store: KeyStore, database: Database, ring: KeyRing, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.DEBUG):
            key, plain = store.create("laptop")
            await ring.load(database)
            caller = ring.identify(f"Bearer {plain}")
        secret = plain.split("-")[2]
        shown = " ".join([repr(key), repr(caller), repr(ring), repr(store), caplog.text])
        assert secret not in shown
        assert "secret_hash=" not in repr(key)


class TestRights:
    async def test_a_key_carries_whose_it_is_and_what_it_is_good_for(
        self, store: KeyStore, database: Database, ring: KeyRing
    ) -> None:
        key, plain = store.create("ci", owner="ada", team="ml", scopes=["model:a", "admin"], tier="gold", expires_s=60)
        await ring.load(database)
        caller = ring.identify(f"Bearer {plain}")
        assert caller == Caller(key.key_id, "ci", "key", "ada", "ml", frozenset({"model:a", "admin"}), "gold")
        assert store.list() == [key]
        assert store.find(key.key_id) == key
        assert key.expires_ms == key.created_ms + 60_000

    async def test_it_expires_at_its_moment_without_being_read_again(self, store: KeyStore, database: Database) -> None:
        key, plain = store.create("ci", expires_s=60)
        now = key.created_ms / 1000
        ring = KeyRing(clock=lambda: now)
        await ring.load(database)
        now += 59.999
        assert ring.identify(f"Bearer {plain}").name == "ci"
        now += 0.001
        with pytest.raises(ExpiredKey, match=r"pk-.{12}-\.\.\. expired on 20\d\d-.* UTC"):
            ring.identify(f"Bearer {plain}")
        wrong = plain[:-1] + ("a" if plain[-1] != "a" else "b")
        with pytest.raises(InvalidKey):  # only who holds it learns that it has expired
            ring.identify(f"Bearer {wrong}")

    @pytest.mark.parametrize(
        "scope", ["", "*", "model", "model:", "models:x", "model:a b", "ADMIN", "admin:*", "model:*\n", "model:'; DROP"]
    )
    def test_what_is_no_scope(self, store: KeyStore, scope: str) -> None:
        with pytest.raises(InvalidRequest, match="is not a scope"):
            store.create("ci", scopes=[scope])
        assert store.list() == []

    @pytest.mark.parametrize("field", ["owner", "team", "tier"])
    def test_names_that_cannot_be_shown(self, store: KeyStore, field: str) -> None:
        with pytest.raises(InvalidRequest, match=field):
            store.create("ci", **{field: "two\nlines"})  # pyright: ignore[reportArgumentType]

    def test_scopes_that_are_none_are_kept_apart_from_no_scopes(self, store: KeyStore) -> None:
        assert [store.create("a", scopes=[])[0].scopes, store.create("b")[0].scopes] == [(), None]
        assert {key.name: key.scopes for key in store.list()} == {"a": (), "b": None}


class TestFirstKey:
    async def test_the_first_start_makes_it_and_the_second_does_not(
        self, store: KeyStore, database: Database, ring: KeyRing, tmp_path: Path
    ) -> None:
        home = Home.open(tmp_path / "home")
        assert first_key(home) is None
        key = ensure_first_key(home, store)
        assert key is not None
        plain = first_key(home)
        assert ensure_first_key(home, store) is None
        assert first_key(home) == plain
        await ring.load(database)
        assert ring.identify(f"Bearer {plain}") == Caller(key.key_id, "first")
        assert stat.S_IMODE(home.first_key_file.stat().st_mode) == 0o600

    def test_a_revoked_first_key_stays_revoked(self, store: KeyStore, tmp_path: Path) -> None:
        home = Home.open(tmp_path / "home")
        key = ensure_first_key(home, store)
        assert key is not None
        store.revoke(key.key_id)
        assert ensure_first_key(home, store) is None
        assert [key.revoked_ms is None for key in store.list()] == [False]

    def test_no_key_without_its_file(self, store: KeyStore, tmp_path: Path) -> None:
        home = Home.open(tmp_path / "home")
        home.first_key_file.mkdir()
        (home.first_key_file / "in the way").touch()
        with pytest.raises(StartupError, match="first key cannot be written"):
            ensure_first_key(home, store)
        assert store.list() == []
