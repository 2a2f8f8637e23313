"""Every route of /openapi.json under generated requests: no crash, no status or answer that the document lacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import openai
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import checks
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from parkway.gateway.openapi import document
from tests.running import Parkway

CHECKS: list[Any] = [
    checks.not_a_server_error,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
]

WRITING = ("ChatRequest", "CompletionRequest", "ResponseRequest", "MessagesRequest")


def described() -> dict[str, Any]:
    """The document, with the models and lengths of the running Parkway: most requests get past the door."""
    found = document()
    # Every request has the one key; a second, generated one would have most of them refused at the door.
    del found["components"]["securitySchemes"]["header"]
    found["security"] = [{"key": []}]
    schemas = found["components"]["schemas"]
    for name in (*WRITING, "CountRequest", "EmbeddingRequest", "RerankRequest"):
        model = "tiny" if name in (*WRITING, "CountRequest") else "park-embed"
        schemas[name]["properties"]["model"] = {"enum": [model]}
    for name in WRITING:
        for limit in {"max_tokens", "max_completion_tokens", "max_output_tokens"} & schemas[name]["properties"].keys():
            schemas[name]["properties"][limit] = {"type": "integer", "minimum": 1, "maximum": 4}
            schemas[name]["required"] = sorted({*schemas[name]["required"], limit})
    return found


schema = schemathesis.openapi.from_dict(described())

known: dict[str, str] = {}
"""What there is to be shown and deleted, by the name of the parameter in the path."""


@pytest.fixture
def _something_kept(client: openai.OpenAI) -> None:
    """One of everything that a path can name."""
    asked = client.responses.create(model="tiny", input="hello", max_output_tokens=1)
    kept = client.post("/conversations", cast_to=object, body={})
    assert isinstance(kept, dict)
    client.put("/knowledge/docs", cast_to=object, body={})
    client.put("/knowledge/docs/documents/a.txt", cast_to=object, body={"any": "document"})
    known.update(model="tiny", response=asked.id, conversation=kept["id"], trace=asked._request_id or "")
    known.update(name="docs", uri="a.txt")


@schema.hook
def map_path_parameters(_: object, generated: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Every second path names something that is there: all others end at the door with a 404."""
    if not generated:
        return generated
    return {name: known[name] if len(str(value)) % 2 else value for name, value in generated.items()}


@schema.parametrize()
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.usefixtures("_something_kept")
def test_generated_requests(case: schemathesis.Case, parkway: Parkway) -> None:
    case.call_and_validate(
        base_url=parkway.url, headers={"authorization": f"Bearer {parkway.key}"}, checks=CHECKS, timeout=30
    )
