"""A node that is busy when VMs start: root's helper ends in time, and running out of time is not taken for a verdict on KVM."""

import re
from collections.abc import Iterator

import pytest

from tests.node.node import VERDICT, Node, accelerator, read_verdict, submit

CONFIG, WRAPPER, BUSY, KEPT = "/etc/pcocc/pcocc.yaml", "/srv/qemu", "/srv/busy", "/srv/verdict"
# a QEMU for the node, whose probe of KVM makes no progress while the file BUSY is there
QEMU = f"""#!/bin/sh
case $* in *" probe,"*) [ ! -e {BUSY} ] || exec sleep 60 ;; esac
exec qemu-system-x86_64 "$@"
"""


@pytest.fixture
def slow_probe(node: Node) -> Iterator[None]:
    """A node too busy to try KVM, until BUSY is removed."""
    kept = node.read(CONFIG)
    node.out(f"cp {VERDICT} {KEPT}")
    node.write(WRAPPER, QEMU)
    node.out(f"chmod 755 {WRAPPER}; touch {BUSY}")
    node.write(CONFIG, f"{kept}\nqemu: {WRAPPER}\n")
    yield
    node.write(CONFIG, f"{kept}\n")
    node.out(f"rm -f {BUSY} {WRAPPER}; mv {KEPT} {VERDICT}")


def test_a_verdict_for_want_of_time_is_tried_again_when_the_next_vms_start(node: Node, slow_probe: None) -> None:
    first = submit(node, "tiny:1")
    [pid] = first.wait_for_qemus(1).values()
    verdict = read_verdict(node)
    assert verdict["kind"] == "tcg" and "too busy to try /dev/kvm" in verdict["why"], verdict
    assert accelerator(node, pid).startswith("tcg")
    first.end()
    node.out(f"rm {BUSY}")
    for _attempt in range(5):  # where this host is busy, too, the next probe may show nothing, either
        before, job = verdict["when"], submit(node, "tiny:1")
        [pid] = job.wait_for_qemus(1).values()
        verdict, used = read_verdict(node), accelerator(node, pid)
        job.end()
        assert verdict["when"] > before and used.startswith(verdict["kind"]), (verdict, used)
        if verdict["kind"] == "kvm":
            break
        assert verdict["again"]
    assert verdict["kind"] == "kvm"


@pytest.fixture
def spinning(node: Node) -> Iterator[None]:
    """For each CPU a process that wants all of it; each is a unit of systemd's, as slurmd is, so the scheduler prefers
    none of them.
    """
    count = int(node.out("nproc"))
    node.out(f"for one in $(seq {count}); do systemd-run --quiet --collect --unit=spinning$one sh -c 'while :; do :; done'; done")
    yield
    node.out("systemctl kill --signal=KILL 'spinning*'")


def test_a_node_is_set_up_in_time_where_all_cpus_are_taken(node: Node, spinning: None) -> None:
    job = submit(node, "tiny:1")
    job.wait_for_qemus(1)
    assert "took longer than it may" not in job.log() and "have ended" not in job.log(), job.log()
    job.end()


NFT, STUCK = "/usr/sbin/nft", "/srv/stuck"


@pytest.fixture
def stuck_nft(node: Node, spinning: None) -> Iterator[None]:
    """The same node, on which nft does nothing, and uses no CPU time, while the file STUCK is there."""
    node.out(f"cp {NFT} /srv/nft; touch {STUCK}")
    node.write("/srv/nft.sh", f'#!/bin/sh\n[ ! -e {STUCK} ] || exec sleep 1000\nexec /srv/nft "$@"\n')
    node.out(f"chmod 755 /srv/nft.sh; mount --bind /srv/nft.sh {NFT}")
    yield
    node.out(f"umount {NFT}; rm -f /srv/nft /srv/nft.sh {STUCK}")


def test_a_helper_that_gets_nowhere_is_ended_and_says_what_took_so_long(node: Node, stuck_nft: None) -> None:
    done = node.run(["srun", "--pcocc-template=tiny", "true"], "alice", timeout=600)
    said = "took longer than it may, running nft|nft did not end within 30 s on node"  # the helper's limit, or nft's own
    assert done.returncode != 0 and re.search(said, done.stderr) and "install" not in done.stderr, done.stderr
    node.out(f"rm {STUCK}; systemctl restart slurmd")  # which takes back what was begun
    node.wait_idle()
