"""The output of programs and the content of files of a node, in their original form."""

import json

import pytest

from pcocc_runtime.check import texts
from pcocc_runtime.check.seen import Chain
from pcocc_runtime.slurm.text import (
    Place,
    parse_configuration,
    parse_moment,
    parse_places,
    parse_release,
    parse_seconds,
)

CONFIG = """Configuration data as of 2026-11-29T23:20:00
AccountingStorageBackupHost = (null)
KillWait                = 30 sec
PlugStackConfig         = (null)
PluginDir               = /usr/lib/x86_64-linux-gnu/slurm-wlm
SLURM_CONF              = /etc/slurm/slurm.conf
SlurmctldHost[0]        = ctl(10.0.0.1)
TaskPlugin              = task/affinity,task/cgroup

Cgroup Support Configuration:
ConstrainRAMSpace       = yes

Slurmctld(primary) at ctl is UP
"""


def test_slurms_settings() -> None:
    settings = parse_configuration(CONFIG)
    assert (
        settings["PlugStackConfig"] == ""
        and settings["ConstrainRAMSpace"] == "yes"
        and settings["SlurmctldHost[0]"] == "ctl(10.0.0.1)"
    )
    assert (
        parse_seconds(settings, "KillWait"), parse_seconds(settings, "PluginDir"), parse_seconds({}, "KillWait"),
    ) == (30, None, None)
    assert (parse_moment(CONFIG), parse_moment("")) == ("2026-11-29T23:20:00", None)


def test_nodes_are_taken_once_and_by_their_first_partition() -> None:
    assert parse_places("n1 main*\nn2 main*\nn1 gpu\n\nn3 \n") == [Place("n1", "main"), Place("n2", "main"), Place("n3", "")]


@pytest.mark.parametrize(
    ("text", "release"),
    [("slurm 22.05.8", (22, 5)), ("24.11.5-Debian", (24, 11)), ("slurm-wlm 26.05.5", (26, 5)), ("?", None)],
)
def test_releases(text: str, release: tuple[int, int] | None) -> None:
    assert parse_release(text) == release


def test_plugstack() -> None:
    text = (
        "# required commented.so\nrequired /opt/pcocc/lib/slurm/pcocc.so # ours\noptional other.so a=b\ninclude"
        " plugstack.conf.d/*\nrequired\n"
    )
    assert texts.parse_plugstack(text) == [
        ("plugin", "/opt/pcocc/lib/slurm/pcocc.so"), ("plugin", "other.so"), ("include", "plugstack.conf.d/*"),
    ]


def test_what_slurmd_has_mapped() -> None:
    maps = (
        "7f00-7f01 r-xp 00000000 fe:00 4711                       /opt/pcocc/lib/slurm/pcocc.so (deleted)\n"
        "7f02-7f03 r-xp 00000000 fe:00 4712                       /opt/my pcocc.so/other.so\n7f04-7f05 rw-p 00000000 00:00 0\n"
    )
    assert texts.parse_mapped(maps, "pcocc.so") == [(4711, "/opt/pcocc/lib/slurm/pcocc.so (deleted)")]


@pytest.mark.parametrize(("rows", "found"), [
    (["/sys/fs/cgroup rw - cgroup2 cgroup2 rw"], {"v2"}),
    (["/sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"], {"v1"}),
    (["/sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw", "/sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd"],
     {"v2"}),
    (["/sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw", "/sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"], {"v1", "v2"}),
    (["/mnt rw - cgroup2 cgroup2 rw", ""], set()),
])  # fmt: skip
def test_mounted_hierarchies(rows: list[str], found: set[str]) -> None:
    assert texts.parse_hierarchies("\n".join(f"25 1 0:1 / {row}" if row else row for row in rows)) == found


def test_hierarchies_of_version_1_wherever_they_are_mounted() -> None:
    assert texts.parse_old_groups("0::/system.slice/slurmd.service\n") == ()
    assert texts.parse_old_groups("4:cpu,cpuacct:/\n1:name=old:/user/0::/\n0::/\n") == ("cpu,cpuacct", "name=old")


@pytest.mark.parametrize(("row", "unified"), [
    ("25 1 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate", True),
    ("25 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw", False),
    ("25 1 0:22 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw", False),
])  # fmt: skip
def test_what_lies_at_the_top(row: str, unified: bool) -> None:
    assert texts.is_unified(f"20 1 0:5 / / rw - ext4 /dev/vda rw\n{row}\n") is unified


def test_tables() -> None:
    assert texts.parse_tables("table ip filter\ntable inet pcocc\ntable inet pcocc-7\n") == (
        "ip filter", "inet pcocc", "inet pcocc-7",
    )


def ruleset(*rows: dict[str, object]) -> str:
    return json.dumps({"nftables": [{"metainfo": {"version": "1.0.6"}}, *rows]})


def chain(table: str = "filter", hook: str = "forward", policy: str = "drop", family: str = "ip") -> dict[str, object]:
    return {"chain": {"family": family, "table": table, "name": "C", "hook": hook, "policy": policy, "type": "filter", "prio": 0}}


def rule(*expression: dict[str, object], name: str = "C") -> dict[str, object]:
    return {"rule": {"family": "ip", "table": "filter", "chain": name, "expr": list(expression)}}


@pytest.mark.parametrize(("rows", "found"), [
    ([chain()], [Chain("ip filter C", "forward", False)]),
    ([chain(hook="input", family="inet")], [Chain("inet filter C", "input", False)]),
    ([chain(policy="accept"), chain(hook="output"), chain(family="ip6"), chain(table="pcocc"), chain(table="pcocc-12")], []),
    ([{"chain": {"family": "ip", "table": "filter", "name": "plain"}}], []),
    ([chain(),
      {"rule": {"family": "ip", "table": "filter", "chain": "other", "expr": [{"match": {"right": "pcn*"}}, {"accept": None}]}}],
     [Chain("ip filter C", "forward", True)]),
    ([chain(), {"rule": {"family": "ip", "table": "nat", "chain": "C", "expr": [{"match": {"right": "pcn*"}}]}}],
     [Chain("ip filter C", "forward", False)]),
    ([chain(hook="input"),
      {"rule": {"family": "ip", "table": "filter", "chain": "C", "expr": [{"match": {"right": {"range": [24832, 25087]}}}]}}],
     [Chain("ip filter C", "input", True)]),
    ([chain(policy="accept"), rule({"match": {"right": "established"}}, {"accept": None}),
      rule({"counter": {"packets": 0, "bytes": 0}}, {"log": None}, {"reject": {"type": "icmpx", "expr": "admin-prohibited"}})],
     [Chain("ip filter C", "forward", False, by_rule=True)]),
    ([chain(policy="accept", hook="input"), rule({"counter": {}}, {"xt": {"type": "target", "name": "REJECT"}})],
     [Chain("ip filter C", "input", False, by_rule=True)]),
    ([chain(policy="accept"), rule({"match": {"right": "pcn*"}}, {"accept": None}), rule({"drop": None})],
     [Chain("ip filter C", "forward", True, by_rule=True)]),
    ([chain(policy="accept"), rule({"match": {"right": "10.0.0.0"}}, {"drop": None}),
      rule({"limit": {"rate": 1}}, {"drop": None}),
      rule({"xt": {"type": "match", "name": "addrtype"}}, {"xt": {"type": "target", "name": "REJECT"}}), rule({"xt": None}),
      rule({"drop": None}, name="other")], []),
])  # fmt: skip
def test_chains_of_the_site(rows: list[dict[str, object]], found: list[Chain]) -> None:
    assert list(texts.parse_chains(ruleset(*rows))) == found
