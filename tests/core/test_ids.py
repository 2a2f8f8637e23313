"""Ids sort by time and do not repeat."""

import os
import re
import threading
import time

from parkway.core.ids import new_id


def test_form_and_uniqueness() -> None:
    made = [new_id("req") for _ in range(10_000)]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch(r"req_[0-9a-f]{32}", one) for one in made)


def test_they_sort_by_time() -> None:
    made: list[str] = []
    for _ in range(5):
        made.append(new_id("x"))
        time.sleep(0.002)
    assert made == sorted(made)


def test_threads_and_children_do_not_share_what_was_drawn() -> None:
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.extend(new_id("x") for _ in range(2000))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each[-20:] for each in made}) == 16_000
    new_id("x")
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, new_id("x").encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 100).decode()[-20:] != new_id("x")[-20:]
