"""Names of one's own: "Extract an archive" asked as "extract photos.zip", and answered with that name.

A rule knows the nouns that a task may use for a thing and the placeholders that stand for it in the line. Where a task
has one such noun and its line one such placeholder, both take a drawn name.
"""

import random
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass

from parkway.train.everyday import WORDS

_WORDS: dict[str, list[str]] = tomllib.loads((WORDS / "names.toml").read_text(encoding="utf-8"))
_ARTICLE = (
    r"\b(?:an?|the|one|another|this)(?: (?:specific|specified|given|particular|single|certain|new|different|remote))?"
)


@dataclass(frozen=True, slots=True)
class Named:
    """A task in which things have names of their own."""

    task: str
    line: str
    names: tuple[str, ...]  # as they stand in both; empty where no rule applies


@dataclass(frozen=True, slots=True)
class _Rule:
    nouns: re.Pattern[str]  # with its article
    placeholder: re.Pattern[str]
    draw: Callable[[random.Random, str], str]  # a name in place of this placeholder
    quoted: bool = False  # named in quotes, as people do with texts

    def apply(self, given: Named, rng: random.Random) -> Named:
        """The task with a drawn name, or as it was where noun and placeholder do not match one to one."""
        found = {match[0] for match in self.placeholder.finditer(given.line)}
        nouns = list(self.nouns.finditer(given.task))
        if len(found) != 1 or len(nouns) != 1:
            return given
        name = self.draw(rng, found.pop())
        noun = nouns[0]["noun"]
        spoken = rng.choice((f'"{name}"', f"'{name}'", name)) if self.quoted else name
        phrase = rng.choice((spoken, spoken, f"the {noun} {spoken}", f"{noun} {spoken}", f"my {noun} {spoken}"))
        task = given.task[: nouns[0].start()] + phrase + given.task[nouns[0].end() :]
        return Named(task, self.placeholder.sub(lambda _: name, given.line), (*given.names, name))


def with_names(task: str, line: str, rng: random.Random) -> Named:
    """`task` and `line` with names of one's own wherever a rule finds a place for one."""
    named = Named(task, line, ())
    for rule in _RULES:
        if rng.random() < 0.8:
            named = rule.apply(named, rng)
    return named


def _rule(nouns: str, placeholder: str, draw: Callable[[random.Random, str], str], *, quoted: bool = False) -> _Rule:
    pattern = re.compile(rf"{_ARTICLE} (?P<noun>{nouns})(?! names?| ids?|[\w'’-])", re.IGNORECASE)
    return _Rule(pattern, re.compile(rf"(?<![\w/.-])(?:{placeholder})(?![\w/.-])"), draw, quoted)


def _file(rng: random.Random, placeholder: str) -> str:
    _, dot, ending = placeholder.rpartition("/")[2].partition(".")
    stem = _stem(rng)
    if not dot and rng.random() < 0.8:
        ending = rng.choice(_WORDS["endings"])
    path = rng.choice(_WORDS["parents"]) if rng.random() < 0.2 else ""
    return f"{path}{stem}.{ending}" if ending else f"{path}{stem}"


def _directory(rng: random.Random, _: str) -> str:
    if rng.random() < 0.3:
        return rng.choice(_WORDS["directories"])
    path = rng.choice(_WORDS["parents"]) if rng.random() < 0.3 else ""
    return path + _stem(rng) + rng.choice(("", "", "", "/"))


def _stem(rng: random.Random) -> str:
    word = rng.choice(_WORDS["stems"])
    word = rng.choice((word, word, word, word.capitalize(), word.upper()))
    second = rng.choice((*_WORDS["stems"], *(str(rng.randrange(1, 2030)) for _ in range(60))))
    return rng.choice((word, word, f"{word}_{second}", f"{word}-{second}", f"{word}{rng.randrange(1, 30)}"))


def _host(rng: random.Random, _: str) -> str:
    if rng.random() < 0.2:
        return ".".join(str(rng.randrange(1, 255)) for _ in range(4))
    host = rng.choice(_WORDS["hosts"])
    return host + rng.choice((*_WORDS["domains"], ""))


