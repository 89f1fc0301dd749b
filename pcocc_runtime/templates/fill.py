"""What `~` and `%{...}` stand for in the texts of a template, and relative paths on a command line."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pcocc_runtime.errors import ConfigError
from pcocc_runtime.templates.row import Item

if TYPE_CHECKING:
    from pcocc_runtime.templates.template import Resolved

_RANK = "%{vm_rank}"
_KNOWN = "known: %{env:NAME} %{user} %{homedir} %{clusteruser} %{vm_rank}"


def has_rank(value: Any) -> bool:
    """Tell whether the value of a setting contains %{vm_rank}, in whatever text inside it."""
    if isinstance(value, Mapping):
        return any(has_rank(item) for item in value.values())
    if isinstance(value, tuple):
        return any(has_rank(item) for item in value)
    return isinstance(value, str) and _RANK in value


def fill_home(text: str, home: str) -> str:
    """Return a path with a leading `~` replaced; another user's `~name` stays."""
    return home + text[1:] if text == "~" or text.startswith("~/") else text


def typed_path(path: str, directory: str, home: str) -> str:
    """Return a path typed in `directory` as an absolute one, `~` replaced too: the shell leaves TAG=~/x alone."""
    return posixpath.normpath(posixpath.join(directory, fill_home(path, home)))


def fill_pattern(pattern: str, words: Mapping[str, str], home: str | None) -> str:
    """Return a pattern of the site with a person's words filled in; `home` is the account's, None if unknown."""
    known = {name: word for name, word in words.items() if name != "homedir"}
    if home:
        known["homedir"] = home
    text = re.sub(r"%\{([^{}]*)\}", lambda match: known.get(match[1], match[0]), pattern)
    return fill_home(text, home) if home else text


@dataclass(frozen=True, slots=True)
class Filling:
    """Fills in one template's texts for one person, and for one VM when `words` has vm_rank.

    `own_home` is the account's home directory, whatever the environment says; None where it is not known.
    Without `thorough`, checks that take long are left out: the first VMs have had them.
    """

    chosen: Resolved
    words: Mapping[str, str]
    environ: Mapping[str, str]
    directory: str
    own_home: str | None = None
    thorough: bool = True

    def text(self, key: str, text: str, item: Item = None) -> str:
        """Return a text of a setting, or of an entry of it, with `~` and `%{...}` filled in.

        ConfigError when one of them has no meaning here.
        """

        def fill(match: re.Match[str]) -> str:
            return self._word(key, match[1], item)

        return fill_home(re.sub(r"%\{([^{}]*)\}", fill, text), self.words["homedir"])

    def _word(self, key: str, name: str, item: Item) -> str:
        if name in self.words:
            return self.words[name]
        if not name.startswith("env:"):
            raise self.wrong(key, f"%{{{name}}} is not known", _KNOWN, item)
        value = self.environ.get(name[4:])
        if not value:  # an empty one would turn '%{env:NAME}/' into '/'
            message = f"the environment variable {name[4:]} is {'not set' if value is None else 'empty'}"
            raise self.wrong(key, message, f"export {name[4:]}=VALUE and submit again", item)
        return value

    def words_in(self, pattern: str) -> str:
        """Return a pattern of the site with the person's words filled in, but not the person's environment."""
        return fill_pattern(pattern, self.words, self.own_home)

    def path(self, key: str, path: str, item: Item = None) -> str:
        """Return a path of setting `key`, or of an entry of it, filled in; ConfigError unless it is absolute."""
        full = self.text(key, path, item)
        if not full.startswith("/"):
            hint = "begin it with '/', '~/' or '%{homedir}/'"
            raise self.wrong(key, f"{path!r} is not an absolute path", hint, item)
        return full

    def image(self, key: str, text: str, item: Item = None) -> str:
        """Return the name or the absolute path of an image."""
        full = self.text(key, text, item)
        # submit/boot_image.py says what to do with a URL
        if "/" in full and not full.startswith("/") and "://" not in full:
            hint = "begin it with '/' or '~/', or name an image"
            raise self.wrong(key, f"{full!r} is not an absolute path", hint, item)
        return full

    def path_of_text(self, key: str, value: Any, item: Item = None) -> Any:
        """Return a path filled in, and checked to be absolute; a value that is not text stays as it is."""
        return self.path(key, value, item) if isinstance(value, str) else value

    def path_inside(self, key: str, entry: Mapping[str, Any], item: Item = None) -> dict[str, Any]:
        """Return an entry with its path filled in, and checked to be absolute."""
        return {**entry, "path": self.path(key, entry["path"], item)}

    def typed(self, path: str) -> str:
        """Return a path typed on the command line as an absolute one."""
        return typed_path(path, self.directory, self.words["homedir"])

    def wrong(self, key: str, message: str, hint: str, item: Item = None) -> ConfigError:
        """Return the error about a setting, or an entry of it, with the place where it is set."""
        return self.chosen.error(key, message, hint, item)
