"""A training run of park-mini: the steps from random weights to the end of its minutes."""

# ruff: noqa: S311 - draws are for variety and must follow the seed; nothing here is secret

import random
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from parkway.engine.directory import ModelDirectory
from parkway.engine.model import Decoder
from parkway.engine.shape import ModelShape
from parkway.engine.weights import load_decoder
from parkway.train.config import MiniConfig
from parkway.train.corpus import Split
from parkway.train.dialogue import Dialogue, Source, Turn, answer
from parkway.train.optimisers import initialise, make_optimisers, scale_rates
from parkway.train.packed import IGNORED, Batch, PackedAttention, fill_rows, pack
from parkway.train.tokenizer import PAD, encode, token_id, train_tokenizer

Point = dict[str, float]  # of the curve: step, minutes, and train, tokens_per_s or held_out


@dataclass(slots=True)
class Progress:
    """How far a run is; saved with the weights."""

    step: int = 0
    tokens: int = 0  # filling and questions included
    passes: int = 0  # finished ones
    trained_s: float = 0.0  # spent in steps, over all interruptions
    curve: list[Point] = field(default_factory=list)


class Run:
    """The model in training, its optimisers, and its place in time.

    A run that was interrupted carries on from the checkpoint in `config.work`.
    """

    def __init__(self, config: MiniConfig, split: Split) -> None:
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        config.work.mkdir(parents=True, exist_ok=True)
        self.config = config
        self.split = split
        self.source = Source.of(split.trained, known=split.held_out, wordnet=config.wordnet)
        self.tokenizer = self._tokenizer(config.work / "tokenizer.json")
        self.filling = token_id(self.tokenizer, PAD)
        self.model = Decoder(ModelShape.from_config(config.architecture()))
        self._begin()
        self.optimisers = make_optimisers(self.model, matrix_rate=config.matrix_rate, vector_rate=config.vector_rate)
        self.progress = Progress()
        self._loss = torch.compile(self._mean_loss) if config.compile else self._mean_loss
        self._held_out = self._held_out_batches()
        self._resume()

    def train(self) -> None:
        """Step until the minutes are used up. The learning rate follows the clock: a slower machine ends in time."""
        batches = self._batches()
        saved = time.monotonic()
        while (done := self.progress.trained_s / (60 * self.config.minutes)) < 1:
            self._log(self.step(next(batches), self._rate(done)))
            if time.monotonic() - saved > self.config.checkpoint_s:
                self.save()
                saved = time.monotonic()
        self.save()

    def step(self, batch: Batch, rate: float) -> Point:
        """One update, with every learning rate scaled by `rate`; returns its loss, in nats a token, and its speed."""
        started = time.monotonic()
        scale_rates(self.optimisers, rate)
        loss = self._loss(batch)
        loss.backward()
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        took_s = time.monotonic() - started
        self.progress.step += 1
        self.progress.tokens += batch.token_ids.numel()
        self.progress.trained_s += took_s
        return {"train": loss.item(), "tokens_per_s": batch.token_ids.numel() / took_s}

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """The mean loss on examples that are never trained, in nats a token."""
        # Not the compiled function: without gradients it would be compiled a second time.
        return float(torch.stack([self._mean_loss(batch) for batch in self._held_out]).mean())

    def save(self) -> None:
        """Write the checkpoint; a crash in the middle leaves the one before."""
        state = {
            "model": self.model.state_dict(),
            "optimisers": [each.state_dict() for each in self.optimisers],
            "progress": asdict(self.progress),
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    @property
    def checkpoint(self) -> Path:
        return self.config.work / "checkpoint.pt"

    def _begin(self) -> None:
        """Random weights, or those of the directory that the run starts from."""
        initialise(self.model)
        if self.config.start is not None:
            begun = load_decoder(ModelDirectory(self.config.start), torch.float32)
            self.model.load_state_dict(begun.state_dict())

    def _resume(self) -> None:
        if not self.checkpoint.exists():
            return
        state = torch.load(self.checkpoint, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.progress = Progress(**state["progress"])

    def _mean_loss(self, batch: Batch) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            hidden = self.model(batch.token_ids, batch.positions, PackedAttention(batch.documents))
            # Most of the work of a small model is its head: it is spent on predicted tokens alone.
            logits = self.model.logits(hidden[batch.picks])
        return F.cross_entropy(logits.float(), batch.targets, ignore_index=IGNORED)

    def _rate(self, done: float) -> float:
        """Linear warm-up, then linear decay to nothing; `done` is the used share of the minutes."""
        warmup = self.config.warmup_share
        return self.config.rate * min((done + 1e-4) / warmup, (1 - done) / (1 - warmup), 1.0)

    def _batches(self) -> Iterator[Batch]:
        """Passes without end, each phrased anew."""
        while True:
            # A resumed run begins a pass of its own instead of finding its place in the old one.
            rng = random.Random(f"{self.config.seed}/{self.progress.passes}/{self.progress.step}")
            yield from self._pack(self.source.dialogues(rng), rng)
            self.progress.passes += 1

    def _pack(self, dialogues: Iterable[Dialogue], rng: random.Random) -> Iterator[Batch]:
        rows = list(fill_rows(encode(self.tokenizer, dialogues), self.config.row_tokens))
        rng.shuffle(rows)
        # The last batch is filled up with rows from the beginning: all have one shape.
        rows += rows[: -len(rows) % self.config.rows]
        for start in range(0, len(rows) - self.config.rows + 1, self.config.rows):
            part = rows[start : start + self.config.rows]
            yield pack(part, self.config.row_tokens, self.config.target_share, self.filling)

    def _held_out_batches(self) -> list[Batch]:
        rng = random.Random(self.config.seed)
        asked = ((self.source.ask(each, rng), answer(each)) for each in self.split.held_out)
        return list(self._pack(((Turn("user", q), Turn("assistant", a)) for q, a in asked), rng))

    def _tokenizer(self, path: Path) -> Tokenizer:
        if path.exists():
            return Tokenizer.from_file(str(path))
        if self.config.start is not None:
            shutil.copy(self.config.start / path.name, path)
            return Tokenizer.from_file(str(path))
        dialogues = self.source.dialogues(random.Random(self.config.seed))
        texts = (turn.content for dialogue in dialogues for turn in dialogue)
        tokenizer = train_tokenizer(texts, self.config.vocab_size)
        tokenizer.save(str(path))
        return tokenizer

    def _log(self, point: Point) -> None:
        """Add the step to the curve, a point for every few steps, and say how it goes."""
        progress = self.progress
        if progress.step % self.config.log_steps:
            return
        if progress.step % self.config.examine_steps == 0:
            point["held_out"] = self.held_out_loss()
        minutes = progress.trained_s / 60
        progress.curve.append({"step": progress.step, "minutes": round(minutes, 2), **point})
        said = "  ".join(f"{name} {value:,.3f}" for name, value in point.items())
        print(
            f"step {progress.step}  {minutes:.1f} of {self.config.minutes:g} min  pass {progress.passes}  {said}",
            flush=True,
        )
