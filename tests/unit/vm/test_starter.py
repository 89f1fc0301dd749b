"""The starter of a boot step, with a shell in place of srun that says what VMs and Slurm would."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pcocc_runtime import __version__
from pcocc_runtime.documents import wire_steps
from pcocc_runtime.documents.vm_events import (
    DiskError,
    Ended,
    Leaving,
    Ready,
    Silent,
    Started,
    StillOn,
    Unmounted,
    encode_event,
)
from pcocc_runtime.slurm.steps import LAUNCHER
from pcocc_runtime.vm import boot_progress, starter
from pcocc_runtime.vm.starter import BootWatch

UP = [event for vm in ("vm0", "vm1") for event in (Started("tcg", "tests", False, vm, "n1"), Ready(1, vm, "n1"))]
KILLED = "srun: error: n2: task 1: Killed"
STEP_ENDS = "srun: error: *** STEP 7.0 ON n1 CANCELLED AT 2024 ***"
REPORTED, CANCELLED, SPREAD, LATE = "reported", "cancelled", "spread", "late"  # what a step waits for


@dataclass
class Boot:
    """A boot of two VMs, and what became of it."""

    watch: BootWatch
    status_fd: int
    directory: Path
    cancelled: list[int] = field(default_factory=list)
    spread: list[tuple[str, str]] = field(default_factory=list)
    status: int = 0

    def run(self, *said: object, status: int = 0) -> str:
        """Let the step say events and lines, complaints as srun does, and end; return the word for the srun that waits."""
        script = "".join(f"{self._render(one)}\n" for one in said) + f"exit {status}"
        self.status = self.watch.run(["sh", "-c", script], {})
        return os.read(self.status_fd, 100).decode().strip()

    def _render(self, said: object) -> str:
        if not isinstance(said, str):
            return f"printf %s {shlex.quote(encode_event(said))}"  # type: ignore[arg-type]
        if said in (REPORTED, CANCELLED, SPREAD, LATE):  # its two outputs are read in any order
            return f"while ! [ -e {self.directory}/{said} ]; do sleep 0.01; done"
        return f"echo {shlex.quote(said)}" + (" >&2" if said.startswith("srun: ") else "")

    def note(self, what: str) -> None:
        """Let the step go on that waits for this."""
        (self.directory / what).touch()


class Stepds:
    """What is known of the step's slurmstepds."""

    ended: str | None = None

    def __init__(self, job: int, pid: int) -> None:
        pass

    def find_end(self, alive: set[str]) -> str | None:
        return self.ended and ", ".join(sorted({*self.ended.split()} - alive))

    def find_delay(self, alive: set[str]) -> str | None:
        return None

    def stop(self) -> None:
        pass


