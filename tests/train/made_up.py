"""A corpus small enough to train on in a test: made-up programs, in the form of tldr-pages."""

import json
from pathlib import Path

from parkway.train.config import MiniConfig

VERBS = ("List", "Create", "Remove", "Compress", "Rename", "Count")
THINGS = ("files", "archives", "branches", "containers", "users")


def write_corpus(path: Path) -> Path:
    """Write 30 examples of 5 programs, one of them on a platform that is not read."""
    rows = [
        {
            "platform": "common",
            "command": f"do{thing[:4]}",
            "about": f"Handle {thing}. More information elsewhere.",
            "task": f"{verb} {thing} in a [d]irectory",
            "line": f"do{thing[:4]} {{{{[-{verb[0].lower()}|--{verb.lower()}]}}}} {{{{path/to/directory}}}}",
        }
        for thing in THINGS
        for verb in VERBS
    ]
    rows.append({"platform": "windows", "command": "dir", "about": "x.", "task": "List files", "line": "dir"})
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


def small_config(folder: Path, **changes: object) -> MiniConfig:
    """A run of a tiny model on the made-up corpus."""
    given: dict[str, object] = {
        "data": write_corpus(folder / "examples.jsonl"),
        "out": folder / "model",
        "held_out": 4,
        "rows": 4,
        "row_tokens": 128,
        "vocab_size": 600,
        "hidden_size": 32,
        "layers": 2,
        "heads": 2,
        "intermediate_size": 48,
        "context": 256,
        "threads": 1,
        "compile": False,
        "log_steps": 5,
        "examine_steps": 10,
        "questions": 3,
    }
    return MiniConfig.model_validate(given | changes)


def write_wordnet(folder: Path) -> None:
    """Write a database of four nouns and a verb, in the format of wndb(5WN)."""
    head = "  1 This software and database is being provided to you.  \n"
    nouns = (
        "02082690 05 n 02 aardvark 0 ant_bear 0 001 @ 02075296 n 0000 | nocturnal burrowing mammal",
        '00000002 06 n 01 archive 0 000 | a place for records; "he looked it up in the archive"',
        '00000003 06 n 01 floppy 0 000 | a small disk for computers; "he lost the floppy again"',
        '00000004 15 n 01 Paris 0 001 @i 08691669 n 0000 | the capital of France; "they met in rainy Paris"',
        "00000005 05 n 01 genus_Felis 0 000 | type genus of the Felidae",
    )
    (folder / "data.noun").write_text(head + "\n".join(nouns) + "\n", encoding="utf-8")
    verb = '00000006 30 v 01 run 0 000 01 + 08 00 | move fast; "the children ran to the store"; "run!"'
    (folder / "data.verb").write_text(head + verb + "\n", encoding="utf-8")
    (folder / "cntlist.rev").write_text("aardvark%1:05:00:: 1 3\nrun%2:38:00:: 1 106\n", encoding="utf-8")
