"""`pcocc node check` on a sound node, and with one thing broken at a time: the sentence about it, and the command that
mends it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.boot.box import Box

HERE = "kvm", "accelerator"  # depend on the machine below the box
SCRATCH = "/var/lib/pcocc/scratch"
SETTINGS = "/etc/pcocc/pcocc.yaml"
QEMU = "$(realpath /usr/bin/qemu-system-x86_64)"


def check(box: Box, node: str = "n1") -> dict[str, list[dict[str, Any]]]:
    """Return what is found on a node by the names of the points."""
    done = box.run("pcocc node check --json", user="root", node=node)
    tree = json.loads(done.stdout)
    assert done.returncode == (0 if tree["ok"] else 1) and tree["node"] == node
    points: dict[str, list[dict[str, Any]]] = {}
    for one in tree["findings"]:
        points.setdefault(one["point"], []).append(one)
    return points


def failures(points: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """Return what has failed, except what depends on the machine."""
    return {name: one["text"] for name, every in points.items() for one in every if one["level"] == "FAILED" and name not in HERE}


def failure(box: Box, point: str) -> tuple[str, str]:
    """Return sentence and command of the first failure of a point; no other point may have any."""
    points = check(box)
    assert list(failures(points)) == [point], failures(points)
    found = next(one for one in points[point] if one["level"] == "FAILED")
    return found["text"], found["hint"]


@pytest.fixture(scope="module", autouse=True)
def used(box: Box) -> Iterator[None]:
    """A node that has had a VM: scratch is there, and the accelerator was tried. The box's KillWait is short, and so is
    the grace."""
    box.run("srun -N2 --pcocc-template=tiny:2 true", status=0, timeout=300)
    with box.changed(
        f"cp -p {SETTINGS} {SETTINGS}.kept && echo 'shutdown-grace: 5' >>{SETTINGS}", f"mv {SETTINGS}.kept {SETTINGS}"
    ):
        yield


def test_a_node_that_works_has_no_failure_of_its_own(box: Box) -> None:
    points = check(box)
    assert failures(points) == {}
    assert "is loaded by slurmd" in points["plugin"][0]["text"]
    assert "within 60 s of slurmctld's" in points["clock"][0]["text"]
    assert "have an IPv4 address" in points["names"][0]["text"]
    assert "nft's table inet pcocc is there" in points["walls"][0]["text"]
    assert points["scratch"][0]["text"].startswith(f"scratch {SCRATCH}: ")
    assert {"tcg", "kvm"} & {points["accelerator"][0]["text"].partition(",")[0]} and "since" in points["accelerator"][0]["text"]


def test_for_people_it_is_a_line_for_each_point(box: Box) -> None:
    done = box.run("pcocc node check", user="root", node="n1")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ok      configuration: ") and lines[-1].startswith("n1: ")
    assert all(line.startswith(("ok      ", "note    ", "FAILED  ", "        hint: ")) for line in lines[:-1])


def test_only_root_is_let(box: Box) -> None:
    done = box.run("pcocc node check", node="n1")
    assert done.returncode == 1 and "hint: run it as root" in done.stderr


def test_flushed_walls(box: Box) -> None:
    with box.changed("nft flush ruleset", "/opt/pcocc/libexec/pcocc/node start", node="n1"):
        text, mend = failure(box, "walls")
        assert text.startswith("nft's table inet pcocc, which keeps processes from sending into tunnels, is missing")
        box.run(["sh", "-c", mend.partition(";")[0]], user="root", node="n1", status=0)
        assert failures(check(box)) == {}


def test_flushed_rules_of_routing(box: Box) -> None:
    mend = "/opt/pcocc/libexec/pcocc/node start"
    with box.changed(
        "ip rule flush && ip rule add pref 32766 lookup main && ip rule add pref 32767 lookup default", mend, node="n1"
    ):
        text, told = failure(box, "walls")
        assert text.startswith("the routing rules that keep forwarded packets out of tunnels are missing") and told == mend
        box.run(mend, user="root", node="n1", status=0)
        assert failures(check(box)) == {}


@pytest.mark.parametrize(("policy", "rule", "how"), [
    ("drop", "ct state established accept", "policy"), ("accept", "counter reject with icmpx admin-prohibited", "last rule"),
])  # fmt: skip
def test_a_filter_of_the_site_that_drops_what_vms_send(box: Box, policy: str, rule: str, how: str) -> None:
    chain = f"nft 'add chain inet site forwarded {{ type filter hook forward priority 0; policy {policy}; }}'"
    made = f"nft add table inet site && {chain} && nft add rule inet site forwarded {rule}"
    with box.changed(made, "nft delete table inet site", node="n1"):
        text, mend = failure(box, "site-filter")
        assert f"inet site forwarded drops by its {how} what VMs send out" in text
        for command in mend.split("; ")[:2]:
            word, _, rest = command.partition(" ")
            box.run([word, *rest.replace('"', "").split()], user="root", node="n1", status=0)
        assert failures(check(box)) == {}


def test_a_read_only_scratch(box: Box) -> None:
    with box.changed(f"mount --bind {SCRATCH} {SCRATCH} && mount -o remount,ro,bind {SCRATCH}", f"umount {SCRATCH}", node="n1"):
        assert failure(box, "scratch")[0] == f"scratch {SCRATCH} cannot be written"


def test_a_scratch_of_somebody_elses(box: Box) -> None:
    with box.changed(f"chown alice {SCRATCH}", f"chown root {SCRATCH}", node="n1"):
        text, mend = failure(box, "scratch")
        assert "belongs to uid" in text and mend == f"chown root {SCRATCH}"


@pytest.mark.parametrize(
    ("program", "package"),
    [("/usr/sbin/dnsmasq", "dnsmasq-base"), ("/usr/sbin/nft", "nftables"), ("/usr/bin/ssh", "openssh-client")]
)
def test_a_missing_program(box: Box, program: str, package: str) -> None:
    name = Path(program).name
    with box.changed(f"mount --bind /dev/null $(realpath {program})", f"umount $(realpath {program})", node="n1"):
        found = [one for one in check(box)["programs"] if one["level"] == "FAILED"]
        assert [(one["text"], one["hint"]) for one in found] == [
            (f"the program {name} is not installed", f"apt-get install {package}")
        ]


def test_a_kill_wait_that_is_too_short(box: Box) -> None:
    with box.changed(
        f"sed -i 's/^shutdown-grace: 5/shutdown-grace: 600/' {SETTINGS}", f"sed -i 's/grace: 600/grace: 5/' {SETTINGS}"
    ):
        text, mend = failure(box, "kill-wait")
        assert "guests have 600 s to power off: Slurm kills them before" in text and mend.startswith("KillWait=610 in slurm.conf")


def test_a_missing_device(box: Box) -> None:
    with box.changed("mount -t tmpfs none /dev/net", "umount /dev/net", node="n1"):
        text, mend = failure(box, "tun")
        assert "no VM can have a network" in text and mend.startswith("modprobe tun")


def test_user_namespaces_that_are_forbidden(box: Box) -> None:
    """A program that fails stands for a kernel that refuses: its sysctls cannot be changed in every machine that tests run in."""
    with box.changed("mount --bind /bin/false /usr/bin/unshare", "umount /usr/bin/unshare", node="n1"):
        text, mend = failure(box, "user-namespaces")
        assert "(exit status 1): directories can be exported over 9p, but not over virtiofs" in text and "aa-status" in mend


def test_configuration_that_others_can_write(box: Box) -> None:
    with box.changed("chmod o+w /etc/pcocc/pcocc.yaml", "chmod o-w /etc/pcocc/pcocc.yaml", node="n1"):
        text, mend = failure(box, "configuration")
        assert "can be written by others than root" in text and mend == "chmod go-w /etc/pcocc/pcocc.yaml"


def test_all_nodes_are_asked_and_compared(box: Box) -> None:
    done = box.run("pcocc node check --all --json", user="root", node="n1")
    tree = json.loads(done.stdout)
    assert [one["node"] for one in tree["nodes"]] == ["n1", "n2"] and tree["silent"] == {}
    assert [one["level"] for one in tree["findings"]] == ["ok"]
    other = "printf '#!/bin/sh\\necho QEMU emulator version 4.2.1\\n' >/run/other && chmod 755 /run/other"
    with box.changed(f"{other} && mount --bind /run/other {QEMU}", f"umount {QEMU}", node="n2"):
        tree = json.loads(box.run("pcocc node check --all --json", user="root", node="n1").stdout)
    assert not tree["ok"] and any(
        "QEMU is not the same everywhere" in one["text"] and "4.2.1 on n2" in one["text"] for one in tree["findings"]
    )


def test_a_node_without_pcocc_is_named_at_once(box: Box) -> None:
    with box.changed("mount -t tmpfs none /opt/pcocc/bin", "umount /opt/pcocc/bin", node="n2"):
        done = box.run("pcocc node check --all", user="root", node="n1")
    assert done.returncode == 1 and "FAILED  n2: pcocc is not installed there (/opt/pcocc/bin/pcocc)" in done.stdout


def test_it_boots_a_guest_when_asked(box: Box) -> None:
    done = box.run("pcocc node check --boot=tiny --json", user="root", node="n1", timeout=300)
    [found] = [one for one in json.loads(done.stdout)["findings"] if one["point"] == "boot"]
    assert found["level"] == "ok" and "a VM of template tiny booted" in found["text"]
