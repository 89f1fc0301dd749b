"""The steps that pcocc starts: the one that boots the VMs, and those that operate on them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NoReturn

from pcocc_runtime.documents import wire, wire_steps
from pcocc_runtime.documents.vm_state import STATE_FILE, VmState, encode_state
from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.slurm.commands import read_running
from pcocc_runtime.slurm.text import JobFacts, Running, ensure_job_number, is_routine, is_told_already
from pcocc_runtime.system import drop, installed, run_as
from pcocc_runtime.terminal import printable


def find_own_job(job: str, deed: str = "use") -> Running:
    """Return the running virtual cluster of one of the caller's jobs; RequestError says why there is none."""
    ensure_job_number(job)
    running = read_running(job)
    if os.geteuid() != running.uid:
        raise RequestError(f"job {job} belongs to {running.user}, and only its owner can {deed} its VMs")
    return _ensure_awake(job, running)


def _ensure_awake(job: str, running: Running) -> Running:
    if running.state == "SUSPENDED":
        raise RequestError(
            f"job {job} is suspended, and its VMs with it", f"'scontrol resume {running.job}' lets them go on"
        )
    return running


def ensure_vm_set(vms: str) -> None:
    """Raise RequestError unless a text is a set of VMs."""
    if not re.fullmatch(r"vm(0|[1-9][0-9]*|\[[0-9,-]+\])(,vm(0|[1-9][0-9]*|\[[0-9,-]+\]))*", vms, re.ASCII):
        raise RequestError(f"{vms[:80]!r} is not a set of VMs", "write vm0, or vm[0-3,7]")


# how a step's task is connected to srun: without its input, byte by byte both ways, or as a terminal
NO_INPUT, AS_BYTES, AS_TERMINAL = ("--input=none",), ("--unbuffered",), ("--pty",)


def run_step(
    job: str, vms: str, words: Sequence[str], *, deed: str = "save", streams: Sequence[str] = NO_INPUT
) -> int:
    """Run an operation in VMs of one of the caller's jobs, with our input and output; return srun's status."""
    ensure_job_number(job)
    ensure_vm_set(vms)
    return run_vm_step(operation_argv(find_own_job(job, deed).job, vms, words, streams=streams))


def run_step_for_root(job: str, vms: str, words: Sequence[str]) -> int:
    """Run an operation in VMs of anybody's job, as its owner, and write what it has said, without what moves a cursor.

    It is the owner's process, which may say anything. Return its exit status.
    """
    ensure_job_number(job)
    ensure_vm_set(vms)
    running = _ensure_awake(job, read_running(job))
    if running.uid == 0:
        return run_vm_step(operation_argv(running.job, vms, words))
    done = _run_as_owner(running, operation_argv(running.job, vms, words), {})
    for stream, data in ((sys.stdout, done.stdout), (sys.stderr, done.stderr)):
        lines = data.decode(errors="replace").splitlines()
        stream.write("".join(f"{printable(line)}\n" for line in lines if not is_told_already(line)))
    return done.status


LAUNCHER = f"{installed.LIBEXEC}/launch"
_KEPT = {"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS"}


def boot_argv(facts: JobFacts, vms: int, sets: str, whole_nodes: bool = False) -> list[str]:
    """Return the srun that boots the cluster: one task for each VM, beside the job's other steps.

    A step that names no CPUs gets all that the job has on its nodes. A step that names an amount of memory waits
    for steps that hold it, even with `--overlap` (tried, 22.05); with `--mem=0` it shares the job's memory.
    """
    cpus = ["--cpu-bind=none"] if whole_nodes else [f"--cpus-per-task={facts.cpus_per_task}"]
    return [
        "srun", f"--jobid={facts.job}", "--overlap", f"--ntasks={vms}", f"--nodes={facts.nodes}",
        "--distribution=block", *cpus, "--mem=0", f"--job-name={wire.BOOT_STEP}",
        "--input=none", "--kill-on-bad-exit=0", "--wait=0", "--mpi=none", "--chdir=/",
        f"--{wire_steps.OPTION_BOOT}={sets}", LAUNCHER,
    ]  # fmt: skip


def start_step(argv: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start an srun without those variables of the surrounding step that would change what it does."""
    return _start(argv, environment, subprocess.PIPE)


def _start(argv: list[str], environment: dict[str, str], output: int) -> subprocess.Popen[bytes]:
    env = {**_clean_environment(), **environment}
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, cwd="/")


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in _KEPT or not _is_slurms(name)}


_ALLOCATE_SECONDS = 20  # for a node that is not busy
_NODE_MINUTES = 15  # the time limit of such a job


def run_on_node(node: str, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a job of one task on a node, and wait for its end; `words` begin with options of srun.

    A job that does not start soon is given up.
    """
    argv = [
        "srun", f"--nodelist={node}", "--nodes=1", "--ntasks=1", f"--immediate={_ALLOCATE_SECONDS}",
        f"--time={_NODE_MINUTES}",
        "--job-name=pcocc-node-check", "--quiet", *words,
    ]  # fmt: skip
    return subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
        env=_clean_environment(), cwd="/", check=False
    )  # fmt: skip


