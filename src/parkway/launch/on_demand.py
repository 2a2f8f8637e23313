"""The models that are loaded when they are asked for, and unloaded again: who is, who waits, and who has to go.

One rule decides: together the engines of this machine stay under a limit. Who needs more room than there is waits in
line for idle models to be unloaded, the least recently used first. A model that is answering is never cut off; one
that is never idle stops taking requests after a while, so that whoever waits gets its turn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from parkway.core.errors import NoEndpoint
from parkway.core.tasks import Tasks
from parkway.launch.child import Say
from parkway.launch.control import ModelState
from parkway.launch.publication import Publication
from parkway.launch.sleeper import Sleeper
from parkway.store.models import readable_bytes

_POLL_S = 0.05
_LOOK_S = 0.5
_STOP_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How soon models give way.

    Args:
        rest_s: A model is idle for others once it was not used for so long: who woke it must get there first.
        patience_s: After so long in line, models that are never idle have to give way too.
        notice_s: Between the word that a model goes and its end, for gateways that have not heard it yet.
    """

    rest_s: float = 2.0
    patience_s: float = 10.0
    notice_s: float = 0.75


class OnDemand:
    """All models that are loaded on demand.

    Args:
        limit_bytes: For all engines of this machine together.
        others_bytes: What the engines use that always run.
        drain_s: How long an engine takes at most to finish its answers.
    """

    def __init__(
        self,
        limit_bytes: int,
        others_bytes: Callable[[], int],
        drain_s: float,
        publication: Publication,
        tasks: Tasks,
        say: Say,
        pace: Pace = Pace(),
    ) -> None:
        self._limit_bytes = limit_bytes
        self._others_bytes = others_bytes
        self._drain_s = drain_s
        self._publication = publication
        self._tasks = tasks
        self._say = say
        self._pace = pace
        self._sleepers: dict[str, Sleeper] = {}
        self._loads: dict[str, asyncio.Task[NoEndpoint | None]] = {}
        self._line: list[Sleeper] = []
        self._closed = False

    def start(self) -> None:
        """Begins to watch who is idle."""
        self._tasks.every(_LOOK_S, self._look, name="idle models")

    def close(self) -> None:
        """Loads nothing more."""
        self._closed = True

    def add(self, sleeper: Sleeper) -> None:
        self._sleepers[sleeper.name] = sleeper

    def names(self) -> list[str]:
        """Also those that were dismissed and still have an engine."""
        return list(self._sleepers)

    def dismiss(self, name: str) -> None:
        """Forgets a model; one that is loaded finishes its answers first."""
        self._sleepers[name].dismiss()

    def renew(self, name: str) -> None:
        """The files of the model have changed; one that is loaded is unloaded as soon as it is idle."""
        self._sleepers[name].renew()

    def used_bytes(self) -> int:
        """What counts against the limit now."""
        return self._others_bytes() + sum(sleeper.charged_bytes() for sleeper in self._sleepers.values())

    def states(self) -> list[ModelState]:
        return [self._state(sleeper) for sleeper in self._sleepers.values()]

    async def wake(self, model: str) -> None:
        """Returns once the model is ready. Many may ask at once; when nobody does any more, it leaves the line.

        Args:
            model: Also one with an adapter, `NAME:ADAPTER`.

        Raises:
            NoEndpoint: There is no such model, it can never fit, or it does not start.
        """
        sleeper = self._there(model)
        sleeper.wanted += 1
        try:
            while sleeper.state != "ready":
                self._there(model)
                if sleeper.state == "unloading":
                    await asyncio.sleep(_POLL_S)
                    continue
                error = await asyncio.shield(self._load_of(sleeper))
                if error is not None:
                    raise NoEndpoint(error.message, retry_after_s=error.retry_after_s)
        finally:
            sleeper.wanted -= 1

    def _there(self, model: str) -> Sleeper:
        """What serves this model. Raises NoEndpoint where it is gone, or nothing is loaded any more."""
        sleeper = next((each for each in self._sleepers.values() if model in each.models), None)
        if sleeper is None or sleeper.dismissed or self._closed:
            raise NoEndpoint(f"model {model!r} cannot be loaded: {'Parkway stops' if self._closed else 'it is gone'}")
        return sleeper

    def _load_of(self, sleeper: Sleeper) -> asyncio.Task[NoEndpoint | None]:
        """The attempt to load it that goes on, or a new one."""
        load = self._loads.get(sleeper.name)
        if load is None or load.done():
            load = self._loads[sleeper.name] = self._tasks.start(self._load(sleeper), name=f"load {sleeper.name}")
        return load

    async def _load(self, sleeper: Sleeper) -> NoEndpoint | None:
        """Loads it; the error where that fails, None also where nobody wants it any more."""
        try:
            sleeper.check_refusal()
            self._check_size(sleeper)
            if not await self._has_room(sleeper):
                return None
            needs, limit = readable_bytes(sleeper.needed_bytes()), readable_bytes(self._limit_bytes)
            self._say(f"loading {sleeper.name} (needs {needs} of {limit})")
            began = time.monotonic()
            await sleeper.load(self._tasks)
        except NoEndpoint as error:
            if error.retry_after_s is None:
                sleeper.refuse(error)
            if sleeper.state == "waiting":
                sleeper.become("asleep")
            return error
        used = readable_bytes(sleeper.resident_bytes() or 0)
        self._say(f"{sleeper.name} is loaded after {time.monotonic() - began:.1f} s and uses {used}")
        return None

    def _check_size(self, sleeper: Sleeper) -> None:
        """Sees that it could ever fit.

        Raises:
            NoEndpoint: It could not; the message has the numbers and what would help.
        """
        others = self._others_bytes()
        if sleeper.needed_bytes() + others <= self._limit_bytes:
            return
        beside = f", of which models that are always loaded use {readable_bytes(others)}" if others else ""
        raise NoEndpoint(
            f"model {sleeper.name!r} does not fit: it needs {sleeper.need()}, and `memory_bytes` is "
            f"{readable_bytes(self._limit_bytes)}{beside}. What helps: a smaller `engine.cache_bytes`, "
            "`engine.max_context_tokens` or `engine.max_sequences`, `engine.quantization: int8`, a larger "
            "`memory_bytes`" + (", `load: on_demand` for the others" if others else "")
        )

    async def _has_room(self, sleeper: Sleeper) -> bool:
        """Waits in line until it fits; False if nobody wants it any more.

        After it nothing may be awaited until the engine is started: the room is free only now.
        """
        began = time.monotonic()
        told = False
        self._line.append(sleeper)
        try:
            while sleeper.wanted and not sleeper.dismissed and not self._closed:
                needed = sleeper.needed_bytes()
                if self._fits(needed):
                    return True
                sleeper.become("waiting")
                if self._line[0] is sleeper:
                    self._make_room(sleeper, needed, patient=time.monotonic() - began < self._pace.patience_s)
                if not told:
                    told = True
                    self._say(f"{sleeper.name} waits for room: {self._account(needed)}")
                await asyncio.sleep(_POLL_S)
            sleeper.become("asleep")
            return False
        finally:
            self._line.remove(sleeper)

    def _fits(self, needed: int) -> bool:
        return self.used_bytes() + needed <= self._limit_bytes

    def _account(self, needed: int) -> str:
        used, limit = readable_bytes(self.used_bytes()), readable_bytes(self._limit_bytes)
        return f"it needs {readable_bytes(needed)}, and {used} of {limit} are in use"

    def _make_room(self, sleeper: Sleeper, needed: int, *, patient: bool) -> None:
        """Begins to unload what has to go so that `needed` bytes fit, if that is enough; else nothing is touched."""
        leaving = sum(each.charged_bytes() for each in self._sleepers.values() if each.state == "unloading")
        missing = self.used_bytes() - leaving + needed - self._limit_bytes
        chosen: list[Sleeper] = []
        for candidate in self._least_recently_used(patient=patient):
            if missing <= 0:
                break
            chosen.append(candidate)
            missing -= candidate.charged_bytes()
        if missing <= 0:
            for candidate in chosen:
                self._begin_unload(candidate, f"to make room for {sleeper.name}")

    def _least_recently_used(self, *, patient: bool) -> list[Sleeper]:
        """Who may be unloaded. Idle ones come first; the others, if they have to go too, by when they were loaded."""
        loaded = [each for each in self._sleepers.values() if each.state == "ready"]
        idle = sorted(filter(self._is_idle, loaded), key=lambda each: each.used_at)
        # Those that were only just loaded have their turn first: otherwise two models would chase each other away.
        busy = [each for each in loaded if each not in idle and self._age_s(each) >= self._pace.patience_s]
        return idle if patient else idle + sorted(busy, key=lambda each: each.loaded_at)

    def _is_idle(self, sleeper: Sleeper) -> bool:
        return sleeper.requests == 0 and time.monotonic() - sleeper.used_at >= self._pace.rest_s

    def _age_s(self, sleeper: Sleeper) -> float:
        return time.monotonic() - sleeper.loaded_at

    def _begin_unload(self, sleeper: Sleeper, why: str, *, unless_used: bool = False) -> None:
        sleeper.become("unloading")
        self._tasks.start(self._unload(sleeper, why, unless_used=unless_used), name=f"unload {sleeper.name}")

    async def _unload(self, sleeper: Sleeper, why: str, *, unless_used: bool) -> None:
        """Ends the engine of a model that was just taken out of the registry, once every gateway knows and it is idle.

        Args:
            unless_used: It stays if somebody asks for it before its end begins.
        """
        began = time.monotonic()
        heard_at: float | None = None
        while sleeper.address is not None:
            await sleeper.look()
            now = time.monotonic()
            if unless_used and (sleeper.wanted or sleeper.used_at > began):
                if sleeper.address is not None:
                    sleeper.become("ready")
                return
            if heard_at is None and self._publication.written:
                heard_at = now
            # Not at the same moment: a request that is still being read is not counted yet.
            if heard_at is not None and now - heard_at >= self._pace.notice_s and now - sleeper.used_at >= _POLL_S:
                break
            await asyncio.sleep(_POLL_S * 2)
        await sleeper.stop(self._drain_s + _STOP_GRACE_S)
        self._say(f"unloaded {sleeper.name} {why}")

    async def _look(self) -> None:
        """Who is idle goes after its time, and earlier where together the engines have grown over the limit."""
        loaded = [each for each in self._sleepers.values() if each.state == "ready"]
        await asyncio.gather(*(each.look() for each in loaded))
        for sleeper in loaded:
            if sleeper.state != "ready":
                continue
            if sleeper.dismissed:
                self._begin_unload(sleeper, "because it was removed")
            elif sleeper.outdated and self._is_idle(sleeper):
                self._begin_unload(sleeper, "because it was pulled anew")
            elif not sleeper.requests and self._left_s(sleeper) <= 0:
                self._begin_unload(sleeper, f"after {sleeper.keep_alive_s:g} s without use", unless_used=True)
        for sleeper in [each for each in self._sleepers.values() if each.dismissed and each.state == "asleep"]:
            del self._sleepers[sleeper.name]
        self._shrink()

    def _shrink(self) -> None:
        """Unloads an idle model if the engines have grown over the limit."""
        leaving = any(each.state == "unloading" for each in self._sleepers.values())
        if not leaving and self.used_bytes() > self._limit_bytes:
            used, limit = readable_bytes(self.used_bytes()), readable_bytes(self._limit_bytes)
            for sleeper in self._least_recently_used(patient=True)[:1]:
                self._begin_unload(sleeper, f"because {used} are in use, and the limit is {limit}")

    def _left_s(self, sleeper: Sleeper) -> float:
        """Until it is unloaded if nobody uses it."""
        return max(sleeper.keep_alive_s, self._pace.rest_s) - (time.monotonic() - sleeper.used_at)

    def _state(self, sleeper: Sleeper) -> ModelState:
        try:
            needs = sleeper.needed_bytes()
        except NoEndpoint:
            needs = None
        given_up = sleeper.state == "asleep" and sleeper.refusal is not None
        return ModelState(
            name=sleeper.name,
            state="given up" if given_up else sleeper.state,
            load="on_demand",
            memory_bytes=sleeper.resident_bytes(),
            needs_bytes=needs,
            since_s=time.monotonic() - sleeper.since,
            requests=sleeper.requests,
            unloads_in_s=max(0.0, self._left_s(sleeper)) if sleeper.state == "ready" and not sleeper.requests else None,
            reason=sleeper.refusal.message if given_up and sleeper.refusal else None,
        )