def _url(rng: random.Random, placeholder: str) -> str:
    scheme = placeholder.split("://")[0] if "://" in placeholder else "https"
    path = rng.choice(("", "", f"/{_stem(rng)}", f"/{_file(rng, 'file')}"))
    return f"{scheme}://{rng.choice(_WORDS['hosts'])}{rng.choice(_WORDS['domains'])}{path}"


def _plain(kind: str) -> Callable[[random.Random, str], str]:
    def draw(rng: random.Random, _: str) -> str:
        return rng.choice(_WORDS[kind]) + (str(rng.randrange(1, 100)) if rng.random() < 0.15 else "")

    return draw


def _number(rng: random.Random, _: str) -> str:
    return str(rng.randrange(100, 65536))


_PATH = r"path/to/"
_PACKED = r"(?:zip|tar\.gz|tar|tgz|rar|7z|gz|bz2|xz|tar\.xz|zst)"
_PICTURE = r"(?:png|jpe?g|gif|webp|tiff|bmp)"
_RULES = (
    _rule(
        rf"\.?{_PACKED}(?: archive| file)?|tarball|(?:zip |tar )?archive(?: file)?",
        _PATH + rf"(?:archive|file|compressed|compressed_file)\.{_PACKED}",
        _file,
    ),
    _rule(r"pdf(?: file| document)?", _PATH + r"(?:file|input|document|input_file)\.pdf", _file),
    _rule(
        r"(?:\w+ )?(?:image|picture|photo)(?: file)?", _PATH + rf"(?:image|input|input_image|file)\.{_PICTURE}", _file
    ),
    _rule(
        r"(?:\w+ )?(?:video|movie)(?: file)?",
        _PATH + r"(?:video|input|input_video|file)\.(?:mp4|mkv|avi|webm|mov)",
        _file,
    ),
    _rule(
        r"(?:\w+ )?(?:audio|sound|music)(?: file)?|song",
        _PATH + r"(?:audio|input|file|song)\.(?:mp3|wav|flac|ogg)",
        _file,
    ),
    _rule(r"(?:\w+ )?script", _PATH + r"script(?:\.\w+)?", _file),
    _rule(
        r"(?:\w+ )?file|document|path",
        _PATH + r"(?:file|input_file|input|source_file|config_file|text_file|new_file|local_file)(?:\.[\w.]+)?",
        _file,
    ),
    _rule(
        r"(?:working |source |target |output |local )?(?:directory|folder|dir)",
        _PATH + r"(?:directory|folder|source_directory|target_directory|output_directory)",
        _directory,
    ),
    _rule(
        r"package|library|program|app|application",
        r"(?<=install )package|package_name|(?<=remove )package",
        _plain("packages"),
    ),
    _rule(r"(?:\w+ )?branch", r"branch_name", _plain("branches")),
    _rule(
        r"(?:\w+ )?container",
        r"container_name|container_name_or_id|(?<=exec )container|(?<=stop )container",
        _plain("services"),
    ),
    _rule(r"service|unit|daemon", r"service_name|unit|service", _plain("services")),
    _rule(r"database", r"database_name", _plain("services")),
    _rule(r"user|account", r"username|user_name", _plain("people")),
    _rule(r"group", r"group_name", _plain("people")),
    _rule(r"process|program", r"process_name", _plain("packages")),
    _rule(r"process", r"process_id|pid", _number),
    _rule(r"URL|url|website|site|web page|page|address|link", r"https?://example\.com(?:/\w+)?", _url),
    _rule(r"host|server|domain|machine|website|site|hostname", r"example\.com|hostname|remote_host|host", _host),
    _rule(
        r"text|word|string|pattern|search pattern|regular expression|regex",
        r"search_pattern|pattern|(?<=\")text(?=\")|search_string|(?<=\")pattern(?=\")",
        _plain("texts"),
        quoted=True,
    ),
)
