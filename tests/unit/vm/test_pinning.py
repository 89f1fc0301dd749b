"""A VM with devices of the host pins its memory: the launcher says when it may not."""

import resource
from dataclasses import replace

import pytest

from pcocc_runtime.errors import NodeError
from pcocc_runtime.vm.launcher import ensure_pinnable
from tests.unit.qemu.plans import PLAN

WITH = replace(PLAN, functions=("0000:81:00.2",))


def limits(monkeypatch: pytest.MonkeyPatch, most: int) -> list[tuple[int, tuple[int, int]]]:
    """Have the hard limit be `most`; return what is set."""
    found: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (8 << 20, most))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, both: found.append((kind, both)))
    return found


@pytest.mark.parametrize("most", [resource.RLIM_INFINITY, PLAN.memory << 20])
def test_what_slurmd_lets_is_used(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    found = limits(monkeypatch, most)
    ensure_pinnable(PLAN)
    assert found == []
    ensure_pinnable(WITH)
    assert found == [(resource.RLIMIT_MEMLOCK, (most, most))]


def test_too_little_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = limits(monkeypatch, (PLAN.memory << 20) - 1)
    with pytest.raises(
        NodeError, match="a VM with devices must pin 300 MiB of memory, but this node allows 299 MiB"
    ):
        ensure_pinnable(WITH)
    ensure_pinnable(PLAN)
    assert found == []
