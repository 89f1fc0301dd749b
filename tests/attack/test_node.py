"""A user tries to break a node for everybody: root's helper on a node where Alice attacks and Bob only works.

`WALKING` takes the defence away, and then Bob's set-up fails as it used to. Attacks that need no network are in
test_records.py.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pcocc_runtime.system import process
from tests.attack.user import ALICE, BOB, Fuse, apart, as_user, started
from tests.netns.fabric import HELPER, Node, release, request_of
from tests.waiting import limit

RUN, SCRATCH = "/run/pcocc", "/var/lib/pcocc/scratch/pcocc"


def helper(node: Node, verb: str, text: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run root's helper after some lines of Python that change it."""
    return node.run(HELPER[0], HELPER[1], f"{before}\n{HELPER[2]}", verb, text=text, check=False)


def alice(node: Node, code: str) -> None:
    """Have Alice run Python on the node."""
    node.run("setpriv", f"--reuid={ALICE}", f"--regid={ALICE}", "--clear-groups", sys.executable, "-ISc", code)


def alices_job(node: Node, code: str | None = None) -> None:
    """Set up Alice's job 12, have her do something in both its directories, and kill its slurmstepd."""
    with subprocess.Popen(["sleep", "600"]) as stepd:
        assert node.helper("setup", request_of(ALICE, 12, stepd.pid)).stdout == "tap 0 tap0n0\ntap 1 tap1n0\nqueues 8\n"
        for folder in (RUN, SCRATCH) if code else ():
            alice(node, f"import os, time\nos.chdir('{folder}/12')\n{code}")
        stepd.kill()


@pytest.fixture
def stepd() -> Iterator[int]:
    """The slurmstepd of Bob's job."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process.pid
        process.kill()


DEEP = "for _ in range(1200): os.mkdir('d'); os.chdir('d')"
SHUT = "os.makedirs('a/b'); os.chmod('a/b', 0); os.chmod('a', 0); os.chmod('.', 0)"
WALKING = """
import os, shutil
from pcocc_runtime.node import removal
removal.set_aside = lambda path: shutil.rmtree(path) if os.path.exists(path) else None
"""
LEFT = {"deep": DEEP, "shut": SHUT}


@pytest.mark.parametrize("name", LEFT)
@pytest.mark.parametrize("verb", ["setup", "start", "release"])
def test_what_a_user_leaves_is_nobody_elses(node: Node, stepd: int, verb: str, name: str) -> None:
    alices_job(node, LEFT[name])
    text = {"setup": request_of(BOB, 13, stepd), "start": "", "release": release(12)}[verb]
    done = helper(node, verb, text)
    assert (done.returncode, done.stdout) == (0, "tap 0 tap0n0\ntap 1 tap1n0\nqueues 8\n" if verb == "setup" else "")
    assert not {"12", "pcocc-12"} & set(node.leftovers().split())
    if verb == "setup":
        node.helper("release", release(13))
    assert node.leftovers() == ""


def test_once_it_was_everybodys(node: Node, stepd: int) -> None:
    alices_job(node, DEEP)
    for job in (13, 14):
        done = helper(node, "setup", request_of(BOB, job, stepd), before=WALKING)
        assert done.returncode == 1 and "RecursionError" in done.stderr
    assert helper(node, "start", "", before=WALKING).returncode == 1
    assert "inet pcocc" in node.run("nft", "list", "tables").stdout  # nowadays the guard comes first in any case


@pytest.mark.parametrize("where", ["12", "12/inside"])
@pytest.mark.parametrize("verb", ["setup", "start", "release"])
def test_what_a_user_mounts_is_nobody_elses(node: Node, stepd: int, verb: str, where: str) -> None:
    alices_job(node, "os.mkdir('inside')")
    for folder in (RUN, SCRATCH):
        node.run("sh", "-ec", f"mount -t tmpfs tmpfs {folder}/{where}; touch {folder}/{where}/file")
    text = {"setup": request_of(BOB, 13, stepd), "start": "", "release": release(12)}[verb]
    assert helper(node, verb, text).returncode == 0
    if verb == "setup":
        node.helper("release", release(13))
    assert node.leftovers() == "" and f"/{where}" not in node.run("cat", "/proc/self/mountinfo").stdout


def test_the_guard_stands_before_anything_can_fail(node: Node) -> None:
    alices_job(node, DEEP)
    node.run("sh", "-ec", f"chmod o+w /etc/pcocc; nft delete table inet pcocc; echo x >{RUN}/.state/12.json")
    done = helper(node, "start", "")
    assert done.returncode == 1 and "inet pcocc" in node.run("nft", "list", "tables").stdout
    assert "pcocc-12" not in node.leftovers() and "12" not in node.run("ls", RUN).stdout.split()


def test_a_users_process_that_is_called_dnsmasq_is_his_own(node: Node, stepd: int) -> None:
    node.helper("setup", request_of(ALICE, 12, stepd))
    node.run("sh", "-ec", "cp $(command -v sleep) /run/dnsmasq; chmod 755 /run/dnsmasq")
    run = f"setpriv --reuid={ALICE} --regid={ALICE} --clear-groups /run/dnsmasq 600 >/dev/null 2>&1 & echo $!"
    pid = int(node.in_job(12, "sh", "-c", run).stdout)
    try:
        node.helper("release", release(12))
        assert Path(f"/proc/{pid}/comm").read_text() == "dnsmasq\n"
    finally:
        os.kill(pid, 9)


def test_a_users_program_with_roots_rights_is_found_by_who_started_it() -> None:
    """/proc/PID is root's then, and in former times only that was checked."""
    child = started(lambda: os.setresuid(ALICE, 0, 0))
    try:
        assert os.stat(f"/proc/{child}").st_uid == 0
        assert child in [one.pid for one in process.find_in_cgroup("/", ALICE)]
        assert child not in [one.pid for one in process.find_in_cgroup("/", BOB)]
        assert child in [one.pid for one in process.find_in_cgroup("/")]
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


