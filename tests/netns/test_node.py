"""Root's node helper with a real kernel: what it makes works, and all of it is removed again."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.netns.fabric import Guest, Node, release, request
from tests.waiting import limit

Pair = tuple[Node, Node]


@pytest.fixture
def stepd() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for slurmstepd: what is set up for it may be reclaimed once it is gone."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def set_up(nodes: Pair, stepd: subprocess.Popen[bytes], job: int = 12) -> None:
    for index, node in enumerate(nodes):
        done = node.helper("setup", request(job, index, stepd.pid))
        taps = [f"tap {rank} tap{rank}n0" for rank in (2 * index, 2 * index + 1)]
        assert done.stdout.splitlines() == [*taps, "queues 8"]


def test_vms_of_two_nodes_reach_each_other_by_name(nodes: Pair, stepd: subprocess.Popen[bytes]) -> None:
    set_up(nodes, stepd)
    here, there = Guest(nodes[0], 12, 0), Guest(nodes[1], 12, 3)
    said = here.dhcp()
    assert "ip=10.200.0.1" in said and "hostname=vm0" in said and "mtu=1450" in said and "search=vcluster" in said
    assert "ip=10.200.0.4" in there.dhcp()
    here.run("ping", "-c1", "-W5", "10.200.0.4")
    answer = here.run("busybox", "nslookup", "vm3.vcluster", "10.200.255.254").stdout
    assert "10.200.0.4" in answer
    assert "vm3.vcluster" in here.run("busybox", "nslookup", "10.200.0.4", "10.200.255.254").stdout


def test_every_vm_is_reachable_from_every_node(nodes: Pair, stepd: subprocess.Popen[bytes]) -> None:
    set_up(nodes, stepd)
    for guest in (Guest(nodes[0], 12, 1), Guest(nodes[1], 12, 2)):
        guest.dhcp()
    for node in nodes:
        for address in ("10.200.0.2", "10.200.0.3"):
            node.in_job(12, "ping", "-c1", "-W5", address)


def test_services_of_a_node_never_cross_the_tunnel(nodes: Pair, stepd: subprocess.Popen[bytes]) -> None:
    set_up(nodes, stepd)
    stranger = Guest(nodes[0], 12, 2)  # vm2's MAC, known to the other node's DHCP server only
    assert (
        stranger.run(
            "busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-t", "2", "-T", "1", "-s", "/bin/true", check=False
        ).returncode
        != 0
    )


def test_two_jobs_with_the_same_addresses_never_meet(nodes: Pair, stepd: subprocess.Popen[bytes]) -> None:
    set_up(nodes, stepd, 12)
    set_up(nodes, stepd, 13)
    mine = Guest(nodes[0], 12, 0)
    mine.dhcp()
    other = Guest(nodes[1], 13, 3)
    other.dhcp()
    assert mine.run("ping", "-c1", "-W1", "10.200.0.4", check=False).returncode != 0


def test_a_ping_needs_no_capability_in_the_jobs_namespace(nodes: Pair, stepd: subprocess.Popen[bytes]) -> None:
    """Debian 13's ping has no capability, and in a new network namespace no group may ping."""
    set_up(nodes, stepd)
    nodes[0].in_job(
        12, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "ping", "-c1", "-W1",
        "10.200.255.254",
    )


def test_release_leaves_nothing_and_may_run_twice(nodes: Pair, stepd: subprocess.Popen[bytes]) -> None:
    set_up(nodes, stepd)
    for node in nodes:
        node.helper("release", release(12))
        node.helper("release", release(12))
        assert node.leftovers() == ""


def test_setup_may_run_twice(nodes: Pair, stepd: subprocess.Popen[bytes]) -> None:
    set_up(nodes, stepd)
    set_up(nodes, stepd)
    nodes[0].helper("release", release(12))
    assert nodes[0].leftovers() == ""


