"""`pcocc ssh` and similar commands on the login node: the user's own ssh, through a step of the job."""

import os
import statistics
import subprocess
import time
from pathlib import Path

import pytest

from tests.boot.box import HOME, Box
from tests.boot.cluster import Cluster
from tests.waiting import limit, wait_for

MORE_SECONDS = 0.5  # than a plain `srun --overlap true`, until the first byte of an ssh


def test_ssh_is_the_users_own(box: Box, cluster: Cluster) -> None:
    known = HOME / ".ssh/known_hosts"
    before = known.read_bytes() if known.exists() else None
    job = str(cluster.job)
    done = box.run(["pcocc", "ssh", "-j", job, "vm1", "hostname; whoami; cat; exit 7"], input="some\nbytes")
    assert (done.returncode, done.stdout) == (7, "vm1\nalice\nsome\nbytes"), done.stderr
    assert box.out(["pcocc", "ssh", f"root@vm3.{job}", "id -u; hostname"]) == "0\nvm3"
    assert box.out(["pcocc", "ssh", "-j", job, "-o", "LogLevel=ERROR", "-l", "root", "vm0", "id -u"]) == "0"
    assert (known.read_bytes() if known.exists() else None) == before
    [kept] = (HOME / ".pcocc/logins").glob(f"{job}.*")
    assert (kept.stat().st_mode & 0o777, (kept / "key").stat().st_mode & 0o777) == (0o700, 0o600)


def test_all_bytes_pass(box: Box, cluster: Cluster) -> None:
    job = str(cluster.job)
    command = (
        "head -c 3000000 /dev/urandom >{0}; pcocc ssh vm2.{1} 'cat >/tmp/in; cat /tmp/in; rm /tmp/in' <{0} | cmp - {0}"
        " && echo same; rm {0}"
    )
    assert box.out(["sh", "-c", command.format("/home/alice/boottest-bytes", job)]) == "same"


def test_another_host_key_is_refused(box: Box, cluster: Cluster, tmp_path: Path) -> None:
    job = str(cluster.job)
    assert box.out(["pcocc", "ssh", "-j", job, "vm0", "hostname"]) == "vm0"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    [kept] = (HOME / ".pcocc/logins").glob(f"{job}.*")
    known, right = kept / "known_hosts", (kept / "known_hosts").read_text()
    known.write_text(f"vm* {(tmp_path / 'other.pub').read_text()}")
    try:
        done = box.run(["pcocc", "ssh", "-j", job, "vm0", "hostname"])
    finally:
        known.write_text(right)
    assert done.returncode == 255 and "Host key verification failed" in done.stderr, done.stderr


def test_plain_ssh_gets_in_by_the_configuration(box: Box, cluster: Cluster, home: Path) -> None:
    job = str(cluster.job)
    config = home / "config"
    config.write_text(box.out(["pcocc", "ssh-config", "-j", job]) + "\n")
    assert box.out(["ssh", "-F", str(config), f"vm2.{job}", "hostname"]) == "vm2"
    assert box.out(["ssh", "-F", str(config), "root@vm1", "hostname; id -u"]) == "vm1\n0"
    inventory = box.out(["pcocc", "ansible-inventory", "-j", job]).splitlines()
    assert inventory[:5] == [f"[job_{job}]", *(f"vm{rank}.{job}" for rank in range(4))]


def test_a_port_is_reached(box: Box, cluster: Cluster) -> None:
    job = str(cluster.job)
    serve = (
        "mkdir -p /tmp/www; echo hello >/tmp/www/index.html; echo ready; exec httpd -f -p 8080 -h /tmp/www"
    )
    server = cluster.start(["--pcocc-vm=vm3", "sh", "-c", serve])
    assert server.stdout and server.stdout.readline() == "ready\n"
    wait_for(lambda: box.run(["pcocc", "nc", f"vm3.{job}", "8080"]).returncode == 0, "the server", 30)
    asked = box.run(["pcocc", "nc", f"vm3.{job}", "8080"], input="GET /index.html HTTP/1.0\r\n\r\n")
    assert asked.returncode == 0 and asked.stdout.endswith("hello\n"), asked.stderr
    forward = box.start(["pcocc", "forward", "-j", job, "vm3", "18080:8080"])
    python = [
        "python3",
        "-c",
        (
            "import urllib.request; print(urllib.request.urlopen('http://localhost:18080/index.html').read().decode(),"
            " end='')"
        ),
    ]
    found = wait_for(lambda: box.run(python).stdout, "the forwarded port", 30)
    forward.terminate()
    box.finish(forward)
    assert found == "hello\n"
    server.terminate()
    box.finish(server)
    done = box.run(["pcocc", "nc", f"vm3.{job}", "9"])
    assert done.returncode == 1 and "nothing listens on port 9 of vm3 on n2" in done.stderr


@pytest.mark.parametrize(
    ("words", "user", "status", "said"),
    [
        ("ssh vm9.{job} true", "alice", 255, "job {job} has no vm9"),
        ("ssh vm0.{job} true", "bob", 255, "job {job} belongs to alice, and only its owner can use its VMs"),
        ("nc vm0.{job} 22", "bob", 1, "job {job} belongs to alice"),
        ("ssh vm0 true", "bob", 255, "you have no job with running VMs"),
        ("ssh vm0.999999 true", "alice", 255, "Slurm knows no running job 999999"),
        ("scp vm0.{job}:a vm1.999999:b", "alice", 255, "one job at a time"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    box: Box, cluster: Cluster, words: str, user: str, status: int, said: str
) -> None:
    done = box.run(["pcocc", *words.format(job=cluster.job).split()], user=user)
    lines = done.stderr.splitlines()
    assert done.returncode == status and said.format(job=cluster.job) in lines[0] and len(lines) <= 2, (
        done.stderr
    )


def test_the_first_byte_comes_soon(box: Box, cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    job = str(cluster.job)
    box.out(["pcocc", "ssh", f"vm0.{job}", "true"])  # makes sure that the key is there
    plain, ours, known = [], [], "StrictHostKeyChecking=yes"
    for _turn in range(5):
        began = time.monotonic()
        box.out(["srun", f"--jobid={job}", "--overlap", "-N1", "-n1", "--mem=0", "true"])
        plain.append(time.monotonic() - began)
        began = time.monotonic()
        talk = box.start(["pcocc", "nc", f"vm0.{job}", "22"])
        assert talk.stdout and os.read(talk.stdout.fileno(), 4) == b"SSH-"
        ours.append(time.monotonic() - began)
        talk.stdout.close()  # the rest of a server's first message is binary
        box.finish(talk)
    began = time.monotonic()
    box.out(["pcocc", "ssh", "-o", known, f"vm0.{job}", "true"])
    whole = time.monotonic() - began
    with capsys.disabled():
        print(
            f"\nsrun true {statistics.median(plain):.2f} s, first byte {statistics.median(ours):.2f} s, ssh true {whole:.2f} s"
        )
    assert statistics.median(ours) <= statistics.median(plain) + limit(MORE_SECONDS)
