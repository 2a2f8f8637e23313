"""Parkway's engine against transformers, OpenVINO GenAI and llama.cpp: same machine, same weights, same prompts."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import signal
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.peers.engine_server import settings_of
from bench.peers.environment import NotInstalled, interpreter
from bench.peers.load import QUICK, WHOLE, Load, write_model
from bench.peers.process import ContestantProcess, Failed
from tests.running import resident_mib

EXTRA_MB = 300  # resident beside weights, keys and values
AGREEMENT = 0.5  # of first tokens; who agrees less with Parkway in bfloat16 computes another model


@dataclass(frozen=True, slots=True)
class Contestant:
    """Who is measured.

    Fields:
        module: what runs in its process.
        environment: the virtual environment it needs; None is this one.
        counts: whether its figures enter the ratios.
        settings: of Parkway's engine.
    """

    name: str
    precision: str
    module: str
    environment: str | None = None
    counts: bool = True
    settings: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def title(self) -> str:
        return f"{self.name} {self.precision}"

    @property
    def ours(self) -> bool:
        return self.environment is None


@dataclass(slots=True)
class Running:
    """A contestant that has loaded the model, and what was measured of it."""

    contestant: Contestant
    process: ContestantProcess
    resident_mb: float = 0.0
    rates: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))  # at once -> tokens/s
    prefill_rates: list[float] = field(default_factory=list[float])  # tokens/s of the long prompt
    first_tokens: list[int] | None = None

    def rate(self, at_once: int) -> float:
        return statistics.median(self.rates[at_once])

    def prefill_rate(self) -> float:
        return statistics.median(self.prefill_rates)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One figure of Parkway's against what is asked for; `ours` and `other` are None where either is missing."""

    what: str
    ours: float | None
    other: float | None
    ratio: float | None
    asked: str
    met: bool | None


def contestants(options: argparse.Namespace) -> list[Contestant]:
    """Everybody, or those whose title contains one of `--only`."""
    bf16 = {"dtype": "bfloat16", **settings_of(options.set)}
    int8 = settings_of(options.int8)
    everybody = [
        Contestant("parkway", "bf16", "bench.peers.parkway_engine", settings=bf16),
        Contestant("parkway", "int8", "bench.peers.parkway_engine", settings=bf16 | int8),
        Contestant("parkway, HTTP", "bf16", "bench.peers.parkway_http", counts=False, settings=bf16),
        Contestant("transformers generate", "bf16", "bench.peers.transformers_generate", "transformers"),
        Contestant("transformers batching", "bf16", "bench.peers.transformers_batching", "transformers"),
        Contestant("openvino", "bf16", "bench.peers.openvino_batching", "openvino"),
        Contestant("openvino", "int8", "bench.peers.openvino_batching", "openvino"),
        Contestant("llama.cpp", "bf16", "bench.peers.llama_cpp_batch", "llama_cpp"),
        Contestant("llama.cpp", "int8", "bench.peers.llama_cpp_batch", "llama_cpp"),
    ]
    return [each for each in everybody if not options.only or any(word in each.title for word in options.only)]