@pytest.mark.parametrize("verb", ["start", "setup"])
def test_what_a_killed_slurmstepd_left_is_reclaimed(nodes: Pair, stepd: subprocess.Popen[bytes], verb: str) -> None:
    node = nodes[0]
    dead = subprocess.Popen(["sleep", "600"])
    node.helper("setup", request(12, 0, dead.pid))
    dead.kill()
    dead.wait()
    node.helper(verb, request(14, 0, stepd.pid) if verb == "setup" else "")
    if verb == "setup":
        assert "pcocc-12" not in node.leftovers()
        node.helper("release", release(14))
    assert node.leftovers() == ""


def test_a_live_job_is_left_alone_at_slurmd_start(nodes: Pair, stepd: subprocess.Popen[bytes]) -> None:
    set_up(nodes, stepd)
    nodes[0].helper("start", "")
    guest = Guest(nodes[0], 12, 0)
    assert "ip=10.200.0.1" in guest.dhcp()


_GUARD_TWICE = """
import sys
from pcocc_runtime.documents.work import Act
from pcocc_runtime.networks.nft_guard import plan_rules
from pcocc_runtime.node.apply import run_batch
for line, done in plan_rules(*eval(sys.argv[1])):
    run_batch(Act("ip", False, line, done))
"""


def test_jobs_that_find_the_same_rules_missing_all_add_them(nodes: Pair, stepd: subprocess.Popen[bytes]) -> None:
    """Two tasks of an array may begin at the same time, and each may have read the rules before the other's were there."""
    node = nodes[0]
    for _job in range(2):
        node.run(sys.executable, "-c", _GUARD_TWICE, "('[]', ['eth0'])")
    shown = node.run("ip", "-json", "rule", "show").stdout
    assert "eth0" in [one.get("iif") for one in json.loads(shown)] and len(json.loads(shown)) == 8
    for _job in range(2):  # and when the host has become a router
        node.run(sys.executable, "-c", _GUARD_TWICE, repr((shown, None)))
    assert "eth0" not in node.run("ip", "rule", "show").stdout
    set_up(nodes, stepd)
    bad = _GUARD_TWICE.replace("False, line,", 'False, "rule add pref x\\n",')
    assert "NodeError" in node.run(sys.executable, "-c", bad, "('[]', None)", check=False).stderr


def test_the_packages_removal_leaves_nothing_of_live_jobs_and_of_the_node(nodes: Pair, stepd: subprocess.Popen[bytes]) -> None:
    node = nodes[0]
    node.run("sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward")
    node.helper("start", "")
    set_up(nodes, stepd, 12)
    set_up(nodes, stepd, 13)
    forwarding = "/proc/sys/net/ipv4/conf/eth0/forwarding"
    assert (node.run("cat", forwarding).stdout, "table inet pcocc" in node.run("nft", "list", "tables").stdout) == ("1\n", True)
    done = node.helper("remove", "")
    assert done.stderr == "pcocc: job 12 loses its VMs\npcocc: job 13 loses its VMs\n" and done.stdout == ""
    assert node.leftovers() == "" and node.run("nft", "list", "tables").stdout == ""
    assert node.run("cat", forwarding).stdout == "0\n"
    assert "pcocc" not in node.run("ls", "/run", "/run/netns").stdout and node.run("ls", "/var/lib/pcocc/scratch").stdout == ""
    node.helper("release", release(13))  # by the slurmstepd of a step that has ended with it
    assert "pcocc" not in node.run("ls", "/run").stdout
    assert node.helper("remove", "").stderr == ""


def test_a_job_that_cannot_be_released_is_told_of_and_holds_up_no_other(nodes: Pair, stepd: subprocess.Popen[bytes]) -> None:
    node = nodes[0]
    set_up(nodes, stepd, 12)
    set_up(nodes, stepd, 13)
    node.run("mkdir", "/run/pcocc/.state/12.x")  # a directory stands for something that cannot be deleted
    done = node.helper("remove", "", check=False)
    assert done.returncode == 1 and "pcocc: job 12 cannot be released: " in done.stderr
    assert "13" not in node.leftovers()


