"""Permissions: what the built-in policies say, what others may say, and that whatever fails is denied."""

from __future__ import annotations

from pathlib import Path

import pytest

from parkway.core.errors import ConfigurationError, NotAllowed
from parkway.policy import permissions as module
from parkway.policy.caller import Caller
from parkway.policy.config import PermissionsConfig
from parkway.policy.permissions import Action, Permissions
from parkway.policy.policies import MAX_BYTES, built_in, parse

KEY = Caller("k1", "laptop")
USER = Caller("user-1", "ada", "user", user="ada")


def with_scopes(caller: Caller, *scopes: str) -> Caller:
    return Caller(caller.key_id, caller.name, caller.kind, caller.user, caller.team, frozenset(scopes), caller.tier)


@pytest.fixture
def permissions() -> Permissions:
    return Permissions(built_in())


class TestBuiltIn:
    @pytest.mark.parametrize("action", ["use", "search", "run", "call"])
    @pytest.mark.parametrize("caller", [KEY, USER], ids=["key", "user"])
    def test_without_scopes_everything_may_be_used(
        self, permissions: Permissions, caller: Caller, action: Action
    ) -> None:
        permissions.check(caller, action, "anything")

    def test_only_a_key_administers_without_being_told_so(self, permissions: Permissions) -> None:
        permissions.check(KEY, "administer")
        assert not permissions.allows(USER, "administer")

    @pytest.mark.parametrize("caller", [KEY, USER], ids=["key", "user"])
    @pytest.mark.parametrize(
        ("scope", "action", "name", "allowed"),
        [
            ("model:a", "use", "a", True),
            ("model:a", "use", "b", False),
            ("model:a", "use", "A", False),
            ("model:a", "use", "a:adapter", False),
            ("model:*", "use", "b", True),
            ("model:a", "search", "a", False),
            ("model:*", "run", "a", False),
            ("knowledge:a", "search", "a", True),
            ("knowledge:*", "search", "b", True),
            ("agent:a", "run", "a", True),
            ("agent:*", "run", "b", True),
            ("tool:a", "call", "a", True),
            ("tool:*", "call", "b", True),
            ("admin", "administer", "parkway", True),
            ("admin", "use", "a", False),
            ("model:*", "administer", "parkway", False),
            ("openid", "use", "a", False),
        ],
    )
    def test_a_scope_is_good_for_what_it_says(
        self, permissions: Permissions, caller: Caller, scope: str, action: Action, name: str, allowed: bool
    ) -> None:
        assert permissions.allows(with_scopes(caller, scope), action, name) is allowed

    @pytest.mark.parametrize("action", ["use", "search", "run", "call", "administer"])
    def test_no_scopes_at_all_are_good_for_nothing(self, permissions: Permissions, action: Action) -> None:
        assert not permissions.allows(with_scopes(KEY), action, "anything")

    @pytest.mark.parametrize("name", ['a"b', "a\\", 'x") || true', "é/*", "a\nb", "\ud800", "*", ""])
    def test_a_name_is_a_name_whatever_it_looks_like(self, permissions: Permissions, name: str) -> None:
        assert not permissions.allows(with_scopes(KEY, "model:a"), "use", name)

    def test_a_refusal_says_who_what_and_where(self, permissions: Permissions) -> None:
        with pytest.raises(NotAllowed) as caught:
            permissions.check(with_scopes(KEY, "model:a", "admin"), "use", "b")
        assert caught.value.message == (
            "The key \"laptop\" (k1) may not use the model 'b': nothing permits it; its scopes are admin, model:a. "
            "Decided by the built-in permissions."
        )


