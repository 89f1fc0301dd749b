"""What a site lets users set in templates of their own: policy, not protection, for QEMU has the user's rights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from pcocc_runtime.settings import checks
from pcocc_runtime.settings.checks import Problems, Setting
from pcocc_runtime.settings.tree import Node

_PATTERNS = checks.list_of(checks.text)


@dataclass(frozen=True, slots=True)
class Limits:
    """The mapping of users-may-set: shell patterns of what is allowed, by key; without it, all is allowed."""

    node: Node | None = None

    def patterns(self, key: str) -> tuple[str, ...] | None:
        """Return what a key allows, None for anything."""
        found: Node | None = self.node.value.get(key) if self.node else None
        return None if found is None else tuple(_PATTERNS(found))


def parse_limits(node: Node) -> Limits:
    """Return the limits of pcocc.yaml unchecked: root reads the file too, without knowing settings of templates."""
    if not isinstance(node.value, dict):
        raise checks.mismatch(node, "a mapping")
    return Limits(node)


def check_limits(limits: Limits, known: Sequence[str], problems: Problems) -> None:
    """Add to `problems` what is wrong inside; `known` are the keys there can be."""
    if limits.node:
        checks.read_mapping(limits.node, [Setting(key, _PATTERNS) for key in known], problems)


def is_among(text: str, patterns: Sequence[str]) -> bool:
    """Tell whether a pattern matches a text as a whole; `*` matches any characters, also '/'."""
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def is_below(path: str, patterns: Sequence[str]) -> bool:
    """Tell whether a path, or a directory it lies in, matches one of the patterns."""
    pure, patterns = PurePosixPath(path), [pattern.rstrip("/") or "/" for pattern in patterns]
    return any(fnmatchcase(str(one), pattern) for one in (pure, *pure.parents) for pattern in patterns)
