"""What the probe's behaviour says of KVM: its progress and its CPU time count; a busy node proves nothing."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

import pytest

from pcocc_runtime.documents.verdict import Verdict
from pcocc_runtime.node import accelerator, probe
from pcocc_runtime.node.probe import Seen
from pcocc_runtime.system import run_as
from tests.waiting import limit

DONE = b"................PCOCC-PROBE-OK\n"
CPU = "open('/proc/self/comm', 'w').write('CPU 0/KVM')"  # as the thread is called that is a guest's CPU


@pytest.mark.parametrize(("seen", "kind", "again", "told"), [
    (Seen(DONE, b"", 0.1, True), "kvm", False, "ran a small guest"),
    (Seen(DONE, b"warning: something\n", 9.0, False), "kvm", False, "ran a small guest"),
    (Seen(b"...", b"", 0.1, False), "kvm", False, "ran 3 steps of a small guest within 8 s on a busy node"),
    (Seen(b"", b"", 0.1, False), "tcg", True, "too busy to try /dev/kvm within 8 s; it is tried again"),
    (Seen(b"", b"", 4.1, False), "tcg", False, "took 4.1 s of CPU time"),
    (Seen(b".....", b"", 4.1, False), "tcg", False, "took 4.1 s of CPU time"),
    (Seen(b"", b"KVM internal error. Suberror: 1\nEAX=0\n", 0.1, False), "tcg", False, "KVM internal error. Suberror: 1"),
    (Seen(b"", b"qemu: no\nqemu: failed to initialize kvm: Permission denied\n", 0.0, True), "tcg", False, "Permission denied"),
    (Seen(b"...", b"", 0.1, True), "tcg", False, "QEMU ended without a message"),
])  # fmt: skip
def test_a_verdict(seen: Seen, kind: str, again: bool, told: str) -> None:
    verdict = probe.judge(seen, "/dev/kvm", 8)
    assert (verdict.kind, verdict.again) == (kind, again) and told in verdict.why and "\n" not in verdict.why


@contextmanager
def started(script: str) -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-ISu", "-c", script]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        yield child
        child.kill()


@pytest.mark.thorough
@pytest.mark.parametrize(("script", "kind", "told"), [
    (f"{CPU}\nwhile True: pass", "tcg", "of CPU time for what takes milliseconds"),
    (f"{CPU}\nprint('.', end='', flush=True)\nwhile True: pass", "tcg", "of CPU time for what takes milliseconds"),
    ("print('................PCOCC-PROBE-OK', flush=True)\nimport time; time.sleep(600)", "kvm", "ran a small guest"),
    ("import sys, time; sys.exit('no such accelerator')", "tcg", "no such accelerator"),
    ("import sys, time; print('KVM internal error. Suberror: 1', file=sys.stderr); time.sleep(600)", "tcg", "Suberror"),
], ids=["emulating", "stuck in a step", "well", "ending", "stopped"])  # fmt: skip
def test_a_probe_is_watched_until_it_is_plain_what_it_shows(
    script: str, kind: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("STEP_SECONDS", "FIRMWARE_SECONDS"):
        monkeypatch.setattr(probe, name, 0.3)
    monkeypatch.setattr(run_as, "started_as", lambda *_words: started(script))
    verdict = probe.try_kvm(PurePath("/bin/true"), "/dev/null", limit(60))
    assert (verdict.kind, verdict.again) == (kind, False) and told in verdict.why


@pytest.mark.thorough
def test_its_firmware_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in tests/node-machine, where the CPU is emulated: the time for which it waits for a CPU of its host counts as
    CPU time.
    """
    script = (
        f"{CPU}\nimport time\nwhile time.process_time() < 0.5: pass\nprint('{DONE.decode().strip()}',"
        " flush=True)\ntime.sleep(600)"
    )
    monkeypatch.setattr(probe, "STEP_SECONDS", 0.1)
    monkeypatch.setattr(run_as, "started_as", lambda *_words: started(script))
    assert probe.try_kvm(PurePath("/bin/true"), "/dev/null", limit(60)).kind == "kvm"


@pytest.mark.parametrize(("printed", "kind", "again"), [("", "tcg", True), ("..", "kvm", False)])
def test_a_probe_that_waits_for_a_cpu_is_not_judged_by_the_clock(
    printed: str, kind: str, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe's guest gets no CPU time, which a sleep stands for: only what it has done before counts."""
    script = (
        f"{CPU}\nprint('{printed}', end='', flush=True)\nopen('/proc/self/comm', 'w').write('ready')\nimport time;"
        " time.sleep(600)"
    )
    monkeypatch.setattr(run_as, "started_as", lambda *_words: begun(script))
    verdict = probe.try_kvm(PurePath("/bin/true"), "/dev/null", 0.5)
    assert (verdict.kind, verdict.again) == (kind, again)


@contextmanager
def begun(script: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a script, and go on once it says that it is ready."""
    with started(script) as child:
        while Path(f"/proc/{child.pid}/comm").read_text() != "ready\n":
            assert child.poll() is None
        yield child


def test_a_node_without_the_device_has_no_kvm(tmp_path: Path) -> None:
    assert probe.try_kvm(PurePath("/bin/true"), str(tmp_path / "kvm"), 1).why == f"the node has no {tmp_path}/kvm"
    (tmp_path / "kvm").touch()
    assert probe.try_kvm(PurePath("/bin/true"), str(tmp_path / "kvm"), 1).why == f"{tmp_path}/kvm is not a device"


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Verdict]:
    """Verdicts that the probe comes to, one after the other."""
    coming: list[Verdict] = []
    monkeypatch.setattr(accelerator, "_CACHE", tmp_path / "accel.json")
    monkeypatch.setattr(probe, "try_kvm", lambda *_words: coming.pop(0))
    return coming


def test_a_verdict_is_kept_until_there_is_another_qemu(tried: list[Verdict], tmp_path: Path) -> None:
    qemu = tmp_path / "qemu"
    qemu.write_text("one")
    tried += [Verdict("kvm", "first", 7), Verdict("tcg", "second", 8)]
    found = [accelerator.find_accelerator("auto", qemu) for _time in range(3)]
    assert found == [Verdict("kvm", "first", 7)] * 3
    qemu.write_text("another")
    assert accelerator.find_accelerator("auto", qemu) == Verdict("tcg", "second", 8)


def test_a_verdict_that_time_did_not_suffice_for_is_tried_again(tried: list[Verdict]) -> None:
    tried += [Verdict("tcg", "busy", 7, again=True), Verdict("kvm", "works", 8), Verdict("tcg", "never asked", 9)]
    qemu = PurePath("/bin/true")
    assert [accelerator.find_accelerator("auto", qemu).why for _time in range(3)] == ["busy", "works", "works"]


@pytest.mark.parametrize(
    "damaged", [b"", b"{}", b"[]", b"{", b'{"kind": "vax"}', b"[" * 9000, b'{"key": [], "kind": "kvm", "why": "w"}']
)
def test_what_cannot_be_read_is_tried_again(damaged: bytes, tried: list[Verdict], tmp_path: Path) -> None:
    (tmp_path / "accel.json").write_bytes(damaged)
    tried.append(Verdict("kvm", "works", 8))
    assert accelerator.find_accelerator("auto", PurePath("/bin/true")).why == "works"


def test_what_the_site_has_set_is_not_tried(tried: list[Verdict]) -> None:
    assert accelerator.find_accelerator("tcg", PurePath("/bin/true")) == Verdict("tcg", "accel: tcg in /etc/pcocc/pcocc.yaml")
    assert not tried
