"""`parkway ask`: a question that documents answer."""

from __future__ import annotations

from collections.abc import Sequence

import click
import msgspec

from parkway.cli.chat import choose, connect, printable
from parkway.cli.client import Client
from parkway.cli.collection import Name, collection_names, not_there, url_option
from parkway.cli.listing import print_json
from parkway.cli.options import json_option
from parkway.cli.place import place_of
from parkway.core.errors import CollectionNotFound

_UNANSWERED = 1


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Citation(msgspec.Struct):
    """What is shown of a source; whatever else the answer says of it is in the JSON."""

    number: int
    uri: str = ""
    title: str = ""
    headings: list[str] = []
    page: int | None = None
    quote: str = ""


class _Grounds(msgspec.Struct):
    answered: bool = False
    citations: list[_Citation] = []


class _Answer(msgspec.Struct):
    choices: list[_Choice]
    parkway: _Grounds | None = None


@click.command("ask")
@click.argument("question")
@click.option(
    "--in", "names", type=Name(), multiple=True, metavar="NAME", help="The collection; may be repeated.  [default: all]"
)
@click.option("--model", help="The model that answers.  [default: park-mini, or the only one]")
@url_option
@json_option
def command(question: str, names: tuple[str, ...], model: str | None, url: str | None, as_json: bool) -> int:
    """Ask a QUESTION that the documents of collections answer, and see where the answer stands.

    The exit code is 1 where they do not answer it.

    \b
    Examples:
      parkway ask "How do I rotate a key?"
      parkway ask "How do I rotate a key?" --in docs --model qwen
      parkway ask "How do I rotate a key?" --json
    """
    client = connect(url)
    body = {
        "model": choose(client, model),
        "messages": [{"role": "user", "content": question}],
        "knowledge": _known(client, names),
    }
    told = client.ask("POST", "/v1/chat/completions", msgspec.Raw, body)
    if as_json:
        print_json(told)
        return 0
    answer = msgspec.json.decode(told, type=_Answer)
    click.echo(printable(answer.choices[0].message.content or "") if answer.choices else "")
    grounds = answer.parkway or _Grounds()
    if sources := sources_of(grounds):
        click.echo()
    for source in sources:
        click.echo(printable(source))
    return 0 if grounds.answered else _UNANSWERED


def sources_of(grounds: _Grounds) -> list[str]:
    """Each number that the answer cites, and where that stands: at the first of what it quotes."""
    first = {each.number: each for each in reversed(grounds.citations)}
    places: list[str] = []
    for number, each in sorted(first.items()):
        place = place_of(each.uri, title=each.title, page=each.page, quote=each.quote, headings=each.headings)
        places.append(f"[{number}] {place}")
    return places


def _known(client: Client, names: Sequence[str]) -> list[str]:
    """Those that are named, or all."""
    known = collection_names(client)
    if not known:
        raise CollectionNotFound("there are no documents yet; add some: parkway knowledge add docs ./docs")
    for name in names:
        if name not in known:
            raise not_there(name, known)
    return list(names) or known
