"""The routes of kept responses: show, delete, list the input."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from parkway.aggregate.responses import MAX_PAGE
from parkway.core.errors import InvalidRequest, UnsupportedField
from parkway.core.responses import DeletedResponse
from parkway.gateway.own import Json, OwnRoutes, integer


class ResponseRoutes:
    """The handlers; `gateway/app.py` gives each its path. Making a response is a `ModelRoute`."""

    def __init__(self, own: OwnRoutes) -> None:
        self._own = own
        self._responses = own.parts.responses

    async def show(self, request: Request) -> Response:
        caller = await self._own.caller(request)
        if request.query_params.get("stream", "false").lower() not in ("false", "0"):
            raise UnsupportedField("`stream`: a kept response is not streamed again; leave it out", param="stream")
        body = await self._responses.get(caller.key_id, request.path_params["response"])
        return Response(body, media_type="application/json")

    async def delete(self, request: Request) -> Response:
        caller = await self._own.caller(request)
        response_id: str = request.path_params["response"]
        await self._responses.delete(caller.key_id, response_id)
        self._own.parts.audit.administer("response.delete", response_id, key_id=caller.key_id)
        return Json(DeletedResponse(id=response_id))

    async def list_input(self, request: Request) -> Response:
        caller = await self._own.caller(request)
        order = request.query_params.get("order", "desc")
        if order not in ("asc", "desc"):
            raise InvalidRequest(f"`order`: {order[:40]!r}; expected asc or desc", param="order")
        page = await self._responses.input_items(
            caller.key_id,
            request.path_params["response"],
            limit=integer(request, "limit", default=20, low=1, high=MAX_PAGE),
            after=request.query_params.get("after"),
            descending=order == "desc",
        )
        return Json(page)
