"""What `/metrics` shows, in the format of Prometheus.

Labels are bounded: a model name that nobody serves counts as `unknown`, an outcome that Parkway does not define (an
endpoint's own error code) as `other`. Otherwise one client with a typo generator would fill the memory of the gateway
and of whoever scrapes it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from parkway.core.errors import ParkwayError
from parkway.core.grounding import Grounded
from parkway.core.knowledge import Found
from parkway.feedback.combined import Combined
from parkway.feedback.figures import Count, Counts, Level, Spread, Spreads
from parkway.feedback.record import CANCELLED, OK, UNKNOWN_MODEL, RequestRecord

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

OTHER_OUTCOME = "other"

MAX_MODELS = 1000
"""Model names that may have series in the life of a process; names beyond it count as `unknown`."""

MAX_FOUND = 2000
"""Combinations of guardrail and kind that may have series in the life of a process; others count as `other`."""

# Seconds. From a cache hit on a small model to a long answer of a large one; about two buckets an octave where
# objectives are usually set.
_FIRST_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0)
_INTERVAL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
_SEARCH_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_SEARCH_STAGES = frozenset({"embed", "search", "rank", "total"})
_TOTAL_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class _Series(NamedTuple):
    """The figures that one request touches, looked up once."""

    requests: Count
    prompt_tokens: Count
    completion_tokens: Count
    first_token: Spread
    total: Spread
    token_interval: Spread


class Metrics:
    """The gateway's metrics, in a registry of their own.

    Args:
        models: The models served now; asked only when a name appears for the first time.
        shed, audit_lost, spans_shed: What was given up so far by `RequestLog`, `AuditLog` and the traces.
    """

    def __init__(
        self,
        models: Callable[[], Collection[str]],
        shed: Callable[[], int] = lambda: 0,
        *,
        audit_lost: Callable[[], int] = lambda: 0,
        spans_shed: Callable[[], int] = lambda: 0,
    ) -> None:
        self._models = models
        self._series: dict[tuple[str, str, str], _Series] = {}
        self._labelled: set[str] = set()
        self._outcomes = frozenset({OK, CANCELLED, *_codes(ParkwayError)})
        self.combined: Combined | None = None
        """With other gateways on the same port: `render` then shows the sum of all."""
        self.registry = CollectorRegistry()
        self.in_flight = Level(
            "parkway_requests_in_flight", "Requests that wait for an answer or stream one now", self.registry
        )
        self._requests = Counts(
            "parkway_requests",
            "Requests that ended, by how they ended",
            ("model", "surface", "outcome"),
            self.registry,
        )
        self._tokens = Counts("parkway_tokens", "Tokens read and written", ("model", "kind"), self.registry)
        self._first_token = Spreads(
            "parkway_first_token_seconds",
            "From the arrival of a streamed request to its first token",
            ("model",),
            _FIRST_TOKEN_BUCKETS,
            self.registry,
        )
        self._total = Spreads(
            "parkway_request_seconds",
            "From the arrival of a request to the end of its answer, whatever its outcome",
            ("model", "surface"),
            _TOTAL_BUCKETS,
            self.registry,
        )
        self._guardrails = Counter(
            "parkway_guardrail_findings",
            "What guardrails have found, by guardrail, kind, action and direction",
            ("guardrail", "kind", "action", "direction"),
            registry=self.registry,
        )
        self._found: set[tuple[str, str, str, str]] = set()
        self._token_interval = Spreads(
            "parkway_token_interval_seconds",
            "Between two tokens of a streamed answer, on average over the answer",
            ("model",),
            _INTERVAL_BUCKETS,
            self.registry,
        )
        self.registry.register(
            _GivenUp(
                {
                    (
                        "parkway_request_log_shed",
                        "Log records that were given up because the store was too slow or away",
                    ): shed,
                    (
                        "parkway_audit_lost",
                        "Decisions that have no entry because the store was too slow or away",
                    ): audit_lost,
                    ("parkway_spans_shed", "Spans that the store or the collector was too slow for"): spans_shed,
                }
            )
        )
        self.configuration_valid = Gauge(
            "parkway_configuration_valid",
            "1; 0 while the configuration as it is written now cannot be used and an earlier one is in force",
            registry=self.registry,
        )
        self.configuration_valid.set(1)
        self._cache = Counter(
            "parkway_cache_requests",
            "Requests by what the response cache did for them",
            ("result",),
            registry=self.registry,
        )
        self._recalled: dict[str, Counter] = {}
        self._grounded = Counter(
            "parkway_grounded_answers",
            "Answers from documents, by how they were made and whether there was an answer",
            ("tier", "answered"),
            registry=self.registry,
        )
        self._sentences = Counter(
            "parkway_grounded_sentences",
            "Sentences of answers from documents, by what checking them found",
            ("result",),
            registry=self.registry,
        )
        self._searches = Counts(
            "parkway_searches",
            "Searches of documents, by the surface that asked and how they ended",
            ("surface", "outcome"),
            self.registry,
        )
        self._search_stages = Spreads(
            "parkway_search_seconds",
            "How long searches of documents take, by stage; one that was kept from before has `total` alone",
            ("stage",),
            _SEARCH_BUCKETS,
            self.registry,
        )
        ProcessCollector(registry=self.registry)

    def observe(self, record: RequestRecord) -> None:
        """Counts a request that has ended."""
        names = (record.model, record.surface, record.outcome)
        series = self._series.get(names) or self._find(*names)
        series.requests.value += 1
        series.total.add(record.total_ms / 1000)
        completion_tokens = record.completion_tokens or 0
        if record.first_token_ms is not None:
            series.first_token.add(record.first_token_ms / 1000)
            if completion_tokens > 1:
                streamed_s = (record.total_ms - record.first_token_ms) / 1000
                series.token_interval.add(streamed_s / (completion_tokens - 1))
        series.prompt_tokens.value += record.prompt_tokens or 0
        series.completion_tokens.value += completion_tokens

    def found(self, guardrail: str, kind: str, action: str, direction: str, count: int) -> None:
        """Counts what a guardrail has found. Names come from the configuration, which may change often."""
        names = (guardrail, kind, action, direction)
        if names not in self._found:
            if len(self._found) >= MAX_FOUND:
                names = (OTHER_OUTCOME, OTHER_OUTCOME, action, direction)
            self._found.add(names)
        self._guardrails.labels(*names).inc(count)

    def show(self, name: str, help: str, value: Callable[[], float]) -> None:
        """Adds a gauge that another part knows the value of; it is asked when somebody scrapes."""
        Gauge(name, help, registry=self.registry).set_function(value)

    def recalled(self, result: str) -> None:
        """Counts what the response cache did for a request; `result` is one of a fixed few."""
        series = self._recalled.get(result)
        if series is None:
            series = self._recalled[result] = self._cache.labels(result)
        series.inc()

    def grounded(self, told: Grounded) -> None:
        """Counts an answer from documents."""
        self._grounded.labels(told.tier, "yes" if told.answered else "no").inc()
        counts = (("cited", len(told.citations)), ("unsupported", len(told.unsupported)), ("dropped", told.dropped))
        for result, count in counts:
            if count:
                self._sentences.labels(result).inc(count)

    def searched(self, surface: str, outcome: str, found: Sequence[Found]) -> None:
        """Counts a search of documents, of each of its collections how long it took."""
        self._searches.labels(surface, outcome if outcome in self._outcomes else OTHER_OUTCOME).value += 1
        for each in found:
            for stage in _SEARCH_STAGES & each.took_ms.keys():
                self._search_stages.labels(stage).add(each.took_ms[stage] / 1000)

    def render(self) -> bytes:
        """The text of `/metrics`, of type `CONTENT_TYPE`."""
        return generate_latest(self.registry) if self.combined is None else self.combined.render()

    def _find(self, model: str, surface: str, outcome: str) -> _Series:
        """The series of a combination seen for the first time; remembered only under bounded names."""
        model = self._label_of(model)
        outcome = outcome if outcome in self._outcomes else OTHER_OUTCOME
        names = (model, surface, outcome)
        if (series := self._series.get(names)) is None:
            series = self._series[names] = _Series(
                requests=self._requests.labels(*names),
                prompt_tokens=self._tokens.labels(model, "prompt"),
                completion_tokens=self._tokens.labels(model, "completion"),
                first_token=self._first_token.labels(model),
                total=self._total.labels(model, surface),
                token_interval=self._token_interval.labels(model),
            )
        return series

    def _label_of(self, model: str) -> str:
        if model in self._labelled:
            return model
        if len(self._labelled) < MAX_MODELS and model in self._models():
            self._labelled.add(model)
            return model
        return UNKNOWN_MODEL


class _GivenUp(Collector):
    """Reads the logs' own counts when somebody scrapes, so that there is one count of each and not two.

    Args:
        counts: By name and description.
    """

    def __init__(self, counts: Mapping[tuple[str, str], Callable[[], int]]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[CounterMetricFamily]:
        for (name, description), count in self._counts.items():
            yield CounterMetricFamily(name, description, value=count())


def _codes(error: type[ParkwayError]) -> Iterator[str]:
    yield error.code
    for child in error.__subclasses__():
        yield from _codes(child)
