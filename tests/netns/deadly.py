"""Runs on a node: root's helper, stopped at each of its steps in turn, and what is left once the node has been used again.

Usage: deadly.py MODE; a set-up request for job 12 with STEPD in place of slurmstepd's number is on stdin. A
step is whatever changes something outside of the process: a process started or ended, a file or directory
made or removed, a mount, a kernel setting. The interpreter tells of each beforehand
(https://docs.python.org/3/library/audit_events.html), and the helper is stopped there, so between any two.
Prints a line of JSON for each step: what it would have been, how the helper ended, and what is left in the
end.
"""

import contextlib
import errno
import io
import itertools
import json
import mmap
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pcocc_runtime import naming
from pcocc_runtime.documents.job_record import ProcessId
from pcocc_runtime.node import main as node
from pcocc_runtime.node import planner, planning, removal, setup, start
from pcocc_runtime.system import process
from tests.netns.fabric import release
from tests.waiting import limit

PRELOADED = planning, setup, start  # imported here, so that no child has to load them
CHANGES = {
    "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chown", "os.chmod", "fcntl.ioctl",
    "subprocess.Popen", "pcocc.kill", "pcocc.started",
}  # fmt: skip
NETNS = str(naming.NETNS_DIR)
PATIENCE = 30  # seconds for something that takes less than one
real_kill, real_communicate, real_plan = process.kill, subprocess.Popen.communicate, planner.work_as_nobody


class Watch:
    """Counts the steps of a helper, and stops it at the one before which it is to end."""

    def __init__(self, last: int, how: str, steps: mmap.mmap, told: int) -> None:
        self.last, self.how, self.told = last, how, told
        self.steps = steps  # shared with children of the helper, who delete what users have left

    def hear(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(args[0], (str, bytes, os.PathLike)):
            path = os.fsdecode(args[0])
            if args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and path != "/dev/null":
                self.step(event, path)
                if path.startswith(f"{NETNS}/"):
                    self.mount(path)
        elif event in CHANGES:
            self.step(event, *(args[1:2] if event == "subprocess.Popen" else args[:1]))

    def mount(self, path: str) -> None:
        """Stop between the making of a namespace's file and its mount, of which there is no audit event."""
        global watched
        watched = None
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0))
        self.step("mount", path)
        os.unlink(path)
        watched = self

    def step(self, *what: Any) -> None:
        number = int.from_bytes(self.steps[:8], "big") + 1
        self.steps[:8] = number.to_bytes(8, "big")
        if number == self.last:
            os.write(self.told, json.dumps([os.getpid(), *(str(word) for word in what)]).encode())
            if self.how == "fail":
                raise OSError(errno.EIO, "the test's own error")
            os.kill(os.getpid(), signal.SIGSTOP)  # until whoever reads this kills it and its helper, or lets it go on


watched: Watch | None = None
sys.addaudithook(lambda event, args: watched.hear(event, args) if watched else None)


def kill(one: ProcessId) -> None:
    sys.audit("pcocc.kill", one.pid)
    real_kill(one)


def plan(*words: Any) -> None:
    """Plan: that changes nothing, so none of its steps is reported."""
    global watched
    watched = None
    real_plan(*words)


def communicate(child: subprocess.Popen[Any], *words: Any, **more: Any) -> Any:
    sys.audit("pcocc.started", child.args)
    return real_communicate(child, *words, **more)


subprocess.Popen.communicate = communicate  # type: ignore[method-assign]
process.kill = kill  # type: ignore[assignment]
removal.close_all_but = lambda kept: None  # type: ignore[assignment]  # else the steps of what has become a user's are not told
planner.work_as_nobody = plan  # type: ignore[assignment]
setup._LEFT_SECONDS = node._RELEASE_SECONDS = start._SECONDS = limit(60)  # what is left is asked, not how soon


def run(
    verb: str, text: str, last: int = 0, how: str = "kill", meanwhile: Callable[[], None] | None = None
) -> tuple[int, str, str]:
    """Run the helper in a process of its own up to its `last` step; return its status, what it said, and what the step is.

    There it is killed, has an error, or is paused until `meanwhile` has returned.
    """
    global watched
    said, (hears, tells), steps = os.memfd_create("said"), os.pipe(), mmap.mmap(-1, 8)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)  # for a pause, which can be one of its own children's
        sys.stdin, sys.stdout = io.StringIO(text), os.fdopen(said, "w")
        watched = Watch(last, how, steps, tells)
        status = node.main([verb])
        watched = None
        sys.stdout.flush()
        os._exit(status)
    os.close(tells)
    with open(hears) as stream:
        step = os.read(stream.fileno(), 4096).decode()  # or nothing, at the helper's end
        who, *what = json.loads(step) if step else (child,)
        if step and how == "kill":
            os.kill(child, signal.SIGKILL)
            if who != child:  # this process has become a user's, and cannot kill root's
                with contextlib.suppress(ProcessLookupError):
                    os.kill(who, signal.SIGKILL)
        if step and meanwhile:
            try:
                meanwhile()
            finally:
                os.killpg(child, signal.SIGCONT)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        stream.read()  # to the end of what it has forked, which shares its locks
    with open(said) as stream:
        stream.seek(0)
        return status, stream.read(), json.dumps(what) if step else ""


