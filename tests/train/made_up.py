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