class Bench:
    """Everybody who runs, and why somebody does not."""

    def __init__(self, options: argparse.Namespace, load: Load) -> None:
        self.load = load
        self.running: list[Running] = []
        self.left_out: dict[str, str] = {}
        self._options = options
        self._random = random.Random(1)
        self._work: Path = options.cache / f"work-{load.name}"

    def start(self, stack: contextlib.ExitStack) -> None:
        """Install and load one after the other; who cannot is left out."""
        model = write_model(self._work / "model", self.load)
        for contestant in contestants(self._options):
            try:
                python = interpreter(contestant.environment, self._options.cache) if contestant.environment else None
            except NotInstalled as error:
                self.left_out[contestant.title] = str(error)
                continue
            log = self._work / f"{contestant.title.replace(' ', '-').replace(',', '')}.log"
            process = ContestantProcess(
                python or Path(sys.executable), contestant.module, log, timeout_s=self._options.timeout_s
            )
            running = Running(contestant, stack.enter_context(process))
            self.running.append(running)
            with self.leaving_out(running):
                running.process.ask(
                    "load",
                    model=str(model),
                    work=str(self._work),
                    precision=contestant.precision,
                    threads=self._options.threads,
                    sequences=max(self.load.at_once),
                    context=self.load.context,
                    settings=contestant.settings,
                )
                print(f"loaded {contestant.title}", flush=True)

    def warm_up(self) -> None:
        """What first calls set up is not measured. Memory is, as long as the cache holds just one known batch."""
        prompts = self.prompts(max(self.load.at_once), self.load.prompt)
        long_prompt = self.prompts(1, self.load.long_prompt)
        for running in self._everybody():
            with self.leaving_out(running):
                answers = self._generate(running, prompts, self.load.answer)
                running.resident_mb = resident_mib(running.process.pid) * 2**20 / 1e6
                running.first_tokens = answers["tokens"] and [tokens[0] for tokens in answers["tokens"]]
                self._generate(running, long_prompt, 1)
        for running in self._everybody():
            share = self.agreement(running)
            if share is not None and share < AGREEMENT:
                self._leave_out(running, f"agrees with Parkway on {share:.0%} of the first tokens: not the same model")

    def round(self, number: int) -> None:
        """Measure everybody once, with the same fresh prompts, beginning with another one each time."""
        for at_once in self.load.at_once:
            prompts = self.prompts(at_once, self.load.prompt)
            for running in self._everybody(number):
                with self.leaving_out(running):
                    answers = self._generate(running, prompts, self.load.answer)
                    seconds = answers["prefill_s"] + answers["decode_s"]
                    running.rates[at_once].append(at_once * self.load.answer / seconds)
        prompts = self.prompts(1, self.load.long_prompt)
        for running in self._everybody(number):
            with self.leaving_out(running):
                running.prefill_rates.append(self.load.long_prompt / self._first_token_s(running, prompts[0]))

    def first_token_gain(self, running: Running, rounds: int) -> float:
        """How many times shorter the time to the first token is where the cache has the shared prefix already."""
        gains: list[float] = []
        for _ in range(rounds):
            prefix = self.prompts(1, self.load.shared_prefix)[0]
            first, second = (prefix + tail for tail in self.prompts(2, 16))
            gains.append(self._first_token_s(running, first) / self._first_token_s(running, second))
        return statistics.median(gains)

    def stream_slowdown(self, running: Running, rounds: int) -> float:
        """How many times longer the p99 of the time between tokens is while long prompts are read."""
        ratios: list[float] = []
        for _ in range(rounds):
            p99: list[float] = []
            for long_prompts in (0, self.load.stream):  # enough for a new one at every token
                gaps = running.process.ask(
                    "stream",
                    prompts=self.prompts(self.load.streams, self.load.prompt),
                    tokens=self.load.stream,
                    long_prompts=self.prompts(long_prompts, self.load.long_prompt),
                )
                p99.append(statistics.quantiles(gaps, n=100)[-1])
            ratios.append(p99[1] / p99[0])
        return statistics.median(ratios)

    def agreement(self, running: Running) -> float | None:
        """The share of first tokens that are the same as Parkway's in bfloat16."""
        ours = next((each.first_tokens for each in self.running if each.contestant.title == "parkway bf16"), None)
        if not ours or not running.first_tokens:
            return None
        return statistics.mean(ours == theirs for ours, theirs in zip(ours, running.first_tokens, strict=True))

    def prompts(self, count: int, length: int) -> list[list[int]]:
        """Prompts that nobody has seen, so that no cache has them."""
        vocabulary = self.load.config["vocab_size"]
        return [[self._random.randrange(vocabulary) for _ in range(length)] for _ in range(count)]

    def _generate(self, running: Running, prompts: list[list[int]], tokens: int) -> dict[str, Any]:
        answers = running.process.ask("generate", prompts=prompts, tokens=tokens)
        if answers["tokens"] is not None:
            lengths = {len(answer) for answer in answers["tokens"]}
            if len(answers["tokens"]) != len(prompts) or lengths != {tokens}:
                raise Failed(f"generate: answers of {sorted(lengths)} tokens where {tokens} were asked for")
        return answers

    def _first_token_s(self, running: Running, prompt: list[int]) -> float:
        answers = self._generate(running, [prompt], 1)
        return answers["prefill_s"] + answers["decode_s"]

    def _everybody(self, first: int = 0) -> list[Running]:
        first %= max(1, len(self.running))
        return self.running[first:] + self.running[:first]

    @contextlib.contextmanager
    def leaving_out(self, running: Running) -> Iterator[None]:
        """Who fails is left out of everything from here on."""
        try:
            yield
        except Failed as error:
            self._leave_out(running, str(error))

    def _leave_out(self, running: Running, reason: str) -> None:
        self.left_out[running.contestant.title] = reason
        self.running.remove(running)
        print(f"left out: {running.contestant.title}: {reason}", flush=True)


