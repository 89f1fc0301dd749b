"""The namespaces of the nodes and of the login side: cgroups, mounts, the underlay, and the process that holds them."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

from boxlib import state
from boxlib.state import BRIDGE, LOGIN, STATE, BoxError

_CGROUPS = Path("/sys/fs/cgroup")


def controllers() -> list[str]:
    """Return the cgroup v1 controllers mounted under /sys/fs/cgroup; empty on a machine with cgroup v2 only."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return []
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    names = [line[1].rpartition("/")[2] for line in mounts if line[2] == "cgroup" and line[1].startswith(f"{_CGROUPS}/")]
    return sorted(name for name in set(names) if name != "systemd")


def ensure_holder(name: str, services: dict[str, list[str]]) -> None:
    """Bring up the namespaces of a node or of the login side, and its daemons' list."""
    (STATE / "nodes" / name).mkdir(parents=True, exist_ok=True)
    for part, mode in (("tmp", 0o1777), ("lib", 0o755), ("spool", 0o755)):
        (STATE / "nodes" / name / part).mkdir(exist_ok=True)
        (STATE / "nodes" / name / part).chmod(mode)
    spec = {"script": _mount_script(name), "services": json.dumps(services)}
    path = STATE / "run" / f"{name}.spec"
    same = path.exists() and json.loads(path.read_text())["script"] == spec["script"]
    if not (same and state.read_pid(name) is not None):
        remove_node(name)
    state.write_if_changed(path, json.dumps(spec))
    if state.read_pid(name) is not None:
        return
    _start_holder(name)
    if name != LOGIN:
        _connect(name)


def _start_holder(name: str) -> None:
    """Start the holder in its own cgroups and namespaces; wait until it is ready."""
    groups = _ensure_cgroups(name)
    namespaces = ["--mount", "--uts", "--propagation", "private"] + ([] if name == LOGIN else ["--net", "--cgroup"])
    program = ["/usr/bin/python3", "-IS", str(Path(__file__).with_name("holder.py")), name]
    script = "".join(f"echo $$ >{group}/cgroup.procs; " for group in groups)
    script += "exec " + shlex.join(["unshare", *namespaces, *program])
    with (STATE / "log" / f"{name}.holder.out").open("ab") as log:
        child = subprocess.Popen(
            ["/bin/sh", "-ec", script], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )
    for _ in range(500):
        if state.read_pid(name) == child.pid:
            return
        if child.poll() is not None:
            break
        time.sleep(0.01)  # the shell writes a file, which nothing announces
    raise BoxError(f"{name} did not come up: see {STATE}/log/{name}.holder.out")


def _ensure_cgroups(name: str) -> list[Path]:
    groups = []
    for controller in controllers():
        top = _CGROUPS / controller
        for path in (top / state.GROUP, top / state.GROUP / name):
            path.mkdir(exist_ok=True)
            if controller == "cpuset":
                for file in ("cpuset.cpus", "cpuset.mems"):
                    (path / file).write_text((path.parent / file).read_text())
        groups.append(top / state.GROUP / name)
    if not groups:
        path = _CGROUPS / state.GROUP / name
        path.mkdir(parents=True, exist_ok=True)
        groups.append(path)
    return groups


def _mount_script(name: str) -> str:
    """Return the shell script that makes a fresh mount namespace a node's (or the login side's)."""
    own = STATE / "nodes" / name
    lines = [f"hostname {name}"]
    if name != LOGIN:
        lines += ["mount -t sysfs sysfs /sys", *_cgroup_mounts(), f"mount --bind {own}/tmp /tmp"]
        lines += [f"mount --bind {own}/lib /var/lib/pcocc", f"mount --bind {STATE}/etc/resolv.conf /etc/resolv.conf"]
        lines += ["ip link set lo up"]
    lines += ["mount -t tmpfs -o mode=755 run /run", "mkdir -p /run/munge /run/netns /run/lock"]
    lines += [f"mount --bind {STATE}/munge/run /run/munge"]
    lines += [f"mount --bind {STATE}/etc/{part} /etc/{part}" for part in ("slurm", "pcocc")]
    lines += [f"mount --bind {STATE}/etc/{file} /etc/{file}" for file in ("hosts", "nsswitch.conf")]
    if name != LOGIN:  # what gres.conf counts: no driver has them
        lines += ["mkdir /run/functions", "for one in 61 62 63 64; do mknod -m 600 /run/functions/$one c 240 $one; done"]
    if name != LOGIN and Path("/dev/kvm").exists():
        device = os.stat("/dev/kvm").st_rdev
        lines += [f"mknod -m 666 /run/.kvm c {os.major(device)} {os.minor(device)}", "mount --bind /run/.kvm /dev/kvm"]
    return "\n".join(lines)


