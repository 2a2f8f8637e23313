"""`parkway knowledge`: collections of documents, and searching them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from urllib.parse import quote

import click
import msgspec

from parkway.cli.chat import connect
from parkway.cli.collection import Collection, Name, url_option
from parkway.cli.knowledge_quality import COMMANDS
from parkway.cli.listing import print_json, print_table
from parkway.cli.options import json_option
from parkway.cli.place import place_of
from parkway.cli.progress import bar
from parkway.core.errors import RelayedError
from parkway.core.knowledge import (
    CollectionList,
    CollectionStatus,
    DocumentStatus,
    Hit,
    Metadata,
    Removed,
    Value,
)
from parkway.launch.control import add_paths
from parkway.store.home import Home
from parkway.store.models import readable_bytes

_LOOK_S = 0.3
_SHOWN_CHARS = 240
_NONE = "no collections yet; make one: parkway knowledge add docs ./docs"


@click.group("knowledge")
def command() -> None:
    """Add documents to collections, search them, and see how far they are.

    \b
    Examples:
      parkway knowledge add docs ./docs
      parkway knowledge search docs "how do I rotate a key"
      parkway ask "How do I rotate a key?" --in docs
    """


@command.command("add")
@click.argument("name", type=Name())
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--metadata", "given", multiple=True, metavar="KEY=VALUE", help="For filters; may be repeated.")
@click.option("--wait/--no-wait", default=True, help="Whether to stay until all is indexed.  [default: wait]")
@url_option
@json_option
def add(name: str, paths: tuple[Path, ...], given: tuple[str, ...], wait: bool, url: str | None, as_json: bool) -> int:
    """Add folders and files to the collection NAME, which is made if it is new.

    They are followed from now on: what is new, changed or deleted there is so here within seconds. With --url, each
    file is sent to that gateway instead, and not followed.

    \b
    Examples:
      parkway knowledge add docs ./docs
      parkway knowledge add papers a.pdf b.pdf --metadata year=2026 --metadata area=law
      parkway knowledge add docs ./docs --url https://parkway.example.com
    """
    metadata = _metadata(given)
    collection = Collection(connect(url), name)
    if url is None:
        add_paths(Home.open(), name, [path.resolve() for path in paths], metadata)
    else:
        collection.ask("PUT", "", CollectionStatus)
        _send(collection, paths, metadata)
    status = _indexed(collection) if wait else collection.status()
    if as_json:
        print_json(status)
    else:
        click.echo(f"{name}: {_told(status)}")
        _warn(collection, status)
    return 1 if wait and status.documents and status.set_aside == status.documents else 0


@command.command("list")
@url_option
@json_option
def list_collections(url: str | None, as_json: bool) -> None:
    """List the collections that you may search.

    \b
    Examples:
      parkway knowledge list
      parkway knowledge list --json
    """
    found = connect(url).ask("GET", "/v1/knowledge", CollectionList).data
    if as_json:
        print_json(found)
    elif not found:
        click.echo(_NONE, err=True)
    else:
        columns = ("collection", "documents", "indexed", "waiting", "set aside", "passages", "sources")
        print_table(columns, [_row(status) for status in found])


@command.command("status")
@click.argument("name", type=Name(), required=False)
@click.option("--documents", is_flag=True, help="Every document, and not only those that were set aside.")
@url_option
@json_option
def show_status(name: str | None, documents: bool, url: str | None, as_json: bool) -> None:
    """Show how far the collection NAME is, and which documents could not be read and why; without NAME, all.

    \b
    Examples:
      parkway knowledge status
      parkway knowledge status docs --documents
      parkway knowledge status docs --json
    """
    client = connect(url)
    if name is None:
        found = client.ask("GET", "/v1/knowledge", CollectionList).data
        if as_json:
            print_json(found)
        elif not found:
            click.echo(_NONE, err=True)
        for status in () if as_json else found:
            click.echo(f"{status.name}: {_told(status)}")
        return
    collection = Collection(client, name)
    status = collection.status()
    listed = [each for each in collection.documents() if documents or each.state == "set_aside"]
    if as_json:
        print_json({"collection": status, "documents": listed})
        return
    click.echo(f"{name}: {_told(status)}")
    for source in status.sources:
        click.echo(f"  from {source}")
    for trouble in status.trouble:
        click.echo(_printable(f"  trouble: {trouble}"))
    for lag in status.replica_lags:
        click.echo(f"  replica {lag.replica}, partition {lag.partition}: {lag.lag_s:g} s behind")
    if listed:
        columns = ("document", "state", "size", "passages", "why")
        print_table(columns, [_document_row(each) for each in listed])


@command.command("search")
@click.argument("name", type=Name())
@click.argument("query")
@click.option("--limit", type=click.IntRange(1, 200), default=5, show_default=True, help="The most hits.")
@click.option("--explain", is_flag=True, help="Say why each hit stands where it stands.")
@url_option
@json_option
def search(name: str, query: str, limit: int, explain: bool, url: str | None, as_json: bool) -> int:
    """Find passages in the collection NAME by words and by meaning.

    \b
    Examples:
      parkway knowledge search docs "how do I rotate a key"
      parkway knowledge search docs "rotate key" --limit 20 --explain
      parkway knowledge search docs "rotate key" --json
    """
    found = Collection(connect(url), name).search(query, limit=limit, explain=explain)
    if as_json:
        print_json(found)
        return 0
    for number, hit in enumerate(found.hits, 1):
        _print_hit(number, hit)
    took = found.took_ms.get("total")
    shown = "" if took is None else f" in {took:.1f} ms"
    click.echo(f"{len(found.hits)} hits{shown}; confidence {found.confidence:.2f}", err=True)
    return 0 if found.hits else 1


@command.command("rm")
@click.argument("name", type=Name())
@click.argument("uri", required=False)
@click.option("--yes", is_flag=True, help="Do not ask.")
@url_option
def remove(name: str, uri: str | None, yes: bool, url: str | None) -> None:
    """Remove the collection NAME with all that is kept of its documents, or the document URI that was sent to it.

    Folders and files that it was made of stay as they are.

    \b
    Examples:
      parkway knowledge rm docs
      parkway knowledge rm docs reports/2026.pdf --yes
    """
    collection = Collection(connect(url), name)
    if not yes:
        click.confirm(f"Remove {f'{uri} from {name}' if uri else f'the collection {name}'}?", abort=True)
    removed = collection.ask("DELETE", "" if uri is None else f"/documents/{quote(uri, safe='')}", Removed)
    click.echo(f"removed {removed.id}")


for each in COMMANDS:
    command.add_command(each)


def _told(status: CollectionStatus) -> str:
    more = [
        f"{count} {what}" for count, what in ((status.waiting, "waiting"), (status.set_aside, "set aside")) if count
    ]
    aside = f" ({', '.join(more)})" if more else ""
    return f"{status.indexed} of {status.documents} documents indexed{aside}, {status.passages} passages"


def _warn(collection: Collection, status: CollectionStatus) -> None:
    """Says why documents were set aside: the first few of them."""
    if not status.set_aside:
        return
    aside = [each for each in collection.documents() if each.state == "set_aside"]
    for each in aside[:5]:
        click.echo(_printable(f"  set aside: {each.uri}: {each.reason}"), err=True)
    if len(aside) > 5:
        click.echo(f"  and {len(aside) - 5} more: parkway knowledge status {status.name}", err=True)


def _row(status: CollectionStatus) -> tuple[object, ...]:
    counts = (status.documents, status.indexed, status.waiting, status.set_aside, status.passages)
    return (status.name, *counts, ", ".join(status.sources) or None)


def _document_row(each: DocumentStatus) -> tuple[object, ...]:
    return (each.uri, each.state.replace("_", " "), readable_bytes(each.bytes), each.passages, each.reason or None)


def _print_hit(number: int, hit: Hit) -> None:
    text = " ".join(hit.text.split())
    place = place_of(hit.uri, title=hit.title, page=hit.page, quote=hit.text, headings=hit.headings)
    click.echo(click.style(f"{number}. {_printable(place)}", bold=True))
    click.echo(f"   {_printable(text[:_SHOWN_CHARS])}{'…' if len(text) > _SHOWN_CHARS else ''}")
    named = (("rank", hit.scores.rank), ("fused", hit.scores.fused))
    named += (("keyword", hit.scores.keyword), ("vector", hit.scores.vector))
    click.echo(
        click.style("   " + "  ".join(f"{name} {value:.3f}" for name, value in named if value is not None), dim=True)
    )
    for name, value in sorted((hit.explanation or {}).items(), key=lambda each: -abs(each[1])):
        click.echo(click.style(f"     {value:+.3f} {name}", dim=True))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


def _metadata(given: tuple[str, ...]) -> dict[str, Value]:
    try:
        return msgspec.convert(dict(map(_fact, given)), Metadata)
    except msgspec.ValidationError as error:
        raise click.BadParameter(str(error), param_hint="--metadata") from None


def _fact(given: str) -> tuple[str, Value]:
    """A number, `true` and `false` are what they look like, a list is one as JSON has it, all else is text."""
    key, found, value = given.partition("=")
    if not found or not key:
        raise click.BadParameter(f"{given!r} is not KEY=VALUE", param_hint="--metadata")
    try:
        return key, msgspec.json.decode(value, type=bool | int | float | list[str])
    except msgspec.MsgspecError:
        return key, value


def _send(collection: Collection, paths: tuple[Path, ...], metadata: dict[str, Value]) -> None:
    """Every file, under its path below what was given."""
    query = f"?metadata={quote(msgspec.json.encode(metadata))}" if metadata else ""
    files = [(file, _uri(file, path)) for path in paths for file in _files(path)]
    with bar("sending", len(files)) as advance:
        for number, (file, uri) in enumerate(files, 1):
            try:
                with file.open("rb") as content:
                    collection.ask("PUT", f"/documents/{quote(uri, safe='')}{query}", DocumentStatus, content=content)
            except OSError as error:
                _not_read(error)
            except UnicodeEncodeError:
                _not_taken(file, "its name is not UTF-8")
            except RelayedError as error:
                if error.status not in (400, 413, 422):
                    raise
                _not_taken(file, error.message)
            advance(number)


def _not_read(error: OSError) -> None:
    _not_taken(Path(error.filename), f"cannot be read: {error.strerror}")


def _not_taken(path: Path, why: str) -> None:
    click.echo(f"{_printable(str(path))} is not taken: {why}", err=True)


def _files(path: Path) -> list[Path]:
    """A file, or those below a folder but for what is hidden; links to folders are not followed."""
    if path.is_file():
        return [path]
    found: list[Path] = []
    for folder, folders, names in os.walk(path, onerror=_not_read):
        folders[:] = [each for each in folders if not each.startswith(".")]
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(each for each in found if each.is_file() and each.resolve().is_relative_to(path.resolve()))


def _uri(file: Path, given: Path) -> str:
    return file.name if file == given else f"{given.resolve().name}/{file.relative_to(given).as_posix()}"


def _indexed(collection: Collection) -> CollectionStatus:
    """Waits until nothing waits any more, with a bar; says once what may be in the way."""
    told: set[str] = set()
    try:
        status = collection.status()
        with bar("indexing", status.documents) as advance:
            while True:
                advance(status.documents - status.waiting, status.documents)
                for trouble in status.trouble:
                    if trouble not in told:
                        click.echo(_printable(f"  trouble: {trouble}"), err=True)
                        told.add(trouble)
                if not status.waiting:
                    break
                time.sleep(_LOOK_S)
                status = collection.status()
    except KeyboardInterrupt:
        click.echo(f"indexing goes on; how far it is: parkway knowledge status {collection.name}", err=True)
        raise
    return status
