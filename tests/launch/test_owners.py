"""What is known of owners and replicas before any of them runs: where they are, and what they need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from parkway.launch.memory import PROCESS_BYTES
from parkway.launch.owners import Owners, addresses, reserve
from parkway.launch.settings import Settings
from parkway.router.knowledge import places_of
from parkway.store.home import Home


def test_each_partition_and_each_replica_needs_memory(tmp_path: Path) -> None:
    places = reserve(5)
    family: Any = None  # nothing is started

    def needed_bytes(settings: Settings) -> int:
        return Owners(settings, Home(tmp_path), family, places, "token", lambda _: None).needed_bytes()

    shared = {"knowledge_partitions": 2, "knowledge_replicas": 3}
    assert needed_bytes(Settings.model_validate(shared)) == 0, "there is nothing to own"
    assert needed_bytes(Settings.model_validate({**shared, "knowledge": {"docs": {}}})) == 5 * PROCESS_BYTES
    for each in places:
        each.close()


def test_replicas_stand_beside_the_first_owner() -> None:
    places = reserve(5)
    urls = [f"http://127.0.0.1:{each.getsockname()[1]}" for each in places]
    assert places_of(addresses(places, 3)) == [urls[:4], urls[4:]]
    for each in places:
        each.close()
