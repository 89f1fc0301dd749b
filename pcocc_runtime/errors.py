"""The errors pcocc raises, and how one reads to a user.

PcoccError
 |- ConfigError     a file of the site or of the user is wrong: file, line and key are known
 |- RequestError    what the user asked for cannot be done: another option or value helps
 `- NodeError       this node cannot do it: the admin, or another node, helps
"""

from __future__ import annotations

EXIT_FAILURE = 1
EXIT_USAGE = 2


class PcoccError(Exception):
    """Something went wrong; `message` is one sentence, `where` a place, `hint` what to do about it."""

    def __init__(self, message: str, hint: str | None = None, where: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = where

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class RequestError(PcoccError):
    """The user's request is wrong or not allowed."""


class NodeError(PcoccError):
    """This node lacks something or failed to set it up."""


class ConfigError(PcoccError):
    """A configuration file is wrong at `file`:`line`, in the setting `key` (a dotted path)."""

    def __init__(
        self,
        message: str,
        file: str,
        line: int | None = None,
        key: str | None = None,
        hint: str | None = None,
    ) -> None:
        place = f"{file}:{line}" if line else file
        super().__init__(message, hint, f"{place}: {key}" if key else place)
        self.file = file
        self.line = line
        self.key = key


def one_line(text: str) -> str:
    """Return `text` with control characters replaced, so that one message stays one line of a terminal."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))


def render(error: PcoccError) -> str:
    """Return the lines for the user's stderr: `pcocc: error: ...` and, when there is one, `hint: ...`."""
    text = f"pcocc: error: {one_line(str(error))}"
    return f"{text}\nhint: {one_line(error.hint)}" if error.hint else text
