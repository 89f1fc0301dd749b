"""A template as a file defines it, and with all that it inherits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pcocc_runtime.errors import ConfigError, RequestError
from pcocc_runtime.settings.tree import Node
from pcocc_runtime.templates.row import Item
from pcocc_runtime.templates.settings import SETTINGS


@dataclass(frozen=True, slots=True)
class Template:
    """One template as a file defines it: only the settings it has, None for null."""

    name: str
    values: Mapping[str, Any]
    node: Node = field(repr=False, compare=False)
    is_site: bool = True
    is_image: bool = False  # no file defines it: it stands for the image of this name


@dataclass(frozen=True, slots=True)
class Resolved:
    """A template with everything inherited and defaulted; `sources` has the template of each setting."""

    template: Template
    values: Mapping[str, Any]
    sources: Mapping[str, Template]

    @property
    def origins(self) -> dict[str, str]:
        """Return the name of the template that each setting came from, if it is not the built-in default."""
        return {key: one.name for key, one in self.sources.items()}

    def place(self, key: str, item: Item = None) -> Node:
        """Return where a setting, or an entry of it, stands: here, or in a template it is inherited from."""
        node = self.sources.get(key, self.template).node
        found: Node = node.value.get(key, node) if isinstance(node.value, dict) else node
        if isinstance(item, int):
            return SETTINGS[key].places(found)[item]
        return found.value.get(item, found) if isinstance(found.value, dict) else found

    def error(self, key: str, message: str, hint: str | None = None, item: Item = None) -> ConfigError:
        """Return the error that points to where a setting, or an entry of it, stands."""
        return self.place(key, item).error(message, hint)

    def is_users(self, key: str) -> bool:
        """Tell whether a user's own template makes this setting, so that the site's limits apply to it."""
        source = self.sources.get(key)
        return source is not None and not source.is_site

    @contextlib.contextmanager
    def at(self, key: str, item: Item = None) -> Iterator[None]:
        """Raise a RequestError of the block as a ConfigError with the place of the setting that causes it."""
        try:
            yield
        except RequestError as error:
            if self.sources.get(key, self.template).is_image:
                raise  # it names the image, and there is no file to correct
            raise self.error(key, error.message, error.hint, item) from error
