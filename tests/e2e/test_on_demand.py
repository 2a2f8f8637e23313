"""Models that are loaded when they are asked for, as real processes: nothing is lost, nothing is left, all in turn."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from parkway.launch.control import ModelState, overview
from parkway.store.home import Home
from parkway.store.models import FileRecord, Manifest, PulledModels
from tests.engine.tiny import CONFIGS, write_directory
from tests.launch.stage import processes_of, wait_until
from tests.running import Parkway

TINY = {**CONFIGS["qwen3-grouped-yarn"], "max_position_embeddings": 8192}
KEEP_ALIVE_S = 2.0  # the least that a model stays
ONE_ENGINE = 550_000_000  # one of the tiny models fits, two do not


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directories of models: two that work, one whose weights do not fit its sizes, one that is too large."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("one", "two", "torn", "huge"):
        write_directory(folder / name, TINY)
    _change(folder / "torn", num_hidden_layers=4)
    _change(folder / "huge", num_key_value_heads=16, num_attention_heads=16, head_dim=128)
    return folder


@pytest.fixture(scope="module")
def parkway(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parkway]:
    with Parkway(tmp_path_factory.mktemp("home"), _settings(models)) as running:
        yield running


def _settings(models: Path) -> dict[str, object]:
    entries = {
        name: {"path": str(models / name), "load": "on_demand", "keep_alive_s": KEEP_ALIVE_S if name == "one" else 300}
        for name in ("one", "two", "torn", "huge")
    }
    return {"models": entries, "memory_bytes": ONE_ENGINE, "engine": {"max_sequences": 4, "drain_s": 20}}


def _change(path: Path, **sizes: int) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, **sizes}))


def _state(parkway: Parkway, name: str) -> ModelState:
    found = overview(Home(parkway.home))
    assert found is not None
    return next(model for model in found.models if model.name == name)


def _is(parkway: Parkway, name: str, state: str) -> bool:
    return _state(parkway, name).state == state


def _chat(parkway: Parkway, model: str, tokens: int = 4) -> tuple[int, bytes]:
    """Status and body of a streamed answer."""
    response = _open(parkway, model, tokens)
    return response.status, response.read()


def _open(parkway: Parkway, model: str, tokens: int) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(str(urlsplit(parkway.url).netloc), timeout=90)
    messages = [{"role": "user", "content": "hello"}]
    body = json.dumps({"model": model, "messages": messages, "stream": True, "max_tokens": tokens})
    connection.request("POST", "/v1/chat/completions", body, {"authorization": f"Bearer {parkway.key}"})
    return connection.getresponse()


def _whole(answer: tuple[int, bytes]) -> bool:
    status, body = answer
    return status == 200 and body.rstrip().endswith(b"data: [DONE]")


def _later(work: object, *arguments: object) -> Future[tuple[int, bytes]]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(work, *arguments)  # type: ignore[arg-type]
    pool.shutdown(wait=False)
    return future


def _loads(parkway: Parkway, name: str) -> int:
    return sum(f" loading {name} (needs " in line for line in parkway.said)


def test_parkway_is_ready_while_all_its_models_sleep(parkway: Parkway) -> None:
    connection = http.client.HTTPConnection(str(urlsplit(parkway.url).netloc), timeout=30)
    connection.request("GET", "/readyz")
    assert connection.getresponse().status == 200
    assert "one" in parkway.command("models").stdout


def test_twenty_requests_at_once_load_it_once_and_idleness_ends_its_process(parkway: Parkway) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: _chat(parkway, "one"), range(20)))
    assert all(_whole(answer) for answer in answers)
    assert _loads(parkway, "one") == 1
    pid = parkway.process("engine", "one")
    wait_until(lambda: _is(parkway, "one", "asleep"), "the end of its time")
    assert not Path(f"/proc/{pid}").exists()
    wait_until(lambda: any("unloaded one after 2 s without use" in line for line in parkway.said), "its line")


def test_a_request_in_the_moment_of_unloading_is_answered(parkway: Parkway) -> None:
    for pause_s in (0.0, 0.8):  # before and after the engine has been told to end
        assert _whole(_chat(parkway, "one"))
        wait_until(lambda: _is(parkway, "one", "unloading"), "the beginning of its end")
        time.sleep(pause_s)
        assert _whole(_chat(parkway, "one"))


def test_two_that_do_not_fit_together_take_turns_and_long_answers_are_not_cut_off(parkway: Parkway) -> None:
    long = _later(_chat, parkway, "two", 2000)
    wait_until(lambda: _state(parkway, "two").requests, "the long answer to begin")
    short = _later(_chat, parkway, "one")
    assert _whole(long.result(90))
    assert _whole(short.result(90))
    assert _whole(_chat(parkway, "two"))
    assert any("unloaded two to make room for one" in line for line in parkway.said)


def test_both_at_once_are_both_answered(parkway: Parkway) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: _chat(parkway, ("one", "two")[number % 2]), range(8)))
    assert all(_whole(answer) for answer in answers)


def test_what_can_never_fit_is_refused_with_the_numbers(parkway: Parkway) -> None:
    status, body = _chat(parkway, "huge")
    assert status == 503
    assert b"does not fit: it needs" in body
    assert b"`memory_bytes` is 550 MB" in body
    assert _is(parkway, "huge", "given up")


def test_what_cannot_start_is_told_long_before_the_deadline(parkway: Parkway) -> None:
    wait_until(lambda: _is(parkway, "one", "asleep"), "room")
    began = time.monotonic()
    status, body = _chat(parkway, "torn")
    assert status == 503
    assert b"the weights do not fit config.json" in body
    assert time.monotonic() - began < 60
    began = time.monotonic()
    assert _chat(parkway, "torn")[0] == 503
    assert time.monotonic() - began < 1.5, "it is not tried again at every request"


def test_an_engine_that_is_killed_is_loaded_again_by_the_next_request(parkway: Parkway) -> None:
    assert _whole(_chat(parkway, "two"))
    engine = parkway.process("engine", "two")
    os.kill(engine, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{engine}").exists(), "it to be gone")  # until then connections are taken for it
    assert _whole(_chat(parkway, "two"))


def test_a_gateway_that_is_killed_while_a_model_loads_finds_it_loaded(parkway: Parkway) -> None:
    wait_until(lambda: _is(parkway, "one", "asleep"), "it to sleep")
    before = _loads(parkway, "one")
    lost = threading.Thread(target=_ignored, args=(parkway, "one"), daemon=True)
    lost.start()
    wait_until(lambda: _is(parkway, "one", "loading"), "it to load")
    os.kill(parkway.process("gateway"), signal.SIGKILL)
    assert _whole(_chat(parkway, "one"))
    assert _loads(parkway, "one") == before + 1
    lost.join(30)


def _ignored(parkway: Parkway, model: str) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):  # that its connection breaks is the point
        _chat(parkway, model)


def test_what_is_pulled_can_be_used_at_once_until_it_is_removed(parkway: Parkway, models: Path) -> None:
    files = [FileRecord(name=path.name, size_bytes=1, sha256="0" * 64) for path in (models / "one").iterdir()]
    with PulledModels(Home(parkway.home)).pulling("helper") as partial:
        shutil.copytree(models / "one", partial.path, dirs_exist_ok=True)
        partial.finish(
            Manifest(source="a/b", revision="main", commit="c", endpoint="https://h", pulled_ms=1, files=files)
        )
    done = parkway.command("run", "helper", "hello")
    assert done.stdout.strip()
    assert _is(parkway, "helper", "ready")
    assert "helper" in parkway.command("ps").stdout
    parkway.command("rm", "helper", "--yes")
    wait_until(lambda: _chat(parkway, "helper")[0] == 404, "it to be gone")
    wait_until(lambda: "helper" not in _names(parkway), "its engine to be gone")


def _names(parkway: Parkway) -> list[str]:
    found = overview(Home(parkway.home))
    return [model.name for model in found.models] if found else []


@pytest.mark.parametrize("moment", ["loading", "ready"])
def test_a_supervisor_that_is_killed_leaves_no_engine_behind(models: Path, tmp_path: Path, moment: str) -> None:
    home = tmp_path / "home"
    with Parkway(home, _settings(models)) as running:
        asking = threading.Thread(target=_ignored, args=(running, "two"), daemon=True)
        asking.start()
        wait_until(lambda: _is(running, "two", moment), moment)
        running.up.kill()
        running.up.wait()
        wait_until(lambda: not processes_of(home), "the end of every process of this home")
        asking.join(30)
    if moment == "ready":  # and the next one starts on what was left
        with Parkway(home, _settings(models)) as again:
            assert _is(again, "two", "asleep")
            assert _whole(_chat(again, "two"))


def test_sigterm_while_models_are_loaded_ends_all_in_order(models: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Parkway(home, _settings(models)) as running:
        response = _open(running, "two", 1500)
        assert response.readline()
        running.up.terminate()
        assert b"[DONE]" in response.read()
        assert running.up.wait(60) == 0
        assert not processes_of(home)
