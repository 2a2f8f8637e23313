"""Spans to a collector by OTLP over HTTP, from a thread of its own and with OpenTelemetry's own exporter."""

from __future__ import annotations

import importlib.util
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote

from parkway import __version__
from parkway.core.errors import ConfigurationError, StartupError
from parkway.core.tasks import start_thread
from parkway.feedback.span import SpanRecord
from parkway.feedback.traces import TracesConfig

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

log = logging.getLogger(__name__)

_BATCH_SPANS = 512
_PAUSE_S = 1.0
_NOTICE_INTERVAL_S = 60.0


class Exporter:
    """Takes spans and sends them in batches; a collector that is slow or away costs spans, and never a request.

    Args:
        endpoint: The collector's URL, path included.
        headers: Sent with every batch.

    Raises:
        StartupError: The extra `otlp` is not installed.
    """

    def __init__(self, endpoint: str, headers: Mapping[str, str], *, queue_size: int, timeout_s: float) -> None:
        if importlib.util.find_spec("opentelemetry") is None or importlib.util.find_spec("requests") is None:
            raise StartupError("traces.otlp_endpoint is set: pip install 'parkway[otlp]' first")
        self._endpoint = endpoint
        self._headers = dict(headers)
        self._timeout_s = timeout_s
        # Whole requests wait, so that the bound in spans is counted by hand.
        self._waiting: queue.SimpleQueue[Sequence[SpanRecord] | None] = queue.SimpleQueue()
        self._queue_size = queue_size
        self._size = 0
        self._counting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._next_notice = float("-inf")
        self.shed = 0
        """Spans that the collector did not get."""

    @classmethod
    def of(cls, config: TracesConfig, environment: Mapping[str, str] = os.environ) -> Exporter | None:
        """The exporter that the configuration asks for, if it asks for one.

        Raises:
            ConfigurationError: The variable with the headers is not set, or holds no headers.
            StartupError: See the class.
        """
        if config.otlp_endpoint is None:
            return None
        headers = _headers(config.otlp_headers_env, environment) if config.otlp_headers_env else {}
        return cls(config.otlp_endpoint, headers, queue_size=config.queue_size, timeout_s=config.otlp_timeout_s)

    def put(self, spans: Sequence[SpanRecord]) -> None:
        """Queues the spans of a request; a full queue sheds them."""
        with self._counting:
            if self._size + len(spans) > self._queue_size:
                self.shed += len(spans)
                return
            self._size += len(spans)
        self._waiting.put(spans)

    def start(self) -> None:
        self._thread = start_thread(self._work, name="otlp")

    def end(self) -> None:
        """Takes no more; what it has is still sent, by its thread."""
        self._waiting.put(None)

    def close(self, timeout_s: float = 5.0) -> None:
        """`end`, and waits for it for at most `timeout_s`."""
        self.end()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _work(self) -> None:
        # Imported here: OpenTelemetry takes a third of a second, which the start of the gateway need not wait for.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace.export import SpanExportResult

        # What the exporter says of each attempt is said below, once a minute.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        exporter = OTLPSpanExporter(endpoint=self._endpoint, headers=self._headers, timeout=self._timeout_s)
        resource = Resource({"service.name": "parkway", "service.version": __version__})
        open_ = True
        while open_:
            batch, open_ = self._next_batch()
            if not batch:
                continue
            try:
                sent = exporter.export([_readable(span, resource) for span in batch]) is SpanExportResult.SUCCESS
            except Exception as error:  # noqa: BLE001 - a span that cannot be encoded must not end the thread
                log.warning("traces: a batch could not be exported: %r", error)
                sent = False
            if not sent:
                self._failed(len(batch))
        exporter.shutdown()

    def _next_batch(self) -> tuple[list[SpanRecord], bool]:
        """Up to about a batch of spans, and whether there will be more."""
        batch: list[SpanRecord] = []
        until = time.monotonic() + _PAUSE_S
        while len(batch) < _BATCH_SPANS:
            try:
                spans = self._waiting.get(timeout=max(0.0, until - time.monotonic()) if batch else None)
            except queue.Empty:
                break
            if spans is None:
                return batch, False
            with self._counting:
                self._size -= len(spans)
            batch.extend(spans)
        return batch, True

    def _failed(self, count: int) -> None:
        with self._counting:
            self.shed += count
        now = time.monotonic()
        if now >= self._next_notice:
            self._next_notice = now + _NOTICE_INTERVAL_S
            log.warning("traces: %s took no spans; %d given up so far", self._endpoint, self.shed)


