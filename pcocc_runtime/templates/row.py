"""What a row of the table of template settings says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pcocc_runtime.settings.checks import Setting
from pcocc_runtime.settings.tree import Node

if TYPE_CHECKING:
    from pcocc_runtime.templates.fill import Filling

Item = str | int | None  # which entry of a setting: its key or its number; None where there is only one
Fill = Callable[["Filling", str, Any, Item], Any]  # (texts, setting, entry, which) -> the entry filled in
Look = Literal["directory", "drive", "file", "image", "user-data"]
Option = Literal["image", "mount", "user-data"]


@dataclass(frozen=True, slots=True)
class Limit:
    """What a site can limit: the key of users-may-set, and what its patterns allow.

    They match a text as it is, a path with its symbolic links followed, or any path `below` a directory.
    """

    key: str
    allows: Literal["text", "path", "below"] = "path"


def places_of_items(node: Node) -> Sequence[Node]:
    """Return where the entries of a setting stand in the file, in their order."""
    return node.value if isinstance(node.value, tuple) else (node,)


@dataclass(frozen=True, slots=True)
class TemplateSetting(Setting):
    """A setting of templates, or a part of one, with all that is known of it (docs/decisions/019).

    Entries are filled in, looked at and limited: the value itself, or with `each` every item of it.
    """

    default: Any = None
    inherited: bool = True
    show: Callable[[Any], str] | None = None  # how `pcocc template show` writes it, if not as it is
    field: str | tuple[str, ...] | None = None  # of the document's Group; None where the nodes do not read it
    carried: str = ""  # the field's type, if it is not the default's, or `str | None` without a default
    fill: Fill | None = None  # fills in `~` and %{...}
    look: Look | None = None  # what kind of thing it names: submit/choose.py looks at it
    noun: str = ""  # what that is called in a sentence; {item} is its key
    limit: Limit | None = None
    option: Option | None = None  # --pcocc-OPTION says the same for one job
    each: bool = False
    places: Callable[[Node], Sequence[Node]] = places_of_items
    parts: tuple[TemplateSetting, ...] = ()  # the keys of a mapping, each an entry with a row of its own

    @property
    def is_filled(self) -> bool:
        """Tell whether its texts have `~` and %{...} filled in."""
        return self.fill is not None or any(part.is_filled for part in self.parts)

    @property
    def is_plain(self) -> bool:
        """Tell whether its value is carried on as it is."""
        return not (self.fill or self.look or self.limit or self.option or self.parts)
