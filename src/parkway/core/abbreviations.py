"""Words behind which a full stop ends no sentence."""

from __future__ import annotations

_WORDS = (
    "al approx art bzw ca cf co corp dept dr e.g ed eds eg eq etc fig figs gen hon i.e ie inc jr lt ltd mr mrs ms no"
    " nos nr p para pp prof ref rep rev sec sen sr st u.s u.k usw vol vs z.b"
)
ABBREVIATIONS = frozenset(_WORDS.split())
"""Of English and German, in lower case, without their last full stop."""
