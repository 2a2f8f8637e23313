"""`parkway chat`: talks to a model through the running gateway."""

from __future__ import annotations

import contextlib
import os
import sys

import click

from parkway.cli.client import Client
from parkway.core.errors import MissingKey, ModelNotFound, ParkwayError, StartupError, nearest
from parkway.core.ids import new_id
from parkway.launch import running
from parkway.store.home import Home

_KEY_VARIABLE = "PARKWAY_API_KEY"
_FAVOURITE = "park-mini"
_HELP = """\
/new              forget what was said and begin anew
/good [comment]   say that the last answer was good
/bad [comment]    say that it was not
/exit             leave; so does Ctrl-D
Ctrl-C            stop the answer that is being written"""


@click.command("chat")
@click.argument("message", required=False)
@click.option("--model", help="The model to talk to.  [default: park-mini, or the only one]")
@click.option("--conversation", help="Continue, or begin, the conversation of this name.  [default: a new one]")
@click.option("--url", help="A gateway elsewhere; its key is read from $PARKWAY_API_KEY.")
def command(message: str | None, model: str | None, conversation: str | None, url: str | None) -> int:
    """Talk to a model: one MESSAGE, or back and forth without it. The gateway remembers the conversation.

    Ctrl-C stops the answer that is being written. A message may also come from standard input.

    \b
    Examples:
      parkway chat
      parkway chat "How do I unpack a .tar.gz into another folder?"
      parkway chat --conversation backup "And without the leading directory?"
      echo "How do I list open ports?" | parkway chat
    """
    client = connect(url)
    talk = Talk(client, choose(client, model), conversation or new_id("chat"))
    talk.hold(message, "parkway chat")
    return 0


class Talk:
    """One conversation on the terminal."""

    def __init__(self, client: Client, model: str, conversation: str) -> None:
        self._client = client
        self._model = model
        self._conversation = conversation

    def hold(self, message: str | None, command: str) -> None:
        """One message, given or from standard input; on a terminal without one, back and forth.

        Args:
            command: How the user would type it with a message.
        """
        if message is None and not sys.stdin.isatty():
            message = sys.stdin.read().strip()
            if not message:
                raise click.UsageError(f'standard input is empty; give a message: {command} "..."')
        if message is None:
            self.back_and_forth()
        else:
            self.ask(message)

    def ask(self, message: str) -> None:
        """Prints the answer to `message` as it comes.

        Raises:
            ParkwayError: The gateway refuses or breaks off.
            KeyboardInterrupt: Ctrl-C; the answer was stopped at the gateway too.
        """
        with contextlib.closing(self._client.chat(self._model, message, self._conversation)) as pieces:
            try:
                for piece in pieces:
                    print(printable(piece), end="", flush=True)
            finally:
                print(flush=True)

    def back_and_forth(self) -> None:
        """Reads messages and prints answers until the end of the input, `/exit`, or Ctrl-C at the prompt."""
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - importing it gives `input` line editing and a history
        click.echo(f"{self._model} at {self._client.url}; /help lists the commands", err=True)
        while True:
            try:
                line = input("> ").strip()
            except (EOFError, KeyboardInterrupt):
                print()
                return
            if line == "/exit":
                return
            try:
                self._take(line)
            except ParkwayError as error:
                click.echo(f"error: {error.message}", err=True)
            except KeyboardInterrupt:
                click.echo("(stopped)", err=True)

    def _take(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "/new":
            self._conversation = new_id("chat")
            click.echo("a new conversation", err=True)
        elif word in ("/good", "/bad"):
            self._judge("up" if word == "/good" else "down", rest.strip())
        elif word.startswith("/"):
            click.echo(_HELP, err=True)
        elif line:
            self.ask(line)

    def _judge(self, thumb: str, comment: str) -> None:
        if self._client.last_request_id is None:
            click.echo("there is no answer yet to judge", err=True)
            return
        self._client.say(self._client.last_request_id, thumb, comment or None)
        click.echo("noted", err=True)


def connect(url: str | None = None) -> Client:
    """A client of the gateway at `url`, or of the one that runs on this home."""
    key = os.environ.get(_KEY_VARIABLE)
    if url is not None:
        if not key:
            # The key of this home is not sent to addresses that somebody typed.
            raise MissingKey(f"--url needs the key of that gateway in the environment variable {_KEY_VARIABLE}")
        return Client(url, key)
    home = Home.open()
    runs = running.read(home)
    if runs is None:
        raise StartupError(f"no Parkway is ready on this home ({home.path}); start it with: parkway up")
    return Client(runs.url, key or _first_key(home))


def _first_key(home: Home) -> str:
    try:
        return home.first_key_file.read_text(encoding="ascii").strip()
    except OSError as error:
        raise MissingKey(
            f"{home.first_key_file} cannot be read ({error.strerror}); make a key with `parkway key create chat` "
            f"and put it into the environment variable {_KEY_VARIABLE}"
        ) from error


def choose(client: Client, wanted: str | None) -> str:
    """The model to talk to."""
    known = client.models()
    if wanted is not None:
        if wanted not in known:
            raise ModelNotFound(
                f'model "{wanted}" does not exist.{nearest(wanted, known)} There are: {", ".join(known)}'
            )
        return wanted
    if _FAVOURITE in known or len(known) == 1:
        return _FAVOURITE if _FAVOURITE in known else known[0]
    if not known:
        raise ModelNotFound("no models are served; name some under `models` in parkway.yaml")
    raise ModelNotFound(f"several models are served; choose one with --model: {', '.join(known)}")


def printable(text: str) -> str:
    """The text as a terminal may have it: a model's answer must not move the cursor or change the title."""
    if not sys.stdout.isatty():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else "�" for char in text)
