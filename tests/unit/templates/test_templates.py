"""Templates: keys, inheritance, and what is wrong with them."""

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pcocc_runtime.cli.template_text import render_one, render_one_json, render_templates
from pcocc_runtime.errors import ConfigError, RequestError
from pcocc_runtime.settings.tree import parse_yaml
from pcocc_runtime.templates import inherit
from pcocc_runtime.templates.settings import SETTINGS
from pcocc_runtime.templates.template import Template


def parse(text: str, is_site: bool = True, file: str = "t.yaml") -> tuple[dict[str, Template], list[str]]:
    problems: list[ConfigError] = []
    found = inherit.parse_templates(parse_yaml(text, file), is_site, problems)
    return found, [str(problem) for problem in problems]


BOMB = "user-data: {b0: &b0 [x, x], " + ", ".join(f"b{n}: &b{n} [*b{n - 1}, *b{n - 1}]" for n in range(1, 16)) + "}"
CIRCLE = "templates inherit from each other in a circle"
FULL = """
example:
  inherits: 'parent'
  resource-set: 'cluster'
  image: '/path/to/images/myexample'
  disk-model: 'ide'
  persistent-drives:
  - '/path/to/first/drive'
  - '/path/to/second/drive':
      mmp: no
      cache: 'unsafe'
  description: 'Example of a template'
  mount-points:
    homedir: {path: '/home', readonly: false}
    data: /data
    fast: {path: /fast, type: virtio-fs}
  custom-args: ['-cdrom', '/path/to/my-iso']
  qemu-bin: '/path/to/qemu/bin/qemu-system-x86_64'
  nic-model: 'e1000'
  cpu-model: 'qemu64,+avx'
  emulator-cores: 2
  bind-vcpus: False
  remote-display: spice
  user-data: {packages: [vim]}
  instance-id: abc
  kernel: /boot/vmlinuz
  full-node: true
  machine-type: pc
  disk-cache: none
  cpus: 4
  memory: 1.5
"""


def test_every_key_of_the_original_is_known() -> None:
    found, problems = parse(FULL)
    assert problems == ["t.yaml:31: example.memory: expected an amount of memory such as 512M or 2G, found a number '1.5'"]
    values = found["example"].values
    assert values["persistent-drives"] == (
        {"path": "/path/to/first/drive", "cache": "writeback", "mmp": "yes", "backup": None, "format": "raw"},
        {"path": "/path/to/second/drive", "cache": "unsafe", "mmp": "no", "backup": None, "format": "raw"},
    )
    assert values["mount-points"] == {
        "homedir": {"path": "/home", "readonly": False, "type": "9p"},
        "data": {"path": "/data", "readonly": False, "type": "9p"},
        "fast": {"path": "/fast", "readonly": False, "type": "virtiofs"},
    }
    assert values["user-data"] == {"packages": ["vim"]}
    assert values["kernel"] == {"path": "/boot/vmlinuz", "initrd": None, "append": None}
    later = {"firmware", "command-user", "user-data-force", "hugepages", "memory-prealloc", "memory-lock", "on-power-off"}
    later |= {"devices"}
    assert set(values) == set(SETTINGS) - {"memory"} - later


