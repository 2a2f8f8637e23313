"""May this caller use the model that is asked for."""

from parkway.core.errors import NotAllowed
from parkway.pipeline.exchange import Exchange
from parkway.pipeline.parts import Parts


async def permit(exchange: Exchange, parts: Parts) -> Exchange:
    """Asks the policies, before anything is looked up that would tell whether there is such a model.

    Raises:
        NotAllowed: The caller may not.
        RateLimited: And tries too often.
    """
    caller = exchange.known_caller
    try:
        parts.permissions.check(caller, "use", exchange.known_request.model)
    except NotAllowed:
        await parts.limiter.admit(caller)  # of the caller's own limits alone; without it, trying would cost nothing
        raise
    return exchange
