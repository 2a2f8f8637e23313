"""Token ids to text as they come, only ever at whole characters."""

import codecs

from parkway.engine.tokenizer import Tokenizer


class Detokenizer:
    """Turns one answer's tokens into text, piece by piece.

    A character that is spread over several tokens is released with its last byte. Bytes that can never become a
    character are released as U+FFFD; a character that the answer's end cuts off is not released at all.

    Args:
        tokenizer: says which bytes a token stands for.
        fresh: the text stands by itself, as an answer in a chat does; some tokenizers begin such a text with a
            space that is not part of it. False where it continues a prompt.
    """

    def __init__(self, tokenizer: Tokenizer, *, fresh: bool) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._strip = tokenizer.strip_start if fresh else 0

    def feed(self, token_id: int) -> str:
        """The text that is now certain because of this token; often empty."""
        text = self._decoder.decode(self._tokenizer.bytes_of(token_id))
        while self._strip and text:
            self._strip -= 1
            if not text.startswith(" "):
                self._strip = 0
                break
            text = text[1:]
        return text
