"""Values that name what Slurm calls generic resources, and how many of each."""

from __future__ import annotations

from collections.abc import Iterable

from pcocc_runtime.settings import checks
from pcocc_runtime.settings.tree import Node

MOST_DEVICES = 16  # of one GRES, of a VM

gres = checks.pattern(
    r"[A-Za-z]\w{0,31}(:[A-Za-z0-9_.-]{1,63})?", "the name of a GRES such as nic, or nic:mlx5 with a type"
)
_COUNT = checks.integer(1, MOST_DEVICES)


def gres_counts(node: Node) -> tuple[tuple[str, int], ...]:
    """Check for a list of names of GRES, of each of which there is one, or a mapping of such names to numbers."""
    if isinstance(node.value, dict):
        names = checks.gather(gres, [Node(key, one.file, one.line, one.path, key) for key, one in node.value.items()])
        return tuple(zip(names, checks.gather(_COUNT, node.value.values()), strict=True))
    names = checks.list_of(gres)(node)
    for place, name in enumerate(names):
        if name in names[:place]:
            raise node.value[place].error(f"{name} is listed twice", f"write a mapping: {{{name}: 2}}")
    return tuple((name, 1) for name in names)


def render_gres_counts(counts: Iterable[tuple[str, int]]) -> str:
    """Return how many of which GRES there are, as Slurm's --gres has it."""
    return ",".join(f"{name}:{count}" for name, count in counts)
