"""The audit chain: whatever is changed, removed or put in is found, and the entry is named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import delete, func, insert, select, update

from parkway.core.errors import InvalidRequest, StartupError
from parkway.policy import chain
from parkway.policy.chain import Entry, Link, append, decode_entry, link_hash, links
from parkway.policy.verification import MAX_FAULTS, Head, Report, verify
from parkway.store.schema import audit
from parkway.store.sql import Database

KEY = b"k" * 32


@pytest.fixture
def near(tmp_path: Path) -> Iterator[Database]:
    """A database of the quick kind, for what does not depend on it."""
    database = Database.open(f"sqlite:///{tmp_path}/near.db")
    database.migrate()
    yield database
    database.close()


def entry(number: int = 0, **values: object) -> Entry:
    return Entry(**{"kind": "allow", "action": "chat", "at_ms": 1_000 + number, "key_id": "alice", **values})


def write(database: Database, count: int, start: int = 0) -> Link:
    with database.begin() as connection:
        return append(connection, [entry(start + number) for number in range(count)])


def check(database: Database, key: bytes | None = None, *heads: Head) -> Report:
    with database.read() as connection:
        return verify(lambda: links(connection), key, heads)


def anchored(database: Database) -> Head:
    with database.begin() as connection:
        link = chain.anchor(connection, KEY)
    assert link is not None
    return Head(link.sequence, link.hash.hex())


def row(database: Database, sequence: int) -> Link:
    with database.read() as connection:
        return next(link for link in links(connection) if link.sequence == sequence)


def change(database: Database, sequence: int, **values: object) -> None:
    with database.begin() as connection:
        connection.execute(update(audit).where(audit.c.sequence == sequence).values(**values))


def forged(link: Link) -> str:
    """The entry as somebody who wants to look innocent would have it."""
    changed = decode_entry(link.entry)
    changed.key_id = "mallory"
    return msgspec.json.Encoder(order="sorted").encode(changed).decode()


def test_an_untouched_chain_is_whole(database: Database) -> None:
    assert check(database).entries == 0
    head = write(database, 3)
    write(database, 2, 3)
    report = check(database, None, Head(head.sequence, head.hash.hex()))
    assert (report.faults, report.entries, report.head and report.head.sequence) == ([], 6, 5)


def test_the_entry_is_kept_with_its_keys_sorted(near: Database) -> None:
    write(near, 1)
    text = row(near, 1).entry
    assert text == b'{"action":"chat","at_ms":1000,"key_id":"alice","kind":"allow","sequence":1}'


def test_a_changed_entry(near: Database) -> None:
    write(near, 9)
    change(near, 4, entry=forged(row(near, 4)))
    report = check(near)
    assert [fault.sequence for fault in report.faults] == [4]


def test_a_changed_entry_with_its_hash_made_anew(near: Database) -> None:
    write(near, 9)
    text = forged(row(near, 4))
    change(near, 4, entry=text, hash=link_hash(row(near, 3).hash, text.encode()))
    (fault,) = check(near).faults
    assert fault.sequence == 5
    assert "or the one before it was" in fault.what


def test_an_entry_that_is_no_json(near: Database) -> None:
    write(near, 9)
    change(near, 4, entry="gone")
    assert {fault.sequence for fault in check(near).faults} == {4}


def test_a_changed_time_beside_the_entry(near: Database) -> None:
    write(near, 9)
    change(near, 4, at_ms=1)
    assert [fault.sequence for fault in check(near).faults] == [4]


def test_removed_from_the_middle(near: Database) -> None:
    write(near, 9)
    with near.begin() as connection:
        connection.execute(delete(audit).where(audit.c.sequence.in_((4, 5))))
    (fault,) = check(near).faults
    assert (fault.sequence, fault.what) == (4, "entries 4 to 5 are missing")


def test_removed_from_the_middle_and_renumbered(near: Database) -> None:
    write(near, 9)
    with near.begin() as connection:
        connection.execute(delete(audit).where(audit.c.sequence == 4))
        for number in range(5, 10):
            connection.execute(update(audit).where(audit.c.sequence == number).values(sequence=number - 1))
    assert check(near).faults[0].sequence == 4


def test_removed_from_the_beginning(near: Database) -> None:
    write(near, 9)
    with near.begin() as connection:
        connection.execute(delete(audit).where(audit.c.sequence <= 2))
    assert check(near).faults[0].what == "the beginning is missing: the first entry is 3"


def test_removed_after_the_first(near: Database) -> None:
    write(near, 9)
    with near.begin() as connection:
        connection.execute(delete(audit).where(audit.c.sequence.in_((1, 2))))
    assert check(near).faults[0].what == "entries 1 to 2 are missing"


def test_a_cut_off_end_is_found_by_the_noted_head(near: Database) -> None:
    write(near, 5)
    head = anchored(near)
    with near.begin() as connection:
        connection.execute(delete(audit).where(audit.c.sequence >= 4))
    assert check(near).faults == [], "nothing in the chain itself can tell"
    (fault,) = check(near, KEY, head).faults
    assert fault.sequence == 4
    assert fault.what == "the end is missing: the chain ends at entry 3, and had an entry 6"


def test_an_end_that_was_cut_off_and_written_anew(near: Database) -> None:
    write(near, 5)
    head = anchored(near)
    with near.begin() as connection:
        connection.execute(delete(audit).where(audit.c.sequence >= 4))
    write(near, 9)
    assert [fault.sequence for fault in check(near, None, head).faults] == [6]


def test_put_in_between_and_renumbered(near: Database) -> None:
    write(near, 9)
    with near.begin() as connection:
        for number in range(9, 4, -1):
            connection.execute(update(audit).where(audit.c.sequence == number).values(sequence=number + 1))
        text = msgspec.json.Encoder(order="sorted").encode(entry(sequence=5)).decode()
        before = connection.scalar(select(audit.c.hash).where(audit.c.sequence == 4)) or b""
        connection.execute(
            insert(audit).values(sequence=5, at_ms=1_000, entry=text, hash=link_hash(bytes(before), text.encode()))
        )
    assert check(near).faults[0].sequence == 6


def test_a_whole_chain_made_anew_is_betrayed_by_its_seals(near: Database) -> None:
    write(near, 5)
    anchored(near)
    write(near, 5)
    anchored(near)
    remake(near, "mallory")
    assert check(near).faults == [], "whoever can write the table can compute the hashes"
    assert [fault.sequence for fault in check(near, KEY).faults] == [6, 12]


def remake(database: Database, name: str) -> None:
    """Every entry changed, every hash and every seal made anew, all as well as it can be done without the key."""
    with database.begin() as connection:
        before = b""
        for link in list(links(connection)):
            changed = decode_entry(link.entry)
            if changed.kind == "genesis":
                before = link.hash
                continue
            changed.key_id = name
            if changed.seal is not None:
                changed.seal = msgspec.structs.replace(changed.seal, hash=before.hex())
            text = msgspec.json.Encoder(order="sorted").encode(changed)
            before = link_hash(before, text)
            connection.execute(
                update(audit).where(audit.c.sequence == link.sequence).values(entry=text.decode(), hash=before)
            )


def test_a_seal_of_another_key_proves_nothing(near: Database) -> None:
    write(near, 2)
    anchored(near)
    assert check(near, KEY).sealed_to == 2
    report = check(near, b"x" * 32)
    assert report.sealed_to is None
    assert [fault.sequence for fault in report.faults] == [3]


def test_the_same_end_is_sealed_once(near: Database) -> None:
    write(near, 2)
    anchored(near)
    with near.begin() as connection:
        assert chain.anchor(connection, KEY) is None


def test_what_was_removed_for_its_age_leaves_the_rest_provable(database: Database) -> None:
    write(database, 20)
    anchored(database)
    with database.begin() as connection:
        last = chain.retire(connection, KEY, older_than_ms=1_010)
    assert last == 10
    assert check(database, KEY).faults == [], "announced, and not yet done"
    with database.begin() as connection:
        assert chain.remove(connection, last, limit=4) == 4
    half_way = check(database, KEY)
    assert (half_way.faults, half_way.first) == ([], 11)
    with database.begin() as connection:
        assert chain.remove(connection, last, limit=100) == 6
    report = check(database, KEY)
    assert (report.faults, report.first) == ([], 11)
    change(database, 12, entry=forged(row(database, 12)))
    assert [fault.sequence for fault in check(database, KEY).faults] == [12]


def test_everything_may_be_too_old_and_the_chain_goes_on(near: Database) -> None:
    for _ in range(2):
        write(near, 3)
        with near.begin() as connection:
            last = chain.retire(connection, KEY, older_than_ms=chain.now_ms() + 1)
            chain.remove(connection, last, limit=100)
    write(near, 3)
    report = check(near, KEY)
    assert report.faults == []
    assert report.entries == 5, "the beginning, the last checkpoint, three entries"


def test_a_forged_checkpoint_is_found_with_the_key(near: Database) -> None:
    write(near, 9)
    with near.begin() as connection:
        chain.remove(connection, chain.retire(connection, None, older_than_ms=1_004), limit=100)
    assert check(near).faults == []
    assert [fault.sequence for fault in check(near, KEY).faults] == [10]


def test_a_chain_of_another_installation_is_not_ours(near: Database) -> None:
    write(near, 2)
    anchored(near)
    genesis = decode_entry(row(near, 0).entry)
    genesis.detail = "0" * 32
    change(near, 0, entry=msgspec.json.Encoder(order="sorted").encode(genesis).decode())
    assert {fault.sequence for fault in check(near).faults} == {0, 3}


def test_faults_are_bounded(near: Database) -> None:
    write(near, 50)
    with near.begin() as connection:
        connection.execute(update(audit).values(hash=b"x" * 32))
    report = check(near)
    assert len(report.faults) == MAX_FAULTS
    assert report.more_faults == 51 - MAX_FAULTS


def test_text_that_is_not_unicode_is_kept_as_far_as_it_can_be(database: Database) -> None:
    with database.begin() as connection:
        append(connection, [entry(detail="half \udc80 \x00 a pair")])
    assert decode_entry(row(database, 1).entry).detail == "half ? \x00 a pair"
    assert check(database).faults == []


@pytest.mark.parametrize("text", ["", "7", "7:abc", "x:" + "0" * 64, "7:" + "G" * 64])
def test_a_head_has_a_form(text: str) -> None:
    with pytest.raises(InvalidRequest, match="SEQUENCE:HASH"):
        Head.parse(text)


def test_the_key_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "audit.key"
    key = chain.make_key(path)
    assert len(key) == 64
    assert chain.make_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"short")
    with pytest.raises(StartupError, match="5 bytes; it needs 32"):
        chain.read_key(path)


_WRITER = """
import sys
from parkway.policy.chain import Entry, append
from parkway.store.sql import Database
database = Database.open(sys.argv[1])
print("ready", flush=True)
for number in range(int(sys.argv[2])):
    with database.begin() as connection:
        append(connection, [Entry(kind="allow", action=sys.argv[3], at_ms=number, count=i + 1) for i in range(5)])
