"""A saved image has no private key of its job, and a VM booted from it does not let in whoever has such a key."""

from collections.abc import Iterator

import pytest

from tests.boot.box import Box
from tests.boot.cluster import make_cluster
from tests.boot.keys import find_keys, image_file, log_in, read_keys

SAVED = "boottest-keys"


@pytest.fixture
def saved(box: Box) -> Iterator[str]:
    """The name of an image that is there for one test."""
    yield SAVED
    box.run(["pcocc", "image", "delete", SAVED])
    box.run(["pcocc", "image", "repo", "gc", "--grace", "0"])


@pytest.mark.parametrize("options", [[], ["--clean"]], ids=["plain", "clean"])
def test_a_saved_image_has_no_private_key_and_lets_its_former_job_not_in(
    box: Box, saved: str, options: list[str]
) -> None:
    with make_cluster(box, "--pcocc-template=tiny", "-w", "n1") as cluster:
        keys = read_keys(cluster)
        assert log_in(cluster, keys.user, "alice").stdout == "alice\n", "this job's own key"
        assert cluster.vm("cat ~/.ssh/id_ed25519") + "\n" == keys.user
        done = cluster.srun(["-n1", "--pcocc-vm=vm0", "@save", f"--dest={saved}", *options], timeout=180)
        assert done.returncode == 0, done.stderr
        assert ("machine-id and cloud-init's state; --clean" in done.stderr) != bool(options), done.stderr
        assert log_in(cluster, keys.user, "alice").stdout == "alice\n", "everything works as before"
        assert find_keys(image_file(box, saved), keys) == []
    with make_cluster(box, "--pcocc-template=tiny", "-w", "n1", f"--pcocc-image={saved}") as other:
        assert cluster.job != other.job and read_keys(other).user != keys.user
        assert log_in(other, read_keys(other).user, "alice").stdout == "alice\n"
        for user in ("alice", "root"):
            refused = log_in(other, keys.user, user)
            assert refused.returncode == 255 and "Permission denied" in refused.stderr, refused.stderr
