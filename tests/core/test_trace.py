"""Trace context by W3C's rules: what is valid is taken over, what is not is as if it had not been sent."""

from __future__ import annotations

import pytest

from parkway.core.trace import Trace, parse_traceparent, parse_tracestate

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),  # flags that are not known do not matter
        (f"00-{TRACE}-{SPAN}-02", False),
        (f"01-{TRACE}-{SPAN}-01", True),  # a version of the future, with the same fields
        (f"cc-{TRACE}-{SPAN}-01-and-more", True),
    ],
)
def test_a_valid_parent(header: str, sampled: bool) -> None:
    assert parse_traceparent(header) == (TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01-",
        f"cc-{TRACE}-{SPAN}-01more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}",
        f"0-{TRACE}-{SPAN}-01",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE}-{SPAN}-0x",
        "x" * 100_000,
    ],
)
def test_an_invalid_parent(header: str | None) -> None:
    assert parse_traceparent(header) is None


@pytest.mark.parametrize(
    ("header", "kept"),
    [
        ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        (" a=1 ,\t, b=2", "a=1,b=2"),
        ("fw529a3039@dt=FfYpC", "fw529a3039@dt=FfYpC"),
        ("", None),
        (None, None),
        ("a", None),
        ("A=1", None),
        ("a=1,a=2", None),
        ("a=\x01", None),
        ("a=x\r\nx-injected: 1", None),
        (",".join(f"k{number}=1" for number in range(33)), None),
        ("a=" + "x" * 300, None),
        ("a=1," * 10_000, None),
    ],
)
def test_tracestate(header: str | None, kept: str | None) -> None:
    assert parse_tracestate(header) == kept


def test_a_call_is_told_the_span_that_it_belongs_to() -> None:
    trace = Trace(TRACE, SPAN, sampled=True)
    span = trace.begin("attempt", "client")
    assert trace.traceparent(span) == f"00-{TRACE}-{span.span_id}-01"
    assert (trace.root.parent_id, span.parent_id) == (SPAN, trace.root.span_id)
    assert parse_traceparent(trace.traceparent(span)) == (TRACE, span.span_id, True)


def test_a_new_trace_has_ids_of_its_own() -> None:
    one, other = Trace(), Trace()
    assert one.trace_id != other.trace_id
    assert parse_traceparent(one.traceparent(one.root)) == (one.trace_id, one.root.span_id, False)


def test_a_span_ends_once() -> None:
    span = Trace().begin("attempt")
    span.end("overloaded")
    ended = span.ended
    span.end()
    assert (span.ended, span.error) == (ended, "overloaded")