class TestOwnPolicies:
    def test_they_replace_the_built_in_ones(self, tmp_path: Path) -> None:
        file = tmp_path / "permissions.cedar"
        file.write_text(
            '@id("the team") permit (principal in Team::"ml", action == Action::"use", resource);\n'
            '@id("not this") forbid (principal, action, resource == Model::"secret");'
        )
        permissions = Permissions(PermissionsConfig(file=str(file)).policies())
        member = Caller("k2", "x", team="ml")
        permissions.check(member, "use", "a")
        assert not permissions.allows(KEY, "use", "a")
        assert not permissions.allows(member, "administer")
        with pytest.raises(NotAllowed, match=r'forbidden by policy "not this".*permissions.file \(permissions.cedar\)'):
            permissions.check(member, "use", "secret")
        assert permissions.decide(member, "use", "a").reasons == ('policy "the team"',)

    def test_the_example_in_the_documentation_is_one(self) -> None:
        page = (Path(__file__).parents[2] / "docs/permissions.md").read_text()
        permissions = Permissions(parse(page.partition("```cedar\n")[2].partition("```")[0], "permissions.md"))
        member = Caller("k2", "x", team="ml")
        assert permissions.allows(member, "use", "any")
        assert not permissions.allows(member, "use", "gpt")
        assert permissions.allows(Caller("k3", "x", team="ml", tier="gold"), "use", "gpt")
        assert permissions.allows(KEY, "use", "park-mini")
        assert not permissions.allows(KEY, "administer")
        assert permissions.allows(USER, "administer")

    def test_an_empty_file_permits_nothing(self) -> None:
        assert not Permissions(parse("// nothing\n", "f.cedar")).allows(KEY, "use", "a")

    @pytest.mark.parametrize("effect", ["permit", "forbid"])
    def test_a_policy_that_fails_denies_everything(self, effect: str, caplog: pytest.LogCaptureFixture) -> None:
        """A `forbid` that fails is skipped by Cedar itself, which would make an error a permission."""
        text = (
            "permit (principal, action, resource);\n"
            f'@id("overflows") {effect} (principal, action == Action::"use", resource) '
            "when { 9223372036854775807 + 1 == 0 };"
        )
        permissions = Permissions(parse(text, "f.cedar"))
        with pytest.raises(NotAllowed, match="could not be evaluated"):
            permissions.check(KEY, "use", "a")
        assert "overflow" in caplog.text
        permissions.check(KEY, "search", "a")

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("permit (", "f.cedar:1: policy 1 (line 1): "),
            ('// a; b\n\n@id("x;y") permit (principal, action, resource) when { foo };', 'f.cedar:3: policy "x;y": '),
            (
                'permit (principal, action == Action::"use", resource);\n\n'
                'permit (principal, action == Action::"use", resource)\nwhen { resource.nam == "a" };',
                "f.cedar:3: policy 2 (line 3): attribute `nam` on entity type `Model` not found",
            ),
            ('permit (principal == Person::"x", action, resource);', "f.cedar:1: policy 1 (line 1): unrecognized"),
            (
                'permit (principal, action == Action::"use", resource) when { principal.team == "ml" };',
                "f.cedar:1: policy 1 (line 1): unable to guarantee safety of access to optional attribute `team`",
            ),
            ('permit (principal, action == Action::"delete", resource);', "f.cedar:1: policy 1 (line 1): "),
        ],
    )
    def test_a_wrong_one_is_told_with_file_line_and_policy(self, text: str, told: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            parse(text, "f.cedar")
        assert told in caught.value.message

    @pytest.mark.parametrize("content", [None, b"\xff\xfe", b" " * (MAX_BYTES + 1)])
    def test_a_file_that_cannot_be_read(self, tmp_path: Path, content: bytes | None) -> None:
        file = tmp_path / "permissions.cedar"
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"permissions\.file"):
            PermissionsConfig(file=str(file)).policies()