class Export:
    """The exporter in force, if there is one; another one takes its place without a span lost."""

    def __init__(self, config: TracesConfig) -> None:
        self._config = config
        self._exporter = Exporter.of(config)
        self._earlier = 0

    @property
    def shed(self) -> int:
        """Spans that no collector got."""
        return self._earlier + (self._exporter.shed if self._exporter is not None else 0)

    def put(self, spans: Sequence[SpanRecord]) -> None:
        """Queues the spans of a request for the collector; without one they are nobody's."""
        if self._exporter is not None:
            self._exporter.put(spans)

    def start(self) -> None:
        if self._exporter is not None:
            self._exporter.start()

    def prepare(self, config: TracesConfig) -> Callable[[], None]:
        """Makes an exporter ready; what it returns puts that into force. The one before sends what it has.

        Raises:
            ConfigurationError, StartupError: As for `Exporter.of`; nothing has changed then.
        """
        if _of_export(config) == _of_export(self._config):
            return lambda: None
        exporter = Exporter.of(config)

        def commit() -> None:
            before, self._exporter, self._config = self._exporter, exporter, config
            self.start()
            if before is not None:
                self._earlier += before.shed
                before.end()

        return commit

    def close(self) -> None:
        """Sends what is left, as `Exporter.close`."""
        if self._exporter is not None:
            self._exporter.close()


def _of_export(config: TracesConfig) -> tuple[object, ...]:
    """What an exporter is made of."""
    return config.otlp_endpoint, config.otlp_headers_env, config.otlp_timeout_s, config.queue_size


def _readable(span: SpanRecord, resource: Resource) -> ReadableSpan:
    """A span as OpenTelemetry's exporter takes it."""
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, TraceState
    from opentelemetry.trace.status import Status, StatusCode

    kinds = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT, "internal": SpanKind.INTERNAL}
    state = TraceState.from_header([span.tracestate] if span.tracestate else [])

    def context(span_id: str, *, remote: bool) -> SpanContext:
        return SpanContext(int(span.trace_id, 16), int(span_id, 16), remote, TraceFlags(1), state)

    return ReadableSpan(
        name=span.name,
        context=context(span.span_id, remote=False),
        parent=context(span.parent_id, remote=span.kind == "server") if span.parent_id else None,
        resource=resource,
        attributes={**span.attributes, "parkway.request_id": span.request_id},
        events=[Event(name, timestamp=at_ns) for name, at_ns in span.events],
        kind=kinds[span.kind],
        status=Status(StatusCode.UNSET) if span.error is None else Status(StatusCode.ERROR, span.error),
        start_time=span.started_ns,
        end_time=span.ended_ns,
        instrumentation_scope=InstrumentationScope("parkway", __version__),
    )


def _headers(variable: str, environment: Mapping[str, str]) -> dict[str, str]:
    """`name=value,name=value`, values percent-encoded where need be, as OpenTelemetry's own variables have them."""
    text = environment.get(variable)
    if text is None:
        raise ConfigurationError(
            f"traces.otlp_headers_env: the environment variable {variable} is not set; set it before `parkway up`"
        )
    headers: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise ConfigurationError(  # without the value, which is a secret
                f"traces.otlp_headers_env: {variable} does not have the form name=value,name=value"
            )
        headers[name.strip().lower()] = unquote(value.strip())
    return headers
