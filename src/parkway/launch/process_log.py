"""Where a child process logs to: standard error, which its supervisor has pointed at a file."""

import logging

from parkway.core.trace import CURRENT

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s%(request)s"


def log_to_stderr() -> None:
    """One line an event: time, level, where, what, and on whose behalf where that is a request."""
    logging.basicConfig(level=logging.INFO, format=_FORMAT, force=True)
    for handler in logging.getLogger().handlers:
        handler.addFilter(name_request)


def name_request(record: logging.LogRecord) -> bool:
    """Gives a line the ids of the request in whose course it is logged."""
    current = CURRENT.get()
    if current is None:
        record.request = ""
    else:
        request_id, trace_id = current
        record.request = f" [request_id={request_id}{f' trace_id={trace_id}' if trace_id else ''}]"
    return True
