"""The starter of a job's boot step: makes the job's keys, runs the step, tells the user what its VMs say.

Started by the plugin from the first `srun` that needs the VMs, detached from it, and alive as long as the
boot step. Descriptor 3 takes one word for that srun (`ready`, `joined`, `failed`), descriptor 4 ends when
that srun does.
"""

from __future__ import annotations

import os
import selectors
import stat
import sys
import time
from typing import Literal

from pcocc_runtime import __version__
from pcocc_runtime.documents import wire, wire_steps
from pcocc_runtime.documents.boot import encode_boot
from pcocc_runtime.documents.boot_step import parse_ranks
from pcocc_runtime.documents.cluster import Cluster, Group, decode_cluster, sets_text
from pcocc_runtime.documents.hook import HookCluster, plan_hook_cluster
from pcocc_runtime.documents.vm_events import (
    PREFIX,
    DiskError,
    Ended,
    Leaving,
    Ready,
    Silent,
    Started,
    StillOn,
    Unmounted,
    decode_event,
)
from pcocc_runtime.documents.vm_state import explain_end
from pcocc_runtime.errors import PcoccError, RequestError, render
from pcocc_runtime.guest.cloud_users import Identities
from pcocc_runtime.settings import directories
from pcocc_runtime.site import hooks
from pcocc_runtime.slurm.commands import cancel_step_of, read_boot_steps, read_job
from pcocc_runtime.slurm.steps import LAUNCHER, boot_argv, spread_end, start_step
from pcocc_runtime.slurm.text import (
    JobFacts,
    Killed,
    find_nodes_without,
    is_loss,
    is_routine,
    is_step_end,
    parse_killed,
)
from pcocc_runtime.system import accounts, user_files
from pcocc_runtime.terminal import printable, say_note
from pcocc_runtime.vm import user_data
from pcocc_runtime.vm.array_task import fill_array_task
from pcocc_runtime.vm.auto_checkpoint import AutoCheckpoint
from pcocc_runtime.vm.boot_progress import BootProgress, LineReader
from pcocc_runtime.vm.job_keys import make_boot
from pcocc_runtime.vm.stepd_watch import StepdWatch

LAST_WORDS = 1.0  # seconds: a task's output may arrive later than Slurm's message that the task has ended


def main() -> int:
    """Start and accompany the boot step of the job named on the command line."""
    job = int(sys.argv[1])
    try:
        cluster_text = os.environ.get(wire.ENV_CLUSTER, "")
        if not cluster_text:
            raise RequestError(
                f"job {job} has no virtual cluster",
                hint="submit it with --pcocc-template, for example sbatch --pcocc-template=NAME:2",
            )
        facts = read_job(job)
        confdir, user = directories.site_dir(os.environ, os.geteuid()), accounts.user_name()
        notes = list[str]()
        cluster = read_filled_cluster(cluster_text, facts, user, notes)
        for note in notes:
            say_note(note)
        hooks.run_hooks(confdir, plan_hook_cluster(hooks.BOOT, user, job, cluster))
        whole = any(group.full_node for group in cluster.groups)
        memory = facts.memory_per_node if whole else facts.task_memory(cluster.vm_count)
        boot = make_boot(facts, cluster)
        cluster = decode_cluster(boot.cluster)
        environment = {
            wire.ENV_BOOT: encode_boot(boot),
            wire.ENV_TASK_MEMORY: str(memory),
        }
        argv = boot_argv(facts, cluster.vm_count, sets_text(cluster), whole)
        watch = BootWatch(job, cluster.vm_count, facts.nodes)
        if cluster.checkpoints is not None:
            watch.auto = AutoCheckpoint(job, cluster.checkpoints, memory * cluster.vm_count, watch.tell)
        status = watch.run(argv, environment)
        if watch.has_run():
            run_end_hooks(confdir, plan_hook_cluster(hooks.END, user, job, cluster))
        return status
    except PcoccError as error:
        print(render(error), file=sys.stderr, flush=True)
        report(wire_steps.BOOT_FAILED)
        return 1


