"""What a guest is told: network-config and vendor-data, byte for byte, and read by YAML."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pcocc_runtime.documents.boot import KEY_COMMENT
from pcocc_runtime.documents.cluster import Mount
from pcocc_runtime.documents.reach import PORTFILE
from pcocc_runtime.guest import network_config, seed
from pcocc_runtime.guest.network_config import Interface, Subnet
from pcocc_runtime.templates.values import TAG, USER
from pcocc_runtime.vm import ssh_keys
from tests.fake_node import make_facts
from tests.unit.guest.guests import ALICE, KEYS, NETWORKS, NODE, SETS

CONFIG = """\
version: 1
config:
- type: physical
  name: eth0
  mac_address: "52:54:00:00:00:01"
  mtu: 1450
  subnets:
  - type: static
    address: "10.200.0.2/16"
    gateway: "10.200.255.254"
    dns_nameservers: ["10.200.255.254"]
    dns_search: ["vcluster"]
  - type: static6
    address: "fd70:636f:0:300::4:1/128"
- type: physical
  name: eth1
  mac_address: "52:54:00:04:00:01"
  mtu: 8950
  subnets:
  - type: static
    address: "10.201.0.2/24"
    dns_nameservers: ["10.201.0.254"]
    dns_search: ["other.example", "site.example"]
  - type: static6
    address: "fd70:636f:0:301::4:1/128"
- type: physical
  name: eth2
  mac_address: "02:00:00:c0:80:01"
  mtu: 1500
  subnets: [{type: dhcp4}]
- type: physical
  name: eth3
  mac_address: "52:54:00:0c:00:01"
  mtu: 1500
  subnets: [{type: manual}]
