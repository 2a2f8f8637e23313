"""The child processes of one supervisor: all run a command of ours, on one home, and end when the supervisor does."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from parkway.launch.child import Child, Program, Say, State
from parkway.launch.lifeline import Lifeline
from parkway.launch.log_file import LogFile
from parkway.launch.settings import Settings
from parkway.launch.trouble import Troubles
from parkway.store.home import Home


class Family:
    """Makes the children, and knows all of them.

    Attributes:
        troubles: What is wrong with those that serve all the same.
    """

    def __init__(self, settings: Settings, home: Home, environment: Mapping[str, str], say: Say) -> None:
        self.children: list[Child] = []
        self.troubles = Troubles(say)
        self._settings = settings
        self._home = home
        self._environment = {**environment, "PARKWAY_HOME": str(home.path)}
        self._say = say
        self._lifeline = Lifeline()
        self.configuration = ("--config", str(write_snapshot(settings, home)))
        """The options for a child that reads the whole configuration."""

    def child(
        self,
        name: str,
        command: str,
        *options: str,
        pass_fds: tuple[int, ...] = (),
        announces: bool = False,
        on_change: Callable[[State, str], None] | None = None,
        once: bool = False,
    ) -> Child:
        """A child, not yet started, that runs `parkway COMMAND OPTIONS` on this home.

        Args:
            name: As people read it, and the name of its log.
            announces, on_change, once: As for `Program` and `Child`.
        """
        fd = self._lifeline.child_fd
        program = Program(
            name=name,
            # -P: a file in the working directory that is called like a module must not be imported in its place.
            argv=(sys.executable, "-P", "-m", "parkway", command, *options, "--lifeline", str(fd)),
            environment=self._environment,
            pass_fds=(*pass_fds, fd),
            announces=announces,
            start_timeout_s=self._settings.start_timeout_s,
        )
        on_trouble = partial(self.troubles.listen, name)
        log = LogFile(self._home.logs, name)
        child = Child(program, log, self._say, on_change=on_change, on_trouble=on_trouble, once=once)
        self.children.append(child)
        return child

    def forget(self, child: Child) -> None:
        """A child that has ended for good is one no longer."""
        self.children.remove(child)

    def kill(self) -> None:
        """Ends all of them at once, whatever they are doing."""
        for child in self.children:
            child.kill()

    async def rotate_logs(self) -> None:
        """Moves away what has grown too large."""
        for child in self.children:
            child.log.rotate()


def snapshot_of(home: Home) -> Path:
    """The configuration with which the Parkway on this home was started."""
    return home.path / "running.yaml"


def write_snapshot(settings: Settings, home: Home) -> Path:
    """The configuration in force, for the children: a wrong edit in the meantime must not break a restart.

    Readers find all of it or what was there before. The file may hold the password of the database and is readable by
    its owner alone.

    Raises:
        OSError: It cannot be written; what was there is still there.
    """
    path = snapshot_of(home)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(settings.model_dump_json(indent=1, exclude_unset=True))  # JSON is YAML
    fresh.replace(path)
    return path
