"""The command line as a whole: help everywhere, suggestions, exit codes, no tracebacks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from parkway import __version__
from parkway.cli import main
from parkway.cli.main import COMMANDS, HIDDEN, program, run
from parkway.core.errors import ConfigurationError, StartupError

SUBCOMMANDS = {
    "key": ("create", "list", "show", "revoke"),
    "permissions": ("show", "validate", "check"),
    "guardrails": ("test",),
    "audit": ("list", "export", "verify"),
    "cache": ("clear",),
    "knowledge": ("add", "list", "status", "search", "rm", "eval", "train-ranker"),
    "train": ("park-mini",),
}
PATHS = [(), *((name,) for name in (*COMMANDS, *HIDDEN)), *((a, b) for a, names in SUBCOMMANDS.items() for b in names)]

FRESH = """
import sys
from parkway.cli.main import run
code = run(sys.argv[1:])
assert "torch" not in sys.modules, "the help of a command imports torch"
sys.exit(code)
"""


def test_every_subcommand_is_tested() -> None:
    for name in (*COMMANDS, *HIDDEN):
        command = program.get_command(click.Context(program), name)
        found = tuple(command.commands) if isinstance(command, click.Group) else ()
        assert found == SUBCOMMANDS.get(name, ()), name


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_help_has_an_example_and_imports_no_torch(path: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-c", FRESH, *path, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Example" in done.stdout
    assert f"  parkway {' '.join(path)}".rstrip() in done.stdout


def test_the_help_of_the_program_needs_nothing_heavy() -> None:
    code = "import sys; from parkway.cli.main import run; run(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    loaded = set(done.stdout.split())
    assert not loaded & {"torch", "sqlalchemy", "pydantic", "aiohttp", "uvicorn", "asyncio", "rich", "yaml"}


def test_python_m_parkway_is_the_same_program() -> None:
    done = subprocess.run([sys.executable, "-m", "parkway", "--version"], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == f"parkway, version {__version__}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["modls"], "No such command 'modls'. Did you mean 'models'?"),
        (["key", "crate", "x"], "Did you mean 'create'?"),
        (["up", "--prot", "1"], "Did you mean"),
        (["up", "--port", "99999"], "99999 is not in the range 0<=x<=65535"),
        (["key", "create"], "Missing argument 'NAME'"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_right(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("kind", [ConfigurationError, StartupError])
def test_an_error_of_ours_is_one_line_a_fault_and_its_exit_code(
    kind: type[ConfigurationError], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise kind("first\nsecond")

    monkeypatch.setattr(main.program, "main", fail)
    assert run([]) == kind.exit_code
    assert capsys.readouterr().err == "error: first\nerror: second\n"


def test_ctrl_c_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main.program, "main", interrupt)
    assert run([]) == 130


def test_a_reader_that_leaves_early_gets_no_complaint(tmp_path: Path) -> None:
    script = f"PARKWAY_HOME={tmp_path}/home {sys.executable} -m parkway key list --json | true"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
