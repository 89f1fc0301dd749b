"""What the verbs of `pcocc` share: the files they read, and how they complain."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from pcocc_runtime import errors, terminal
from pcocc_runtime.errors import ConfigError
from pcocc_runtime.settings import directories
from pcocc_runtime.site.check import load_site_and_templates
from pcocc_runtime.site.site import Site
from pcocc_runtime.templates.template import Template


def load() -> tuple[Site, dict[str, Template], list[ConfigError]]:
    """Return the site, the templates as far as they are valid, and everything that is wrong with them."""
    problems: list[ConfigError] = []
    directory = confdir()
    return *load_site_and_templates(directory, directories.user_dir(os.environ), problems), problems


def confdir() -> str:
    """Return the site's directory for who runs this command."""
    return directories.site_dir(os.environ, os.geteuid())


def say_notes(notes: Sequence[str]) -> None:
    """Write notes to standard error."""
    for note in notes:
        terminal.say_note(note)


def complain(problems: Sequence[errors.PcoccError]) -> int:
    """Write errors to standard error; return the exit status."""
    sys.stdout.flush()
    for problem in problems:
        terminal.say_error(problem)
    return errors.EXIT_FAILURE if problems else 0


class interruptible:
    """Lets SIGTERM and SIGHUP end the block as Ctrl-C does, so that nothing is left behind."""

    def __enter__(self) -> None:
        self._old = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGHUP)}

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)


def _stop(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)
