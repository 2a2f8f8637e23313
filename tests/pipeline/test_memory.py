"""What of a conversation reaches the model."""

from hypothesis import given
from hypothesis import strategies as st

from parkway.core.chat import Message, Role
from parkway.pipeline.memory import instructions_in_force, whole_conversation, without_oldest_half


def message(role: Role, content: str = "") -> Message:
    return Message(role=role, content=content)


def conversation(*turns: tuple[Role, str]) -> list[Message]:
    return [message(role, content) for role, content in turns]


def test_new_instructions_replace_the_old_ones() -> None:
    history = conversation(("system", "old"), ("user", "a"), ("assistant", "b"))
    new = conversation(("system", "new"), ("user", "c"))
    assert whole_conversation(history, new) == conversation(
        ("system", "new"), ("user", "a"), ("assistant", "b"), ("user", "c")
    )


def test_the_instructions_given_last_and_together_are_in_force() -> None:
    history = conversation(
        ("system", "old"), ("user", "a"), ("assistant", "b"), ("system", "x"), ("developer", "y"), ("user", "c")
    )
    assert instructions_in_force(history) == conversation(("system", "x"), ("developer", "y"))
    assert instructions_in_force([]) == []


roles = st.sampled_from(["system", "developer", "user", "assistant", "tool"])
histories = st.lists(st.builds(message, roles, st.text(max_size=3)), max_size=30)


@given(histories)
def test_halving_ends_keeps_instructions_and_begins_with_a_question(history: list[Message]) -> None:
    shorter = without_oldest_half(history)
    turns = [one for one in shorter if one.role not in ("system", "developer")]
    before = [one for one in history if one.role not in ("system", "developer")]
    assert len(turns) <= len(before) // 2
    assert turns == before[len(before) - len(turns) :]
    if turns:
        assert turns[0].role == "user"
        assert instructions_in_force(shorter) == instructions_in_force(history)
    else:
        assert shorter == []
