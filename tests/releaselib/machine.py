"""The isolated machine: a release's root in namespaces and cgroups of its own, which end with the command that runs in it."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import stat
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile

from . import cgroups
from .cgroups import Hierarchy
from .outside import find_certificates, read_environment, read_pip_settings
from .suites import INSIDE, KEPT, ROOT, Place, ReleaseError, Suite

_TIED = ("setpriv", "--pdeathsig=KILL")  # ends with this process, however that ends
_NAMESPACES = ("--net", "--mount", "--uts", "--ipc", "--cgroup", "--pid", "--fork", "--kill-child", "--propagation=private")
_NETWORK, _NAME_SERVER = "10.78.0.0/24", "10.78.0.3"  # slirp4netns(1) answers at .2 and .3
_PATIENCE = 30  # seconds in which an interrupted command may end by itself
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
# with the modes that distributions give them; those that this machine does not have are left out
_DEVICES = {**dict.fromkeys(("null", "zero", "full", "random", "urandom", "tty", "fuse", "net/tun"), 0o666),
            **dict.fromkeys(("kvm", "vhost-net", "vhost-vsock", "loop-control", *(f"loop{number}" for number in range(8))),
                            0o660)}  # fmt: skip


def run(suite: Suite, place: Place, command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a command in the release's machine and return its status; nothing of the machine is left."""
    for program in ("slirp4netns", "unshare", "setpriv"):
        if shutil.which(program) is None:
            raise ReleaseError(f"there is no {program} on this machine: run tests/prepare")
    name = machine_name(suite, place)
    hierarchies = cgroups.read_hierarchies()
    cgroups.remove_groups(hierarchies, name)  # left by a run that was killed
    pip_settings = read_pip_settings(environ)
    _write_files(suite, place.root, pip_settings)
    inside = _render_inside(suite, place.root, hierarchies, find_certificates(pip_settings))
    try:
        groups = cgroups.ensure_groups(hierarchies, name)
        return _run_script(_render_outside(groups, inside, {**_ENVIRONMENT, **read_environment(environ)}, command))
    finally:
        cgroups.remove_groups(hierarchies, name)


def machine_name(suite: Suite, place: Place) -> str:
    """Return the name of the machine's cgroups: one for each root."""
    return f"pcocc-release-{suite.name}-{hashlib.sha256(str(place.path).encode()).hexdigest()[:8]}"


def _run_script(script: str) -> int:
    """Start the machine; give it its network when its process exists, and wait for its end."""
    with ExitStack() as stack:
        (told, tell), (wait, go) = os.pipe(), os.pipe()
        for number in (told, go):
            stack.callback(os.close, number)
        words = script.replace("@TELL@", str(tell)).replace("@WAIT@", str(wait))
        machine = subprocess.Popen([*_TIED, "bash", "-ec", words], pass_fds=(tell, wait))
        stack.callback(_end, machine)
        for number in (tell, wait):
            os.close(number)
        pid = os.read(told, 32).strip()
        if not pid:
            raise ReleaseError(f"the machine did not come up: its start ended with status {machine.wait()}")
        door = _open_door(int(pid))
        stack.callback(_end, door)
        os.write(go, b"\n")
        status = _wait(machine)
    return status if status >= 0 else 128 - status


def _open_door(pid: int) -> subprocess.Popen[bytes]:
    """Give the namespaces of a process a way out through this machine's network, without changing that network."""
    told, tell = os.pipe()
    options = ["--configure", "--mtu=1500", "--disable-host-loopback", f"--cidr={_NETWORK}", f"--ready-fd={tell}"]
    argv = [*_TIED, "slirp4netns", *options, str(pid), "eth0"]
    with TemporaryFile() as log:
        door = subprocess.Popen(argv, pass_fds=(tell,), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)
        os.close(tell)
        ready = os.read(told, 1)
        os.close(told)
        if not ready:
            door.wait()
            log.seek(0)
            said = log.read().decode(errors="replace").strip().splitlines()
            raise ReleaseError(f"slirp4netns cannot give the machine a network: {said[-1] if said else 'it said nothing'}")
    return door


def _wait(machine: subprocess.Popen[bytes]) -> int:
    try:
        return machine.wait()
    except KeyboardInterrupt:  # the command has got the signal, too: it may report what it has found so far
        return machine.wait(_PATIENCE)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _write_files(suite: Suite, root: Path, pip_settings: Mapping[str, str]) -> None:
    """Write the files that depend on this machine: names, name server, pip's settings. Links in the root are not followed."""
    (root / KEPT[1:]).mkdir(parents=True, exist_ok=True)
    (ROOT / "build").mkdir(exist_ok=True)  # where that is mounted: a clone with its roots elsewhere has none
    for path, text in (
        ("etc/hostname", f"{suite.name}\n"),
        ("etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {suite.name}\n::1 localhost\n"),
        ("etc/resolv.conf", f"nameserver {_NAME_SERVER}\n"),
        ("etc/pip.conf", "[global]\n" + "".join(f"{key} = {value}\n" for key, value in pip_settings.items())),
    ):
        (root / path).unlink(missing_ok=True)
        (root / path).write_text(text)


