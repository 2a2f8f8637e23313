"""Spans reach a collector over a real socket, as OpenTelemetry's own protobuf says."""

from __future__ import annotations

import gzip
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from parkway.core.errors import ConfigurationError
from parkway.feedback.otlp import Exporter
from parkway.feedback.traces import TracesConfig
from tests.feedback.test_traces import SPAN, TRACE, span

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")


class Collector:
    """A small collector: takes batches, or refuses them with a status."""

    def __init__(self) -> None:
        self.batches: queue.Queue[tuple[str, dict[str, str], bytes]] = queue.Queue()
        self.status = 200
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()
                collector.batches.put((self.path, {name.lower(): value for name, value in self.headers.items()}, body))

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def spans(self) -> list[object]:
        """The spans of the next batch, decoded."""
        _, _, body = self.batches.get(timeout=20)
        request = trace_service.ExportTraceServiceRequest.FromString(body)
        return [each for resource in request.resource_spans for scope in resource.scope_spans for each in scope.spans]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


def exporter(collector: Collector, environment: dict[str, str] | None = None, **values: object) -> Exporter:
    config = TracesConfig(otlp_endpoint=collector.url, **values)  # pyright: ignore[reportArgumentType]
    made = Exporter.of(config, environment or {})
    assert made is not None
    return made


def attributes(span: object) -> dict[str, object]:
    found = {}
    for pair in span.attributes:  # pyright: ignore[reportAttributeAccessIssue]
        kind = pair.value.WhichOneof("value")
        value = getattr(pair.value, kind)
        found[pair.key] = [item.string_value for item in value.values] if kind == "array_value" else value
    return found


def test_a_request_arrives_whole(collector: Collector) -> None:
    sending = exporter(
        collector, {"COLLECTOR": "Authorization=Bearer%20s3cret, x-team = a"}, otlp_headers_env="COLLECTOR"
    )
    sending.put(
        [
            span(1, parent_id=SPAN, tracestate="a=1"),
            span(
                2,
                parent_id=f"{1:016x}",
                kind="client",
                name="chat echo",
                error="500",
                attributes={"gen_ai.usage.input_tokens": 5, "gen_ai.response.finish_reasons": ["stop"], "ok": True},
                events=[("first_token", 2_500_000_000)],
            ),
        ]
    )
    sending.start()
    sending.close()
    path, headers, body = collector.batches.get(timeout=20)
    assert path == "/v1/traces"
    assert (headers["authorization"], headers["x-team"]) == ("Bearer s3cret", "a")
    request = trace_service.ExportTraceServiceRequest.FromString(body)
    (resource,) = request.resource_spans
    assert {pair.key: pair.value.string_value for pair in resource.resource.attributes}["service.name"] == "parkway"
    server, client = resource.scope_spans[0].spans
    assert (server.trace_id.hex(), server.parent_span_id.hex(), server.trace_state) == (TRACE, SPAN, "a=1")
    assert (server.kind, server.status.code) == (2, 0)
    assert attributes(server)["parkway.request_id"] == "req_1"
    assert (client.name, client.kind, client.parent_span_id) == ("chat echo", 3, server.span_id)
    assert (client.status.code, client.status.message) == (2, "500")
    assert (client.start_time_unix_nano, client.end_time_unix_nano) == (2_000_000_000, 2_002_000_000)
    assert [(event.name, event.time_unix_nano) for event in client.events] == [("first_token", 2_500_000_000)]
    told = attributes(client)
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.response.finish_reasons"], told["ok"]) == (
        5,
        ["stop"],
        True,
    )
    assert sending.shed == 0


def test_what_a_collector_refuses_is_counted_and_the_rest_goes_on(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 400
    sending = exporter(collector)
    sending.start()
    sending.put([span(1), span(2)])
    assert len(collector.spans()) == 2
    collector.status = 200
    sending.put([span(3)])
    sending.close()
    assert len(collector.spans()) == 1
    assert sending.shed == 2
    assert "took no spans; 2 given up" in caplog.text


def test_the_queue_is_bounded(collector: Collector) -> None:
    sending = exporter(collector, queue_size=3)
    sending.put([span(1), span(2)])
    sending.put([span(3), span(4)])
    assert sending.shed == 2
    sending.start()
    sending.close()
    assert len(collector.spans()) == 2


def test_what_cannot_be_encoded_does_not_end_it(collector: Collector) -> None:
    sending = exporter(collector)
    sending.start()
    sending.put([span(1, trace_id="no hex")])
    sending.put([span(2)] * 600)  # a full batch by itself
    sending.close()
    assert sending.shed in (1, 601), "alone, or together with what followed at once"


def test_without_an_endpoint_there_is_no_exporter() -> None:
    assert Exporter.of(TracesConfig()) is None


@pytest.mark.parametrize(
    ("environment", "message"),
    [({}, "COLLECTOR is not set"), ({"COLLECTOR": "s3cret"}, "does not have the form name=value")],
)
def test_wrong_headers_are_told_without_their_value(environment: dict[str, str], message: str) -> None:
    config = TracesConfig(otlp_endpoint="http://127.0.0.1:1", otlp_headers_env="COLLECTOR")
    with pytest.raises(ConfigurationError, match=message) as caught:
        Exporter.of(config, environment)
    assert "s3cret" not in caught.value.message


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://c:4318", "http://c:4318/v1/traces"),
        ("https://c/", "https://c/v1/traces"),
        ("http://c/otlp/v1/traces", "http://c/otlp/v1/traces"),
    ],
)
def test_the_path_is_added_where_there_is_none(given: str, used: str) -> None:
    assert TracesConfig(otlp_endpoint=given).otlp_endpoint == used


@pytest.mark.parametrize("url", ["c:4318", "ftp://c", "http://user:pw@c"])
def test_an_endpoint_has_to_be_a_plain_url(url: str) -> None:
    with pytest.raises(ValueError, match="not an http"):
        TracesConfig(otlp_endpoint=url)
