"""What a contestant's process speaks: a JSON line for each request on its standard input, one for each reply.

Runs in the environment of any contestant, so it needs nothing but Python.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Answers:
    """What `generate` replies.

    Fields:
        prefill_s: from the start until every answer had its first token.
        decode_s: from there to the last token of all.
        tokens: the tokens of each answer; None where the contestant only tells text.
    """

    prefill_s: float
    decode_s: float
    tokens: list[list[int]] | None


def end_with_parent() -> None:
    """Have the kernel end this process when its parent ends. It would stay stopped for ever otherwise."""
    set_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


def serve(**commands: Callable[..., object]) -> None:
    """Answer requests until the input ends. A request names a command in `do`; the rest are its arguments.

    A contestant has `load(model, work, precision, threads, sequences, context)`, after which it is ready, and
    `generate(prompts, tokens)`, which returns `Answers`.
    """
    end_with_parent()
    # Libraries print what they like: only replies may reach the other side of this pipe.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        reply: dict[str, object]
        try:
            value = commands[request.pop("do")](**request)
            reply = {"value": asdict(value) if isinstance(value, Answers) else value}
        except Exception as error:  # noqa: BLE001 - whatever a peer raises is the reason why it is left out
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
