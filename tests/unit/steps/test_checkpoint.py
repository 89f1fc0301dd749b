"""A VM's part in a checkpoint: a VM that cannot be stored is refused with a sentence before anything stands still."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pcocc_runtime import naming
from pcocc_runtime.documents.cluster import Group
from pcocc_runtime.documents.command_line import COMMAND_FILE, decode_command_line, encode_command_line
from pcocc_runtime.documents.disks import DISKS_FILE, encode_disks
from pcocc_runtime.documents.node import encode_node
from pcocc_runtime.documents.save import PAUSE_SOCKET, Pause, encode_pause
from pcocc_runtime.errors import NodeError, PcoccError, RequestError
from pcocc_runtime.networks.kinds import BridgedNetwork, BuildableNetwork
from pcocc_runtime.steps import checkpoint
from pcocc_runtime.steps.qemu import Monitor
from tests.fake_node import make_facts
from tests.waiting import limit, wait_for

JOB = 7


@pytest.fixture
def vm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory of vm0, whose QEMU has no guest and is stopped."""
    directory = tmp_path / "job/vm0"
    directory.mkdir(parents=True)
    monkeypatch.setattr(naming, "job_dir", lambda _job: tmp_path / "job")
    (directory / DISKS_FILE).write_bytes(encode_disks(Group("t", 1), [], str(tmp_path)))
    put_node(tmp_path / "job", ())
    argv = [
        "qemu-system-x86_64", "-nodefaults", "-display", "none", "-machine", "q35", "-m", "32", "-accel", "tcg", "-S",
        "-device", "VGA",
        "-chardev", f"socket,id=qmp,path={directory}/qmp,server=on,wait=off", "-mon", "chardev=qmp,mode=control",
        "-device", "pcie-root-port,id=free",
    ]  # fmt: skip
    (directory / COMMAND_FILE).write_text(encode_command_line(argv).decode())
    child = subprocess.Popen(argv)
    wait_for(lambda: (directory / "qmp").exists(), "QEMU's monitor")
    yield directory
    child.kill()
    child.wait()


def put_node(job: Path, networks: tuple[BuildableNetwork, ...]) -> None:
    facts = make_facts({"one": tuple(one.name for one in networks)}, {"one": 1}, networks, job=JOB)
    (job / "node.json").write_bytes(encode_node(facts))


def refusal(vm: Path) -> str:
    with pytest.raises(PcoccError) as caught:
        checkpoint.operate(JOB, "vm0", vm)
    assert caught.value.hint
    assert not list(vm.glob("vm0.*")), "nothing was stored"
    return caught.value.message


@pytest.mark.parametrize("words", [(), ("here",), ("/a", "/b")])
def test_words_that_name_no_directory(words: tuple[str, ...]) -> None:
    with pytest.raises(RequestError, match="@checkpoint takes the absolute path of a directory"):
        checkpoint.check_words(words)


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("vfio-pci,host=0000:81:00.2", "vm0 has a device of its node, and cannot be stored with it"),
        ("vhost-user-fs-pci,chardev=virtiofs0,tag=t", "vm0 has a directory over virtiofs, and cannot be stored with it"),
    ],
)
def test_what_belongs_to_a_node(vm: Path, device: str, said: str) -> None:
    argv = decode_command_line((vm / COMMAND_FILE).read_bytes(), "vm0")
    (vm / COMMAND_FILE).write_text(encode_command_line([*argv, "-device", device]).decode())
    assert refusal(vm) == said


def test_a_network_of_the_site(vm: Path) -> None:
    put_node(vm.parent, (BridgedNetwork("lan", host_bridge="br0", tap_prefix="t"),))
    assert refusal(vm).startswith("vm0 cannot be stored: on the site's network 'lan' ")


def test_what_qemu_itself_cannot_store(vm: Path) -> None:
    with Monitor(JOB, "vm0") as monitor:
        monitor.command("device_add", {"driver": "ivshmem-plain", "bus": "free", "memdev": add_memory(monitor), "master": "off"})
    assert refusal(vm).startswith("vm0 cannot be stored: ")


def add_memory(monitor: Monitor) -> str:
    monitor.command("object-add", {"qom-type": "memory-backend-ram", "id": "shared", "size": 1 << 20, "share": True})
    return "shared"


def test_a_vm_whose_launcher_is_not_known(vm: Path) -> None:
    (vm / COMMAND_FILE).write_text('["qemu", 7]')
    with pytest.raises(NodeError, match="QEMU's command line of vm0 is not known"):
        checkpoint.operate(JOB, "vm0", vm)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (encode_pause(Pause("io-error")), "vm0 does not run: it is io-error"),
        (b"", "vm0 is being stored already"),
        (None, "the keeper of vm0 has ended, so vm0 cannot be stored"),
    ],
)
def test_a_vm_that_cannot_be_paused(vm: Path, answer: bytes | None, said: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(limit(10))
        if answer is not None:
            listener.bind(str(vm / PAUSE_SOCKET))
            listener.listen(1)

        def keep() -> None:
            with listener.accept()[0] as task:
                task.sendall(answer or b"")

        keeper = threading.Thread(target=keep, daemon=True)
        if answer is not None:
            keeper.start()
        assert refusal(vm) == said
        if answer is not None:
            keeper.join()


def test_a_vm_whose_keeper_is_killed_meanwhile_goes_on(vm: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(vm / PAUSE_SOCKET))
        listener.listen(1)

        def keep() -> None:
            with listener.accept()[0] as task:
                task.sendall(encode_pause(Pause(None)))

        keeper = threading.Thread(target=keep, daemon=True)
        keeper.start()
        with Monitor(JOB, "vm0") as monitor:
            with checkpoint._paused(monitor) as connection:
                keeper.join()
                assert not monitor.command("query-status")["running"]
                assert checkpoint._is_gone(connection)
            assert monitor.command("query-status")["running"]


def test_a_vm_whose_keeper_lives_is_left_to_it(vm: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(vm / PAUSE_SOCKET))
        listener.listen(1)
        ended = threading.Event()

        def keep() -> None:
            with listener.accept()[0] as task:
                task.sendall(encode_pause(Pause(None)))
                ended.wait(limit(30))

        keeper = threading.Thread(target=keep, daemon=True)
        keeper.start()
        with Monitor(JOB, "vm0") as monitor:
            with checkpoint._paused(monitor):
                pass
            assert not monitor.command("query-status")["running"]
        ended.set()
        keeper.join()
