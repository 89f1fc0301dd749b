"""YAML text to a tree whose every node knows its file, line and key path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from pcocc_runtime.errors import ConfigError

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C parser is ten times as fast
_PLAIN_TEXT = "tag:yaml.org,2002:str"


@dataclass(frozen=True, slots=True)
class Node:
    """A value of a YAML file; `value` is a scalar, a tuple of Nodes, or a dict of Nodes; `raw` a scalar's own text."""

    value: Any
    file: str
    line: int
    path: str
    raw: str = ""

    def error(self, message: str, hint: str | None = None) -> ConfigError:
        """Return the error that points here."""
        return ConfigError(message, self.file, self.line, self.path or None, hint)

    def plain(self) -> Any:
        """Return the value without the places, as YAML's own loaders do."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, tuple):
            return [node.plain() for node in self.value]
        return self.value


def parse(text: str, file: str) -> Node:
    """Return the tree of a YAML document, an empty one as an empty mapping; ConfigError when it is not YAML."""
    try:
        loader = _Loader(text)
    except yaml.YAMLError as error:
        raise _syntax_error(error, file) from error
    try:
        root = loader.get_single_node()
        if root is None:
            return Node({}, file, 1, "")
        return _Converter(loader, file).convert(root, "", _line(root))
    except yaml.YAMLError as error:
        raise _syntax_error(error, file) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not valid YAML: {error}", file) from error
    finally:
        loader.dispose()


class _Converter:
    """Turns composed YAML nodes into Nodes; one shared by aliases is converted once, so that they cannot explode."""

    def __init__(self, loader: Any, file: str) -> None:
        self._loader = loader
        self._file = file
        self._done: dict[int, Any] = {}
        self._open: set[int] = set()

    def convert(self, node: Any, path: str, line: int) -> Node:
        if isinstance(node, yaml.ScalarNode):
            return Node(self._scalar(node), self._file, line, path, node.value)
        if id(node) in self._open:
            raise ConfigError("a value contains itself", self._file, line, path or None)
        if id(node) not in self._done:
            self._open.add(id(node))
            self._done[id(node)] = self._collection(node, path)
            self._open.remove(id(node))
        return Node(self._done[id(node)], self._file, line, path)

    def _scalar(self, node: Any) -> Any:
        return node.value if node.tag == _PLAIN_TEXT else self._loader.construct_object(node)

    def _collection(self, node: Any, path: str) -> Any:
        if isinstance(node, yaml.SequenceNode):
            return tuple(self.convert(item, f"{path}[{index}]", _line(item)) for index, item in enumerate(node.value))
        self._refuse_repeated(node, path)
        self._loader.flatten_mapping(node)  # the `<<` keys
        return {
            key.value: self.convert(value, f"{path}.{key.value}" if path else key.value, _line(key))
            for key, value in node.value
        }

    def _refuse_repeated(self, node: Any, path: str) -> None:
        seen: dict[str, int] = {}
        for key, _value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError("a list or mapping cannot be a key", self._file, _line(key), path or None)
            if key.value in seen:
                where = f"{path}.{key.value}" if path else key.value
                raise ConfigError(f"set twice, first in line {seen[key.value]}", self._file, _line(key), where)
            seen[key.value] = _line(key)


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1


def _syntax_error(error: Any, file: str) -> ConfigError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    hint = "indent with spaces, put a space after each colon, and quote text that holds ':', '#', '{' or '%'"
    return ConfigError(f"not valid YAML: {problem}", file, mark.line + 1 if mark else None, hint=hint)