def judge(bench: Bench, rounds: int) -> list[Verdict]:
    """Every figure that something is asked of."""
    many, some, one = bench.load.at_once
    verdicts = [
        against_peers(f"{many} at once, best precision", bench, lambda each: each.rate(many), 1.5),
        against_peers(f"{some} at once, best precision", bench, lambda each: each.rate(some), 1.25),
        against_peers("one, bf16", bench, lambda each: each.rate(one), 1.0, "bf16"),
        against_peers("one, int8", bench, lambda each: each.rate(one), 1.15, "int8"),
        against_peers(f"prefill of {bench.load.long_prompt:,} tokens", bench, Running.prefill_rate, 1.3),
    ]
    for running in [each for each in bench.running if each.contestant.ours and each.contestant.counts]:
        with bench.leaving_out(running):
            verdicts += of_ours(running, bench, rounds)
    return verdicts


def of_ours(running: Running, bench: Bench, rounds: int) -> list[Verdict]:
    """What is asked of Parkway alone; raises `Failed` where its process does."""
    precision = running.contestant.precision
    gain = bench.first_token_gain(running, rounds)
    slowdown = bench.stream_slowdown(running, rounds)
    beside = running.resident_mb - floor_mb(bench.load, precision)
    first_token = f"first token, {bench.load.shared_prefix:,} tokens shared, {precision}"
    between = f"p99 between tokens beside long prompts, {precision}"
    memory = f"MB beside weights, keys and values, {precision}"
    return [
        Verdict(first_token, None, None, gain, "at least 8", gain >= 8),
        Verdict(between, None, None, slowdown, "at most 2", slowdown <= 2),
        Verdict(memory, beside, None, None, f"at most {EXTRA_MB}", beside <= EXTRA_MB),
    ]


def against_peers(
    what: str, bench: Bench, rate: Callable[[Running], float], asked: float, precision: str | None = None
) -> Verdict:
    """The best of Parkway's against the best of the peers', in one precision or in each one's best."""
    counted = [
        each for each in bench.running if each.contestant.counts and precision in (None, each.contestant.precision)
    ]
    ours = max((rate(each) for each in counted if each.contestant.ours), default=None)
    theirs = max((rate(each) for each in counted if not each.contestant.ours), default=None)
    ratio = ours / theirs if ours is not None and theirs is not None else None
    return Verdict(what, ours, theirs, ratio, f"at least {asked:g}", None if ratio is None else ratio >= asked)


def floor_mb(load: Load, precision: str) -> float:
    """Weights, and the keys and values of the batch that the memory was read after."""
    weights = load.parameters * (2 if precision == "bf16" else 1)
    return (weights + max(load.at_once) * (load.prompt + load.answer) * load.kv_bytes) / 1e6


