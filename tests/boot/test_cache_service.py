"""The image cache's service as systemd itself starts it, in the sandbox that its unit makes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pcocc_runtime.images import repository, writing
from pcocc_runtime.images.images import Found
from pcocc_runtime.images.references import Repo
from tests.boot.box import Box
from tests.boot.machine import PREFIX, Machine
from tests.images.disks import make_disk, save

ALICE, BOB, CAROL, GROUP = 65532, 65531, 65530, 65000
LAUNCHER = f"""
import hashlib, json, os, sys
sys.path.insert(0, "{PREFIX}/lib/pcocc")
from pathlib import PurePath
from pcocc_runtime.cache.place import locate_image
from pcocc_runtime.documents.image_cache import ImageCache
cache = ImageCache(1 << 30)
path, held = locate_image(sys.argv[1], PurePath(sys.argv[2]), 0, 1, cache, lambda text: print(text, file=sys.stderr))
layers = {{name: hashlib.sha256(open(os.path.join(at, name), "rb").read()).hexdigest()
          for at, _, names in os.walk(os.path.join(sys.argv[2], "vm0.layers")) for name in names}}
print(json.dumps({{"layers": layers, "places": [os.readlink(f"/proc/self/fd/{{fd}}") for fd in held]}}))
"""


@pytest.fixture
def machine(box: Box, tmp_path: Path) -> Iterator[Machine]:
    """A machine with what the box has installed."""
    with Machine(tmp_path / "systemd") as one:
        yield one


@pytest.fixture
def image(machine: Machine) -> Found:
    """An image in /home, which the service's sandbox hides: its lower layer is everybody's, the upper one a group's."""
    machine.path("/home/images").mkdir(mode=0o755)
    repo = Repo("site", str(machine.path("/home/images")))
    disk = make_disk(machine.path("/tmp/base.qcow2"))
    with writing.open_repo_work(repo) as work:
        shutil.copy(disk, work.path / "layer")
        base = Found(repo, writing.add_revision(work, "base", work.path / "layer", None))
    top = save(repo, "base", base, 1)
    top.path.chmod(0o440)
    os.chown(top.path, ALICE, GROUP)
    return top


def launch(machine: Machine, image: Found, uid: int, *groups: int) -> subprocess.CompletedProcess[str]:
    """Be a launcher of a user's."""
    scratch = machine.path(f"/tmp/scratch{uid}")
    scratch.mkdir(mode=0o700, exist_ok=True)
    os.chown(scratch, uid, uid)
    path = f"/home/images/{image.path.relative_to(image.repo.path)}"
    return machine.run("/usr/bin/python3", "-IS", "-c", LAUNCHER, path, f"/tmp/scratch{uid}", uid=uid, groups=groups)


def test_systemd_starts_it_for_those_who_may_read(machine: Machine, image: Found) -> None:
    assert machine.run("systemctl", "is-active", "pcocc-cache.socket").stdout == "active\n"
    seen = []
    for uid, groups in ((ALICE, ()), (BOB, (GROUP,))):
        done = launch(machine, image, uid, *groups)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr + machine.log.read_text()
        told = json.loads(done.stdout)
        assert told["layers"] == {layer: layer for layer in image.revision.layers}
        seen.append({path for path in told["places"] if "/cache/" in path})
    base, top = image.revision.layers
    assert seen[0] == seen[1] and len(seen[0]) == 2
    (private,) = machine.path("/var/cache/pcocc/private/data").glob("*/*")
    assert private.name.startswith(top) and [path.name for path in machine.path("/var/cache/pcocc/data").glob("*/*")] == [base]
    owner = machine.run(
        "stat", "-c", "%U %a", "/var/cache/pcocc", "/var/cache/pcocc/private",
        f"/var/cache/pcocc/data/{base[:2]}/{base}",
    )
    assert owner.stdout == "pcocc-cache 755\npcocc-cache 700\npcocc-cache 444\n"
    refused = launch(machine, image, CAROL)
    assert refused.returncode == 1 and "cannot be read here: Permission denied" in refused.stderr
    assert "failed" not in machine.run("systemctl", "--no-pager", "list-units", "--all", "pcocc-cache*").stdout


def test_a_damaged_layer_is_told_through_systemd(machine: Machine, image: Found) -> None:
    path = repository.layer_file(image.repo, image.revision.layers[0])
    path.chmod(0o644)
    with path.open("r+b") as stream:
        stream.seek(300_000)
        stream.write(b"x" * 16)
    done = launch(machine, image, ALICE)
    assert done.returncode == 1 and f"layer {path.name} is damaged" in done.stderr
    assert list(machine.path("/var/cache/pcocc").glob("data/*/*")) == []
