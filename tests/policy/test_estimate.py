"""How long a prompt is, without a tokeniser."""

from __future__ import annotations

import base64
import os

from parkway.core.chat import ChatRequest, Message
from parkway.core.wire import decode, encode
from parkway.policy.estimate import estimate, tokens_of


def prompt_tokens(content: object) -> int:
    body = encode({"model": "m", "messages": [{"role": "user", "content": content}]})
    return estimate(decode(body, ChatRequest), len(body), 0).prompt_tokens


def test_four_bytes_are_a_token() -> None:
    assert 250 <= prompt_tokens("word " * 200) <= 270


def test_what_was_said_before_counts_and_each_turn_a_little_for_itself() -> None:
    history = [Message(role="user", content="x" * 4000), Message(role="assistant", content=[{"text": "y" * 400}])]
    assert tokens_of(history) == 1100 + 2 * 4


def test_a_picture_is_a_thousand_tokens_whatever_its_size() -> None:
    picture = "data:image/png;base64," + base64.b64encode(os.urandom(300_000)).decode()
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": picture}}]
    assert 1000 <= prompt_tokens(content) <= 1010
