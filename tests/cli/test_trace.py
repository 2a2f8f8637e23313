"""`parkway trace`: the list and the tree."""

from __future__ import annotations

import time

import pytest

from parkway.core.trace import Trace
from parkway.feedback.span import records_of
from parkway.store.rows import insert_rows
from parkway.store.schema import spans
from parkway.store.sql import Database
from tests.cli.conftest import Command


@pytest.fixture
def trace(database: Database) -> Trace:
    trace = Trace()
    trace.root.name = "POST /v1/chat/completions"
    trace.root.attributes = {"gen_ai.request.model": "echo", "parkway.outcome": "ok"}
    trace.root.ended = trace.root.started + 0.25
    trace.add("admit", trace.root.started, trace.root.started + 0.001)
    attempt = trace.add("chat echo", trace.root.started + 0.002, trace.root.started + 0.2)
    attempt.kind, attempt.error = "client", "500"
    attempt.attributes = {"parkway.endpoint.id": "e\x1b[31m", "gen_ai.response.finish_reasons": ["stop"]}
    attempt.events = [("first_token", trace.root.started + 0.1)]
    with database.begin() as connection:
        insert_rows(connection, spans, [record.to_row() for record in records_of(trace, "req_1", "alice")])
    return trace


def test_listed(parkway: Command, trace: Trace) -> None:
    (row,) = parkway("trace").out.splitlines()[1:]
    assert row.split()[0] == "req_1"
    assert trace.trace_id in row
    assert parkway("trace", "--json").json["data"][0]["duration_ms"] == pytest.approx(250)
    for none in (("--errors",), ("--min-ms", "300")):
        assert "no traces in this window" in parkway("trace", *none).err


@pytest.mark.parametrize("by", ["request", "trace"])
def test_the_tree_has_times_and_what_matters(parkway: Command, trace: Trace, by: str) -> None:
    lines = parkway("trace", "req_1" if by == "request" else trace.trace_id).out.splitlines()
    assert lines[0] == f"trace {trace.trace_id}"
    assert lines[1] == "└── POST /v1/chat/completions  +0.0 ms  250.0 ms"
    assert lines[2] == "    ├── admit  +0.0 ms  1.0 ms"
    assert lines[3] == (
        "    └── chat echo  +2.0 ms  198.0 ms  error  endpoint=e\\x1b[31m  finish_reasons=stop  first_token=+100.0 ms"
    )


def test_spans_that_name_one_another_as_parents_end_it_none_the_less(parkway: Command, database: Database) -> None:
    odd = Trace()
    odd.add("a", time.monotonic(), time.monotonic()).parent_id = odd.root.span_id
    odd.root.parent_id = odd.spans[0].span_id
    with database.begin() as connection:
        insert_rows(connection, spans, [record.to_row() for record in records_of(odd, "req_2", "alice")])
    assert len(parkway("trace", odd.trace_id).out.splitlines()) == 3


def test_an_unknown_id_is_an_error(parkway: Command, trace: Trace) -> None:
    done = parkway("trace", "req_none")
    assert done.code == 1
    assert done.err.startswith("error: there is no trace 'req_none'")
