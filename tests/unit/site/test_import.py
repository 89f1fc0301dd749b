"""Files of the original pcocc become files of this one: the same meaning, and a word about every key."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pcocc_runtime.settings.tree import parse_yaml
from pcocc_runtime.site import fates
from pcocc_runtime.site.check import load_everything
from pcocc_runtime.site.original import Translation, plan_import

LAN = "lan: {type: ethernet, settings: {dev-prefix: lan}}\n"


def translate(disk: str | None = None, **texts: str) -> Translation:
    trees = {f"{name}.yaml": parse_yaml(text, f"{name}.yaml", []) for name, text in texts.items()}
    return plan_import(trees, lambda _path: disk)


def told(done: Translation, key: str) -> str:
    """Return what is said of a key, without its place."""
    [found] = [one for one in done.fates if one.place.endswith(f": {key}") and one.what != fates.REMARK]
    return f"{found.what}: {found.why}" if found.why else found.what


def ethernet(setting: str, kind: str = "ethernet") -> Translation:
    return translate(networks=f"lan:\n  type: {kind}\n  settings:\n    {setting}\n")


SETTINGS = [
    ("mtu: 9000", {"mtu": 9000}, "kept"),
    ("mtu: 1280", {"mtu": 1330}, "changed: now mtu: 1330"),
    ("mac-prefix: 52:54:00:ab", {"mac-prefix": "52:54:00"}, "changed: now mac-prefix: 52:54:00"),
    ("mac-prefix: 52:54:00", {"mac-prefix": "52:54:00"}, "kept"),
    ("mac-prefix: 52:54", {"mac-prefix": "52:54"}, "kept"),
    ("int-network: 10.251.0.1/16", {"int-network": "10.251.0.0/16"}, "changed: now int-network: 10.251.0.0/16"),
    ("ext-network: 10.251.0.1/16", {}, "left out: no longer needed"),
    ("host-if-suffix: _ib0", {}, "left out: no longer needed"),
    ("dns-search: ''", {}, "left out: is empty"),
    ("ntp-server: ''", {}, "left out: is empty"),
    ("dns-server: 0.0.0.0", {}, "left out: is empty"),
    ("domain-name: 'a.b, c.d'", {"domain-name": "a.b", "dns-search": "a.b, c.d"},
     "changed: now domain-name: a.b, dns-search: a.b, c.d"),
    ("ntp-server: ntp.example", {}, "to do: expected an IPv4 address such as 192.0.2.53, found text 'ntp.example'"),
    ("allow-outbound: some", {}, "to do: expected 'all', 'none' or a list of IPv4 networks"),
    ("dhcp: no", {}, "to do: is no setting of pcocc"),
    ("reverse-nat: {vm-port: 22, min-host-port: 60222, max-host-port: 60322}",
     {"reverse-nat": {"vm-port": 22, "min-host-port": 60222, "max-host-port": 60322}}, "kept"),
]  # fmt: skip


@pytest.mark.parametrize(("setting", "value", "said"), SETTINGS, ids=[one[0] for one in SETTINGS])
def test_a_setting_of_a_network_is_what_it_meant(setting: str, value: dict[str, Any], said: str) -> None:
    done = ethernet(setting)
    assert done.trees["networks.yaml"]["lan"].get("settings", {}) == value
    assert told(done, f"lan.settings.{setting.partition(':')[0]}").startswith(said)


def test_old_types_become_types_of_today() -> None:
    nat = (
        "nat-network: 10.255.0.0/16\n    vm-network: 10.254.0.0/16\n    vm-ip: 10.254.0.2\n    bridge: natbr\n"
        "    dns-server: 0.0.0.0\n    domain-name: a.example"
    )
    done = ethernet(nat, "nat")
    assert done.trees["networks.yaml"] == {
        "lan": {"type": "ethernet", "settings": {"int-network": "10.254.0.0/16", "domain-name": "a.example"}}
    }
    assert told(done, "lan.type") == "changed: now ethernet"
    assert told(done, "lan.settings.vm-network") == "changed: now int-network: 10.254.0.0/16"
    assert told(done, "lan.settings.vm-ip") == "left out: no longer needed"
    assert ethernet("mac-prefix: 52:54:00:01", "pv").trees["networks.yaml"]["lan"]["settings"] == {
        "mac-prefix": "52:54:00", "network-layer": "L2",
    }
    ib = "min-pkey: 0x2000\n    max-pkey: '0x20ff'\n    host-device: mlx5_0\n    opensm-daemon: opensm"
    assert ethernet(ib, "ib").trees["networks.yaml"]["lan"] == {
        "type": "infiniband", "settings": {"min-pkey": "0x2000", "max-pkey": "0x20ff", "host-device": "mlx5_0"},
    }
    assert ethernet("host-bridge: br0\n    tap-prefix: sitenetwork", "bridged").trees["networks.yaml"]["lan"] == {
        "type": "bridged-ethernet", "settings": {"host-bridge": "br0", "tap-prefix": "sitenet"},
    }
    assert told(ethernet("a: b", "token-ring"), "lan.type") == "to do: is a network of no type that pcocc knows"


def template(setting: str, disk: str | None = None) -> Translation:
    return translate(disk, templates=f"t:\n  {setting}\n")


TEMPLATES = [
    ("image: /images/old", {"image": "/images/old/image-rev2"}, "changed: now image: /images/old/image-rev2"),
    ("image: debian", {"image": "debian"}, "kept"),
    ("image: false", {"image": False}, "kept"),
    ("custom-args: [-m, 5, 010]", {"custom-args": ["-m", "5", "010"]}, "changed: now custom-args: ["),
    ("placeholder: false", {}, "left out: the original sets it itself"),
    ("kernel: ''", {}, "left out: is empty"),
    ("qemu-bin: qemu-kvm", {}, "to do: 'qemu-kvm' is not an absolute path"),
    ("mount-points: {home: /home}", {"mount-points": {"home": "/home"}}, "kept"),
    ("persistent-drives: ['/a', '/b': {mmp: no}]", {"persistent-drives": ["/a", {"/b": {"mmp": False}}]}, "kept"),
    ("persistent-drives:\n  - /b:\n    mmp: cluster\n    cache: unsafe",
     {"persistent-drives": [{"/b": {"mmp": "cluster", "cache": "unsafe"}}]}, "changed: now persistent-drives:"),
    ("disk-model: sata", {}, "to do: expected one of virtio, virtio-scsi, ide"),
    ("emulator-cores: 2", {"emulator-cores": 2}, "kept"),
]  # fmt: skip


@pytest.mark.parametrize(("setting", "value", "said"), TEMPLATES, ids=[one[0] for one in TEMPLATES])
def test_a_setting_of_a_template_is_what_it_meant(setting: str, value: dict[str, Any], said: str) -> None:
    done = template(setting, "/images/old/image-rev2")
    assert done.trees["templates.yaml"]["t"] == value
    assert told(done, f"t.{setting.partition(':')[0]}").startswith(said)


def test_things_are_renamed_where_they_are_named() -> None:
    done = translate(
        networks="'my lan': {type: eth, settings: {}}\n'my/lan': {type: eth}\n",
        resources="'a set': {networks: ['my lan', my/lan, 'my lan'], default: 1}\n",
        templates="_: {resource-set: 'a set'}\nb/c: {inherits: _}\n'b c': {inherits: _}\n",
    )
    assert list(done.trees["networks.yaml"]) == ["my_lan", "my_lan-2"]
    assert done.trees["resources.yaml"] == {"a_set": {"networks": ["my_lan", "my_lan-2"], "default": True}}
    assert done.trees["templates.yaml"] == {"x": {"resource-set": "a_set"}, "b/c": {"inherits": "x"}, "b_c": {"inherits": "x"}}
    assert told(done, "b c") == "changed: is called b_c now: names have no other characters"


def test_what_there_is_no_longer_is_told() -> None:
    done = translate(
        batch="type: slurm\nsettings:\n  etcd-servers: [a]\n  batch-args: ['-p', vm]\n", containers="runtime: {}\n",
        repos="repos: [{name: user, path: /i}]\ncache: {path: /c}\n",
    )
    assert done.trees == {"repos.yaml": {"repos": [{"name": "user", "path": "/i"}]}}
    assert told(done, "settings.etcd-servers") == "left out: jobs are Slurm's own, and there is no etcd"
    assert told(done, "settings.batch-args") == "to do: users give these to sbatch, or job_submit.lua sets them: -p vm"
    assert told(done, "runtime").startswith("left out: pcocc runs VMs only")
    assert told(done, "cache").startswith("left out:")


@pytest.mark.parametrize("name", ["industry", "lab", "university"])
def test_a_site_means_the_same_afterwards(name: str, tmp_path: Path) -> None:
    source = Path(__file__).parents[2] / "data/original" / name
    done = plan_import({one.name: parse_yaml(one.read_text(), one.name) for one in source.glob("*.yaml")}, lambda _path: None)
    for file, tree in done.trees.items():
        (tmp_path / file).write_text(yaml.safe_dump(tree))
    before, after = load_everything(str(source)), load_everything(str(tmp_path))
    assert after.problems == () and after.site.all_networks == before.site.all_networks
    assert after.site.all_sets == before.site.all_sets and after.site.default_set == before.site.default_set
    keys = [one.place.split(": ")[1] for one in done.fates if one.what != fates.REMARK]
    assert len(keys) == len(set(keys)) and fates.TO_DO not in [one.what for one in done.fates]
