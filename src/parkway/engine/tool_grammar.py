"""The grammar of an answer that may, or must, call tools: every call is valid for its schema.

Source of the dialect: llguidance, docs/syntax.md, "Tool calling".
"""

import json
from collections.abc import Sequence
from typing import Any

from parkway.engine.tools import CallFormat

_ANYTHING = r"/(.|\n)*/"
_NO_CALL = r"/([^{ \t\r\n](.|\n)*)?/"  # where a call is the whole answer, what begins with a brace is one


def tool_grammar(
    form: CallFormat,
    functions: Sequence[tuple[str, Any]],
    *,
    required: bool,
    parallel: bool,
    otherwise: Any | None = None,
) -> str:
    """llguidance's Lark for an answer with calls.

    Args:
        functions: name and schema of each, the schemas as the grammar engine is to enforce them.
        required: the answer has to be a call.
        parallel: there may be several; where a call is the whole answer there is one.
        otherwise: the schema of an answer without a call; None allows any text.
    """
    calls = "call (gap call)*" if parallel and not form.whole_answer else "call"
    rules: list[str]
    if required:
        rules = [f"start: {calls}"]
    elif otherwise is not None:
        rules = [f"start: {calls} | said", f"said: %json {json.dumps(otherwise)}"]
    elif form.whole_answer:
        rules = ["start: call | SAID", f"SAID: {_NO_CALL}"]
    else:
        # Text goes on to the first mark of a call, which is where a lazy lexeme ends.
        talk = "told* SAID" if parallel else "told | SAID"
        mark = json.dumps(form.begin)
        rules = [f"start: {talk}", "told: talk rest", f"talk[lazy]: SAID {mark}", f"SAID: {_ANYTHING}"]
    bodies = " | ".join(f"call_{index}" for index in range(len(functions)))
    if form.whole_answer:
        rules += ["call: body"]
    else:
        rules += [
            f"call: {json.dumps(form.begin)} rest",
            f'rest: "\\n" body {json.dumps(chr(10) + form.end)}',
            'gap: "\\n"',
        ]
    rules += [f"body: {bodies}"]
    for index, (name, schema) in enumerate(functions):
        head = json.dumps(f'{{"name": {json.dumps(name)}, "{form.arguments}": ')
        rules += [f'call_{index}: {head} arguments_{index} "}}"', f"arguments_{index}: %json {json.dumps(schema)}"]
    return "\n".join(["%llguidance {}", *rules]) + "\n"
