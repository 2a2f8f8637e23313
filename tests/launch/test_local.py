"""`parkway up` as real processes: what dies comes back, what must stop stops, and nothing is left behind."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.launch.stage import SlowModel, Up, parkway, processes_of, up, wait_until

EMBED = {"models": {"park-embed": "park-embed"}}
NOBODY_THERE = {"models": {"far": "http://127.0.0.1:9/v1"}}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A Parkway with one engine, for the tests that leave it running."""
    with up(tmp_path_factory.mktemp("up") / "home", EMBED) as started:
        yield started.ready()


@pytest.fixture
def slow() -> Iterator[SlowModel]:
    model = SlowModel()
    yield model
    model.close()


def _embeds(parkway_up: Up) -> bool:
    response = parkway_up.request("POST", "/v1/embeddings", {"model": "park-embed", "input": "hello"})
    response.read()
    return response.status == 200


def test_ready_means_that_the_first_request_succeeds(running: Up) -> None:
    assert _embeds(running)


def test_everything_is_inside_the_home_and_closed_to_others(running: Up) -> None:
    assert running.home.stat().st_mode & 0o077 == 0
    for name in ("first.key", "running.yaml", "parkway.db"):
        assert (running.home / name).stat().st_mode & 0o077 == 0, name


def test_a_second_one_on_the_same_home_says_so_and_exits(running: Up) -> None:
    second = parkway(running.home, "up", "--port", "0")
    assert second.returncode == 3
    assert f"pid {running.process.pid}" in second.stderr
    assert running.url in second.stderr
    assert "Traceback" not in second.stderr


def test_a_killed_engine_comes_back(running: Up) -> None:
    running.kill_child("engine")
    wait_until(lambda: _embeds(running), "an answer after the engine was killed")
    assert "engine park-embed stopped by signal 9; again in 0.2 s" in running.told()


def test_a_killed_gateway_refuses_no_connection(running: Up) -> None:
    before = running.child("gateway")
    assert before is not None
    os.kill(before, signal.SIGKILL)
    # Sent while there is no gateway: the supervisor's socket takes it, and the next gateway answers it.
    response = running.request("GET", "/v1/models")
    assert response.status == 200
    assert running.child("gateway") not in (None, before)
    wait_until(lambda: _embeds(running), "an answer after the gateway was killed")


def test_a_killed_worker_comes_back(running: Up) -> None:
    running.kill_child("worker")
    wait_until(lambda: "worker stopped by signal 9" in running.told(), "its line")


def test_nobody_else_may_use_the_engine_past_the_gateway(running: Up) -> None:
    listed = parkway(running.home, "models", "--json")
    url = urlsplit(next(line.split('"')[3] for line in listed.stdout.splitlines() if '"url"' in line))
    connection = http.client.HTTPConnection(url.netloc, timeout=30)
    connection.request("GET", "/v1/models")
    assert connection.getresponse().status == 401


@pytest.mark.parametrize("victim", ["SIGKILL", "SIGTERM"])
def test_nothing_is_left_behind(tmp_path: Path, victim: str) -> None:
    home = tmp_path / "home"
    with up(home, EMBED if victim == "SIGKILL" else NOBODY_THERE) as started:
        started.ready()
        wait_until(lambda: started.child("worker"), "the worker")
        started.process.send_signal(signal.Signals[victim])
        assert started.wait() == (-9 if victim == "SIGKILL" else 0)
        wait_until(lambda: not processes_of(home), "the end of every process of this home")


