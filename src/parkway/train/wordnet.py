"""WordNet's nouns by field of meaning, and its sentences: what has nothing to do with a terminal.

Read from the files of Princeton's database, which Debian ships as `wordnet-base`; their format is wndb(5WN).
"""

import re
from collections import defaultdict
from collections.abc import Set
from pathlib import Path

from parkway.core.errors import ConfigurationError

# Lexicographer files, lexnames(5WN), by the names of the slots that they fill.
_FIELDS = {
    4: "act", 5: "animal", 6: "artifact", 7: "attribute", 8: "body", 9: "idea", 11: "event", 12: "feeling", 13: "food",
    14: "group", 15: "location", 17: "object", 18: "people", 19: "phenomenon", 20: "plant", 22: "process", 26: "state",
    27: "substance",
}  # fmt: skip
_INSTANCE = "@i"  # the pointer of a noun that is a name: Paris is an instance of a city
_NAMED = {15: "place", 17: "place", 18: "person"}
_EXAMPLE = re.compile(r'"([^"]+)"')
_RANKS = frozenset({"genus", "family", "order", "suborder", "subfamily", "class", "subclass", "phylum", "superfamily"})
_COMPUTING = ("comput", "software", "program", "internet", "file", "digital", "unix", "data", "keyboard")


def read_wordnet(directory: Path, known: Set[str]) -> dict[str, list[str]]:
    """Nouns by slot, and examples of use as `sentence`.

    A noun that WordNet's own texts use stands five times, since people say it oftener.

    Args:
        directory: holds data.noun, data.verb and cntlist.rev.
        known: lower-case words of the field; a noun that contains one of them is left out.

    Raises:
        ConfigurationError: a file cannot be read.
    """
    try:
        nouns, verbs = (
            (directory / name).read_text(encoding="utf-8").splitlines() for name in ("data.noun", "data.verb")
        )
        counts = (directory / "cntlist.rev").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{directory}: no WordNet database: {error}; on Debian: apt-get install wordnet-base"
        ) from error
    used = {row.split("%", 1)[0] for row in counts}
    found: dict[str, list[str]] = defaultdict(list)
    for row in nouns:
        if row.startswith("  "):  # the licence at the head of the file
            continue
        fields, _, gloss = row.partition(" | ")
        if any(word in gloss for word in _COMPUTING):
            continue
        _, lexicographer, _, size, *rest = fields.split(" ")
        words = rest[: 2 * int(size, 16) : 2]
        number = int(lexicographer)
        slot = _NAMED.get(number) if _INSTANCE in rest else _FIELDS.get(number)
        for word in words if slot else ():
            noun = word.replace("_", " ")
            if _usable(noun, known):
                found[slot or ""] += [noun] * (5 if word.lower() in used else 1)
    for row in (*nouns, *verbs):
        _, _, gloss = row.partition(" | ")
        if not any(word in gloss for word in _COMPUTING):
            found["sentence"] += [text for text in _EXAMPLE.findall(gloss) if len(text.split()) > 3]
    return dict(found)


def _usable(noun: str, known: Set[str]) -> bool:
    words = noun.lower().replace("-", " ").split()
    return len(noun) > 2 and not noun[0].isdigit() and not known & set(words) and words[0] not in _RANKS
