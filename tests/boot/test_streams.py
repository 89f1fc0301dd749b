"""What goes in and out of a VM step: bytes, terminals, exit statuses."""

import fcntl
import os
import pty
import struct
import subprocess
import termios
import time

import pytest

from tests.boot.box import HOME, Box
from tests.boot.cluster import Cluster
from tests.waiting import limit

MEGABYTES = 50


def test_one_line_allocates_boots_and_labels_the_output(box: Box) -> None:
    done = box.run("srun --pcocc-template=tiny:2 -l hostname", status=0)
    assert sorted(done.stdout.splitlines()) == ["0: vm0", "1: vm1"]
    noise = [line for line in done.stderr.splitlines() if not line.startswith(("pcocc:", "srun: job "))]
    assert noise == []


def test_the_exit_status_of_the_command_is_sruns(box: Box) -> None:
    done = box.run(["srun", "--pcocc-template=tiny", "sh", "-c", "exit 7"])
    assert done.returncode == 7


@pytest.mark.parametrize("status", [0, 1, 255])
def test_the_exit_status_is_that_of_the_step(cluster: Cluster, status: int) -> None:
    assert cluster.srun(["--pcocc-vm=vm0", "sh", "-c", f"exit {status}"]).returncode == status


def test_a_command_that_is_killed_in_the_guest_ends_as_a_killed_one(cluster: Cluster) -> None:
    assert cluster.srun(["--pcocc-vm=vm0", "sh", "-c", "kill -9 $$"]).returncode == 128 + 9


def test_a_command_that_is_not_there_ends_with_127(cluster: Cluster) -> None:
    done = cluster.srun("--pcocc-vm=vm0 /nonesuch")
    assert done.returncode == 127 and "/nonesuch" in done.stderr


def test_fifty_megabytes_pass_in_and_out_unchanged(cluster: Cluster) -> None:
    data = os.urandom(MEGABYTES << 20)
    argv = cluster.box.argv("srun --pcocc-vm=vm0 cat", env=cluster.environ)
    done = subprocess.run(argv, input=data, capture_output=True, timeout=limit(300), check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == data


def test_a_file_as_standard_input_is_read_to_its_end(cluster: Cluster) -> None:
    assert cluster.srun("--pcocc-vm=vm0 wc -c", input="x" * 300_000, status=0).stdout.strip() == "300000"


def test_an_empty_input_ends_at_once(cluster: Cluster) -> None:
    assert cluster.vm(["cat"]) == ""


def test_error_output_stays_apart(cluster: Cluster) -> None:
    done = cluster.srun(["--pcocc-vm=vm0", "sh", "-c", "echo to out; echo to err >&2"], status=0)
    assert (done.stdout, done.stderr) == ("to out\n", "to err\n")


def test_every_task_has_its_own_output_file(cluster: Cluster) -> None:
    cluster.srun(f"--pcocc-vm=vm[0-3] -o {HOME}/boottest-%t.out hostname", status=0)
    paths = sorted(HOME.glob("boottest-*.out"))
    try:
        assert [path.read_text() for path in paths] == ["vm0\n", "vm1\n", "vm2\n", "vm3\n"]
    finally:
        for path in paths:
            path.unlink()


def test_only_the_named_task_reads_the_input(cluster: Cluster) -> None:
    done = cluster.srun(["--pcocc-vm=vm[0-1]", "-l", "-i1", "sh", "-c", "read line; echo got $line"], input="word\n")
    assert sorted(done.stdout.splitlines()) == ["0: got", "1: got word"]


ODD_WORDS = ["a b", "", "$HOME", "it's", '"', "\\", "*", "a\nb", "é", "-n", "`id`", "\udcff", "x;y|z&", "#"]


def test_words_of_the_command_arrive_as_they_were_typed(cluster: Cluster) -> None:
    done = cluster.srun(["--pcocc-vm=vm0", "printf", "%s\\0", *ODD_WORDS], status=0)
    assert done.stdout.split("\0")[:-1] == ODD_WORDS


def test_a_command_line_longer_than_ssh_servers_take_arrives(cluster: Cluster) -> None:
    long = "x" * 30_000
    assert cluster.vm(["echo", long]) == long


def run_in_terminal(cluster: Cluster, words: list[str], rows: int, columns: int, keys: bytes = b"") -> tuple[int, str]:
    """Run srun on a terminal of this size; `keys` are typed when its command has said "type"."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    argv = cluster.box.argv(["srun", "--pty", *words], env=cluster.environ)
    child = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    text, end = b"", time.monotonic() + limit(60)
    while time.monotonic() < end:
        try:
            data = os.read(ours, 4096)
        except OSError:  # EIO: the last one has closed the terminal
            break
        text += data
        if keys and b"type" in text:
            os.write(ours, keys)
            keys = b""
    status = child.wait(timeout=limit(30))
    os.close(ours)
    cluster.box.history.append(f"in a terminal: {words} -> {status}: {text[-2000:]!r}")
    return status, text.decode(errors="replace")


def test_a_terminal_has_the_right_size(cluster: Cluster) -> None:
    status, text = run_in_terminal(cluster, ["--pcocc-vm=vm0", "stty", "size"], 33, 101)
    assert status == 0 and text.split() == ["33", "101"]


def test_a_terminal_takes_keys_and_returns_the_exit_status(cluster: Cluster) -> None:
    script = "tty >/dev/null && echo type; read line; echo got $line; exit 5"
    status, text = run_in_terminal(cluster, ["--pcocc-vm=vm1", "sh", "-c", script], 24, 80, b"some words\r")
    assert status == 5 and "got some words" in text


def test_ctrl_c_on_a_terminal_interrupts_the_command_in_the_guest(cluster: Cluster) -> None:
    script = "trap 'echo interrupted; exit 3' INT; echo type; while :; do sleep 1; done"
    status, text = run_in_terminal(cluster, ["--pcocc-vm=vm0", "sh", "-c", script], 24, 80, b"\x03")
    assert status == 3 and "interrupted" in text
