"""Who is asking."""

from parkway.pipeline.exchange import Exchange
from parkway.pipeline.parts import Parts


async def identify(exchange: Exchange, parts: Parts) -> Exchange:
    """Knows the caller by the key, before a single byte of the body is read.

    Raises:
        MissingKey, InvalidKey: No credentials, or none that are known.
    """
    if parts.audit.full:
        await parts.audit.room()
    exchange.caller = parts.keys.identify(exchange.authorization)
    exchange.mark("identify")
    return exchange
