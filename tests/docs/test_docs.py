"""The pages say what the code does: links lead somewhere, and every key, code, route and option is told."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from parkway.cli.main import COMMANDS
from parkway.core.configuration import Section, parse
from parkway.core.errors import ConfigurationError, ParkwayError, StartupError
from parkway.feedback.metrics import Metrics
from parkway.gateway.openapi import OPERATIONS, Operation
from parkway.launch.settings import ModelConfig, Settings

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXTS = {path: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *PAGES)}
BUILT_MODEL = ROOT / "src/parkway/models/park-mini"

_FENCE = re.compile(r"^(```+)(\w*)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_KEY_ROW = re.compile(r"^\| `(\w+)` \| `(.+?)` \|", re.MULTILINE)
_CODE_ROW = re.compile(r"^\| `(\w+)` \| (\d+) \|", re.MULTILINE)


def prose(path: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", TEXTS[path])


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """The fenced blocks in `language`, each with the name of its page."""
    for path, text in TEXTS.items():
        for _, kind, body in _FENCE.findall(text):
            if kind == language:
                yield path.name, body


def anchors(path: Path) -> set[str]:
    """The headings of a page, as links name them."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in _HEADING.findall(prose(path))}


def links() -> list[tuple[Path, str]]:
    found = [(path, target) for path in TEXTS for target in _LINK.findall(prose(path))]
    return [(path, target) for path, target in found if "://" not in target]


@pytest.mark.parametrize(("path", "target"), links(), ids=lambda value: getattr(value, "name", value))
def test_a_link_leads_somewhere(path: Path, target: str) -> None:
    file, _, anchor = target.partition("#")
    led_to = (path.parent / file).resolve() if file else path
    if led_to.is_relative_to(BUILT_MODEL) and not BUILT_MODEL.exists():
        pytest.skip("park-mini has not been trained in this checkout")
    assert led_to.exists(), f"{path.name}: {target}"
    if anchor:
        assert anchor in anchors(led_to), f"{path.name}: {led_to.name} has no heading for #{anchor}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_is_linked_from_the_readme(path: Path) -> None:
    assert f"docs/{path.name}" in _LINK.findall(TEXTS[ROOT / "README.md"])


def keys_of(section: type[Section]) -> dict[str, FieldInfo]:
    """The keys that a file may set: what all engines share inherits some that it then refuses."""
    return {name: field for name, field in section.model_fields.items() if not refuses(section, name)}


def refuses(section: type[Section], name: str) -> bool:
    """Whether the section does not take this key, even at its default."""
    try:
        section.model_validate({name: section.model_fields[name].default})
    except ValidationError:
        return True
    return False


def tables() -> dict[str, dict[str, str]]:
    """Heading -> key -> default, of the page on configuration."""
    _, *parts = re.split(r"^## (.+)$", prose(ROOT / "docs/configuration.md"), flags=re.MULTILINE)
    titles = [title.strip("`") for title in parts[::2]]
    return {title: dict(_KEY_ROW.findall(body)) for title, body in zip(titles, parts[1::2], strict=True)}


def sections() -> dict[str, dict[str, FieldInfo]]:
    """The same from the code."""
    found: dict[str, dict[str, FieldInfo]] = {"Top level": {}, "models": dict(ModelConfig.model_fields)}
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found[name] = keys_of(field.annotation)
        elif name != "models":
            found["Top level"][name] = field
    return found


def test_every_section_has_its_table() -> None:
    assert {title for title, rows in tables().items() if rows} == set(sections())


@pytest.mark.parametrize("section", sections())
def test_every_key_is_told_with_its_default(section: str) -> None:
    told = {key: yaml.safe_load(default) for key, default in tables()[section].items()}
    assert told == {key: _as_written(field.default) for key, field in sections()[section].items()}


def _as_written(default: object) -> object:
    return default.model_dump(exclude_unset=True) if isinstance(default, Section) else default


def test_the_keys_of_the_engine_that_it_takes_from_models_are_not_told() -> None:
    assert not {"model", "name", "host", "port", "adapters"} & set(tables()["engine"])
    assert {"dtype", "threads"} <= set(tables()["engine"])


def errors(root: type[ParkwayError] = ParkwayError) -> Iterator[type[ParkwayError]]:
    """Every class of core/errors.py; `code` is a class variable of each."""
    yield root
    for child in root.__subclasses__():
        if child.__module__ == root.__module__:
            yield from errors(child)


def test_every_error_code_is_told_with_its_status() -> None:
    terminal = (ConfigurationError, StartupError)
    expected = {error.code: str(error.exit_code if issubclass(error, terminal) else error.status) for error in errors()}
    assert dict(_CODE_ROW.findall(TEXTS[ROOT / "docs/gateway.md"])) == expected


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: f"{operation.method} {operation.path}")
def test_every_route_is_told(operation: Operation) -> None:
    told = re.compile(rf"`({operation.method.upper()} )?{re.escape(operation.path)}[`?]")
    rows = [line for text in TEXTS.values() for line in text.splitlines() if told.search(line)]
    assert any(operation.method.upper() in line for line in rows)


def test_every_metric_is_told() -> None:
    page = TEXTS[ROOT / "docs/feedback.md"]
    names = [metric.name for metric in Metrics(lambda: []).registry.collect()]
    assert names
    missing = [name for name in names if name.startswith("parkway_") and f"`{name}" not in page]
    assert not missing


def options(command: click.Command) -> Iterator[str]:
    """The long names of all options that a command, or one below it, shows."""
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            yield max(parameter.opts, key=len)
    if isinstance(command, click.Group):
        for child in command.commands.values():
            yield from options(child)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_told_with_its_options(name: str) -> None:
    page = TEXTS[ROOT / "docs/terminal.md"]
    _, heading, rest = page.partition(f"\n## `parkway {name}`\n")
    assert heading, f"docs/terminal.md has no section for parkway {name}"
    told = rest.split("\n## ")[0]
    command = importlib.import_module(f"parkway.cli.{name}").command
    missing = {option for option in options(command) if not re.search(rf"{option}\b", told)}
    assert not missing


@pytest.mark.parametrize(("page", "text"), list(blocks("yaml")), ids=lambda value: value[:20])
def test_an_example_of_a_configuration_is_one(page: str, text: str) -> None:
    if text.startswith("# parkway.yaml\n"):
        assert parse(text, Settings, source=page).model_fields_set


def test_there_are_examples_of_a_configuration() -> None:
    assert sum(text.startswith("# parkway.yaml\n") for _, text in blocks("yaml")) >= 4