@pytest.mark.parametrize(("uid", "counts"), [(ALICE, False), (0, True)], ids=["a user", "root"])
def test_nobody_but_root_is_a_slurmstepd(uid: int, counts: bool) -> None:
    """Otherwise Alice could keep a job whose record is damaged from being released."""
    with subprocess.Popen(["slurmstepd: [12.0]", "600"], executable="/bin/sleep", user=uid, group=uid) as child:
        found = [one.pid for one in process.find_slurmstepds(12)], process.find_slurmstepds(1), process.find_slurmstepds(120)
        child.kill()
    assert found == ([child.pid] if counts else [], [], [])


@pytest.mark.parametrize("name", ["job_12", "sE51M8M62PTY00"])
def test_what_is_in_the_steps_cgroup_ends_with_it_whatever_slurm_calls_that(node: Node, stepd: int, name: str) -> None:
    hierarchy = next(path for path in (Path("/sys/fs/cgroup/freezer"), Path("/sys/fs/cgroup")) if path.is_dir())
    top = hierarchy / f"pcocc-tests-{os.getpid()}"
    groups = [top / name / "step_0" / part for part in ("slurm", "user/task_0")]
    for group in groups:
        group.mkdir(parents=True)
    run = (
        f"setpriv --reuid={ALICE} --regid={ALICE} --clear-groups sleep 600 >/dev/null 2>&1 & echo $! | tee"
        f" {groups[1]}/cgroup.procs"
    )
    task = int(node.run("sh", "-ec", run).stdout)
    try:
        with subprocess.Popen(["sleep", "600"]) as slurmstepd:
            (groups[0] / "cgroup.procs").write_text(str(slurmstepd.pid))
            node.helper("setup", request_of(ALICE, 12, slurmstepd.pid))
            slurmstepd.kill()
        node.helper("setup", request_of(BOB, 13, stepd))
        assert process.find_process(task) is None
    finally:
        node.helper("release", release(13))
        for path, _folders, _files in os.walk(top, topdown=False):
            os.rmdir(path)


def test_processes_that_hang_are_waited_for_together_and_for_a_time() -> None:
    def scenario() -> None:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
            os.chmod(name, 0o755)
            one = Fuse(name, ALICE)
            children = []
            for _number in range(6):
                children.append(os.fork())
                if children[-1] == 0:
                    one.close()
                    as_user(ALICE, lambda: os.listdir(name))
                    os._exit(0)
            reader = threading.Thread(target=lambda: [one.swallow() for _child in children])
            reader.start()
            reader.join()
            hanging = process.find_in_cgroup("/", ALICE)
            assert len(hanging) >= 6
            begin = time.monotonic()
            process.end(hanging, 0.3)
            assert time.monotonic() - begin < limit(3)
            one.close()
            for child in children:
                os.waitpid(child, 0)
            subprocess.run(["umount", "-l", name], check=True)

    apart(scenario)
