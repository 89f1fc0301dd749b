"""Operations on VMs, which are commands that begin with '@': a row of the table here, and a module, make one."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from pcocc_runtime import errors
from pcocc_runtime.documents.verbs import (
    AGENT_VERB,
    BATCH_VERB,
    CHECKPOINT_VERB,
    CONSOLE_VERB,
    DISK_VERB,
    DISPLAY_VERB,
    DUMP_VERB,
    LOG_VERB,
    LOGIN_VERB,
    MONITOR_VERB,
    MOUNT_VERB,
    NC_VERB,
    NETWORK_VERB,
    POWER_VERB,
    QMP_VERB,
    RESET_VERB,
    SAVE_VERB,
    SCREENSHOT_VERB,
    TOPOLOGY_VERB,
)
from pcocc_runtime.documents.wire import ENV_STEP_INSIDE, ENV_VM_NAME


class Operation(NamedTuple):
    """Where an operation runs, and the module that does it, by `check_words`, which may refuse, and `operate`.

    `inside`: in the job's network namespace, not the node's own network. `on_node`: on the VM's node, not on any.
    `reads`: it gets srun's input, and its output is passed on byte by byte. `of_job`: it is about the job, not a VM.
    """

    module: str
    inside: bool = False
    on_node: bool = False
    reads: bool = False
    of_job: bool = False


OPERATIONS = {
    AGENT_VERB: Operation("pcocc_runtime.steps.agent", on_node=True),
    BATCH_VERB: Operation("pcocc_runtime.steps.batch", inside=True, of_job=True),
    CHECKPOINT_VERB: Operation("pcocc_runtime.steps.checkpoint", on_node=True, reads=True),
    CONSOLE_VERB: Operation("pcocc_runtime.steps.console", on_node=True, reads=True),
    DISK_VERB: Operation("pcocc_runtime.steps.disk", on_node=True),
    DISPLAY_VERB: Operation("pcocc_runtime.steps.display", on_node=True, reads=True),
    DUMP_VERB: Operation("pcocc_runtime.steps.dump", on_node=True),
    LOG_VERB: Operation("pcocc_runtime.steps.log", on_node=True),
    LOGIN_VERB: Operation("pcocc_runtime.steps.login", of_job=True),
    MONITOR_VERB: Operation("pcocc_runtime.steps.monitor", on_node=True, reads=True),
    MOUNT_VERB: Operation("pcocc_runtime.steps.mount", on_node=True),
    NC_VERB: Operation("pcocc_runtime.steps.nc", inside=True, reads=True),
    NETWORK_VERB: Operation("pcocc_runtime.observe.node_task", inside=True, of_job=True),
    POWER_VERB: Operation("pcocc_runtime.steps.power", on_node=True),
    QMP_VERB: Operation("pcocc_runtime.steps.qmp", on_node=True),
    RESET_VERB: Operation("pcocc_runtime.steps.reset", on_node=True),
    SAVE_VERB: Operation("pcocc_runtime.save.task", on_node=True),
    SCREENSHOT_VERB: Operation("pcocc_runtime.steps.screenshot", on_node=True, reads=True),
    TOPOLOGY_VERB: Operation("pcocc_runtime.steps.topology", on_node=True),
}


def ensure_words(argv: Sequence[str]) -> None:
    """Raise RequestError when the operation that `argv` begins with refuses its words, before a job is asked."""
    module: Any = importlib.import_module(OPERATIONS[argv[0]].module)
    os.environ.pop("SLURM_STEP_NUM_TASKS", None)  # of the step around us, if any: not of the one that we shall start
    module.check_words(argv[1:])


def run_operation(argv: Sequence[str]) -> int:
    """Run, as the task, the operation that `argv` begins with; return the task's exit status."""
    verb, vm = argv[0], os.environ.get(ENV_VM_NAME, "")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda number, _frame: _stop(verb, vm, number))
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        return _run(verb, argv[1:], vm)
    except errors.PcoccError as error:
        sys.stderr.write(errors.render(error) + "\n")
    except OSError as error:
        sys.stderr.write(f"pcocc: error: {verb} of {vm} failed: {errors.one_line(str(error))}\n")
    except Exception as error:  # the outermost layer
        from pcocc_runtime import terminal

        sys.stderr.write(errors.render(terminal.confess(error)) + "\n")
    return errors.EXIT_FAILURE


def _stop(verb: str, vm: str, number: int) -> NoReturn:
    sys.stderr.write(f"pcocc: {verb} of {vm} was interrupted\n")
    raise SystemExit(128 + number)


def _run(verb: str, words: Sequence[str], vm: str) -> int:
    if verb not in OPERATIONS:
        known = f"the operations are {', '.join(OPERATIONS)}; run a program of that name by its path"
        raise errors.RequestError(f"{verb} is not a VM operation", known)
    operation = OPERATIONS[verb]
    module: Any = importlib.import_module(operation.module)
    job = int(os.environ["SLURM_JOB_ID"])
    wanted = module.check_words(words)  # before it moves: the step that it moves to has one task
    _move(operation, job, vm, [verb, *words])
    if operation.of_job:
        return int(module.operate(job, vm, wanted))
    return _operate(module, job, vm, wanted)


def _operate(module: Any, job: int, vm: str, wanted: Any) -> int:
    """Operate on a VM; if it fails because the VM does not run, that is what is said, in the same words for all."""
    from pcocc_runtime.steps import fate

    try:
        return int(module.operate(job, vm, wanted))
    except (errors.PcoccError, OSError) as error:
        if " has ended: " in str(error):
            raise  # it knows the reason already
        if _is_here(job, vm) and (why := fate.find_fate(job, vm)) is not None:
            raise why from None
        raise


def _is_here(job: int, vm: str) -> bool:
    try:
        return _find_node(job, vm) == (os.environ.get("SLURMD_NODENAME") or os.uname().nodename)
    except errors.NodeError:
        return False  # the job is going from this node, or never was here


def _move(operation: Operation, job: int, vm: str, argv: Sequence[str]) -> None:
    """Return if we are where the operation belongs; otherwise become an srun that runs it there.

    The plugin starts an operation in the node's own network, unless the srun of the step says otherwise: another
    srun can be started from there, but not from the job's namespace. So an operation that belongs inside moves
    even on the right node, when a user has typed it.
    """
    here = os.environ.get("SLURMD_NODENAME") or os.uname().nodename
    node = _find_node(job, vm) if operation.on_node else here
    if node == here and (not operation.inside or os.environ.get(ENV_STEP_INSIDE)):
        return
    from pcocc_runtime.slurm.steps import AS_BYTES, AS_TERMINAL, NO_INPUT, become_vm_step, operation_argv

    streams = NO_INPUT if not operation.reads else AS_TERMINAL if os.isatty(0) else AS_BYTES
    become_vm_step(operation_argv(job, vm, argv, node, streams), operation.inside)


def _find_node(job: int, vm: str) -> str:
    from pcocc_runtime import naming
    from pcocc_runtime.steps.session import find_members

    try:
        members = find_members(str(naming.job_dir(job)))
    except ValueError as error:
        raise errors.NodeError(str(error), "check that all nodes have the same version of pcocc") from None
    if members is None:
        raise errors.NodeError(
            f"the VMs of job {job} are not running on this node", "they have ended, or are still to be booted"
        )
    node = members.find_node(int(vm[2:]))
    if node is None:
        raise errors.NodeError(f"the node of {vm} is not known")
    return node
