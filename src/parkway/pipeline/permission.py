"""May this caller use the model that is asked for, and search the collections that are named."""

from parkway.core.chat import ChatRequest
from parkway.core.errors import CollectionNotFound, NotAllowed
from parkway.pipeline.exchange import Exchange
from parkway.pipeline.grounds import no_collection
from parkway.pipeline.parts import Parts


async def permit(exchange: Exchange, parts: Parts) -> Exchange:
    """Asks the policies, before anything is looked up that would tell whether there is such a model.

    Raises:
        NotAllowed: The caller may not.
        CollectionNotFound: There is no such collection, or the caller may not search it: nobody can tell which.
        RateLimited: And tries too often.
    """
    caller = exchange.known_caller
    try:
        parts.permissions.check(caller, "use", exchange.known_request.model)
        if isinstance(exchange.request, ChatRequest) and exchange.request.knowledge:
            _check_collections(exchange, exchange.request.knowledge, parts)
    except (NotAllowed, CollectionNotFound):
        await parts.limiter.admit(caller)  # of the caller's own limits alone; without it, trying would cost nothing
        raise
    return exchange


def _check_collections(exchange: Exchange, names: list[str], parts: Parts) -> None:
    grounds, caller = parts.grounds, exchange.known_caller
    # Both are asked of each, so that it takes the same time whichever it is.
    may = [(grounds.knowledge.has(name), parts.permissions.allows(caller, "search", name)) for name in names]
    if missing := [name for name, (there, allowed) in zip(names, may, strict=True) if not (there and allowed)]:
        raise CollectionNotFound(no_collection(missing), param="knowledge")
