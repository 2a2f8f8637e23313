"""What a scrape shows after known requests."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from parkway.feedback.metrics import Metrics
from tests.feedback.records import make_record

Labels = frozenset[tuple[str, str]]


def scrape(metrics: Metrics) -> dict[tuple[str, Labels], float]:
    """Every sample, parsed by the client library's own parser."""
    families = text_string_to_metric_families(metrics.render().decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def labels(**values: str) -> Labels:
    return frozenset(values.items())


def test_one_streamed_answer() -> None:
    metrics = Metrics(lambda: ["park-mini"])
    metrics.observe(make_record(first_token_ms=30.0, total_ms=2000.0, prompt_tokens=12, completion_tokens=34))
    samples = scrape(metrics)
    answered = labels(model="park-mini", surface="chat", outcome="ok")
    assert samples["parkway_requests_total", answered] == 1
    assert samples["parkway_tokens_total", labels(model="park-mini", kind="prompt")] == 12
    assert samples["parkway_tokens_total", labels(model="park-mini", kind="completion")] == 34
    first_token = "parkway_first_token_seconds"
    assert samples[f"{first_token}_sum", labels(model="park-mini")] == 0.03
    assert samples[f"{first_token}_bucket", labels(model="park-mini", le="0.025")] == 0
    assert samples[f"{first_token}_bucket", labels(model="park-mini", le="0.05")] == 1
    assert samples["parkway_request_seconds_sum", labels(model="park-mini", surface="chat")] == 2.0


def test_an_answer_without_tokens_or_stream() -> None:
    metrics = Metrics(lambda: ["park-mini"])
    record = make_record(
        outcome="overloaded", status=503, first_token_ms=None, prompt_tokens=None, completion_tokens=None
    )
    metrics.observe(record)
    samples = scrape(metrics)
    assert samples["parkway_requests_total", labels(model="park-mini", surface="chat", outcome="overloaded")] == 1
    assert samples["parkway_first_token_seconds_count", labels(model="park-mini")] == 0
    assert samples["parkway_tokens_total", labels(model="park-mini", kind="prompt")] == 0


def test_strangers_names_do_not_grow_the_page() -> None:
    metrics = Metrics(lambda: ["park-mini"])
    for number in range(1000):
        metrics.observe(make_record(model=f"typo-{number}", outcome=f"their-code-{number}"))
        metrics.observe(make_record(model="park-mini", outcome=f"their-code-{number}"))
    samples = scrape(metrics)
    assert samples["parkway_requests_total", labels(model="unknown", surface="chat", outcome="other")] == 1000
    assert samples["parkway_requests_total", labels(model="park-mini", surface="chat", outcome="other")] == 1000
    assert len(samples) < 150
    assert len(metrics._series) < 10


def test_a_model_that_appears_later_gets_its_name() -> None:
    models: list[str] = []
    metrics = Metrics(lambda: models)
    metrics.observe(make_record(model="new"))
    models.append("new")
    metrics.observe(make_record(model="new"))
    samples = scrape(metrics)
    counted = [
        samples["parkway_requests_total", labels(model=model, surface="chat", outcome="ok")]
        for model in ("unknown", "new")
    ]
    assert counted == [1, 1]


def test_in_flight_and_shed_are_read_when_scraped() -> None:
    shed = 0
    metrics = Metrics(list, shed=lambda: shed)
    with metrics.in_flight:
        shed = 7
        samples = scrape(metrics)
    assert samples["parkway_requests_in_flight", labels()] == 1
    assert samples["parkway_request_log_shed_total", labels()] == 7
    assert scrape(metrics)["parkway_requests_in_flight", labels()] == 0


def test_two_gateways_in_one_process_do_not_meet() -> None:
    first, second = Metrics(list), Metrics(list)
    with first.in_flight:
        assert scrape(second)["parkway_requests_in_flight", labels()] == 0
