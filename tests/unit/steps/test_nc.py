"""The bytes of a connection to a VM's port, both ways, to the end of each side."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pcocc_runtime.documents.members import MEMBERS_FILE, Members, encode_members
from pcocc_runtime.documents.vm_state import VmState, encode_state
from pcocc_runtime.errors import PcoccError
from pcocc_runtime.steps import nc
from tests.waiting import limit

ROOT = Path(__file__).resolve().parents[3]
# vm0 of this job has the address 127.0.0.1
MEMBERS = Members(
    networks=(("127.0.0.0/8", ((0, 0),)),),
    ports=(),
    users=((1, "alice"),),
    vms=1,
    nodes=(("n1", (0,)),),
    boot_timeout=300,
)


def run(job: Path, port: int, data: bytes) -> tuple[int, bytes, str]:
    """Run the operation as a task does, with this input; return its status, output and complaint."""
    (job / MEMBERS_FILE).write_bytes(encode_members(MEMBERS))
    code = (
        "import sys; from pcocc_runtime.steps import operations, nc, reaching, session\n"
        f"for one in (nc, session): one.job_directory = lambda: {str(job)!r}\n"
        "sys.exit(operations.run_operation(sys.argv[1:]))"
    )
    env = {
        "PATH": os.environ["PATH"], "PCOCC_VM_NAME": "vm0", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "1", "SLURM_PROCID": "0",
        "SLURMD_NODENAME": "n1", "SLURM_PCOCC_INSIDE": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, "@nc", str(port)],
        cwd=ROOT,
        env=env,
        input=data,
        capture_output=True,
        timeout=limit(60),
        check=False,
    )
    return done.returncode, done.stdout, done.stderr.decode()


def serve(answer: bytes) -> tuple[int, list[bytes]]:
    """Take one connection, read it to its end, answer, and close; return the port, and what was read once it is."""
    listener = socket.create_server(("127.0.0.1", 0))
    heard: list[bytes] = []

    def talk() -> None:
        connection, _address = listener.accept()
        with listener, connection:
            while data := connection.recv(1 << 16):
                heard.append(data)
            connection.sendall(answer)

    threading.Thread(target=talk, daemon=True).start()
    return listener.getsockname()[1], heard


def test_both_ways_pass_to_their_ends(tmp_path: Path) -> None:
    sent, answer = os.urandom(3 << 20), os.urandom(2 << 20)
    port, heard = serve(answer)
    assert run(tmp_path, port, sent) == (0, answer, "")
    assert b"".join(heard) == sent


def test_a_port_that_nobody_listens_on(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    status, _output, said = run(tmp_path, port, b"")
    assert status == 1 and said == f"pcocc: error: nothing listens on port {port} of vm0 on n1\n"


def test_a_vm_that_has_ended(tmp_path: Path) -> None:
    (tmp_path / "vm0").mkdir()
    (tmp_path / "vm0/state").write_text(encode_state(VmState("ended", reason="guest-panic")))
    status, _output, said = run(tmp_path, 22, b"")
    assert status == 1 and "vm0 on n1 has ended: its guest's kernel panicked" in said


@pytest.mark.parametrize("words", [[], ["0"], ["65536"], ["22", "23"], ["ssh"], ["-1"], ["२२"]])
def test_what_is_no_port(words: list[str]) -> None:
    with pytest.raises(PcoccError):
        nc.check_words(words)
    assert nc.check_words(["22"]) == 22
