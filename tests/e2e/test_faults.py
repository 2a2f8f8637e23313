"""What is killed, left or full: the client learns it, the next request works, nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import openai
import pytest

from tests.running import Parkway, children, resident_mib

MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def parkway(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parkway]:
    """A Parkway that these tests may hurt."""
    settings: dict[str, object] = {
        "models": {"tiny": str(tiny_model)},
        "limits": {"rate_per_s": 10_000, "burst": 10_000},
        "engine": {"max_sequences": 8},  # keys and values of 8 sequences are 25 MiB, once each has been full
    }
    with Parkway(tmp_path_factory.mktemp("home"), settings) as running:
        yield running


def eventually(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds:g} s: {what}")


def outcomes(parkway: Parkway) -> list[str]:
    with contextlib.closing(sqlite3.connect(parkway.home / "parkway.db")) as database:
        return [row[0] for row in database.execute("SELECT outcome FROM requests ORDER BY request_id")]


def answers(client: openai.OpenAI) -> bool:
    with contextlib.suppress(openai.APIError):
        client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=1)  # pyright: ignore
        return True
    return False


def test_kill_9_of_the_engine_in_the_middle_of_a_stream(client: openai.OpenAI, parkway: Parkway) -> None:
    stream = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=8000, stream=True)  # pyright: ignore
    next(stream)
    next(stream)
    os.kill(parkway.process("engine"), signal.SIGKILL)
    with pytest.raises(openai.APIError) as broken:
        for _ in stream:
            pass
    assert broken.value.code == "stream_interrupted"
    eventually(lambda: answers(client), "the restarted engine answers")
    assert "stream_interrupted" in outcomes(parkway)
    assert any("engine tiny" in line and "signal 9" in line for line in parkway.said)


def test_kill_9_of_the_gateway(client: openai.OpenAI, parkway: Parkway) -> None:
    extra = parkway.command("key", "create", "second", "--json").stdout
    asked = client.chat.completions.create(
        model="tiny",
        messages=MESSAGES,  # pyright: ignore
        max_tokens=3,
        extra_body={"conversation": "kept"},
    )
    gateway = parkway.process("gateway")
    os.kill(gateway, signal.SIGKILL)
    eventually(lambda: answers(client), "the restarted gateway answers")
    assert parkway.process("gateway") != gateway
    conversation = client.get("/conversations/kept", cast_to=object)
    assert isinstance(conversation, dict)
    assert [message["content"] for message in conversation["messages"]] == [
        "hello",
        asked.choices[0].message.content,
    ]
    assert "second" in parkway.command("key", "list").stdout
    assert extra


@pytest.fixture(scope="module")
def watched(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parkway]:
    """A Parkway that soon takes a process to hang."""
    settings: dict[str, object] = {"models": {"tiny": str(tiny_model)}, "liveness_s": 3}
    with Parkway(tmp_path_factory.mktemp("home"), settings) as running:
        yield running


@pytest.mark.parametrize("process", ["gateway", "engine"])
def test_a_process_that_hangs_is_started_again(watched: Parkway, process: str) -> None:
    with openai.OpenAI(base_url=f"{watched.url}/v1", api_key=watched.key, max_retries=0, timeout=5) as client:
        assert answers(client)
        hanging = watched.process(process)
        os.kill(hanging, signal.SIGSTOP)
        eventually(lambda: answers(client), "the process is started again and answers")
    assert watched.process(process) != hanging
    assert any(process in line and "has not answered for 3 s" in line for line in watched.said)


async def test_200_clients_that_leave_in_the_middle(parkway: Parkway) -> None:
    headers = {"authorization": f"Bearer {parkway.key}"}
    body = {"model": "tiny", "messages": MESSAGES, "max_tokens": 8000, "stream": True}

    async def leave(session: aiohttp.ClientSession, reads: int) -> None:
        async with session.post(f"{parkway.url}/v1/chat/completions", json=body, headers=headers) as response:
            assert response.status == 200
            for _ in range(reads):
                await response.content.readany()

    async def crowd(session: aiohttp.ClientSession) -> None:
        await asyncio.gather(*(leave(session, reads=number % 3) for number in range(200)))

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        await crowd(session)  # the first crowd warms allocators up
        gateway, engine = parkway.process("gateway"), parkway.process("engine")
        before = resident_mib(gateway), resident_mib(engine)
        for _ in range(3):
            await crowd(session)
        started = time.monotonic()
        async with session.post(
            f"{parkway.url}/v1/chat/completions", json={**body, "max_tokens": 1, "stream": False}, headers=headers
        ) as response:
            assert response.status == 200  # a slot is free: the 600 are not in the way
        assert time.monotonic() - started < 60
    eventually(lambda: outcomes(parkway).count("cancelled") >= 600, "every client that left is in the log")
    assert resident_mib(gateway) < before[0] + 30
    assert resident_mib(engine) < before[1] + 60


def test_a_second_up_on_the_same_home_says_so_and_exits(parkway: Parkway) -> None:
    second = parkway.command("up", "--port", "0", check=False)
    assert second.returncode != 0
    assert str(parkway.up.pid) in second.stderr
    assert "Traceback" not in second.stderr


def test_a_taken_port_is_named(parkway: Parkway, tmp_path: Path) -> None:
    port = parkway.url.rpartition(":")[2]
    other = Parkway(tmp_path / "other", {})
    other.home.mkdir()
    taken = other.command("up", "--port", port, check=False)
    assert taken.returncode != 0
    assert port in taken.stderr
    assert "Traceback" not in taken.stderr


def test_sigterm_lets_a_running_stream_finish(tiny_model: Path, tmp_path: Path) -> None:
    with Parkway(tmp_path / "home", {"models": {"tiny": str(tiny_model)}}) as running:
        with openai.OpenAI(base_url=f"{running.url}/v1", api_key=running.key, max_retries=0) as client:
            stream = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=100, stream=True)  # pyright: ignore
            next(stream)
            family = set(children(running.up.pid))
            running.up.send_signal(signal.SIGTERM)
            rest = list(stream)
            assert rest[-1].choices[0].finish_reason == "length"
            with pytest.raises(openai.APIConnectionError):
                eventually(lambda: not answers_or_raises(client), "nothing new is taken")
        assert running.up.wait(60) == 0
    assert family
    eventually(lambda: not any(alive(pid) for pid in family), "no process is left")


def test_a_stream_that_outlasts_the_drain_is_told(tiny_model: Path, tmp_path: Path) -> None:
    settings: dict[str, object] = {"models": {"tiny": str(tiny_model)}, "gateway": {"drain_s": 1}}
    with Parkway(tmp_path / "home", settings) as running:
        with openai.OpenAI(base_url=f"{running.url}/v1", api_key=running.key, max_retries=0) as client:
            stream = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=8000, stream=True)  # pyright: ignore
            next(stream)
            running.up.send_signal(signal.SIGTERM)
            with pytest.raises(openai.APIError) as cut:
                list(stream)
            assert cut.value.code == "draining"
        assert running.up.wait(60) == 0
        assert outcomes(running)[-1] == "draining"


def answers_or_raises(client: openai.OpenAI) -> bool:
    """Whether a new request is answered; a refusal in words counts as no, a refused connection raises."""
    try:
        client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=1)  # pyright: ignore
    except openai.APIStatusError:
        time.sleep(0.1)
    return True


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_kill_9_of_the_parent_leaves_no_orphan(tiny_model: Path, tmp_path: Path) -> None:
    with Parkway(tmp_path / "home", {"models": {"tiny": str(tiny_model)}}) as running:
        eventually(lambda: len(children(running.up.pid)) >= 3, "gateway, engine and worker run")
        family = set(children(running.up.pid))
        running.up.kill()
        running.up.wait(10)
        eventually(lambda: not any(alive(pid) for pid in family), "no process is left")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("gateway:\n  prt: 80\n", 'parkway.yaml:2: gateway.prt: unknown key. Did you mean "port"?'),
        ("models:\n  m: /no/such/folder\n", "/no/such/folder"),
        ("models:\n  m:\n    url: ftp://x\n", "parkway.yaml:3: models.m.url"),
    ],
)
def test_a_wrong_configuration_is_told_at_start(tmp_path: Path, written: str, said: str) -> None:
    home = Parkway(tmp_path / "home", {})
    home.home.mkdir()
    (home.home / "parkway.yaml").write_text(written)
    refused = home.command("up", "--port", "0", check=False)
    assert refused.returncode != 0
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
