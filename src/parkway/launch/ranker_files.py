"""The files of the rankers that were trained for a collection.

In `ranker/` of the collection's directory `ranker.json` has the weights of the ranker, `cross-encoder.json` the name of
the directory beside it in which a cross-encoder lies. Both are replaced as a whole; each may be missing.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from parkway.core.errors import ConfigurationError
from parkway.retrieval.index.directory import write_whole
from parkway.retrieval.ranking.ranker import Weights
from parkway.retrieval.ranking.sureness import Sureness

RANKER, CROSS_ENCODER = "ranker.json", "cross-encoder.json"

Stamp = tuple[tuple[int, int], ...]


class CrossEncoderFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """cross-encoder.json.

    Attributes:
        directory: Its name.
        weight: Of its score, beside 1 of the rank.
        sureness: How sure a search is of what it has read.
        about: On what it was trained, and what was measured.
    """

    directory: str
    weight: float
    sureness: Sureness = Sureness()
    about: dict[str, str] = {}


def stamp_of(place: Path) -> Stamp:
    """Of the rankers that the collection has now."""
    found: list[tuple[int, int]] = []
    for name in (RANKER, CROSS_ENCODER):
        try:
            stat = (place / "ranker" / name).stat()
            found.append((stat.st_mtime_ns, stat.st_ino))
        except FileNotFoundError:
            found.append((0, 0))
    return tuple(found)


def cross_encoder_of(place: Path) -> CrossEncoderFile | None:
    """What stands in cross-encoder.json; None where there is none.

    Raises:
        ConfigurationError: It cannot be read.
    """
    path = place / "ranker" / CROSS_ENCODER
    try:
        return msgspec.json.decode(path.read_bytes(), type=CrossEncoderFile)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}") from error


def keep_ranker(place: Path, weights: Weights) -> None:
    """Makes it the ranker of the collection."""
    (place / "ranker").mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(place / "ranker" / RANKER, msgspec.json.format(msgspec.json.encode(weights), indent=2) + b"\n")


def forget(place: Path) -> None:
    """Has the collection ranked by what is shipped again."""
    for name in (RANKER, CROSS_ENCODER):
        (place / "ranker" / name).unlink(missing_ok=True)
    shutil.rmtree(place / "ranker", ignore_errors=True)