@pytest.mark.parametrize(
    ("text", "mebibytes"),
    [
        ("512", 512), ("512M", 512), ("2G", 2048), ("'1T'", 1 << 20), ("2GiB", 2048), ("2g", 2048), ("512mb", 512),
        ("64T", 1 << 26),
    ],
)
def test_memory_is_read_as_slurm_does(text: str, mebibytes: int) -> None:
    assert parse(f"a: {{memory: {text}}}")[0]["a"].values["memory"] == mebibytes


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("cpu: 2", "t.yaml:2: a.cpu: unknown setting"),
        ("cpus: two", "t.yaml:2: a.cpus: expected a whole number, found text 'two'"),
        (BOMB, "t.yaml:2: a.user-data: is larger than 64 KiB"),
        ("persistent-drives: [[/x]]", "t.yaml:2: a.persistent-drives[0]: expected text, found a list"),
        ("cpus: 0", "t.yaml:2: a.cpus: 0 is not between 1 and 4096"),
        ("memory: 0", "t.yaml:2: a.memory: expected an amount of memory"),
        ("memory: 65T", "t.yaml:2: a.memory: 65T is more than 64T, which no VM can have"),
        ("memory: 999999999T", "t.yaml:2: a.memory: 999999999T is more than 64T"),
        ("memory: -1G", "t.yaml:2: a.memory: expected an amount of memory"),
        ("image: 5", "t.yaml:2: a.image: expected text, found a whole number '5'"),
        ('image: "a\\nb"', "t.yaml:2: a.image: expected text on one line"),
        ("mount-points: [x]", "t.yaml:2: a.mount-points: expected a mapping, found a list"),
        ("mount-points: {a b: /x}", "t.yaml:2: a.mount-points.a b: expected a mount tag"),
        ("mount-points: {x: {readonly: true}}", "t.yaml:2: a.mount-points.x: path is missing"),
        ("disk-cache: fast", "t.yaml:2: a.disk-cache: expected one of writeback"),
        ("qemu-bin: qemu", "t.yaml:2: a.qemu-bin: 'qemu' is not an absolute path"),
        ("custom-args: -x", "t.yaml:2: a.custom-args: expected a list, found text '-x'"),
        ('custom-args: ["a\\0b"]', "t.yaml:2: a.custom-args[0]: contains a NUL character"),
        ('kernel: {path: /k, append: "\\0"}', "t.yaml:2: a.kernel.append: contains a NUL character"),
        ('image: "/a\\0b"', "t.yaml:2: a.image: expected text on one line without control characters"),
        ("bind-vcpus: maybe", "t.yaml:2: a.bind-vcpus: expected true or false, found text 'maybe'"),
        ("nic-model: 'e1000,id=x'", "t.yaml:2: a.nic-model: expected a QEMU device name"),
        ("qemu-bin: ./qemu", "t.yaml:2: a.qemu-bin: './qemu' is not an absolute path"),
        ("kernel: vmlinuz", "t.yaml:2: a.kernel: 'vmlinuz' is not an absolute path"),
        ("kernel: {initrd: /i}", "t.yaml:2: a.kernel: path is missing"),
        ("mount-points: {x: data}", "t.yaml:2: a.mount-points.x: 'data' is not an absolute path"),
        ("persistent-drives: [disk]", "t.yaml:2: a.persistent-drives[0]: 'disk' is not an absolute path"),
        (
            "persistent-drives: [{/d: {format: vmdk}}]",
            "t.yaml:2: a.persistent-drives[0]./d.format: expected one of raw",
        ),
        (
            "persistent-drives: [{/d: null, mmp: no}]",
            "t.yaml:2: a.persistent-drives[0].mmp: stands beside the path of a drive, not under it",
        ),
        ("image: true", "t.yaml:2: a.image: expected text or false, found true or false 'true'"),
        ("remote-display: x11", "t.yaml:2: a.remote-display: expected one of vnc, spice, found text 'x11'"),
        (
            "machine-type: 'q35,kernel=vmlinuz,initrd=initrd'",
            "t.yaml:2: a.machine-type: 'kernel' cannot be set in a machine type",
        ),
        ("machine-type: 'append=x,type=pc'", "t.yaml:2: a.machine-type: 'append' cannot be set in a machine type"),
        ("machine-type: 'q35,firmware=a'", "t.yaml:2: a.machine-type: 'firmware' cannot be set in a machine type"),
        ("machine-type: 'q35,dumpdtb=a'", "t.yaml:2: a.machine-type: 'dumpdtb' cannot be set in a machine type"),
        ("command-user: -x", "t.yaml:2: a.command-user: expected a user name"),
        ("command-user: a@b", "t.yaml:2: a.command-user: expected a user name"),
        ("persistent-drives: [{/d: {mmp: always}}]", "t.yaml:2: a.persistent-drives[0]./d.mmp: expected one of yes"),
    ],
)
def test_a_wrong_setting_is_one_sentence_with_its_place(setting: str, said: str) -> None:
    _, problems = parse(f"a:\n  {setting}\n")
    assert len(problems) == 1 and problems[0].startswith(said), problems


