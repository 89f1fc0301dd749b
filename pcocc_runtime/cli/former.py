"""What to write today instead of a command of the original pcocc (0.3 to 0.7) that there is no longer."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from pcocc_runtime.documents.wire_steps import (
    OPTION_IMAGE,
    OPTION_MOUNT,
    OPTION_RESTART,
    OPTION_TEMPLATE,
    OPTION_USER_DATA,
    OPTION_VM,
)  # fmt: skip

_CONTAINERS = "pcocc runs VMs only: run containers in a VM, or with Apptainer on the nodes"
_IN_VMS = "in the job: srun --pcocc-vm=vm0 COMMAND; from elsewhere: pcocc ssh vm0 COMMAND"
FORMER = {
    "alloc": "salloc --pcocc-template=TPL:N",
    "batch": "sbatch --pcocc-template=TPL:N SCRIPT; with --pcocc-vm SCRIPT itself runs in vm0",
    "ckpt": "pcocc checkpoint DIR; --stop ends the VMs then",
    "docker": _CONTAINERS,
    "exec": _IN_VMS,
    "help": "pcocc --help, or man pcocc",
    "internal": "nothing is set up or cleaned up by hand; 'pcocc node check' tells what a node lacks",
    "monitor-cmd": "pcocc monitor vm0 COMMAND",
    "run": f"srun --pcocc-template=TPL:N COMMAND, or in a job: srun --pcocc-vm COMMAND ({_CONTAINERS})",
    "shell": "srun --pcocc-vm=vm0 --pty bash, or from elsewhere: pcocc ssh vm0",
}
_OPTIONS = {
    ("console", "-l"): "pcocc log VM shows what a VM has written",
    ("console", "--log"): "pcocc log VM shows what a VM has written",
    ("display", "-p"): "pcocc display prints a socket where there is no viewer",
    ("save", "-i"): "write --drive I",
    ("save", "--drive-index"): "write --drive I",
    ("save", "-s"): "write --safe",
    ("template", "-v"): "pcocc template show NAME tells all settings",
    ("pcocc", "-v"): "no command has it any longer",
}
# options of `alloc` and `batch` with a value, and those of Slurm's commands that they are now
_FOR_SLURM = {
    "-r": OPTION_RESTART, "--restart-ckpt": OPTION_RESTART, "--user-data": OPTION_USER_DATA, "--mount": OPTION_MOUNT,
    "--image": OPTION_IMAGE,
}  # fmt: skip
_SCRIPTS = ("-b", "--batch-script", "-E", "--host-script", "--alloc-script")


def find_former_command(words: Sequence[str]) -> str | None:
    """Return what to write instead of a command line whose command the original had."""
    if not words or words[0] not in FORMER:
        return None
    line = _for_slurm(words[0], words[1:])
    return f"the original pcocc had that; now write: {line or FORMER[words[0]]}"


def find_former_option(command: str, words: Sequence[str]) -> str | None:
    """Return what to write instead of an option that the original had, of those that are not known."""
    found = [_OPTIONS[place, word] for word in words for place in (command, "pcocc") if (place, word) in _OPTIONS]
    return f"the original pcocc had that; now: {found[0]}" if found else None


def _for_slurm(command: str, words: Sequence[str]) -> str | None:
    """Return a whole line of `alloc` or `batch` as one of Slurm's commands, whose last word are the VMs."""
    if command not in ("alloc", "batch") or not words or words[-1].startswith("-"):
        return None
    argv = ["salloc" if command == "alloc" else "sbatch", f"--{OPTION_TEMPLATE}={words[-1]}"]
    script, rest = list[str](), list(words[:-1])
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name in _FOR_SLURM or name in _SCRIPTS:
            value = value if equals else rest.pop(0) if rest else ""
            in_vm = [f"--{OPTION_VM}"] if name in _SCRIPTS[:2] else []
            script = [value] if name in _SCRIPTS else script
            argv += in_vm if name in _SCRIPTS else [f"--{_FOR_SLURM[name]}={value}"]
        else:
            argv.append(name + equals + value)
    return shlex.join([*argv, *script, *([] if script or command == "alloc" else ["SCRIPT"])])
