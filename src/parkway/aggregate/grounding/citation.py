"""Citations: a span of an answer, the passage that it rests on, and where that stands in its document."""

from __future__ import annotations

from urllib.parse import quote

from parkway.aggregate.grounding.passage import Passage
from parkway.core.grounding import Annotation, Citation, UrlCitation

_MAX_QUOTE_CHARS = 1000


def cited(
    passage: Passage,
    answer: tuple[int, int],
    marker: tuple[int, int],
    source: tuple[int, int],
    support: float | None = None,
) -> Citation:
    """A citation of `passage`.

    Args:
        answer, marker: Spans of the answer.
        source: Span of the passage's text.
    """
    hit = passage.hit
    start, end = source
    place = (hit.start + start, hit.start + end) if passage.exact else (None, None)
    return Citation(
        number=passage.number,
        collection=hit.collection,
        document_id=hit.document_id,
        passage_id=hit.passage_id,
        answer_start=answer[0],
        answer_end=answer[1],
        marker_start=marker[0],
        marker_end=marker[1],
        quote=passage.text[start:end][:_MAX_QUOTE_CHARS],
        title=hit.title,
        uri=hit.uri,
        url=url_of(passage),
        headings=hit.headings,
        page=hit.page,
        start=place[0],
        end=place[1],
        support=None if support is None else round(support, 3),
    )


def url_of(passage: Passage) -> str:
    """Where the document can be read: its own address, or that of its entry here."""
    hit = passage.hit
    if hit.uri.startswith(("http://", "https://")):
        return hit.uri
    return f"/v1/knowledge/{quote(hit.collection, safe='')}/documents/{quote(hit.uri or hit.document_id)}"


def annotations_of(citations: list[Citation]) -> list[Annotation]:
    """Citations in the form of OpenAI's chat completions, which knows addresses alone."""
    return [
        Annotation(
            url_citation=UrlCitation(
                start_index=each.marker_start,
                end_index=each.marker_end,
                title=each.title or each.uri or each.document_id,
                url=each.url,
            )
        )
        for each in citations
    ]
