"""A collection at a gateway, as commands ask for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, TypeVar
from urllib.parse import quote

import click

from parkway.cli.client import Client
from parkway.core.errors import CollectionNotFound, RelayedError, nearest
from parkway.core.knowledge import CollectionList, CollectionStatus, DocumentPage, DocumentStatus, Found, checked_name

T = TypeVar("T")

_SHOWN = 20

url_option = click.option("--url", help="A gateway elsewhere; its key is read from $PARKWAY_API_KEY.")


class Name(click.ParamType[str]):
    """What a collection can be called."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return checked_name(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@dataclass(frozen=True, slots=True)
class Collection:
    """One of them.

    Raises, all of it:
        CollectionNotFound: There is none of this name; the message has those that there are.
        EndpointFailed, RelayedError: As `Client.ask`.
    """

    client: Client
    name: str

    def ask(self, method: str, rest: str, cls: type[T], body: Any = None, content: IO[bytes] | None = None) -> T:
        """A question with one answer.

        Args:
            rest: Of the path, from the collection on.
        """
        try:
            return self.client.ask(method, f"/v1/knowledge/{quote(self.name, safe='')}{rest}", cls, body, content)
        except RelayedError as error:
            if error.code != CollectionNotFound.code:
                raise
        raise not_there(self.name, collection_names(self.client))

    def status(self) -> CollectionStatus:
        return self.ask("GET", "", CollectionStatus)

    def search(self, query: str, **more: Any) -> Found:
        return self.ask("POST", "/search", Found, {"query": query, **more})

    def documents(self) -> Iterator[DocumentStatus]:
        """Those that the caller may see, page by page."""
        after = ""
        while True:
            page = self.ask("GET", f"/documents?limit=100&after={quote(after, safe='')}", DocumentPage)
            yield from page.data
            if not page.has_more:
                return
            after = page.data[-1].document_id


def not_there(name: str, known: Sequence[str]) -> CollectionNotFound:
    """Of those that are `known` none is called so."""
    there_are = f"There are: {', '.join(known[:_SHOWN])}" if known else "There is none yet."
    return CollectionNotFound(
        f'collection "{name}" does not exist, or you may not search it.{nearest(name, known)} {there_are}'
    )


def collection_names(client: Client) -> list[str]:
    """Of the collections that the caller may search. Raises like `Client.ask`."""
    return [each.name for each in client.ask("GET", "/v1/knowledge", CollectionList).data]
