"""A step's task on its way to a VM, with files and sockets in place of launcher and keeper."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pcocc_runtime import naming
from pcocc_runtime.documents.members import Members, encode_members
from pcocc_runtime.documents.vm_state import VmState, encode_state
from pcocc_runtime.errors import NodeError
from pcocc_runtime.steps import operations, reaching, session
from pcocc_runtime.steps.reaching import Approach, AttachError, OwnLogin, SharedLogin, StepVm, read_complaint
from pcocc_runtime.steps.session import GuestCommand, Session, find_members, read_cluster
from tests.waiting import limit

ROOT = Path(__file__).resolve().parents[3]
MEMBERS = Members(
    (("127.0.0.0/8", ((0, 1), (3, 9))),), (), ((2, "alice"), (2, "worker")), 4, (("n1", (0, 1)), ("n2", (2, 3))), 300
)


class NoSignals:
    """Takes the place of this process's signals: none of them has come."""

    def have_ended(self) -> bool:
        return False


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The job's directory on this node, as the launchers make it."""
    for name, value in (("JOB_ID", "12"), ("STEP_ID", "1"), ("PROCID", "0")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setattr(reaching, "job_directory", lambda: str(tmp_path / "12"))
    monkeypatch.setattr(session, "job_directory", lambda: str(tmp_path / "12"))
    monkeypatch.setattr(naming, "job_dir", lambda job: tmp_path / str(job))
    (tmp_path / "12/vm1").mkdir(parents=True)
    (tmp_path / "12/cluster.json").write_bytes(encode_members(MEMBERS))
    return tmp_path / "12"


@pytest.fixture
def vm(directory: Path) -> StepVm:
    return StepVm("vm1", MEMBERS, str(directory))


@pytest.fixture
def keeper(vm: StepVm) -> Iterator[socket.socket]:
    """The socket on which the keeper listens."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{vm.directory}/attach")
        listener.listen()
        listener.settimeout(limit(10))
        yield listener


ToVm = Callable[[StepVm], Approach]


@pytest.fixture
def reach() -> Iterator[ToVm]:
    """Return a function that returns the way to a VM."""
    ways: list[Approach] = []

    def find(vm: StepVm) -> Approach:
        ways.append(Approach(vm, NoSignals()))  # type: ignore[arg-type]
        return ways[-1]

    yield find
    for line in [way.line for way in ways if way.line]:
        line.connection.close()


def test_the_cluster_is_what_the_launchers_wrote(directory: Path) -> None:
    assert read_cluster("vm1") == MEMBERS and find_members(str(directory / "no")) is None
    assert (StepVm("vm3", MEMBERS, "/d").user, StepVm("vm3", MEMBERS, "/d").node) == ("worker", "n2")


def test_a_directory_that_root_has_not_given_away_yet_is_waited_for(directory: Path) -> None:
    child = os.fork()  # as a user, who cannot look into root's
    if child == 0:
        os.chmod(directory, 0o700)
        os.setresuid(65534, 65534, 65534)
        os._exit(0 if find_members(str(directory)) is None else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_who_waits_for_long_looks_rarely_and_is_late_by_two_percent_at_most() -> None:
    assert [reaching.pause_after(seconds) for seconds in (0, 2.5, 10, 50, 500)] == [0.05, 0.05, 0.2, 1, 1]


def test_a_damaged_cluster_is_one_sentence_for_steps_and_for_operations(directory: Path) -> None:
    (directory / "cluster.json").write_text('{"networks": 3}')
    with pytest.raises(AttachError, match=r"pcocc: error: vm1 cannot be reached: cluster.json .* cannot be read: .*\nhint: "):
        read_cluster("vm1")
    with pytest.raises(NodeError, match="cannot be read"):
        operations._find_node(12, "vm1")


def test_an_operation_knows_where_its_vm_is(directory: Path) -> None:
    assert [operations._find_node(12, vm) for vm in ("vm1", "vm3")] == ["n1", "n2"]
    for job, vm, said in (
        (12, "vm4", "the node of vm4 is not known"),
        (13, "vm1", "the VMs of job 13 are not running on this node"),
    ):
        with pytest.raises(NodeError, match=said):
            operations._find_node(job, vm)


def test_a_node_without_the_job_is_told(directory: Path) -> None:
    (directory / "cluster.json").unlink()
    (directory / "vm1").rmdir()
    directory.rmdir()
    with pytest.raises(AttachError, match="the job's VMs there have ended"):
        read_cluster("vm1")


@pytest.mark.parametrize(("vm", "said"), [("vm2", "vm2 has no L3 network"), ("vm9", "there is no vm9")])
def test_a_vm_that_cannot_be_reached_is_told(directory: Path, vm: str, said: str) -> None:
    with pytest.raises(AttachError, match=said):
        Session(vm, MEMBERS)


def test_a_keeper_shares_its_connection(vm: StepVm, reach: ToVm, keeper: socket.socket) -> None:
    way = reach(vm)
    with keeper.accept()[0] as task:
        assert task.recv(100) == b"12.1.0.\n"
        task.sendall(b"up\n")
        login = way.find_login()
        assert isinstance(login, SharedLogin) and (login.control, login.guarded) == (f"{vm.directory}/ssh", False)
        login.tell_done()
        assert task.recv(100) == b"done\n"
    way.raise_if_ended()


@pytest.mark.parametrize("words", [b"ended guest-shutdown\n", b""])
def test_a_keeper_whose_vm_ends_instead_is_believed(vm: StepVm, reach: ToVm, keeper: socket.socket, words: bytes) -> None:
    way = reach(vm)
    with keeper.accept()[0] as task:
        task.sendall(words)
    if not words:  # it was killed with its QEMU, and another node has told
        Path(vm.directory, "state").write_text(encode_state(VmState("ended", reason="guest-shutdown")))
    with pytest.raises(AttachError, match="vm1 on n1 has ended: its guest powered it off"):
        way.find_login()


def test_a_vm_whose_keeper_is_killed_is_logged_in_to_without(
    vm: StepVm, reach: ToVm, keeper: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StepVm, "answers", lambda vm: True)
    way = reach(vm)
    keeper.accept()[0].close()
    login = way.find_login()
    assert isinstance(login, OwnLogin) and login.guarded and login.control == "none" and way.line is None
    login.tell_done()
    assert way.find_end() is None


@pytest.mark.parametrize("patience", ["0", None])
def test_a_vm_without_a_keeper_is_waited_for_unless_it_is_known_to_answer(
    vm: StepVm, reach: ToVm, monkeypatch: pytest.MonkeyPatch, patience: str | None
) -> None:
    answers = iter([False, True])
    asked: list[bool] = []
    monkeypatch.setattr(StepVm, "answers", lambda vm: asked.append(next(answers)) or asked[-1])
    if patience:
        monkeypatch.setenv("SLURM_PCOCC_PATIENCE", patience)
    assert isinstance(reach(vm).find_login(), OwnLogin)
    assert asked == ([] if patience else [False, True])


def test_a_vm_is_not_waited_for_too_long(vm: StepVm, reach: ToVm, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StepVm, "answers", lambda vm: False)
    assert 300 < reach(vm).limit <= 320
    os.utime(directory / "cluster.json", (0, 0))
    way = reach(vm)
    assert way.limit == 20
    way.deadline = 0.0
    with pytest.raises(AttachError, match="vm1 on n1 did not let its user in within 20 s: nothing listens on its ssh port"):
        way.find_login()


@pytest.mark.parametrize(
    ("state", "end"),
    [(VmState("up", 3), None), (VmState("ended", reason="killed"), "its QEMU was killed"), (None, None)],
)
def test_an_end_is_what_is_written(vm: StepVm, reach: ToVm, state: VmState | None, end: str | None) -> None:
    if state:
        Path(vm.directory, "state").write_text(encode_state(state))
    assert vm.read_end() == end and reach(vm).find_end() == end


def test_a_complaint_is_taken_once(vm: StepVm, reach: ToVm) -> None:
    command = GuestCommand(vm, reach(vm), OwnLogin(), NoSignals())  # type: ignore[arg-type]
    Path(command.log).write_text("Warning: Permanently added x\nssh: no\nway\n")
    assert command.take_complaint() == "ssh: no way" and command.take_complaint() == "" and not Path(command.log).exists()


def test_signals_arrive_by_name_and_are_taken_once() -> None:
    program = (
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r})\nfrom pcocc_runtime.steps.signals import Signals\ncaught ="
        " Signals()\nos.kill(os.getpid(), 10); print(caught.have_ended(), caught.take(),"
        " caught.take())\nos.kill(os.getpid(), 15); print(caught.have_ended(), caught.take(),"
        " len(os.read(caught.wakeup, 9)))"
    )
    argv = [sys.executable, "-IS", "-c", program]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {15})  # as slurmstepd may leave it
    try:
        said = subprocess.check_output(argv, text=True)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert said == "False ['USR1'] []\nTrue ['TERM'] 2\n"


def test_what_a_guest_has_ssh_say_is_short_and_printable(tmp_path: Path) -> None:
    """Its log can be as long as a guest likes, and hold what it likes."""
    log = tmp_path / "log"
    log.write_bytes(b"x" * 100_000 + b"\n\x1b]0;title\x07\xff\xfe\x9b2J ssh: no way\n")
    said = read_complaint(str(log))
    assert len(said) <= 4096 and said.endswith(" ssh: no way")
    assert not [char for char in said if not char.isprintable() and char != "\n"]
    assert read_complaint(str(tmp_path / "none")) == ""