# a value that each setting takes, in YAML, and what it comes to
EXAMPLES = {
    "image": ("site:debian@2", "site:debian@2"),
    "resource-set": ("gpu", "gpu"),
    "description": ('"two\\nlines"', "two\nlines"),
    "cpus": ("4096", 4096),
    "memory": ("3T", 3 << 20),
    "user-data": ("~/ud.yaml", "~/ud.yaml"),
    "instance-id": ("'%{vm_rank}-x'", "%{vm_rank}-x"),
    "mount-points": ("{a: /a}", {"a": {"path": "/a", "readonly": False, "type": "9p"}}),
    "persistent-drives": ("/d", ({"path": "/d", "cache": "writeback", "mmp": "yes", "backup": None, "format": "raw"},)),
    "devices": ("{gpu:a100: 2, nvme: 1}", (("gpu:a100", 2), ("nvme", 1))),
    "remote-display": ("vnc", "vnc"),
    "custom-args": ("[-x, 'y z']", ("-x", "y z")),
    "qemu-bin": ("/opt/qemu", "/opt/qemu"),
    "kernel": ("{path: /k, append: a b}", {"path": "/k", "initrd": None, "append": "a b"}),
    "nic-model": ("e1000", "e1000"),
    "machine-type": ("'pc,usb=off'", "pc,usb=off"),
    "cpu-model": ("'host,-avx'", "host,-avx"),
    "disk-model": ("virtio-scsi", "virtio-scsi"),
    "disk-cache": ("directsync", "directsync"),
    "emulator-cores": ("3", 3),
    "bind-vcpus": ("no", False),
    "full-node": ("yes", True),
    "hugepages": ("off", "off"),
    "memory-prealloc": ("true", True),
    "memory-lock": ("true", True),
    "on-power-off": ("keep", "keep"),
    "user-data-force": ("true", True),
    "firmware": ("uefi", "uefi"),
    "command-user": ("John.Doe", "John.Doe"),
}


@pytest.mark.parametrize("key", [key for key in SETTINGS if key != "inherits"])
def test_every_setting_is_taken_inherited_and_cut(key: str) -> None:
    text, value = EXAMPLES[key]
    found, problems = parse(f"a: {{{key}: {text}}}\nb: {{inherits: a}}\nc: {{inherits: a, {key}: null}}")
    assert problems == []
    assert inherit.resolve(found, "a", "net").values[key] == value
    inherited, cut = inherit.resolve(found, "b", "net"), inherit.resolve(found, "c", "net")
    default = "net" if key == "resource-set" else SETTINGS[key].default
    if key == "description":
        assert inherited.values[key] == default
    else:
        assert inherited.values[key] == value != cut.values[key] == default


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(["/x", "yes", "1G"])
keys = st.sampled_from(["path", "type", "/x", "mmp"]) | st.text(max_size=5)
trees = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))


@pytest.mark.thorough
@given(trees, st.sampled_from([*SETTINGS, "x"]))
def test_any_value_of_any_setting_is_taken_or_told_with_its_place(value: object, key: str) -> None:
    found, problems = parse(yaml.safe_dump({"a": {key: value}}))
    assert all(re.match(r"t\.yaml:\d+: a: \S|t\.yaml:\d+: a\.\S|t\.yaml:?\d*: not valid YAML", one) for one in problems), problems
    if not problems and key != "inherits":
        resolved = inherit.resolve(found, "a", "net")
        assert render_one(resolved) and render_one_json(resolved) and render_templates([resolved])


def test_hints_say_what_to_write() -> None:
    problems: list[ConfigError] = []
    inherit.parse_templates(parse_yaml("a:\n  image: yes\n  persistent-drives:\n  - /d:\n    cache: none\n", "t"), True, problems)
    assert [one.hint for one in problems] == [
        "write an image's name or path, or false for none", "indent it deeper than the path, or write - /PATH: {cache: ...}",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["_x", "/a", "a b", "a:b", "a,b", "x" * 65, "''"])
def test_a_name_that_no_option_could_carry_is_refused(name: str) -> None:
    assert "cannot name a template" in parse(f"{name}: {{}}")[1][0]


def test_the_empty_list_is_no_mount_point() -> None:
    found, problems = parse("a: {mount-points: []}")
    assert (found["a"].values, problems) == ({"mount-points": {}}, [])


def test_settings_are_inherited_through_files_and_any_depth() -> None:
    chain = "a: {inherits: b, description: mine}\nb: {inherits: c, cpus: 2}\nc: {cpus: 1, memory: 1G, description: theirs}"
    found, _ = parse(chain)
    one = inherit.resolve(found, "a", "net")
    assert (one.values["cpus"], one.values["memory"], one.values["resource-set"]) == (2, 1024, "net")
    assert one.values["description"] == "mine"
    assert one.origins["cpus"] == "b" and one.origins["memory"] == "c"
    assert inherit.resolve(found, "b").values["description"] == ""


