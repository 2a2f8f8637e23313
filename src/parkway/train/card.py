"""The model card: README.md, training.json and loss.png beside the weights, from what the run recorded."""

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from parkway.train.config import MiniConfig
from parkway.train.corpus import PLATFORMS, Split
from parkway.train.everyday import WORDS
from parkway.train.exam import Figures, Sheet
from parkway.train.run import Point, Progress

RECORD = "training.json"


@dataclass(frozen=True, slots=True)
class Record:
    """Everything that the card says about a run."""

    command: str
    seed: int
    minutes: float
    steps: int
    tokens: int
    passes: int
    parameters: int
    hardware: str
    data: list[dict[str, str]]
    trained_examples: int
    held_out_examples: int
    model: dict[str, object]
    settings: dict[str, Any]
    curve: list[Point]
    figures: list[Figures]
    before: list[dict[str, Any]]  # the runs that this one went on from, oldest first

    @classmethod
    def of(
        cls, config: MiniConfig, split: Split, progress: Progress, parameters: int, figures: Sequence[Figures]
    ) -> "Record":
        places = {"data", "out", "outside", "wordnet", "start", "seed", "minutes"}
        settings = config.model_dump(mode="json", exclude=places)
        return cls(
            command=f"parkway train park-mini --data {config.data.name} --out DIR --minutes {config.minutes:g} "
            f"--seed {config.seed}{_options(config)}",
            seed=config.seed,
            minutes=round(progress.trained_s / 60, 1),
            steps=progress.step,
            tokens=progress.tokens,
            passes=progress.passes,
            parameters=parameters,
            hardware=hardware(config.threads),
            data=data_list(config.data, config.outside, config.wordnet),
            trained_examples=len(split.trained),
            held_out_examples=len(split.held_out),
            model=config.architecture(),
            settings=settings,
            curve=progress.curve,
            figures=list(figures),
            before=_runs_before(config.start),
        )


def data_list(corpus: Path, outside: Iterable[Path], wordnet: Path | None = None) -> list[dict[str, str]]:
    """Every source with its licence, who is to be named, and what of it was used."""
    listed = [
        {
            "name": f"tldr-pages, English, pages {' and '.join(PLATFORMS)}",
            "from": "https://github.com/tldr-pages/tldr",
            "licence": "CC BY 4.0",
            "attribution": "the tldr-pages team and contributors",
            "use": "training; changed: placeholders resolved, tasks rephrased by rule",
            "sha256": _sha256(corpus),
        },
        {
            "name": f"Python {platform.python_version()}, docstrings of the standard library's command-line tools",
            "from": "https://github.com/python/cpython",
            "licence": "PSF-2.0",
            "attribution": "the Python Software Foundation",
            "use": "training; the first sentence of each",
        },
        {
            "name": "everyday questions, paraphrases, refusals",
            "from": "this project, src/parkway/train/",
            "licence": "Apache-2.0",
            "attribution": "the Parkway authors",
            "use": "training",
        },
    ]
    if wordnet is not None:
        listed.append(
            {
                "name": "WordNet 3.0",
                "from": "https://wordnet.princeton.edu, as Debian's package wordnet-base",
                "licence": "WordNet 3.0 license",
                "attribution": "Princeton University, Copyright 2006",
                "use": "training; nouns and examples of use in questions outside the field",
                "sha256": _sha256(wordnet / "data.noun"),
            }
        )
    for path in outside:
        listed.append(
            {
                "name": f"{path.parent.name}/{path.name}",
                "use": "examination only, never trained",
                "sha256": _sha256(path),
            }
        )
    return listed


def _options(config: MiniConfig) -> str:
    """The options that not every run is given, as one would type them."""
    wordnet = f" --wordnet {config.wordnet}" if config.wordnet else ""
    start = f" --start src/parkway/models/park-mini --rate {config.rate:g}" if config.start else ""
    return wordnet + start + "".join(f" --outside {path.parent.name}/{path.name}" for path in config.outside)


def _runs_before(start: Path | None) -> list[dict[str, Any]]:
    """What the model that a run starts from says of its own runs; empty where there is none."""
    if start is None or not (start / RECORD).exists():
        return []
    record = json.loads((start / RECORD).read_text(encoding="utf-8"))
    kept = ("command", "minutes", "steps", "tokens", "passes", "hardware", "curve")
    return [*record.get("before", []), {name: record[name] for name in kept}]