def report(bench: Bench, verdicts: list[Verdict]) -> None:
    load = bench.load
    print(f"\ntokens/s, prompts of {load.prompt} tokens, answers of {load.answer}; medians")
    columns = [f"{number} at once" for number in load.at_once] + [f"prefill {load.long_prompt:,}", "MB", "agrees"]
    print(f"  {'':26}" + "".join(f"{column:>15}" for column in columns))
    for running in bench.running:
        agreement = bench.agreement(running)
        cells = [f"{running.rate(number):.1f}" for number in load.at_once] + [
            f"{running.prefill_rate():.0f}",
            f"{running.resident_mb:.0f}" if running.contestant.counts else "",
            "" if agreement is None else f"{agreement:.0%}",
        ]
        print(f"  {running.contestant.title:26}" + "".join(f"{cell:>15}" for cell in cells))
    print("  MB: resident after the first batch. agrees: first tokens that are the same as Parkway's in bf16.")
    print(f"\n  {'':48}{'parkway':>10}{'best peer':>11}{'ratio':>8}   asked for")
    for verdict in verdicts:
        numbers = f"{cell(verdict.ours):>10}{cell(verdict.other):>11}{cell(verdict.ratio, 2):>8}"
        met = {True: "met", False: "not met", None: "not measured"}[verdict.met]
        print(f"  {verdict.what:48}{numbers}   {verdict.asked}: {met}")
    for title, reason in bench.left_out.items():
        print(f"\n  left out: {title}: {reason}")


def cell(number: float | None, digits: int = 1) -> str:
    return "" if number is None else f"{number:,.{digits}f}"


def as_json(bench: Bench, verdicts: list[Verdict], options: argparse.Namespace) -> str:
    """All that was measured, every round of it."""
    return json.dumps(
        {
            "machine": {"processor": processor(), "cores": len(os.sched_getaffinity(0)), "python": sys.version},
            "threads": options.threads,
            "rounds": options.rounds,
            "load": bench.load.name,
            "contestants": [
                {
                    "title": running.contestant.title,
                    "tokens_per_s": running.rates,
                    "prefill_tokens_per_s": running.prefill_rates,
                    "resident_mb": running.resident_mb,
                    "agreement": bench.agreement(running),
                }
                for running in bench.running
            ],
            "verdicts": [
                {name: getattr(verdict, name) for name in ("what", "ours", "other", "ratio", "asked", "met")}
                for verdict in verdicts
            ],
            "left_out": bench.left_out,
        },
        indent=2,
    )


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def main() -> None:
    """Loads everybody, measures `--rounds` rounds in turn, and prints medians and ratios."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--cache", type=Path, default=Path.home() / ".cache/parkway-bench", help="peers and models")
    arguments.add_argument("--only", action="append", metavar="WORD", help="only contestants with WORD in their title")
    arguments.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of our engine")
    arguments.add_argument("--int8", action="append", metavar="KEY=VALUE", help="our engine's setting for 8 bits")
    arguments.add_argument("--timeout-s", type=float, default=1800, help="of one request to one contestant")
    arguments.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    arguments.add_argument("--quick", action="store_true", help="a tiny model and short answers: does everything run")
    options = arguments.parse_args()
    options.int8 = options.int8 or ["quantization=int8"]
    options.cache.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nobody is left behind
    bench = Bench(options, QUICK if options.quick else WHOLE)
    with contextlib.ExitStack() as stack:
        bench.start(stack)
        bench.warm_up()
        for number in range(options.rounds):
            bench.round(number)
            print(f"round {number + 1} of {options.rounds}", flush=True)
        verdicts = judge(bench, options.rounds)
    report(bench, verdicts)
    if options.json:
        options.json.write_text(as_json(bench, verdicts, options))


if __name__ == "__main__":
    main()
