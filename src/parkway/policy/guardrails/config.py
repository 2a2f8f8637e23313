"""The configuration of one guardrail."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, StringConstraints, ValidationInfo, field_validator, model_validator

from parkway.core.configuration import Section
from parkway.core.errors import nearest
from parkway.policy.guardrails.injection import InjectionOptions
from parkway.policy.guardrails.language import LanguageOptions
from parkway.policy.guardrails.pattern import PatternOptions
from parkway.policy.guardrails.personal_data import PersonalDataOptions
from parkway.policy.guardrails.secrets import SecretsOptions
from parkway.policy.guardrails.size import SizeOptions
from parkway.policy.guardrails.topics import TopicsOptions

CheckName = Literal["personal_data", "secrets", "prompt_injection", "topics", "size", "language", "pattern"]
Action = Literal["observe", "redact", "block"]
Direction = Literal["input", "output"]

OPTIONS: dict[str, type[Section]] = {
    "personal_data": PersonalDataOptions,
    "secrets": SecretsOptions,
    "prompt_injection": InjectionOptions,
    "topics": TopicsOptions,
    "size": SizeOptions,
    "language": LanguageOptions,
    "pattern": PatternOptions,
}

REDACTABLE = frozenset({"personal_data", "secrets", "pattern"})
"""Checks that find places. The others judge a text as a whole, of which nothing can be cut out."""


class GuardrailConfig(Section):
    """One entry of the list `guardrails`.

    Attributes:
        name: For people, in errors and metrics.
        check: What is looked for.
        on: Where: what goes to the model, what it answers, or both.
        action: `observe` counts, `redact` puts a mark in its place, `block` refuses the request or ends the answer.
        models: Only for these; by default for all.
        teams: Only for callers of these teams.
        hold_tokens: The most tokens of a stream that may wait until it is clear that they are not part of a finding.
        options: Of the check.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f\"]{1,64}$")]
    check: CheckName
    on: Literal["input", "output", "both"] = "both"
    action: Action = "observe"
    models: list[str] = []
    teams: list[str] = []
    hold_tokens: Annotated[int, Field(ge=1, le=1024)] = 32
    options: Annotated[SerializeAsAny[Section], Field(validate_default=True)] = Section()

    @model_validator(mode="before")
    @classmethod
    def _readable(cls, value: Any) -> Any:
        """YAML reads a bare `on` as true. What only makes sense on input needs no `on`."""
        if not isinstance(value, dict):
            return value
        given = {("on" if key is True else key): each for key, each in value.items()}
        if given.get("check") == "prompt_injection":
            given.setdefault("on", "input")
        return given

    @field_validator("options", mode="before")
    @classmethod
    def _of_the_check(cls, value: Any, info: ValidationInfo) -> Any:
        section = OPTIONS.get(info.data.get("check", ""))
        if section is None:  # what is wrong with `check` is told already
            return Section()
        given = value.model_dump(exclude_unset=True) if isinstance(value, Section) else value
        if isinstance(given, dict):
            for key in given:
                if key not in section.model_fields:
                    known = ", ".join(section.model_fields)
                    raise ValueError(f"unknown key `{key}`.{nearest(str(key), section.model_fields)} Known: {known}")
        return section.model_validate(given)

    @model_validator(mode="after")
    def _possible(self) -> GuardrailConfig:
        if self.action == "redact" and self.check not in REDACTABLE:
            raise ValueError(f"`{self.check}` judges a text as a whole: nothing to redact; `observe` or `block`")
        if self.check == "prompt_injection" and self.on != "input":
            raise ValueError("`prompt_injection` is about what goes in; say `on: input`")
        return self

    def applies(self, direction: Direction) -> bool:
        return self.on in (direction, "both")


GuardrailList = Annotated[list[GuardrailConfig], Field(max_length=64)]
