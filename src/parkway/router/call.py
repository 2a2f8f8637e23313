"""A call: one request on its way to some endpoint of a model."""

from __future__ import annotations

import msgspec

from parkway.core.trace import Trace
from parkway.core.wire import encode, fields_of


class Call(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What to send, whichever endpoint gets it.

    Args:
        path: Appended to the endpoint's url: `/chat/completions`.
        body: A JSON object; its `model` is `model`.
        deadline: When the whole answer must have arrived, in seconds of `time.monotonic`.
        trace: Gets a span for each endpoint that is asked, which is told its context.
        client: On whose account the call is. Parkway's own engines are told, for fairness; nobody else is.
        prompt_tokens: How long the prompt is, as estimated: some endpoints take only some lengths.
    """

    model: str
    path: str
    body: bytes
    request_id: str
    deadline: float
    trace: Trace | None = None
    client: str | None = None
    prompt_tokens: int = 0

    def body_for(self, upstream_model: str) -> bytes:
        """The body as an endpoint that calls the model `upstream_model` expects it; other fields keep their bytes.

        Raises:
            MalformedJSON: The body is not JSON.
            InvalidRequest: The body is not a JSON object.
        """
        if upstream_model == self.model:
            return self.body
        fields = fields_of(self.body)
        fields["model"] = msgspec.Raw(encode(upstream_model))
        return encode(fields)
