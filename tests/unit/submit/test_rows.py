"""A setting of templates is a row: one that is made up here works everywhere, and every real one gets into the document."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from pcocc_runtime.cli import main as cli
from pcocc_runtime.documents import cluster, codec
from pcocc_runtime.documents.cluster import Group
from pcocc_runtime.settings import checks
from pcocc_runtime.submit import freeze
from pcocc_runtime.submit.choose import LOOKS, OPTIONS
from pcocc_runtime.templates import row as rows
from pcocc_runtime.templates import values
from pcocc_runtime.templates.fill import Filling
from pcocc_runtime.templates.row import Limit, TemplateSetting
from pcocc_runtime.templates.settings import SETTINGS
from tests.settings import CLUSTER, fields_of, render_cluster, type_of
from tests.unit.fake_site import Ask, frozen, refused, user_template, write_image
from tests.unit.man_pages import known_settings, read_settings
from tests.unit.site.samples import find_unnamed

ROM = TemplateSetting(
    "rom", values.path, default="/etc/passwd", field="rom", fill=Filling.path, look="file", noun="ROM", limit=Limit("roms"),
)  # fmt: skip
FANS = TemplateSetting(
    "fans", checks.list_of(checks.integer(1, 9)), default=(), field="fans", carried="tuple[int, ...]", each=True
)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Add two rows to the table, and to the document the lines by which the nodes would read them."""
    for one in (ROM, FANS):
        monkeypatch.setitem(SETTINGS, one.name, one)
    lines = [(str(one.field), type_of(one), one.default) for one in (ROM, FANS)]
    wider = dataclasses.make_dataclass("Group", lines, bases=(Group,), frozen=True, slots=True)
    for module in (freeze, cluster):
        monkeypatch.setattr(module, "Group", wider)
    codec._hints.cache_clear()
    yield
    codec._hints.cache_clear()


def rom_of(answer: tuple[int, str], vm: int = 0) -> object:
    return getattr(frozen(answer).group_of(vm), str(ROM.field))


