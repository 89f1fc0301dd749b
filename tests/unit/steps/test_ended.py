"""What each operation says of a VM that has just ended, has ended, or is not booted: one sentence, and status 1."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pcocc_runtime.documents import verbs, wire
from pcocc_runtime.documents.cluster import Group
from pcocc_runtime.documents.command_line import COMMAND_FILE, encode_command_line
from pcocc_runtime.documents.disks import DISKS_FILE, encode_disks
from pcocc_runtime.documents.members import MEMBERS_FILE, Members, encode_members
from pcocc_runtime.documents.save import PAUSE_SOCKET, SAVE_SOCKET
from pcocc_runtime.documents.vm_state import STATE_FILE, VmState, encode_state
from pcocc_runtime.qemu.disks import Disk
from pcocc_runtime.steps.operations import OPERATIONS
from tests.unit.loading import ROOT

JOB = 7
# an operation's words where it needs some
WORDS = {
    verbs.AGENT_VERB: ["ping"], verbs.CHECKPOINT_VERB: ["/tmp/none"],
    verbs.DISK_VERB: ["list"], verbs.DUMP_VERB: ["/tmp/none/%v"], verbs.MONITOR_VERB: ["info", "status"],
    verbs.MOUNT_VERB: ["list"],
    verbs.NC_VERB: ["22"], verbs.POWER_VERB: ["off"], verbs.QMP_VERB: ["query-status"],
    }  # fmt: skip
OF_A_VM = [verb for verb, row in OPERATIONS.items() if not row.of_job]
SOCKETS = ("qmp", "agent", "console", "attach", "vnc", "directory", PAUSE_SOCKET, SAVE_SOCKET)
PROGRAM = f"""import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from pcocc_runtime import naming
from pcocc_runtime.documents import wire
from pcocc_runtime.steps import fate
fate._REASON_SECONDS = float(sys.argv.pop(1))
base = Path(sys.argv.pop(1))
wire.RUN_PATH = str(base)
naming.job_dir = lambda job: base / str(job)
from pcocc_runtime.steps.operations import run_operation
sys.exit(run_operation(sys.argv[1:]))
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """The job's directory on the node of vm0."""
    base = tmp_path / str(JOB)
    base.mkdir()
    members = Members(networks=(("127.0.0.0/24", ((0, 1),)),), ports=(), users=((1, "alice"),), vms=1, nodes=(("n1", (0,)),),
                      boot_timeout=300)
    (base / MEMBERS_FILE).write_bytes(encode_members(members))
    return base


def put_vm(job: Path, *names: str) -> None:
    """Make vm0's directory as its QEMU leaves it: with sockets that nobody listens at."""
    directory = job / "vm0"
    directory.mkdir()
    (directory / DISKS_FILE).write_bytes(encode_disks(Group("t", 1), [Disk("/none.qcow2")], str(job)))
    (directory / COMMAND_FILE).write_text(encode_command_line(["qemu"]).decode())
    for name in names:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(directory / name))


def ask(job: Path, verb: str, patience: float = 0.1) -> subprocess.CompletedProcess[str]:
    environ = {
        "SLURM_JOB_ID": str(JOB), "SLURM_STEP_ID": "1", "SLURM_PROCID": "0", "SLURMD_NODENAME": "n1", wire.ENV_VM_NAME: "vm0",
        wire.ENV_STEP_INSIDE: "1", "PATH": "/usr/bin:/bin", "HOME": str(job), "PCOCC_SYSTEM_CONF_DIR": str(job),
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(patience), str(job.parent), verb, *WORDS.get(verb, [])], env=environ,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip


def ensure_sentence(done: subprocess.CompletedProcess[str], *words: str) -> None:
    lines = [line for line in done.stderr.replace("\r", "").splitlines() if not line.startswith("hint: ")]
    assert done.returncode == 1 and done.stdout == "" and len(lines) == 1, (done.returncode, done.stdout, done.stderr)
    assert lines[0].startswith("pcocc: error: ") and all(word in lines[0] for word in words), lines
    assert "Errno" not in lines[0] and "bug" not in lines[0], lines


@pytest.mark.thorough
@pytest.mark.parametrize("verb", OF_A_VM)
def test_a_vm_that_has_just_ended(job: Path, verb: str) -> None:
    put_vm(job, *SOCKETS)
    ensure_sentence(ask(job, verb), "vm0", "has just ended")


def test_one_whose_end_is_written_a_moment_later(job: Path) -> None:
    put_vm(job, *SOCKETS)
    state = job / "vm0" / STATE_FILE
    writer = threading.Timer(0.7, lambda: state.write_text(encode_state(VmState("ended", reason="guest-shutdown"))))
    writer.start()
    ensure_sentence(ask(job, verbs.RESET_VERB, 60), "vm0 has ended: its guest powered it off")
    writer.join()


@pytest.mark.parametrize("verb", OF_A_VM)
def test_a_vm_that_has_ended(job: Path, verb: str) -> None:
    put_vm(job, *SOCKETS)
    (job / "vm0" / STATE_FILE).write_text(encode_state(VmState("ended", reason="guest-shutdown")))
    ensure_sentence(ask(job, verb), "vm0", "has ended: its guest powered it off")


@pytest.mark.parametrize("verb", OF_A_VM)
def test_a_vm_whose_qemu_has_not_started(job: Path, verb: str) -> None:
    put_vm(job)
    ensure_sentence(ask(job, verb), "vm0", "has not started yet")


@pytest.mark.parametrize("verb", OF_A_VM)
def test_a_vm_that_is_gone_from_its_node(job: Path, verb: str) -> None:
    ensure_sentence(ask(job, verb), "vm0", "does not run on this node")
