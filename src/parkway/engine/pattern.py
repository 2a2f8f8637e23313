"""Regular expressions of JSON Schema (ECMA-262), rewritten so that two regex engines read them alike.

The grammar engine compiles them with Rust's syntax, the validator with Python's; both differ from ECMA-262 and from
each other in what `\\d`, `\\s`, `.` and a bracket inside a character class mean. What cannot be written in a way that
means the same everywhere is refused.
"""

import re

# A pattern of this many places is unrolled into as many states at once.
MAX_PLACES = 10_000

_DIGIT = "0-9"
_WORD = "0-9A-Za-z_"
_SPACE = r" \t\n\r\f\v\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
_SETS = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
_ANY = r"[^\n\r\u2028\u2029]"
_META = frozenset("\\.+*?()|[]{}^$#&-~/")

_COUNT = re.compile(r"\{(\d+)(?:(,)(\d*))?\}")
_CODE = re.compile(r"x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}")
_GROUP = re.compile(r"\((?:\?:|\?P?<[A-Za-z_]\w*>)?", re.ASCII)


def portable(pattern: str) -> str:
    """`pattern` with one meaning in ECMA-262, Rust and Python.

    Raises:
        ValueError: it is malformed, too large, or uses what not all of them have.
    """
    rewritten = _Rewriter(pattern).rewrite()
    try:
        re.compile(rewritten)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return rewritten


class _Rewriter:
    """One pass over a pattern, left to right."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._written: list[str] = []
        self._places = [0]  # places inside each open group, the whole pattern first
        self._last = 0  # places of what a quantifier would repeat

    def rewrite(self) -> str:
        while self._at < len(self._pattern):
            self._step(self._pattern[self._at])
            if self._places[-1] > MAX_PLACES:
                raise ValueError(f"its repetitions unroll to more than {MAX_PLACES} places")
        if len(self._places) > 1:
            raise ValueError("a group is not closed")
        return "".join(self._written)

    def _step(self, char: str) -> None:
        if char == "\\":
            self._atom(self._escape(in_class=False))
        elif char == "[":
            self._atom(self._class())
        elif char == "(":
            self._open()
        elif char == ")":
            self._close()
        elif char == "{":
            self._brace()
        elif char == ".":
            self._at += 1
            self._atom(_ANY)
        elif char in "*+?|^$":
            self._at += 1
            self._written.append(char)
        else:
            self._at += 1
            self._atom(literal(char))

    def _atom(self, text: str) -> None:
        self._written.append(text)
        self._places[-1] += 1
        self._last = 1

    def _open(self) -> None:
        head = _GROUP.match(self._pattern, self._at)
        assert head is not None, "called at a bracket"  # noqa: S101
        if head.group() == "(" and self._pattern.startswith("?", head.end()):
            raise ValueError("lookarounds and inline flags are not supported")
        self._at = head.end()
        self._written.append("(?:")
        self._places.append(0)

    def _close(self) -> None:
        if len(self._places) == 1:
            raise ValueError("a group is closed that was not opened")
        self._at += 1
        self._written.append(")")
        self._last = self._places.pop()
        self._places[-1] += self._last

    def _brace(self) -> None:
        """A count, or a brace that stands for itself."""
        count = _COUNT.match(self._pattern, self._at)
        if count is None:
            self._at += 1
            self._atom(r"\{")
            return
        self._at = count.end()
        self._written.append(count.group())
        least, most = int(count[1]), int(count[3] or count[1])
        times = max(least, most, 1)
        self._places[-1] += self._last * (times - 1)
        self._last *= times

    def _escape(self, *, in_class: bool) -> str:
        """The escape at this place, without the brackets around a set if it is inside a class."""
        char = self._pattern[self._at + 1 : self._at + 2]
        code = _CODE.match(self._pattern, self._at + 1)
        self._at += 2
        if code is not None:
            self._at = code.end()
            if 0xD800 <= int(code.group()[1:], 16) <= 0xDFFF:
                raise ValueError("half of a surrogate pair; write the character itself")
            return "\\" + code.group()
        if char in _SETS:
            return _SETS[char] if in_class else f"[{_SETS[char]}]"
        if char and char in "DWS" and not in_class:
            return f"[^{_SETS[char.lower()]}]"
        if char and char in "tnrfv":
            return "\\" + char
        if char == "b" and in_class:
            return r"\x08"
        if char == "0" and not self._pattern[self._at : self._at + 1].isdigit():
            return r"\x00"
        if not char or (char.isascii() and char.isalnum()):
            raise ValueError(f'"\\{char}" is not supported{" inside a class" if in_class else ""}')
        return literal(char)

    def _class(self) -> str:
        self._at += 1
        items = ["["]
        if self._pattern.startswith("^", self._at):
            self._at += 1
            items.append("^")
        if self._pattern.startswith("]", self._at):
            raise ValueError("an empty class is not supported")
        while (char := self._pattern[self._at : self._at + 1]) != "]":
            if not char:
                raise ValueError("a class is not closed")
            if self._pattern.startswith("--", self._at):
                raise ValueError('"--" inside a class is not supported; escape the hyphen')
            if char == "\\":
                items.append(self._escape(in_class=True))
                continue
            self._at += 1
            items.append(char if char == "-" else literal(char))
        self._at += 1
        return "".join([*items, "]"])


def literal(char: str) -> str:
    """A character as itself, inside a class and outside."""
    return "\\" + char if char in _META else char
