"""`parkway pull`, `list`, `show` and `rm`, from the hub to an engine that serves what was pulled."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from safetensors.torch import load

from parkway.core.errors import ModelFilesError
from parkway.launch import running
from parkway.launch.model_facts import read_facts
from parkway.launch.running import Running
from parkway.launch.settings import Settings
from parkway.store.home import Home
from parkway.store.models import readable_bytes
from tests.cli.conftest import Command
from tests.engine.tiny import CONFIGS, write_directory
from tests.launch.hub_server import COMMIT, HubServer

REPO = "acme/tiny"
TOKEN = "hf_secret0123456789"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    for name in ("HF_HOME", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_XET", "HF_HUB_VERBOSITY"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # given back after the test: a hub sets them
    monkeypatch.delenv("HF_TOKEN", raising=False)
    published = write_directory(tmp_path / "published", CONFIGS["qwen3-grouped-yarn"])
    (published / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n")
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        server.add(REPO, published)
        yield server


def size_of(hub: HubServer) -> int:
    """Bytes of the published model."""
    return sum(map(len, hub.repositories[REPO]["main"][1].values()))


def parameters_of(hub: HubServer) -> int:
    """How many numbers its weights hold, by the library of their format."""
    return sum(tensor.numel() for tensor in load(hub.repositories[REPO]["main"][1]["model.safetensors"]).values())


@contextmanager
def program(home: Home, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """`parkway ARGUMENTS` as a process of its own, ended with the context."""
    command = [sys.executable, "-m", "parkway", *arguments]
    variables = {**os.environ, "PARKWAY_HOME": str(home.path), **environment}
    with subprocess.Popen(
        command, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def test_a_pull_in_lines(parkway: Command, hub: HubServer, home: Home) -> None:
    done = parkway("pull", REPO)
    assert done.code == 0, done.err
    assert done.out == f"tiny is here ({readable_bytes(size_of(hub))}): parkway engine --model tiny\n"
    lines = done.err.splitlines()
    assert lines[0] == f"{REPO} at {COMMIT[:12]}: 5 files, {readable_bytes(size_of(hub))}"
    assert [line.split(" (")[0] for line in lines[1:]] == [
        "pulled config.json",
        "pulled README.md",
        "pulled tokenizer.json",
        "pulled tokenizer_config.json",
        "pulled model.safetensors",
    ]
    assert parkway("pull", REPO).err == f"tiny is here already, whole, at commit {COMMIT[:12]}\n"


def test_a_pull_that_goes_on_says_so(parkway: Command, hub: HubServer) -> None:
    hub.statuses[f"/{REPO}/resolve/{COMMIT}/model.safetensors"] = (403, {}, {})
    assert parkway("pull", REPO).code == 1
    hub.statuses.clear()
    done = parkway("pull", REPO)
    here = size_of(hub) - len(hub.repositories[REPO]["main"][1]["model.safetensors"])
    assert done.err.splitlines()[0].endswith(f", of which {readable_bytes(here)} are here already")
    assert done.err.splitlines()[1].startswith("pulled model.safetensors")


def test_the_options(parkway: Command, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    address = hub.url
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}\n")
    hub.add(REPO, Path("published"), revision="v2", commit="b" * 40)
    done = parkway("pull", f"{REPO}@v2", "--name", "second", "--endpoint", f"{address}/")
    assert done.out.startswith("second is here")
    assert hub.seen[0].headers["authorization"] == f"Bearer {TOKEN}"
    shown = parkway("show", "second", "--json").json
    assert (shown["revision"], shown["commit"], shown["endpoint"]) == ("v2", "b" * 40, address)
    assert TOKEN not in done.out + done.err + json.dumps(shown)


def test_errors_are_one_line_and_a_code(parkway: Command, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parkway("pull", "nonsense").code == 1
    assert "expected OWNER/NAME" in parkway("pull", "nonsense").err
    assert "cannot be the name" in parkway("pull", REPO, "--name", "../x").err
    done = parkway("pull", "acme/absent")
    assert (done.code, len(done.err.splitlines())) == (1, 1)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert parkway("pull", REPO, "--endpoint", "nowhere").code == 2


def test_a_pull_on_a_terminal_writes_to_the_home_alone(hub: HubServer, home: Home, tmp_path: Path) -> None:
    user = tmp_path / "user"
    user.mkdir()
    terminal, side = pty.openpty()
    command = [sys.executable, "-m", "parkway", "pull", REPO]
    elsewhere = {
        "HOME": str(user),
        "PARKWAY_HOME": str(home.path),
        "TERM": "xterm",
        "AI_AGENT": "x",
        "TMPDIR": str(user),
    }
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_"))}
    process = subprocess.Popen(
        command, env={**variables, **elsewhere, "HF_ENDPOINT": hub.url}, stdout=subprocess.PIPE, stderr=side, cwd=user
    )
    os.close(side)
    shown = b""
    with suppress(OSError):  # how a terminal says that nobody writes to it any more
        while piece := os.read(terminal, 65_536):
            shown += piece
    os.close(terminal)
    assert process.wait(30) == 0, shown
    assert process.stdout is not None
    assert process.stdout.read().startswith(b"tiny is here")
    process.stdout.close()
    assert "pulling model.safetensors" in shown.decode()
    assert list(user.rglob("*")) == []
    assert {seen.path.partition("/resolve/")[0] for seen in hub.seen} == {
        f"/api/models/{REPO}/revision/main", f"/{REPO}", f"/cdn/{REPO}"
    }, "nothing else is asked: no telemetry"  # fmt: skip


def test_two_pulls_at_once(parkway: Command, hub: HubServer, home: Home) -> None:
    hub.hold = threading.Event()
    with program(home, "pull", REPO) as first:
        assert hub.reached_hold.wait(30)
        second = parkway("pull", REPO)
        assert second.code == 1
        assert f"is being pulled or removed by another process (pid {first.pid})" in second.err
        assert "pulled" in parkway("rm", "tiny", "--yes").err
        assert [row["name"] for row in parkway("list", "--json").json] == ["park-mini", "park-embed"]
        hub.hold.set()
        out, _ = first.communicate(timeout=30)
    assert out.startswith("tiny is here")
    assert [row["name"] for row in parkway("list", "--json").json] == ["park-mini", "park-embed", "tiny"]


def test_a_killed_pull_goes_on(parkway: Command, hub: HubServer, home: Home) -> None:
    hub.hold = threading.Event()
    with program(home, "pull", REPO) as first:
        assert hub.reached_hold.wait(30)
        part = home.path / "models/.partial/tiny"
        size = len(hub.repositories[REPO]["main"][1]["model.safetensors"])
        while not any(path.stat().st_size > size // 2 for path in part.glob("model.*.part")):
            assert first.poll() is None
        first.kill()
        first.wait()
    hub.hold.set()
    hub.hold = None
    hub.seen.clear()
    assert parkway("pull", REPO).code == 0
    assert hub.requests_for("model.safetensors")[0].headers["range"].startswith("bytes=")


def test_a_file_too_large_for_the_file_system(hub: HubServer, home: Home) -> None:
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 21, 1 << 21)); "
    limited += "from parkway.cli.main import main; main(sys.argv[1:])"
    files = dict(hub.repositories[REPO]["main"][1], **{"README.md": b"x" * ((1 << 21) + 5)})
    hub.put(REPO, files)
    command = [sys.executable, "-c", limited, "pull", REPO]
    variables = {**os.environ, "PARKWAY_HOME": str(home.path)}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert "is full, or a limit on sizes is reached" in done.stderr
    (part,) = (home.path / "models/.partial/tiny").glob("README.md.*.part")
    assert part.stat().st_size == 1 << 21


def test_the_engine_serves_what_was_pulled(parkway: Command, hub: HubServer, home: Home) -> None:
    parkway("pull", REPO)
    with program(home, "engine", "--model", "tiny", "--port", "0") as engine:
        assert engine.stdout is not None
        line = engine.stdout.readline()
        assert line.startswith("ready http://"), engine.stderr and engine.stderr.read()
        question = {"model": "tiny", "max_tokens": 3, "messages": [{"role": "user", "content": "one two"}]}
        request = urllib.request.Request(
            f"{line.split()[1]}/v1/chat/completions",
            json.dumps(question).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            assert json.load(response)["usage"]["completion_tokens"] == 3


def test_the_configuration_names_a_pulled_model(parkway: Command, hub: HubServer, home: Home, tmp_path: Path) -> None:
    parkway("pull", REPO)
    (tmp_path / "tiny").mkdir()
    config = tmp_path / "parkway.yaml"
    config.write_text("models: {a: {path: tiny}, b: tiny, c: ./tiny, d: other, e: {endpoints: [{path: tiny}]}}")
    models = Settings.find(config).models
    pulled = str(home.path / "models" / "tiny")
    assert (models["a"].path, models["b"].path, models["e"].endpoints[0].path) == (pulled, pulled, pulled)
    assert (models["c"].path, models["d"].path) == (str(tmp_path / "tiny"), str(tmp_path / "other"))


def test_list(parkway: Command, hub: HubServer, home: Home) -> None:
    parkway("pull", REPO)
    built_in, embed, tiny = parkway("list", "--json").json
    assert (built_in["name"], built_in["built_in"], embed["name"]) == ("park-mini", True, "park-embed")
    assert tiny == {
        "name": "tiny",
        "size_bytes": size_of(hub),
        "parameters": parameters_of(hub),
        "family": "qwen3",
        "source": REPO,
        "built_in": False,
        "path": str(home.path / "models" / "tiny"),
    }
    table = parkway("list").out.splitlines()
    assert table[0].split() == ["model", "size", "parameters", "family", "source"]
    assert table[-1].split() == ["tiny", *readable_bytes(size_of(hub)).split(), "0.2", "M", "qwen3", REPO]


def test_show(parkway: Command, hub: HubServer) -> None:
    parkway("pull", REPO)
    shown = parkway("show", "tiny", "--json").json
    assert shown["facts"] == {
        "family": "qwen3",
        "architecture": None,
        "answers": ["/v1/chat/completions", "/v1/completions"],
        "context_tokens": 256,
        "parameters": parameters_of(hub),
        "dtype": "F32",
        "chat_template": True,
        "license": "mit",
    }
    assert [file["name"] for file in shown["files"]][:2] == ["config.json", "README.md"]
    text = parkway("show", "tiny").out
    for line in ("source         acme/tiny", f"revision       main, commit {COMMIT}", "chat template  yes"):
        assert line in text
    assert "parkway engine --model tiny" in text
    done = parkway("show", "tin")
    assert (done.code, done.err) == (
        1,
        'error: no model here is called "tin". Did you mean "tiny"? `parkway list` shows them\n',
    )


def test_show_of_a_built_in_model(parkway: Command) -> None:
    shown = parkway("show", "park-embed", "--json").json
    assert (shown["built_in"], shown["facts"]["answers"], shown["facts"]["family"]) == (
        True,
        ["/v1/embeddings"],
        "bert",
    )


def test_a_damaged_model_is_listed_with_its_problem(parkway: Command, hub: HubServer, home: Home) -> None:
    parkway("pull", REPO)
    (home.path / "models/tiny/config.json").write_text("{")
    assert parkway("list").out.splitlines()[-1].split()[3:] == ["-", "-", REPO]
    assert "cannot be read as JSON" in parkway("show", "tiny", "--json").json["problem"]
    assert "cannot be read as JSON" in parkway("show", "tiny").out


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0[]", b"\x08\0\0\0\0\0\0\0" + b'{"a":{}}'])
def test_facts_of_damaged_weights(tmp_path: Path, content: bytes) -> None:
    path = write_directory(tmp_path / "m", CONFIGS["qwen2-grouped-tied"])
    assert read_facts(path).dtype == "F32"
    (path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelFilesError, match=r"model\.safetensors"):
        read_facts(path)


def test_rm_asks(parkway: Command, hub: HubServer, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    parkway("pull", REPO)
    asked: list[str] = []

    def answer(question: str, abort: bool) -> None:
        asked.append(question)
        raise KeyboardInterrupt

    monkeypatch.setattr("click.confirm", answer)
    assert parkway("rm", "tiny").code == 130
    assert asked == [f"Delete tiny ({readable_bytes(size_of(hub))}, from acme/tiny)?"]
    assert (home.path / "models/tiny").is_dir()
    freed = sum(path.stat().st_size for path in (home.path / "models/tiny").iterdir())
    done = parkway("rm", "tiny", "--yes")
    assert (done.code, done.out) == (0, f"deleted tiny; {readable_bytes(freed)} are free again\n")
    assert not (home.path / "models/tiny").exists()
    assert 'no pulled model is called "tiny"' in parkway("rm", "tiny", "--yes").err


def test_rm_of_a_built_in_model(parkway: Command) -> None:
    done = parkway("rm", "park-mini", "--yes")
    assert done.code == 1
    assert "built-in model" in done.err


def test_rm_refuses_what_a_running_parkway_serves(parkway: Command, hub: HubServer, home: Home, tmp_path: Path) -> None:
    parkway("pull", REPO)
    config = tmp_path / "other.yaml"
    config.write_text("models: {a: {endpoints: [{path: tiny}]}}")
    snapshot = Settings.find(config).model_dump_json(exclude_unset=True)
    (home.path / "running.yaml").write_text(snapshot)
    running.write(home, Running(url="http://127.0.0.1:1", pid=os.getpid()))
    done = parkway("rm", "tiny", "--yes")
    assert done.code == 1
    assert f'Parkway at http://127.0.0.1:1 (pid {os.getpid()}) serves "tiny"' in done.err
    running.remove(home)
    assert parkway("rm", "tiny", "--yes").code == 0
