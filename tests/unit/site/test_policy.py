"""The policy is read from YAML and rendered as Lua."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcocc_runtime.errors import ConfigError
from pcocc_runtime.networks.kinds import EthernetNetwork, InfinibandNetwork
from pcocc_runtime.settings.tree import parse_yaml
from pcocc_runtime.site import policy
from pcocc_runtime.site.resource_sets import Access, ResourceSet
from pcocc_runtime.templates import inherit

SETS = {"default": ResourceSet("default", ("lan",)), "ib": ResourceSet("ib", (), False, Access(qos=("hpc",)))}
TEMPLATES = "tiny: {memory: 256M}\nbig: {inherits: tiny, cpus: 4, resource-set: ib}"
EVERY = inherit.parse_templates(parse_yaml(TEMPLATES, "t"), True, [])


def parse(text: str) -> tuple[policy.Policy, list[str]]:
    problems: list[ConfigError] = []
    found = policy.parse_policy(parse_yaml(text, "policy.yaml"), EVERY, SETS, problems)
    return found, [str(problem) for problem in problems]


TEXT = """
limits:
- {accounts: [students], max-vms: 4}
- {partitions: [debug], qos: [low], max-vms: 8}
templates:
  big: {users: [alice, "b\\"o\\\\b"]}
resource-sets:
  default: {accounts: [physics]}
"""

LUA = r"""-- Written by 'pcocc config policy' from the site's YAML files: edit those, not this.
return {
    max_vms = 64,
    limits = {
        { accounts = { "students" }, max_vms = 4 },
        { partitions = { "debug" }, qos = { "low" }, max_vms = 8 },
    },
    templates = {
        tiny = { cpus = 1, memory = 256, resource_set = "default" },
        big = { cpus = 4, memory = 256, resource_set = "ib" },
    },
    template_access = {
        big = { users = { "alice", "b\034o\092b" } },
    },
    set_access = {
        ib = { qos = { "hpc" } },
        default = { accounts = { "physics" } },
    },
}
"""


def test_the_policy_becomes_lua() -> None:
    found, problems = parse(TEXT)
    assert problems == []
    assert policy.render_policy(found, 64, EVERY, "default", {}, {}) == LUA


def test_groups_are_not_slurmctlds() -> None:
    sets = {
        "lab": ResourceSet("lab", (), False, Access(groups=("g",))),
        "both": ResourceSet("both", (), False, Access(("u",), ("g",))),
    }
    found = policy.parse_policy(parse_yaml("", "policy.yaml"), {}, sets, [])
    lua = policy.render_policy(found, 1, {}, None, {}, {})
    assert 'set_access = {\n        both = { users = { "u" } },\n    },\n' in lua and "lab" not in lua


def test_no_policy_is_a_policy() -> None:
    found, problems = parse("")
    assert problems == []
    assert "limits = {},\n" in policy.render_policy(found, 1, {}, None, {}, {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("limit: []", "policy.yaml:1: limit: unknown setting"),
        ("limits: [{accounts: [a]}]", "policy.yaml:1: limits[0]: max-vms is missing"),
        ("limits: [{max-vms: 0}]", "policy.yaml:1: limits[0].max-vms: 0 is not between 1 and 65536"),
        ("limits: [{account: [a], max-vms: 1}]", "policy.yaml:1: limits[0].account: unknown setting"),
        ("templates: {nope: {}}", "policy.yaml:1: templates.nope: the site has no template 'nope'"),
        ("templates: []", "policy.yaml:1: templates: expected a mapping, found a list"),
        ("resource-sets: {nope: {}}", "policy.yaml:1: resource-sets.nope: the site has no resource set 'nope'"),
        ("resource-sets: {ib: {}}", "policy.yaml:1: resource-sets.ib: resources.yaml says who may use it, too"),
        ("templates: {big: {users: []}}", "policy.yaml:1: templates.big.users: the list is empty"),
        ("templates: {big: {groups: [g]}}", "policy.yaml:1: templates.big.groups: unknown setting"),
    ],
)
def test_a_wrong_policy_is_one_sentence(text: str, said: str) -> None:
    assert parse(text)[1] == [said]


@given(st.text())
def test_no_text_can_leave_its_quotes(text: str) -> None:
    quoted = policy._quote(text)
    assert quoted.isascii() and quoted.isprintable()
    inner = quoted[1:-1]
    assert '"' not in inner
    parts = inner.split("\\")
    data = parts[0].encode() + b"".join(bytes([int(part[:3])]) + part[3:].encode() for part in parts[1:])
    assert data.decode() == text


def test_pools_of_partition_keys_are_for_the_filter() -> None:
    pool = InfinibandNetwork("ib", "mlx5_0", 0x2000, 0x2003, max_vms=8)
    networks = {"lan": EthernetNetwork("lan"), "ib": pool}
    sets = {name: ResourceSet(name, found) for name, found in (("hpc", ("lan", "ib")), ("plain", ("lan",)))}
    sets["ai"] = ResourceSet("ai", ("ib",), devices=(("gpu:a100", 2), ("nic", 1)))
    lua = policy.render_policy(policy.Policy(), 1, {}, None, networks, sets)
    assert '    partitions = {\n        ib = { license = "pkey", min_key = 8192, max_key = 8195, max_vms = 8 },\n    },\n' in lua
    assert '    set_partitions = {\n        hpc = { "ib" },\n        ai = { "ib" },\n    },\n' in lua
    devices = '    set_devices = {\n        hpc = { nic = 1 },\n        ai = { ["gpu:a100"] = 2, nic = 2 },\n    },\n'
    assert devices in lua
    plain = policy.render_policy(policy.Policy(), 1, {}, None, {"lan": EthernetNetwork("lan")}, {"plain": sets["plain"]})
    assert "partitions" not in plain and "devices" not in plain