@pytest.mark.usefixtures("made_up")
def test_a_made_up_row_is_checked_and_told_of(ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    user_template(tmp_path, "mine:\n  inherits: tiny\n  rom: here\n  fans: [1, 10]\n")
    assert "templates.yaml:3: mine.rom: 'here' is not an absolute path" in refused(ask("mine"))
    assert cli.main(["template", "check"]) == 1
    said = capsys.readouterr().err
    assert "mine.rom: 'here' is not" in said and "templates.yaml:4: mine.fans[1]: 10 is not between 1 and 9" in said
    user_template(tmp_path, "mine: {inherits: tiny, room: /x}")
    assert "mine.room: unknown setting\nhint: did you mean 'rom'?" in refused(ask("mine"))


@pytest.mark.usefixtures("made_up")
def test_a_made_up_row_has_a_default_and_is_inherited(ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    user_template(tmp_path, "a: {inherits: tiny, rom: /etc/group}\nb: {inherits: a}\nc: {inherits: b, rom: null}\n")
    assert [rom_of(ask(name)) for name in ("tiny", "a", "b", "c")] == ["/etc/passwd", "/etc/group", "/etc/group", "/etc/passwd"]
    assert cli.main(["template", "show", "b"]) == 0
    assert ["rom", "/etc/group", "a"] in [line.split() for line in capsys.readouterr().out.splitlines()]


@pytest.mark.usefixtures("made_up")
def test_a_made_up_row_is_filled_in_and_looked_at(ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for rank in (0, 1):
        (tmp_path / f"home/rom{rank}").touch()
    user_template(tmp_path, "mine: {inherits: tiny, rom: '~/rom%{vm_rank}'}\n")
    answer = ask("mine:2")
    assert [rom_of(answer, rank) for rank in (0, 1)] == [f"{tmp_path}/home/rom{rank}" for rank in (0, 1)]
    assert f"templates.yaml:1: mine.rom: ROM {tmp_path}/home/rom2 cannot be read: No such file" in refused(ask("mine:3"))
    user_template(tmp_path, "mine: {inherits: tiny, rom: '~/%{what}'}\nyours: {inherits: tiny, rom: /gone}\n")
    assert "mine.rom: %{what} is not known" in refused(ask("mine"))
    assert cli.main(["template", "check"]) == 1
    said = capsys.readouterr().err
    assert "mine.rom: %{what} is not known" in said and "yours.rom: ROM /gone cannot be read" in said


@pytest.mark.usefixtures("made_up")
def test_a_made_up_row_is_limited_by_the_site(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "etc/pcocc.yaml").write_text("users-may-set: {roms: ['/etc/p*'], rums: []}\n")
    assert "pcocc.yaml:1: users-may-set.rums: unknown setting\nhint: did you mean 'roms'?" in refused(ask("tiny"))
    (tmp_path / "etc/pcocc.yaml").write_text("users-may-set: {roms: ['/etc/p*']}\n")
    user_template(tmp_path, "mine: {inherits: tiny, rom: /etc/group}\nyours: {inherits: tiny, rom: /etc/../etc/passwd}\n")
    text = refused(ask("mine"))
    assert "templates.yaml:1: mine.rom: this site does not let users set '/etc/group' here\nhint: allowed: /etc/p*" in text
    assert rom_of(ask("yours")) == "/etc/../etc/passwd"


@pytest.mark.usefixtures("made_up")
def test_a_made_up_row_has_its_line_in_the_document() -> None:
    text = CLUSTER.read_text()
    lines = ['    rom: str = "/etc/passwd"\n', "    fans: tuple[int, ...] = ()\n"]
    assert [line for line in render_cluster(text).splitlines(keepends=True) if line not in text] == lines


@pytest.mark.usefixtures("made_up")
def test_a_made_up_row_is_missed_in_the_man_page_and_the_sample(tmp_path: Path) -> None:
    assert known_settings(tmp_path, "template") - set(read_settings("template")) == {"rom", "fans"}
    assert find_unnamed("templates", SETTINGS) == ["rom", "fans"]
    assert known_settings(tmp_path, "limits") - set(read_settings("limits")) == {"roms"}


EXAMPLES = {
    "image": "HERE/other.qcow2", "resource-set": "bare", "cpus": "2", "memory": "1G", "user-data": "HERE/file",
    "instance-id": "x", "mount-points": "{a: /usr}", "persistent-drives": "HERE/file", "remote-display": "vnc",
    "custom-args": "[-x]", "qemu-bin": "/q", "kernel": "{path: HERE/file, initrd: HERE/file, append: x}",
    "nic-model": "e1000", "machine-type": "pc", "cpu-model": "max", "disk-model": "ide", "disk-cache": "none",
    "emulator-cores": "1", "bind-vcpus": "false", "full-node": "true", "firmware": "uefi", "command-user": "bob",
    "hugepages": "auto", "memory-prealloc": "true", "memory-lock": "true",
    "on-power-off": "keep", "devices": "[gpu]",
}  # fmt: skip
SPOKEN_OF = {"description", "inherits", "user-data-force"}  # where jobs are submitted, and nowhere else


def test_every_setting_is_carried_in_a_field_of_its_own() -> None:
    carried = [name for one in SETTINGS.values() for name in fields_of(one)]
    text = CLUSTER.read_text()
    assert text == render_cluster(text), "documents/cluster.py is not what the rows come to: run 'make settings'"
    own = ["template", "count", "resource_set", "task_user_data", "task_user_data_forced"]
    assert [field.name for field in dataclasses.fields(Group)] == [*own, *carried]
    assert {name for name, one in SETTINGS.items() if not fields_of(one)} == {"resource-set", *SPOKEN_OF}


def test_a_template_that_says_nothing_is_the_documents_default(ask: Ask, tmp_path: Path) -> None:
    user_template(tmp_path, "nothing: {image: false}\n")
    assert frozen(ask("nothing")).groups == (Group("nothing", 1),)


@pytest.mark.parametrize("key", [key for key in SETTINGS if key not in SPOKEN_OF])
def test_every_setting_reaches_the_nodes(ask: Ask, tmp_path: Path, key: str) -> None:
    write_image(tmp_path / "other.qcow2")
    (tmp_path / "file").write_text("#cloud-config\n")
    (tmp_path / "etc/pcocc.yaml").write_text("devices: {gpu: {ids: ['10de:20b2']}}\n")
    base = "{image: false, cpus: 3}"
    user_template(tmp_path, f"base: {base}\nmine:\n  inherits: base\n  {key}: {EXAMPLES[key].replace('HERE', str(tmp_path))}\n")
    without, group = frozen(ask("base")).groups[0], frozen(ask("mine")).groups[0]
    changed = {one.name for one in dataclasses.fields(Group) if getattr(without, one.name) != getattr(group, one.name)}
    expected = {"resource_set"} if key == "resource-set" else {"image"} if key == "image" else set(fields_of(SETTINGS[key]))
    assert changed - {"template"} == expected  # an image of no repository has no origin


def test_whatever_a_row_names_is_there() -> None:
    assert set(LOOKS) == set(get_args(rows.Look)) and set(OPTIONS) == set(get_args(rows.Option))
    named = [one for row in SETTINGS.values() for one in (row, *row.parts)]
    assert {one.look for one in named} >= set(LOOKS) and {one.option for one in named} >= set(OPTIONS)
    assert [one.name for one in named if one.look and one.look != "user-data" and not one.noun] == []
