"""Devices of a node that a real slurmctld gives to jobs are given to the right VMs, and taken back.

n1 has four cards in a made-up /sys, with files that no driver has; gres.conf counts such files (tests/boxlib/nodes.py). A
program in place of QEMU notes what the job has on the node when it is asked what it can do. Then it leaves the cards out and
is
QEMU; where nobody may lock the memory of a guest, as in many containers, the VM does not come so far.
"""

from collections.abc import Iterator

import pytest

from pcocc_runtime.documents.node import decode_node
from tests.boot.box import STATE, Box
from tests.boot.cluster import Cluster, make_cluster

GROUPS = (61, 62, 63, 64)
CARDS = {f"0000:{bus:02x}:00.0": group for bus, group in zip((0x11, 0x22, 0x33, 0x44), GROUPS, strict=True)}
FILES = " ".join(f"/dev/vfio/{group}" for group in GROUPS)
QEMU = STATE / "qemu-without-cards"
SETTINGS = {
    "pcocc": "devices: {nic: {ids: ['1af4:10ff']}}",
    "resources": "cards: {networks: [default], devices: [nic]}",
    "templates": f"cards: {{inherits: tiny, resource-set: cards, qemu-bin: {QEMU}}}\n"
    f"more: {{inherits: cards, devices: {{nic: 2}}}}\nnone: {{inherits: cards, resource-set: default}}",
}
_RELOAD = "/opt/pcocc/bin/pcocc config policy >/dev/null && touch /etc/slurm/job_submit.lua"
_SCRIPT = """#!/bin/bash
for file in /run/pcocc/[0-9]*/node.json; do
  job=${file#/run/pcocc/}
  [ ! -r $file ] || { cat $file >/tmp/boottest-${job%/*}; stat -c %U FILES >/tmp/boottest-${job%/*}.owners; }
done
kept=()
while (($#)); do
  if [[ ${2-} == vfio-pci,* ]]; then shift 2; else kept+=("$1"); shift; fi
done
exec /usr/bin/qemu-system-x86_64 "${kept[@]}"
""".replace("FILES", FILES)


def write_cards() -> str:
    """Return the shell commands that make the cards of a node."""
    lines = ["mkdir -p /dev/vfio"]
    lines += [f"mount -t tmpfs -o mode=755 cards {path}" for path in ("/sys/bus/pci/devices", "/dev/vfio")]
    for address, group in CARDS.items():
        place = f"/sys/bus/pci/devices/{address}"
        lines += [f"mkdir -p {place}/groups/{group}/devices/{address} {place}/drivers/vfio-pci"]
        lines += [f"ln -s groups/{group} {place}/iommu_group", f"ln -s drivers/vfio-pci {place}/driver"]
        lines += [f"echo 0x1af4 >{place}/vendor", f"echo 0x10ff >{place}/device", f"echo 0 >{place}/numa_node"]
        lines += [f"mknod -m 600 /dev/vfio/{group} c 240 {group}"]
    return " && ".join(lines)


@pytest.fixture(scope="module", autouse=True)
def cards(box: Box) -> Iterator[None]:
    """A site that gives cards to VMs, of which n1 has four."""
    QEMU.write_text(_SCRIPT)
    QEMU.chmod(0o755)
    files = [f"/etc/pcocc/{name}.yaml" for name in SETTINGS]
    keep = " && ".join(f"cp -p {file} {file}.kept" for file in files)
    add = " && ".join(f"cat >>/etc/pcocc/{name}.yaml <<'END'\n{text}\nEND\ntrue" for name, text in SETTINGS.items())
    back = "; ".join(f"cat {file}.kept >{file}; rm {file}.kept" for file in files)
    gone = "umount /dev/vfio /sys/bus/pci/devices; rmdir /dev/vfio 2>/dev/null; true"
    with box.changed(f"{keep} && {add} && {_RELOAD}", f"{back}; {_RELOAD}"), box.changed(write_cards(), gone, node="n1"):
        yield
    QEMU.unlink()


def owners(box: Box) -> list[str]:
    """Return the owners of the files of n1's cards."""
    return box.out(f"stat -c %U {FILES}", user="root", node="n1").split()


def boot(cluster: Cluster) -> tuple[dict[int, list[str]], list[str]]:
    """Boot a job's VMs; return which cards they had, by rank, and who owned the files then."""
    done = cluster.srun("--pcocc-vm true")
    assert done.returncode == 0 or "must pin" in done.stderr, done.stderr
    noted = STATE / f"nodes/n1/tmp/boottest-{cluster.job}"
    node = decode_node(noted.read_bytes(), cluster.job)
    had = {rank: [one.address for one in every] for rank, every in node.functions.items()}
    found = noted.with_name(f"{noted.name}.owners").read_text().split()
    for path in noted.parent.glob(f"{noted.name}*"):
        path.unlink()
    return had, found


def test_each_vm_has_its_own_of_what_slurm_gave_its_job(box: Box) -> None:
    first, second, third, _ = CARDS
    with (
        make_cluster(box, "--pcocc-template=cards:2", "-wn1", "--gres=nic:2", boot=False) as one,
        make_cluster(box, "--pcocc-template=cards,none:1", "-wn1", "--gres=nic:2", "-N1", boot=False) as other,
    ):
        assert boot(other) == ({0: [third]}, ["root", "root", "alice", "root"])
        assert boot(one) == ({0: [first], 1: [second]}, ["alice", "alice", "root", "root"])
    for cluster in (one, other):
        box.ensure_released(cluster.job)
    assert owners(box) == ["root"] * 4
    with make_cluster(box, "--pcocc-template=more", "-wn1", "--gres=nic:3", boot=False) as cluster:
        assert boot(cluster) == ({0: [first, second, third]}, ["alice"] * 3 + ["root"])
    box.ensure_released(cluster.job)
    assert owners(box) == ["root"] * 4


def test_who_asks_slurm_for_too_few_is_told_at_submission(box: Box) -> None:
    for words, needed, given in ((["cards:2", "-wn1", "--gres=nic:1", "-N1"], 2, 1), (["more"], 3, 0)):
        before = box.job_count()
        done = box.run(["sbatch", f"--pcocc-template={words[0]}", *words[1:], "--wrap", "true"])
        assert done.returncode != 0 and f"the VMs need {needed} devices of GRES nic, but the job asks for {given}" in done.stderr
        assert box.job_count() == before


def test_who_forges_what_a_template_wants_gets_what_slurm_gave_and_no_more(box: Box) -> None:
    """A user forges the text in the job's environment: its devices are not handed over."""
    with make_cluster(box, "--pcocc-template=none", "-wn1", "--gres=nic:1", boot=False) as cluster:
        for sets, said in (("default:1:nic::2", "the job has 1 devices of GRES nic"), ("default:1:gpu::1", "no device 'gpu'")):
            done = cluster.srun(["--overlap", "-n1", f"--pcocc-boot={sets}", "true"])
            assert done.returncode != 0 and said in done.stderr, done.stderr
    box.ensure_released(cluster.job)
    assert owners(box) == ["root"] * 4


def test_the_admin_sees_the_cards_and_their_line(box: Box) -> None:
    shown = box.run("/opt/pcocc/bin/pcocc node devices", user="root", node="n1", status=0).stdout
    assert f"Name=nic File={','.join(f'/dev/vfio/{group}' for group in GROUPS)}\n" in shown
    assert [line.split()[3] for line in shown.splitlines() if line.startswith("nic ")] == [*CARDS]
