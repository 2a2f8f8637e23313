"""From which confidence on a collection should answer: weighed on questions that it can answer, and others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from parkway.retrieval.evaluation import Interval, Results, interval
from parkway.retrieval.ranking.fusion import Numbers

LEAST = 20
"""Questions of either kind, below which a threshold is chance."""

TOO_FEW = f"to recommend a min_confidence takes {LEAST} questions with an answer and {LEAST} without"

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """The confidence of both kinds of questions; float64 [questions of that kind]."""

    answerable: Numbers
    others: Numbers

    @classmethod
    def of(cls, results: Results) -> Calibration | None:
        """None where all questions are of one kind."""
        known = ~np.isnan(next(iter(results.measures.values())))
        found = cls(results.confidence[known], results.confidence[~known])
        return found if len(found.answerable) and len(found.others) else None

    def answered(self, threshold: float) -> Interval:
        """The share of the questions with an answer that get one."""
        return interval((self.answerable >= threshold).astype(float))

    def false_answers(self, threshold: float) -> Interval:
        """The share of the questions without an answer that get one."""
        return interval((self.others >= threshold).astype(float))

    @property
    def told_apart(self) -> float:
        """How often confidence is higher where there is an answer than where there is none: 0.5 is chance (AUC)."""
        ordered = np.sort(self.others)
        lower, not_higher = (np.searchsorted(ordered, self.answerable, side) for side in ("left", "right"))
        return float((lower.mean() + not_higher.mean()) / 2 / len(ordered))

    @property
    def recommended(self) -> float | None:
        """The threshold at which the share that is answered is furthest above that of false answers; where several
        are, the one in the middle of the longest run. In steps of a hundredth. None where there are too few questions.

        Source: Youden, "Index for rating diagnostic tests", 1950.
        """
        if min(len(self.answerable), len(self.others)) < LEAST:
            return None
        steps = np.arange(1, 100) / 100
        gain = np.array([(self.answerable >= at).mean() - (self.others >= at).mean() for at in steps])
        best = np.flatnonzero(gain >= gain.max() - 1e-9)
        runs = np.split(best, np.flatnonzero(np.diff(best) > 1) + 1)
        longest = max(runs, key=len)
        return float(steps[longest[len(longest) // 2]])


def table(found: Calibration, more: Sequence[float] = ()) -> str:
    """What each threshold does, as Markdown.

    Args:
        more: Thresholds beside the usual ones.
    """
    lines = [
        "| min_confidence | answered, of those with an answer | false answers, of those without |",
        "|---|---|---|",
    ]
    for threshold in sorted({*THRESHOLDS, *more}):
        cells = (_share(found.answered(threshold)), _share(found.false_answers(threshold)))
        lines.append(f"| {threshold:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _share(found: Interval) -> str:
    return f"{found.mean:.0%} ({found.low:.0%} to {found.high:.0%})"
