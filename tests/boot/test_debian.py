"""A virtual cluster of guests as users have them: Debian with systemd, cloud-init, OpenSSH and sudo; and a save while the
guest writes.
"""

import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.box import HOME, ROOT, SHARED_NAME, Box
from tests.boot.cluster import Cluster, make_cluster
from tests.boot.keys import find_keys, image_file, log_in, read_keys
from tests.waiting import limit

# a list of each kind that is also in pcocc's own vendor-data
USER_DATA = """\
#cloud-config
write_files:
- {path: /etc/mine, content: "a file of mine\\n"}
- {path: /etc/ssh/ssh_known_hosts, content: "# hosts of mine\\n", append: true}
users:
- default
- {name: bob, uid: 3001}
- {name: alice, groups: [video]}
mounts:
- [tmpfs, /scratch, tmpfs, size=1m]
- [moved]
- [moved, /srv/moved, virtiofs]
bootcmd:
- id -u alice >/run/mine 2>&1 || getent group 2001 >/run/mine
"""
IMAGE = "boottest-debian"
LEASES = "--dhcp-range=192.168.77.10,192.168.77.99 --dhcp-option=3 --leasefile-ro --no-ping"  # and no route
FILE = "/var/lib/pcocc-box/images/debian.qcow2"
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
    subprocess.run(
        [ROOT / "tests/box", "image", "debian"], check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=900
    )
    box.run(["pcocc", "image", "delete", IMAGE])
    box.out(["pcocc", "image", "import", FILE, IMAGE], timeout=300)
    yield IMAGE
    box.run(["pcocc", "image", "delete", IMAGE])
    box.run(["pcocc", "image", "repo", "gc", "--grace", "0"])


@pytest.fixture(scope="module")
def exported(box: Box) -> Iterator[Path]:
    """A directory of alice's with two to export and a cloud-config."""
    path = HOME / f".boottest-{uuid.uuid4().hex}"
    for name in ("data", "moved"):
        (path / name).mkdir(parents=True)
        (path / name / "greeting").write_text(f"{name} from outside\n")
    (path / "user-data").write_text(USER_DATA)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def lan(box: Box) -> Iterator[None]:
    """A bridge of the site on each node, with the site's DHCP server."""
    dnsmasq = (
        f"dnsmasq --conf-file=/dev/null --port=0 --interface=site0 --bind-interfaces {LEASES}"
        " --pid-file=/run/site-dnsmasq.pid"
    )
    do = f"ip link add site0 type bridge && ip addr add 192.168.77.1/24 dev site0 && ip link set site0 up && {dnsmasq}"
    undo = "kill $(cat /run/site-dnsmasq.pid); ip link delete site0"
    with box.changed(do, undo, "n1"), box.changed(do, undo, "n2"):
        yield


@pytest.fixture(scope="module")
def debian(box: Box, image: str, exported: Path, lan: None) -> Iterator[Cluster]:
    """Two VMs of the debian image, on a node each, with a cloud-config of alice's and an interface on a bridge of the site."""
    options = [f"--pcocc-image={image}", f"--pcocc-user-data={exported}/user-data"]
    # with the template's two, four emulated CPUs would spin for each other's locks on two real ones
    options += ["--cpus-per-task=1"]
    options += [f"--pcocc-mount={tag}={exported}/{tag},type=virtiofs" for tag in ("data", "moved")]
    with make_cluster(box, "--pcocc-template=sited:2", "-N2", *options, boot=False, name=SHARED_NAME) as cluster:
        done = cluster.srun("-l --pcocc-vm hostname", status=0, timeout=300)
        assert sorted(done.stdout.splitlines()) == ["0: vm0", "1: vm1"]
        yield cluster


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("id -un; id -u; id -g; pwd", "alice\n2001\n2001\n/home/alice"),
        ("sudo id -u", "0"),
        ("nproc", "1"),
        ("cat /etc/os-release | grep ^ID=", "ID=debian"),
        ("echo $PCOCC_VM_NAME $PCOCC_VM_RANK $PCOCC_NODELIST; cat $PCOCC_HOSTFILE", "vm0 0 vm[0-1]\nvm0\nvm1"),
        ("ssh vm1 hostname", "vm1"),
        ("ping -c1 -W5 vm1 >/dev/null && echo reached", "reached"),
        ("ping -6 -c1 -W5 vm1 >/dev/null && echo reached", "reached"),
        ("cloud-init status --wait | tail -n1", "status: done"),
        ("cat /etc/mine /run/mine; tail -n1 /etc/ssh/ssh_known_hosts", "a file of mine\nalice:x:2001:\n# hosts of mine"),
        ("id bob; id -Gn debian | grep -ow sudo; id -Gn", "uid=3001(bob) gid=3001(bob) groups=3001(bob)\nsudo\nalice video"),
        ("cat /mnt/data/greeting /srv/moved/greeting; ls /mnt", "data from outside\nmoved from outside\ndata"),
        ("findmnt -no FSTYPE /scratch; sudo systemctl --failed --no-legend", "tmpfs"),
    ],
)
def test_a_debian_guest_is_the_users_own(debian: Cluster, command: str, said: str) -> None:
    assert debian.vm(command) == said


