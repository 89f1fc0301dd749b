"""cluster.json: a job's virtual cluster as steps on one node must know it; that node's launchers write it."""

from __future__ import annotations

import json

from pcocc_runtime.documents.record import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from typing import Any

MEMBERS_FILE = "cluster.json"


class Members(Record):
    """All VMs of a job.

    `networks` are those that VMs are reached by (documents/reach.py), `ports` the ports of this node that
    lead to its VMs: (rank, port of the VM, port of the node). `users` are those that commands run as: (number
    of VMs, name), in the order of the ranks. `nodes` have their VMs' ranks; `boot_timeout` is in seconds.
    """

    networks: tuple[tuple[str, tuple[tuple[int, int], ...]], ...]
    ports: tuple[tuple[int, int, int], ...]
    users: tuple[tuple[int, str], ...]
    vms: int
    nodes: tuple[tuple[str, tuple[int, ...]], ...]
    boot_timeout: int

    def find_node(self, rank: int) -> str | None:
        """Return the node of a VM, None when there is no such VM."""
        return next((name for name, ranks in self.nodes if rank in ranks), None)

    def find_user(self, rank: int) -> str | None:
        """Return the guest's user that commands in a VM run as, None when there is no such VM."""
        for count, name in self.users:
            if rank < count:
                return name
            rank -= count
        return None


def encode_members(members: Members) -> bytes:
    """Return the content of the file."""
    return json.dumps(members._asdict()).encode()


def decode_members(text: str) -> Members:
    """Return what `encode_members` has encoded; ValueError with a sentence when it is not that."""
    try:
        tree = json.loads(text)
        return Members(
            tuple(
                (_prefix(prefix), tuple((_number(first), _number(last)) for first, last in every))
                for prefix, every in tree["networks"]
            ),
            tuple(
                (_number(rank), _number(inside), _number(outside)) for rank, inside, outside in tree["ports"]
            ),
            tuple((_number(count), _text(name)) for count, name in tree["users"]), _number(tree["vms"]),
            tuple((_text(name), tuple(map(_number, ranks))) for name, ranks in tree["nodes"]),
            _number(tree["boot_timeout"]),
        )
    except KeyError as error:
        why = f"{error.args[0]} is missing"
    except (ValueError, TypeError, RecursionError) as error:
        why = str(error)
    raise ValueError(f"{MEMBERS_FILE} of the job on this node cannot be read: {why}")


def _number(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{str(value)[:40]!r} is not a number")
    return value


def _prefix(value: Any) -> str:
    parts = _text(value).partition("/")[0].split(".")
    if len(parts) != 4 or not all(
        part.isascii() and part.isdigit() and len(part) < 4 and int(part) < 256 for part in parts
    ):
        raise ValueError(f"{value[:40]!r} is not an IPv4 prefix")
    return _text(value)


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError(f"{str(value)[:40]!r} is not text")
    return value
