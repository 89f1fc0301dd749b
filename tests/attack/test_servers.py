"""dnsmasq listens to guests. Whoever has taken it over reaches nothing of the host, and nothing of another job.

`TAKEN_OVER` is a program that starts as dnsmasq does, and then does what its new master wants.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pcocc_runtime import naming
from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks import call_filter
from pcocc_runtime.system import confined, process
from tests.netns.fabric import Node, release, request_of

PYTHON = "/usr/bin/python3"  # the server sees it, too
UID = naming.dnsmasq_uid(12)
TAKEN_OVER = f"""
import ctypes, json, os, signal, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def ok(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "no")
    return result
socket.create_server(("127.0.0.1", 53)).close()
socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58).close()
ok(libc.prctl(8, 1, 0, 0, 0))
os.setgroups([])
os.setresgid({UID}, {UID}, {UID})
os.setresuid({UID}, {UID}, {UID})
kept = 1 << 12 | 1 << 13
header = struct.pack("=Ii", 0x20080522, 0)
libc.capset(header, struct.pack("=IIIIII", kept, kept, 0, 0, 0, 0))
def caps():
    (line,) = [one for one in open("/proc/self/status") if one.startswith("CapEff")]
    return int(line.split()[1], 16) == 0 and [][0]
def raw(): socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
def packet(): socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
def users(): ok(libc.unshare(0x10000000))
def clone(): ok(libc.syscall(56 if os.uname().machine == "x86_64" else 220, 0x10000000 | 17, 0, 0, 0, 0)) or os._exit(0)
def keys(): ok(libc.syscall(250 if os.uname().machine == "x86_64" else 219, 0, -3, 1))
def shadow(): open("/etc/passwd").read().index("daemon")
def records(): os.listdir("/run")
def host(): os.listdir("/proc/1")
def signals(): os.kill(VICTIM, 0)
def root(): os.setresuid(0, 0, 0)
def low(): socket.create_server(("127.0.0.1", 54))
found = []
for attack in raw, packet, clone, users, keys, shadow, records, host, signals, root, low:
    try:
        attack()
        found.append(attack.__name__)
    except (OSError, ValueError, IndexError):
        pass
print("ready " + json.dumps([found, os.getpid(), os.getresuid()]) + "!", flush=True)
"""
ONCE = ["raw", "packet", "clone", "users", "keys", "shadow", "records", "host", "signals"]  # with what dnsmasq used to keep


BEGIN = f"""
import os, sys
sys.path[:0] = {sys.path!r}
os.system("ip link set lo up")
victim = os.fork()
if victim == 0:
    os.setresuid({UID}, {UID}, {UID})
    os.execlp("sleep", "sleep", "600")
code = {TAKEN_OVER!r}.replace("VICTIM", str(victim))
"""
CONFINED = f"""
from pcocc_runtime.networks import call_filter
from pcocc_runtime.system import confined
try:
    filter = call_filter.plan_call_filter(os.uname().machine)
    argv, files = [{PYTHON!r}, "-IS", "/etc/code.py"], [("etc/code.py", code)]
    print(confined.start_confined(argv, files, filter, "/mnt", b"!", "").decode())
finally:
    os.kill(victim, 9)
"""
AS_IT_WAS = f"""
import subprocess
try:
    print(subprocess.check_output([{PYTHON!r}, "-IS", "-c", code], text=True))
finally:
    os.kill(victim, 9)
"""


def run(code: str) -> tuple[list[str], int, list[int]]:
    """Start a server that is taken over, in a network namespace of its own.

    Return which attacks succeed, and its process and uids.
    """
    done = subprocess.run(["unshare", "--net", sys.executable, "-c", BEGIN + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found, pid, uids = json.loads(done.stdout.partition("ready ")[2].partition("!")[0])
    return found, pid, uids


def test_who_takes_it_over_has_nothing() -> None:
    """The victim is a process of the same uid elsewhere on the node."""
    found, pid, uids = run(CONFINED)
    assert (found, pid, uids) == ([], 1, [UID] * 3)


def test_once_it_had_all_this() -> None:
    found, _pid, _uids = run(AS_IT_WAS)
    assert found == ONCE


def test_what_does_not_begin_is_told_and_leaves_nothing() -> None:
    """As it was before: what the program itself says."""
    before = os.listdir("/mnt")
    for words, said in ((["nosuch"], "No such file"), ([PYTHON, "-c", "print('no'); exit(1)"], "no")):
        with pytest.raises(NodeError, match=said):
            confined.start_confined(words, [], call_filter.plan_call_filter(os.uname().machine), "/mnt", b"never", "install it")
    assert os.listdir("/mnt") == before


def test_each_job_has_servers_of_its_own_uid_without_a_right(node: Node) -> None:
    with subprocess.Popen(["sleep", "600"]) as stepd:
        for job in (12, 13):
            node.helper("setup", request_of(65534, job, stepd.pid))
        servers = node.servers()
        assert [job for job, _pid in servers] == [12, 13]
        for job, pid in servers:
            status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
            assert process.read_owner(pid) == naming.dnsmasq_uid(job)
            assert [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [0] * 4
            assert (status["NoNewPrivs"], status["Seccomp"], status["NSpid"].split()[1:]) == ("1", "2", ["1"])
            assert sorted(os.listdir(f"/proc/{pid}/root/etc")) == [f"{job}.dnsmasq0", "group", "passwd"]
            assert not os.path.exists(f"/proc/{pid}/root/run") and not os.path.exists(f"/proc/{pid}/root/proc")
        stepd.kill()
    for job in (12, 13):
        node.helper("release", release(job))
    assert node.leftovers() == "" and node.servers() == []
