"""`parkway run`: talks to one local model, on a Parkway that it starts if none runs."""

from __future__ import annotations

import contextlib
import sys
import time

import click

from parkway.cli.chat import Talk, connect
from parkway.cli.client import Client
from parkway.core.errors import ModelNotFound
from parkway.core.ids import new_id
from parkway.launch import running
from parkway.launch.control import overview
from parkway.launch.local_models import local_model
from parkway.launch.settings import ModelConfig, Settings
from parkway.launch.temporary import temporary
from parkway.store.home import Home

# A model that was pulled a moment ago is known to the running Parkway within about a second.
_KNOWN_WITHIN_S = 5.0


@click.command("run")
@click.argument("name")
@click.argument("prompt", required=False)
def command(name: str, prompt: str | None) -> int:
    """Talk to the model NAME: one PROMPT, or back and forth without it.

    A Parkway that runs on this home is used, and loads the model if it sleeps. If none runs, one is started for this
    chat and stopped after it. Nothing is pulled: see parkway list for what is here.

    \b
    Examples:
      parkway run park-mini
      parkway run Qwen3-0.6B "What is a symbolic link?"
      echo "How do I list open ports?" | parkway run park-mini
    """
    home = Home.open()
    with contextlib.ExitStack() as stack:
        if running.read(home) is None:
            settings = Settings.find()
            base = settings.adapted_models().get(name, name)
            entry = _entry(settings, home, base)
            _tell(f"starting Parkway for {name} ...")
            stack.enter_context(temporary(settings, home, base, entry))
        client = connect()
        _await_model(client, home, name)
        if _sleeps(home, name):
            _tell(f"loading {name} ...")
        Talk(client, name, new_id("chat")).hold(prompt, f"parkway run {name}")
    return 0


def _entry(settings: Settings, home: Home, name: str) -> ModelConfig:
    """Where the configuration says that the model is served, else the model of this machine."""
    return settings.models.get(name) or ModelConfig(path=str(_on_this_machine(home, name)))


def _on_this_machine(home: Home, name: str) -> str:
    """What stands for the model as a `path`.

    Raises:
        ModelNotFound: There is no such model; the message says how to get one.
    """
    try:
        model = local_model(home, name)
    except ModelNotFound as error:
        raise ModelNotFound(f"{error.message}, `parkway pull OWNER/NAME` gets one from Hugging Face") from error
    return name if model.manifest is None else str(model.path)


def _await_model(client: Client, home: Home, name: str) -> None:
    """Returns once the running Parkway knows the model.

    Raises:
        ModelNotFound: It does not; the message says whether it is on this machine at all.
    """
    deadline = time.monotonic() + _KNOWN_WITHIN_S
    while name not in client.models():
        _on_this_machine(home, name)
        if time.monotonic() > deadline:
            raise ModelNotFound(
                f'the Parkway that runs ({client.url}) does not serve "{name}"; add it under `models` in parkway.yaml, '
                "or set `pulled_models: true`, and start it again"
            )
        time.sleep(0.2)


def _sleeps(home: Home, name: str) -> bool:
    found = overview(home)
    return found is not None and any(model.name == name and model.state == "asleep" for model in found.models)


def _tell(line: str) -> None:
    """To people who wait; who reads the output from a pipe sees nothing of it."""
    if sys.stderr.isatty():
        click.echo(line, err=True)