_SPREAD = (
    f"d={wire.RUN_PATH}/$1/$2; "
    '[ -d ${d%/*} ] || exit 0; mkdir -p $d; printf %s "$3" >$d/$4.new && mv $d/$4.new $d/$4'
)


def spread_end(job: int, nodes: int, vm: str, reason: str) -> None:
    """Leave a note of a VM's end on every node of its job, for steps that use it from there; does not wait."""
    argv = [
        "srun", f"--jobid={job}", "--overlap", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1",
        "--mem=0",
        "--job-name=pcocc-ended", "--input=none", "--kill-on-bad-exit=0", "--wait=0", "--mpi=none",
        "--chdir=/", "--quiet",
        "sh", "-c", _SPREAD, "sh", str(job), vm, encode_state(VmState("ended", reason=reason)), STATE_FILE,
    ]  # fmt: skip
    _start(argv, {}, subprocess.DEVNULL)


def _is_slurms(name: str) -> bool:
    return name.startswith(("SLURM_", "SRUN_", "SBATCH_", "SALLOC_", "PCOCC_", "PMI"))


def network_argv(running: Running, words: Sequence[str]) -> list[str]:
    """Return the srun of `pcocc network`: one task on each node, which the plugin puts into the job's namespace there.

    A VM step names a VM, but the namespace is the job's; every cluster has a vm0. See `network_environment`.
    """
    return [
        "srun", f"--jobid={running.job}", "--overlap", f"--nodes={running.nodes}",
        f"--nodelist={running.node_list}",
        f"--ntasks={running.nodes}", "--ntasks-per-node=1", "--mem=0", "--time=10",
        "--job-name=pcocc-network",
        "--input=none", "--kill-on-bad-exit=0", "--wait=0", "--mpi=none", "--chdir=/", "--quiet",
        "--quit-on-interrupt",
        f"--{wire_steps.OPTION_VM}=vm0", *words,
    ]  # fmt: skip


_LOOK_SECONDS = "3"  # given to a node to make the namespace, which takes it half a second


def network_environment(running: Running) -> dict[str, str]:
    """Return the variables by which srun and the plugin (spank/client.c) act in the job, wherever srun is typed.

    A node whose VMs have all ended has no namespace. In a job's first half minute, the plugin would take this
    for a namespace that is still to be made, and wait.
    """
    return {
        "SLURM_JOB_ID": str(running.job), wire.ENV_TEMPLATE: "any:1", wire.ENV_PATIENCE: _LOOK_SECONDS,
        wire.ENV_STEP_INSIDE: "1",
    }  # fmt: skip


def run_network_step(running: Running, words: Sequence[str]) -> tuple[str, str]:
    """Run `network_argv` as the job's user, even when root asks; return its stdout and stderr."""
    argv = network_argv(running, words)
    if os.geteuid() == 0 and running.uid != 0:
        ended = _run_as_owner(running, argv, network_environment(running))
        return ended.stdout.decode(errors="replace"), ended.stderr.decode(errors="replace")
    env = {**_clean_environment(), **network_environment(running)}
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", env=env, cwd="/",
        check=False
    )  # fmt: skip
    return done.stdout, done.stderr


# all that an srun gets of root's environment
_ROOTS = ("PATH", "LANG", "LC_ALL", "TZ", *sorted(_KEPT))
# the user may have stopped that srun, so root does not wait for ever, but long enough for a busy slurmctld
_ASK_SECONDS = 900.0


