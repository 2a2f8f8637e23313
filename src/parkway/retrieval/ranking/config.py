"""How far what was found is ordered once more."""

from __future__ import annotations

from pydantic import Field

from parkway.core.configuration import Section


class RankingConfig(Section):
    """What re-ranking may cost.

    Attributes:
        depth: So many of the first passages a cross-encoder reads, where one was trained for the collection.
        budget_ms: The longest that all of it may take; a search may ask for another one.
    """

    depth: int = Field(default=30, ge=2, le=200)
    budget_ms: float = Field(default=200.0, gt=0, le=10_000)