"""


@pytest.fixture
def writers(database_url: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    found: list[subprocess.Popen[bytes]] = []
    yield found
    for process in found:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def start_writer(url: str, rounds: int, name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _WRITER, url, str(rounds), name], stdout=subprocess.PIPE)


def test_four_processes_write_one_chain(
    database: Database, database_url: str, writers: list[subprocess.Popen[bytes]]
) -> None:
    writers.extend(start_writer(database_url, 25, f"w{number}") for number in range(4))
    assert [process.wait(60) for process in writers] == [0, 0, 0, 0]
    report = check(database)
    assert (report.faults, report.entries) == ([], 1 + 4 * 25 * 5)


def test_a_writer_that_is_killed_leaves_a_whole_chain(
    database: Database, database_url: str, writers: list[subprocess.Popen[bytes]]
) -> None:
    for attempt in range(3):
        process = start_writer(database_url, 100_000, "victim")
        writers.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        before = count(database)
        while count(database) < before + 10 * (attempt + 1):
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        report = check(database)
        assert report.faults == []
        assert report.entries % 5 == 1, "batches are whole"
    write(database, 1)
    assert check(database).faults == []


def count(database: Database) -> int:
    with database.read() as connection:
        return connection.scalar(select(func.count()).select_from(audit)) or 0
