"""Operations that talk to a VM's QEMU, here a real one that stands still: each answers in one line, or says why not."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pcocc_runtime import naming
from pcocc_runtime.documents import wire
from pcocc_runtime.documents.vm_state import VmState, encode_state
from pcocc_runtime.errors import PcoccError
from pcocc_runtime.steps import (
    agent,
    console_history,
    dump,
    log,
    monitor,
    power,
    qemu,
    qmp,
    reset,
    screenshot,
    topology,
)
from tests.waiting import wait_for

JOB = 7


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(naming, "job_dir", lambda _job: tmp_path)
    monkeypatch.setenv(wire.ENV_VM_NAME, "vm0")
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS", raising=False)
    (tmp_path / "vm0").mkdir()
    return tmp_path


@pytest.fixture
def vm(job: Path) -> Iterator[Path]:
    """The directory of vm0, whose QEMU has no guest and stands still."""
    path = job / "vm0"
    argv = [
        "qemu-system-x86_64", "-nodefaults", "-display", "none", "-machine", "q35", "-m", "32", "-accel", "tcg", "-S",
        "-device", "VGA",
        "-chardev", f"socket,id=qmp,path={path}/qmp,server=on,wait=off", "-mon", "chardev=qmp,mode=control",
        "-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,path={path}/agent,server=on,wait=off",
        "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
    ]  # fmt: skip
    child = subprocess.Popen(argv)
    wait_for(lambda: (path / "qmp").exists(), "QEMU's monitor")
    yield path
    child.kill()
    child.wait()


def test_a_machine_obeys(vm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reset.operate(JOB, "vm0", None) == 0
    assert qmp.operate(JOB, "vm0", qmp.check_words(["query-status"])) == 0
    assert monitor.operate(JOB, "vm0", monitor.check_words(["info", "status"])) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0] == "vm0: reset"
        and '"status": "prelaunch"' in lines[1]
        and lines[2] == "VM status: paused (prelaunch)"
    )
    with pytest.raises(PcoccError, match="refuses: The command nonsense has not been found"):
        qmp.operate(JOB, "vm0", {"execute": "nonsense"})
    with pytest.raises(PcoccError, match="runs no agent"):
        agent.operate(JOB, "vm0", agent.check_words(["info"]))
    with pytest.raises(PcoccError, match=r"is stopped \(prelaunch\), so its guest cannot power off"):
        power.operate(JOB, "vm0", power.check_words(["off"]))
    assert power.operate(JOB, "vm0", power.check_words(["off", "--now"])) == 0
    wait_for(lambda: _ended(), "the end of QEMU")


def _ended() -> bool:
    try:
        qemu.Monitor(JOB, "vm0").close()
    except PcoccError as error:
        assert "vm0 has ended" in str(error) or "has just ended" in str(error)
        return True
    return False


def test_a_screenshot_is_a_picture(vm: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert screenshot.operate(JOB, "vm0", None) == 0
    assert capfdbinary.readouterr().out.startswith(b"\x89PNG\r\n")
    assert not list(vm.glob("screen-*"))


def test_a_dump_is_whole_or_not_there(
    vm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "dump of %v"
    assert dump.operate(JOB, "vm0", dump.check_words([str(target)])) == 0
    made = tmp_path / "dump of vm0"
    assert (
        made.read_bytes()[:4] == b"\x7fELF"
        and made.stat().st_size > 32 << 20
        and str(made) in capsys.readouterr().out
    )
    made.unlink()
    with pytest.raises(PcoccError, match="No such file or directory"):
        dump.operate(JOB, "vm0", str(tmp_path / "none/file"))

    def interrupt(_monitor: object, fd: int) -> None:
        os.write(fd, b"part")
        raise SystemExit(128 + signal.SIGTERM)

    monkeypatch.setattr(dump, "_dump", interrupt)
    with pytest.raises(SystemExit):
        dump.operate(JOB, "vm0", str(made))
    assert not list(tmp_path.glob("dump*"))


def test_one_at_a_time_has_the_monitor(vm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "_TURN_SECONDS", 0.2)
    with (
        qemu.Monitor(JOB, "vm0"),
        pytest.raises(PcoccError, match="another operation on vm0 is using its monitor"),
    ):
        qemu.Monitor(JOB, "vm0")
    qemu.Monitor(JOB, "vm0").close()


def test_a_prompt_obeys_until_quit(
    vm: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = iter(["info status", "", "bogus\x1b[2J", "quit", "info status"])
    monkeypatch.setattr("builtins.input", lambda _prompt: next(lines))
    monkeypatch.setattr(os, "isatty", lambda _fd: False)
    assert monitor.operate(JOB, "vm0", "") == 0
    said = capsys.readouterr().out
    assert said.count("VM status") == 1 and "unknown command" in said and "\x1b" not in said
    assert {"info", "cont", "c", "system_reset"} <= set(
        monitor.command_names("info [x] -- show\nc|cont  -- resume\nsystem_reset -- x\n")
    )


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (reset, ["x"]), (power, []),
        (power, ["on", "1"]), (power, ["cycle", "--now"]), (power, ["off", "0"]), (power, ["off", "1", "2"]),
        (qmp, []), (qmp, ["{"]), (qmp, ["[]"]),
        (qmp, ['{"x": 1}']), (agent, []), (agent, ["info", "[1]"]), (agent, ["info", "{"]), (dump, ["relative"]), (dump, []),
        (topology, ["x"]),
        (screenshot, ["x"]), (log, ["--lines=x"]), (log, ["-1"]),
    ],
)  # fmt: skip
def test_wrong_words_are_refused(module: object, words: list[str]) -> None:
    with pytest.raises(PcoccError):
        module.check_words(words)  # type: ignore[attr-defined]


@pytest.mark.parametrize("module", [dump, screenshot])
def test_several_vms_make_not_one_file(module: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(PcoccError):
        module.check_words(["/tmp/x"] if module is dump else [])  # type: ignore[attr-defined]


def test_a_vm_that_has_ended_is_told_why(job: Path) -> None:
    (job / "vm0/state").write_text(encode_state(VmState("ended", reason="guest-shutdown")))
    with pytest.raises(PcoccError, match="vm0 has ended: its guest powered it off"):
        reset.operate(JOB, "vm0", None)
    with pytest.raises(PcoccError, match="vm1 does not run on this node"):
        reset.operate(JOB, "vm1", None)
    with pytest.raises(PcoccError, match="vm0 has ended"):
        log.operate(JOB, "vm0", log.LogWish(None, False))


def test_a_log_has_the_last_lines_and_moves_no_cursor(
    job: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = job / "vm0.console.log"
    real.write_bytes(b"two\r\n\x1b[2Jthree\r\nfo\xffur")
    (job / "vm0.console.log.old").write_bytes(b"zero\r\none\r\n")
    (job / "vm0/console.log").symlink_to(real)
    log.operate(JOB, "vm0", log.check_words([]))
    assert capsys.readouterr().out == "zero\none\ntwo\n?[2Jthree\nfo\ufffdur\n"
    log.operate(JOB, "vm0", log.check_words(["--lines=1"]))
    assert capsys.readouterr().out == "?[2Jthree\nfo\ufffdur\n"
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    (job / "vm0/state").write_text(encode_state(VmState("ended", reason="killed")))
    log.operate(JOB, "vm0", log.check_words(["--lines=2", "--follow"]))
    assert capsys.readouterr().out == "vm0: two\nvm0: ?[2Jthree\nvm0: fo\ufffdur\n"


def test_a_console_is_read_on_when_its_file_was_emptied(job: Path) -> None:
    real, old = job / "vm0.console.log", job / "vm0.console.log.old"
    (job / "vm0/console.log").symlink_to(real)
    real.write_bytes(b"first lines\n")
    history = console_history.ConsoleHistory(str(job / "vm0"))
    assert history.read_all() == b"first lines\n" and history.read_new() == b""
    with real.open("ab") as stream:
        stream.write(b"more\n")
    assert history.read_new() == b"more\n" and history.read_new() == b""
    old.write_bytes(b"lines\nmore\nunseen\n")  # as the keeper puts its end aside
    real.write_bytes(b"new\n")
    assert history.read_new() == b"unseen\nnew\n" and history.read_new() == b""
    real.unlink()
    assert history.has_ended() and history.read_new() == b""


def test_only_a_vm_that_is_kept_is_powered_on(vm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for deed in (power.ON, power.CYCLE):
        with pytest.raises(PcoccError, match="vm0 ends when it is powered off"):
            power.operate(JOB, "vm0", power.check_words([deed]))
    (vm / "kept").touch()
    assert power.operate(JOB, "vm0", power.check_words(["on"])) == 0
    assert capsys.readouterr().out == "vm0: is on\n"


# writes x to the serial port and powers off by ACPI, as SeaBIOS has set it up on a q35 (its PM1a control is port 0x604)
POWERS_OFF = (
    bytes.fromhex("baf803 b078 ee ba0406 b80020 ef f4 ebfd".replace(" ", "")).ljust(510, b"\0") + b"\x55\xaa"
)


def test_a_vm_that_is_kept_boots_again_in_the_same_qemu(
    job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, disk, said = job / "vm0", job / "disk", job / "serial"
    disk.write_bytes(POWERS_OFF.ljust(1 << 20, b"\0"))
    (path / "kept").touch()
    argv = [
        "qemu-system-x86_64", "-nodefaults", "-display", "none", "-machine", "q35", "-m", "32", "-accel", "tcg",
        "-action", "shutdown=pause",
        "-chardev", f"socket,id=qmp,path={path}/qmp,server=on,wait=off", "-mon", "chardev=qmp,mode=control",
        "-drive", f"file={disk},format=raw,if=virtio,readonly=on", "-serial", f"file:{said}",
    ]  # fmt: skip
    child = subprocess.Popen(argv)
    try:
        wait_for(lambda: said.exists() and said.read_bytes() == b"x", "the guest to power off", 60)
        wait_for(lambda: _status() == "shutdown", "QEMU to hear of it", 20)
        assert power.operate(JOB, "vm0", power.check_words(["off"])) == 0
        assert power.operate(JOB, "vm0", power.check_words(["on"])) == 0
        wait_for(lambda: said.read_bytes() == b"xx", "the guest to boot again", 60)
        wait_for(lambda: _status() == "shutdown", "QEMU to hear of it", 20)
        assert power.operate(JOB, "vm0", power.check_words(["cycle"])) == 0
        wait_for(lambda: said.read_bytes() == b"xxx", "the guest to boot once more", 60)
        assert (
            capsys.readouterr().out.startswith("vm0: is off\nvm0: on\nvm0: on after ")
            and child.poll() is None
        )
    finally:
        child.kill()
        child.wait()


def _status() -> object:
    with qemu.Monitor(JOB, "vm0") as monitor:
        return monitor.command("query-status")["status"]