def hardware(threads: int) -> str:
    """The processor, in words, and how many threads the run used."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    amx = any("amx_bf16" in line for line in lines)
    return f"{names[0] if names else platform.machine()}{' with AMX' if amx else ''}, {threads} threads"


def write_card(directory: Path, record: Record, samples: Sequence[Sheet] = ()) -> None:
    """Write training.json, loss.png and README.md; `samples` are printed as they came."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / RECORD).write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")
    draw_curve(directory / "loss.png", whole_curve(record))
    (directory / "README.md").write_text(_card(record, samples), encoding="utf-8")


def whole_curve(record: Record) -> list[Point]:
    """The curves of this run and of those before it, behind one another."""
    points: list[Point] = []
    behind = 0.0
    for minutes, curve in (*((run["minutes"], run["curve"]) for run in record.before), (record.minutes, record.curve)):
        points += [{**point, "minutes": point["minutes"] + behind} for point in curve]
        behind += minutes
    return points


def draw_curve(path: Path, curve: Sequence[Mapping[str, float]]) -> None:
    """Draw the loss of training and of held-out examples against the minutes."""
    # Only this function needs matplotlib, which comes with the extra `train`.
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.2), layout="constrained")
    for name, label in (("train", "training"), ("held_out", "held-out examples")):
        points = [(point["minutes"], point[name]) for point in curve if name in point]
        axes.plot([minutes for minutes, _ in points], [loss for _, loss in points], label=label, linewidth=1.2)
    axes.set(xlabel="minutes of training", ylabel="loss, nats a token", title="park-mini", ylim=(0, 4))
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _card(record: Record, samples: Sequence[Sheet]) -> str:
    template = (WORDS / "card.md").read_text(encoding="utf-8")
    values = {
        "parameters": f"{record.parameters / 1e6:.1f}",
        "minutes": f"{record.minutes:g}",
        "all_minutes": f"{record.minutes + sum(run['minutes'] for run in record.before):.0f}",
        "before": "".join(_before_line(run) for run in record.before),
        "steps": f"{record.steps:,}",
        "tokens": f"{record.tokens / 1e6:.1f}",
        "passes": f"{record.passes}",
        "trained": f"{record.trained_examples:,}",
        "held_out": f"{record.held_out_examples:,}",
        "seed": str(record.seed),
        "hardware": record.hardware,
        "command": record.command,
        "context": str(record.model["max_position_embeddings"]),
        "figures": _figures_table(record.figures),
        "data": "\n".join(_source_line(source) for source in record.data),
        "samples": "\n\n".join(_sample(sheet) for sheet in samples),
    }
    for name, value in values.items():
        template = template.replace("{" + name + "}", value)
    return template


def _before_line(run: Mapping[str, Any]) -> str:
    return (
        f"    {run['command']}\n\n{run['steps']:,} steps, {run['tokens'] / 1e6:.1f} million tokens, {run['minutes']:g} "
        f"minutes on {run['hardware']}; then, from its weights:\n\n"
    )


def _figures_table(figures: Sequence[Figures]) -> str:
    rows = ["| questions | asked | right command | whole line right | declined | stops |", "|---|--:|--:|--:|--:|--:|"]
    for each in figures:
        shares = (each.right_command, each.right_line, each.declined, each.ended)
        cells = " | ".join("" if share is None else f"{100 * share:.1f} %" for share in shares)
        rows.append(f"| {each.name} | {each.asked} | {cells} |")
    return "\n".join(rows)


def _source_line(source: Mapping[str, str]) -> str:
    known = [source[key] for key in ("from", "licence") if key in source]
    by = f"; attribution: {source['attribution']}" if "attribution" in source else ""
    return f"- {source['name']} ({'; '.join([*known, source['use']])}{by})"


def _sample(sheet: Sheet) -> str:
    shown = [f"**{sheet.part.name}**", ""]
    for question, reply in zip(sheet.part.questions, sheet.replies, strict=True):
        sentence = reply.text.split("\n```", 1)[0]
        line = f" `` {reply.line} ``" if reply.line else ""
        shown.append(f"- {question.text} -> {sentence}{line}")
    return "\n".join(shown)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
