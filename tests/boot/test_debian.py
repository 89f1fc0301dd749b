"""The same with a guest as users have it: Debian with systemd, cloud-init, OpenSSH and sudo."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.boot.box import ROOT, SHARED_NAME, Box
from tests.boot.cluster import Cluster, make_cluster


@pytest.fixture(scope="module")
def debian(box: Box) -> Iterator[Cluster]:
    """Two VMs of the debian image, on a node each."""
    subprocess.run([ROOT / "tests/box", "image", "debian"], check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=900)
    with make_cluster(box, "--pcocc-template=debian:2", "-N2", boot=False, name=SHARED_NAME) as cluster:
        done = cluster.srun("-l --pcocc-vm hostname", status=0, timeout=280)
        assert sorted(done.stdout.splitlines()) == ["0: vm0", "1: vm1"]
        yield cluster


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("id -un; id -u; id -g; pwd", "alice\n2001\n2001\n/home/alice"),
        ("sudo id -u", "0"),
        ("nproc", "2"),
        ("cat /etc/os-release | grep ^ID=", "ID=debian"),
        ("echo $PCOCC_VM_NAME $PCOCC_VM_RANK $PCOCC_NODELIST; cat $PCOCC_HOSTFILE", "vm0 0 vm[0-1]\nvm0\nvm1"),
        ("ssh vm1 hostname", "vm1"),
        ("ping -c1 -W5 vm1 >/dev/null && echo reached", "reached"),
        ("cloud-init status --wait | tail -n1", "status: done"),
    ],
)
def test_a_debian_guest_is_the_users_own(debian: Cluster, command: str, said: str) -> None:
    assert debian.vm(command) == said


def test_a_command_in_debian_ends_as_it_does(debian: Cluster) -> None:
    assert debian.srun(["--pcocc-vm=vm1", "-n1", "sh", "-c", "exit 7"]).returncode == 7


def test_more_steps_than_a_connection_may_have_sessions(debian: Cluster) -> None:
    """OpenSSH's server takes ten of them (MaxSessions, sshd_config(5)); the others get connections of their own."""
    words = ["--pcocc-vm=vm0", "-n1", "-w", debian.node_of("vm0"), "--overlap", "--mem=0", "sh", "-c", "echo on; read word; echo $word; exit 3"]
    every = [debian.start(words) for _ in range(12)]
    assert all(one.stdout is not None and one.stdout.readline() == "on\n" for one in every)
    for number, one in enumerate(every):
        out, err = one.communicate(f"{number}\n", timeout=120)
        debian.box.started.remove(one)
        assert (out, one.returncode) == (f"{number}\n", 3), err
        assert "mux" not in err and "ControlSocket" not in err
