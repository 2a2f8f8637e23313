"""Makes the next generation of an index in a process of its own: `python -m parkway.retrieval.index.rebuild`.

It is given a copy of the present generation that nobody else has open, makes graphs of what has none, leaves out what
was removed, and catches up with what was changed meanwhile. Then it ends, and the owner opens what it made.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

import msgspec

from parkway.retrieval.index.apply import apply
from parkway.retrieval.index.config import IndexConfig
from parkway.retrieval.index.generation import Generation
from parkway.retrieval.index.journal import Position, read
from parkway.retrieval.index.words import Words

NEARLY_BYTES = 1 << 20
"""So near to the end of the journal it need not go on: the owner does the rest."""


class Order(msgspec.Struct, frozen=True):
    """What is to be made.

    Attributes:
        config: An `IndexConfig`, as JSON.
        mark: The highest that a passage of the copy carries.
        fields: Whose numbers get an index.
        start: The position in the journal that the copy corresponds to.
    """

    directory: str
    journal: str
    config: str
    dimensions: int
    mark: int
    fields: list[str]
    start: Position


class Made(msgspec.Struct, frozen=True):
    """Attributes:
    end: The position in the journal up to which the generation has everything.
    """

    end: Position


def rebuild(order: Order, config: IndexConfig) -> Made:
    """Carries out the order, whose configuration is `config`."""
    generation = Generation.load(Path(order.directory), (config, order.dimensions))
    generation.index_ranges(order.fields)
    generation.optimise(order.mark)
    words = Words(config.language)
    end = order.start
    while True:
        begun = end
        for record, position in read(Path(order.journal), end):
            apply(record, generation, words, order.dimensions, order.mark + 1)
            end = position
        if end[0] == begun[0] and end[1] - begun[1] < NEARLY_BYTES:
            break
    generation.flush()
    generation.retire(delete=False)
    return Made(end)


def _end_with_owner() -> None:
    """The kernel ends this process when its owner dies: a thread of ours could not, as Edge lets none run.

    Linux alone; elsewhere it goes on to the end, and what it made is removed when the index is opened again.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, int(signal.SIGKILL))


def main() -> None:
    _end_with_owner()
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    config = IndexConfig.model_validate_json(order.config)
    os.nice(config.build_niceness)
    sys.stdout.buffer.write(msgspec.json.encode(rebuild(order, config)))


if __name__ == "__main__":
    main()