class TestMemory:
    def test_a_decision_is_made_once_and_forgotten_with_its_policies(
        self, permissions: Permissions, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[object] = []
        decide = module.cedarpy.is_authorized
        monkeypatch.setattr(module.cedarpy, "is_authorized", lambda *args: (asked.append(args[0]), decide(*args))[1])
        for _ in range(3):
            permissions.check(with_scopes(KEY, "model:a"), "use", "a")  # equal callers, not the same one
        assert len(asked) == 1
        permissions.replace(parse("", "f.cedar"))
        assert not permissions.allows(with_scopes(KEY, "model:a"), "use", "a")

    def test_callers_that_differ_in_anything_are_decided_apart(self, permissions: Permissions) -> None:
        assert permissions.allows(with_scopes(KEY, "model:a"), "use", "a")
        assert not permissions.allows(with_scopes(KEY, "model:b"), "use", "a")
        assert permissions.allows(KEY, "administer")
        assert not permissions.allows(Caller(KEY.key_id, KEY.name, "user"), "administer")

    @pytest.mark.parametrize(
        ("condition", "allowed", "denied"),
        [
            ('principal == Key::"k1"', KEY, Caller("k2", "laptop")),
            ('principal is Key && [Key::"k1"].contains(principal)', KEY, Caller("k2", "laptop")),
            ('principal.name == "laptop"', KEY, Caller("k1", "desktop")),
            ('principal["name"] like "lap*"', KEY, Caller("k1", "desktop")),
            ("principal has user", Caller("k1", "laptop", user="ada"), KEY),
            ('principal has user && principal.user == "ada"', USER, Caller("user-1", "ada", "user", user="bob")),
            ('principal in Team::"red"', Caller("k1", "laptop", team="red"), Caller("k1", "laptop", team="blue")),
            ('principal has team && principal.team == "red"', Caller("k1", "laptop", team="red"), KEY),
            ('{type: principal.name, id: 1}.type == "laptop"', KEY, Caller("k1", "desktop")),
            ('principal has tier && principal.tier == "gold"', Caller("k1", "laptop", tier="gold"), KEY),
            ("principal is Key", KEY, Caller("k1", "laptop", "user")),
            ('principal has scopes && principal.scopes.contains("x")', with_scopes(KEY, "x"), with_scopes(KEY, "y")),
        ],
    )
    def test_whatever_policies_look_at_tells_callers_apart(
        self, condition: str, allowed: Caller, denied: Caller
    ) -> None:
        permissions = Permissions(parse(f"permit (principal, action, resource) when {{ {condition} }};", "f.cedar"))
        for _ in range(2):
            assert permissions.allows(allowed, "use", "a")
            assert not permissions.allows(denied, "use", "a")

    @pytest.mark.parametrize("scope", ['principal == Key::"k1"', 'principal in Team::"red"'])
    def test_the_head_of_a_policy_does_too(self, scope: str) -> None:
        permissions = Permissions(parse(f"permit ({scope}, action, resource);", "f.cedar"))
        assert permissions.allows(Caller("k1", "laptop", team="red"), "use", "a")
        assert not permissions.allows(Caller("k2", "laptop", team="blue"), "use", "a")

    def test_callers_between_whom_they_see_no_difference_are_decided_once(self, permissions: Permissions) -> None:
        for number in range(100):
            permissions.check(Caller(f"k{number}", f"name {number}", user=f"u{number}", team=f"t{number}"), "use", "a")
        assert len(permissions._decisions) == 1

    def test_so_many_are_remembered_and_no_more(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_DECISIONS", 10)
        permissions = Permissions(built_in())
        for number in range(25):
            permissions.check(KEY, "use", f"model {number}")
        assert len(permissions._decisions) == 10

    def test_a_name_that_is_too_long_is_neither_evaluated_nor_kept(self, permissions: Permissions) -> None:
        assert not permissions.allows(KEY, "use", "x" * 1_000_000)
        assert not permissions._decisions

    async def test_a_list_is_cut_down_to_what_is_allowed(self, permissions: Permissions) -> None:
        names = [f"m{number}" for number in range(30)]
        assert await permissions.allowed(with_scopes(KEY, "model:m3", "model:m20"), "use", names) == ["m3", "m20"]
