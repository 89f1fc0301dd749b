"""`pcocc save` in a real job: the real agent, a writer that does not stop, and a VM that boots from what was saved."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.boot.box import HOME, ROOT, Box
from tests.boot.cluster import Cluster, make_cluster

IMAGE = "boottest-save"
DEBIAN = "/var/lib/pcocc-box/images/debian.qcow2"
# each record has the sum of those before it
WRITER = """n=0; s=0
while :; do
  n=$((n+1)); s=$(echo "$s $n" | md5sum | head -c32); echo "$n $s" >>$HOME/journal
  [ $((n % 20)) -ne 0 ] || sync
done
"""
CHECK = """n=0; s=0
while read -r a b; do
  n=$((n+1)); s=$(echo "$s $n" | md5sum | head -c32)
  [ "$a $b" = "$n $s" ] || { echo "record $n is wrong"; exit 1; }
done <$HOME/journal
echo $n
"""
COUNT = "tail -n1 $HOME/journal | cut -d' ' -f1"


@pytest.fixture(scope="module")
def image(box: Box) -> Iterator[str]:
    """Debian in a repository of alice's."""
    subprocess.run([ROOT / "tests/box", "image", "debian"], check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=900)
    box.run(["pcocc", "image", "delete", IMAGE])
    box.out(["pcocc", "image", "import", DEBIAN, IMAGE], timeout=300)
    yield IMAGE
    box.run(["pcocc", "image", "delete", IMAGE])
    box.run(["pcocc", "image", "repo", "gc", "--grace", "0"])


def test_a_journal_that_is_written_meanwhile_is_saved_whole(box: Box, image: str) -> None:
    with make_cluster(box, "--pcocc-template=debian", f"--pcocc-image={image}", boot=False) as cluster:
        cluster.srun("--pcocc-vm true", status=0, timeout=300)
        home = "sudo mkdir -p /var/journal && sudo chown $(id -u) /var/journal"
        cluster.vm(home, vms="vm0")
        cluster.vm(f"HOME=/var/journal; echo '{WRITER}' >/var/journal/writer", vms="vm0")
        cluster.vm("sudo systemd-run --quiet env HOME=/var/journal sh /var/journal/writer; sleep 5", vms="vm0")  # a step's own would end with it
        before = int(cluster.vm(f"HOME=/var/journal; {COUNT}", vms="vm0"))
        done = box.run(["pcocc", "save", "-j", str(cluster.job), "--safe", "vm0"], timeout=300)
        assert done.returncode == 0 and "note" not in done.stderr, done.stderr
        assert done.stdout.startswith(f"saved vm0 as user:{image}@1 (")
        after = int(cluster.vm(f"HOME=/var/journal; {COUNT}", vms="vm0"))
        assert 0 < before < after, "the guest went on"
    with make_cluster(box, "--pcocc-template=debian", f"--pcocc-image={image}@1", boot=False) as again:
        again.srun("--pcocc-vm true", status=0, timeout=300)
        counted = int(again.vm(f"HOME=/var/journal; {CHECK}"))
        assert before <= counted <= after
        assert "recovery complete" not in again.vm("sudo dmesg | grep -i ext4 || true")


def test_all_vms_of_a_job_are_saved_at_once(box: Box, cluster: Cluster) -> None:
    """Tiny runs from a plain file there, so a name is needed, and one name is not for several."""
    done = box.run(["pcocc", "save", "-j", str(cluster.job), "vm[0-3]"], timeout=120)
    assert done.returncode != 0 and done.stderr.count("which is in no repository") == 4, done.stderr
    done = box.run(["pcocc", "save", "-j", str(cluster.job), "-d", "boottest-tiny", "vm[0-3]"])
    assert done.returncode == 1 and "several VMs cannot be saved as one image" in done.stderr
    try:
        done = box.run(["pcocc", "save", "-j", str(cluster.job), "-d", "boottest-tiny", "vm3"], timeout=120)
        assert done.returncode == 0 and "saved vm3 as user:boottest-tiny@0" in done.stdout, done.stderr
        assert cluster.vm("echo on", vms="vm3") == "on"
    finally:
        box.run(["pcocc", "image", "delete", "boottest-tiny"])


def test_a_save_that_is_cancelled_leaves_nothing(box: Box, cluster: Cluster) -> None:
    cluster.vm("dd if=/dev/urandom of=/big bs=1M count=64; sync", vms="vm2")
    saver = box.start(["pcocc", "save", "-j", str(cluster.job), "-d", "boottest-tiny", "vm2"])
    step = cluster.other_step()
    box.run(["scancel", "--signal=KILL", step])
    done = box.finish(saver)
    listed = box.out(["pcocc", "image", "list", "--names"]).split()
    assert (done.returncode == 0) == ("boottest-tiny" in listed)
    box.run(["pcocc", "image", "delete", "boottest-tiny"])
    assert cluster.vm("rm /big; sync; echo on", vms="vm2") == "on"
    again = box.run(["pcocc", "save", "-j", str(cluster.job), "-d", "boottest-tiny", "vm2"], timeout=120)
    assert again.returncode == 0, again.stderr
    box.run(["pcocc", "image", "delete", "boottest-tiny"])
    assert not list((HOME / ".pcocc/images/.tmp").glob(".work-*"))


def test_another_users_vms_are_not_saved(cluster: Cluster) -> None:
    done = cluster.box.run(["pcocc", "save", "-j", str(cluster.job), "vm0"], user="bob")
    assert done.returncode == 1 and "is alice's, who alone can save its VMs" in done.stderr
