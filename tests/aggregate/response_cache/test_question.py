"""What makes two requests the same, and two callers strangers."""

from __future__ import annotations

import itertools

from parkway.aggregate.response_cache.question import ask, owner_of

FIELDS: dict[str, object] = {
    "model": "m",
    "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hello"}],
    "temperature": 0,
}


def key(owner: tuple[str, ...] = ("everybody",), model: str = "m", path: str = "/p", **fields: object) -> bytes:
    return ask({**FIELDS, **fields}, owner, path, model, (("m",), (0, 0))).key


def test_strangers_never_share_whatever_they_are_called() -> None:
    """Names are chosen by those who want what is not theirs."""
    names = ("", "a", "b", "key", "user", "team", "everybody", 'a","b', "a\n", 'a"]', "a\x00", "A")
    callers = [
        {"key_id": key_id, "kind": kind, "user": user, "team": team}
        for key_id in names
        for kind in ("key", "user")
        for user in (None, *names)
        for team in (None, "", "a", 'a","b')
    ]
    for scope, fields in (("key", ("key_id",)), ("user", ("user", "kind")), ("team", ("team", "kind"))):
        told: dict[bytes, set[tuple[object, ...]]] = {}
        for caller in callers:
            named = scope != "key" and caller[scope] is not None and (scope == "team" or caller["kind"] == "key")
            who = (scope, *(caller[field] for field in fields)) if named else ("key", caller["key_id"])
            told.setdefault(key(owner_of(scope, **caller)), set()).add(who)
        assert all(len(who) == 1 for who in told.values())
        assert len(told) == len({next(iter(who)) for who in told.values()})
    assert len({key(owner_of("everybody", **caller)) for caller in callers}) == 1


def test_scopes_never_meet() -> None:
    owners = [owner_of(scope, key_id="x", kind="key", user="x", team="x") for scope in ("key", "user", "team")]
    assert len({key(owner) for owner in (*owners, ("everybody",))}) == 4


def test_the_same_user_of_two_issuers_is_two() -> None:
    one, other = (owner_of("user", key_id=f"issuer-{n}/alice", kind="user", user="alice", team=None) for n in "12")
    assert key(one) != key(other)


def test_what_changes_nothing_is_no_difference_and_all_else_is() -> None:
    same = key(user="u", metadata={"a": 1}, stream=True, stream_options={"include_usage": True}, seed=None)
    assert same == key()
    different = [
        key(model="n"), key(path="/q"), key(seed=1), key(max_tokens=1), key(messages=[]), key(anything=0),
        ask(FIELDS, ("everybody",), "/p", "m", (("n",), (0, 0))).key,
        ask(FIELDS, ("everybody",), "/p", "m", (("m",), (0, 1))).key,
        ask(FIELDS, ("everybody",), "/p", "m", (("m",), (1, 0))).key,
    ]  # fmt: skip
    assert len({same, *different}) == 10


def test_the_order_of_fields_is_free_but_not_within_them() -> None:
    assert ask(dict(reversed(FIELDS.items())), ("everybody",), "/p", "m", (("m",), (0, 0))).key == key()
    assert key(response_format={"a": 1, "b": 2}) != key(response_format={"b": 2, "a": 1})


def test_questions_are_alike_only_if_all_but_the_last_text_is_equal() -> None:
    def rest(*messages: dict[str, object], **fields: object) -> bytes | None:
        return ask({**FIELDS, "messages": list(messages), **fields}, ("o",), "/p", "m", (), semantic=True).rest

    system, hello, hi = ({"role": r, "content": c} for r, c in (("system", "s"), ("user", "hello"), ("user", "hi")))
    assert rest(system, hello) == rest(system, hi) is not None
    rests = [rest(system, hello), rest(hello), rest({**system, "content": "t"}, hello), rest(system, hello, seed=1)]
    assert all(a != b for a, b in itertools.combinations(rests, 2))
    assert rest(hello, {"role": "assistant", "content": "x"}) is None
    assert rest({"role": "user", "content": [{"type": "text", "text": "hello"}]}) is None
