"""How the user's own OpenSSH reaches a job's VMs from outside: a configuration, and VM names in command lines."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pcocc_runtime.documents.members import Members

_JOB = r"[0-9]{1,10}(?:[_+][0-9]{1,10})?"
_VM = re.compile(
    rf"(?P<user>[^@:/\[\]]+@)?vm(?P<rank>0|[1-9][0-9]{{0,5}})(?:\.(?P<job>{_JOB}))?(?P<path>:.*)?",
    re.ASCII | re.DOTALL,
)
_WITH_VALUE = "BbcDEeFIiJLlmOoPpQRSWw"  # the options of ssh(1) that take a value


class VmName(NamedTuple):
    """A VM as a user writes it: [USER@]vmN[.JOB][:PATH]; a missing part is empty."""

    user: str
    vm: str
    job: str
    path: str

    def of_job(self, job: int) -> str:
        """Return it with the number of its job, if it has one."""
        return f"{self.user}{self.vm}{f'.{job}' if self.job else ''}{self.path}"


def parse_vm_name(word: str) -> VmName | None:
    """Return the VM that a word of a command line names, None when it names none."""
    found = _VM.fullmatch(word)
    return found and VmName(
        found["user"] or "", f"vm{found['rank']}", found["job"] or "", found["path"] or ""
    )


def parse_ssh_words(words: Sequence[str]) -> int | None:
    """Return the index of the destination among the words of an ssh(1), None when there is none."""
    index = 0
    while index < len(words):
        word = words[index]
        if word == "--":
            return index + 1 if index + 1 < len(words) else None
        if not word.startswith("-") or word == "-":
            return index
        letter = next((at for at, one in enumerate(word) if at and one in _WITH_VALUE), None)
        index += 2 if letter == len(word) - 1 else 1
    return None


def has_own_configuration(words: Iterable[str]) -> bool:
    """Tell whether the options before a destination name a configuration file, which would replace ours."""
    return any(re.fullmatch(r"-[1246AaCfGgKkMNnqsTtVvXxYy]*F.*", word) for word in words)


class LoginPlan(NamedTuple):
    """Where the files of a job's logins are, and the program that is to be the ProxyCommand."""

    job: int
    members: Members
    key: str
    known_hosts: str
    program: str


def render_hosts(plan: LoginPlan) -> str:
    """Return the Host blocks of ssh_config(5) for the VMs of a job: vmN.JOB, and vmN."""
    blocks = []
    for rank in range(plan.members.vms):
        vm = f"vm{rank}"
        lines = [
            f"HostKeyAlias {vm}",
            f"ProxyCommand {_escape(shlex.quote(plan.program))} nc --job={plan.job} {vm} %p",
            f"User {plan.members.find_user(rank)}",
            f"IdentityFile {_quote(plan.key)}",
            "IdentitiesOnly yes",
            f"UserKnownHostsFile {_quote(plan.known_hosts)}",
            "GlobalKnownHostsFile /dev/null",
            "StrictHostKeyChecking accept-new",
            "UpdateHostKeys no",
            "CheckHostIP no",
        ]
        blocks.append(f"Host {vm} {vm}.{plan.job}\n" + "".join(f"    {line}\n" for line in lines))
    return "\n".join(blocks)


def render_config(plan: LoginPlan, others: Iterable[str]) -> str:
    """Return a whole configuration: those blocks, then what `others`, the user's and the host's files, say.

    ssh takes a path to include as a pattern (glob(7)), and newer releases fill in `%`: special characters become `?`.
    """
    included = (re.sub(r'[][%*\\"]', "?", path) for path in others)
    return render_hosts(plan) + "\nMatch all\n" + "".join(f'    Include "{path}"\n' for path in included)


def render_known_hosts(host_keys: str) -> str:
    """Return the content of a known_hosts file for VMs that each have one of the host keys, a line each."""
    return "".join(f"vm* {line}\n" for line in host_keys.splitlines())


def render_inventory(plan: LoginPlan, config: str) -> str:
    """Return an inventory of Ansible's in its INI format."""
    lines = [f"vm{rank}.{plan.job}" for rank in range(plan.members.vms)]
    options = f"-F {shlex.quote(config)}"
    common = f"ansible_ssh_common_args={_ini(options)}\nansible_ssh_transfer_method=piped\nansible_become_method=sudo\n"
    return (
        f"[job_{plan.job}]\n" + "".join(f"{line}\n" for line in lines) + f"\n[job_{plan.job}:vars]\n{common}"
    )


def _quote(path: str) -> str:
    return f'"{_escape(path)}"'


def _escape(text: str) -> str:
    return text.replace("%", "%%")


def _ini(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
