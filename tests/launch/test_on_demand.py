"""Who is loaded, who waits and who has to go, with models that load in no time and have no engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from parkway.core.errors import NoEndpoint
from parkway.core.tasks import Tasks
from parkway.engine.config import EngineConfig
from parkway.launch.engines import unstarted
from parkway.launch.memory import PROCESS_BYTES, Need
from parkway.launch.on_demand import OnDemand, Pace
from parkway.launch.publication import Publication
from parkway.launch.sleeper import Sleeper

LIMIT = 10 * PROCESS_BYTES
PACE = Pace(rest_s=0.1, patience_s=0.6, notice_s=0.02)


class Fake(Sleeper):
    """A model of `size` tenths of the limit. It is busy while a test says so, and loads when `may_load` is set."""

    def __init__(
        self, name: str, size: int, keep_alive_s: float, adapters: dict[str, str], publication: Publication
    ) -> None:
        self.busy = 0
        self.fault: str | None = None
        self.may_load = asyncio.Event()
        self.may_load.set()
        self.loads = 0
        self._size = size
        super().__init__(
            name, "", keep_alive_s, config=EngineConfig(), adapters=adapters,
            asleep=unstarted(name, 0, adapters, "asleep"), token="", publication=publication, start=_unused,
            end=_unused, liveness_s=1,
        )  # fmt: skip

    def need(self) -> Need:
        return Need(self.needed_bytes() - PROCESS_BYTES, 0)

    def needed_bytes(self) -> int:
        return self._size * LIMIT // 10

    def charged_bytes(self) -> int:
        return 0 if self.state in ("asleep", "waiting") else self.needed_bytes()

    async def load(self, tasks: Tasks) -> None:
        self.loads += 1
        self.become("loading")
        await self.may_load.wait()
        if self.fault:
            self.become("asleep")
            raise NoEndpoint(self.fault)
        self.refusal = None
        self._ready("http://127.0.0.1:1")

    async def stop(self, grace_s: float) -> None:
        assert not self.busy, "an answer was cut off"
        await asyncio.sleep(0.02)
        self._address = None
        self.become("asleep")

    async def look(self) -> None:
        self.requests = self.busy
        if self.busy:
            self.used_at = time.monotonic()


def _unused(*_: object) -> None:
    raise AssertionError


class House:
    """The models of a test, and what was said of them."""

    def __init__(self, tasks: Tasks) -> None:
        self.said: list[str] = []
        self.others = 0
        self.endpoints: dict[str, str] = {}
        self._publication = Publication(print)
        self._publication.start(self._write)
        self.models = OnDemand(LIMIT, lambda: self.others, 1.0, self._publication, tasks, self.said.append, PACE)
        self.models.start()

    def add(self, name: str, size: int, keep_alive_s: float = 300.0, **adapters: str) -> Fake:
        fake = Fake(name, size, keep_alive_s, adapters, self._publication)
        self.models.add(fake)
        return fake

    async def wake(self, name: str) -> None:
        async with asyncio.timeout(20):
            await self.models.wake(name)

    def close(self) -> None:
        self._publication.close()

    def _write(self, endpoints: object) -> None:
        self.endpoints = {endpoint.model: endpoint.state for endpoint in endpoints}  # type: ignore[attr-defined]


@pytest.fixture
async def house(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setattr("parkway.launch.on_demand._LOOK_S", 0.02)
    async with Tasks("test") as tasks:
        house = House(tasks)
        yield house
        house.close()


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for are plain attributes
            await asyncio.sleep(0.005)


async def test_many_who_ask_load_it_once(house: House) -> None:
    model = house.add("m", 3)
    await asyncio.gather(*(house.wake("m") for _ in range(20)))
    assert (model.loads, model.state) == (1, "ready")
    await _until(lambda: house.endpoints == {"m": "ready"})
    assert house.said[0] == "loading m (needs 900 MB of 3.0 GB)"


async def test_whoever_asks_for_one_of_its_adapters_loads_the_model_once(house: House) -> None:
    model = house.add("m", 3, legal="/a", style="/b")
    await _until(lambda: house.endpoints == {"m": "asleep", "m:legal": "asleep", "m:style": "asleep"})
    await asyncio.gather(*(house.wake(name) for name in ("m:legal", "m", "m:style", "m:legal")))
    assert (model.loads, model.state) == (1, "ready")
    await _until(lambda: house.endpoints == {"m": "ready", "m:legal": "ready", "m:style": "ready"})
    with pytest.raises(NoEndpoint, match="model 'm:other' cannot be loaded"):
        await house.wake("m:other")
    house.models.dismiss("m")
    await _until(lambda: house.endpoints == {})
    with pytest.raises(NoEndpoint, match="it is gone"):
        await house.wake("m:legal")


async def test_idle_for_long_enough_it_is_unloaded_and_the_next_request_loads_it_again(house: House) -> None:
    model = house.add("m", 3, keep_alive_s=0.2)
    await house.wake("m")
    model.busy = 1
    await asyncio.sleep(0.5)
    assert model.state == "ready", "it was in use all the time"
    model.busy = 0
    await _until(lambda: model.state == "asleep")
    await _until(lambda: house.endpoints == {"m": "asleep"})
    assert "unloaded m after 0.2 s without use" in house.said
    await house.wake("m")
    assert model.loads == 2


async def test_who_asks_just_before_it_would_go_keeps_it(house: House) -> None:
    model = house.add("m", 3, keep_alive_s=0.1)
    await house.wake("m")
    await _until(lambda: model.state == "unloading")
    await house.wake("m")
    assert (model.state, model.loads) in (("ready", 1), ("ready", 2))
    assert model.address is not None


async def test_the_least_recently_used_makes_room(house: House) -> None:
    old, recent, new = house.add("old", 4), house.add("recent", 4), house.add("new", 4)
    await house.wake("old")
    await house.wake("recent")
    old.used_at = time.monotonic() - 60
    recent.used_at = time.monotonic() - 30
    await house.wake("new")
    assert (old.state, recent.state, new.state) == ("asleep", "ready", "ready")
    assert "unloaded old to make room for new" in house.said


async def test_nobody_has_to_go_where_that_would_not_be_enough(house: House) -> None:
    small, busy = house.add("small", 2), house.add("busy", 6)
    await house.wake("small")
    await house.wake("busy")
    busy.busy = 1
    house.add("large", 9)
    waiting = asyncio.ensure_future(house.wake("large"))
    await asyncio.sleep(PACE.patience_s * 0.6)
    assert (small.state, busy.state) == ("ready", "ready")
    busy.busy = 0
    await waiting
    assert (small.state, busy.state) == ("asleep", "asleep")


async def test_two_that_do_not_fit_together_take_turns(house: House) -> None:
    one, other = house.add("one", 6), house.add("other", 6)
    for _ in range(3):
        await house.wake("one")
        assert (one.state, other.state) == ("ready", "asleep")
        await house.wake("other")
        assert (one.state, other.state) == ("asleep", "ready")
    assert (one.loads, other.loads) == (3, 3)


async def test_one_that_is_never_idle_finishes_its_answers_and_gives_way(house: House) -> None:
    busy, other = house.add("busy", 6), house.add("other", 6)
    await house.wake("busy")
    busy.busy = 1
    waiting = asyncio.ensure_future(house.wake("other"))
    await _until(lambda: busy.state == "unloading")
    await _until(lambda: house.endpoints["busy"] == "asleep")  # so that it gets no more
    await asyncio.sleep(0.2)
    assert other.loads == 0, "an answer still runs"
    busy.busy = 0
    await waiting
    assert (busy.state, other.state) == ("asleep", "ready")


async def test_one_that_was_just_loaded_has_its_turn_first(house: House) -> None:
    first, second = house.add("first", 6), house.add("second", 6)
    await house.wake("first")
    began = time.monotonic()
    await house.wake("second")
    assert time.monotonic() - began >= PACE.rest_s * 0.9
    assert (first.loads, second.loads) == (1, 1)


async def test_who_fits_need_not_stand_in_line(house: House) -> None:
    busy = house.add("busy", 6)
    house.add("large", 6)
    house.add("small", 2)
    await house.wake("busy")
    busy.busy = 1
    waiting = asyncio.ensure_future(house.wake("large"))
    await _until(lambda: any("large waits for room" in line for line in house.said))
    await house.wake("small")
    busy.busy = 0
    await waiting


async def test_who_gives_up_leaves_the_line(house: House) -> None:
    busy, large = house.add("busy", 6), house.add("large", 6)
    await house.wake("busy")
    busy.busy = 1
    waiting = asyncio.ensure_future(house.wake("large"))
    await _until(lambda: large.state == "waiting")
    waiting.cancel()
    await _until(lambda: large.state == "asleep")
    busy.busy = 0
    await asyncio.sleep(0.3)
    assert (busy.state, large.loads) == ("ready", 0)


async def test_what_can_never_fit_is_refused_with_the_numbers(house: House) -> None:
    model = house.add("m", 9)
    house.others = 2 * LIMIT // 10
    with pytest.raises(NoEndpoint) as caught:
        await house.wake("m")
    assert "needs 2.7 GB" in caught.value.message
    assert "`memory_bytes` is 3.0 GB, of which models that are always loaded use 600 MB" in caught.value.message
    assert "`engine.cache_bytes`" in caught.value.message
    assert model.loads == 0
    (state,) = house.models.states()
    assert (state.state, state.reason) == ("given up", caught.value.message)


async def test_what_cannot_start_is_told_at_once_and_not_tried_at_every_request(house: House) -> None:
    model = house.add("m", 3)
    model.fault = "no tokenizer"
    for _ in range(3):
        with pytest.raises(NoEndpoint, match="no tokenizer"):
            await house.wake("m")
    assert model.loads == 1
    model.fault = None
    model._refused_at -= 60  # pyright: ignore
    await house.wake("m")
    (state,) = house.models.states()
    assert (state.state, state.reason) == ("ready", None)


async def test_one_that_was_removed_finishes_and_is_gone(house: House) -> None:
    model = house.add("m", 3)
    await house.wake("m")
    model.busy = 1
    house.models.dismiss("m")
    await _until(lambda: house.endpoints == {})
    with pytest.raises(NoEndpoint, match="it is gone"):
        await house.wake("m")
    await asyncio.sleep(0.2)
    assert house.models.names() == ["m"]
    model.busy = 0
    await _until(lambda: house.models.names() == [])
    assert house.endpoints == {}


async def test_one_that_was_pulled_anew_is_unloaded_when_it_is_idle(house: House) -> None:
    model = house.add("m", 3)
    await house.wake("m")
    model.busy = 1
    house.models.renew("m")
    await asyncio.sleep(0.2)
    assert model.state == "ready"
    model.busy = 0
    await _until(lambda: model.state == "asleep")
    assert "unloaded m because it was pulled anew" in house.said


async def test_engines_that_have_grown_over_the_limit_lose_an_idle_one(house: House) -> None:
    old, recent = house.add("old", 3), house.add("recent", 3)
    await house.wake("old")
    await house.wake("recent")
    old.used_at -= 60
    recent.busy = 1
    house.others = 5 * LIMIT // 10
    await _until(lambda: old.state == "asleep")
    await asyncio.sleep(0.1)
    assert recent.state == "ready"
    assert "unloaded old because 3.3 GB are in use, and the limit is 3.0 GB" in house.said


async def test_after_close_nothing_is_loaded(house: House) -> None:
    model = house.add("m", 3)
    house.models.close()
    with pytest.raises(NoEndpoint, match="Parkway stops"):
        await house.wake("m")
    assert model.loads == 0


async def test_one_that_is_removed_while_others_wait_for_it_tells_them(house: House) -> None:
    busy = house.add("busy", 6)
    house.add("large", 6)
    await house.wake("busy")
    busy.busy = 1
    waiting = asyncio.ensure_future(house.wake("large"))
    await _until(lambda: any("large waits for room" in line for line in house.said))
    house.models.dismiss("large")
    with pytest.raises(NoEndpoint, match="it is gone"):
        await waiting
    await _until(lambda: house.models.names() == ["busy"])