def _render_outside(groups: Sequence[Path], inside: str, environ: Mapping[str, str], command: Sequence[str]) -> str:
    """Return the script that enters the cgroups and then makes the namespaces; in another order Slurm would see the
    cgroups from outside.
    """
    first = ["env", "-i", *(f"{key}={value}" for key, value in environ.items()), "/usr/bin/python3", "-IS"]
    program = [*first, f"{INSIDE}/tests/releaselib/init.py", INSIDE, *command]
    lines = [f"echo $$ >{shlex.quote(str(group))}/cgroup.procs" for group in groups]
    return "\n".join(
        [*lines, shlex.join(["exec", "unshare", *_NAMESPACES, "bash", "-ec", f"{inside}\nexec {shlex.join(program)}"])]
    )


def _render_inside(suite: Suite, root: Path, hierarchies: Sequence[Hierarchy], certificates: Sequence[Path]) -> str:
    """Return the script that turns fresh namespaces into the machine; it tells its process id, and waits until there is a
    network.
    """
    lines = ["read -r pid _ </proc/self/stat", "echo $pid >&@TELL@", "exec @TELL@>&-", "umask 022"]
    lines += [f"mount --bind {shlex.quote(str(root))} {shlex.quote(str(root))}", f"cd {shlex.quote(str(root))}"]
    lines += ["find tmp var/tmp -xdev -mindepth 1 -delete", "mount -t proc proc proc", "mount -t sysfs sysfs sys"]
    lines += [*_cgroup_mounts(hierarchies), *_device_nodes(), "mount -t tmpfs -o mode=755 run run", "mkdir run/lock"]
    lines += [f"mkdir -p .{INSIDE}", f"mount --bind {shlex.quote(str(ROOT))} .{INSIDE}", f"mount --bind .{KEPT} .{INSIDE}/build"]
    for path in certificates:
        at = shlex.quote(f".{path}")
        lines += [
            f"mkdir -p {shlex.quote(f'.{path.parent}')}", f"touch {at}",
            f"mount --bind -o ro {shlex.quote(str(path))} {at}",
        ]
    # as systemd does
    lines += [f"hostname {suite.name}", "ip link set lo up", "echo 0 2147483647 >proc/sys/net/ipv4/ping_group_range"]
    lines += ["mkdir -p .old", "pivot_root . .old", "cd /", "umount -l /.old", "rmdir /.old"]
    group = "for node in kvm vhost-net vhost-vsock; do [[ ! -e /dev/$node ]] || chgrp kvm /dev/$node; done"
    lines += [f"if getent group kvm >/dev/null; then {group}; fi"]
    return "\n".join([*lines, "read -r _ <&@WAIT@", "exec @WAIT@<&-"])


def _cgroup_mounts(hierarchies: Sequence[Hierarchy]) -> list[str]:
    lines = [] if hierarchies[0].path == cgroups.TOP else ["mount -t tmpfs -o mode=755 cgroup sys/fs/cgroup"]
    for one in hierarchies:
        options = ["-o", one.options] if one.options else []
        lines += [f"mkdir -p .{one.path}", shlex.join(["mount", "-t", one.kind, *options, one.kind, f".{one.path}"])]
    links = [path for path in sorted(cgroups.TOP.iterdir()) if path.is_symlink()]
    return [*lines, *(shlex.join(["ln", "-s", os.readlink(path), f".{path}"]) for path in links)]


def _device_nodes() -> list[str]:
    lines = ["mount -t tmpfs -o mode=755 dev dev", "mkdir dev/net dev/pts dev/shm"]
    for name, mode in _DEVICES.items():
        if os.path.exists(f"/dev/{name}"):
            found = os.stat(f"/dev/{name}")
            kind = "b" if stat.S_ISBLK(found.st_mode) else "c"
            lines.append(f"mknod -m {mode:o} dev/{name} {kind} {os.major(found.st_rdev)} {os.minor(found.st_rdev)}")
    lines += ["mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts", "ln -s pts/ptmx dev/ptmx"]
    lines += [
        "ln -s /proc/self/fd dev/fd",
        *(f"ln -s fd/{number} dev/{name}" for number, name in enumerate(("stdin", "stdout", "stderr"))),
    ]
    return [*lines, "mount -t tmpfs -o mode=1777 shm dev/shm"]
