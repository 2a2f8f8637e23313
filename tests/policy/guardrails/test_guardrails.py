"""The list of guardrails: what may be configured, what applies to whom, and how it is replaced."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from parkway.core.configuration import parse
from parkway.core.errors import ConfigurationError
from parkway.launch.settings import Settings
from parkway.policy.guardrails.config import GuardrailConfig
from parkway.policy.guardrails.guardrails import Guardrails
from parkway.policy.guardrails.window import apply


def entries(text: str) -> list[GuardrailConfig]:
    return parse(text, Settings, source="parkway.yaml").guardrails


def rule(name: str, **fields: Any) -> GuardrailConfig:
    return GuardrailConfig.model_validate({"name": name, "check": "secrets", **fields})


def test_yaml_takes_on_for_true_and_no_for_false_and_both_are_understood() -> None:
    assert yaml.safe_load("on: [no]") == {True: [False]}
    (entry,) = entries("guardrails: [{name: a, check: language, on: output, options: {allow: [no, de]}}]")
    assert entry.on == "output"
    assert entry.options.model_dump()["allow"] == ["no", "de"]


def test_a_configuration_can_be_written_and_read_again() -> None:
    text = "guardrails: [{name: a, check: pattern, action: block, options: {patterns: {T: 'T-[0-9]+'}}}]"
    settings = parse(text, Settings, source="a")
    again = parse(settings.model_dump_json(exclude_unset=True), Settings, source="b")
    assert again.guardrails == settings.guardrails


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("{name: a, check: secret}", "guardrails.0.check: Input should be"),
        ("{name: a, check: secrets, acton: block}", 'unknown key. Did you mean "action"?'),
        ("{name: a, check: secrets, options: {contxt: true}}", 'unknown key `contxt`. Did you mean "context"?'),
        ("{name: a, check: size, action: redact, options: {max_chars: 5}}", "nothing to redact"),
        ("{name: a, check: size}", "give at least one of"),
        ("{name: a, check: size, options: {max_chars: 0}}", "guardrails.0.options.max_chars"),
        ("{name: a, check: prompt_injection, on: output}", "is about what goes in"),
        ("{name: a, check: pattern, options: {patterns: {X: '(a)\\1'}}}", "backreferences"),
        ("{name: a, check: pattern, options: {patterns: {X: '(a+)+$'}}}", "have no place here"),
        ("{name: a, check: pattern, options: {patterns: {X: 'a*'}}}", "matches the empty text"),
        ("{name: a, check: language, options: {allow: [xx]}}", "guardrails.0.options.allow.0"),
        ("{name: a, check: personal_data, options: {regions: [Germany]}}", "not a country code"),
        ("{name: a, check: topics}", "guardrails.0.options.topics: missing"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(entry: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        entries(f"guardrails:\n- {entry}")
    assert told in error.value.message
    assert error.value.message.startswith("parkway.yaml:")


def test_prompt_injection_is_for_input_without_saying_so() -> None:
    assert rule("a", check="prompt_injection").on == "input"


def test_what_applies_to_whom() -> None:
    guardrails = Guardrails([rule("all"), rule("gpt", models=["gpt-*"], on="input"), rule("sales", teams=["sales"])])

    def names(*asked: Any) -> list[str]:
        guard = guardrails.guard(*asked)
        return [each.name for each in guard.rules] if guard else []

    assert names("input", "gpt-5", "sales") == ["all", "gpt", "sales"]
    assert names("input", "gpt-5", None) == ["all", "gpt"]
    assert names("output", "gpt-5", "dev") == ["all"]
    assert Guardrails().guard("input", "m", None) is None
    assert not Guardrails().active


def test_another_list_takes_the_place_of_the_old_one_whole_or_not_at_all() -> None:
    guardrails = Guardrails([rule("old", action="block")])
    running = guardrails.guard("input", "m", None)
    with pytest.raises(ConfigurationError, match="the name of two"):
        guardrails.replace([rule("same"), rule("same")])
    topics = rule("t", check="topics", options={"topics": {"a": ["phrase"]}})
    with pytest.raises(ConfigurationError, match="nothing here that embeds"):
        guardrails.replace([rule("new"), topics])
    assert guardrails.guard("input", "m", None) is running
    guardrails.replace([])
    assert not guardrails.active
    assert running is not None
    assert apply(running, "ghp_" + "a1B2" * 9).block is not None


def test_kinds_regions_and_countries_are_options() -> None:
    text = "jane@example.com 8.8.8.8 030 901820"
    only = rule("a", check="personal_data", action="redact", options={"kinds": ["ip"]})
    british = rule("b", check="personal_data", action="redact", options={"kinds": ["phone"], "regions": ["GB"]})
    for entry, expected in ((only, "jane@example.com [IP] 030 901820"), (british, text)):
        guard = Guardrails([entry]).guard("input", "m", None)
        assert guard is not None
        assert apply(guard, text).text == expected


def test_answers_that_pass_different_guardrails_are_told_apart() -> None:
    def guardrails(**changed: object) -> Guardrails:
        entry = {"name": "mail", "check": "personal_data", "action": "redact", "teams": ["a"], **changed}
        return Guardrails([GuardrailConfig.model_validate(entry)])

    one = guardrails()
    assert one.fingerprint("m", "a") == guardrails().fingerprint("m", "a") != ""
    assert one.fingerprint("m", "b") == guardrails(on="input").fingerprint("m", "a") == ""
    assert one.fingerprint("m", "a") != guardrails(action="observe").fingerprint("m", "a")
    before = one.fingerprint("m", "a")
    one.replace([GuardrailConfig(name="mail", check="secrets", action="redact")])
    assert one.fingerprint("m", "a") != before


def test_what_is_remembered_is_bounded_in_number_and_size() -> None:
    guardrails = Guardrails([rule("a", models=["x*"])])
    for number in range(3000):
        assert guardrails.guard("input", f"x{number}", None) is guardrails.guard("input", "x", None)
        assert guardrails.guard("input", f"y{number}", f"team {number}") is None
    known = guardrails._known
    assert len(known) <= 1024
    assert guardrails.guard("input", "x" * 100_000, None) is not None
    assert max(len(model) for _, model, _ in known) < 1000