def _cgroup_mounts() -> list[str]:
    if not controllers():
        return ["mount -t cgroup2 cgroup2 /sys/fs/cgroup"]
    lines = ["mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup"]
    for name in controllers():
        lines += [f"mkdir /sys/fs/cgroup/{name}", f"mount -t cgroup -o {name} cgroup /sys/fs/cgroup/{name}"]
    return lines


def ensure_bridge() -> None:
    """Bring up the underlay's bridge with the login side's address."""
    if f"{BRIDGE}:" not in Path("/proc/net/dev").read_text().split():
        subprocess.run(["ip", "link", "add", BRIDGE, "type", "bridge"], check=True)
    subprocess.run(["ip", "addr", "replace", f"{state.address(LOGIN)}/24", "dev", BRIDGE], check=True)
    subprocess.run(["ip", "link", "set", BRIDGE, "up"], check=True)


def _connect(name: str) -> None:
    """Give a node its eth0 on the underlay."""
    pid, outside = str(state.holder_of(name)), f"pcbox-{name}"
    # some kernels put interfaces of their own in every new namespace
    state.write_if_changed(STATE / "run" / f"{name}.links", json.dumps([*state.read_links(name), "eth0"]))
    subprocess.run(["ip", "link", "del", outside], check=False, stderr=subprocess.DEVNULL)
    subprocess.run(["ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", pid], check=True)
    subprocess.run(["ip", "link", "set", outside, "master", BRIDGE, "up"], check=True)
    inside = f"ip addr add {state.address(name)}/24 dev eth0; ip link set eth0 up; "
    inside += f"ip route add default via {state.address(LOGIN)}"
    subprocess.run(["nsenter", f"--target={pid}", "--net", "sh", "-ec", inside], check=True)


def start_services(name: str) -> None:
    """Tell a holder to start its daemons that are not running."""
    os.kill(state.holder_of(name), signal.SIGUSR1)


def stop_service(name: str, service: str) -> None:
    """End one daemon and wait for it; SIGKILL after ten seconds."""
    for number, tries in ((signal.SIGTERM, 1000), (signal.SIGKILL, 200)):
        pid = state.read_pid(f"{name}.{service}")
        if pid is None:
            return
        os.kill(pid, number)
        for _ in range(tries):
            if state.read_pid(f"{name}.{service}") is None:
                return
            time.sleep(0.01)  # a daemon, and no child of ours
    raise BoxError(f"{service} of {name} does not end")


def kill_processes(name: str) -> None:
    """End every process in the namespaces or cgroups of a node or of the login side."""
    for _ in range(200):
        found = [pid for pid in state.processes_of(name) if pid != os.getpid()]
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if not found:
            return
        time.sleep(0.05)  # they are no children of ours
    raise BoxError(f"processes of {name} do not end: {found}")


def remove_node(name: str) -> None:
    """Remove a node or the login side: processes, its end of the underlay, cgroups."""
    kill_processes(name)
    subprocess.run(["ip", "link", "del", f"pcbox-{name}"], check=False, stderr=subprocess.DEVNULL)
    for path in (STATE / "run").glob(f"{name}.*"):
        path.unlink()
    (STATE / "run" / name).unlink(missing_ok=True)
    for controller in controllers() or [""]:
        _remove_cgroup(_CGROUPS / controller / state.GROUP / name)


def _remove_cgroup(path: Path) -> None:
    if not path.is_dir():
        return
    for child in path.iterdir():
        if child.is_dir():
            _remove_cgroup(child)
    for _ in range(100):
        try:
            path.rmdir()
            return
        except OSError:
            time.sleep(0.02)  # the kernel needs a moment after the last process
    raise BoxError(f"the cgroup {path} cannot be removed")


def remove_shared() -> None:
    """Remove what all nodes shared: the bridge and the top cgroups."""
    subprocess.run(["ip", "link", "del", BRIDGE], check=False, stderr=subprocess.DEVNULL)
    for controller in controllers() or [""]:
        _remove_cgroup(_CGROUPS / controller / state.GROUP)
