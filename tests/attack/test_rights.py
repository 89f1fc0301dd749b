"""Programs that root starts as a user: what the user could do with root's terminal, session, environment and memory.

Each attack succeeds against the code as it was before, `_run_as_owner_once`.
"""

import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from pcocc_runtime.cache import layer_store
from pcocc_runtime.errors import NodeError
from pcocc_runtime.node import probe
from pcocc_runtime.slurm import steps
from pcocc_runtime.slurm.text import Running
from pcocc_runtime.system import drop, run_as
from tests.attack.user import ALICE, BOB, as_user, read_memory, started, trace
from tests.waiting import limit

LOOK = f"""#!{sys.executable} -IS
import fcntl, json, os, sys, termios
sees = {{"env": dict(os.environ), "uids": os.getresuid(), "groups": os.getgroups(), "session": os.getsid(0) == os.getpid()}}
sees["fds"] = [os.readlink(f"/proc/self/fd/{{n}}") for n in range(3, 64) if os.path.exists(f"/proc/self/fd/{{n}}")]
sees["privileges"] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("NoNewPrivs")]
try:
    terminal = os.open("/dev/tty", os.O_RDWR)
    sees["terminal"] = True
    for letter in b"evil\\n":
        fcntl.ioctl(terminal, termios.TIOCSTI, bytes([letter]))
except OSError:
    sees.setdefault("terminal", False)
print(json.dumps(sees))
"""
STEP = Running(12, "alice", ALICE, ALICE, 1, "n1")
SECRET = "the key to everything"


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of programs that run as the user; srun reports what it sees, and types on root's terminal."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        (Path(name) / "srun").write_text(LOOK)
        (Path(name) / "srun").chmod(0o755)
        monkeypatch.setenv("PATH", f"{name}:{os.environ['PATH']}")
        monkeypatch.setenv("SECRET_TOKEN", SECRET)
        monkeypatch.setattr(os, "getgrouplist", lambda user, gid: [gid])
        yield Path(name)


def _run_as_owner_once(running: Running, argv: Sequence[str], environment: Mapping[str, str]) -> run_as.Finished:
    env = {**steps._clean_environment(), **environment}
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, env=env, cwd="/", check=False,
        user=running.uid, group=running.gid, extra_groups=[running.gid],
    )  # fmt: skip
    return run_as.Finished(done.returncode, done.stdout, done.stderr)


def type_on_terminal(script: Callable[[], str]) -> tuple[dict[str, Any], str]:
    """Run a script of root's on a terminal; return what its program saw, and what root's shell would read there afterwards."""
    hears, tells = os.pipe()
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            saw = script()
            os.set_blocking(0, False)
            try:
                typed = os.read(0, 100).decode()
            except BlockingIOError:
                typed = ""
            os.write(tells, json.dumps([json.loads(saw), typed]).encode())
        finally:
            os._exit(0)
    os.close(tells)
    with open(hears) as stream:
        said = stream.read()
    os.waitpid(pid, 0)
    os.close(terminal)
    saw, typed = json.loads(said)
    return saw, typed


def test_root_asks_without_its_terminal_environment_and_descriptors(programs: Path) -> None:
    leaked = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    try:
        saw, typed = type_on_terminal(lambda: steps.run_network_step(STEP, ["@network"])[0])
    finally:
        os.close(leaked)
    assert (saw["terminal"], typed, saw["session"], saw["fds"]) == (False, "", True, [])
    assert saw["uids"] == [ALICE] * 3 and saw["groups"] == [ALICE] and saw["privileges"] == ["1"]
    asked = {
        "SLURM_JOB_ID", "SLURM_SPANK_PCOCC_TEMPLATE", "SLURM_PCOCC_PATIENCE", "SLURM_PCOCC_INSIDE", "USER", "LOGNAME",
        "HOME", "PATH",
    }
    assert set(saw["env"]) - {"LANG", "LC_ALL", "TZ", "LC_CTYPE"} == asked  # Python itself adds the last one


def test_once_the_user_typed_on_roots_terminal(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "_run_as_owner", _run_as_owner_once)
    saw, typed = type_on_terminal(lambda: steps.run_network_step(STEP, ["@network"])[0])
    assert saw["terminal"] and not saw["session"] and saw["env"]["SECRET_TOKEN"] == SECRET
    if Path("/proc/sys/dev/tty/legacy_tiocsti").read_text() == "1\n":
        assert typed == "evil\n"


