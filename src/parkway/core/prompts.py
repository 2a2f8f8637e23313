"""What `/v1/completions` and `/v1/embeddings` take as text: strings or token ids, one or several."""

from parkway.core.errors import InvalidRequest

Prompts = str | list[str | int | list[int]]
"""One string, several strings, the token ids of one text, or of several texts."""


def prompts_of(value: Prompts, param: str) -> list[str | list[int]]:
    """The texts in `value`, each a string or its token ids.

    Raises:
        InvalidRequest: Nothing in it, an empty text, or strings and token ids mixed; `param` names the field.
    """
    texts: list[str | list[int]]
    if isinstance(value, str):
        texts = [value]
    elif value and all(isinstance(item, int) for item in value):
        texts = [[item for item in value if isinstance(item, int)]]
    else:
        texts = [item for item in value if isinstance(item, str | list)]
        if len(texts) < len(value) or len({type(item) for item in texts}) > 1:
            raise InvalidRequest(
                f"`{param}`: strings and token ids are mixed; send strings only, or lists of token ids only",
                param=param,
            )
    if not texts or not all(texts):
        raise InvalidRequest(f"`{param}`: an empty text; every text needs at least one token", param=param)
    return texts