def test_an_interface_on_a_bridge_of_the_site_is_configured_by_the_sites_dhcp_server(box: Box, debian: Cluster) -> None:
    has_address = "ip -4 -o addr show eth1 | grep -o 'inet 192[.]168[.]77[.][0-9]*'"
    for vm in ("vm0", "vm1"):
        debian.vm(f"until {has_address}; do sleep 0.1; done", vm)
    done = box.run(["pcocc", "network", "check", "-j", str(debian.job)])
    assert "FAILED" not in done.stdout and "site: its devices are up on 2 nodes" in done.stdout, done.stdout + done.stderr
    assert "site: bridged, MTU 1500, 2 VMs" in box.out(["pcocc", "network", "show", "-j", str(debian.job)])


def test_a_command_in_debian_ends_as_it_does(debian: Cluster) -> None:
    assert debian.srun(["--pcocc-vm=vm1", "-n1", "sh", "-c", "exit 7"]).returncode == 7


def test_more_steps_than_a_connection_may_have_sessions(debian: Cluster) -> None:
    """OpenSSH's server takes ten of them (MaxSessions, sshd_config(5)); the others get connections of their own."""
    words = [
        "--pcocc-vm=vm0", "-n1", "-w", debian.node_of("vm0"), "--overlap", "--mem=0", "sh", "-c",
        "echo on; read word; echo $word; exit 3",
    ]
    every = [debian.start(words) for _ in range(12)]
    assert all(one.stdout is not None and one.stdout.readline() == "on\n" for one in every)
    for number, one in enumerate(every):
        out, err = one.communicate(f"{number}\n", timeout=limit(120))
        debian.box.started.remove(one)
        assert (out, one.returncode) == (f"{number}\n", 3), err
        assert "mux" not in err and "ControlSocket" not in err


def test_a_journal_that_is_written_meanwhile_is_saved_whole(box: Box, debian: Cluster) -> None:
    """The real agent, a writer that does not stop, and a VM that boots from what was saved."""
    home = "HOME=/var/journal;"
    debian.vm(f"sudo mkdir -p /var/journal; sudo chown $(id -u) /var/journal; echo '{WRITER}' >/var/journal/writer")
    unit = "sudo systemd-run --quiet --unit=writer env HOME=/var/journal sh /var/journal/writer"  # a step's own would end with it
    debian.vm(f"{unit}; {home} until [ \"$({COUNT})\" -gt 30 ]; do sleep 0.1; done 2>/dev/null")
    before = int(debian.vm(f"{home} {COUNT}"))
    done = box.run(["pcocc", "save", "-j", str(debian.job), "--safe", "vm0"], timeout=300)
    assert done.returncode == 0 and "frozen" not in done.stderr, done.stderr
    assert done.stdout.startswith(f"saved vm0 as user:{IMAGE}@1 (")
    after = int(debian.vm(f"{home} {COUNT}"))
    assert 0 < before < after, "the guest went on"
    debian.vm("sudo systemctl stop writer")
    with make_cluster(box, "--pcocc-template=debian", f"--pcocc-image={IMAGE}@1", boot=False) as again:
        again.srun("--pcocc-vm true", status=0, timeout=300)
        assert before <= int(again.vm(f"{home} {CHECK}")) <= after
        assert "recovery complete" not in again.vm("sudo dmesg | grep -i ext4 || true")


IDENTITY = "cat /etc/machine-id; sudo cat /etc/ssh/ssh_host_ed25519_key.pub; cat /var/lib/cloud/data/instance-id"
LINKS = "readlink ~/.ssh/id_ed25519; sudo readlink /root/.ssh/id_ed25519 /etc/ssh/ssh_host_ed25519_key; "
LINKS += "df --output=fstype /run/pcocc-keys | tail -n1"


def test_a_debian_guest_is_saved_without_keys_and_clean(box: Box, debian: Cluster) -> None:
    """The job's keys are in memory. A cleaned image boots as a new machine, and lets nobody in with the former job's key."""
    keys = read_keys(debian)
    assert debian.vm(LINKS) == "/run/pcocc-keys/2001\n/run/pcocc-keys/0\n/run/pcocc-keys/host\ntmpfs"
    assert debian.vm("cat ~/.ssh/id_ed25519") + "\n" == keys.user and log_in(debian, keys.user, "alice").stdout == "alice\n"
    before = debian.vm(IDENTITY)
    try:
        for name, options in (("boottest-plain", []), ("boottest-clean", ["--clean"])):
            done = debian.srun(["-n1", "--pcocc-vm=vm0", "@save", f"--dest={name}", *options], timeout=400)
            assert done.returncode == 0, done.stderr
            assert find_keys(image_file(box, name), keys) == []
        assert debian.vm(IDENTITY) == before, "taken back"
        options = ["--pcocc-image=boottest-clean", "-w", "n1", "--cpus-per-task=1"]
        with make_cluster(box, "--pcocc-template=debian", *options, boot=False) as again:
            again.srun("--pcocc-vm true", status=0, timeout=300)
            after = again.vm(f"cloud-init status --wait >/dev/null; {IDENTITY}")
            assert not {*before.splitlines()} & {*after.splitlines()} and len(after.splitlines()) == 3, after
            for user in ("alice", "root", "debian"):
                refused = log_in(again, keys.user, user)
                assert refused.returncode == 255 and "Permission denied" in refused.stderr, refused.stderr
            assert log_in(again, read_keys(again).user, "alice").stdout == "alice\n"
    finally:
        for name in ("boottest-plain", "boottest-clean"):
            box.run(["pcocc", "image", "delete", name])
