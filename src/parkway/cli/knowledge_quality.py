"""`parkway knowledge eval` and `train-ranker`: how well a collection is searched, and searching it better."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click
import msgspec

from parkway.cli.chat import choose, connect
from parkway.cli.client import Client
from parkway.cli.collection import Collection, Name, url_option
from parkway.cli.listing import one_line
from parkway.cli.options import config_option
from parkway.cli.progress import bar
from parkway.core.errors import CollectionNotFound, StartupError, nearest
from parkway.core.grounding import Grounded
from parkway.core.knowledge import DocumentStatus, Search, can_be_name
from parkway.launch.control import add_paths
from parkway.store.home import Home

if TYPE_CHECKING:
    from parkway.retrieval.config import CollectionConfig
    from parkway.retrieval.evaluation import Question, Results
    from parkway.retrieval.fit import Fit
    from parkway.train.cross_encoder import Progress

T = TypeVar("T")

_NICE = 10
_SETTINGS = {"rerank": "true or false", "diversity": "0 to 1", "budget_ms": "a time such as 50"}
"""Of a search, that can be compared, and what each can be."""


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Completion(msgspec.Struct):
    """What is needed of a grounded answer."""

    choices: list[_Choice]
    parkway: Grounded


@click.command("eval")
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option("--in", "name", type=Name(), metavar="NAME", help="The collection.")
@click.option(
    "--compare",
    "others",
    multiple=True,
    is_flag=False,
    flag_value="rerank=false",
    metavar="OTHER",
    help="What is measured beside it: another collection, or settings of a search such as rerank=false or "
    "diversity=0.3,budget_ms=50. May be repeated.  [default: rerank=false]",
)
@click.option("--answers", is_flag=True, help="Have the questions answered, too, and measure the answers.")
@click.option("--model", help="The model that answers.  [default: park-mini, or the only one]")
@click.option("--chunkers", is_flag=True, help="Compare ways to cut documents instead; NAME says for which encoder.")
@click.option("--split", default="test", show_default=True, help="Of a folder: qrels/SPLIT.tsv.")
@url_option
def evaluate(
    file: Path,
    name: str | None,
    others: tuple[str, ...],
    answers: bool,
    model: str | None,
    chunkers: bool,
    split: str,
    url: str | None,
) -> None:
    """Measure how well the collection NAME is searched, on questions in FILE whose answers are known.

    A line of FILE is a question: {"query": "How long is a key valid?", "relevant": ["docs/keys.md"]}. One without
    anything relevant is one that the documents do not answer: from such follows which min_confidence is best. FILE may
    also be a folder as BEIR lays it out. Numbers have their 95 % intervals by bootstrap.

    \b
    Examples:
      parkway knowledge eval questions.jsonl --in docs
      parkway knowledge eval questions.jsonl --in docs --compare rerank=false --compare docs-semantic
      parkway knowledge eval questions.jsonl --in docs --answers --model qwen
      parkway knowledge eval questions.jsonl --chunkers
    """
    if chunkers and (others or answers):
        raise click.UsageError("--chunkers searches no collection; leave --compare and --answers out")
    if chunkers:
        _compare_chunkers(file, name)
        return
    if name is None:
        raise click.UsageError("name the collection: --in NAME")
    configurations = [(name, name, dict[str, Any]()), *(_configuration(name, other) for other in others)]
    from parkway.retrieval import evaluation  # with numpy, which nothing else here needs

    questions = evaluation.load(file, split)
    client = connect(url)
    answering = choose(client, model) if answers else ""
    collections = {each: Collection(client, each) for _, each, _ in configurations}
    fits = [_fit(each, questions) for each in collections.values()]
    results: dict[str, evaluation.Results] = {}
    for title, each, settings in configurations:
        search = partial(collections[each].search, limit=evaluation.DEPTH, **settings)
        with bar(title, len(questions)) as advance:
            results[title] = evaluation.evaluate(questions, _counted(advance, search))
    click.echo(evaluation.table(results))
    _remark(fits)
    for title, each in results.items():
        click.echo(f"\n{title}:\n\n{evaluation.stages(each)}")
    _tell_confidence(results[name])
    if answers:
        _measure_answers(client, name, questions, answering)


def _configuration(name: str, told: str) -> tuple[str, str, dict[str, Any]]:
    """What it is called, the collection, and the settings of its searches."""
    if "=" not in told:
        if not can_be_name(told) or told == name:
            raise click.UsageError(f"--compare: {told!r} is no other collection, and no setting such as rerank=false")
        return told, told, {}
    settings: dict[str, Any] = {}
    for part in told.split(","):
        key, _, value = (each.strip() for each in part.partition("="))
        if key not in _SETTINGS:
            there_are = f"there are {', '.join(_SETTINGS)}"
            raise click.UsageError(
                f"--compare: {key!r} is no setting of a search; {there_are}.{nearest(key, _SETTINGS)}"
            )
        try:
            settings[key] = msgspec.json.decode(value)
            msgspec.convert({"query": "?", key: settings[key]}, Search)
        except msgspec.MsgspecError as error:
            raise click.UsageError(
                f"--compare: the value of {key} is {value!r}; one is {_SETTINGS[key]} ({error})"
            ) from error
    return f"{name}, {told}", name, settings


def _fit(collection: Collection, questions: Sequence[Question]) -> Fit:
    """Sees, before it is measured, how the questions fit the collection, and says where they do not.

    Raises:
        ConfigurationError: They do not at all.
    """
    from parkway.retrieval.fit import Fit

    total = collection.status().documents
    with bar("looking for what is relevant", total) as advance:

        def documents() -> Iterator[DocumentStatus]:
            for done, document in enumerate(collection.documents(), 1):
                yield document
                advance(done)

        fit = Fit.of(collection.name, questions, documents() if any(each.relevant for each in questions) else ())
    fit.check()
    for line in fit.warnings:
        click.echo(f"warning: {one_line(line)}", err=True)
    return fit


def _remark(fits: Sequence[Fit]) -> None:
    """Has what does not fit stand beside what was measured."""
    for remark in (remark for fit in fits for remark in fit.remarks):
        click.echo(f"\n{remark}.")


def _counted(advance: Callable[[int], object], ask: Callable[[str], T]) -> Callable[[str], T]:
    done = 0

    def counted(query: str) -> T:
        nonlocal done
        answer = ask(query)
        done += 1
        advance(done)
        return answer

    return counted


def _tell_confidence(results: Results) -> None:
    from parkway.retrieval import calibration

    found = calibration.Calibration.of(results)
    if found is None:
        click.echo("\nAll questions have an answer, or none has: which min_confidence is best cannot be said.")
        return
    best = found.recommended
    click.echo(f"\n{calibration.table(found, [best] if best else [])}")
    advice = f"recommended: min_confidence {best:.2f}" if best else calibration.TOO_FEW
    click.echo(f"\ntold apart (AUC): {found.told_apart:.3f}; {advice}")


def _measure_answers(client: Client, name: str, questions: Sequence[Question], model: str) -> None:
    from parkway.retrieval import answers

    def ask(query: str) -> answers.Answer:
        began = time.monotonic()
        body = {"model": model, "messages": [{"role": "user", "content": query}], "knowledge": [name]}
        told = client.ask("POST", "/v1/chat/completions", _Completion, body)
        text = told.choices[0].message.content or ""
        return answers.Answer(text, told.parkway, 1000 * (time.monotonic() - began))

    with bar("answering", len(questions)) as advance:
        found = answers.evaluate(questions, _counted(advance, ask))
    click.echo(f"\n{answers.table(found)}")


def _compare_chunkers(file: Path, name: str | None) -> None:
    collection, encoder = (None, "park-embed") if name is None else _configured(name, None)
    language = "english" if collection is None else collection.index.language
    from parkway.launch.chunker_comparison import compared  # with torch, which takes seconds
    from parkway.retrieval.chunking.evaluation import table

    results = compared(file, encoder, language, lambda done, _: click.echo(f"{done}: measured", err=True))
    click.echo(table(results))


@click.command("train-ranker")
@click.argument("name", type=Name())
@click.argument("judgements", required=False, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--kind",
    type=click.Choice(["linear", "cross-encoder"]),
    default="linear",
    show_default=True,
    help="The weights of the ranker, or a cross-encoder that reads the first of what it finds.",
)
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=15.0, show_default=True,
              help="The longest that a cross-encoder is trained.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed draws the same questions.")
@click.option("--threads", type=click.IntRange(1), help="Of the training.  [default: one for each core]")
@click.option("--split", default="train", show_default=True, help="Of a folder: qrels/SPLIT.tsv.")
@click.option("--force", is_flag=True, help="Use it even if it is not better.")
@click.option("--forget", is_flag=True, help="Use what Parkway comes with again, and train nothing.")
@config_option
def train_ranker(
    name: str,
    judgements: Path | None,
    kind: Literal["linear", "cross-encoder"],
    minutes: float,
    seed: int,
    threads: int | None,
    split: str,
    force: bool,
    forget: bool,
    config: Path | None,
) -> int:
    """Train a ranker of its own for the collection NAME, on questions whose answers are known.

    JUDGEMENTS is a file as `parkway knowledge eval` reads it, or a folder as BEIR lays it out. A fifth of the
    questions is held out; what was trained is used only if it does better on them. The exit code is 1 if it is not
    used. A cross-encoder costs time in every search: `ranking` of the collection says how much it may.

    \b
    Examples:
      parkway knowledge train-ranker docs questions.jsonl
      parkway knowledge train-ranker docs questions.jsonl --kind cross-encoder --minutes 15
      parkway knowledge train-ranker docs --forget
    """
    if forget == (judgements is not None):
        raise click.UsageError("--forget takes no JUDGEMENTS" if forget else "give JUDGEMENTS, or --forget")
    from parkway.launch import ranker_files, ranker_training
    from parkway.retrieval import evaluation

    questions = [] if judgements is None else evaluation.load(judgements, split)
    home, client = Home.open(), connect(None)
    collection, start = _configured(name, config)
    place = home.knowledge / name
    if judgements is None:
        ranker_files.forget(place)
        add_paths(home, name, [], {})
        click.echo(f"{name} is ranked by what Parkway comes with")
        return 0
    searched = Collection(client, name)
    fit = _fit(searched, questions)
    with bar("searching", len(questions)) as advance:
        search = partial(searched.search, limit=evaluation.DEPTH, explain=True)
        lesson = ranker_training.Lesson.of(questions, search, advance)
    os.nice(_NICE)  # who searches meanwhile goes first
    about = {"trained_on": f"{len(lesson.training)} questions of {judgements.name}"}
    if kind == "linear":
        trained = ranker_training.trained_ranker(lesson, collection.index.language, about)
    else:
        from parkway.launch.cross_encoder_training import trained_cross_encoder  # with torch, which takes seconds
        from parkway.launch.rankers import Rankers
        from parkway.train.cross_encoder import CrossTraining

        ranker = Rankers.of(place, collection.index.language, collection.ranking, reads=False).ranker
        training = CrossTraining(minutes=minutes, seed=seed, threads=threads)
        trained = trained_cross_encoder(lesson, ranker, start, training, collection.ranking, about, _report)
    change = f"{evaluation.told(trained.trial.change)} in nDCG@10"
    click.echo(f"{len(lesson.held_out)} questions that were held out of {len(questions)}:\n")
    click.echo(evaluation.table(trained.trial.results))
    if trained.remark:
        click.echo(f"\n{trained.remark}")
    _remark([fit])
    if not (trained.trial.better or force):
        click.echo(f"\nnot used: {change} is no improvement; --force uses it all the same")
        return 1
    try:
        trained.keep(place)
    except OSError as error:
        raise StartupError(f"{place}: what was trained cannot be kept: {error.strerror}") from error
    add_paths(home, name, [], {})  # has the owner look
    click.echo(f"\n{name} is ranked by it from now on: {change}")
    return 0


def _configured(name: str, config: Path | None) -> tuple[CollectionConfig, str]:
    """The settings of a collection, and where its encoder lies."""
    from parkway.cli.state import open_home  # with the database, which nothing else here needs
    from parkway.retrieval.collections import Collections

    with open_home(config) as (_, settings, database):
        known = {name: each.config for name, each in Collections(database).all().items() if not each.removing}
    if name not in known:
        raise CollectionNotFound(f'collection "{name[:64]}" does not exist.{nearest(name, known)}')
    model = settings.models.get(known[name].model)
    return known[name], (model.path if model is not None else None) or known[name].model


def _report(progress: Progress) -> None:
    click.echo(f"{progress.share:4.0%}  step {progress.steps}, loss {progress.loss:.3f}", err=True)


COMMANDS = (evaluate, train_ranker)