def test_nothing_is_left_behind_by_a_kill_during_the_start(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with up(home, EMBED) as started:
        wait_until(lambda: started.child("engine"), "the engine to begin")
        started.process.kill()
        started.wait()
        wait_until(lambda: not processes_of(home), "the end of every process of this home")


def test_after_a_kill_the_next_one_starts_on_the_same_port(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with up(home, NOBODY_THERE) as first:
        port = urlsplit(first.ready().url).port
        first.process.kill()
        with up(home, NOBODY_THERE, "--port", str(port)) as second:
            assert urlsplit(second.ready().url).port == port


def test_sigterm_lets_a_running_answer_finish_and_refuses_new_ones(tmp_path: Path, slow: SlowModel) -> None:
    with up(tmp_path / "home", {"models": {"slow": slow.url}}) as started:
        response = started.ready().chat("slow")
        assert b"one" in response.readline()
        started.process.terminate()
        wait_until(lambda: "stopping" in started.told(), "the drain")
        wait_until(lambda: _refused(started.url), "new connections to be refused")
        slow.go.set()
        rest = response.read()
        assert b"two" in rest
        assert b"[DONE]" in rest
        assert started.wait() == 0
        assert "killed" not in started.told()


def test_ctrl_c_twice_stops_at_once(tmp_path: Path, slow: SlowModel) -> None:
    home = tmp_path / "home"
    with up(home, {"models": {"slow": slow.url}}) as started:
        response = started.ready().chat("slow")
        assert b"one" in response.readline()
        started.process.send_signal(signal.SIGINT)
        wait_until(lambda: "Ctrl-C again stops at once" in started.told(), "the drain")
        started.process.send_signal(signal.SIGINT)
        assert started.wait() == 130
        wait_until(lambda: not processes_of(home), "the end of every process of this home")


def test_sigterm_while_it_starts(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with up(home, EMBED) as started:
        wait_until(lambda: started.child("engine"), "the engine to begin")
        started.process.terminate()
        assert started.wait() == 0
        assert started.process.stdout is not None
        assert started.process.stdout.read() == b"", "it was never ready"
        assert not processes_of(home)


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        done = parkway(tmp_path / "home", "up", "--port", str(port))
    assert done.returncode == 3
    assert f"error: port {port} on 127.0.0.1 is in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_that_cannot_be_loaded_is_given_up_and_the_others_go_on(tmp_path: Path) -> None:
    models = {"far": "http://127.0.0.1:9/v1", "broken": str(tmp_path / "no-such-model")}
    with up(tmp_path / "home", {"models": models}) as started:
        response = started.ready().request("GET", "/v1/models")
        assert b'"far"' in response.read()
        assert "engine broken cannot start and is given up" in started.told()
        assert "no-such-model" in started.told()


def test_with_no_model_left_it_says_why_and_exits(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with up(home, {"models": {"broken": str(tmp_path / "no-such-model")}}) as started:
        assert started.wait() == 3
        assert "error: no model can be served" in started.told()
        assert "error: broken: " in started.told()
        assert "no-such-model" in started.told()
        wait_until(lambda: not processes_of(home), "the end of every process of this home")


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("gatway: {port: 1}", 2, 'parkway.yaml:1: gatway: unknown key. Did you mean "gateway"?'),
        ("models: {a: {url: 'http://h', api_key_env: NOT_SET_ANYWHERE}}", 2, "variable NOT_SET_ANYWHERE is not set"),
        ("store: {url: 'postgresql://nobody@127.0.0.1:1/none'}", 3, "store.url"),
        ("store: {url: 'mysql://h/d'}", 3, "mysql:// is not supported"),
        ("gateway: {host: 192.0.2.1}", 3, "is not an address of this machine"),
    ],
)
def test_a_start_that_cannot_succeed_says_why(tmp_path: Path, text: str, code: int, message: str) -> None:
    (tmp_path / "parkway.yaml").write_text(text)
    done = parkway(tmp_path / "home", "up", "--port", "0")
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    wait_until(lambda: not processes_of(tmp_path / "home"), "the end of every process of this home")


def test_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    done = parkway(tmp_path / "home", "up", "--port", "0")
    assert done.returncode == 3
    assert "is not a directory" in done.stderr


def test_a_file_of_the_home_that_cannot_be_written(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "running.yaml").mkdir(parents=True)
    done = parkway(home, "up", "--port", "0", "--config", _nobody_there(tmp_path))
    assert done.returncode == 3
    assert f"error: the home {home} cannot be written to" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_edit_of_the_configuration_does_not_break_a_restart(tmp_path: Path) -> None:
    with up(tmp_path / "home", NOBODY_THERE) as started:
        started.ready().config.write_text("{ this is no longer YAML")
        started.kill_child("gateway")
        assert started.request("GET", "/healthz").status == 200


def test_a_changed_configuration_takes_effect_without_a_restart(tmp_path: Path, slow: SlowModel) -> None:
    with up(tmp_path / "home", NOBODY_THERE) as started:
        gateway = started.ready().child("gateway")
        key = started.key()
        slow.go.set()

        started.config.write_text(json.dumps({"models": {"near": slow.url}, "engine": {"threads": 1}}))
        wait_until(lambda: started.chat("near").status == 200, "the new host is asked")
        wait_until(lambda: started.chat("far").status == 404, "the old one is gone")
        wait_until(
            lambda: "takes effect at the next start: engine.threads" in started.told(), "what has to wait is told"
        )
        assert "changed: engine.threads, models.far.url, models.near.url" in started.told()

        started.config.write_text(json.dumps({"models": {}, "limits": {"burts": 1}}))
        wait_until(lambda: "limits.burts: unknown key. Did you mean" in started.told(), "the fault is told")
        wait_until(lambda: b"cannot be used" in started.request("GET", "/readyz").read(), "the gateway warns")
        assert started.chat("near").status == 200

        started.kill_child("gateway")  # a new one begins with what was in force, not with what is written
        assert started.chat("near").status == 200
        assert started.child("gateway") != gateway
        assert started.key() == key


def _nobody_there(folder: Path) -> str:
    path = folder / "nobody-there.yaml"
    path.write_text(json.dumps(NOBODY_THERE))  # JSON is YAML
    return str(path)


def _refused(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((str(parts.hostname), parts.port or 0), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False
