"""`pcocc save` in a real job; test_debian.py saves a guest that writes meanwhile."""

from pcocc_runtime.documents.node_answer import NodeAnswer, decode_node_answers
from tests.boot.box import HOME, Box
from tests.boot.cluster import Cluster


def test_all_vms_of_a_job_are_saved_at_once(box: Box, cluster: Cluster) -> None:
    """tiny runs from a plain file, so a save needs a name, and one name cannot be used for several VMs."""
    done = box.run(["pcocc", "save", "-j", str(cluster.job), "vm[0-3]"], timeout=120)
    assert done.returncode != 0 and done.stderr.count("which is not in a repository") == 4, done.stderr
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


def test_an_operation_that_is_typed_goes_where_it_belongs(box: Box, cluster: Cluster) -> None:
    assert cluster.node_of("vm3") == "n2"
    done = cluster.srun("-N1 -n1 -w n1 --pcocc-vm=vm3 @save -d boottest-typed", timeout=120)
    box.run(["pcocc", "image", "delete", "boottest-typed"])
    assert done.returncode == 0 and "saved vm3 as user:boottest-typed@0" in done.stdout, done.stderr
    done = cluster.srun("--pcocc-vm=vm3 @netinfo show", status=0)
    [answer] = decode_node_answers(done.stdout.splitlines())
    assert isinstance(answer, NodeAnswer) and answer.node.name == "n2" and "tap3n0" in answer.links, done.stderr


def test_another_users_vms_are_not_saved(cluster: Cluster) -> None:
    done = cluster.box.run(["pcocc", "save", "-j", str(cluster.job), "vm0"], user="bob")
    assert done.returncode == 1 and "belongs to alice, and only its owner can save its VMs" in done.stderr
