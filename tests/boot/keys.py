"""The ssh keys of a job in an attacker's hands: copied while it runs, looked for in images, and tried on VMs of another job."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.boot.box import Box, Done
from tests.boot.cluster import Cluster


class Keys(NamedTuple):
    """The private keys of a job, in OpenSSH's format."""

    user: str
    host: str


def read_keys(cluster: Cluster, node: str = "n1") -> Keys:
    """Return the private keys of a job, of which its seed has the host's."""
    directory = cluster.box.root(node, f"/run/pcocc/{cluster.job}")
    [seed] = directory.glob("vm*/seed.iso")
    found = re.findall(
        rb"-----BEGIN OPENSSH PRIVATE KEY-----\n[A-Za-z0-9+/=\n]*-----END OPENSSH PRIVATE KEY-----\n",
        seed.read_bytes(),
    )
    user = (directory / "key").read_text()
    [host] = {one.decode() for one in found} - {user}
    return Keys(user, host)


def find_keys(disk: Path, keys: Keys) -> list[str]:
    """Return the lines of private keys that are anywhere on a disk, which is written out whole."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        raw = Path(directory, "raw")
        subprocess.run(["qemu-img", "convert", "-O", "raw", disk, raw], check=True)
        lines = [line for key in keys for line in key.splitlines()[1:-1] if len(line) > 40]
        assert lines
        return [
            line for line in lines if subprocess.run(["grep", "-qaF", line, raw], check=False).returncode == 0
        ]


def image_file(box: Box, name: str) -> Path:
    """Return the file of an image of alice's."""
    return Path(json.loads(box.out(["pcocc", "image", "show", "--json", name]))[-1]["path"])


def log_in(cluster: Cluster, key: str, user: str, address: str = "10.200.0.1") -> Done:
    """Try a key on vm0 of a job, from inside the job's network."""
    box, node = cluster.box, cluster.node_of("vm0")
    options = "-F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    options += " -o IdentitiesOnly=yes -o ConnectTimeout=20"
    script = f"f=$(mktemp); cat >$f; ssh {options} -i $f {user}@{address} id -un; s=$?; rm $f; exit $s"
    return box.run(
        ["nsenter", f"--net=/run/netns/pcocc-{cluster.job}", "sh", "-c", script],
        user="root",
        node=node,
        input=key,
    )
