"""`pcocc ssh`, `scp`, `rsync`, `forward`, `ssh-config`, `ansible-inventory`: the user's own OpenSSH into VMs."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from pcocc_runtime import errors, terminal

if TYPE_CHECKING:
    from pcocc_runtime.cli.login import LoginFiles

SSH_FAILED = 255  # ssh's own status for its errors: any other is the command's
_JOB_HELP = "default: the job you are in, or your only one with running VMs"


def add_ssh(parser: argparse.ArgumentParser) -> None:
    """Add the words of `pcocc ssh`."""
    _add_passing(
        parser, "ssh", _ssh, "[OPTION...] [USER@]VM[.JOB] [COMMAND]", "Logs into a VM with your own ssh"
    )


def add_scp(parser: argparse.ArgumentParser) -> None:
    """Add the words of `pcocc scp`."""
    _add_passing(
        parser, "scp", _scp, "[OPTION...] SOURCE... TARGET",
        "Copies files from and to VMs (VM:PATH) with your own scp",
    )


def add_rsync(parser: argparse.ArgumentParser) -> None:
    """Add the words of `pcocc rsync`."""
    _add_passing(
        parser, "rsync", _rsync, "[OPTION...] SOURCE... TARGET",
        "Copies files that differ from and to VMs (VM:PATH) with your own rsync",
    )


def _add_passing(
    parser: argparse.ArgumentParser, name: str, run: Callable[[argparse.Namespace], int], words: str,
    what: str
) -> None:
    parser.description = (
        f"{what}; all its options may follow. The connection is a step of the job: this host needs no"
        " network route to the VM."
    )
    parser.usage = f"pcocc {name} [-h] [-j JOB] {words}"
    parser.add_argument("-j", "--job", metavar="JOB", help=_JOB_HELP)
    parser.add_argument(
        "words", metavar="ARG", nargs=argparse.REMAINDER, help=f"as in {name}(1); a VM is vm0, or vm0.JOB"
    )
    parser.set_defaults(run=run, passes=True)


def add_forward(parser: argparse.ArgumentParser) -> None:
    """Add the words of `pcocc forward`."""
    parser.description = (
        "Forwards a port of this host, for programs on this host only, to a port of the VM, until it is interrupted."
    )
    parser.add_argument("vm", metavar="VM", help="vm0, or vm0.JOB")
    parser.add_argument("ports", metavar="PORTS", help="LOCAL:PORT, or PORT for the same number")
    parser.add_argument("-j", "--job", metavar="JOB", help=_JOB_HELP)
    parser.set_defaults(run=_forward)


def add_ssh_config(parser: argparse.ArgumentParser) -> None:
    """Add the words of `pcocc ssh-config`."""
    parser.description = (
        "Writes Host blocks for the VMs of a job, so that ssh, scp, sftp, rsync and whatever else reads ssh's"
        " configuration reach them as vm0.JOB, and as vm0. They hold as long as the VMs run."
    )
    parser.add_argument("-j", "--job", metavar="JOB", help=_JOB_HELP)
    parser.set_defaults(run=_ssh_config)


def add_ansible_inventory(parser: argparse.ArgumentParser) -> None:
    """Add the words of `pcocc ansible-inventory`."""
    parser.description = "Writes an inventory of a job's VMs for Ansible, in its INI format."
    parser.add_argument("-j", "--job", metavar="JOB", help=_JOB_HELP)
    parser.set_defaults(run=_inventory)


def _ssh(arguments: argparse.Namespace) -> int:
    from pcocc_runtime.guest.login import has_own_configuration, parse_ssh_words, parse_vm_name

    words: list[str] = arguments.words
    index = parse_ssh_words(words)
    if index is None:
        return _usage("a VM is missing: pcocc ssh [OPTION...] [USER@]vm0 [COMMAND]")
    vm = parse_vm_name(words[index])
    if vm is None or vm.path:
        return _usage(f"{words[index][:80]!r} is not a VM: write vm0, or vm0.JOB")
    if has_own_configuration(words[:index]):
        return _usage(
            "-F would replace the configuration that pcocc makes: include what 'pcocc ssh-config' writes"
            " in yours, and use ssh"
        )
    found = _find_login(arguments.job, [vm.job])
    if isinstance(found, int):
        return found
    return _checked(
        found,
        [vm.vm],
        lambda: _become(
            ["ssh", "-F", found.config, *words[:index], vm.of_job(found.job), *words[index + 1 :]]
        ),
    )


def _scp(arguments: argparse.Namespace) -> int:
    return _copy(arguments, lambda found, words: ["scp", "-F", found.config, *words])


def _rsync(arguments: argparse.Namespace) -> int:
    return _copy(
        arguments, lambda found, words: ["rsync", "-e", f"ssh -F {shlex.quote(found.config)}", *words]
    )


def _copy(arguments: argparse.Namespace, plan: Callable[[LoginFiles, Sequence[str]], list[str]]) -> int:
    from pcocc_runtime.guest.login import parse_vm_name

    names = [parse_vm_name(word) for word in arguments.words]
    vms = [one for one in names if one is not None and one.path]
    if not vms:
        return _usage("no VM is named: write one as vm0:PATH")
    found = _find_login(arguments.job, [one.job for one in vms])
    if isinstance(found, int):
        return found
    words = [
        one.of_job(found.job) if one and one.path else word
        for one, word in zip(names, arguments.words, strict=True)
    ]
    return _checked(found, [one.vm for one in vms], lambda: _become(plan(found, words)))


def _forward(arguments: argparse.Namespace) -> int:
    from pcocc_runtime.cli.login import find_vm

    vm = find_vm(arguments.vm)
    local, colon, remote = arguments.ports.partition(":")
    ports = [local, remote if colon else local]
    if not all(port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536 for port in ports):
        raise errors.RequestError(
            f"{arguments.ports!r} is not a pair of ports", "write LOCAL:PORT, such as 8080:80"
        )
    found = _find_login(arguments.job, [vm.job])
    if isinstance(found, int):
        return found
    found.ensure_vm(vm.vm)
    terminal.say_note(
        f"port {ports[0]} of localhost leads to port {ports[1]} of {vm.vm} of job {found.job}, until Ctrl-C"
    )
    options = [
        "-N", "-o", "ExitOnForwardFailure=yes", "-o", "ControlPath=none", "-L",
        f"localhost:{ports[0]}:localhost:{ports[1]}",
    ]
    _become(["ssh", "-F", found.config, *options, vm.vm])


def _ssh_config(arguments: argparse.Namespace) -> int:
    from pcocc_runtime.cli.login import ensure_login, find_job

    sys.stdout.write(ensure_login(find_job(arguments.job)).hosts())
    return 0


def _inventory(arguments: argparse.Namespace) -> int:
    from pcocc_runtime.cli.login import ensure_login, find_job
    from pcocc_runtime.guest.login import render_inventory

    found = ensure_login(find_job(arguments.job))
    sys.stdout.write(render_inventory(found.plan, found.config))
    return 0


def _find_login(job: str | None, named: Sequence[str]) -> LoginFiles | int:
    """Return the files, or the exit status when there are none, which was told."""
    from pcocc_runtime.cli.login import ensure_login, find_job

    try:
        return ensure_login(find_job(job, named))
    except errors.PcoccError as error:
        terminal.say_error(error)
        return SSH_FAILED


def _checked(found: LoginFiles, vms: Sequence[str], go: Callable[[], int]) -> int:
    try:
        for vm in vms:
            found.ensure_vm(vm)
        return go()
    except errors.PcoccError as error:
        terminal.say_error(error)
        return SSH_FAILED


def _usage(text: str) -> int:
    terminal.say(f"pcocc: error: {text}\n")
    return SSH_FAILED


def _become(argv: Sequence[str]) -> NoReturn:
    sys.stdout.flush()
    try:
        os.execvp(argv[0], list(argv))
    except OSError as error:
        raise errors.NodeError(
            f"{argv[0]} cannot be started on this host: {error.strerror}", f"install {argv[0]} here"
        ) from None
