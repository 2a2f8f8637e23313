"""What documents of this machine's folders are called to whoever asks: not by where they lie on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from parkway.retrieval.config import CollectionConfig

_FILE = "file:"


@dataclass(frozen=True, slots=True)
class Shown:
    """Turns the URI of a file into its path from its folder's own name on: `docs/keys.md`.

    Attributes:
        roots: The URIs of the folders, the deepest first.
    """

    roots: Sequence[str] = ()

    @classmethod
    def of(cls, config: CollectionConfig) -> Shown:
        """For documents of these sources."""
        paths = [Path(source.path).expanduser().absolute() for source in config.sources if source.path is not None]
        paths.sort(key=lambda path: -len(path.parts))
        return cls([path.as_uri().rstrip("/") for path in paths])

    def __call__(self, uri: str) -> str:
        """Other URIs stay as they are; of a file in no folder that is known, its name is left."""
        if not uri.startswith(_FILE):
            return uri
        for root in self.roots:
            if uri == root or uri.startswith(f"{root}/"):
                return _readable(uri[root.rindex("/") + 1 :])
        return _readable(uri.rsplit("/", 1)[-1])


def _readable(path: str) -> str:
    """As its name is written; as in a URI where that could not be printed."""
    try:
        plain = unquote(path, errors="strict")
    except UnicodeDecodeError:
        return path
    return plain if plain.isprintable() else path
