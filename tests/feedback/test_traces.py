"""Which traces are kept, and what is kept of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from parkway.core.errors import NotFound
from parkway.core.trace import Trace
from parkway.feedback.retention import prune_spans
from parkway.feedback.span import SpanRecord, records_of
from parkway.feedback.trace_list import TraceFilter, list_traces, read_trace
from parkway.feedback.traces import TraceLog, TracesConfig
from parkway.store.rows import insert_rows
from parkway.store.schema import spans
from parkway.store.sql import Database

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


class Chance:
    """Stands in for the chance that a request is sampled."""

    def __init__(self, *values: float) -> None:
        self.values = list(values)

    def __call__(self) -> float:
        return self.values.pop(0)


def log(database: Database | None = None, **values: object) -> TraceLog:
    return TraceLog(database, TracesConfig(**values))  # pyright: ignore[reportArgumentType]


def span(number: int, **values: object) -> SpanRecord:
    given: dict[str, object] = {
        "trace_id": TRACE,
        "span_id": f"{number:016x}",
        "parent_id": None,
        "name": "POST /v1/chat/completions",
        "kind": "server",
        "started_ns": number * 1_000_000_000,
        "ended_ns": number * 1_000_000_000 + number * 1_000_000,
        "error": None,
        "request_id": f"req_{number}",
        "key_id": "alice",
        "attributes": {"gen_ai.request.model": "echo", "parkway.outcome": "ok"},
    }
    return SpanRecord(**{**given, **values})  # pyright: ignore[reportArgumentType]


def write(database: Database, *records: SpanRecord) -> None:
    with database.begin() as connection:
        insert_rows(connection, spans, [record.to_row() for record in records])


def test_the_share_is_sampled() -> None:
    traces = TraceLog(None, TracesConfig(sample_share=0.25), chance=Chance(0.1, 0.3, 0.24))  # pyright: ignore[reportArgumentType]
    assert [traces.begin().recorded for _ in range(3)] == [True, False, True]


def test_the_caller_decides_where_it_says() -> None:
    sampled = log(sample_share=0).begin(f"00-{TRACE}-{SPAN}-01", "a=1")
    assert (sampled.recorded, sampled.sampled, sampled.trace_id, sampled.tracestate) == (True, True, TRACE, "a=1")
    refused = log(sample_share=1).begin(f"00-{TRACE}-{SPAN}-00")
    assert (refused.recorded, refused.sampled, refused.trace_id) == (False, False, TRACE)


def test_an_invalid_parent_takes_its_state_along() -> None:
    trace = log().begin("00-nothing", "a=1")
    assert (trace.root.parent_id, trace.tracestate, trace.recorded) == (None, None, True)


def test_a_callers_flag_is_handed_on_even_where_there_is_no_room() -> None:
    trace = log(max_per_s=0).begin(f"00-{TRACE}-{SPAN}-01")
    assert (trace.sampled, trace.recorded) == (True, False)


def test_errors_and_slow_requests_are_kept_whatever_was_sampled() -> None:
    traces = log(sample_share=0, slow_s=2)
    trace = traces.begin()
    assert not traces.keeps(trace, failed=False, took_s=1.9)
    assert traces.keeps(trace, failed=True, took_s=0.1)
    assert traces.keeps(trace, failed=False, took_s=2.0)


def test_no_more_than_so_many_in_a_second() -> None:
    traces = log(max_per_s=10)
    assert sum(traces.begin().recorded for _ in range(1000)) <= 20, "the second may end in the middle"
    unsampled = Trace()
    assert sum(traces.keeps(unsampled, failed=True, took_s=0) for _ in range(1000)) in range(10, 21)
    off = log(max_per_s=0)
    assert not off.begin().recorded
    assert not off.keeps(unsampled, failed=True, took_s=100)


async def test_a_full_queue_sheds_and_counts() -> None:
    exported: list[Sequence[SpanRecord]] = []
    traces = TraceLog(None, TracesConfig(queue_size=3), exported.append)  # pyright: ignore[reportArgumentType]
    traces.keep([span(1), span(2)])
    traces.keep([span(3), span(4)])
    assert traces.shed == 2
    assert len(exported) == 2, "the collector has a queue of its own"


async def test_spans_are_stored_and_read_as_they_were(database: Database) -> None:
    trace = Trace(TRACE, SPAN)
    attempt = trace.begin("attempt", "client")
    attempt.attributes["gen_ai.response.finish_reasons"] = ["stop"]
    attempt.events.append(("first_token", attempt.started + 0.25))
    await asyncio.sleep(0.001)
    attempt.end("500")
    trace.add("admit", trace.root.started, trace.root.started + 0.5)
    traces = TraceLog(database, TracesConfig())
    traces.keep(records_of(trace, "req_1", "alice"))
    await traces.close()
    with database.read() as connection:
        found = read_trace(connection, "req_1", "alice")
    by_name = {each.name: each for each in found.spans}
    root, told = by_name["request"], by_name["attempt"]
    assert (root.parent_id, root.kind, root.status) == (SPAN, "server", "ok")
    assert (told.parent_id, told.kind, told.status) == (root.span_id, "client", "error")
    assert told.attributes == {"gen_ai.response.finish_reasons": ["stop"]}
    (event,) = told.events
    assert event.at_ms - told.started_ms == pytest.approx(250, abs=0.01)
    assert by_name["admit"].duration_ms == pytest.approx(500, abs=0.01)
    assert root.started_ms <= told.started_ms


def test_a_span_that_is_there_is_left_alone(database: Database) -> None:
    write(database, span(1))
    write(database, span(1, name="again"), span(2))
    with database.read() as connection:
        assert [each.name for each in list_traces(connection, TraceFilter()).data] == ["POST /v1/chat/completions"] * 2


def test_listed_by_pages_and_filters(database: Database) -> None:
    write(
        database,
        *(span(number) for number in range(1, 6)),
        span(6, error="overloaded"),
        span(7, key_id="bob"),
        span(8, kind="client"),
    )

    def listed(**values: object) -> list[str]:
        with database.read() as connection:
            page = list_traces(connection, TraceFilter(**{"key_id": "alice", **values}))  # pyright: ignore[reportArgumentType]
        return [each.request_id for each in page.data]

    assert listed() == [f"req_{number}" for number in (6, 5, 4, 3, 2, 1)]
    assert listed(limit=2) == ["req_6", "req_5"]
    assert listed(limit=2, after="req_5") == ["req_4", "req_3"]
    assert listed(status="error") == ["req_6"]
    assert listed(min_ms=5) == ["req_6", "req_5"]
    assert listed(since_ms=4000) == ["req_6", "req_5", "req_4"]
    assert listed(key_id=None)[0] == "req_7"
    with database.read() as connection:
        page = list_traces(connection, TraceFilter(key_id="alice", limit=4))
        assert (page.has_more, page.last_id) == (True, "req_3")


def test_another_keys_trace_is_as_if_it_were_not_there(database: Database) -> None:
    write(database, span(7, key_id="bob"))
    for name in ("req_7", TRACE, "req_none", "0" * 32, "\0", "req_\0"):
        with database.read() as connection, pytest.raises(NotFound, match="there is no trace"):
            read_trace(connection, name, "alice")


def test_a_shared_trace_shows_each_key_its_own_spans(database: Database) -> None:
    write(database, span(1), span(2, key_id="bob"))
    with database.read() as connection:
        assert [each.request_id for each in read_trace(connection, TRACE, "alice").spans] == ["req_1"]
        assert len(read_trace(connection, TRACE, None).spans) == 2


def test_old_spans_go(database: Database) -> None:
    write(database, *(span(number) for number in range(1, 11)))
    removed = []
    while not removed or removed[-1]:
        with database.begin() as connection:
            removed.append(prune_spans(connection, 8_000, 3))
    assert removed == [3, 3, 1, 0]
    with database.read() as connection:
        assert len(list_traces(connection, TraceFilter()).data) == 3
