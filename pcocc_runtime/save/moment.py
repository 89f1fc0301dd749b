"""A VM that is saved, and the moment of its saved state: file systems are frozen while its disk is put aside."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pcocc_runtime.documents.disks import DISKS_FILE, MAX_DISKS, DiskFacts, decode_disks
from pcocc_runtime.errors import NodeError
from pcocc_runtime.guest.agent import Agent
from pcocc_runtime.progress import Note
from pcocc_runtime.system import regular
from pcocc_runtime.system.saver_connection import SaverConnection


@dataclass(frozen=True, slots=True)
class SavedVm:
    """A VM on this node, and what to call it."""

    name: str
    directory: Path
    facts: DiskFacts = field(compare=False)

    def disk(self, index: int) -> Path:
        """Return the file of a disk."""
        return Path(self.facts.disks[index].path)


def read_vm(name: str, directory: Path) -> SavedVm:
    """Return the VM whose directory this is; NodeError when it is not there."""
    if not directory.is_dir():
        raise NodeError(f"{name} does not run on this node")
    return SavedVm(name, directory, decode_disks(regular.read_start(directory / DISKS_FILE, MAX_DISKS), name))


@contextlib.contextmanager
def on_scratch(vm: SavedVm) -> Iterator[None]:
    """Report a file system's error in the block as one of scratch: otherwise the repository would be blamed."""
    try:
        yield
    except OSError as error:
        scratch = vm.facts.scratch
        raise NodeError(
            f"{vm.name} cannot be saved without some room in the job's scratch directory {scratch}: {error.strerror}",
            f"see 'df {scratch}' on the VM's node, and free some there",
        ) from None


@contextlib.contextmanager
def frozen(vm: SavedVm, link: SaverConnection, safe: bool, note: Note) -> Iterator[None]:
    """Have the guest's file systems frozen during the block, if its agent can; with `safe`, NodeError if not."""
    try:
        agent = open_agent(vm, link)
    except NodeError as error:
        if safe:
            raise NodeError(f"the file systems of {vm.name} cannot be frozen: {error}", _AGENT_HINT) from None
        note(
            f"the file systems of {vm.name} were not frozen, so what its programs had not yet written to disk"
            f" is not saved: {error}"
        )
        yield
        return
    with agent:
        link.tell_frozen(True)
        count = thawed = 0
        try:
            try:
                count = agent.freeze()
            except NodeError as error:
                if safe:
                    raise NodeError(
                        f"the file systems of {vm.name} cannot be frozen: {error}", _AGENT_HINT
                    ) from None
                note(f"the file systems of {vm.name} were not frozen: {error}")
            yield
        finally:
            thawed = thaw(vm, agent)
            link.tell_frozen(False)
        if count and not thawed:
            reason = f"the file systems of {vm.name} were thawed by another program before the disk was saved"
            if safe:
                raise NodeError(reason, "try again")
            note(reason)


def thaw(vm: SavedVm, agent: Agent) -> int:
    """Have the guest's file systems thawed; return how many were frozen."""
    try:
        return agent.thaw()
    except NodeError as error:
        # our connection ends while `Frozen` holds, so that the keeper asks the agent again
        raise NodeError(
            f"the file systems of {vm.name} may still be frozen, and nothing was saved: {error}",
            "they are thawed as soon as the agent answers; 'fsfreeze --unfreeze' in the guest does it at"
            " once",
        ) from None


_AGENT_HINT = (
    "install qemu-guest-agent in the image, and have it run; without --safe the disk is saved as it would be"
    " after a power failure"
)


def open_agent(vm: SavedVm, link: SaverConnection) -> Agent:
    """Return a connection to the guest's agent; NodeError when it does not answer."""
    ports = {one["label"]: one["frontend-open"] for one in link.command("query-chardev")}
    if not ports.get("agent"):
        raise NodeError("its guest runs no agent")
    return Agent(str(vm.directory / "agent"))
