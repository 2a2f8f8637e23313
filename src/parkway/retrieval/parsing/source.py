"""Program text: a block for each definition that begins at the left margin, with the comments above it."""

from __future__ import annotations

import re
from pathlib import PurePath

from parkway.retrieval.document import Block, Parsed

LANGUAGES = {
    ".py": "python", ".pyi": "python", ".js": "javascript", ".mjs": "javascript", ".cjs": "javascript",
    ".jsx": "javascript",
    ".ts": "typescript", ".tsx": "typescript", ".java": "java", ".kt": "kotlin", ".kts": "kotlin", ".scala": "scala",
    ".c": "c", ".h": "c", ".cc": "c++", ".cpp": "c++", ".cxx": "c++", ".hpp": "c++", ".hh": "c++", ".cu": "cuda",
    ".cs": "c#", ".go": "go", ".rs": "rust", ".rb": "ruby", ".php": "php", ".swift": "swift", ".m": "objective-c",
    ".sh": "shell", ".bash": "shell", ".zsh": "shell", ".ps1": "powershell", ".pl": "perl", ".lua": "lua", ".r": "r",
    ".jl": "julia", ".hs": "haskell", ".ml": "ocaml", ".ex": "elixir", ".exs": "elixir", ".erl": "erlang",
    ".clj": "clojure",
    ".dart": "dart", ".zig": "zig", ".nim": "nim", ".sql": "sql", ".graphql": "graphql", ".proto": "protobuf",
    ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".ini": "ini", ".cfg": "ini", ".conf": "ini",
    ".properties": "ini",
    ".tf": "terraform", ".css": "css", ".scss": "css", ".less": "css", ".vue": "vue", ".svelte": "svelte",
    ".cedar": "cedar", ".cmake": "cmake", ".gradle": "gradle", ".vim": "vim", ".el": "lisp", ".lisp": "lisp",
}  # fmt: skip
_NAMES = {"dockerfile": "docker", "makefile": "make", "jenkinsfile": "groovy", "cmakelists.txt": "cmake"}

_GAP = re.compile(r"\n(?:[ \t]*+\n)+")


def language_of(name: str) -> str | None:
    """The programming language of a file with this name; None if it is none that is known."""
    path = PurePath(name.lower())
    return LANGUAGES.get(path.suffix) or _NAMES.get(path.name)


def read_source(text: str, language: str) -> Parsed:
    """Normalised text with its blocks: what an empty line parts, where the next line begins at the left margin."""
    blocks: list[Block] = []
    start = 0
    for match in _GAP.finditer(text):
        after = match.end()
        if after < len(text) and not text[after].isspace() and text[after] not in ")}]":
            _add(blocks, text, start, match.start())
            start = after
    _add(blocks, text, start, len(text))
    return Parsed(text, tuple(blocks), metadata={"language": language})


def _add(blocks: list[Block], text: str, start: int, end: int) -> None:
    inside = text[start:end]
    if inside.strip():
        begin = start + len(inside) - len(inside.lstrip("\n"))
        blocks.append(Block("code", begin, start + len(inside.rstrip())))
