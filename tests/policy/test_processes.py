"""Four processes and one Redis: together they get what one would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import redis

from tests.servers import Redis

PROGRAM = Path(__file__).with_name("processes.py")


def together(server: Redis, what: str, amount: float) -> tuple[list[int], float]:
    """What each of four processes got, and how long, by Redis's clock, from the first beginning to the last end."""
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    processes = [
        subprocess.Popen(
            [sys.executable, PROGRAM, server.url, what, str(amount)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60)[0].split() for process in processes]
    assert [answer[3] for answer in answers] == ["0"] * 4  # Redis was never away
    return [int(answer[0]) for answer in answers], max(float(a[2]) for a in answers) - min(float(a[1]) for a in answers)


def test_a_limit_of_100_a_second_is_held_within_two_percent(redis_server: Redis) -> None:
    passed, seconds = together(redis_server, "limit", 3.0)
    assert all(passed)
    # The burst of 50 makes up for moments in which none of the four happens to ask.
    assert sum(passed) == pytest.approx(50 + 100 * seconds, rel=0.02)


def test_a_race_of_200_for_a_budget_of_50(redis_server: Redis) -> None:
    passed, _ = together(redis_server, "budget", 50)
    assert sum(passed) == 50