def test_a_stopped_srun_holds_root_up_for_a_time_only(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (programs / "srun").write_text("#!/bin/sh\ntrap '' INT\nkill -STOP $$\n")
    monkeypatch.setattr(steps, "_ASK_SECONDS", 0.2)
    monkeypatch.setattr(run_as, "_END_SECONDS", 0.2)
    with pytest.raises(NodeError, match="the nodes of job 12 have not answered completely"):
        steps.run_network_step(STEP, ["@network"])


def test_what_root_reads_has_an_end() -> None:
    rights = drop.Rights(ALICE, ALICE)
    with pytest.raises(subprocess.TimeoutExpired):
        run_as.run_as(rights, ["yes"], {"PATH": "/usr/bin:/bin"}, seconds=60, most=1 << 20)
    done = run_as.run_as(rights, ["sh", "-c", "echo out; echo err >&2; exit 3"], {"PATH": "/usr/bin:/bin"}, seconds=60)
    assert done == (3, b"out\n", b"err\n")


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN], ids=["in front", "in the background"])
def test_an_interrupt_reaches_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handler: Any) -> None:
    """The program has a session of its own, so Ctrl-C at root's terminal must be passed on to it, even where this process
    ignores it, as background commands do.
    """

    def interrupted(streams: tuple[IO[bytes], IO[bytes]], _most: int, _end: float) -> None:
        assert streams[0].readline() == b"ready\n"
        raise KeyboardInterrupt

    monkeypatch.setattr(run_as, "_collect", interrupted)
    script = f"trap 'echo interrupted >{tmp_path}/told; exit 1' INT; echo ready; while :; do sleep 0.01; done"
    before = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_as.run_as(drop.Rights(0, 0), ["sh", "-c", script], {"PATH": "/usr/bin:/bin"}, seconds=60)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (tmp_path / "told").read_text() == "interrupted\n"


def become_plainly() -> None:
    """Give up rights as Python's subprocess does, where fs.suid_dumpable is 1."""
    os.setgroups([])
    os.setresgid(ALICE, ALICE, ALICE)
    os.setresuid(ALICE, ALICE, ALICE)
    drop.LIBC.prctl(drop._PR_SET_DUMPABLE, 1, 0, 0, 0)


@pytest.mark.parametrize("attack", [trace, read_memory])
def test_what_has_become_the_users_is_closed_to_him_until_it_execs(attack: Callable[[int], None]) -> None:
    for become, open_to_him in ((lambda: drop.become(drop.Rights(ALICE, ALICE)), False), (become_plainly, True)):
        child = started(become)
        try:
            assert as_user(ALICE, lambda pid=child: attack(pid)) is open_to_him  # type: ignore[misc]
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def test_it_has_roots_saved_uid_until_its_memory_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    hears, tells = os.pipe()
    child = os.fork()
    if child == 0:
        real = drop.LIBC.prctl

        class Libc:
            def prctl(self, option: int, *words: int) -> int:
                if option == drop._PR_SET_DUMPABLE:
                    os.write(tells, json.dumps(os.getresuid()).encode())
                return int(real(option, *words))

        monkeypatch.setattr(drop, "LIBC", Libc())
        drop.become(drop.Rights(ALICE, ALICE))
        os._exit(0 if os.getresuid() == (ALICE,) * 3 and real(3, 0, 0, 0, 0) == 0 else 1)  # PR_GET_DUMPABLE
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert json.loads(os.read(hears, 100)) == [ALICE, ALICE, 0]
    os.close(hears)
    os.close(tells)


@pytest.mark.parametrize("attack", [trace, read_memory, lambda pid: os.kill(pid, signal.SIGTERM)])
def test_root_in_a_users_cache_is_not_his(attack: Callable[[int], None], tmp_path: Path) -> None:
    """`pcocc image cache` puts on a user's rights for a while, and takes them off again: real and saved uid stay root's."""
    os.chown(tmp_path, BOB, BOB)
    block = layer_store.as_owner(layer_store.public_store(str(tmp_path), 1))
    child = started(block.__enter__)
    try:
        assert f"Uid:\t0\t{BOB}\t0\t{BOB}" in Path(f"/proc/{child}/status").read_text()
        assert not as_user(BOB, lambda: attack(child))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_the_probe_of_the_accelerator_has_nothing_of_roots(programs: Path) -> None:
    (programs / "qemu").write_text(
        LOOK.replace("print(json.dumps(sees))", f"open('{programs}/told/saw', 'w').write(json.dumps(sees))")
    )
    (programs / "qemu").chmod(0o755)
    (programs / "told").mkdir()
    (programs / "told").chmod(0o777)

    def try_kvm() -> str:
        probe.try_kvm(programs / "qemu", "/dev/null", limit(60))
        return (programs / "told/saw").read_text()

    saw, typed = type_on_terminal(try_kvm)
    assert (saw["terminal"], typed, saw["session"], saw["fds"], saw["privileges"]) == (False, "", True, [], ["1"])
    assert set(saw["env"]) - {"LC_CTYPE"} == {"PATH"} and 0 not in saw["uids"]