def see() -> set[str]:
    """Return what this node has of all that a job can have on a node."""
    folders = naming.NETNS_DIR, naming.RUN_DIR, naming.STATE_DIR, Path("/var/lib/pcocc/scratch/pcocc")
    found = {f"{folder}/{name}" for folder in folders for name in os.listdir(folder)}
    found.discard(f"{naming.STATE_DIR}/{naming.ABILITIES_FILE}")  # the node's
    found |= {f"device {line.split(':')[0].strip()}" for line in Path("/proc/net/dev").read_text().splitlines()[2:]}
    found |= set(subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout.splitlines())
    own = naming.dnsmasq_uid(12), naming.dnsmasq_uid(13)
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid in own and process.find_process(int(entry.name)):
                found.add(f"process {entry.name}: dnsmasq")
    return found


def die_in_setup(text: str, last: int, end: Callable[[], None]) -> tuple[int, str, str]:
    """A killed set-up, whose slurmstepd dies too; then slurmd starts."""
    found = run("setup", text, last)
    end()
    assert run("start", "")[0] == 0
    return found


def die_in_release(text: str, last: int, end: Callable[[], None]) -> tuple[int, str, str]:
    """A killed release; then slurmd starts."""
    assert run("setup", text)[0] == 0
    found = run("release", release(12), last)
    end()
    assert run("start", "")[0] == 0
    return found


def die_in_reclaim(text: str, last: int, end: Callable[[], None]) -> tuple[int, str, str]:
    """A dead slurmstepd whose job slurmd reclaims when it starts, and is killed at that; then another job uses the node."""
    assert run("setup", text)[0] == 0
    end()
    found = run("start", "", last)
    with subprocess.Popen(["sleep", "600"]) as other:
        another = re.sub(r"(?m)^stepd \d+$", f"stepd {other.pid}", text.replace("job 12", "job 13"))
        assert run("setup", another)[0] == 0
        assert run("release", release(13))[0] == 0
        other.kill()
    return found


def release_after_death(text: str, last: int, end: Callable[[], None]) -> tuple[int, str, str]:
    """A killed set-up that the plugin releases, while slurmstepd lives."""
    found = run("setup", text, last)
    assert run("release", release(12))[0] == 0
    return found


def repeat_after_death(text: str, last: int, end: Callable[[], None]) -> tuple[int, str, str]:
    """A killed set-up that is repeated, completed and released."""
    found = run("setup", text, last)
    status, said, _step = run("setup", text)
    assert status == 0, said
    assert run("release", release(12))[0] == 0
    return found


def fail(text: str, last: int, end: Callable[[], None]) -> tuple[int, str, str]:
    """A set-up in which a step fails with a system error: it undoes what it has done and says so, or goes on without that
    step.
    """
    found = run("setup", text, last, "fail")
    if found[0] == 0:
        assert run("release", release(12))[0] == 0
    return found


def pause(text: str, last: int, end: Callable[[], None]) -> tuple[int, str, str]:
    """A set-up that pauses, for as long as it takes to set another job up and release it."""

    def other_job() -> None:
        signal.alarm(PATIENCE)
        try:
            assert run("setup", text.replace("job 12", "job 13"))[0] == 0
            assert run("release", release(13))[0] == 0
        finally:
            signal.alarm(0)

    signal.signal(signal.SIGALRM, signal.default_int_handler)
    found = run("setup", text, last, "pause", other_job)
    assert run("release", release(12))[0] == 0
    return found


EVERY = die_in_setup, die_in_release, die_in_reclaim, release_after_death, repeat_after_death, fail, pause
MODES = {one.__name__: one for one in EVERY}


def main(mode: str) -> None:
    sys.dont_write_bytecode = True
    request = sys.stdin.read()
    os.makedirs(NETNS, exist_ok=True)
    os.makedirs("/var/lib/pcocc/scratch/pcocc", exist_ok=True)
    assert run("start", "")[0] == 0
    before = see()
    for last in itertools.count(1):
        with subprocess.Popen(["sleep", "600"]) as stepd:
            status, said, step = MODES[mode](request.replace("STEPD", str(stepd.pid)), last, lambda: (stepd.kill(), stepd.wait()))
            stepd.kill()
        if not step:
            break
        left = sorted(one for one in see() ^ before if mode != "fail" or not one.endswith(".lock"))
        print(json.dumps({"number": last, "step": step, "status": status, "said": said, "left": left}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
