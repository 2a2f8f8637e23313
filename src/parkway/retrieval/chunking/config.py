"""How documents are cut."""

from __future__ import annotations

import hashlib
from typing import Literal

from pydantic import Field

from parkway.core.configuration import Section

Method = Literal["structure", "semantic", "fixed", "overlapping"]

_VERSION = 2
"""Of the rules; to be raised when they cut differently, so that what is indexed is cut anew."""

_TARGET = {"structure": 120, "semantic": 120, "fixed": 128, "overlapping": 512}
_LIMIT = {"structure": 256, "semantic": 256, "fixed": 128, "overlapping": 512}


class ChunkingConfig(Section):
    """How documents are cut into the passages that are found.

    Fields:
        method: `structure` cuts between sections, paragraphs, rows and sentences; `semantic` where the subject changes;
            `fixed` after so many tokens; `overlapping` too, and repeats the end of each chunk in the next.
        target_tokens: the length that is aimed at; by default 120. Of `structure` and `semantic` alone.
        max_tokens: the most, headings and the encoder's own tokens included; by default 256, of `fixed` 128, of
            `overlapping` 512. More than the encoder reads is an error.
        overlap: of `overlapping`, the share of a chunk that the next one repeats.
    """

    method: Method = "structure"
    target_tokens: int | None = Field(default=None, ge=16, le=8192)
    max_tokens: int | None = Field(default=None, ge=32, le=8192)
    overlap: float = Field(default=0.1, ge=0.0, le=0.5)

    @property
    def target(self) -> int:
        return self.target_tokens or min(_TARGET[self.method], self.limit)

    @property
    def limit(self) -> int:
        return self.max_tokens or max(_LIMIT[self.method], self.target_tokens or 0)

    @property
    def fingerprint(self) -> str:
        """Changes when documents would be cut differently: a part of their version."""
        said = (
            f"{_VERSION} {self.method} {self.target} {self.limit} {self.overlap if self.method == 'overlapping' else 0}"
        )
        return hashlib.sha256(said.encode()).hexdigest()[:8]
