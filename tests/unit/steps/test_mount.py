"""Directories of a running VM: a real QEMU without a guest gets them and gives them back, and a real virtiofsd serves them."""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pcocc_runtime import naming
from pcocc_runtime.documents.cluster import Group, Mount
from pcocc_runtime.documents.command_line import COMMAND_FILE, encode_command_line
from pcocc_runtime.documents.disks import DISKS_FILE, encode_disks
from pcocc_runtime.documents.vm_state import STATE_FILE, VmState, encode_state
from pcocc_runtime.errors import PcoccError
from pcocc_runtime.guest import directories
from pcocc_runtime.keeper import directories as keeper_directories
from pcocc_runtime.keeper.directories import Directories
from pcocc_runtime.qemu.disks import Disk
from pcocc_runtime.qemu.hot_directories import parse_directory, plan_directory_set, render_directory
from pcocc_runtime.qemu.plugs import plan_plugs
from pcocc_runtime.steps import mount, plugging
from pcocc_runtime.steps.in_guest import CannotEnter, Said
from pcocc_runtime.steps.mount import check_words, read_given
from pcocc_runtime.steps.qemu import Monitor
from tests.unit.loading import ROOT
from tests.waiting import wait_for

JOB = 7
SHARED = ("-object", "memory-backend-memfd,id=ram,size=32M,share=on", "-machine", "memory-backend=ram")
Start = Callable[..., Path]


@pytest.fixture
def keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """Return a function that does what a VM's keeper does for a VM with this directory."""
    server = tmp_path / "server"
    server.write_text(
        f"#!{sys.executable} -IS\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from pcocc_runtime.vm.directory import main\nsys.exit(main())\n"
    )
    server.chmod(0o755)
    monkeypatch.setattr(keeper_directories, "SERVER", str(server))
    selector, ended, held = selectors.DefaultSelector(), threading.Event(), socket.socket(socket.AF_UNIX)

    def turn() -> None:
        while not ended.is_set():
            for key, _events in selector.select(0.1):
                key.data()

    def begin(directory: Path) -> None:
        held.connect(str(directory / "keeper"))
        Directories(str(directory), selector)
        keeper.start()

    keeper = threading.Thread(target=turn)
    yield begin
    ended.set()
    keeper.join()
    for one in (held, *(key.fileobj for key in selector.get_map().values() if isinstance(key.fileobj, socket.socket))):
        one.close()


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: Callable[[Path], None]) -> Iterator[Start]:
    """Return a function that starts the QEMU of vm0 with these words, and what a keeper has for it; return its directory."""
    directory, children = tmp_path / "job/vm0", list[subprocess.Popen[bytes]]()
    directory.mkdir(parents=True)
    (tmp_path / "conf").mkdir()
    monkeypatch.setattr("pcocc_runtime.steps.host_path.site_dir", lambda _environ, _uid: str(tmp_path / "conf"))
    monkeypatch.setattr(naming, "job_dir", lambda _job: tmp_path / "job")
    (directory / DISKS_FILE).write_bytes(encode_disks(Group("t", 1), [Disk("/boot.qcow2")], str(tmp_path)))
    (directory / STATE_FILE).write_text(encode_state(VmState("up", 1)))
    monkeypatch.setattr(mount, "unplug", unplug)

    def run(*words: str, machine: str = "pc") -> Path:
        argv = [
            "qemu-system-x86_64", "-nodefaults", "-display", "none", "-machine", machine, "-m", "32", "-accel", "tcg",
            "-chardev", f"socket,id=qmp,path={directory}/qmp,server=on,wait=off", "-mon", "chardev=qmp,mode=control",
            # the keeper's, which has QEMU keep descriptors that nobody uses
            "-chardev", f"socket,id=keeper,path={directory}/keeper,server=on,wait=off", "-mon", "chardev=keeper,mode=control",
            *words,
        ]  # fmt: skip
        (directory / COMMAND_FILE).write_text(encode_command_line(argv).decode())
        children.append(subprocess.Popen(argv))
        wait_for(lambda: (directory / "qmp").exists() and (directory / "keeper").exists(), "QEMU's monitors")
        keep(directory)
        return directory

    yield run
    for child in children:
        child.kill()
        child.wait()


