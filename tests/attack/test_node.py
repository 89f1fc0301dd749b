"""A user, or a record, that breaks a node for everybody: root's helper on a node where Alice attacks and Bob only works.

`UNDEFENDED` takes one defence away, and Bob's set-up fails as it did.
"""

import json
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
from tests.netns.fabric import HELPER, Node, release, request
from tests.waiting import limit

RUN, SCRATCH = "/run/pcocc", "/var/lib/pcocc/scratch"


@pytest.fixture
def node() -> Iterator[Node]:
    with tempfile.TemporaryDirectory(dir="/root") as directory:
        node = Node(Path(directory), "one")
        try:
            node.run("sh", "-ec", "ip link add eth0 type veth peer name eth1; ip addr add 192.0.2.1/24 dev eth0; ip link set eth0 up")
            yield node
        finally:
            node.close()


def of(uid: int, job: int, stepd: int, step: int = 0) -> str:
    """Return a user's set-up request for two VMs on this node."""
    text = request(job, 0, stepd, step=step, sets="default:2", nodes=("192.0.2.1",))
    return text.replace("uid 65534\ngid 65534", f"uid {uid}\ngid {uid}")


def helper(node: Node, verb: str, text: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run root's helper after some lines of Python that change it."""
    return node.run(HELPER[0], HELPER[1], f"{before}\n{HELPER[2]}", verb, text=text, check=False)


def alice(node: Node, code: str) -> None:
    """Have Alice run Python on the node."""
    node.run("setpriv", f"--reuid={ALICE}", f"--regid={ALICE}", "--clear-groups", sys.executable, "-ISc", code)


def alices_job(node: Node, code: str | None = None) -> None:
    """Set up Alice's job 12, have her do something in both its directories, and kill its slurmstepd."""
    with subprocess.Popen(["sleep", "600"]) as stepd:
        assert node.helper("setup", of(ALICE, 12, stepd.pid)).stdout == "tap 0 tap0n0\ntap 1 tap1n0\n"
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
import shutil
from pcocc_runtime.node import removal
removal.set_aside = lambda path: shutil.rmtree(path) if path.exists() else None
"""
from_here = {"deep": DEEP, "shut": SHUT, "files": "for n in range(5000): open(str(n), 'w').close()"}


@pytest.mark.parametrize("name", from_here)
@pytest.mark.parametrize("verb", ["setup", "start", "release"])
def test_what_a_user_leaves_is_nobody_elses(node: Node, stepd: int, verb: str, name: str) -> None:
    alices_job(node, from_here[name])
    text = {"setup": of(BOB, 13, stepd), "start": "", "release": release(12)}[verb]
    done = helper(node, verb, text)
    assert (done.returncode, done.stdout) == (0, "tap 0 tap0n0\ntap 1 tap1n0\n" if verb == "setup" else "")
    assert not {"12", "pcocc-12"} & set(node.leftovers().split())
    if verb == "setup":
        node.helper("release", release(13))
    assert node.leftovers() == ""


def test_once_it_was_everybodys(node: Node, stepd: int) -> None:
    alices_job(node, DEEP)
    for job in (13, 14):
        done = helper(node, "setup", of(BOB, job, stepd), before=WALKING)
        assert done.returncode == 1 and "RecursionError" in done.stderr
    assert helper(node, "start", "", before=WALKING).returncode == 1
    assert "inet pcocc" in node.run("nft", "list", "tables").stdout  # the guard is first in any case now


@pytest.mark.parametrize("where", ["12", "12/inside"])
@pytest.mark.parametrize("verb", ["setup", "start", "release"])
def test_what_a_user_mounts_is_nobody_elses(node: Node, stepd: int, verb: str, where: str) -> None:
    alices_job(node, "os.mkdir('inside')")
    for folder in (RUN, SCRATCH):
        node.run("sh", "-ec", f"mount -t tmpfs tmpfs {folder}/{where}; touch {folder}/{where}/file")
    text = {"setup": of(BOB, 13, stepd), "start": "", "release": release(12)}[verb]
    assert helper(node, verb, text).returncode == 0
    if verb == "setup":
        node.helper("release", release(13))
    assert node.leftovers() == "" and f"/{where}" not in node.run("cat", "/proc/self/mountinfo").stdout


def test_little_time_is_enough_for_everything_but_the_files(node: Node, stepd: int) -> None:
    """Whatever the time is that is spent on what a user has left: all else is done, and the rest goes later."""
    hurry = "from pcocc_runtime.node import main, removal\nreal = removal.finish\nremoval.finish = lambda folders, seconds: real(folders, 0.001)"
    alices_job(node, from_here["files"])
    done = helper(node, "setup", of(BOB, 13, stepd), before=hurry)
    assert done.returncode == 0, done.stdout
    done = helper(node, "release", release(13), before=hurry)
    assert done.returncode == 0 and node.leftovers().split() == [".aside", ".aside"]
    assert done.stderr.splitlines() == [
        "pcocc: some of what ended jobs have left in their directories is still there, set aside; it is deleted later"
    ]
    node.helper("start", "")
    assert node.leftovers() == ""


def read(node: Node, job: int) -> dict[str, object]:
    found: dict[str, object] = json.loads(node.run("cat", f"{RUN}/.state/{job}.json").stdout)
    return found


def break_record(node: Node, job: int, how: str) -> None:
    whole = read(node, job)
    assert whole["version"] == 1
    texts: dict[str, object] = {
        "empty": "", "cut": json.dumps(whole)[:40], "no text": "\0\0\0", "a list": "[1, 2]", "deep": "[" * 100000,
        "newer": {**whole, "version": 2, "flavour": {"a": 1}}, "older": {key: whole[key] for key in ("job", "step")},
        "without scratch": {key: value for key, value in whole.items() if key != "scratch"},
        "types": {key: [value] for key, value in whole.items()}, "wrong stepd": {**whole, "stepd": {"pid": "1", "start": -1}},
        "wrong nat": {**whole, "nat": {"slot": "x", "forwards": 5}},
    }  # fmt: skip
    text = texts[how]
    node.run("sh", "-c", f"cat >{RUN}/.state/{job}.json", text=text if isinstance(text, str) else json.dumps(text))


RECORDS = ["empty", "cut", "no text", "a list", "deep", "newer", "older", "without scratch", "types", "wrong stepd", "wrong nat"]
KNOWN = {"newer", "without scratch", "wrong nat"}  # whose slurmstepd is known from them


@pytest.mark.parametrize("how", RECORDS)
@pytest.mark.parametrize("verb", ["setup", "start"])
def test_a_record_that_cannot_be_read_stops_nobody_else(node: Node, stepd: int, verb: str, how: str) -> None:
    alices_job(node)
    break_record(node, 12, how)
    done = helper(node, verb, of(BOB, 13, stepd) if verb == "setup" else "")
    assert done.returncode == 0, done.stdout + done.stderr
    notes = [] if how in KNOWN else ["pcocc: the record of job 12 cannot be read: what the job has is released by its number"]
    assert done.stderr.splitlines() == notes
    assert "pcocc-12" not in node.leftovers()
    if verb == "setup":
        node.helper("release", release(13))
        node.helper("start", "")  # where its scratch was is known to the site's settings
    assert node.leftovers() == ""


@pytest.mark.parametrize("how", RECORDS)
def test_a_job_is_released_and_set_up_again_by_its_number(node: Node, stepd: int, how: str) -> None:
    alices_job(node)
    break_record(node, 12, how)
    assert helper(node, "setup", of(ALICE, 12, stepd, step=1)).stdout == "tap 0 tap0n0\ntap 1 tap1n0\n"
    break_record(node, 12, how)
    assert helper(node, "release", release(12, step=1)).returncode == 0
    node.helper("start", "")
    assert node.leftovers() == ""


@pytest.mark.parametrize("how", sorted(KNOWN))
def test_a_job_that_runs_stays_whatever_version_wrote_its_record(node: Node, stepd: int, how: str) -> None:
    with subprocess.Popen(["sleep", "600"]) as alices:
        node.helper("setup", of(ALICE, 12, alices.pid))
        break_record(node, 12, how)
        node.helper("setup", of(BOB, 13, stepd))
        node.helper("start", "")
        assert {"12", "pcocc-12", "12.json"} <= set(node.leftovers().split())
        alices.kill()


def test_once_a_record_of_another_version_stopped_everybody(node: Node, stepd: int) -> None:
    alices_job(node)
    break_record(node, 12, "newer")
    strict = "import json\nfrom pcocc_runtime.node import records\nrecords._decode = lambda job, data: records.Record(**json.loads(data))"
    for verb, text in (("setup", of(BOB, 13, stepd)), ("start", "")):
        done = helper(node, verb, text, before=strict)
        assert done.returncode == 1 and "flavour" in done.stderr


def test_a_job_that_cannot_be_released_is_told_of_and_stops_nobody(node: Node, stepd: int) -> None:
    alices_job(node)
    node.run("sh", "-ec", "umount /run/netns/pcocc-12; rm /run/netns/pcocc-12; mkdir -p /run/netns/pcocc-12/in-the-way")
    for verb, text in (("setup", of(BOB, 13, stepd)), ("start", "")):
        done = helper(node, verb, text)
        assert done.returncode == 0, done.stdout
        (line,) = done.stderr.splitlines()
        assert line.startswith("pcocc: job 12 has ended and cannot be released yet: ip failed on ")
    node.run("rm", "-r", "/run/netns/pcocc-12")
    node.helper("release", release(13))
    node.helper("start", "")
    assert node.leftovers() == ""


def test_a_note_of_the_accelerator_of_another_version_stops_nobody(node: Node, stepd: int) -> None:
    (node.confdir / "pcocc.yaml").write_text("accel: auto\nqemu: /bin/false\n")
    node.helper("start", "")
    kept = json.loads(node.run("cat", f"{RUN}/.state/accel.json").stdout)
    for text in ("", "[]", json.dumps({"key": kept["key"]}), json.dumps({**kept, "kind": "xen"}), json.dumps({"key": kept["key"], "kind": "kvm"})):
        node.run("sh", "-c", f"cat >{RUN}/.state/accel.json", text=text)
        assert helper(node, "setup", of(BOB, 13, stepd)).returncode == 0
        node.helper("release", release(13))


FORGED = {
    "another's": lambda confdir: os.chown(confdir, ALICE, ALICE),
    "anybody's": lambda confdir: confdir.chmod(0o777),
    "a file of another's": lambda confdir: os.chown(confdir / "pcocc.yaml", ALICE, ALICE),
}


@pytest.mark.parametrize("how", FORGED)
def test_start_believes_nobody_but_root_and_guards_the_tunnels_all_the_same(node: Node, how: str) -> None:
    evil = "/run/evil"
    node.run("sh", "-ec", f"printf '#!/bin/sh\\ntouch /run/evil.d/ran\\n' >{evil}; chmod 755 {evil}; mkdir -m 777 /run/evil.d")
    (node.confdir / "pcocc.yaml").write_text(f"accel: auto\nqemu: {evil}\n")
    FORGED[how](node.confdir)
    kvm = "from pcocc_runtime.node import accelerator\naccelerator._KVM = '/dev/null'"
    done = helper(node, "start", "", before=kvm)
    assert done.returncode == 1 and done.stdout.startswith("pcocc: error: /etc/pcocc") and done.stdout.count("\n") == 2
    assert "inet pcocc" in node.run("nft", "list", "tables").stdout
    assert node.run("ls", "/run/evil.d").stdout == ""
    trusting = "from pcocc_runtime.settings import directories\ndirectories.ensure_trusted = lambda confdir: None"
    assert helper(node, "start", "", before=f"{kvm}\n{trusting}").returncode == 0
    assert node.run("ls", "/run/evil.d").stdout == "ran\n"  # as it was


def test_the_guard_stands_before_anything_can_fail(node: Node) -> None:
    alices_job(node, DEEP)
    node.run("sh", "-ec", f"umount /etc/pcocc; nft delete table inet pcocc; echo x >{RUN}/.state/12.json")
    done = helper(node, "start", "")
    assert done.returncode == 1 and "inet pcocc" in node.run("nft", "list", "tables").stdout
    assert "pcocc-12" not in node.leftovers() and "12" not in node.run("ls", RUN).stdout.split()


WATCHED = f"""
import os, sys
def watch(event, args):
    path = os.fsdecode(args[0]) if args and isinstance(args[0], (str, bytes, os.PathLike)) else ""
    if path.startswith(('{RUN}/12/', '{SCRATCH}/12/')) and os.lstat(os.path.dirname(path)).st_uid != 0:
        sys.stderr.write(event + " " + path + "\\n")
sys.addaudithook(watch)
"""


def test_root_writes_nothing_into_a_directory_of_the_users(node: Node, stepd: int) -> None:
    """A set-up that is done again finds what the first one gave to Alice, with what she put there since."""
    node.run("sh", "-c", "echo precious >/var/lib/precious; chmod 600 /var/lib/precious")
    for _time in range(2):
        done = helper(node, "setup", of(ALICE, 12, stepd), before=WATCHED)
        assert (done.returncode, done.stderr) == (0, "")
        alice(node, f"import os\nos.chdir('{RUN}/12')\nos.unlink('node.json')\nos.symlink('/var/lib/precious', 'node.json')\nos.mkdir('vm0')")
    node.helper("setup", of(ALICE, 12, stepd))
    assert node.run("stat", "-c", "%F %u %a", f"{RUN}/12/node.json").stdout == "regular file 0 644\n"
    assert node.run("ls", "-A", f"{RUN}/12", SCRATCH).stdout.split() == [f"{RUN}/12:", "node.json", f"{SCRATCH}:", "12"]
    assert node.run("stat", "-c", "%u %g %a", f"{RUN}/12", f"{SCRATCH}/12").stdout == f"{ALICE} {ALICE} 700\n" * 2
    assert node.run("cat", "/var/lib/precious").stdout == "precious\n"


def test_a_set_up_that_fails_leaves_nothing_of_the_job(node: Node, stepd: int) -> None:
    done = helper(node, "setup", of(ALICE, 12, stepd), before="from pcocc_runtime.node import setup\nsetup._give_directories = 1")
    assert done.returncode == 1
    failing = "from pcocc_runtime.node import setup\ndef fail(*_words): raise OSError('no')\nsetup._give_directories = fail"
    done = helper(node, "setup", of(ALICE, 12, stepd), before=failing)
    assert done.returncode == 1 and done.stdout.startswith("pcocc: error: ")
    assert node.leftovers() == "12.lock" or node.leftovers() == ""


def test_a_users_process_that_is_called_dnsmasq_is_his_own(node: Node, stepd: int) -> None:
    node.helper("setup", of(ALICE, 12, stepd))
    node.run("sh", "-ec", "cp $(command -v sleep) /run/dnsmasq; chmod 755 /run/dnsmasq")
    run = f"setpriv --reuid={ALICE} --regid={ALICE} --clear-groups /run/dnsmasq 600 >/dev/null 2>&1 & echo $!"
    pid = int(node.in_job(12, "sh", "-c", run).stdout)
    try:
        node.helper("release", release(12))
        assert Path(f"/proc/{pid}/comm").read_text() == "dnsmasq\n"
    finally:
        os.kill(pid, 9)


def test_a_users_program_with_roots_rights_is_found_by_who_started_it() -> None:
    """/proc/PID is root's then, and before it was looked at only that."""
    child = started(lambda: os.setresuid(ALICE, 0, 0))
    try:
        assert os.stat(f"/proc/{child}").st_uid == 0
        assert child in [one.pid for one in process.find_in_cgroup("/", ALICE)]
        assert child not in [one.pid for one in process.find_in_cgroup("/", BOB)]
        assert child in [one.pid for one in process.find_in_cgroup("/")]
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


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
