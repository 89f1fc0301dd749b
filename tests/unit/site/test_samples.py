"""Every sample in etc/pcocc is valid and names the defaults, and so do its commented parts."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from pcocc_runtime.errors import ConfigError
from pcocc_runtime.images import references
from pcocc_runtime.networks.kinds import DevicePool, EthernetNetwork
from pcocc_runtime.networks.settings import _TYPES
from pcocc_runtime.settings.tree import parse_yaml
from pcocc_runtime.site import rules
from pcocc_runtime.site.check import load_everything
from pcocc_runtime.site.resource_sets import ACCESS_KEYS
from pcocc_runtime.site.settings import PCOCC, ImageCache, SiteSettings
from pcocc_runtime.site.site import Site, read_site
from pcocc_runtime.templates import inherit
from pcocc_runtime.templates.settings import SETTINGS, limit_keys
from tests.unit.site.samples import SAMPLES, find_unnamed


def uncomment(text: str, first: str) -> str:
    """Return the block of commented YAML that begins with `first`, up to the next line that is no comment or a bare '#'."""
    lines = text[text.index(f"# {first}") :].splitlines()
    block = []
    for line in lines:
        if not re.match(r"# +\S", line) or (block and re.match(r"# \S", line)):
            break
        block.append(line.removeprefix("# "))
    return "\n".join(block)


def test_the_samples_are_a_working_site() -> None:
    loaded = load_everything(str(SAMPLES))
    assert loaded.problems == ()
    assert set(loaded.templates) == {"base", "debian"}
    assert loaded.site.default_set == "default"


def test_every_sample_is_read_by_the_test() -> None:
    assert {path.name for path in SAMPLES.iterdir() if path.name != "policy.lua"} == {
        "pcocc.yaml", "networks.yaml", "resources.yaml", "templates.yaml", "policy.yaml", "repos.yaml",
    }  # fmt: skip


def test_the_site_sample_says_the_defaults() -> None:
    sample, default = read_site(SAMPLES), Site()
    for one in fields(SiteSettings):
        assert getattr(sample, one.name) == getattr(default, one.name)


def test_the_commented_devices_can_be_in_a_set(tmp_path: Path) -> None:
    (tmp_path / "pcocc.yaml").write_text(uncomment((SAMPLES / "pcocc.yaml").read_text(), "devices:"))
    (tmp_path / "networks.yaml").write_text("lan: {type: ethernet}\n")
    (tmp_path / "resources.yaml").write_text(uncomment((SAMPLES / "resources.yaml").read_text(), "gpu:"))
    site = read_site(tmp_path)
    assert site.devices["nvme:scratch"] == DevicePool("nvme:scratch", ("0000:3b:00.0",), (), "nvme")
    assert site.all_sets["gpu"].devices == (("gpu:a100", 2), ("nvme:scratch", 1))
    assert {*site.devices} == {"gpu:a100", "nvme:scratch"}


def test_the_commented_image_cache_says_its_defaults(tmp_path: Path) -> None:
    (tmp_path / "pcocc.yaml").write_text(uncomment((SAMPLES / "pcocc.yaml").read_text(), "image-cache:"))
    cache = read_site(tmp_path).image_cache
    assert cache == ImageCache(50 << 30)


NAMES = {
    "pcocc": [one.name for one in PCOCC] + limit_keys(),
    "repos": [one.name for one in (*references._REPOS, *references._REPO)],
    "policy": [one.name for one in (*rules.POLICY, *rules.LIMIT)],
    "templates": [*SETTINGS],
}


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_has_a_line_for_every_setting_there_is(name: str) -> None:
    assert find_unnamed(name, NAMES[name]) == []


@pytest.mark.parametrize(
    ("name", "key"),
    [("pcocc", "users-may-set"), ("policy", "limits"), ("policy", "templates"), ("policy", "resource-sets")],
)
def test_the_commented_parts_of_a_sample_are_right(tmp_path: Path, name: str, key: str) -> None:
    for path in SAMPLES.glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text())
    lines = (SAMPLES / f"{name}.yaml").read_text().splitlines()
    begin = next(number for number, line in enumerate(lines) if re.match(rf"(# )?{key}:", line))
    block = [f"{key}:"]
    for line in lines[begin + 1 :]:
        if not line.startswith("#"):
            break
        block.append(re.sub(r"^# ?", " " if name == "policy" else "", line))
    (tmp_path / "resources.yaml").write_text("default: {networks: [lan], default: true}\nrestricted: {}\n")
    (tmp_path / f"{name}.yaml").write_text("\n".join(block) + "\n")
    assert len(block) > 1 and load_everything(str(tmp_path)).problems == ()


@pytest.mark.parametrize("name", ["ib", "hca", "pci", "site"])
def test_commented_networks_are_right(name: str, tmp_path: Path) -> None:
    text = uncomment((SAMPLES / "networks.yaml").read_text(), f"{name}:")
    (tmp_path / "networks.yaml").write_text(text)
    assert set(read_site(tmp_path).all_networks) == {name}


def test_the_network_sample_says_the_defaults() -> None:
    assert read_site(SAMPLES).networks["lan"] == EthernetNetwork("lan")


def test_commented_settings_of_the_network_are_right(tmp_path: Path) -> None:
    lines = (SAMPLES / "networks.yaml").read_text().partition("\n# A network that exists")[0].splitlines()
    text = "\n".join(re.sub(r"^    # ([a-z-]+: \S)", r"    \1", line) for line in lines)
    (tmp_path / "networks.yaml").write_text(text)
    lan = read_site(tmp_path).networks["lan"]
    assert isinstance(lan, EthernetNetwork) and lan.reverse_nat and lan.dns_server and lan.dns_search and lan.ntp_server


def test_the_network_sample_names_every_setting_there_is() -> None:
    text = (SAMPLES / "networks.yaml").read_text()
    assert [one.name for table, _build in _TYPES.values() for one in table if f"{one.name}:" not in text] == []


def test_the_commented_resource_set_is_right(tmp_path: Path) -> None:
    (tmp_path / "networks.yaml").write_text("lan: {type: ethernet}\n")
    (tmp_path / "resources.yaml").write_text(uncomment((SAMPLES / "resources.yaml").read_text(), "restricted:"))
    access = read_site(tmp_path).all_sets["restricted"].access
    assert all(getattr(access, key) for key in ACCESS_KEYS)


def test_the_commented_template_is_right_and_says_the_defaults() -> None:
    """But for what has none to show: an example tells more there."""
    text = uncomment((SAMPLES / "templates.yaml").read_text(), "example:")
    problems: list[ConfigError] = []
    found = inherit.parse_templates(parse_yaml(text, "sample"), True, problems)["example"]
    assert problems == []
    shown = {key: SETTINGS[key].default if value is None else value for key, value in found.values.items()}
    assert {key for key in shown if shown[key] != SETTINGS[key].default} == {
        "inherits", "user-data", "mount-points", "persistent-drives",
    }


def test_the_repositories_sample_says_the_default_and_its_comments_are_right() -> None:
    text = (SAMPLES / "repos.yaml").read_text()
    both = (
        text.replace("# - name: site", "- name: site")
        .replace("  #   path: /srv", "    path: /srv")
        .replace("# cache:\n#", "cache:\n")
    )
    problems: list[ConfigError] = []
    found = references.parse_repos(parse_yaml(both, "sample"), True, {"homedir": "/home/a"}, problems)
    assert problems == [] and [(one.name, one.path) for one in found] == [
        ("user", "/home/a/.pcocc/images"), ("site", "/srv/pcocc/images"),
    ]  # fmt: skip
    assert references.DEFAULT_PATH in text
