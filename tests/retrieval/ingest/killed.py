"""Ingestion that is killed at a boundary, and begun again; each in a fork of a process that has everything imported.

Arguments: a home that is as it was left, the folder of its documents, where the copies go, then boundaries as `NAME*N`:
at the N-th time that it is reached. Prints for each a line of JSON: whether the boundary was reached, and what was in
the index and the catalogue after the second run.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from parkway.core.errors import IndexUnavailable
from parkway.retrieval.ingest.uploads import Header
from tests.retrieval.ingest.stage import Stage

ACTIONS = ("put new", "put changed", "discard")


def run(home: Path, folder: Path, boundary: str, acknowledged: Path) -> None:
    """Does what is left of the actions, then all that there is to do."""
    name, _, times = boundary.partition("*")
    lock = threading.Lock()
    left = [int(times or 0)]

    def checkpoint(reached: str) -> None:
        with lock:
            left[0] -= reached == name
            if reached == name and left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    stage = opened(home, folder)
    ingestion = stage.start(checkpoint=checkpoint)
    done = acknowledged.read_text().splitlines() if acknowledged.exists() else []
    for action in ACTIONS:
        if action in done:
            continue
        if action == "put new":
            ingestion.put(Header("new"), [b"a new upload"])
        elif action == "put changed":
            ingestion.put(Header("changed", title="Changed"), [b"a changed ", b"upload"])
        else:
            assert ingestion.discard("discarded") or boundary == "-"
        with acknowledged.open("a") as file:
            file.write(action + "\n")
    stage.settle()
    stage.stop()
    (home / "result.json").write_text(json.dumps(result(stage)))
    stage.close()


def opened(home: Path, folder: Path) -> Stage:
    """Waits for the lock: what was killed may have been just about to start a process, which has it for a moment."""
    for _ in range(100):
        try:
            return Stage(home, folder=folder)
        except IndexUnavailable:
            time.sleep(0.05)
    raise TimeoutError(home)


def result(stage: Stage) -> dict[str, Any]:
    documents = stage.documents()
    return {
        "content": {uri: sorted(found) for uri, found in sorted(stage.content().items())},
        "catalogue": sorted([one.uri, one.state, one.reason, one.passages, one.title] for one in documents),
        "uploads": sorted(path.name for path in (stage.home / "uploads").iterdir()),
    }


def forked(*arguments: Any) -> int:
    """How `run` ended in a process of its own."""
    process = os.fork()
    if process == 0:
        try:
            run(*arguments)
            os._exit(0)
        except BaseException:  # noqa: BLE001 - it must not go on where its parent went on
            import traceback

            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def main() -> None:
    left, folder, copies = (Path(argument) for argument in sys.argv[1:4])
    for boundary in sys.argv[4:]:
        home = copies / boundary.replace("*", "-").replace(" ", "_")
        shutil.copytree(left, home)
        acknowledged = home / "acknowledged"
        first = forked(home, folder, boundary, acknowledged)
        second = forked(home, folder, "-", acknowledged)
        found = json.loads((home / "result.json").read_text()) if second == 0 else {}
        print(
            json.dumps({"boundary": boundary, "killed": first == -signal.SIGKILL, "second": second} | found), flush=True
        )


if __name__ == "__main__":
    main()
