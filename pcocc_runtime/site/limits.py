"""What a site lets its users set in templates of their own. Policy, not protection: QEMU runs with the user's own rights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from pcocc_runtime.settings import checks
from pcocc_runtime.settings.checks import Setting
from pcocc_runtime.settings.tree import Node


@dataclass(frozen=True, slots=True)
class Limits:
    """Shell patterns of what is allowed; None allows anything."""

    custom_args: tuple[str, ...] | None = None
    qemu_bin: tuple[str, ...] | None = None
    kernel: tuple[str, ...] | None = None
    host_paths: tuple[str, ...] | None = None


_PATTERNS = checks.list_of(checks.text)
_LIMITS = (
    Setting("custom-args", _PATTERNS),
    Setting("qemu-bin", _PATTERNS),
    Setting("kernel", _PATTERNS),
    Setting("host-paths", _PATTERNS),
)


def parse_limits(node: Node) -> Limits:
    """Return the limits a mapping of pcocc.yaml sets."""
    values = checks.record(_LIMITS)(node)
    return Limits(**{key.replace("-", "_"): value for key, value in values.items()})


def find_refused(texts: Iterable[str], patterns: Sequence[str]) -> str | None:
    """Return the first text that no pattern matches whole; `*` matches any characters, also '/'."""
    return next((text for text in texts if not any(fnmatchcase(text, pattern) for pattern in patterns)), None)


def is_below(path: str, patterns: Sequence[str]) -> bool:
    """Tell whether a path, or a directory it lies in, matches one of the patterns."""
    pure = PurePosixPath(path)
    return any(fnmatchcase(str(one), pattern.rstrip("/") or "/") for one in (pure, *pure.parents) for pattern in patterns)
