"""A generating model, loaded: its tokenizer, its template, its defaults, and its engine."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence as Items
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from parkway.core.chat import ChatRequest
from parkway.core.completions import CompletionRequest
from parkway.core.errors import ContextLengthExceeded, InvalidRequest, ModelFilesError, UnsupportedField
from parkway.engine import machine, tools
from parkway.engine.adapters import Adapters
from parkway.engine.backend import check_device, prepare
from parkway.engine.bias import Biases
from parkway.engine.blocks import BlockPool
from parkway.engine.cache import BLOCK_TOKENS, KVCache, blocks_for
from parkway.engine.chat_template import ChatTemplate
from parkway.engine.config import EngineConfig
from parkway.engine.device import CPU, cache_budget_bytes, choose_device, choose_dtype, within_memory
from parkway.engine.directory import ModelDirectory
from parkway.engine.engine import Engine
from parkway.engine.linear import rounded
from parkway.engine.pace import Pace
from parkway.engine.parallel import Group, Leader, LedCache, divide
from parkway.engine.runner import choose_runner
from parkway.engine.sampler import Sampling
from parkway.engine.scheduler import Scheduler
from parkway.engine.sequence import Sequence
from parkway.engine.shape import ModelShape
from parkway.engine.speculation import Lookup
from parkway.engine.tokenizer import Tokenizer
from parkway.engine.tools import HERMES, CallFormat, ToolUse
from parkway.engine.weights import load_decoder, own

if TYPE_CHECKING:
    from parkway.engine.grammar import GrammarCompiler
    from parkway.engine.structure import Structure

log = logging.getLogger(__name__)

MAX_CHOICES = 8
MAX_STOPS = 4
MAX_STOP_CHARACTERS = 256


@dataclass(frozen=True)
class Generator:
    """Everything between a request's fields and the engine's sequences.

    Fields:
        context: tokens, prompt and answer together.
        defaults: how to choose tokens where the request does not say; from generation_config.json.
        answer_tokens: length of a chat answer where the request does not say: the configuration's, or less where
            generation_config.json has a smaller `max_new_tokens`.
    """

    tokenizer: Tokenizer
    template: ChatTemplate | None
    engine: Engine
    context: int
    defaults: Sampling
    answer_tokens: int
    adapters: Adapters
    config: EngineConfig

    @classmethod
    def load(cls, directory: ModelDirectory, config: EngineConfig, group: Group | None = None) -> Generator:
        """Read the model's files.

        Args:
            group: the processes that share the model, of which this one leads; None where it is alone.

        Raises:
            ModelFilesError: they are missing, damaged or unsupported, or the cache does not fit.
        """
        tokenizer = Tokenizer(directory)
        template = ChatTemplate.of(directory, tokenizer.named)
        device = choose_device(config.device)
        check_device(device, config)
        dtype = choose_dtype(config.dtype, device)
        decoder = load_decoder(directory, dtype, group, device=device, borrowed=True)
        with within_memory(directory.path, device):
            backend = prepare(
                decoder,
                quantization=config.quantization,
                deterministic=config.deterministic,
                graphs=config.cuda_graphs,
            )
            own(decoder)
        if tokenizer.size > decoder.shape.vocab_size:
            raise ModelFilesError(
                f"{directory.path}: tokenizer.json has token ids up to {tokenizer.size - 1}, but config.json's "
                f"vocab_size is {decoder.shape.vocab_size}"
            )
        context = min(decoder.shape.context, config.max_context_tokens)
        blocks = _blocks(decoder.shape, dtype, context, config, device)
        if group is None:
            cache = KVCache(decoder.shape, dtype, blocks=blocks, device=device)
        else:
            cache = LedCache(decoder.shape, dtype, blocks=blocks, group=group)
            divide(decoder, group)
            group.tell([blocks])
        scheduler = Scheduler(
            BlockPool(cache.blocks),
            max_sequences=config.max_sequences,
            step_tokens=config.step_tokens,
            queue_limit=config.queue_limit,
            guess_tokens=config.guess_tokens,
            pace=Pace(rounded),
        )
        leader = decoder if group is None else Leader(decoder, group)
        runner = choose_runner(leader, cache, backend, sequences=config.max_sequences, context=context)
        engine = Engine(leader, cache, scheduler, backend, runner)
        recommended = directory.generation_config
        answer_tokens = _answer_tokens(recommended, config.max_answer_tokens)
        adapters = Adapters(decoder, divided=group is not None)
        for name, place in config.named_adapters():
            adapters.load(name, place)
        machine.give_back_memory()
        machine.keep_memory()
        log.info("%s is computed by %s", directory.path, engine.computing)
        return cls(tokenizer, template, engine, context, _defaults(recommended), answer_tokens, adapters, config)

    def chat(self, request: ChatRequest) -> list[Sequence]:
        """The sequences of a chat request. Renders and tokenises: not for the event loop.

        Raises:
            UnsupportedField: the model has no chat template, or a message is not text.
            InvalidRequest: the template refuses the messages, or a value is out of range.
            ContextLengthExceeded: prompt and answer can never fit.
        """
        if self.template is None:
            raise UnsupportedField(
                "this model has no chat template; use /v1/completions, or add chat_template.jinja to its directory",
                param="messages",
            )
        use = ToolUse.of(request)
        structure = self._structure(request, use)
        prompt = self.tokenizer.encode(self._render(self.template, request, use), special=False)
        limit = request.answer_limit
        room = min(self.answer_tokens, max(1, self.context - len(prompt)))
        logprobs = (request.top_logprobs or 0) if request.logprobs else None
        if request.top_logprobs is not None and not request.logprobs:
            raise InvalidRequest("`top_logprobs` needs `logprobs: true`", param="top_logprobs")
        return self._sequences(
            [prompt],
            request,
            max_tokens=limit or room,
            logprobs=logprobs,
            fresh=True,
            param="messages",
            structure=structure,
        )

    def completion(self, request: CompletionRequest, prompts: Items[str | list[int]]) -> list[Sequence]:
        """The sequences of a completion request, `n` for each prompt in turn; raises as `chat` does."""
        if request.max_tokens == 0 and not request.echo:
            raise InvalidRequest("`max_tokens` is 0, which only makes sense with `echo: true`", param="max_tokens")
        tokenised = [
            self._checked(prompt) if isinstance(prompt, list) else self.tokenizer.encode(prompt, special=True)
            for prompt in prompts
        ]
        return self._sequences(
            tokenised,
            request,
            max_tokens=16 if request.max_tokens is None else request.max_tokens,  # OpenAI's default for this route
            logprobs=request.logprobs,
            fresh=False,
            param="prompt",
            structure=self._structure(request, None),
            scores_prompt=bool(request.echo) and request.logprobs is not None,
        )

    def _sequences(
        self,
        prompts: Items[list[int]],
        request: ChatRequest | CompletionRequest,
        *,
        max_tokens: int,
        logprobs: int | None,
        fresh: bool,
        param: str,
        structure: Structure | None = None,
        scores_prompt: bool = False,
    ) -> list[Sequence]:
        count = request.n or 1
        if count > MAX_CHOICES:
            raise InvalidRequest(f"`n` is {count}; this engine makes at most {MAX_CHOICES}", param="n")
        for prompt in prompts:
            self._check_fit(len(prompt), max_tokens, param)
        sampling = self._sampling(request, logprobs)
        stops = _stops(request.stop)
        deadline = time.monotonic() + self.config.request_timeout_s
        return [
            Sequence(
                tokens=list(prompt),
                max_tokens=max_tokens,
                # Choices of one request differ: each has the seed after the one before.
                sampling=sampling
                if sampling.seed is None
                else replace(sampling, seed=(sampling.seed + choice) % 2**63),
                deadline=deadline,
                tokenizer=self.tokenizer,
                stops=stops,
                fresh=fresh,
                priority=request.priority or 0,
                scores_prompt=scores_prompt,
                lookup=Lookup() if self.config.guess_tokens else None,
                guide=structure.grammar.start() if structure is not None else None,
                check=structure.check if structure is not None else None,
            )
            for prompt in prompts
            for choice in range(count)
        ]

    def _sampling(self, request: ChatRequest | CompletionRequest, logprobs: int | None) -> Sampling:
        given = {
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": None if request.top_k is None else max(0, request.top_k),
            "min_p": request.min_p,
            "seed": request.seed,
            "logprobs": logprobs,
        }
        biases = {
            "logit_bias": self._logit_bias(request.logit_bias),
            "presence_penalty": request.presence_penalty,
            "frequency_penalty": request.frequency_penalty,
            "repetition_penalty": request.repetition_penalty,
        }
        return replace(self.defaults, **_given(given), biases=replace(self.defaults.biases, **_given(biases)))

    def _logit_bias(self, given: dict[str, float] | None) -> dict[int, float] | None:
        if not given:
            return None
        wrong = next((token for token in given if not token.isascii() or not token.isdigit()), None)
        wrong = wrong or next((token for token in given if int(token) >= self.tokenizer.size), None)
        if wrong is not None:
            raise InvalidRequest(
                f"`logit_bias`: {wrong[:40]!r} is no token id of this model; they go from 0 to "
                f"{self.tokenizer.size - 1}",
                param="logit_bias",
            )
        return {int(token): bias for token, bias in given.items()}

    def _check_fit(self, prompt_tokens: int, max_tokens: int, param: str) -> None:
        if prompt_tokens < 1:
            raise InvalidRequest(f"`{param}`: the prompt has no tokens; send some text", param=param)
        if prompt_tokens + max_tokens > self.context:
            raise ContextLengthExceeded(
                f"the prompt has {prompt_tokens} tokens and the answer may have {max_tokens}, together "
                f"{prompt_tokens + max_tokens}; this model's context is {self.context} tokens. Shorten the prompt or "
                "lower max_tokens.",
                param=param,
            )

    def _checked(self, token_ids: list[int]) -> list[int]:
        wrong = next((token for token in token_ids if not 0 <= token < self.tokenizer.size), None)
        if wrong is not None:
            raise InvalidRequest(
                f"`prompt`: {wrong} is no token id of this model; they go from 0 to {self.tokenizer.size - 1}",
                param="prompt",
            )
        return token_ids

    @cached_property
    def _compiler(self) -> GrammarCompiler:
        """Made when first needed: it takes a while for a large vocabulary, and most requests need none."""
        from parkway.engine.grammar import GrammarCompiler  # with its libraries 8 MB, which most engines never need

        return GrammarCompiler(self.tokenizer, self.engine.vocab_size)

    def _structure(self, request: ChatRequest | CompletionRequest, use: ToolUse | None) -> Structure | None:
        if use is None and request.structured_outputs is None and getattr(request, "response_format", None) is None:
            return None
        from parkway.engine.structure import structure_of

        return structure_of(request, self._compiler, use, self.call_format)

    @property
    def call_format(self) -> CallFormat:
        """How the model writes calls of tools, or is told to where its template knows none."""
        known = self.template.call_format if self.template is not None else None
        return known or HERMES

    def _render(self, template: ChatTemplate, request: ChatRequest, use: ToolUse | None) -> str:
        """The prompt, with no special token in anybody's text: only the template may write those."""
        messages = [tools.for_template(message, self.tokenizer.break_special) for message in request.messages]
        if template.call_format is not None:
            return template.render(messages, use.for_template() if use is not None else None)
        return template.render(tools.without_tools(messages, use))

    def warm_up(self) -> Sequence:
        """A short answer for nobody, so that the first client does not pay for first-time set-up."""
        prompt = [0] * min(8, self.context - 2)
        deadline = time.monotonic() + self.config.request_timeout_s
        return Sequence(prompt, max_tokens=2, sampling=self.defaults, deadline=deadline, tokenizer=self.tokenizer)