def test_null_cuts_inheritance_and_false_is_no_image() -> None:
    found, _ = parse("p: {cpus: 4, image: /x, resource-set: s}\na: {inherits: p, cpus: null, image: false, resource-set: null}")
    one = inherit.resolve(found, "a", "net").values
    assert (one["cpus"], one["image"], one["resource-set"]) == (1, False, "net")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: {inherits: a}", f"t.yaml:1: a.inherits: {CIRCLE}: a -> a"),
        ("a: {inherits: b}\nb: {inherits: a}", f"t.yaml:2: b.inherits: {CIRCLE}: a -> b -> a"),
        ("a: {inherits: b}\nb: {inherits: c}\nc: {inherits: b}", f"t.yaml:3: c.inherits: {CIRCLE}: b -> c -> b"),
        ("a: {inherits: z}\nz: {inherits: y}\ny: {inherits: z}", f"t.yaml:2: z.inherits: {CIRCLE}: y -> z -> y"),
        ("a:\n  inherits: no", "t.yaml:2: a.inherits: there is no template 'no' to inherit from"),
    ],
)
def test_wrong_parents_are_told_with_their_place(text: str, said: str) -> None:
    found, problems = parse(text.replace(": no", ": 'no'"))
    assert problems == []
    with pytest.raises(ConfigError) as caught:
        inherit.resolve(found, "a")
    assert str(caught.value) == said


def test_an_unknown_template_is_answered_with_those_there_are() -> None:
    found, _ = parse("a: {}\nb:\n")
    with pytest.raises(RequestError) as caught:
        inherit.resolve(found, "c")
    assert caught.value.message == "there is no template 'c'"
    assert "templates: a, b;" in str(caught.value.hint)


def test_a_user_cannot_shadow_a_site_template_nor_the_site_inherit_from_a_user() -> None:
    site, _ = parse("a: {cpus: 1}\nb: {inherits: mine}", file="site.yaml")
    user, _ = parse("a: {cpus: 9}\nmine: {inherits: a}", is_site=False, file="user.yaml")
    problems: list[ConfigError] = []
    merged = inherit.merge([site, user], problems)
    assert [str(problem) for problem in problems] == ["user.yaml:1: a: the site has a template of this name in site.yaml:1"]
    assert merged["a"].is_site
    assert inherit.resolve(merged, "mine").values["cpus"] == 1
    with pytest.raises(ConfigError, match="template of the site cannot inherit from 'mine'"):
        inherit.resolve(merged, "b")


def test_an_error_points_to_where_an_inherited_setting_is_made() -> None:
    site, _ = parse("p:\n  cpus: 2\n  kernel: /k", file="site.yaml")
    user, _ = parse("a: {inherits: p}", is_site=False, file="user.yaml")
    one = inherit.resolve({**site, **user}, "a")
    assert str(one.error("kernel", "wrong")) == "site.yaml:3: p.kernel: wrong"
    assert str(one.error("firmware", "wrong")) == "user.yaml:1: a: wrong"


def test_a_long_chain_is_followed_without_comparing_all_with_all() -> None:
    compared = 0

    class Name(str):
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

    node = parse_yaml("inherits: x", "t.yaml")
    names = [Name(f"t{number}") for number in range(200)]
    chain = {one: Template(one, {"inherits": parent}, node) for one, parent in zip(names, [*names[1:], None], strict=True)}
    inherit.resolve(chain, names[0])
    assert compared < 1000


def test_a_template_of_the_original_has_a_cpu_beside_those_that_it_keeps() -> None:
    text = "a: {emulator-cores: 2}\nb: {inherits: a, emulator-cores: 1}\nc: {inherits: a, cpus: 8}\n"
    text += "d: {inherits: a, full-node: true}\n"
    templates, problems = parse(text)
    cpus = {name: inherit.resolve(templates, name, None).values["cpus"] for name in templates}
    assert problems == [] and cpus == {"a": 3, "b": 2, "c": 8, "d": 1}
    for name in templates:
        inherit.check_sizes(inherit.resolve(templates, name, None))
