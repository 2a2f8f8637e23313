"""`parkway audit`: shows, exports and verifies the audit log. Works while Parkway is stopped, too."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click
import msgspec

from parkway.cli.listing import print_json, print_table
from parkway.cli.options import Duration, config_option, json_option
from parkway.cli.state import open_home
from parkway.core.errors import InvalidRequest, NotFound
from parkway.launch.keeping import key_file, noted_head
from parkway.policy.chain import Entry, Kind, Link, decode_entry, links, now_ms, read_key
from parkway.policy.verification import Head, Report, verify

_COLUMNS = ("#", "time", "kind", "action", "outcome", "who", "model", "count", "detail")


class _Line(msgspec.Struct):
    """A line of an export: the entry's own bytes, and its hash in hex."""

    entry: msgspec.Raw
    hash: str


_decode_line = msgspec.json.Decoder(_Line).decode


@click.group("audit")
def command() -> None:
    """Show, export and verify the audit log: every decision, chained by hashes.

    \b
    Examples:
      parkway audit list --since 1h --kind deny
      parkway audit verify
      parkway audit export audit.jsonl
      parkway audit verify audit.jsonl
    """


@command.command("list")
@click.option("--since", type=Duration(), default="1d", show_default=True, help="The window, up to now: 15m, 1h, 7d.")
@click.option("--kind", "kinds", type=click.Choice(get_args(Kind)), multiple=True, help="Only this kind; repeatable.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="The newest so many.")
@config_option
@json_option
def list_entries(since: float, kinds: tuple[str, ...], limit: int, config: Path | None, as_json: bool) -> None:
    """List decisions, oldest first.

    \b
    Examples:
      parkway audit list
      parkway audit list --since 7d --kind administration
      parkway audit list --kind deny --kind limit --json
    """
    with open_home(config) as (_, _, database), database.read() as connection:
        found: deque[Entry] = deque(maxlen=limit)
        for link in links(connection, since_ms=now_ms() - int(since * 1000)):
            entry = decode_entry(link.entry)
            if not kinds or entry.kind in kinds:
                found.append(entry)
    if as_json:
        print_json(list(found))
    elif not found:
        click.echo("no entries in this window; a longer one: parkway audit list --since 30d", err=True)
    else:
        print_table(_COLUMNS, [_row(entry) for entry in found])


@command.command("export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@config_option
def export(file: Path, config: Path | None) -> None:
    """Write the whole log to FILE, one entry a line; `parkway audit verify FILE` checks it anywhere.

    \b
    Example:
      parkway audit export audit.jsonl
    """
    with open_home(config) as (_, _, database), database.read() as connection, file.open("wb") as out:
        count = 0
        for link in links(connection):
            out.write(msgspec.json.encode(_Line(msgspec.Raw(link.entry), link.hash.hex())) + b"\n")
            count += 1
    click.echo(f"{count} entries written to {file}", err=True)


@command.command("verify")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--expect", "expected", multiple=True, metavar="SEQUENCE:HASH", help="A head noted earlier; repeatable.")
@click.option("--key", type=click.Path(path_type=Path, dir_okay=False), help="The key of the seals.")
@click.option("--no-key", is_flag=True, help="Check the hashes alone.")
@config_option
@json_option
def verify_log(
    file: Path | None, expected: tuple[str, ...], key: Path | None, no_key: bool, config: Path | None, as_json: bool
) -> int:
    """Check that nothing in the log, or in an exported FILE, was changed, removed or put in; exit code 1 if so.

    The key is the one that `audit.key_file` names, or `audit.key` in the home; the home's `audit.anchor` says where
    the log ended when it was sealed last. For a FILE neither is taken from the home: name what you have.

    \b
    Examples:
      parkway audit verify
      parkway audit verify --expect 1042:5f2b...
      parkway audit verify audit.jsonl --key audit.key
    """
    heads = [Head.parse(text) for text in expected]
    if key is not None and read_key(key) is None:
        raise NotFound(f"{key} does not exist")
    if file is not None:
        report = verify(lambda: _lines(file), read_key(key) if key else None, heads)
    else:
        with open_home(config) as (home, settings, database), database.read() as connection:
            known = None if no_key else read_key(key or key_file(settings.audit, home))
            noted = noted_head(home)
            report = verify(lambda: links(connection), known, [*heads, *([noted] if noted else [])])
    _tell(report, as_json)
    return 1 if report.faults else 0


def _tell(report: Report, as_json: bool) -> None:
    if as_json:
        print_json(report)
        return
    for fault in report.faults:
        click.echo(f"fault: {fault.what}")
    if report.more_faults:
        click.echo(f"fault: and {report.more_faults} more")
    if not report.faults:
        click.echo(f"ok: {report.entries} entries")
    if report.head is not None:
        click.echo(f"head: {report.head.sequence}:{report.head.hash}")
    if report.first > 1:
        click.echo(f"entries 1 to {report.first - 1} were removed as their age says")
    if report.faults:
        return
    if report.sealed_to is not None:
        click.echo(f"seals: {report.sealed} checked; the key proves everything up to entry {report.sealed_to}")
    else:
        click.echo("seals: none checked; without them, whoever can write the store can make the whole log anew")
    if report.lost:
        click.echo(f"lost: {report.lost} decisions have no entry; the log says where")


def _lines(file: Path) -> Iterator[Link]:
    with file.open("rb") as lines:
        for number, text in enumerate(lines, start=1):
            try:
                line = _decode_line(text)
                entry = bytes(line.entry)
                decoded = decode_entry(entry)
                yield Link(decoded.sequence, decoded.at_ms, entry, bytes.fromhex(line.hash))
            except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
                raise InvalidRequest(f"{file}:{number}: not a line of an exported audit log: {error}") from error


def _row(entry: Entry) -> tuple[object, ...]:
    return (
        entry.sequence,
        time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.at_ms / 1000)),
        entry.kind,
        entry.action,
        entry.outcome or None,
        entry.user or entry.key_id or entry.actor or entry.source or None,
        entry.model or None,
        entry.count,
        entry.detail or None,
    )
