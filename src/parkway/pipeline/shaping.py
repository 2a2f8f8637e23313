"""What a request may be by the tier of its key: its class, the length of its prompt and of its answer."""

from __future__ import annotations

from dataclasses import dataclass

from parkway.core.chat import ChatRequest
from parkway.core.completions import CompletionRequest
from parkway.core.errors import InvalidRequest, PromptTooLong, nearest
from parkway.pipeline.exchange import Exchange
from parkway.policy.estimate import BYTES_A_TOKEN
from parkway.router.admission.config import AdmissionConfig, Tier

_ANSWERED = (ChatRequest, CompletionRequest)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a tier means: `lane` is the index of its class."""

    lane: int
    tier: Tier


class Shaping:
    """The tiers and classes of the configuration, looked up in a microsecond."""

    def __init__(self, config: AdmissionConfig) -> None:
        self.replace(config)

    def replace(self, config: AdmissionConfig) -> None:
        """Other tiers and classes from now on; in the same turn of the event loop as the gates, which number classes
        alike."""
        self.queues = config.enabled
        self.max_wait_s = [each.max_wait_s for each in config.known_classes.values()]
        self._lanes = {name: lane for lane, name in enumerate(config.known_classes)}
        self._standings = {name: self._standing(config, tier) for name, tier in config.tiers.items()}
        nothing = self._standing(config, Tier())
        self._default = self._standings.get(config.default_tier, nothing) if config.default_tier else nothing

    def _standing(self, config: AdmissionConfig, tier: Tier) -> Standing:
        return Standing(self._lanes[tier.class_ or config.default_class], tier)

    def standing(self, tier: str | None) -> Standing:
        """What the keys of `tier` get; those of a tier that is not configured are served as those without one."""
        return self._standings.get(tier, self._default) if tier is not None else self._default

    def lane(self, exchange: Exchange, standing: Standing) -> int:
        """The index of the request's class: its key's, or a less urgent one that the client asks for.

        Raises:
            InvalidRequest: The header `x-parkway-priority` names no class.
        """
        lane = standing.lane
        if exchange.priority is not None:
            asked = self._lanes.get(exchange.priority)
            if asked is None:
                known = ", ".join(self._lanes)
                hint = nearest(exchange.priority, self._lanes)
                raise InvalidRequest(
                    f"header `x-parkway-priority`: there is no class {exchange.priority[:40]!r}.{hint} "
                    f"The classes are {known}; set by admission.classes"
                )
            lane = max(lane, asked)
        request = exchange.request
        if isinstance(request, _ANSWERED) and request.service_tier == "flex":
            lane = len(self._lanes) - 1
        return lane


def answer_size(exchange: Exchange) -> tuple[int | None, int]:
    """The longest answer in tokens that the client asks for, None where it sets no limit and 0 where no tokens are to
    come; and how many such answers."""
    request = exchange.request
    if isinstance(request, ChatRequest):
        return request.answer_limit, request.n or 1
    if isinstance(request, CompletionRequest):
        return request.max_tokens, request.n or 1
    return 0, 1


def check_prompt(tokens: int, tier: Tier) -> None:
    """Refuses a prompt that is longer than the tier allows.

    Raises:
        PromptTooLong: It is.
    """
    if tier.max_prompt_tokens is not None and tokens > tier.max_prompt_tokens:
        raise PromptTooLong(
            f"the prompt has about {tokens} tokens ({BYTES_A_TOKEN} bytes each), at most {tier.max_prompt_tokens} "
            "are allowed in the tier of this key; set by `max_prompt_tokens` of the tier, in admission.tiers"
        )
