"""YAML text to a tree whose every node knows its file, line and key path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from pcocc_runtime.errors import ConfigError

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C parser is ten times as fast
_PLAIN_TEXT = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"
_MAX_DEPTH = 100
_MAX_SIZE = 1_000_000  # characters that aliases may add to a document
_MAX_MERGED = 100_000  # settings that `<<` keys may copy
_SAFE_DEPTH = 2000  # the C parser recurses on the C stack: ten times this depth ends the process
_SCALAR_ERRORS = (yaml.YAMLError, ValueError, ArithmeticError, LookupError, AttributeError, TypeError)


class TooMuch(ConfigError):
    """A document that would take the memory or the stack of whoever reads it."""


@dataclass(frozen=True, slots=True)
class Node:
    """A value of a YAML file: a scalar, whose own text is `raw`, a tuple of Nodes, or a dict of Nodes."""

    value: Any
    file: str
    line: int
    path: str
    raw: str = ""
    size: int = 1  # characters, aliases written out
    depth: int = 0

    def error(self, message: str, hint: str | None = None) -> ConfigError:
        """Return the error that points here."""
        return ConfigError(message, self.file, self.line, self.path or None, hint)

    def at(self, keys: Sequence[str | int]) -> Node:
        """Return the value that keys and numbers lead to, or else where it would stand."""
        if not keys:
            return self
        key, *rest = keys
        path = f"{self.path}[{key}]" if isinstance(key, int) else f"{self.path}.{key}".removeprefix(".")
        items = dict(enumerate(self.value)) if isinstance(self.value, tuple) else self.value
        found = items.get(key) if isinstance(items, dict) else None
        return (found or Node(None, self.file, self.line, path)).at(rest)

    def plain(self) -> Any:
        """Return the value without the places, as YAML's own loaders do."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, tuple):
            return [node.plain() for node in self.value]
        return self.value


def parse_yaml(text: str, file: str, problems: list[ConfigError] | None = None) -> Node:
    """Return the tree of a YAML document, an empty one as an empty mapping; ConfigError when it is not YAML.

    Wrong values are left out and reported in `problems`; without such a list the first error is raised.
    """
    wrong: list[ConfigError] = []
    try:
        _refuse_deep(text, file)
        loader = _Loader(text)
    except (yaml.YAMLError, UnicodeEncodeError) as error:  # the latter for half a surrogate pair
        raise _syntax_error(error, text, file) from error
    try:
        root = loader.get_single_node()
        tree = _Converter(loader, file, len(text), wrong).convert(root, "", _line(root)) if root else None
    except yaml.YAMLError as error:
        raise _syntax_error(error, text, file) from error
    finally:
        loader.dispose()
    if problems is None and wrong:
        raise wrong[0]
    if problems is not None:
        problems += wrong
    return tree or Node({}, file, 1, "")


