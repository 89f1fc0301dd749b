"""Which job a command means, and the private files by which the user's own ssh logs into its VMs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pcocc_runtime import errors
from pcocc_runtime.documents.login import Credentials, decode_credentials, encode_credentials
from pcocc_runtime.documents.verbs import LOGIN_VERB
from pcocc_runtime.guest.login import (
    LoginPlan,
    VmName,
    parse_vm_name,
    render_config,
    render_hosts,
    render_known_hosts,
)
from pcocc_runtime.slurm.commands import list_running, read_settings
from pcocc_runtime.slurm.steps import (
    ask_vm_step,
    ensure_vm_set,
    find_own_job,
    operation_argv,
    run_network_step,
)
from pcocc_runtime.slurm.text import Running
from pcocc_runtime.system import accounts, files, tree_removal

_HOSTS_CONFIG = "/etc/ssh/ssh_config"


class LoginFiles(NamedTuple):
    """The files of a job's logins: `config` is for ssh -F, `hosts` its Host blocks, `login` the job's own."""

    job: int
    directory: Path
    login: Credentials

    @property
    def config(self) -> str:
        """Return the path of the configuration for ssh -F."""
        return str(self.directory / "config")

    @property
    def plan(self) -> LoginPlan:
        """Return what the configuration is made of."""
        return LoginPlan(
            self.job, self.login.members, str(self.directory / "key"), str(self.directory / "known_hosts"),
            program(),
        )

    def hosts(self) -> str:
        """Return the Host blocks."""
        return render_hosts(self.plan)

    def ensure_vm(self, vm: str) -> None:
        """Raise RequestError unless the job has a VM of that name."""
        count = self.login.members.vms
        if int(vm[2:]) >= count:
            raise errors.RequestError(
                f"job {self.job} has no {vm}",
                f"its VMs are vm0 to vm{count - 1}" if count > 1 else "it has vm0 alone",
            )


def program() -> str:
    """Return the path of this command."""
    return str(Path(sys.argv[0]).absolute()) if os.path.basename(sys.argv[0]) == "pcocc" else "pcocc"


def find_job(typed: str | None, named: Sequence[str] = ()) -> str:
    """Return the job that is typed, or named behind a VM, or around us, or the user's only one that has VMs."""
    given = {job for job in (typed, *named) if job}
    if len(given) > 1:
        raise errors.RequestError(
            f"one job at a time, not {' and '.join(sorted(given))}", "for several see 'pcocc ssh-config'"
        )
    if given:
        return given.pop()
    if around := os.environ.get("SLURM_JOB_ID"):
        return around
    every = list_running(accounts.user_name())
    if not every:
        raise errors.RequestError("you have no job with running VMs", "'squeue --me' lists your jobs")
    if len(every) > 1:
        jobs = ", ".join(one.label for one in every[:8]) + (", ..." if len(every) > 8 else "")
        raise errors.RequestError(
            f"which job? VMs of yours run in {len(every)}: {jobs}",
            f"write -j {every[0].label}, or vm0.{every[0].label}",
        )
    return str(every[0].job)


def ensure_login(job: str) -> LoginFiles:
    """Return the files of a job's logins, which are asked of the job when they are not there."""
    running = find_own_job(job)
    base = _base()
    directory = base / running.boot
    try:
        return LoginFiles(running.job, directory, decode_credentials((directory / "login").read_text()))
    except FileNotFoundError:
        pass
    login = _ask(running)
    found = LoginFiles(running.job, directory, login)
    _remove_old(base)
    files.ensure_directory(directory, 0o700)
    files.replace_file(directory / "key", login.key.encode())
    files.replace_file(directory / "known_hosts", render_known_hosts(login.host_key).encode())
    files.replace_file(
        directory / "config", render_config(found.plan, [_users_config(), _HOSTS_CONFIG]).encode()
    )
    files.replace_file(directory / "cluster", _cluster().encode())
    # written last: when it is there, the others are, too
    files.replace_file(directory / "login", encode_credentials(login).encode())
    return found


def _base() -> Path:
    home = os.environ.get("HOME") or accounts.read_account(os.geteuid()).pw_dir
    base = Path(home, ".pcocc", "logins")
    try:
        base.parent.mkdir(mode=0o755, exist_ok=True)
        files.ensure_directory(base, 0o700)
    except OSError as error:
        raise errors.RequestError(
            f"{base}, where the keys of your jobs are kept, cannot be used: {error.strerror}"
        ) from None
    return base


def _users_config() -> str:
    return os.path.expanduser("~/.ssh/config")


def _ask(running: Running) -> Credentials:
    """Ask vm0's node, and where vm0 has ended every node of the job."""
    done = ask_vm_step(operation_argv(running.job, "vm0", [LOGIN_VERB]))
    output, complaint = done.stdout, done.stderr
    if not output:
        output, _complaint = run_network_step(running, [LOGIN_VERB])
    if not output:
        why = next((line for line in complaint.splitlines() if line.strip()), "srun ended without a message")
        raise errors.NodeError(
            f"the ssh key of job {running.job} cannot be fetched: {why.removeprefix('pcocc: error: ')}"
        )
    try:
        return decode_credentials(output.splitlines()[0])
    except ValueError as error:
        raise errors.NodeError(str(error), "check that all nodes have the same version of pcocc") from None


def _cluster() -> str:
    found = re.search(r"(?m)^ClusterName\s*=\s*(\S+)", read_settings())
    return found[1] if found else ""


def _remove_old(base: Path) -> None:
    """Remove what is kept of jobs of this cluster that have no running VMs any more."""
    cluster, alive = _cluster(), {str(one.job) for one in list_running(accounts.user_name())}
    for path in base.iterdir():
        try:
            if path.name.partition(".")[0] not in alive and (path / "cluster").read_text() == cluster:
                tree_removal.remove_tree(path)
        except OSError:
            continue  # another command of the same user removes it, or is about to write it


def find_vm(name: str) -> VmName:
    """Return the VM that a word names; RequestError when it names none."""
    found = parse_vm_name(name)
    if found is None or found.user or found.path:
        raise errors.RequestError(f"{name[:80]!r} is not a VM", "write vm0, or vm0.JOB")
    return found


def find_vms(vms: str, typed: str | None) -> tuple[str, str]:
    """Return the job and the VMs that vm0, vm0.JOB or vm[0-3] stands for; RequestError when it names none."""
    name = parse_vm_name(vms)
    if name is None:
        ensure_vm_set(vms)
        return find_job(typed), vms
    found = find_vm(vms)
    return find_job(typed, [found.job]), found.vm