@pytest.fixture
def boot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Boot]:
    status, ours = os.pipe()
    parent, theirs = os.pipe()
    monkeypatch.setattr(wire_steps, "STATUS_FD", ours)
    monkeypatch.setattr(wire_steps, "PARENT_FD", parent)
    children: list[subprocess.Popen[bytes]] = []

    def start(argv: list[str], _environment: dict[str, str]) -> subprocess.Popen[bytes]:
        children.append(subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        return children[-1]

    monkeypatch.setattr(starter, "start_step", start)
    monkeypatch.setattr(starter, "StepdWatch", Stepds)
    monkeypatch.setattr(starter, "read_boot_steps", lambda job: ())
    report = starter.report
    made = Boot(BootWatch(7, 2, 2), status, tmp_path)
    monkeypatch.setattr(starter, "cancel_step_of", lambda job, pid: (made.cancelled.append(job), made.note(CANCELLED)))
    monkeypatch.setattr(
        starter, "spread_end", lambda job, nodes, vm, reason: (made.spread.append((vm, reason)), made.note(SPREAD))
    )
    monkeypatch.setattr(starter, "report", lambda word: (report(word), made.note(REPORTED)))
    yield made
    for pipe in (pipe for child in children for pipe in (child.stdout, child.stderr) if pipe):
        pipe.close()
    for fd in (status, parent, theirs):
        os.close(fd)


Said = Callable[[], str]


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Said:
    """Return a function that returns what the starter has told the user."""
    return lambda: capfd.readouterr().err


def test_vms_that_answer_are_up_and_one_word_is_said(boot: Boot, said: Said) -> None:
    assert boot.run(*UP) == "ready"
    assert (boot.watch.state, boot.status, boot.cancelled, said()) == ("up", 0, [], "")


def test_who_does_not_start_is_told_in_srun_s_words(boot: Boot, said: Said) -> None:
    assert boot.run("srun: error: Unable to create step for job 7: nodes are busy", status=3) == "failed"
    assert said() == "srun: error: Unable to create step for job 7: nodes are busy\n" and boot.status == 3


def test_a_step_that_ends_without_a_word_is_told(boot: Boot, said: Said) -> None:
    assert boot.run(status=9) == "failed" and said() == "pcocc: error: the VMs of job 7 did not start (srun status 9)\n"


def test_a_boot_that_another_has_begun_is_joined(boot: Boot, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    class Step:
        def is_of(self, pid: int, host: str) -> bool:
            return False

    monkeypatch.setattr(starter, "read_boot_steps", lambda job: (Step(),))
    assert boot.run("srun: error: n1: task 0: Exited with exit code 3", status=3) == "joined" and (boot.status, said()) == (0, "")


def test_a_vm_that_stays_silent_ends_the_boot_with_its_console(boot: Boot, said: Said) -> None:
    assert boot.run(*UP[:1], Silent(300, ["one", "two"], "vm0", "n1"), status=1) == "failed"
    assert boot.cancelled == [7] and boot.watch.state == "failing"
    assert said().splitlines() == [
        "pcocc: error: vm0 on n1 did not answer on its ssh port within 300 s",
        "hint: the image must run sshd and cloud-init; the last lines of its console are:", "  vm0 console| one",
        "  vm0 console| two",
    ]  # fmt: skip


def test_a_qemu_that_does_not_begin_is_not_blamed_on_the_image(boot: Boot, said: Said) -> None:
    assert boot.run(Silent(300, [], "vm0", "n1"), status=1) == "failed"
    assert said().startswith("pcocc: error: the QEMU of vm0 on n1 did not start within 300 s\nhint: ")


def test_a_vm_that_ends_while_others_boot_ends_the_boot_although_the_others_then_answer(boot: Boot, said: Said) -> None:
    ended = Ended("guest-panic", "its guest's kernel panicked", False, "vm0", "n1")
    assert boot.run(*UP[:2], ended, *UP[2:], status=1) == "failed"
    assert said() == "pcocc: vm0 on n1 ended: its guest's kernel panicked\n" and boot.cancelled == [7] and boot.spread == []


def test_a_killed_vm_is_told_by_srun_when_its_keeper_cannot(boot: Boot, said: Said) -> None:
    assert boot.run(*UP[:2], KILLED, status=1) == "failed"
    assert said() == "pcocc: vm1 on n2 ended before it answered: its QEMU was killed\n"


def test_a_task_that_is_lost_has_a_moment_to_explain_itself(boot: Boot, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starter, "LAST_WORDS", 0.0)
    lost = "srun: error: n1: task 0: Exited with exit code 1"
    assert boot.run(lost, CANCELLED, "srun: 0: it says more until the step has ended", lost, status=1) == "failed"
    assert said() == f"{lost}\nsrun: 0: it says more until the step has ended\n"
    assert boot.watch.state == "failing" and boot.cancelled == [7] and boot.status == 1


def test_a_job_that_is_cancelled_while_it_boots_is_not_cancelled_again(boot: Boot, said: Said) -> None:
    assert boot.run(*UP[:2], STEP_ENDS, KILLED, "srun: error: n1: task 0: Killed", status=1) == "failed"
    assert boot.watch.state == "cut off" and boot.cancelled == [] and said() == f"{STEP_ENDS}\n"


def test_the_end_of_a_vm_that_was_up_is_told_here_and_on_all_nodes_once(boot: Boot, said: Said) -> None:
    ended = Ended("guest-shutdown", "its guest powered it off", False, "vm1", "n2")
    assert boot.run(*UP, ended, SPREAD, KILLED, Ended("killed", "x", True, "vm0", "n1")) == "ready"
    assert said() == "pcocc: vm1 on n2 ended: its guest powered it off\n" and boot.spread == [("vm1", "guest-shutdown")]


def test_the_end_of_the_job_is_no_news(boot: Boot, said: Said) -> None:
    lines = (STEP_ENDS, KILLED, "srun: error: n1: task 0: Terminated", "srun: Force Terminated StepId=7.0")
    assert boot.run(*UP, REPORTED, *lines, status=143) == "ready"
    assert (boot.watch.state, boot.status, boot.spread, said()) == ("ending", 143, [], "")


def test_what_is_wrong_with_a_running_vm_is_told(boot: Boot, said: Said) -> None:
    assert (
        boot.run(*UP, DiskError("it is full", "/d", "vm0", "n1"), StillOn("vm1", "n1"), "from qemu", "@pcocc nonsense")
        == "ready"
    )
    lines = said().splitlines()
    assert lines[0] == "pcocc: error: vm0 on n1 is stopped: it is full (/d)" and lines[2].startswith(
        "pcocc: error: vm1 on n1 did not power off"
    )
    assert (
        lines[4] == "from qemu"
        and lines[5].startswith("pcocc: error: a VM's keeper sent what cannot be read (")
        and len(lines) == 6
    )


def test_a_node_that_has_lost_the_step_is_told_and_nobody_waits_for_its_end(
    boot: Boot, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stepds, "ended", "n1 n2")
    assert boot.run(UP[0], CANCELLED, "srun: error: it takes a minute", status=137) == "failed"
    assert said() == (
        "pcocc: error: the VMs' slurmstepd has ended on n2 while they were booting\n"
        "hint: slurmd's log on n2 says why; try again, or avoid that node with --exclude\n"
    )
    assert (boot.watch.state, boot.status, boot.cancelled) == ("failing", 137, [7])


def test_a_node_that_takes_long_to_begin_is_told_and_waited_for(boot: Boot, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Stepds, "find_delay",
        lambda self, alive: None if (boot.directory / LATE).exists() else (boot.note(LATE), "n2")[1],
    )
    assert boot.run(LATE, *UP) == "ready" and boot.cancelled == []
    assert said().startswith("pcocc: the VMs' slurmstepd has not started yet on n2, or has ended at once\nhint: ")


def test_lines_are_read_whole_the_last_one_too(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    heard: list[Any] = []
    lines = boot_progress.LineReader(reader, heard.append)
    os.write(writer, b"one\ntw")
    assert lines.read() and heard == ["one"]
    os.write(writer, b"o\nthr\xffe")
    os.close(writer)
    assert lines.read() and heard == ["one", "two"] and not lines.read() and heard == ["one", "two", "thr\ufffde"]
    os.close(reader)


def test_a_line_without_end_is_not_kept() -> None:
    reader, writer = os.pipe()
    heard: list[str] = []
    lines = boot_progress.LineReader(reader, heard.append)
    for _ in range(40):
        os.write(writer, b"x" * 32768)
        lines.read()
    os.close(writer)
    assert not lines.read() and heard == ["(a line of more than 1048576 bytes)"]
    os.close(reader)


def test_emulation_where_kvm_was_expected_is_told_of_once(boot: Boot, said: Said) -> None:
    slow = [
        event
        for vm in ("vm0", "vm1")
        for event in (Started("tcg", "it may not be opened", True, vm, "n1"), Ready(1, vm, "n1"))
    ]
    assert boot.run(*slow) == wire_steps.BOOT_READY
    assert said() == "pcocc: note: vm0 on n1 is emulated, about ten times slower than with KVM: it may not be opened\n"


def test_a_node_without_pcocc_is_named(boot: Boot, said: Said) -> None:
    lost = f"slurmstepd: error: execve(): {LAUNCHER}: No such file or directory"
    ends = ("srun: error: n2: task 1: Exited with exit code 2", "srun: error: n1: task 0: Terminated")
    assert boot.run(f"srun: {lost}", *ends, status=2) == "failed"
    assert said().splitlines() == [
        f"pcocc: error: pcocc is not installed on n2: there is no {LAUNCHER}",
        f"hint: ask the admins to install pcocc {__version__} there; 'pcocc node check --all' names such nodes",
    ]


def test_a_directory_that_guests_have_not_mounted_is_told_once(boot: Boot, capfd: pytest.CaptureFixture[str]) -> None:
    said = [Unmounted(tag, kind, known, vm, "n1") for tag, kind, known in MISSING for vm in ("vm0", "vm1")]
    assert boot.run(*UP, *said) == "ready"
    assert [line for line in capfd.readouterr().err.splitlines() if "note" in line] == [
        "pcocc: note: vm0 on n1 has not mounted data: its kernel has no 9p: give the directory type=virtiofs in --pcocc-mount, "
        "or 'type: virtiofs' in the template",
        "pcocc: note: vm0 on n1 has not mounted fast: 'mount -t virtiofs fast DIRECTORY' in the VM mounts it, or says why not",
    ]


MISSING = [("data", "9p", False), ("fast", "virtiofs", True)]


EVIL = "\x1b]0;title\x07\x1b[2J\x1b[31m\x9b5nroot\u202e\x08\r# \x7f\0"


@pytest.mark.parametrize(
    "event",
    [
        Silent(5, [EVIL, "a line"], "vm0", "n1"),
        DiskError(EVIL, EVIL, "vm0", "n1"),
        Ended(EVIL, EVIL, False, "vm0", "n1"),
        Started("tcg", EVIL, True, "vm0", "n1"),
        f"from QEMU: {EVIL}".replace("\0", ""),
        f"@pcocc {EVIL}".replace("\0", ""),
        f"srun: error: {EVIL}".replace("\0", ""),
    ],
    ids=lambda event: type(event).__name__,
)
def test_what_a_guest_or_its_qemu_says_cannot_write_to_a_terminal(
    boot: Boot, capfd: pytest.CaptureFixture[str], event: object
) -> None:
    """But for letters: no escape sequence of ECMA-48, in 7 bits or 8, no carriage return, no change of direction."""
    boot.watch.progress.begin -= 60
    boot.run(event, status=1)
    said = capfd.readouterr().err
    assert said and not [char for char in said if not char.isprintable() and char != "\n"]


class Auto:
    """Notes in which states of the boot step it has been given its turn."""

    def __init__(self, watch: BootWatch) -> None:
        self.watch, self.seen = watch, list[str]()

    def patience(self) -> float:
        return 0.01

    def tick(self) -> None:
        self.seen.append(self.watch.state)

    def ask(self) -> None:
        self.seen.append("asked")

    def close(self) -> None:
        self.seen.append("closed")


def test_what_stores_vms_by_itself_has_its_turn_until_they_have_ended(boot: Boot) -> None:
    auto = Auto(boot.watch)
    boot.watch.auto = auto  # type: ignore[assignment]
    boot.run(*UP, REPORTED, STEP_ENDS, Leaving("vm0", "n1"))
    assert auto.seen[-1] == "closed" and "asked" in auto.seen and "booting" not in auto.seen
    assert "ending" in auto.seen, "Slurm has told its tasks to end, and they wait to be stored"