def read_filled_cluster(text: str, facts: JobFacts, user: str, notes: list[str]) -> Cluster:
    """Return the frozen cluster with what only the running job knows filled in: its number in a job array."""

    def read(path: str, group: Group) -> str:
        names = Identities(user, group.command_user)
        return user_data.read_task_user_data(path, names, group.task_user_data_forced, notes)

    return fill_array_task(decode_cluster(text), facts.array_task, user_files.exists, read)


def run_end_hooks(confdir: str, cluster: HookCluster) -> None:
    """Run the hooks of the end; nothing can be refused any more, so a failure is only reported."""
    try:
        hooks.run_hooks(confdir, cluster)
    except PcoccError as error:
        print(render(error), file=sys.stderr, flush=True)


def report(word: str) -> None:
    """Tell the waiting srun how the boot went; it may be gone."""
    try:
        os.write(wire_steps.STATUS_FD, f"{word}\n".encode())
    except OSError:
        pass


class BootWatch:
    """The boot step as seen through its srun's output.

    booting  until all VMs answer
    losing   a task has ended (at `lost`), and its own words about that are still awaited
    failing  a VM cannot start: we have cancelled the step
    cut off  Slurm says that the step ends, before all VMs have answered
    up       all VMs have answered, which was reported
    ending   Slurm says that the step ends, after that
    """

    def __init__(self, job: int, vms: int, nodes: int) -> None:
        self.job, self.vms, self.nodes, self.pid = job, vms, nodes, 0
        self.state: Literal["booting", "losing", "failing", "cut off", "up", "ending"] = "booting"
        self.started: set[str] = set()
        self.ready: set[str] = set()
        self.ended: set[str] = set()
        self.alive: set[str] = set()  # nodes from which a VM has been heard
        self.reported = False
        self.said: list[str] = []
        self.is_slow = False
        self.unmounted: set[str] = set()
        self.lost = 0.0
        self.begin = time.monotonic()
        self.progress = BootProgress(vms)
        self.auto: AutoCheckpoint | None = None  # None: nobody has asked for checkpoints

    def run(self, argv: list[str], environment: dict[str, str]) -> int:
        """Run the step to its end; the status is that of its srun."""
        child = start_step(argv, environment)
        self.pid = child.pid
        stepds = StepdWatch(self.job, child.pid)
        selector = selectors.DefaultSelector()
        assert child.stdout is not None and child.stderr is not None  # start_step pipes both
        for pipe, handle in ((child.stdout, self._hear_step), (child.stderr, self._hear_srun)):
            selector.register(pipe, selectors.EVENT_READ, LineReader(pipe.fileno(), handle))
        selector.register(wire_steps.PARENT_FD, selectors.EVENT_READ, None)
        open_pipes = 2
        while open_pipes:
            for key, _events in selector.select(self._patience()):
                if key.data is None:
                    selector.unregister(wire_steps.PARENT_FD)
                    self._parent_left()
                elif not key.data.read():
                    selector.unregister(key.fileobj)
                    open_pipes -= 1
            if self.auto and self._has_answered():
                self.auto.tick()
            if self._has_answered() or self.reported:
                stepds.stop()
            else:
                self.progress.show(len(self.started), len(self.ready))
                self._look_at_nodes(stepds)
            if self.state == "losing" and time.monotonic() > self.lost + LAST_WORDS:
                self._cancel()
        if self.auto:
            self.auto.close()
        return self._end(child.wait())

    def _patience(self) -> float | None:
        """Return how many seconds to wait for something to happen, None for ever."""
        if not self._has_answered():
            return 0.5
        return self.auto.patience() if self.auto else None

    def _look_at_nodes(self, stepds: StepdWatch) -> None:
        """Tell the user what srun does not: that a node has lost its part of the step, or does not begin with it."""
        if self.state != "booting":
            return
        if nodes := stepds.find_delay(self.alive):
            self.tell(
                f"pcocc: the VMs' slurmstepd has not started yet on {nodes}, or has ended at once\n"
                f"hint: Slurm's prolog may still run there; slurmd's log on {nodes} says more"
            )
        if nodes := stepds.find_end(self.alive):
            self.tell(
                f"pcocc: error: the VMs' slurmstepd has ended on {nodes} while they were booting\n"
                f"hint: slurmd's log on {nodes} says why; try again, or avoid that node with --exclude"
            )
            self._report(wire_steps.BOOT_FAILED)  # the step itself may take Slurm a minute to end
            self._cancel()

    def has_run(self) -> bool:
        """Tell whether all VMs have answered."""
        return len(self.ready) == self.vms

    def _has_answered(self) -> bool:
        return self.state in ("up", "ending")

    def _hear_step(self, line: str) -> None:
        """Take a line of the step's own output."""
        if not line.startswith(PREFIX):
            self.tell(line)
            return
        try:
            event = decode_event(line)
        except ValueError as error:
            self.tell(f"pcocc: error: {error}")
            return
        self.alive |= {event.node} if event else set()
        match event:
            case Started():
                self.started.add(event.vm)
                self._note_accelerator(event)
            case Ready():
                self._note_ready(event)
            case Silent():
                self._tell_silent(event)
            case Unmounted():
                self._tell_unmounted(event)
            case DiskError():
                self.tell(
                    f"pcocc: error: {event.vm} on {event.node} is stopped: {event.reason} ({event.disk})\n"
                    "hint: what it wrote before is intact; free space there, or use another node"
                )
            case StillOn():
                self.tell(
                    f"pcocc: error: {event.vm} on {event.node} did not power off in time and was ended\nhint:"
                    " check its drives; shutdown-grace in /etc/pcocc/pcocc.yaml must be long enough, and KillWait"
                    " of slurm.conf longer than that"
                )
            case Leaving():
                if self.auto:
                    self.auto.ask()
            case Ended():
                self._note_end(event)

    def _note_accelerator(self, event: Started) -> None:
        """Tell once that a VM is emulated where KVM was expected; the job's other VMs are mostly as slow."""
        if event.accel == "tcg" and event.kvm_expected and not self.is_slow:
            self.is_slow = True
            self.tell(
                f"pcocc: note: {event.vm} on {event.node} is emulated, about ten times slower than with KVM:"
                f" {event.why}"
            )
        self.progress.name_accelerator(event.accel)

    def _note_ready(self, event: Ready) -> None:
        self.ready.add(event.vm)
        if len(self.ready) == self.vms and self.state in ("booting", "losing"):
            self.state = "up"
            self._report(wire_steps.BOOT_READY)
            self.progress.done(time.monotonic() - self.begin)

    def _tell_silent(self, event: Silent) -> None:
        if event.vm not in self.started:
            self._fail(
                f"pcocc: error: the QEMU of {event.vm} on {event.node} did not start within {event.seconds} s\n"
                "hint: it may hang at a file that it opens: look at the file systems of its disks, and into the"
                " node's kernel log"
            )
            return
        tail = "".join(f"\n  {event.vm} console| {line}" for line in event.console)
        self._fail(
            f"pcocc: error: {event.vm} on {event.node} did not answer on its ssh port within {event.seconds}"
            " s\nhint: the image must run sshd and cloud-init; the last lines of its console"
            f" are:{tail or ' (none)'}"
        )

    def _tell_unmounted(self, event: Unmounted) -> None:
        """Tell once of a directory that is not mounted, for however many VMs: most have the same kernel."""
        if event.tag in self.unmounted:
            return
        self.unmounted.add(event.tag)
        other = "virtiofs" if event.type == "9p" else "9p"
        options = " -o trans=virtio" if event.type == "9p" else ""
        cure = f"'mount -t {event.type}{options} {event.tag} DIRECTORY' in the VM mounts it, or says why not"
        if not event.known:
            cure = (
                f"its kernel has no {event.type}: give the directory type={other} in --pcocc-mount, or 'type:"
                f" {other}' in the template"
            )
        self.tell(f"pcocc: note: {event.vm} on {event.node} has not mounted {event.tag}: {cure}")

    def _note_end(self, event: Ended) -> None:
        if event.asked or event.vm in self.ended:
            return
        self.ended.add(event.vm)
        early = "" if event.vm in self.ready else " before it answered"
        text = f"pcocc: {event.vm} on {event.node} ended{early}: {event.text}"
        if not self._has_answered():
            self._fail(text)
            return
        self.tell(text)
        spread_end(self.job, self.nodes, event.vm, event.reason)

    def _hear_srun(self, line: str) -> None:
        """Take a line of srun's stderr: a complaint of srun's own, or of one of its tasks."""
        if is_step_end(line):
            self.state = "ending" if self._has_answered() else "cut off"
        if killed := parse_killed(line):
            self._note_killed(killed)
        elif not self._has_answered():
            self.said.append(line)
            if is_loss(line) and self.state == "booting":
                self.state, self.lost = "losing", time.monotonic()
        elif not is_routine(line):
            self.tell(line)

    def _note_killed(self, killed: Killed) -> None:
        """Report the end of VMs whose keeper cannot: that of a node's last VM is killed together with its QEMU."""
        for rank in () if self.state in ("cut off", "ending") else parse_ranks(killed.tasks):
            self._note_end(Ended("killed", explain_end("killed"), False, f"vm{rank}", killed.node))

    def _fail(self, text: str) -> None:
        self.said.append(text)
        self._cancel()

    def _cancel(self) -> None:
        if self.state in ("booting", "losing"):
            self.state = "failing"
            cancel_step_of(self.job, self.pid)

    def _end(self, status: int) -> int:
        if self._has_answered() or self.reported:
            return status
        if any(not step.is_of(self.pid, os.uname().nodename) for step in read_boot_steps(self.job)):
            self._report(wire_steps.BOOT_JOINED)  # another srun of this job was first
            return 0
        self.progress.clear()
        for line in _explain_missing(self.said) or _without_echoes(self.said) or [
            f"pcocc: error: the VMs of job {self.job} did not start (srun status {status})"
        ]:
            self.tell(line)
        self._report(wire_steps.BOOT_FAILED)
        return status or 1

    def _report(self, word: str) -> None:
        """Tell the waiting srun how the boot went, once."""
        report(word)
        os.close(wire_steps.STATUS_FD)
        self.reported = True

    def tell(self, text: str) -> None:
        """Write a line to the user, whose terminal or file may be gone."""
        self.progress.clear()
        try:
            os.write(2, (printable(text) + "\n").encode())
        except OSError:
            pass

    def _parent_left(self) -> None:
        """Close inherited pipes, whose end a reader of the finished srun's output may wait for; files stay open."""
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for fd in (1, 2):
            mode = os.fstat(fd).st_mode
            if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
                os.dup2(null, fd)
        os.close(null)


def _without_echoes(lines: list[str]) -> list[str]:
    """Return the lines without those that srun adds when a task ends that has explained itself already."""
    own = [line for line in lines if line.startswith(("pcocc:", "hint:", "  vm"))]
    return list(dict.fromkeys(own or lines))


def _explain_missing(lines: list[str]) -> list[str]:
    """Return the lines to tell about nodes where pcocc is not installed; none if there is no such node."""
    nodes = find_nodes_without(LAUNCHER, lines)
    if nodes is None:
        return []
    return [
        (
            f"pcocc: error: pcocc is not installed on {', '.join(sorted(nodes)) or 'a node of the job'}:"
            f" there is no {LAUNCHER}"
        ),
        (
            f"hint: ask the admins to install pcocc {__version__} there; 'pcocc node check --all' names such"
            " nodes"
        ),
    ]
