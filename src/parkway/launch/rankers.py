"""What a collection is ranked by: how those are loaded that were trained for it, and how a cross-encoder is kept."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec

from parkway.core.errors import ParkwayError
from parkway.core.ids import new_id
from parkway.engine.cross_encoder import CrossEncoder, CrossReader, save_cross_encoder
from parkway.engine.directory import ModelDirectory
from parkway.launch.ranker_files import CROSS_ENCODER, RANKER, CrossEncoderFile, Stamp, cross_encoder_of, stamp_of
from parkway.retrieval.index.directory import write_whole
from parkway.retrieval.ranking.config import RankingConfig
from parkway.retrieval.ranking.cross_ranking import CrossRanking
from parkway.retrieval.ranking.ranker import Ranker
from parkway.retrieval.ranking.sureness import Sureness

log = logging.getLogger(__name__)


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
            if (folder / RANKER).exists():
                ranker = Ranker.load(language, folder / RANKER)
            if reads and (about := cross_encoder_of(place)) is not None:
                reader = CrossReader(ModelDirectory(folder / about.directory))
                cross = CrossRanking(reader.scores, about.weight, config.depth, about.sureness)
        except ParkwayError as error:
            log.error("a ranker of the collection %s cannot be used: %s", place.name, error)
        return cls(ranker, cross, config, stamp, reader)

    def close(self) -> None:
        """Lets the thread of a cross-encoder end."""
        if self._reader is not None:
            self._reader.close()


def keep_cross_encoder(
    place: Path,
    model: CrossEncoder,
    start: ModelDirectory,
    weight: float,
    sureness: Sureness,
    about: dict[str, str],
) -> None:
    """Makes it the cross-encoder of the collection.

    Args:
        start: What it was trained from: it has the same tokenizer and shape.
    """
    folder = place / "ranker"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = new_id("cross-encoder")
    save_cross_encoder(folder / name, model, start)
    told = CrossEncoderFile(directory=name, weight=weight, sureness=sureness, about=about)
    write_whole(folder / CROSS_ENCODER, msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n")
    _clear(folder, name)


def _clear(folder: Path, kept: str) -> None:
    """Removes cross-encoders that have been replaced, or of which a killed training left a part."""
    for each in folder.glob("cross-encoder_*"):
        if each.name != kept:
            shutil.rmtree(each, ignore_errors=True)
