"""Where a child process logs to: standard error, which its supervisor has pointed at a file."""

import logging


def log_to_stderr() -> None:
    """One line an event: time, level, where, what."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
