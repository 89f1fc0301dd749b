"""The names of VMs in command lines of ssh and scp, and the configuration by which the user's own ssh gets in."""

import subprocess
from pathlib import Path

import pytest

from pcocc_runtime.documents.members import Members
from pcocc_runtime.guest.login import (
    LoginPlan,
    VmName,
    has_own_configuration,
    parse_ssh_words,
    parse_vm_name,
    render_config,
    render_hosts,
    render_inventory,
    render_known_hosts,
)

MEMBERS = Members(networks=(), ports=(), users=((1, "alice"), (2, "root")), vms=3, nodes=(("n1", (0, 1, 2)),), boot_timeout=300)


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("vm0", VmName("", "vm0", "", "")),
        ("root@vm12.345", VmName("root@", "vm12", "345", "")),
        ("vm0.12_3:", VmName("", "vm0", "12_3", ":")),
        ("a.b@vm1:/x:y z\n", VmName("a.b@", "vm1", "", ":/x:y z\n")),
        ("vm00", None),
        ("vm", None),
        ("vm0.", None),
        ("vm0.x", None),
        ("vmware", None),
        ("./vm0:x", None),
        ("a/b@vm0", None),
        ("vm0/x:y", None),
        ("vm[0-3]", None),
    ],
)
def test_a_vm_is_named(word: str, name: VmName | None) -> None:
    assert parse_vm_name(word) == name
    assert name is None or name.of_job(7) == word.replace("345", "7").replace("12_3", "7")


@pytest.mark.parametrize(
    ("words", "index"),
    [
        ("vm0", 0),
        ("-A vm0 ls -l", 1),
        ("-L 1:b:2 vm0", 2),
        ("-L1:b:2 -tt -vAp 22 vm0 -p 9", 4),
        ("-o User=x -- vm0", 3),
        ("-o", None),
        ("-N", None),
        ("--", None),
        ("", None),
    ],
)
def test_the_destination_is_where_ssh_finds_it(words: str, index: int | None) -> None:
    found = parse_ssh_words(words.split())
    assert (found if found is not None and found < len(words.split()) else None) == index


@pytest.mark.parametrize(("words", "own"), [("-F x", True), ("-AFx", True), ("-o F=1", False), ("-A", False), ("-D F", False)])
def test_a_configuration_of_the_users_own_is_seen(words: str, own: bool) -> None:
    assert has_own_configuration(words.split()) is own


def effective(config: Path, host: str, *words: str) -> dict[str, str]:
    """Return what an ssh of this machine makes of a configuration."""
    done = subprocess.run(["ssh", "-F", config, "-G", *words, host], capture_output=True, text=True, check=True)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


def test_ssh_reads_it_as_it_is_meant(tmp_path: Path) -> None:
    home = tmp_path / "with blank %h"
    home.mkdir()
    (home / "mine").write_text("Host *\n  ForwardAgent yes\n  ProxyJump nowhere\n  User other\n")
    plan = LoginPlan(7, MEMBERS, str(home / "key"), str(home / "known"), "/opt/p cocc/%bin/pcocc")
    config = home / "config"
    config.write_text(render_config(plan, [str(home / "mine"), str(home / "missing")]))
    found = effective(config, "vm1.7")
    assert found["proxycommand"] == "'/opt/p cocc/%%bin/pcocc' nc --job=7 vm1 %p"
    assert (found["user"], found["hostkeyalias"], found["stricthostkeychecking"]) == ("root", "vm1", "accept-new")
    assert found["identityfile"] in (str(home / "key"), str(home / "key").replace("%", "%%"))
    assert found["forwardagent"] == "yes" and "proxyjump" not in found
    assert effective(config, "vm0")["user"] == "alice"
    assert effective(config, "bob@vm0")["user"] == effective(config, "vm0", "-l", "bob")["user"] == "bob"
    assert effective(config, "elsewhere")["proxyjump"] == "nowhere"
    assert render_hosts(plan).count("Host vm") == 3


def test_hosts_have_one_key_or_are_not_known() -> None:
    assert render_known_hosts("ssh-ed25519 AAAA x") == "vm* ssh-ed25519 AAAA x\n"
    assert render_known_hosts("") == ""


def test_an_inventory_names_every_vm() -> None:
    text = render_inventory(LoginPlan(7, MEMBERS, "k", "h", "pcocc"), "/home/it's/config")
    assert text.startswith("[job_7]\nvm0.7\nvm1.7\nvm2.7\n\n[job_7:vars]\n") and "ansible_ssh_common_args='-F " in text
