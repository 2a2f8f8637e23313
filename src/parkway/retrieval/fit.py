"""Whether judged questions fit a collection: what they name is there, is one document, and has the text that they mean.

What does not fit is measured all the same, as not found: whoever asks for a document that was set aside misses it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf

from parkway.core.errors import ConfigurationError
from parkway.core.knowledge import DocumentStatus
from parkway.retrieval.evaluation import Question, Relevant

_SHOWN = 5
_SOUGHT_IN = 20_000
"""URIs among which the one is looked for that may have been meant."""

_NOT_THERE = "name documents that {} does not have; these count as not found"
_NOT_INDEXED = "name documents of {} that are not indexed; these count as not found"
_BEYOND = "have spans beyond the text of their document in {}; these count as not found"
_SEVERAL = "name several documents of {} by one name; any of them counts as right"


@dataclass(slots=True)
class _Named:
    """The documents that a name fits.

    Attributes:
        indexed: How many of them can be found.
        characters: Of the longest text among those.
        why: Why one of the others cannot be found.
    """

    documents: int = 0
    indexed: int = 0
    characters: float = 0
    why: str = ""

    def add(self, document: DocumentStatus) -> None:
        self.documents += 1
        if document.state == "indexed" or document.passages:
            self.indexed += 1
            self.characters = max(self.characters, document.characters or inf)
        else:
            self.why = document.reason or document.state.replace("_", " ")


@dataclass(slots=True)
class _Misfit:
    """How many questions something is true of, and of which names it is, with what is to be said of each."""

    questions: int = 0
    names: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Fit:
    """What does not fit.

    Attributes:
        collection: Its name.
        documents: How many it has.
        questions: How many have something relevant.
        names: By how many different names.
        fitting: How many of those fit a document.
    """

    collection: str
    documents: int
    questions: int
    names: int
    fitting: int
    _misfits: dict[str, _Misfit]

    @classmethod
    def of(cls, collection: str, questions: Sequence[Question], documents: Iterable[DocumentStatus]) -> Fit:
        """Compares.

        Args:
            documents: All that the collection has, whatever became of them.
        """
        answerable = [question.gold for question in questions if question.relevant]
        known = {each.document: _Named() for gold in answerable for each in gold}
        uris: list[str] = []
        count = 0
        for count, document in enumerate(documents, 1):
            for name in names_of(document.document_id, document.uri):
                if name in known:
                    known[name].add(document)
            if count <= _SOUGHT_IN:
                uris.append(document.uri)
        misfits = {what: _Misfit() for what in (_NOT_THERE, _NOT_INDEXED, _BEYOND, _SEVERAL)}
        for gold in answerable:
            found = [(each, told) for each in gold for told in _told(each, known[each.document])]
            for what in {what for _, (what, _) in found}:
                misfits[what].questions += 1
            for each, (what, why) in found:
                misfits[what].names.setdefault(each.document, why)
        absent = misfits[_NOT_THERE].names
        for name in [*absent][:_SHOWN]:
            if meant := _meant(name, uris):
                absent[name] = f'; did you mean "{meant}"?'
        fitting = sum(each.documents > 0 for each in known.values())
        return cls(collection, count, len(answerable), len(known), fitting, misfits)

    def check(self) -> None:
        """Sees that there is anything to measure.

        Raises:
            ConfigurationError: No name fits a document of the collection.
        """
        if self.names and not self.fitting:
            first = f"nothing that is named as relevant is in {self.collection}, which has {self.documents} documents:"
            raise ConfigurationError("\n".join([first, *self._examples(self._misfits[_NOT_THERE]), self._hint]))

    @property
    def remarks(self) -> list[str]:
        """What does not fit, in a sentence each, for whoever reads what was measured."""
        return [self._sentence(what, each) for what, each in self._misfits.items() if each.questions]

    @property
    def warnings(self) -> list[str]:
        """The same line by line with the first names, and what would be right."""
        lines: list[str] = []
        for what, each in self._misfits.items():
            if each.questions:
                lines += [self._sentence(what, each), *self._examples(each)]
        return [*lines, self._hint] if lines else []

    def _sentence(self, what: str, each: _Misfit) -> str:
        return f"{each.questions} of {self.questions} questions {what.format(self.collection)}"

    def _examples(self, each: _Misfit) -> Iterator[str]:
        for name in [*each.names][:_SHOWN]:
            yield f'  "{name[:200]}"{each.names[name]}'
        if len(each.names) > _SHOWN:
            yield f"  and {len(each.names) - _SHOWN} more"

    @property
    def _hint(self) -> str:
        return (
            'a document is named by its id, its URI, or the end of its URI from a "/" on; they are shown by: '
            f"parkway knowledge status {self.collection} --documents"
        )


def names_of(document_id: str, uri: str) -> set[str]:
    """All by which a document is named in a gold file: those that `Relevant.names` knows it by."""
    parts = uri.split("/")
    return {document_id, *("/".join(parts[at:]) for at in range(len(parts)))}


def _told(each: Relevant, named: _Named) -> Iterator[tuple[str, str]]:
    """What of it does not fit, and what is said of the name."""
    if not named.documents:
        yield _NOT_THERE, ""
    elif not named.indexed:
        yield _NOT_INDEXED, f": {named.why[:200]}"
    elif each.start is not None and each.start >= named.characters:
        yield _BEYOND, f", {each.start} to {each.end}: its text has {named.characters:.0f} characters"
    if named.documents > 1:
        yield _SEVERAL, f" fits {named.documents} documents"


def _meant(name: str, uris: Iterable[str]) -> str:
    """The URI that is near: of the same file name, or else with nearly the same end."""
    depth = name.count("/") + 1
    ends = {"/".join(uri.split("/")[-depth:]): uri for uri in uris}
    same = [end for end in ends if _file(end) == _file(name)]
    near = difflib.get_close_matches(name[:200], same or ends, n=1, cutoff=0.0 if same else 0.6)
    return ends[near[0]] if near else ""


def _file(uri: str) -> str:
    return uri.rsplit("/", 1)[-1].casefold()
