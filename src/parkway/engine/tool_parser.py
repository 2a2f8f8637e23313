"""Reading tool calls out of an answer as it is written, piece by piece."""

import re
from dataclasses import dataclass
from enum import Enum, auto

from parkway.core.ids import new_id
from parkway.engine.tools import CallFormat


@dataclass(frozen=True, slots=True)
class CallDelta:
    """A part of a call. The first part of each has `id` and `name`."""

    index: int
    arguments: str = ""  # JSON, to be added to what came before
    id: str | None = None
    name: str | None = None


class _State(Enum):
    TEXT = auto()
    HEAD = auto()  # from the beginning of a call to the beginning of its arguments
    ARGUMENTS = auto()
    TAIL = auto()  # from the end of the arguments to the end of the call


class ToolParser:
    """Splits an answer into text and calls. What comes out does not depend on how the answer was cut into pieces.

    The grammar sees to it that calls are well formed (`engine/tool_grammar.py`); this only finds their parts.

    Fields:
        calls: how many are complete.
        open: the answer is in the middle of a call.
    """

    def __init__(self, form: CallFormat) -> None:
        self._form = form
        self._head = re.compile(rf'\s*\{{\s*"name"\s*:\s*"([^"\\]*)"\s*,\s*"{form.arguments}"\s*:\s*(?=[\[{{])')
        self._tail = re.compile(rf"\s*\}}\s*{re.escape(form.end)}")
        self._state = _State.TEXT
        self._held = ""
        self._depth = 0
        self._quoted = self._escaped = False
        self._begun = 0
        self._spoken = False  # something other than white space came
        self.calls = 0

    @property
    def open(self) -> bool:
        return self._state is not _State.TEXT

    def feed(self, text: str) -> list[str | CallDelta]:
        """Add `text`; returns what is certain now: parts of the text, and parts of calls."""
        self._held += text
        found: list[str | CallDelta] = []
        while (part := self._next()) is not None:
            if part:
                found.append(part)
        return found

    def finish(self) -> str:
        """Text that was held back, now that nothing follows; a call that is not complete is not among it."""
        held, self._held = self._held, ""
        return "" if self.open or (self.calls and not held.strip()) else held

    def _next(self) -> str | CallDelta | None:
        """The next part, perhaps an empty one; None where more of the answer is needed."""
        match self._state:
            case _State.TEXT:
                return self._text()
            case _State.HEAD:
                return self._read_head()
            case _State.ARGUMENTS:
                return self._read_arguments()
            case _State.TAIL:
                return self._read_tail()

    def _text(self) -> str | None:
        if self._form.whole_answer:
            return self._text_or_call()
        begin = self._form.begin
        place = self._held.find(begin)
        if place >= 0:
            text, self._held = self._held[:place], self._held[place + len(begin) :]
            self._state = _State.HEAD
            # White space before a call belongs to the call's form, not to what is said.
            return text.rstrip()
        keep = next((size for size in range(len(begin) - 1, 0, -1) if self._held.endswith(begin[:size])), 0)
        space = len(self._held) - keep - len(self._held[: len(self._held) - keep].rstrip())
        return self._release(len(self._held) - keep - space)

    def _text_or_call(self) -> str | None:
        """Where a call is the whole answer, its first character says whether it is one."""
        if not self._spoken and self._held.lstrip().startswith("{"):
            self._state = _State.HEAD
            return ""
        return self._release(len(self._held) if self._spoken or self._held.strip() else 0)

    def _release(self, size: int) -> str | None:
        if not size:
            return None
        self._spoken = True
        text, self._held = self._held[:size], self._held[size:]
        return text

    def _read_head(self) -> CallDelta | None:
        head = self._head.match(self._held)
        if head is None:
            return None
        self._held = self._held[head.end() :]
        self._state = _State.ARGUMENTS
        self._begun += 1
        return CallDelta(self._begun - 1, id=new_id("call"), name=head[1])

    def _read_arguments(self) -> CallDelta | None:
        if not self._held:
            return None
        for place, char in enumerate(self._held):
            self._follow(char)
            if self._depth == 0:
                self._state = _State.TAIL
                return self._arguments(place + 1)
        return self._arguments(len(self._held))

    def _arguments(self, size: int) -> CallDelta:
        part, self._held = self._held[:size], self._held[size:]
        return CallDelta(self._begun - 1, part)

    def _follow(self, char: str) -> None:
        """Keep track of how deep in the JSON of the arguments the answer is."""
        if self._escaped:
            self._escaped = False
        elif self._quoted:
            self._escaped = char == "\\"
            self._quoted = char != '"'
        elif char == '"':
            self._quoted = True
        elif char in "{[":
            self._depth += 1
        elif char in "}]":
            self._depth -= 1

    def _read_tail(self) -> str | None:
        tail = self._tail.match(self._held)
        if tail is None:
            return None
        self._held = self._held[tail.end() :]
        self._state = _State.TEXT
        self.calls += 1
        self._spoken = True
        return ""
