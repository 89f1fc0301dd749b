"""What a row of the table of template settings says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pcocc_runtime.settings.checks import Setting
from pcocc_runtime.settings.tree import Node

if TYPE_CHECKING:
    from pcocc_runtime.templates.fill import Filling

Item = str | int | None  # which of the entries of a setting: its key or its number; None where it has one
Fill = Callable[["Filling", str, Any, Item], Any]  # (texts, setting, entry, which) -> the entry with `~` and %{...} filled in
Look = Literal["directory", "drive", "file", "image", "user-data"]
Option = Literal["image", "mount", "user-data"]


@dataclass(frozen=True, slots=True)
class Limit:
    """What a site can limit: a key of users-may-set, whose patterns allow a text, a path, or what lies `below` a directory.

    Of a path it counts where it really leads.
    """

    key: str
    allows: Literal["text", "path", "below"] = "path"


def places_of_items(node: Node) -> Sequence[Node]:
    """Return where the entries of a setting stand in the file, in their order."""
    return node.value if isinstance(node.value, tuple) else (node,)


@dataclass(frozen=True, slots=True)
class TemplateSetting(Setting):
    """A setting of templates, or a part of one, with all that is known of it; docs/decisions/019 says how it is read.

    An entry is what is filled in, looked at and limited by itself: the value, or each item of it with `each`.
    """

    default: Any = None
    inherited: bool = True
    show: Callable[[Any], str] | None = None  # as `pcocc template show` writes it, where that is not as it is
    field: str | tuple[str, ...] | None = None  # what of the document's Group carries it; None where nobody reads it there
    fill: Fill | None = None
    look: Look | None = None  # what kind of thing it names, which submit/looks.py looks at
    noun: str = ""  # what that is called in a sentence; {item} is its key
    limit: Limit | None = None
    option: Option | None = None  # the option of the command line that counts before it
    each: bool = False
    places: Callable[[Node], Sequence[Node]] = places_of_items
    parts: tuple[TemplateSetting, ...] = ()  # of a mapping whose keys are settings themselves, each an entry

    @property
    def is_filled(self) -> bool:
        """Tell whether its texts have `~` and %{...} filled in."""
        return self.fill is not None or any(part.is_filled for part in self.parts)