def _blocks(
    shape: ModelShape, dtype: torch.dtype, context: int, config: EngineConfig, device: torch.device = CPU
) -> int:
    """How many blocks the cache has: what the budget allows, and no more than could ever be of use.

    Raises:
        ModelFilesError: not even one sequence fits the budget.
    """
    choices = config.max_sequences + config.guess_tokens
    budget_bytes = config.cache_bytes or cache_budget_bytes(device, shape, choices=choices, tokens=config.step_tokens)
    block_bytes = KVCache.block_bytes(shape, dtype)
    least = blocks_for(context)
    blocks = min(budget_bytes // block_bytes, least * config.max_sequences * 2)
    if blocks < least and device.type != "cpu" and config.cache_bytes is None:
        raise ModelFilesError(
            f"one sequence of {context} tokens needs {least * block_bytes} bytes of cache, but beside the weights and "
            f"what it takes to compute, {device} has {budget_bytes} bytes left, enough for "
            f"{blocks * BLOCK_TOKENS} tokens; lower max_context_tokens or step_tokens"
        )
    if blocks < least:
        raise ModelFilesError(
            f"one sequence of {context} tokens needs {least * block_bytes} bytes of cache, but cache_bytes is "
            f"{budget_bytes}; raise it, or lower max_context_tokens"
        )
    return blocks


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that a request has."""
    return {name: value for name, value in fields.items() if value is not None}


def _stops(stop: str | list[str] | None) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(stops) > MAX_STOPS:
        raise InvalidRequest(f"`stop` has {len(stops)} strings; at most {MAX_STOPS} are allowed", param="stop")
    for text in stops:
        if not 1 <= len(text) <= MAX_STOP_CHARACTERS:
            raise InvalidRequest(
                f"`stop`: a string of {len(text)} characters; each needs 1 to {MAX_STOP_CHARACTERS}", param="stop"
            )
    return stops


def _answer_tokens(generation_config: dict[str, Any], most: int) -> int:
    """How long an answer may be for which the client sets no limit."""
    recommended = generation_config.get("max_new_tokens")
    return min(most, recommended) if isinstance(recommended, int) and recommended > 0 else most


def _defaults(generation_config: dict[str, Any]) -> Sampling:
    """What the model's makers recommend; OpenAI's defaults where they say nothing."""

    def number(key: str, default: float) -> float:
        value = generation_config.get(key)
        return default if isinstance(value, bool) or not isinstance(value, int | float) else value

    greedy = generation_config.get("do_sample") is False
    return Sampling(
        temperature=0.0 if greedy else number("temperature", 1.0),
        top_p=number("top_p", 1.0),
        top_k=int(number("top_k", 0)),
        min_p=number("min_p", 0.0),
        biases=Biases(repetition_penalty=number("repetition_penalty", 1.0)),
    )
