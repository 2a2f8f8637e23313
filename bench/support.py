"""How often the check of grounded answers finds a true sentence supported, and a foreign one: claims of SciFact.

Experts wrote the claims in their own words, having read the abstract, some of them so that it refutes them. Beside it,
the same claims against the five abstracts of 400 others that share most of their words: nothing there supports them.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

from parkway.aggregate.grounding.support import Claim, Source, Support
from parkway.aggregate.grounding.words import content_of

_THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
_OTHERS, _NEAREST = 400, 5
_NOTHING = content_of("")


def source_of(document: dict[str, Any]) -> Source:
    """An abstract, ready to be cited."""
    return Source(document["text"], [document["title"]])


def best(claim: Claim, sources: list[Source]) -> float:
    """The most that one of them carries of the claim."""
    return max(_share(source.supports(claim)) for source in sources)


def _share(support: Support) -> float:
    return 0.0 if support.contradicted else support.share


def _lines(path: Path) -> dict[str, dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return {entry["_id"]: entry for entry in map(json.loads, file)}


def main() -> None:
    """Prints the share of claims at each threshold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="SciFact in BEIR's layout: corpus.jsonl, queries.jsonl, qrels/")
    parser.add_argument("--claims", type=int, default=250)
    given = parser.parse_args()
    documents, queries = _lines(given.folder / "corpus.jsonl"), _lines(given.folder / "queries.jsonl")
    judged: dict[str, list[str]] = {}
    for line in (given.folder / "qrels/train.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, document, _ = line.split("\t")
        judged.setdefault(query, []).append(document)
    chance = random.Random(1)
    others = {name: source_of(documents[name]) for name in chance.sample(sorted(documents), _OTHERS)}
    words = {name: content_of(documents[name]["text"]).words for name in others}
    own: list[float] = []
    foreign: list[float] = []
    for query in chance.sample(sorted(judged), given.claims):
        claim = Claim(queries[query]["text"], _NOTHING)
        own.append(best(claim, [source_of(documents[name]) for name in judged[query]]))
        near = sorted(others.keys() - judged[query], key=lambda name: -len(words[name] & claim.content.words))
        foreign.append(best(claim, [others[name] for name in near[:_NEAREST]]))
    print("min_support  supported by its own abstract  by the nearest of others")
    for threshold in _THRESHOLDS:
        shares = [sum(share >= threshold for share in found) / len(found) for found in (own, foreign)]
        print(f"{threshold:11.1f} {shares[0]:30.1%} {shares[1]:25.1%}")


if __name__ == "__main__":
    main()
