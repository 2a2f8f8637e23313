"""What an engine tells Prometheus about itself."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from parkway.engine.embedder import Embedder
from parkway.engine.engine import Engine
from parkway.engine.latency import Latencies


class Metrics(Collector):
    """Reads the engine's own counters when asked; counting costs the engine nothing."""

    def __init__(self, source: Engine | Embedder, model: str) -> None:
        self._source = source
        self._model = model
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def page(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        source = self._source
        yield self._gauge("waiting", "Answers or requests that have not begun.", source.waiting)
        yield self._counter("steps", "Passes of the model.", source.steps)
        if isinstance(source, Embedder):
            yield self._counter("texts", "Texts turned into vectors.", source.texts)
            yield self._counter("prompt_tokens", "Tokens of those texts.", source.tokens)
        else:
            yield self._info("How the model is computed; always 1.", source.computing)
            yield self._gauge("running", "Answers in the making.", source.running)
            yield self._gauge("batch", "Answers that took part in the latest pass.", source.batch)
            yield self._gauge("cache_use", "Share of the cache that running answers hold, 0 to 1.", source.cache_use)
            yield self._counter("cached_tokens", "Tokens of prompts that the cache had already.", source.cached_tokens)
            yield self._counter("evictions", "Blocks of the cache given up for others.", source.evictions)
            yield self._counter("preemptions", "Answers sent back to wait for want of room.", source.preemptions)
            yield self._counter(
                "guessed_tokens", "Tokens that were guessed from what was written.", source.guessed_tokens
            )
            yield self._counter("right_tokens", "Guessed tokens that were chosen.", source.right_tokens)
            yield self._histogram("first_token_seconds", "From the queue to the first token.", source.first_token)
            yield self._histogram("next_token_seconds", "From one token to the next.", source.next_token)
            yield self._counter("prompt_tokens", "Tokens of prompts that were read.", source.prompt_tokens)
            yield self._counter("completion_tokens", "Tokens that were chosen.", source.completion_tokens)

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"parkway_engine_{name}", text, labels=("model",))
        family.add_metric((self._model,), value)
        return family

    def _info(self, text: str, values: dict[str, str]) -> Metric:
        family = GaugeMetricFamily("parkway_engine_info", text, labels=("model", *values))
        family.add_metric((self._model, *values.values()), 1)
        return family

    def _histogram(self, name: str, text: str, latencies: Latencies) -> Metric:
        family = HistogramMetricFamily(f"parkway_engine_{name}", text, labels=("model",))
        family.add_metric((self._model,), latencies.buckets(), latencies.sum_s)
        return family

    def _counter(self, name: str, text: str, value: float) -> Metric:
        family = CounterMetricFamily(f"parkway_engine_{name}", text, labels=("model",))
        family.add_metric((self._model,), value)
        return family
