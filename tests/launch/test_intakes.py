"""What the configuration says of each endpoint, by the id under which it is published."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from parkway.launch.engines import unstarted
from parkway.launch.intakes import intakes_of
from parkway.launch.local import remote_endpoints
from parkway.launch.settings import Settings
from parkway.router.endpoint import Endpoint
from parkway.router.intake import ANYTHING, Intake

SETTINGS = Settings.model_validate({
    "models": {
        "far": {"endpoints": [
            {"url": "http://a", "max_concurrency": 7, "accepts": {"max_prompt_tokens": 100}},
            {"url": "http://b", "accepts": {"min_prompt_tokens": 101}},
            {"path": "/m", "engine": {"max_sequences": 8}, "replicas": 2},
        ]},
        "near": {"path": "/m", "engine": {"max_sequences": 4}, "adapters": {"a": "/a"}},
    },
    "engine": {"max_sequences": 16},
})  # fmt: skip


def test_an_endpoint_takes_what_is_configured_for_it() -> None:
    intake_of = intakes_of(SETTINGS)
    assert [intake_of(each) for each in remote_endpoints(SETTINGS)] == [Intake(7, 0, 100), Intake(None, 101, None)]


def test_an_engine_takes_its_batch_and_a_few_more() -> None:
    intake_of = intakes_of(SETTINGS)
    engines = [*unstarted("far", 0, [], "ready"), *unstarted("far", 1, [], "ready")]
    assert [intake_of(each) for each in engines] == [Intake(11), Intake(11)]
    assert [intake_of(each) for each in unstarted("near", 0, ["a"], "ready")] == [Intake(6), Intake(6)]
    assert intake_of(unstarted("pulled", 0, [], "asleep")[0]) == Intake(21)


def test_nothing_is_known_of_others() -> None:
    other = Endpoint(endpoint_id="x", model="m", url="http://c", upstream_model="m", source="api")
    assert intakes_of(SETTINGS)(other) == ANYTHING


def test_tiers_survive_being_handed_to_another_process() -> None:
    given = Settings.model_validate({"admission": {"tiers": {"gold": {"class": "interactive"}}}})
    handed = given.model_dump_json(exclude_unset=True)
    assert Settings.model_validate_json(handed).admission == given.admission


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"path": "/m", "max_concurrency": 3}, "`max_concurrency` belongs to a `url`"),
        ({"endpoints": ["http://a"], "accepts": {"max_prompt_tokens": 3}}, "`accepts` belong to each of the"),
        ({"url": "http://a", "accepts": {"min_prompt_tokens": 9, "max_prompt_tokens": 3}}, "nothing would be sent"),
    ],
)
def test_what_cannot_be_meant_is_refused(model: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings.model_validate({"models": {"m": model}})


@pytest.mark.parametrize(
    ("admission", "message"),
    [
        ({"default_class": "urgent"}, "there is no class 'urgent'; the classes are interactive, standard, batch"),
        ({"tiers": {"gold": {"class": "urgent"}}}, "`tiers.gold.class`: there is no class 'urgent'"),
        ({"default_tier": "gold"}, "there is no tier 'gold'"),
        ({"classes": {"only": {}}}, "there is no class 'standard'; the classes are only"),
    ],
)
def test_names_in_the_section_admission_exist(admission: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings.model_validate({"admission": admission})