def unplug(monitor: Monitor, device: str, what: str, seconds: float) -> None:
    """Remove a device of a machine `pc` as a guest does that was asked to: by ACPI's ports (docs/specs/acpi_pci_hotplug)."""
    place = int(monitor.command("qom-get", {"path": f"/machine/peripheral/{device}", "property": "addr"}))
    monitor.command("device_del", {"id": device})
    for port, value in ((0xAE10, 0), (0xAE08, 1 << (place >> 3))):
        monitor.command("human-monitor-command", {"command-line": f"o /w {port:#x} {value:#x}"})
    plugging.unplug(monitor, device, what, seconds)


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a guest is told, which answers that it is done."""
    told: list[str] = []

    def run_in_guest(_vm: str, text: str, _seconds: float) -> Said:
        told.append(text)
        return Said(0, "")

    monkeypatch.setattr(mount, "run_in_guest", run_in_guest)
    return told


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data, and more"
    path.mkdir()
    return path


def run(*words: str) -> int:
    return mount.operate(JOB, "vm0", check_words(words))


def servers(path: Path) -> list[str]:
    """Return the virtiofsd processes that serve a directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_text()
        except OSError:
            continue
        if "virtiofsd" in words and str(path).replace(",", "\\,") in words:
            found.append(words)
    return found


def test_a_directory_comes_and_goes_with_its_server(
    start: Start, guest: list[str], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start(*SHARED)
    assert run("add", f"work={data}", f"look={data},readonly") == 0
    assert capsys.readouterr().out == f"vm0: /mnt/work is {data}\nvm0: /mnt/look is {data}, read-only\n"
    assert len(servers(data)) == 2 or len(servers(data)) == 4  # the one in C forks
    assert "-o rw work /mnt/work" in guest[0] and "-o ro look /mnt/look" in guest[1]
    assert run("list") == 0
    shown = capsys.readouterr().out
    assert shown == f"vm0: work is {data}, given while it runs\nvm0: look is {data}, read-only, given while it runs\n"
    with pytest.raises(PcoccError, match="vm0 has a directory 'work' already"):
        run("add", f"work={data}")
    assert run("remove", "--time=10", "look", "work") == 0
    assert capsys.readouterr().out == "vm0: look is taken back\nvm0: work is taken back\n"
    wait_for(lambda: not servers(data), "the end of virtiofsd")
    with pytest.raises(PcoccError, match="was not given a directory 'work'"):
        run("remove", "work")
    assert run("list") == 0 and capsys.readouterr().out == ""


def test_there_are_as_many_as_there_are_ports(start: Start, guest: list[str], data: Path) -> None:
    start(*SHARED, *plan_plugs("q35", 0, ()), machine="q35")
    run("add", *(f"t{number}={data}" for number in range(4)))
    with pytest.raises(PcoccError, match="has no room for more"):
        run("add", f"t4={data}")
    assert len(guest) == 4


def test_memory_that_is_not_shared_is_told_with_its_cure(start: Start, guest: list[str], data: Path) -> None:
    start()
    with pytest.raises(PcoccError, match="the memory of vm0 is not shared") as caught:
        run("add", f"work={data}")
    assert f"--pcocc-mount=work={data},type=virtiofs" in str(caught.value.hint) and not guest and not servers(data)


def test_what_cannot_be_given(start: Start, guest: list[str], data: Path, tmp_path: Path) -> None:
    directory = start(*SHARED, machine="q35")
    (tmp_path / "file").touch()
    for path, message in ((tmp_path / "none", "cannot be read: No such file"), (tmp_path / "file", "is not a directory")):
        with pytest.raises(PcoccError, match=message):
            run("add", f"work={path}")
    with pytest.raises(PcoccError, match="takes no devices while it runs"):
        run("add", f"work={data}")
    (tmp_path / "conf/pcocc.yaml").write_text("users-may-set: {host-paths: [/nowhere]}\n")
    with pytest.raises(PcoccError, match="may not be given to VMs at this site"):
        run("add", f"work={data}")
    (directory / STATE_FILE).unlink()
    with pytest.raises(PcoccError, match="the guest of vm0 is still booting"):
        run("add", f"work={data}")
    assert not guest and not servers(data)


def test_a_tag_of_the_boot_is_taken(start: Start, guest: list[str], data: Path) -> None:
    directory = start(*SHARED)
    words = ["qemu", "-device", "virtio-9p-pci,fsdev=fs0,mount_tag=old", "-device", "vhost-user-fs-pci,chardev=v,tag=new,addr=3"]
    (directory / COMMAND_FILE).write_bytes(encode_command_line(words))
    for tag in ("old", "new"):
        with pytest.raises(PcoccError, match=f"has a directory '{tag}' already"):
            run("add", f"{tag}={data}")
    assert not guest


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (Said(directories.OCCUPIED, ""), "has a file system already"), (Said(directories.NO_VIRTIOFS, "x"), "has no virtiofs"),
        (Said(directories.REFUSED, "mount: bad"), "cannot mount work: mount: bad"), (Said(1, ""), "does not find the new device"),
    ],
)  # fmt: skip
def test_what_a_guest_cannot_mount_is_taken_back(
    start: Start, data: Path, monkeypatch: pytest.MonkeyPatch, said: Said, message: str
) -> None:
    start(*SHARED)
    monkeypatch.setattr(mount, "run_in_guest", lambda *_any: said)
    with pytest.raises(PcoccError, match=message):
        run("add", f"work={data}")
    wait_for(lambda: not servers(data), "the end of virtiofsd")
    with Monitor(JOB, "vm0") as monitor:
        assert read_given(monitor) == ()


