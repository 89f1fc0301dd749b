"""Which variables a command in a guest gets: the guest has its own environment, and a task's is about its node.

Passed on are variables of Slurm and pcocc, those that prolog scripts have changed, and those named by `--export`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from pcocc_runtime.documents import wire, wire_steps
from pcocc_runtime.documents.record import Record
from pcocc_runtime.documents.vm_state import TOKEN

_PASSED = ("SLURM_", "SLURMD_", "PCOCC_")
_KEPT_BACK = (
    "SLURM_SPANK_", "SLURM_RLIMIT_", "SLURM_PCOCC_", wire.ENV_TAP_FDS, wire.ENV_PROBE_FD, wire.ENV_BOOT,
)
HOST_ONLY = frozenset(
    [
        "SLURM_CONF",
        "SLURM_SRUN_COMM_HOST",
        "SLURM_SRUN_COMM_PORT",
        "SLURM_STEP_LAUNCHER_PORT",
        "SLURM_LAUNCH_NODE_IPADDR",
        "SLURM_WORKING_CLUSTER",
        "SLURM_PTY_PORT",
        "SLURM_PTY_WIN_COL",
        "SLURM_PTY_WIN_ROW",
        "SLURM_TASK_PID",
        "SLURM_CPU_BIND",
        "SLURM_CPU_BIND_LIST",
        "SLURM_CPU_BIND_TYPE",
        "SLURM_CPU_BIND_VERBOSE",
        "SLURM_UMASK",
        "SLURM_PRIO_PROCESS",
        "SLURM_TOPOLOGY_ADDR",
        "SLURM_TOPOLOGY_ADDR_PATTERN",
        "SLURM_OOM_KILL_STEP",
        wire_steps.VAR_TEMPLATE,
        wire_steps.VAR_IMAGE,
        wire_steps.VAR_MOUNT,
        wire_steps.VAR_USER_DATA,
        wire_steps.VAR_USER_DATA_FORCE,
        wire_steps.VAR_RESTART,
        wire_steps.VAR_CHECKPOINT,
        wire_steps.VAR_VM,
        TOKEN,
    ]
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_NO_LIMIT = str(2**64 - 1)  # as Slurm writes RLIM_INFINITY
_USERS = "U"  # Slurm writes this before a limit that --propagate names (slurmstepd/ulimits.c)


class GuestEnvironment(Record):
    """What a guest's command gets: variables, defaults where the guest has none, names removed, and soft limits."""

    settings: dict[str, str]
    defaults: dict[str, str]
    removed: tuple[str, ...]
    limits: dict[str, str]  # by Slurm's names, such as STACK: bytes or a number, or `unlimited`


def plan_environment(
    before: Mapping[str, str], now: Mapping[str, str], export: str | None
) -> GuestEnvironment:
    """Return what a task's command gets.

    `before` and `now` are the task's environment before and after prolog scripts, `export` srun's --export.
    """
    named = set(_split_export(export or ""))
    changed = find_changes(before, now)
    settings = {
        name: value
        for name, value in now.items()
        if _may_pass(name) and name.startswith(_PASSED) and name not in HOST_ONLY
    }
    settings |= {
        name: value for name, value in now.items() if _may_pass(name) and (name in named or name in changed)
    }
    others = {
        name: value
        for name, value in now.items()
        if _may_pass(name) and name not in settings and not _is_nodes(name)
    }
    return GuestEnvironment(
        settings,
        others if "all" in {name.lower() for name in named} else {},
        tuple(name for name in before if name not in now and _may_pass(name)),
        {
            name.removeprefix("SLURM_RLIMIT_"): _limit(value.removeprefix(_USERS))
            for name, value in before.items()
            if name.startswith("SLURM_RLIMIT_") and value.startswith(_USERS)
        },
    )


def find_changes(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that have another value now than before."""
    return {name: value for name, value in now.items() if before.get(name) != value}


def plan_batch_environment(
    environment: GuestEnvironment, script: Mapping[str, str], removed: Sequence[str],
    changed: Mapping[str, str]
) -> GuestEnvironment:
    """Return what a batch script in a guest gets: its own Slurm variables, `script`, instead of its step's.

    `removed` names variables that prolog scripts took from it; `changed` are those that the step's have changed.
    """
    others = {
        name: value
        for name, value in environment.settings.items()
        if not name.startswith("SLURM_") or name in changed
    }
    return environment._replace(settings={**script, **others}, removed=(*removed, *environment.removed))


def _may_pass(name: str) -> bool:
    return bool(_NAME.fullmatch(name)) and not name.startswith(_KEPT_BACK) and name != TOKEN


def _is_nodes(name: str) -> bool:
    return name in HOST_ONLY or name.startswith("PMI")  # MPI's way to its slurmstepd


def _split_export(text: str) -> Iterator[str]:
    """Yield the names in a text such as A,B=1,"C=2,3",ALL: commas in quotes do not count (env.c, find_quote_token)."""
    for word in re.findall(r"""(?:[^,"']|"[^"]*"|'[^']*'|["'])+""", text):
        yield word.strip("\"'").partition("=")[0]


def _limit(value: str) -> str:
    return "unlimited" if value == _NO_LIMIT else value
