"""What a template comes to when a job is submitted: texts filled in, drives, kernels, and what a site allows."""

import os
import pwd
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcocc_runtime.cli import main as cli
from pcocc_runtime.documents.cluster import Drive, Mount
from pcocc_runtime.errors import ConfigError
from pcocc_runtime.settings.tree import Node
from pcocc_runtime.templates.fill import Filling
from pcocc_runtime.templates.template import Resolved, Template
from tests.unit.fake_site import Ask, frozen, refused, user_template, write_image

ME = pwd.getpwuid(os.getuid())


def make_drive(path: Path, content: bytes = b"") -> Path:
    path.write_bytes(content.ljust(4096, b"\0"))
    return path


def limit(directory: Path, text: str) -> None:
    (directory / "etc/pcocc.yaml").write_text(f"max-vms: 64\nusers-may-set: {text}\n")


@given(
    st.text(max_size=40)
    | st.lists(st.sampled_from(["%{", "}", "user", "env:A", "vm_rank", "~", "/", "{"]), max_size=8).map("".join)
)
def test_any_text_is_filled_in_or_refused_with_its_place(text: str) -> None:
    one = Resolved(
        Template("t", {"image": text}, Node({"image": Node(text, "f", 2, "t.image")}, "f", 1, "t")), {"image": text}, {}
    )
    filling = Filling(one, {"user": "alice", "homedir": "/home/alice"}, {"A": "a"}, "/")
    try:
        assert "%{user}" not in filling.text("image", text)
    except ConfigError as error:
        assert error.where == "f:2: t.image" and error.hint


def test_a_rank_gives_each_vm_a_group_of_its_own(ask: Ask, tmp_path: Path) -> None:
    for rank in (1, 2):
        (tmp_path / f"d{rank}").mkdir()
    mounts = f"{{d: '{tmp_path}/d%{{vm_rank}}'}}"
    user_template(
        tmp_path,
        f"mine: {{inherits: tiny, mount-points: {mounts}, instance-id: 'i-%{{vm_rank}}', custom-args: [-x,"
        " '%{vm_rank}']}",
    )
    groups = frozen(ask("tiny,mine:2,big")).groups
    assert [(group.template, group.count) for group in groups] == [("tiny", 1), ("mine", 1), ("mine", 1), ("big", 1)]
    assert [group.mounts for group in groups[1:3]] == [(Mount("d", f"{tmp_path}/d1"),), (Mount("d", f"{tmp_path}/d2"),)]
    assert [group.custom_args for group in groups[1:3]] == [("-x", "1"), ("-x", "2")]
    assert [group.instance_id for group in groups[1:3]] == ["i-1", "i-2"]
    assert f"directory {tmp_path}/d3 cannot be read" in refused(ask("tiny,mine:3"))


@pytest.mark.thorough
def test_a_thousand_vms_that_all_differ_can_travel(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "etc/pcocc.yaml").write_text("max-vms: 1024\n")
    user_template(
        tmp_path,
        "mine: {inherits: tiny, custom-args: [-smbios, 'type=1,serial=%{vm_rank}'], user-data: {packages: [a, b]}}",
    )
    groups = frozen(ask("mine:1024")).groups
    assert len(groups) == 1024 and groups[1023].custom_args[1] == "type=1,serial=1023"


