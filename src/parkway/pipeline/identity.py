"""Who is asking."""

from parkway.pipeline.exchange import Exchange
from parkway.pipeline.parts import Parts


async def identify(exchange: Exchange, parts: Parts) -> Exchange:
    """Knows the caller by the key, before a single byte of the body is read.

    Raises:
        MissingKey, InvalidKey: No credentials, or none that are known.
    """
    exchange.caller = parts.keys.identify(exchange.authorization)
    return exchange