def test_disks_left_by_a_reboot_are_deleted_at_slurmd_start_and_nothing_of_others(
    nodes: Pair, stepd: subprocess.Popen[bytes]
) -> None:
    """Others have directories in the site's scratch, too; some are named after jobs, for example by a prolog."""
    set_up(nodes, stepd)
    others = ("98", "99/of-a-prolog", "12", "\N{SUPERSCRIPT TWO}", "mine")
    own = "pcocc/99"
    nodes[0].run(
        "sh", "-ec", 'cd /var/lib/pcocc/scratch; for one; do mkdir -p "$one"; touch "$one/file"; done', "sh", *others,
        own,
    )
    nodes[0].helper("start", "")
    assert nodes[0].run("ls", "/var/lib/pcocc/scratch/pcocc").stdout.split() == ["12"]
    nodes[0].helper("release", release(12))
    files = nodes[0].run("find", "/var/lib/pcocc/scratch", "-name", "file").stdout.split()
    assert sorted(files) == sorted(f"/var/lib/pcocc/scratch/{one}/file" for one in others)


def test_of_two_boot_steps_the_older_has_the_node(nodes: Pair, stepd: subprocess.Popen[bytes]) -> None:
    node = nodes[0]
    node.helper("setup", request(12, 0, stepd.pid, step=3))
    younger = node.helper("setup", request(12, 0, stepd.pid, step=4), check=False)
    assert (younger.returncode, younger.stdout) == (3, "conflict 3\n")
    older = node.helper("setup", request(12, 0, stepd.pid, step=2), check=False)
    assert (older.returncode, older.stdout) == (4, "conflict 3\n")
    node.helper("release", release(12, step=4))  # the end of the younger step does not end the older one
    assert "pcocc-12" in node.leftovers()


@pytest.mark.parametrize("last", [2, 3])
def test_an_older_boot_step_takes_over_the_namespace(nodes: Pair, last: int) -> None:
    node = nodes[0]
    steps = {number: subprocess.Popen(["sleep", "600"]) for number in (2, 3)}
    node.helper("setup", request(12, 0, steps[3].pid, step=3))
    inode = node.run("stat", "-c", "%i", "/run/netns/pcocc-12").stdout
    node.helper("setup", request(12, 0, steps[2].pid, step=2), check=False)
    for number in (3, 2) if last == 2 else (2, 3):
        if number == 2 and last == 2:
            assert node.helper("setup", request(12, 0, steps[2].pid, step=2)).stdout.startswith("tap 0")
            assert node.run("stat", "-c", "%i", "/run/netns/pcocc-12").stdout == inode
            assert "tap0n0" in node.in_job(12, "ip", "-br", "link").stdout
        node.helper("release", release(12, step=number))
        steps[number].kill()
        steps[number].wait()
    assert node.leftovers() == ""


def test_a_directory_others_may_write_is_refused(nodes: Pair, stepd: subprocess.Popen[bytes]) -> None:
    node = nodes[0]
    node.confdir.chmod(0o777)
    done = node.helper("setup", request(12, 0, stepd.pid), check=False)
    assert done.returncode == 1
    assert "/etc/pcocc" in done.stdout and done.stdout.startswith("pcocc: error:")
    assert node.leftovers() == ""


