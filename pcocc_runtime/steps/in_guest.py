"""A few lines of shell in a guest, on behalf of an operation: over the connection that the VM's keeper holds to it."""

from __future__ import annotations

import subprocess
from typing import NamedTuple

from pcocc_runtime.documents.login import KEY_FILE
from pcocc_runtime.errors import NodeError
from pcocc_runtime.guest.script import render_as_root
from pcocc_runtime.guest.ssh import ssh_argv
from pcocc_runtime.steps.reaching import AttachError, KeeperLine, StepVm, job_directory, meet_keeper
from pcocc_runtime.steps.session import read_cluster

_LET_IN_SECONDS = 20.0
_OPTIONS = ("ControlMaster=no", "ProxyCommand=false", "LogLevel=ERROR")  # over it, or not at all
_LOST = 255  # ssh's own exit status


class CannotEnter(NodeError):
    """The guest could not be told anything."""


class Said(NamedTuple):
    """The exit status of what was run in a guest, and the last line of what it wrote."""

    status: int
    line: str


def run_in_guest(vm: str, text: str, seconds: float) -> Said:
    """Run a text for sh, with root's rights if the user has them there; CannotEnter when the guest lets nobody in."""
    try:
        target = StepVm(vm, read_cluster(vm), job_directory())
    except AttachError as error:
        raise CannotEnter(str(error).partition("\n")[0].removeprefix("pcocc: error: ")) from None
    if (line := meet_keeper(target)) is None:
        raise CannotEnter(f"{vm} has no keeper any more")
    with line.connection:
        return _run(target, line, text, seconds)


def _run(vm: StepVm, line: KeeperLine, text: str, seconds: float) -> Said:
    if not line.speaks(_LET_IN_SECONDS) or not line.is_up():
        raise CannotEnter(f"the guest of {vm.name} has let nobody in within {_LET_IN_SECONDS:g} s")
    key = f"{vm.job_directory}/{KEY_FILE}"
    argv = ssh_argv(
        vm.user, vm.address, key, f"{vm.directory}/ssh.log", f"{vm.directory}/ssh", _OPTIONS, (render_as_root(),)
    )
    try:
        done = subprocess.run(
            argv, input=text, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace",
            timeout=seconds, check=False
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise CannotEnter(f"the guest of {vm.name} has not answered within {seconds:g} s") from None
    except OSError as error:
        raise CannotEnter(f"ssh cannot be started on the node of {vm.name}: {error.strerror}") from None
    if done.returncode == _LOST:
        raise CannotEnter(f"the connection to the guest of {vm.name} was lost")
    line.tell_done()
    said = "".join(char if char.isprintable() or char == "\n" else "?" for char in done.stdout)
    return Said(done.returncode, (said.strip().splitlines() or [""])[-1][:200])
