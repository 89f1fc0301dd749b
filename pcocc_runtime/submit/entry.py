"""What is filled in, looked at and limited by itself: a path, a word, a drive, a directory of a setting."""

from __future__ import annotations

from typing import Any, NamedTuple

from pcocc_runtime.templates.row import Item, TemplateSetting


class Entry(NamedTuple):
    """An entry of setting `key`, with the row of the setting or part; `is_typed` means on the command line."""

    key: str
    row: TemplateSetting
    value: Any
    item: Item = None
    is_typed: bool = False

    @property
    def noun(self) -> str:
        """Return what it is called in a sentence."""
        return self.row.noun.format(item=self.item)

    @property
    def text(self) -> str:
        """Return its text, or the path of a drive or directory."""
        return str(self.value if isinstance(self.value, str) else self.value["path"])
