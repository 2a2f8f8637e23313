"""At the start: what the index has, held against what the catalogue says that it has."""

from __future__ import annotations

import logging
from collections.abc import Callable

from parkway.retrieval.catalogue import Catalogue, Document, Partition
from parkway.retrieval.index.index import Index
from parkway.retrieval.ingest.scan import Checkpoint

log = logging.getLogger(__name__)


def reconcile(
    collection: str,
    catalogue: Catalogue,
    index: Index,
    partition: Partition,
    now_ms: Callable[[], int],
    checkpoint: Checkpoint = lambda _: None,
) -> None:
    """Removes from the index what the catalogue does not know, and has wait what the index does not have.

    Whoever calls it is the only one who writes to the index.
    """
    there = index.documents()
    counted, begun = 0, False
    after = ""
    while page := catalogue.page(collection, partition, after):
        after = page[-1].document_id
        lost: list[str] = []
        for document in page:
            versions = there.pop(document.document_id, set())
            if document.version and document.version not in versions:
                lost.append(document.document_id)
            if document.state == "waiting":
                # What is there of it was begun: it is gone on from, and cleared away at its end.
                begun = begun or bool(versions)
            elif document.version not in versions:
                index.remove(document.document_id)
            elif len(versions) > 1:
                index.remove(document.document_id, but=document.version)
            counted += document.passages if document.version in versions else 0
            checkpoint("reconciled")
        if lost:
            log.warning("%s: %d documents are not in the index as they were and come in anew", collection, len(lost))
            catalogue.lost(lost, now_ms())
    for identifier in there:
        index.remove(identifier)
        checkpoint("orphan removed")
    if there:
        log.warning("%s: %d documents were in the index and not in the catalogue", collection, len(there))
    if not begun and index.size().passages != counted:
        _count(collection, catalogue, index, partition, now_ms)


def _count(
    collection: str, catalogue: Catalogue, index: Index, partition: Partition, now_ms: Callable[[], int]
) -> None:
    """Has those documents wait of which there are fewer or more passages than there should be."""
    after = ""
    while page := catalogue.page(collection, partition, after):
        after = page[-1].document_id
        wrong = [one.document_id for one in page if one.version and not _whole(index, one)]
        for identifier in wrong:
            index.remove(identifier)
        if wrong:
            log.warning("%s: %d documents are not whole in the index and come in anew", collection, len(wrong))
            catalogue.lost(wrong, now_ms())


def _whole(index: Index, document: Document) -> bool:
    return len(index.passages(document.document_id)) == document.passages