def _refuse_deep(text: str, file: str) -> None:
    """Raise TooMuch for a text that could exhaust the C stack; the converter finds all others that are too deep."""
    most = text.count("[") + text.count("{") + 2 * max(map(len, text.splitlines()), default=0)
    if most <= _SAFE_DEPTH:
        return
    depth = 0
    for event in yaml.parse(text, _Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise _too_deep(file, _line(event))


class _Converter:
    """Turns composed YAML nodes into Nodes; a value that aliases share is converted once, so the tree cannot explode.

    A wrong value becomes None, and the reason is added to `problems`.
    """

    def __init__(self, loader: Any, file: str, length: int, problems: list[ConfigError]) -> None:
        self._loader = loader
        self._file = file
        self._most = _MAX_SIZE + 2 * length
        self._problems = problems
        self._done: dict[int, Node] = {}
        self._pairs: dict[int, dict[str, tuple[Any, Any]]] = {}
        self._copied = 0
        self._open: set[int] = set()

    def convert(self, node: Any, path: str, line: int) -> Node | None:
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path, line)
        if id(node) not in self._done:
            if not self._enter(node, path, line):
                return None
            self._done[id(node)] = self._collection(node, path, line)
            self._open.remove(id(node))
        done = self._done[id(node)]
        return Node(done.value, self._file, line, path, "", done.size, done.depth)

    def _enter(self, node: Any, path: str, line: int) -> bool:
        """Begin with a list or mapping; False when it is inside itself."""
        if id(node) in self._open:
            self._add("a value contains itself", line, path)
            return False
        self._open.add(id(node))
        self._refuse_too_deep(len(self._open), line)
        return True

    def _scalar(self, node: Any, path: str, line: int) -> Node | None:
        value, reason = node.value, ""
        if node.tag != _PLAIN_TEXT:
            try:
                value = self._loader.construct_object(node)
            except _SCALAR_ERRORS as error:
                value, reason = [], f": {error}".partition(";")[0] if type(error) is ValueError else ""
        if isinstance(value, list | dict | set):  # a tag such as !!set turns a word into one of these
            kind = node.tag.removeprefix("tag:yaml.org,2002:")
            message = f"{node.value[:60]!r} is not a valid {kind}{reason}"
            self._add(message, line, path, "put it in quotes if it is text")
            return None
        return Node(value, self._file, line, path, node.value, len(node.value) + 1)

    def _collection(self, node: Any, path: str, line: int) -> Node:
        value: Any
        if isinstance(node, yaml.SequenceNode):
            items = enumerate(node.value)
            found = [self.convert(item, f"{path}[{index}]", _line(item)) for index, item in items]
            children = [one for one in found if one is not None]
            value, names = tuple(children), 0
        else:
            value = {}
            for name, (key, item) in self._read_pairs(node, path).items():
                if (child := self.convert(item, f"{path}.{name}" if path else name, _line(key))) is not None:
                    value[name] = child
            children, names = list(value.values()), sum(map(len, value))
        size = names + sum(one.size for one in children) + 1
        depth = max((one.depth for one in children), default=0) + 1
        self._refuse_too_deep(depth, line)
        if size > self._most:
            message = "aliases make this too large to be read"
            raise TooMuch(message, self._file, line, path or None, _WRITE_OUT)
        return Node(value, self._file, line, path, "", size, depth)

    def _read_pairs(self, node: Any, path: str) -> dict[str, tuple[Any, Any]]:
        """Return the keys and values of a mapping and of its `<<` key; when a key is repeated, the last counts."""
        if id(node) in self._pairs:
            return self._pairs[id(node)]
        own: dict[str, tuple[Any, Any]] = {}
        added: dict[str, tuple[Any, Any]] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._add("a list or mapping cannot be a key", _line(key), path)
                continue
            if key.value in own:
                where = f"{path}.{key.value}" if path else key.value
                self._add(f"set twice, first in line {_line(own[key.value][0])}", _line(key), where)
            own[key.value] = key, value
            if key.tag == _MERGE:
                added = self._read_added(value, path, _line(key))
        merge = own.get("<<")
        if merge and merge[0].tag == _MERGE:
            del own["<<"]
        self._pairs[id(node)] = {**added, **own}
        return self._pairs[id(node)]

    def _read_added(self, value: Any, path: str, line: int) -> dict[str, tuple[Any, Any]]:
        """Return the settings that a `<<` key adds; where several of its mappings set a key, the first counts."""
        added: dict[str, tuple[Any, Any]] = {}
        for one in reversed(value.value if isinstance(value, yaml.SequenceNode) else [value]):
            if not isinstance(one, yaml.MappingNode):
                self._add("'<<' takes a mapping or a list of mappings", line, path)
            elif self._enter(one, path, line):
                added.update(self._read_pairs(one, path))
                self._open.remove(id(one))
                self._copied += len(added)
        if self._copied > _MAX_MERGED:
            message = f"'<<' keys copy more than {_MAX_MERGED} settings"
            raise TooMuch(message, self._file, line, path or None, _WRITE_OUT)
        return added

    def _refuse_too_deep(self, depth: int, line: int) -> None:
        if depth > _MAX_DEPTH:
            raise _too_deep(self._file, line)

    def _add(self, message: str, line: int, path: str, hint: str | None = None) -> None:
        self._problems.append(ConfigError(message, self._file, line, path or None, hint))


_WRITE_OUT = "write out what is needed"


def _too_deep(file: str, line: int) -> TooMuch:
    return TooMuch(f"lists and mappings are nested more than {_MAX_DEPTH} levels deep", file, line)


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1


def _syntax_error(error: Any, text: str, file: str) -> ConfigError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    line = mark.line + 1 if mark else None
    if isinstance(error, yaml.reader.ReaderError):
        line = text.encode()[: error.position].count(b"\n") + 1
    if isinstance(error, UnicodeEncodeError):
        line = text.count("\n", 0, error.start) + 1
    hint = "indent with spaces, put a space after each colon, and quote text that holds ':', '#', '{' or '%'"
    return ConfigError(f"not valid YAML: {problem}", file, line, hint=hint)