def test_a_guest_that_cannot_be_told_is_told_by_its_user(
    start: Start, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start(*SHARED)

    def nobody(*_any: object) -> Said:
        raise CannotEnter("vm0 has no L3 network")

    monkeypatch.setattr(mount, "run_in_guest", nobody)
    assert run("add", f"work={data},readonly") == 0
    assert "type in the guest, as root: mkdir -p /mnt/work && mount -t virtiofs -o ro work /mnt/work" in capsys.readouterr().out
    with pytest.raises(PcoccError, match="vm0 has no L3 network, so it could not unmount work") as caught:
        run("remove", "work")
    assert "pcocc umount --now vm0 work" in str(caught.value.hint) and servers(data)
    assert run("remove", "--now", "work") == 0


def test_what_a_killed_one_has_left_is_removed_by_the_next(start: Start, guest: list[str], data: Path) -> None:
    start(*SHARED)
    with Monitor(JOB, "vm0") as monitor:
        server = mount._start_server(monitor, Mount("work", str(data), "virtiofs"))
        monitor.send_file(mount._FILE, server)
        with open("/dev/null") as null:
            words = plan_directory_set("dir0", Mount("work", str(data), "virtiofs"))
            monitor.say({"execute": "add-fd", "arguments": words}, fd=null.fileno())
    os.close(server)
    assert servers(data) and run("list") == 0
    wait_for(lambda: not servers(data), "the end of virtiofsd")
    assert run("add", f"work={data}") == 0 and guest


def test_a_server_that_cannot_start_says_why(start: Start, guest: list[str], data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(*SHARED)
    with Monitor(JOB, "vm0") as monitor, pytest.raises(PcoccError, match="virtiofsd cannot be started"):
        mount._start_server(monitor, Mount("work", f"{data}/none", "virtiofs", readonly=True))
    monkeypatch.setattr(keeper_directories, "SERVER", "/none")
    with pytest.raises(PcoccError, match="could not start what serves directories"):
        run("add", f"work={data}")
    assert not guest and not servers(data)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "takes add, remove or list"), ("add", "takes add, remove or list"), ("list x", "takes add, remove or list"),
        ("remove", "takes add, remove or list"), ("add work", "does not begin with a tag"),
        ("add =/x", "does not begin with a tag"),
        ("add a b=/x", "does not begin with a tag"), (f"add {'x' * 32}=/x", "does not begin with a tag"),
        ("add ../x=/x", "does not begin with a tag"), ("add w=", "names no directory"), ("add w=,readonly", "names no directory"),
        ("add w=x", "is not an absolute path"), ("add w=/x,type=9p", "over virtiofs only"),
        ("add w=/x,readonly,readonly", "has readonly twice"), ("add w=/x w=/y", "the tag 'w' is given twice"),
        ("remove --time=x w", "'x' is not a number of seconds"), ("remove /mnt/w", "is not the tag of a directory"),
    ],
)  # fmt: skip
def test_wrong_words(words: str, message: str) -> None:
    with pytest.raises(PcoccError, match=message):
        check_words(words.split())


@pytest.mark.parametrize("text", ["w=/x", "w=/x,readonly", "w=/x,y", "w=/a b,c=d,readonly"])
def test_a_directory_is_read_as_it_is_written(text: str) -> None:
    assert render_directory(parse_directory(text)) == text
    assert parse_directory(text.removesuffix(",readonly") + ",type=virtiofs,readonly").readonly
