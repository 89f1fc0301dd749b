"""pcocc-cache.socket under the node's own systemd: VMs that run from copies, several users, a copier that is killed."""

import json
from collections.abc import Iterator

import pytest

from tests.node.node import Job, Node
from tests.waiting import wait_for

CACHE = "/var/cache/pcocc"
MEGABYTES = 64  # of a layer whose copy takes seconds, or a minute where many share the host
# acts as a VM's launcher; prints what it is told as JSON
LAUNCHER = """
import json, os, re, shutil, sys, tempfile
sys.path.insert(0, open(shutil.which("pcocc")).read().partition("sys.path[:] = [")[2].split('"')[1])
from pathlib import Path
from pcocc_runtime.cache.place import locate_image
from pcocc_runtime.documents.image_cache import ImageCache
told = []
with tempfile.TemporaryDirectory() as scratch:
    path, held = locate_image(sys.argv[1], Path(scratch), 0, 1, ImageCache(1 << 30), told.append)
    links = [os.path.join(at, name) for at, _, names in os.walk(scratch + "/vm0.layers") for name in names]
    found = [os.readlink(link) for link in links]
    print(json.dumps({"told": told, "places": [re.sub("^/proc/.*/fd/.*", "descriptor", one) for one in found]}))
"""


@pytest.fixture
def layer(node: Node) -> Iterator[str]:
    """The path of a layer that everybody may read and nobody has used: a qcow2 file with noise in it."""
    name = "/srv/pcocc/images/new"
    node.out(f"qemu-img create -q -f qcow2 {name} 1G; head -c {MEGABYTES}M /dev/urandom >>{name}; chmod 644 {name}")
    digest = node.out(f"sha256sum {name}").split()[0]
    path = f"/srv/pcocc/images/data/{digest[:2]}/{digest}"
    node.out(f"mkdir -p {path.rpartition('/')[0]}; mv {name} {path}; rm -rf {CACHE}/data/{digest[:2]}/{digest}")
    node.write("/srv/launcher.py", LAUNCHER)
    yield path
    node.out(f"rm -rf {path} /srv/launcher.py; pcocc image cache clear")


def launch(node: Node, path: str, *users: str) -> list[dict[str, list[str]]]:
    """Act as launchers of several users at the same time; return what each was told and where its layers are."""
    node.out("rm -f /srv/said.*")
    ways = " & ".join(
        f"setpriv --reuid={user} --regid={user} --init-groups python3 -I /srv/launcher.py {path} >/srv/said.{user}"
        for user in users
    )
    node.out(f"({ways} & wait)")
    return [json.loads(node.read(f"/srv/said.{user}")) for user in users]


def units(node: Node) -> str:
    """Return the instances of the service that systemd knows: those that run, and those that have failed."""
    return node.out("systemctl list-units --all --plain --no-legend 'pcocc-cache@*'")


def test_vms_run_from_a_copy_that_is_the_services(node: Node, cluster: Job) -> None:
    layers = set(node.out(f"ls {CACHE}/data/*/*").split())
    for pid in node.qemus(cluster.number).values():
        assert layers & set(node.out(f"readlink /proc/{pid}/fd/*").split())
    assert node.out(f"stat -c '%U %a' {CACHE} {' '.join(layers)}").split("\n") == [
        "pcocc-cache 755",
        *["pcocc-cache 444"] * len(layers),
    ]
    for path in layers:
        assert node.out(f"sha256sum {path}").split()[0] == path.rpartition("/")[2]


def test_users_at_the_same_time_share_one_copy(node: Node, layer: str) -> None:
    copy = f"{CACHE}/{layer[layer.index('data/'):]}"
    assert [one["places"] for one in launch(node, layer, "alice", "bob")] == [[copy], [copy]]
    assert node.out(f"stat -c '%U %a %h' {copy}; ls -A {CACHE}/.tmp") == "pcocc-cache 444 1"
    assert node.out(f"sha256sum {copy}").split()[0] == layer.rpartition("/")[2]
    wait_for(lambda: not units(node), lambda: units(node))


def test_of_a_copier_that_is_killed_one_line_is_told_and_the_next_one_copies(node: Node, layer: str) -> None:
    part, name, over = f"{CACHE}/.tmp/{layer.rpartition('/')[2]}.{node.out('id -u alice')}", "pcocc-cache@*", "/srv/said.over"
    killing = f"until test -s {part} || test -e {over}; do sleep 0.01; done; systemctl kill --signal=KILL '{name}'; ls {part}"
    launching = f"setpriv --reuid=alice --regid=alice --init-groups python3 -I /srv/launcher.py {layer}"
    said = node.out(f"rm -f {over}; ({killing}) & {launching}; touch {over}; wait")
    told = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
    wrong = [line for line in told["told"] if not line.startswith("copying layer ")]
    assert told["places"] == [layer] and len(wrong) == 1 and "without an answer" in wrong[0]
    assert part in said.splitlines(), "what it left"
    wait_for(lambda: not units(node), lambda: units(node))
    assert node.out("systemctl is-active pcocc-cache.socket") == "active"
    [again] = launch(node, layer, "bob")
    copy = again["places"][0]
    assert copy.startswith(f"{CACHE}/data/") and node.out(f"sha256sum {copy}").split()[0] == layer.rpartition("/")[2]
    assert node.out(f"ls -A {CACHE}/.tmp") == ""


def test_a_private_image_stays_its_owners(node: Node, layer: str) -> None:
    node.out(f"chown alice {layer}; chmod 400 {layer}")
    [told] = launch(node, layer, "alice")
    assert told["places"] == ["descriptor"]
    done = node.run(f"setpriv --reuid=bob --regid=bob --init-groups python3 -I /srv/launcher.py {layer}")
    assert done.returncode == 1 and "cannot be read here: Permission denied" in done.stderr
    assert node.out(f"stat -c '%U %a' {CACHE}/private") == "pcocc-cache 700"
