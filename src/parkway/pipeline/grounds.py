"""What grounded answers are made with, and what is known of one while it is made."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from msgspec.structs import replace

from parkway.aggregate.grounding.checking import Similar
from parkway.aggregate.grounding.config import GroundingConfig, ModelGrounding, Terms
from parkway.aggregate.grounding.passage import Passage, shown
from parkway.aggregate.grounding.prompt import Wanted, grounded
from parkway.core.chat import Message
from parkway.core.errors import CollectionNotFound, ParkwayError
from parkway.core.grounding import Checking, Citation, Grounded
from parkway.core.knowledge import Found, Search
from parkway.core.tasks import Tasks


class Searching(Protocol):
    """Where collections are searched."""

    def has(self, collection: str) -> bool:
        """Whether there is such a collection, as far as is known without asking anybody."""
        ...

    async def search(self, collection: str, search: Search, principals: Collection[str]) -> Found:
        """What is found, of what `principals` may see.

        Raises:
            CollectionNotFound: There is no such collection.
            KnowledgeUnavailable, IndexUnavailable: It cannot be searched now.
        """
        ...


class NoKnowledge:
    """An installation without any collection."""

    def has(self, collection: str) -> bool:  # noqa: ARG002 - of `Searching`
        return False

    async def search(self, collection: str, search: Search, principals: Collection[str]) -> Found:  # noqa: ARG002
        raise CollectionNotFound(no_collection([collection]))


def no_collection(names: Sequence[str]) -> str:
    """The one message for collections that are not there and for those that the caller may not search."""
    told = ", ".join(repr(name[:64]) for name in names[:8])
    return f"`knowledge`: there is no collection {told} that you may search; GET /v1/knowledge lists those that you may"


@dataclass(frozen=True, slots=True)
class Grounds:
    """What the stages work with.

    Attributes:
        models: Where models differ from `config`, by name.
        tasks: Searches that run beside their requests.
    """

    config: GroundingConfig = field(default_factory=GroundingConfig)
    models: Mapping[str, ModelGrounding] = field(default_factory=dict)
    knowledge: Searching = field(default_factory=NoKnowledge)
    tasks: Tasks = field(default_factory=lambda: Tasks("grounding"))


@dataclass(slots=True)
class Looked:
    """What a search has come to: what each collection has, or why there is nothing."""

    query: str
    collections: list[str]
    found: list[Found] = field(default_factory=list)
    error: ParkwayError | None = None


@dataclass(slots=True)
class Grounding:
    """One answer's.

    Attributes:
        question: The last thing that the user said.
        search: Runs from the moment that the request is known on.
        choices: How many answers are asked for.
        formed: They have a form that has no place for citations, JSON for one.
        tools: The names of those that may be called.
        resumed: It goes on from what a tool has said.
        passages: What the answer may rest on, once that was read; best first.
        reserved: Tokens of the prompt that were reserved for passages.
        versions: Of what was found: equal only where everything is.
        told: What is said of the answer, once it is known.
    """

    terms: Terms
    config: GroundingConfig
    question: str
    search: asyncio.Task[Looked]
    choices: int = 1
    formed: bool = False
    tools: frozenset[str] = frozenset()
    resumed: bool = False
    reserved: int = 0
    read: bool = False
    query: str = ""
    confidence: float = 0.0
    passages: list[Passage] = field(default_factory=list)
    versions: str = ""
    similar: Similar | None = None
    told: Grounded | None = None

    @property
    def shown(self) -> list[Passage]:
        """The passages as a model sees and cites them; none where nothing was found that is likely to help."""
        return shown(self.passages) if self.known else []

    @property
    def looked(self) -> Looked | None:
        """What the search has come to; None until then."""
        ended = self.search.done() and not self.search.cancelled() and self.search.exception() is None
        return self.search.result() if ended else None

    @property
    def known(self) -> bool:
        """Whether what was found is likely to have the answer."""
        return bool(self.passages) and self.confidence >= self.terms.min_confidence

    @property
    def checking(self) -> Checking:
        """How what a model says is checked; what rests on a tool's word cannot be."""
        if self.resumed:
            return "off"
        return self.terms.check if self.known else "drop"

    def tell(self, *, answered: bool, citations: list[Citation], unchecked: bool = False) -> Grounded:
        """What is said of an answer."""
        return Grounded(
            tier="unchecked" if unchecked else self.terms.tier,
            answered=answered,
            confidence=self.confidence,
            citations=citations,
            query=self.query,
        )

    def shorten(self) -> bool:
        """Leaves the lesser half of the passages out, for a model whose context is too small; False: one is left."""
        if len(self.passages) < 2:
            return False
        self.passages = self.passages[: (len(self.passages) + 1) // 2]
        return True

    @property
    def fingerprint(self) -> str:
        """Equal only where an answer rests on the same passages of the same versions and is checked alike."""
        return f"{self.terms} {self.config.model_dump_json()} {self.confidence} {self.versions}"

    def prompt(self, messages: list[Message]) -> list[Message]:
        """`messages` as the model gets them: with the passages in front of the last question."""
        last = max((at for at, each in enumerate(messages) if each.role == "user"), default=None)
        if last is None:
            return messages
        wanted = Wanted(self.config.unknown, formed=self.formed, tools=bool(self.tools))
        content = grounded(messages[last].content or "", self.shown, wanted)
        return [*messages[:last], replace(messages[last], content=content), *messages[last + 1 :]]
