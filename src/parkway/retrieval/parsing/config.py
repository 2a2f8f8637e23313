"""How files are read, and what is too much."""

from __future__ import annotations

from pydantic import Field

from parkway.core.configuration import Section


class ParsingConfig(Section):
    """Limits of what is read of a file. One that is over any of them is set aside with a reason.

    Fields:
        max_bytes: of a file.
        max_characters: of the text in it.
        max_pages: of a PDF, slides of a presentation.
        timeout_s: how long reading one file may take.
        cpu_s: how much computing it may cost.
        memory_bytes: of address space for the process that reads; about 300 MiB of it are its own.
    """

    max_bytes: int = Field(default=100 * 1024 * 1024, ge=1)
    max_characters: int = Field(default=20_000_000, ge=1)
    max_pages: int = Field(default=5_000, ge=1)
    timeout_s: float = Field(default=60.0, gt=0)
    cpu_s: int = Field(default=60, ge=1)
    memory_bytes: int = Field(default=1536 * 1024 * 1024, ge=256 * 1024 * 1024)
