"""Texts by rule: templates whose `{slots}` are filled by drawing, again and again, until none is left to fill."""

import random
import re
from collections.abc import Mapping, Sequence

_SLOT = re.compile(r"\{(\w+)\}")


def expand(template: str, slots: Mapping[str, Sequence[str]], rng: random.Random) -> str:
    """Fill every `{slot}` that `slots` knows with one of its texts, which may have slots too; leave the others."""

    def fill(found: re.Match[str]) -> str:
        texts = slots.get(found[1])
        return found[0] if texts is None else expand(rng.choice(texts), slots, rng)

    return _SLOT.sub(fill, template)