def _run_as_owner(running: Running, argv: Sequence[str], environment: Mapping[str, str]) -> run_as.Finished:
    rights = drop.Rights(running.uid, running.gid, os.getgrouplist(running.user, running.gid))
    env = {name: os.environ[name] for name in _ROOTS if name in os.environ} | dict(environment)
    env |= {"USER": running.user, "LOGNAME": running.user, "HOME": "/"}
    try:
        return run_as.run_as(rights, argv, env, seconds=_ASK_SECONDS)
    except OSError as error:
        raise NodeError(f"srun cannot be run here as {running.user}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise NodeError(f"the nodes of job {running.job} have not answered completely") from None


def operation_argv(
    job: int, vms: str, words: Sequence[str], node: str | None = None, streams: Sequence[str] = NO_INPUT
) -> list[str]:
    """Return an srun for an operation on VMs (a command beginning with '@'), a task for each; on `node`, if given."""
    where = [f"--nodelist={node}", "--nodes=1", "--ntasks=1"] if node else []
    return [
        "srun", f"--jobid={job}", "--overlap", "--mem=0", f"--job-name=pcocc-{words[0].lstrip('@')}", *where,
        *streams,
        "--kill-on-bad-exit=0", "--wait=0", "--mpi=none", "--quiet", "--quit-on-interrupt",
        f"--{wire_steps.OPTION_VM}={vms}", *words,
    ]  # fmt: skip


def operation_environment(inside: bool = False) -> dict[str, str]:
    """Return that srun's environment: its tasks begin in the node's network, or `inside` the job's namespace."""
    kept = {name: os.environ[name] for name in ("PCOCC_USER_CONF_DIR",) if name in os.environ}
    return {**_clean_environment(), **kept, **({wire.ENV_STEP_INSIDE: "1"} if inside else {})}


def run_vm_step(argv: list[str]) -> int:
    """Run that srun with our input and output; return its exit status. Signals that end us reach it, too."""
    with _passed_on() as heir:
        child = start_operation(argv)
        heir(child.process)
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:
                continue  # the terminal sends it to srun, too, which ends the step in order


@contextlib.contextmanager
def _passed_on() -> Iterator[Callable[[subprocess.Popen[bytes]], None]]:
    """Pass signals that would end us on to a process that we wait for: call what this yields with it."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    heirs: list[subprocess.Popen[bytes]] = []
    early: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only that one can have signal handlers
        yield heirs.append
        return

    def pass_on(number: int, _frame: object) -> None:
        early.append(number)
        for one in heirs:
            one.send_signal(number)

    def inherit(process: subprocess.Popen[bytes]) -> None:
        heirs.append(process)
        for number in early:
            process.send_signal(number)

    before = [signal.signal(number, pass_on) for number in numbers]
    try:
        yield inherit
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class StartedOperation:
    """An srun of an operation; its errors are passed on, except those that the operation has told already."""

    def __init__(
        self, process: subprocess.Popen[bytes], is_told: Callable[[str], bool] = is_told_already
    ) -> None:
        self.process, self._is_told = process, is_told
        self.has_complained = False  # known after `wait`
        self._complaints = threading.Thread(target=self._pass_on, daemon=True)
        self._complaints.start()

    def wait(self, seconds: float | None = None) -> int:
        """Return its exit status as a shell would; subprocess.TimeoutExpired when it takes longer."""
        status = self.process.wait(seconds)
        self._complaints.join()
        return status if status >= 0 else 128 - status

    def _pass_on(self) -> None:
        assert self.process.stderr
        with self.process.stderr as stream:
            for line in stream:
                if not self._is_told(line.decode(errors="replace")):
                    self.has_complained = True
                    os.write(2, line)


def start_operation(argv: list[str], inside: bool = False, apart: bool = False) -> StartedOperation:
    """Start such an srun with our input and output, `apart` in a session of its own; NodeError if it cannot be run."""
    try:
        return StartedOperation(
            subprocess.Popen(
                argv, env=operation_environment(inside), stderr=subprocess.PIPE, start_new_session=apart
            )
        )
    except OSError as error:
        raise NodeError(f"srun cannot be run here: {error.strerror}") from None


# of a task that ended because another has failed, which says why
_INTERRUPTED = re.compile(r"pcocc: @[a-z]+ of vm[0-9]+ was interrupted\n?")


def start_conversation(argv: list[str], take: Callable[[str], bool]) -> StartedOperation:
    """Start such an srun with pipes for what is said to its tasks and what they say; NodeError when there is none.

    Lines of errors that `take` takes, which are those of its tasks, are not passed on.
    """

    def is_told(line: str) -> bool:
        # when a task fails, Slurm ends the others: their ends say nothing more, and a step that ends otherwise
        # has the caller say so
        return is_told_already(line) or is_routine(line) or bool(_INTERRUPTED.fullmatch(line)) or take(line)

    try:
        return StartedOperation(
            subprocess.Popen(
                argv, env=operation_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, start_new_session=True
            ),
            is_told,
        )  # fmt: skip
    except OSError as error:
        raise NodeError(f"srun cannot be run here: {error.strerror}") from None


def ask_vm_step(argv: list[str]) -> subprocess.CompletedProcess[str]:
    """Run such an srun to its end, and return what it has written."""
    try:
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            env=operation_environment(), check=False
        )  # fmt: skip
    except OSError as error:
        raise NodeError(f"srun cannot be run here: {error.strerror}") from None


def read_vm_step(argv: list[str]) -> tuple[int, bytes]:
    """Run that srun to its end; return its exit status and its output; its errors are passed on."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, env=operation_environment(), check=False
        )
    except OSError as error:
        raise NodeError(f"srun cannot be run here: {error.strerror}") from None
    said = [
        line
        for line in done.stderr.decode(errors="replace").splitlines(keepends=True)
        if not is_told_already(line)
    ]
    os.write(2, "".join(said).encode())
    return done.returncode if done.returncode >= 0 else 128 - done.returncode, done.stdout


def become_vm_step(argv: list[str], inside: bool) -> NoReturn:
    """Become that srun; its tasks begin in the job's network namespace, or in the node's own network."""
    try:
        os.execvpe(argv[0], argv, operation_environment(inside))
    except OSError as error:
        raise NodeError(f"srun cannot be run on {os.uname().nodename}: {error.strerror}") from None
