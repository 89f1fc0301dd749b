"""The command between ssh and srun: it lets srun end in order although ssh hangs up on it, and does not wait for ever."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pcocc_runtime.cli import main as cli
from tests.waiting import limit

ROOT = Path(__file__).resolve().parents[3]
RUN = (
    "import sys; sys.path.insert(0, sys.argv[1]); from pcocc_runtime.cli.nc import run_stream\n"
    "sys.exit(run_stream(['sh', '-c', sys.argv[2]], inside=True))"
)


def start(script: str) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    child = subprocess.Popen(
        [sys.executable, "-c", RUN, str(ROOT), script], stdin=pipe, stdout=pipe, stderr=pipe
    )
    assert child.stdout and child.stdout.readline() == b"begun\n"
    return child


def finish(child: subprocess.Popen[bytes]) -> int:
    """Wait for its end; return its status."""
    with child:
        return child.wait(limit(30))


def test_a_hang_up_lets_srun_end_with_its_input(tmp_path: Path) -> None:
    child = start(f"echo begun; cat >{tmp_path}/heard; echo $SLURM_PCOCC_INSIDE >{tmp_path}/inside")
    assert child.stdin
    child.stdin.write(b"last words")
    child.send_signal(signal.SIGHUP)
    child.stdin.close()
    assert finish(child) == 0
    assert (tmp_path / "heard").read_bytes() == b"last words" and (tmp_path / "inside").read_text() == "1\n"


@pytest.mark.thorough
def test_an_srun_that_does_not_end_is_ended(tmp_path: Path) -> None:
    child = start(f"trap 'touch {tmp_path}/ended; exit' TERM; echo begun; while :; do sleep 0.1; done")
    child.send_signal(signal.SIGTERM)
    assert child.wait(limit(30)) == 128 + signal.SIGTERM
    child.communicate(timeout=limit(30))  # its streams are srun's, too: they end with it
    assert (tmp_path / "ended").exists()


def test_its_status_is_sruns() -> None:
    child = start("echo begun; exit 5")
    assert finish(child) == 5


@pytest.mark.parametrize(
    "words",
    [["vm0", "x"], ["vm0", "0"], ["vm0", "65536"], ["vm", "22"], ["root@vm0", "22"], ["vm[0-1]", "22"]],
)
def test_what_is_no_port_of_a_vm(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["nc", "-j", "7", *words]) == 1
    assert "is not a" in capsys.readouterr().err