@pytest.mark.parametrize(("sets", "word"), [("nosuch:4", "'nosuch'"), ("default:5", "4 VMs"), ("default:4;x", "resource sets")])
def test_a_wrong_request_is_one_sentence_and_leaves_nothing(
    nodes: Pair, stepd: subprocess.Popen[bytes], sets: str, word: str
) -> None:
    done = nodes[0].helper("setup", request(12, 0, stepd.pid).replace("default:4", sets), check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("pcocc: error:") and word in done.stdout.splitlines()[0]
    assert nodes[0].leftovers() == ""


@pytest.mark.parametrize(
    ("access", "said"),
    [
        ("users: [root]", "resource set 'default' is not for user 'nobody'; it is for: root"),
        ("groups: [root]", "resource set 'default' is not for the groups of user 'nobody'; it is for: root"),
        ("users: [nobody], groups: [laboratory]", "resource set 'default' is not for the groups of user 'nobody'"),
    ],
)
def test_a_resource_set_for_others_is_refused_by_root_too(
    nodes: Pair, stepd: subprocess.Popen[bytes], access: str, said: str
) -> None:
    node = nodes[0]
    (node.confdir / "resources.yaml").write_text(f"default: {{networks: [default], {access}}}\n")
    done = node.helper("setup", request(12, 0, stepd.pid), check=False)
    assert done.returncode == 1 and done.stdout.startswith(f"pcocc: error: {said}")
    assert node.leftovers() == ""


@pytest.mark.parametrize("access", ["users: [root, nobody]", "groups: [nogroup]", "users: [nobody], groups: [laboratory]"])
def test_a_resource_set_is_had_by_those_it_is_for(nodes: Pair, stepd: subprocess.Popen[bytes], access: str) -> None:
    node = nodes[0]
    node.run(
        "sh", "-ec",
        "(cat /etc/group; echo laboratory:x:4242:daemon,nobody) > /run/group; mount --bind /run/group /etc/group",
    )
    (node.confdir / "resources.yaml").write_text(f"default: {{networks: [default], {access}}}\n")
    assert node.helper("setup", request(12, 0, stepd.pid)).stdout == "tap 0 tap0n0\ntap 1 tap1n0\nqueues 8\n"


def test_a_set_for_an_account_is_judged_by_slurmctlds_word_never_without(nodes: Pair, stepd: subprocess.Popen[bytes]) -> None:
    node = nodes[0]
    (node.confdir / "resources.yaml").write_text("default: {networks: [default], accounts: [physics], partitions: [vm]}\n")
    text = request(12, 0, stepd.pid)
    asked = node.helper("setup", text, check=False)
    assert (asked.returncode, asked.stdout, node.leftovers()) == (5, "", "")
    for place, said in (
        ("account x\npartition vm\nqos \n", "account 'x'"),
        ("account physics\npartition main\nqos \n", "partition 'main'"),
    ):
        refused = node.helper("setup", text.replace("sets", f"{place}sets"), check=False)
        assert refused.returncode == 1 and refused.stdout.startswith(f"pcocc: error: resource set 'default' is not for {said}")
        assert node.leftovers() == ""
    cut = node.helper("setup", text.replace("sets", "account physics\nsets"), check=False)
    assert cut.returncode == 1 and "plugin" in cut.stdout
    admitted = node.helper("setup", text.replace("sets", "account physics\npartition vm\nqos \nsets"))
    assert admitted.stdout == "tap 0 tap0n0\ntap 1 tap1n0\nqueues 8\n"


@pytest.mark.parametrize("where", ["max-vms", "limit", "limit of an account", "resource set of an account"])
def test_how_many_vms_and_whose_is_judged_by_root_too(nodes: Pair, stepd: subprocess.Popen[bytes], where: str) -> None:
    """A job that slurmctld's filter has let through, as a site's own filter may do, is refused here."""
    node = nodes[0]
    policy = {
        "limit": "limits: [{users: [nobody], max-vms: 3}, {users: [root], max-vms: 1}]",
        "limit of an account": "limits: [{accounts: [students], max-vms: 3}]",
        "resource set of an account": "resource-sets: {default: {accounts: [physics]}}",
    }
    (node.confdir / "policy.yaml").write_text(policy.get(where, "") + "\n")
    if where == "max-vms":
        (node.confdir / "pcocc.yaml").write_text("accel: tcg\nmax-vms: 3\n")
    text = request(12, 0, stepd.pid)
    if "account" in where:
        assert node.helper("setup", text, check=False).returncode == 5  # slurmctld is asked
        text = text.replace("sets", "account students\npartition vm\nqos \nsets")
    done = node.helper("setup", text, check=False)
    said = (
        "resource set 'default' is not for account 'students'"
        if "set" in where
        else "4 VMs are asked for, but this job can have 3 at most"
    )
    assert done.returncode == 1 and done.stdout.startswith(f"pcocc: error: {said}")
    assert node.leftovers() == ""
    allowed = (
        text.replace("students", "physics")
        if "account" in where
        else request(12, 0, stepd.pid, sets="default:2", nodes=("192.0.2.1",))
    )
    assert node.helper("setup", allowed).returncode == 0


def test_slurmds_start_reserves_ports_beside_those_of_the_site(nodes: Pair) -> None:
    """Formerly a program that asked for any port could get one of these, and a quick program could take them all."""
    node, setting = nodes[0], "/proc/sys/net/ipv4/ip_local_reserved_ports"
    node.configure({"in": "{reverse-nat: {vm-port: 22, min-host-port: 60222, max-host-port: 60225}}"}, {"in": ["in"]})
    node.run("sh", "-c", f"echo 8080,60224 >{setting}; echo 60222 60225 >/proc/sys/net/ipv4/ip_local_port_range")
    take = "import socket; socket.create_server(('', 0)); print('got one')"
    assert node.run("/usr/bin/python3", "-c", take).stdout == "got one\n"
    for _time in range(2):
        node.helper("start", "")
        assert node.run("cat", setting).stdout == "8080,24832-25087,60222-60225\n"
    assert "in use" in node.run("/usr/bin/python3", "-c", take, check=False).stderr


def test_many_vms_with_many_networks_take_their_share_of_the_helpers_time(nodes: Pair, stepd: subprocess.Popen[bytes]) -> None:
    """576 taps: the helper may take 30 s (spank/helper.c), and must stay far below that."""
    node, names = nodes[0], [f"n{number}" for number in range(9)]
    node.configure(
        {name: f"{{int-network: 10.{number}.0.0/16, domain-name: {name}.x}}" for number, name in enumerate(names, 1)},
        {"all": names},
    )
    lines = [
        "job 12", "step 0", "uid 65534", "gid 65534", f"stepd {stepd.pid}", "index 0", "layout 192.0.2.1 0-63",
        "sets all:64", "end", "",
    ]
    begin = time.monotonic()
    taps = node.helper("setup", "\n".join(lines)).stdout.count("tap")
    middle = time.monotonic()
    node.helper("release", release(12))
    assert taps == 64 + 576 and node.leftovers() == ""
    assert middle - begin < limit(10) and time.monotonic() - middle < limit(10)


def test_a_jobs_part_of_run_is_its_own(nodes: Pair, stepd: subprocess.Popen[bytes]) -> None:
    """The user can fill it, but not the node's /run. It goes with the job, even if files in it are still open."""
    node = nodes[0]
    node.helper("setup", request(12, 0, stepd.pid))
    user = "setpriv --reuid=2001 --regid=2001 --clear-groups"
    for what in ("head -c 300M /dev/zero >/run/pcocc/12/fill", "cd /run/pcocc/12; seq 70000 | xargs touch"):
        before = node.run("stat", "-f", "-c", "%a", "/run").stdout
        done = node.run("sh", "-c", f"chown 2001:2001 /run/pcocc/12; {user} sh -c '{what}'", check=False)
        assert "No space left" in done.stderr, done.stderr
        assert int(before) - int(node.run("stat", "-f", "-c", "%a", "/run").stdout) < 1000
        node.run("sh", "-c", "rm -rf /run/pcocc/12/*")
    assert node.run("stat", "-c", "%a", "/run/pcocc/12").stdout == "700\n"
    enter = ["nsenter", f"--target={node.holder.pid}", "--mount"]
    opened = [*enter, "sh", "-c", "exec >/run/pcocc/12/open; echo open >&2; exec sleep 600"]
    with subprocess.Popen(opened, stderr=subprocess.PIPE) as holder:
        assert holder.stderr is not None and holder.stderr.readline() == b"open\n"
        assert node.helper("release", release(12)).returncode == 0
        holder.kill()
    assert node.run("ls", "-A", "/run/pcocc").stdout == ".state\n"
    assert "/run/pcocc/12" not in node.run("cat", "/proc/self/mountinfo").stdout