"""


def test_a_vm_configures_its_interfaces_without_asking() -> None:
    text = network_config.render_network_config(network_config.plan_interfaces(NODE, 1))
    assert text == CONFIG
    assert [one["name"] for one in yaml.safe_load(text)["config"]] == ["eth0", "eth1", "eth2", "eth3"]


def test_a_vm_has_only_the_networks_of_its_resource_set() -> None:
    assert [one.name for one in network_config.plan_interfaces(NODE, 0)] == ["eth0"]
    none = network_config.render_network_config(network_config.plan_interfaces(NODE, 2))
    assert yaml.safe_load(none) == {"version": 1, "config": []}


def test_a_node_without_ipv6_gives_no_such_address() -> None:
    (first, *_others) = network_config.plan_interfaces(make_facts(SETS, {"all": 1}, NETWORKS, ipv6=False), 0)
    assert first.subnets == (Subnet("10.200.0.1/16", "10.200.255.254"),)


def test_an_address_of_the_other_family_goes_beside_the_first() -> None:
    one = Interface("eth0", "52:54:00:00:00:00", 1450, (Subnet("10.0.0.1/8", "10.0.0.2"), Subnet("fd00::1/64")))
    subnets = yaml.safe_load(network_config.render_network_config([one]))["config"][0]["subnets"]
    assert subnets == [
        {"type": "static", "address": "10.0.0.1/8", "gateway": "10.0.0.2"},
        {"type": "static6", "address": "fd00::1/64"},
    ]


def vendor(**options: object) -> dict[str, object]:
    found = yaml.safe_load(seed.render_vendor_data(1, "vcluster", ALICE, KEYS, **options))  # type: ignore[arg-type]
    assert isinstance(found, dict)
    return found


def test_only_a_vm_with_ports_of_its_node_is_told_of_them() -> None:
    def files(ports: str) -> dict[str, object]:
        found = seed.render_seed(job=12, rank=1, vms=2, domain="d", login=ALICE, keys=KEYS, user_data=None, ports=ports)
        return {file["path"]: file["content"] for file in yaml.safe_load(found["vendor-data"])["write_files"]}

    assert files("22=n1:60222,80=n1:60300")[PORTFILE] == "12 22=n1:60222,80=n1:60300\n"
    assert PORTFILE not in files("")


def test_mounts_stand_at_their_tags() -> None:
    mounts = (Mount("data", "/x", "9p", True), Mount("fast", "/y", "virtiofs"))
    assert vendor(mounts=mounts)["mounts"] == [
        ["data", "/mnt/data", "9p", "trans=virtio,version=9p2000.L,msize=262144,ro,nofail", "0", "0"],
        ["fast", "/mnt/fast", "virtiofs", "rw,nofail", "0", "0"],
    ]
    assert "mounts" not in vendor()


@pytest.mark.parametrize("tag", ["sda", "vdb1", "xvda", "sr0", "root", "swap", "ami", "ephemeral0", "ebs1", "a.b"])
def test_a_tag_that_cloud_init_takes_for_a_disk_is_left_to_the_user(tag: str) -> None:
    assert "mounts" not in vendor(mounts=(Mount(tag, "/x"),))


@pytest.mark.parametrize(("name", "users"), [(None, ["root", "alice"]), ("root", ["root", "alice"]), ("alice", ["root", "alice"]),
                                             ("debian", ["root", "alice", "debian"])])  # fmt: skip
def test_the_user_that_commands_run_as_can_log_in_and_on(name: str | None, users: list[str]) -> None:
    found = vendor(command_user=name)
    assert [user["name"] for user in found["users"]] == users  # type: ignore[index,attr-defined]
    assert all(user["ssh_authorized_keys"] == ["ssh-ed25519 AAA u"] for user in found["users"])
    assert found["bootcmd"][-1][4:] == users, "they get the job's key"  # type: ignore[index]


@pytest.mark.parametrize("name", ["meta-data", "user-data", "vendor-data", "network-config", "pcocc-user-key", "pcocc-host-key"])
def test_the_seed_is_what_it_was(name: str) -> None:
    """A golden copy: whoever changes what guests are told sees it here, and must say so in NEWS.md."""
    mounts = (Mount("data", "/x", "9p", True), Mount("fast", "/y", "virtiofs"))
    found = seed.render_seed(
        job=12, rank=1, vms=2, domain="vcluster", login=ALICE, keys=KEYS, user_data="#cloud-config\npackages: [vim]\n",
        command_user="debian", mounts=mounts, interfaces=network_config.plan_interfaces(NODE, 1),
    )  # fmt: skip
    assert found[name] == (Path(__file__).parents[2] / "data/seed" / name).read_text()


def test_every_line_is_flat_enough_for_small_guests() -> None:
    text = seed.render_vendor_data(2, "vcluster", ALICE, KEYS, "worker", (Mount("d", "/x"),), "12 22=n1:60222")
    assert all(re.match(r"#cloud-config$|[a-z_]+:( |$)|- |  [a-z0-9_]+:|    ", line) for line in text.splitlines())


ODD = ["yes", "No", "on", "OFF", "true", "False", "null", "010", "0x10", "1_0", "1e3", "0b1", "1:30", "y", "N", "_1", "-",
       "=", "<<", "~", "01234567",
       "DOM\\x", "a'b", 'a"b', "*x", "a@b.c", "\udc80", "\x85", "\U0001f600"]  # fmt: skip
accounts = st.sampled_from(ODD) | st.text(st.characters(blacklist_characters=":\n\0/"), min_size=1, max_size=12).filter(
    "root".__ne__
)
tags = st.sampled_from(["yes", "no", "010", "0x10", "1_0", "null", "_1", "0o7", "1e3", "0"]) | st.from_regex(TAG, fullmatch=True)
others = st.sampled_from(["yes", "Null", "john.doe", "_1", "a..", "on"]) | st.from_regex(USER, fullmatch=True).filter(
    "root".__ne__
)


@pytest.mark.thorough
@given(accounts, accounts, tags, others)
def test_whatever_a_name_is_the_guest_reads_that_name(name: str, home: str, tag: str, other: str) -> None:
    login = seed.JobUser(name, 2001, 2002, f"/home/{home}", name)
    found = yaml.safe_load(seed.render_vendor_data(1, "vcluster", login, KEYS, other, [Mount(tag, "/x")]))
    assert [user["name"] for user in found["users"]] == list(dict.fromkeys(["root", name, other]))
    assert found["users"][1]["homedir"] == f"/home/{home}"
    assert [one[:2] for one in found.get("mounts", [[tag, f"/mnt/{tag}"]])] == [[tag, f"/mnt/{tag}"]]
    assert found["bootcmd"][-1][4:] == [user["name"] for user in found["users"]]
    assert all(name in shlex.split(command[2]) for command in found["bootcmd"][:-1])


PASSWD = "root:x:0:0:root:/root:/bin/sh\ndebian:x:2001:2000::/home/debian:/bin/bash\n"
GROUP = "root:x:0:\ndebian:x:2000:\nalice:x:555:\n"
IN_A_GUEST = """
mount --bind "$1/etc" /etc && mount --bind "$1/home" /home || exit 9
eval "$2" && eval "$3" && id -u alice && grep -c alice /etc/passwd && stat -c %u:%g /home/alice; cat /etc/passwd >&2
"""


@pytest.mark.parametrize(
    ("passwd", "group", "said"),
    [
        (PASSWD, GROUP, "2001\n1\n2001:2002\n"),  # the uid is another's, the name another group's
        (f"{PASSWD}alice:x:1000:1000::/home/alice:/bin/sh\n", GROUP, "1000\n1\n"),  # the image's own alice stays who she is
        ("root:x:0:0:root:/root:/bin/sh\n", "root:x:0:\n", ""),  # cloud-init makes this user
    ],
)
def test_an_image_that_has_the_users_numbers_gets_the_user(tmp_path: Path, passwd: str, group: str, said: str) -> None:
    """The real useradd and groupadd, with a passwd and a group of the test's own."""
    for name in ("etc/default", "etc/skel", "home"):
        (tmp_path / name).mkdir(parents=True)
    for name, text in (
        ("passwd", passwd), ("group", group), ("nsswitch.conf", "passwd: files\ngroup: files\n"), ("login.defs", ""),
    ):
        (tmp_path / "etc" / name).write_text(text)
    commands = [command[2] for command in vendor()["bootcmd"][:2]]  # type: ignore[index]
    argv = ["unshare", "-m", "sh", "-c", IN_A_GUEST, "sh", str(tmp_path), *commands]
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.stdout == said, done.stderr
    assert re.search(r":2002:$", (tmp_path / "etc/group").read_text(), re.M)


