"""`parkway show`: what is known of a local model."""

from __future__ import annotations

import time
from dataclasses import asdict

import click

from parkway.cli.list import readable_count
from parkway.cli.listing import print_json, print_table
from parkway.cli.options import json_option
from parkway.launch.local_models import LocalModel, local_model
from parkway.store.home import Home
from parkway.store.models import readable_bytes


@click.command("show")
@click.argument("name")
@json_option
def command(name: str, as_json: bool) -> None:
    """Show what is known of the local model NAME: its kind, its files, and how to run it.

    \b
    Examples:
      parkway show park-mini
      parkway show Qwen3-0.6B --json
    """
    model = local_model(Home.open(), name)
    if as_json:
        print_json(_shown(model))
        return
    print_table(("model", model.name), _rows(model))
    click.echo()
    print_table(("file", "size"), [(file, readable_bytes(size)) for file, size in model.files])
    click.echo(
        f"\nTo serve it by itself:  parkway engine --model {model.name}\nTo chat with it: parkway run {model.name}"
    )


def _rows(model: LocalModel) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [("source", model.source)]
    if (manifest := model.manifest) is not None:
        rows += [
            ("revision", f"{manifest.revision}, commit {manifest.commit}"),
            ("hub", manifest.endpoint),
            ("pulled", time.strftime("%Y-%m-%d %H:%M", time.localtime(manifest.pulled_ms / 1000))),
        ]
    rows += [("directory", model.path), ("size", readable_bytes(model.size_bytes))]
    if (facts := model.facts) is None:
        return [*rows, ("problem", model.problem)]
    return [
        *rows,
        ("family", facts.family),
        ("architecture", facts.architecture),
        ("answers", ", ".join(facts.answers)),
        ("context", f"{facts.context_tokens} tokens"),
        ("parameters", readable_count(facts.parameters)),
        ("stored as", facts.dtype),
        ("chat template", "yes" if facts.chat_template else "no"),
        ("license", facts.license),
    ]


def _shown(model: LocalModel) -> dict[str, object]:
    """What a program reads about a model. Times are in milliseconds since 1970."""
    manifest = model.manifest
    return {
        "name": model.name,
        "source": model.source,
        "built_in": manifest is None,
        "revision": manifest.revision if manifest else None,
        "commit": manifest.commit if manifest else None,
        "endpoint": manifest.endpoint if manifest else None,
        "pulled_ms": manifest.pulled_ms if manifest else None,
        "path": str(model.path),
        "size_bytes": model.size_bytes,
        "facts": asdict(model.facts) if model.facts else None,
        "problem": model.problem,
        "files": manifest.files if manifest else [{"name": name, "size_bytes": size} for name, size in model.files],
    }