def test_every_text_of_a_template_is_filled_in(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", str(tmp_path))
    make_drive(tmp_path / f"home/{ME.pw_name}.img")
    for name in ("k", "i"):
        make_drive(tmp_path / name)
    user_template(tmp_path, """
mine:
  inherits: tiny
  persistent-drives: ['~/%{clusteruser}.img']
  kernel: {path: '%{env:WHERE}/k', initrd: '%{env:WHERE}/i', append: 'user=%{user}'}
  qemu-bin: '%{homedir}/qemu'
""")  # fmt: skip
    group = frozen(ask("mine")).groups[0]
    assert group.persistent == (Drive(f"{tmp_path}/home/{ME.pw_name}.img"),)
    assert (group.kernel, group.initrd, group.append) == (f"{tmp_path}/k", f"{tmp_path}/i", f"user={ME.pw_name}")
    assert group.qemu_bin == f"{tmp_path}/home/qemu"


def test_the_rest_of_a_template_is_carried(ask: Ask, tmp_path: Path) -> None:
    settings = (
        "firmware: uefi, remote-display: vnc, emulator-cores: 1, bind-vcpus: false, command-user: root, disk-model:"
        " virtio-scsi"
    )
    user_template(tmp_path, f"mine: {{inherits: big, {settings}}}\nwhole: {{inherits: big, full-node: true}}")
    group = frozen(ask("mine")).groups[0]
    assert (group.firmware, group.display, group.emulator_cores, group.bind_vcpus) == ("uefi", "vnc", 1, False)
    assert (group.command_user, group.disk_model) == ("root", "virtio-scsi")
    assert "exclusive 1\n" in ask("whole")[1] and "exclusive 0\n" in ask("mine")[1]


@pytest.mark.parametrize("setting", ["image: false", "image: null, persistent-drives: [DRIVE]", "image: null, kernel: DRIVE"])
def test_a_vm_may_boot_without_an_image(ask: Ask, tmp_path: Path, setting: str) -> None:
    drive = make_drive(tmp_path / "drive")
    user_template(tmp_path, f"mine: {{inherits: tiny, {setting.replace('DRIVE', str(drive))}}}")
    assert frozen(ask("mine")).groups[0].image is None


@pytest.mark.parametrize(
    ("options", "content", "said"),
    [
        ("{}", None, "drive DRIVE cannot be read: No such file or directory"),
        ("{}", b"QFI\xfb", "drive DRIVE is a qcow2 file, but would be used as a raw one"),
        ("{format: qcow2}", b"", "DRIVE is not a qcow2 file"),
        ("{format: qcow2, mmp: cluster}", "qcow2", "drive DRIVE is a qcow2 file, which several VMs cannot write at once"),
    ],
)  # fmt: skip
def test_a_drive_that_cannot_be_used_is_refused(
    ask: Ask, tmp_path: Path, options: str, content: bytes | str | None, said: str
) -> None:
    drive = tmp_path / "drive"
    if content == "qcow2":
        write_image(drive)
    elif isinstance(content, bytes):
        make_drive(drive, content)
    user_template(tmp_path, f"mine: {{inherits: tiny, persistent-drives: [{{{drive}: {options}}}]}}")
    assert said.replace("DRIVE", str(drive)) in refused(ask("mine"))


# what a template names and is not to be had; GONE/x is in no directory
UNUSABLE = [
    ("mount-points: {b: /usr, a: GONE}", "mount-points.a: mount 'a': directory GONE cannot be read: No such file"),
    ("mount-points: {a: {path: HERE/file, readonly: true}}", "mount-points.a: mount 'a': directory HERE/file is not a directory"),
    ("mount-points: {a: '/%{what}'}", "mount-points.a: %{what} is not known"),
    ("persistent-drives: [HERE/file, GONE]", "persistent-drives[1]: drive GONE cannot be read"),
    ("persistent-drives: {HERE/file: null, GONE: {mmp: cluster}}", "persistent-drives.GONE: drive GONE cannot be read"),
    ("persistent-drives: GONE", "persistent-drives: drive GONE cannot be read"),
    ("persistent-drives: [HERE/file, HERE/tiny.qcow2]", "persistent-drives[1]: drive HERE/tiny.qcow2 is a qcow2 file, but would"),
    ("persistent-drives: [HERE/file: {format: qcow2}]", "persistent-drives[0].HERE/file: image HERE/file is not a qcow2 file"),
    ("user-data: GONE", "user-data: user-data file GONE cannot be read"),
    ("kernel: GONE", "kernel: kernel GONE cannot be read"),
    ("kernel: {path: HERE/file, initrd: GONE}", "kernel.initrd: initrd GONE cannot be read"),
    ("image: GONE", "image: image GONE cannot be read"),
    ("image: nosuch", "image: there is no image 'nosuch' in any repository"),
    ("custom-args: [-x, '%{y}']", "custom-args[1]: %{y} is not known"),
    ("resource-set: slow", "resource-set: there is no resource set 'slow'"),
    ("devices: [gpu:a100, gpu:h100]", "devices[0]: there is no device 'gpu:a100'"),
    ("devices: {gpu:h100: 2}", "devices.gpu:h100: there is no device 'gpu:h100'"),
]  # fmt: skip


@pytest.mark.parametrize("inherited", [False, True])
@pytest.mark.parametrize(("setting", "said"), UNUSABLE)
def test_what_a_template_names_is_refused_with_its_place(
    ask: Ask, tmp_path: Path, setting: str, said: str, inherited: bool
) -> None:
    make_drive(tmp_path / "file")
    setting, said = (text.replace("GONE", "/gone/x").replace("HERE", str(tmp_path)) for text in (setting, said))
    user_template(tmp_path, f"a: {{inherits: tiny}}\nmine: {{inherits: tiny, {setting}}}\nchild: {{inherits: mine}}")
    text = refused(ask("child" if inherited else "mine"))
    assert text.startswith(f"pcocc: error: {tmp_path}/home/.pcocc/templates.yaml:2: mine.{said}") and "\nhint: " in text


def test_what_is_typed_keeps_the_words_of_its_option(ask: Ask, tmp_path: Path) -> None:
    user_template(tmp_path, "mine: {inherits: tiny, mount-points: {a: /gone}, image: /gone, user-data: /gone}")
    assert refused(ask("mine", images=["./x"])).startswith(f"pcocc: error: image {tmp_path}/x cannot be read")
    assert refused(ask("mine", images=["./tiny.qcow2"], mounts=["a=x"], user_data="x")).startswith("pcocc: error: user-data file")
    write_image(tmp_path / "ud").write_text("#!/bin/sh")
    options: dict[str, object] = {"images": ["./tiny.qcow2"], "user_data": "ud"}
    assert refused(ask("mine", mounts=["a=x"], **options)).startswith(f"pcocc: error: mount 'a': directory {tmp_path}/x cannot")
    assert frozen(ask("mine", mounts=["a=/usr"], **options)).groups[0].mounts == (Mount("a", "/usr"),)


def test_a_path_of_an_arrays_task_is_looked_at_as_far_as_it_is_known(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "own-%a").write_text("#!/bin/sh")
    group = frozen(ask("tiny", mounts=["a=data/in-%a/x"], user_data="ud-%a")).groups[0]
    assert group.mounts == (Mount("a", f"{tmp_path}/data/in-%a/x"),)
    assert (group.task_user_data, group.user_data, group.task_user_data_forced) == (f"{tmp_path}/ud-%a", None, False)
    assert frozen(ask("tiny", user_data="ud-%a", user_data_force=True)).groups[0].task_user_data_forced
    group = frozen(ask("tiny", user_data="own-%a")).groups[0]
    assert (group.task_user_data, group.user_data) == (None, "#!/bin/sh")
    assert refused(ask("tiny", mounts=["a=gone/%a"])).startswith(f"pcocc: error: mount 'a': directory {tmp_path}/gone cannot")
    user_template(tmp_path, "mine: {inherits: tiny, user-data: /gone, user-data-force: true}")
    group = frozen(ask("mine", user_data="ud-%a")).groups[0]
    assert (group.task_user_data, group.task_user_data_forced) == (f"{tmp_path}/ud-%a", True)
    user_template(tmp_path, "mine: {inherits: tiny, mount-points: {a: '/usr/%a'}}")
    assert "mine.mount-points.a: mount 'a': directory /usr/%a cannot be read" in refused(ask("mine"))


def test_more_devices_than_a_machine_has_slots_are_refused(ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"n{number}" for number in range(20)]
    subnets = {name: f"10.{number}.0.0/16" for number, name in enumerate(names)}
    (tmp_path / "etc/networks.yaml").write_text(
        "".join(
            f"{name}: {{type: ethernet, settings: {{network-layer: L2, int-network: {net}}}}}\n"
            for name, net in subnets.items()
        )
    )
    (tmp_path / "etc/resources.yaml").write_text(
        f"default: {{networks: [{', '.join(names)}], default: true}}\nbare: {{}}\nfast: {{}}\n"
    )
    for number in range(9):
        make_drive(tmp_path / f"d{number}")

    def submit(drives: int, more: str = "") -> tuple[int, str]:
        listed = ", ".join(f"{tmp_path}/d{number}" for number in range(drives))
        user_template(tmp_path, f"mine: {{inherits: tiny, persistent-drives: [{listed}]{more}}}")
        return ask("mine", mounts=[f"t{number}=/usr" for number in range(64)])

    assert submit(7)[0] == submit(9, ", disk-model: virtio-scsi")[0] == 1
    text = refused(submit(9))
    assert (
        "a VM of template 'mine' would need 31 PCI slots for 10 disks and 20 networks and devices, but it has 29" in text
        and "virtio-scsi" in text
    )
    assert "would need 30 PCI slots" in refused(submit(6, ", remote-display: vnc"))
    assert cli.main(["template", "check"]) == 1
    assert "templates.yaml:1: mine.persistent-drives: a VM of template 'mine' would need 30 PCI slots" in capsys.readouterr().err


def test_a_vm_has_a_limit_of_mounts(ask: Ask, tmp_path: Path) -> None:
    def mount(count: int) -> None:
        points = ", ".join(f"t{number}: /usr" for number in range(count))
        user_template(tmp_path, f"mine:\n  inherits: tiny\n  mount-points: {{{points}}}")

    mount(128)
    assert len(frozen(ask("mine", mounts=["t7=/bin"])).groups[0].mounts) == 128
    said = "129 directories are too many for a VM, which can have 128"
    assert refused(ask("mine", mounts=["u=/usr"])).startswith(f"pcocc: error: {said}")
    mount(129)
    assert f"templates.yaml:3: mine.mount-points: {said}" in refused(ask("mine"))


def test_a_drive_is_named_once_in_a_vm(ask: Ask, tmp_path: Path) -> None:
    drive = make_drive(tmp_path / "drive")
    (tmp_path / "link").symlink_to("drive")
    for other in (drive, f"{tmp_path}/home/../drive", tmp_path / "link"):
        for options in ("null", "{mmp: cluster}"):
            user_template(
                tmp_path,
                f"mine:\n  inherits: tiny\n  persistent-drives:\n  - {drive}: {options}\n  - {other}: {options}",
            )
            text = refused(ask("mine"))
            assert f"templates.yaml:5: mine.persistent-drives[1].{other}: drive {other} is " in text
            assert ("listed twice" if other == drive else f"the same file as drive {drive}") in text


def test_a_drive_is_known_by_its_links(ask: Ask, tmp_path: Path) -> None:
    drive = make_drive(tmp_path / "drive")
    (tmp_path / "link").symlink_to("drive")
    user_template(
        tmp_path,
        f"a: {{inherits: tiny, persistent-drives: {drive}}}\nb: {{inherits: tiny, persistent-drives: {tmp_path}/link}}",
    )
    assert f"2 VMs would write the drive {drive} of template 'a'" in refused(ask("a,b"))


def test_what_the_original_backs_up_a_drive_to_is_taken_as_it_is(ask: Ask, tmp_path: Path) -> None:
    drive = make_drive(tmp_path / "drive")
    user_template(tmp_path, f"mine: {{inherits: tiny, persistent-drives: [{drive}: {{backup: 'user:back%{{up}}'}}]}}")
    assert frozen(ask("mine")).groups[0].persistent == (Drive(str(drive), backup="user:back%{up}"),)


def test_a_drive_for_one_vm_is_not_given_to_two(ask: Ask, tmp_path: Path) -> None:
    drive = make_drive(tmp_path / "drive")
    for rank in range(2):
        make_drive(tmp_path / f"drive{rank}")
    user_template(
        tmp_path,
        f"one: {{inherits: tiny, persistent-drives: [{drive}]}}\nall: {{inherits: tiny, persistent-drives: [{{{drive}:"
        f" {{mmp: cluster}}}}]}}\neach: {{inherits: tiny, persistent-drives: ['{drive}%{{vm_rank}}']}}",
    )
    assert ask("one")[0] == ask("all:2")[0] == ask("each:2")[0] == 1
    for template in ("one:2", "one,all", "all,one"):
        assert f"2 VMs would write the drive {drive}" in refused(ask(template))


LIMITED = [
    ("custom-args: [-device, '-*']", "custom-args: [-device, usb-ehci]",
     "mine.custom-args[1]: this site does not let users set 'usb-ehci' here"),
    ("custom-args: []", "custom-args: [x]", "does not let users set 'x' here"),
    ("qemu-bin: [/opt/*]", "qemu-bin: /opt/../bin/sh", "does not let users set '/usr/bin/"),
    ("kernel: [/boot/*]", "kernel: /proc/version", "mine.kernel: this site does not let users set '/proc/version' here"),
    ("host-paths: [/nowhere]", "mount-points: {a: /usr}", "mount 'a': directory /usr may not be given to VMs at this site"),
    ("host-paths: [BASE/home]", "mount-points: {a: ~/link}", "link may not be given"),
    ("host-paths: ['%{homedir}', '~']", "mount-points: {a: ~/x}", "/x may not be given"),  # which HOME says
    # as USER would
    ("host-paths: ['/proc/%{user}', '/proc/%{clusteruser}']", "mount-points: {a: /proc}", "/proc may not be given"),
    ("kernel: ['%{homedir}/*']", "kernel: ~/k", "mine.kernel: this site does not let users set '/"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "setting", "said"), LIMITED)
def test_a_site_limits_what_users_set(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str, setting: str, said: str
) -> None:
    (tmp_path / "home/link").symlink_to("/usr")
    (tmp_path / "home/x").mkdir()
    make_drive(tmp_path / "home/k")
    monkeypatch.setenv("USER", "..")
    limit(tmp_path, f"{{{rule.replace('BASE', str(tmp_path))}}}")
    user_template(tmp_path, f"mine: {{inherits: tiny, {setting}}}")
    text = refused(ask("mine"))
    assert said in text and "hint: allowed: " in text


ALLOWED = [
    ("custom-args: [-device, 'usb-*']", "custom-args: [-device, usb-ehci]"),
    ("custom-args: []", "cpus: 2"),
    ("qemu-bin: [/bin/*]", "qemu-bin: /usr/bin/sh"),
    ("kernel: ['/proc/*']", "kernel: /proc/version"),
    ("host-paths: ['%{homedir}', /usr/*]", f"mount-points: {{a: {ME.pw_dir}, b: /usr/share/doc}}"),
    ("host-paths: ['~']", f"mount-points: {{a: {ME.pw_dir}}}"),
    ("custom-args: ['id=%{user}']", "custom-args: ['id=%{clusteruser}']"),
    ("host-paths: [/]", "mount-points: {a: ~/link}"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "setting"), ALLOWED)
def test_what_a_site_allows_is_taken(ask: Ask, tmp_path: Path, rule: str, setting: str) -> None:
    (tmp_path / "home/x").mkdir()
    (tmp_path / "home/link").symlink_to("/usr")
    limit(tmp_path, f"{{{rule}}}")
    user_template(tmp_path, f"mine: {{inherits: tiny, {setting}}}")
    frozen(ask("mine"))


def test_what_is_typed_is_limited_and_what_the_site_sets_is_not(ask: Ask, tmp_path: Path) -> None:
    text = (tmp_path / "etc/templates.yaml").read_text()
    (tmp_path / "etc/templates.yaml").write_text(
        f"{text}sites: {{inherits: tiny, mount-points: {{a: /usr}}, custom-args: [-x]}}\n"
    )
    limit(tmp_path, "{host-paths: [/nowhere], custom-args: []}")
    assert frozen(ask("sites")).groups[0].mounts == (Mount("a", "/usr"),)
    assert "mount 'b': directory /usr may not be given" in refused(ask("sites", mounts=["b=/usr"]))
    user_template(tmp_path, "mine: {inherits: sites}")
    frozen(ask("mine"))
