"""The rankers of a collection: where those lie that were trained for it, and how they are loaded and replaced.

In `ranker/` of the collection's directory `ranker.json` has the weights of the ranker, `cross-encoder.json` the name of
the directory beside it in which a cross-encoder lies. Both are replaced as a whole; each may be missing.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec

from parkway.core.errors import ConfigurationError, ParkwayError
from parkway.core.ids import new_id
from parkway.engine.cross_encoder import CrossEncoder, CrossReader, save_cross_encoder
from parkway.engine.directory import ModelDirectory
from parkway.retrieval.index.directory import write_whole
from parkway.retrieval.ranking.config import RankingConfig
from parkway.retrieval.ranking.cross_ranking import CrossRanking
from parkway.retrieval.ranking.ranker import Ranker, Weights

log = logging.getLogger(__name__)

_RANKER, _CROSS_ENCODER = "ranker.json", "cross-encoder.json"

Stamp = tuple[tuple[int, int], ...]


class CrossEncoderFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """cross-encoder.json.

    Attributes:
        directory: Its name.
        weight: Of its score, beside 1 of the rank.
        about: On what it was trained, and what was measured.
    """

    directory: str
    weight: float
    about: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Rankers:
    """What a collection is ranked by.

    Attributes:
        config: With which they were loaded.
        stamp: Another one once there are others.
    """

    ranker: Ranker
    cross: CrossRanking | None
    config: RankingConfig
    stamp: Stamp
    _reader: CrossReader | None = None

    @classmethod
    def of(cls, place: Path, language: str, config: RankingConfig, *, reads: bool = True) -> Rankers:
        """Those of the collection whose directory is `place`, or the one that is shipped. Blocks while it loads.

        What cannot be read is told in the log, and the collection is searched without it.

        Args:
            reads: Whether a cross-encoder is to be loaded, too.
        """
        stamp = stamp_of(place)
        ranker, cross, reader = Ranker.load(language), None, None
        folder = place / "ranker"
        try:
            if (folder / _RANKER).exists():
                ranker = Ranker.load(language, folder / _RANKER)
            if reads and (about := cross_encoder_of(place)) is not None:
                reader = CrossReader(ModelDirectory(folder / about.directory))
                cross = CrossRanking(reader.scores, about.weight, config.depth)
        except ParkwayError as error:
            log.error("a ranker of the collection %s cannot be used: %s", place.name, error)
        return cls(ranker, cross, config, stamp, reader)

    def close(self) -> None:
        """Lets the thread of a cross-encoder end."""
        if self._reader is not None:
            self._reader.close()


def stamp_of(place: Path) -> Stamp:
    """Of the rankers that the collection has now."""
    found: list[tuple[int, int]] = []
    for name in (_RANKER, _CROSS_ENCODER):
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
    path = place / "ranker" / _CROSS_ENCODER
    try:
        return msgspec.json.decode(path.read_bytes(), type=CrossEncoderFile)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}") from error


def keep_ranker(place: Path, weights: Weights) -> None:
    """Makes it the ranker of the collection."""
    (place / "ranker").mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(place / "ranker" / _RANKER, msgspec.json.format(msgspec.json.encode(weights), indent=2) + b"\n")


def keep_cross_encoder(
    place: Path, model: CrossEncoder, start: ModelDirectory, weight: float, about: dict[str, str]
) -> None:
    """Makes it the cross-encoder of the collection.

    Args:
        start: What it was trained from: it has the same tokenizer and shape.
    """
    folder = place / "ranker"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = new_id("cross-encoder")
    save_cross_encoder(folder / name, model, start)
    told = CrossEncoderFile(directory=name, weight=weight, about=about)
    write_whole(folder / _CROSS_ENCODER, msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n")
    _clear(folder, name)


def forget(place: Path) -> None:
    """Has the collection ranked by what is shipped again."""
    for name in (_RANKER, _CROSS_ENCODER):
        (place / "ranker" / name).unlink(missing_ok=True)
    shutil.rmtree(place / "ranker", ignore_errors=True)


def _clear(folder: Path, kept: str) -> None:
    """Removes cross-encoders that have been replaced, or of which a killed training left a part."""
    for each in folder.glob("cross-encoder_*"):
        if each.name != kept:
            shutil.rmtree(each, ignore_errors=True)
