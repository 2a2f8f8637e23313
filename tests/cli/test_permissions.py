"""`parkway permissions`, on a home where nothing runs."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Command


def test_the_policies_in_force_are_shown_and_are_a_beginning(parkway: Command, tmp_path: Path) -> None:
    shown = parkway("permissions", "show")
    assert '@id("administrators by scope")' in shown.out
    own = tmp_path / "permissions.cedar"
    own.write_text(shown.out)
    assert parkway("permissions", "validate", str(own)).out.endswith("7 policies, all valid\n")
    own.write_text("permit (principal, action, resource);")
    (tmp_path / "parkway.yaml").write_text("permissions: {file: permissions.cedar}")
    assert parkway("permissions", "show").out == "permit (principal, action, resource);"


def test_a_wrong_file_is_told(parkway: Command, tmp_path: Path) -> None:
    own = tmp_path / "permissions.cedar"
    own.write_text("\npermit (principal, action, resource) when { foo };")
    done = parkway("permissions", "validate", str(own))
    assert done.code == 2
    assert f"error: {own}:2: policy 1 (line 2): " in done.err
    (tmp_path / "parkway.yaml").write_text("permissions: {file: permissions.cedar}")
    assert parkway("permissions", "show").code == 2


def test_a_decision_is_explained(parkway: Command) -> None:
    key_id = parkway("key", "create", "ci", "--scope", "model:a", "--json").json["key_id"]

    def check(resource: str) -> tuple[int, str]:
        done = parkway("permissions", "check", "--key", key_id, "--action", "use", "--resource", resource)
        return done.code, done.out

    assert check("model:a") == (0, 'allowed by policy "models by scope"\ndecided in the built-in permissions\n')
    code, said = check("model:b")
    assert (code, said.splitlines()[0]) == (1, "denied: no policy permits it")
    assert check("tool:a")[0] == 1
    asked = ("permissions", "check", "--key", key_id, "--action", "administer", "--json")
    assert parkway(*asked).json == {
        "allowed": False,
        "policies": [],
        "errors": [],
        "source": "the built-in permissions",
    }


def test_a_user_is_described(parkway: Command) -> None:
    asked = ("permissions", "check", "--user", "ada", "--action", "administer")
    assert parkway(*asked).code == 1
    assert parkway(*asked, "--scope", "admin").out.startswith("allowed by")
    assert parkway(*asked, "--key", "x").code == 2
    assert parkway("permissions", "check", "--action", "administer").code == 2
    assert parkway("permissions", "check", "--key", "nothing", "--action", "administer").code == 1
    assert "leave --resource out" in parkway(*asked, "--resource", "model:a").err