OLD, OWN, THIS = "ssh-ed25519 OLD pcocc-7", "ssh-rsa OWN alice@laptop", "ssh-ed25519 AAA/+= pcocc-12"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"{OLD}\n{OWN}\n", f"{OWN}\n"),
        (f"{OLD}\n", ""),
        (f"{OWN}\n{THIS}\n{OLD}\n", f"{OWN}\n{THIS}\n"),  # as after a reboot, when cloud-init adds no keys
        (f"{OWN}\n", f"{OWN}\n"),
        (f'no-pty,command="x" {OLD}\n{OWN}', f"{OWN}\n"),
    ],
)
def test_an_image_that_was_saved_lets_no_other_job_in(tmp_path: Path, before: str, after: str) -> None:
    """Every account of the image: that of whoever saved it has a key, too."""
    for name in ("etc", "home/alice/.ssh", "home/bob/.ssh", "home/carol"):
        (tmp_path / name).mkdir(parents=True)
    homes = "".join(f"{name}:x:1:1::/home/{name}:/bin/sh\n" for name in ("alice", "bob", "carol", "no home"))
    (tmp_path / "etc/passwd").write_text(homes)
    (tmp_path / "etc/group").write_text("x:x:2002:\n")
    files = [tmp_path / f"home/{name}/.ssh/authorized_keys" for name in ("alice", "bob")]
    for file in files:
        file.write_text(before)
        file.chmod(0o600)
    text = seed.render_vendor_data(1, "vcluster", ALICE, KEYS._replace(user_public=THIS))
    command = yaml.safe_load(text)["bootcmd"][0][2]
    script = 'mount --bind "$1/etc" /etc && mount --bind "$1/home" /home || exit 9; eval "$2"'
    for _boot in range(2):
        subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", str(tmp_path), command], check=True, stdin=subprocess.DEVNULL)
        assert [file.read_text() for file in files] == [after, after]
        assert [file.stat().st_mode & 0o777 for file in files] == [0o600, 0o600]
    assert sorted(path.name for path in (tmp_path / "home").rglob("*") if path.is_file()) == ["authorized_keys"] * 2


def test_the_comment_of_a_key_is_the_one_that_is_looked_for() -> None:
    assert ssh_keys.make_keys(f"{KEY_COMMENT}12").user_public.endswith(f" {KEY_COMMENT}12")
