"""Who is asking."""

from parkway.pipeline.exchange import Exchange
from parkway.pipeline.parts import Parts


async def identify(exchange: Exchange, parts: Parts) -> Exchange:
    """Knows the caller by a key or a token, before a single byte of the body is read.

    Raises:
        NotAuthenticated: No credentials, or none that are good; a subclass and the message say which.
        IdentityUnavailable: A token cannot be checked now.
    """
    if parts.audit.full:
        await parts.audit.room()
    exchange.caller = await parts.identity.identify(exchange.authorization, exchange.api_key)
    exchange.mark("identify")
    return exchange
