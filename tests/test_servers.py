"""The servers that tests start do not outlive the test run."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.servers import Postgres


def test_postgres_dies_with_a_test_run_that_is_killed(postgres: Postgres) -> None:
    program = (
        "import sys; sys.path.insert(0, '.'); from tests.servers import Postgres; import time\n"
        "server = Postgres(); print(server.pid, flush=True); time.sleep(60)"
    )
    run = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
    assert run.stdout is not None
    pid = int(run.stdout.readline())
    assert Path(f"/proc/{pid}").exists()
    run.send_signal(signal.SIGKILL)
    run.communicate()
    while Path(f"/proc/{pid}").exists():  # the test's own time limit ends this
        time.sleep(0.01)
