"""The Slurm cluster of the box: users, configuration, daemons."""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from boxlib import nodes, state
from boxlib.state import ETC, LOGIN, PREFIX, STATE, USERS, BoxError

SLURMCTLD_PORT = 16817
_PARTS = ("etc/slurm", "etc/pcocc", "log", "run", "nodes", "cache", "images", "slurmctld", "munge/run", "munge/key", "munge/var")
CONFINEMENTS = ("all", "devices", "disabled")  # CPUs and memory; devices, too, of which the nodes count one; nothing
SITE_FILES = ("pcocc.yaml", "networks.yaml", "resources.yaml", "templates.yaml")


def ensure_directories() -> None:
    """Make the state directory."""
    for path in (STATE, *(STATE / part for part in _PARTS)):
        path.mkdir(parents=True, exist_ok=True)


def ensure_layout(made: list[str]) -> None:
    """Make directories, users and mount points; what was made outside of the state directory is added to `made`."""
    slurm, munge = pwd.getpwnam("slurm"), pwd.getpwnam("munge")
    ensure_directories()
    for path, owner, mode in (
        ("slurmctld", slurm, 0o755),
        ("munge/run", munge, 0o755),
        ("munge/key", munge, 0o700),
        ("munge/var", munge, 0o700),
    ):
        os.chown(STATE / path, owner.pw_uid, owner.pw_gid)
        (STATE / path).chmod(mode)
    for name in ("log/slurmctld.log", "log/jobcomp"):
        (STATE / name).touch()
        os.chown(STATE / name, slurm.pw_uid, slurm.pw_gid)
    for point in ("/etc/pcocc", "/etc/slurm", "/var/lib/pcocc"):
        if not Path(point).exists():
            Path(point).mkdir()
            made.append(point)
    key = STATE / "munge/key/munge.key"
    if not key.exists():
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        os.chown(key, munge.pw_uid, munge.pw_gid)
    for user, uid in USERS.items():
        _ensure_user(user, uid, made)


def _ensure_user(user: str, uid: int, made: list[str]) -> None:
    try:
        if pwd.getpwnam(user).pw_uid != uid:
            raise BoxError(f"this machine has a user {user} that is not the box's (uid {uid})")
    except KeyError:
        options = ["--user-group", "--create-home", f"--home-dir=/home/{user}", "--shell=/bin/bash"]
        subprocess.run(["useradd", f"--uid={uid}", *options, user], check=True)
        Path(f"/home/{user}").chmod(0o700)
        made.append(f"user {user}")


def ensure_config(count: int, cpus: int, cgroups: str) -> None:
    """Write the configuration of Slurm and pcocc that all nodes share; `cgroups` is one of CONFINEMENTS."""
    names = state.node_names(count)
    nodelist = f"n[1-{count}]" if count > 1 else "n1"
    values = {"state": STATE, "login": state.address(LOGIN), "port": SLURMCTLD_PORT}
    # Slurm 22.05 cannot put a node's jobs below a namespace of cgroup v2: there they are not confined
    confined = bool(nodes.controllers()) and cgroups != "disabled"
    values |= {"proctrack": "proctrack/cgroup" if confined else "proctrack/linuxproc"}
    values |= {"task": "task/cgroup,task/affinity" if confined else "task/affinity"}
    values |= {"plugin": "disabled" if cgroups == "disabled" and _can_disable() else "cgroup/v1"}
    values |= {"devices": "yes" if cgroups == "devices" else "no"}
    values |= {"nodes": nodelist, "node_lines": "\n".join(_describe_node(name, cpus, confined) for name in names)}
    for name in ("slurm.conf", "cgroup.conf", "gres.conf"):
        state.write_if_changed(STATE / "etc/slurm" / name, (ETC / name).read_text().format_map(values))
    state.write_if_changed(STATE / "etc/slurm/job_submit.lua", (ETC / "job_submit.lua").read_text())
    plugin = PREFIX / "lib/slurm/pcocc.so"
    state.write_if_changed(STATE / "etc/slurm/plugstack.conf", f"required {plugin}\n" if plugin.exists() else "")
    for name in SITE_FILES:
        state.write_if_changed(STATE / "etc/pcocc" / name, (ETC / name).read_text())
    lines = ["127.0.0.1 localhost", *(f"{state.address(name)} {name}" for name in (LOGIN, *names))]
    # written in place, because the file itself is mounted over /etc/hosts
    (STATE / "etc/hosts").write_text("\n".join(lines) + "\n")
    # nodes have no name server: without these, an unknown name would cost half a minute
    services = re.sub(r"(?m)^hosts:.*$", "hosts: files", Path("/etc/nsswitch.conf").read_text())
    (STATE / "etc/nsswitch.conf").write_text(services)
    (STATE / "etc/resolv.conf").write_text("")


def _describe_node(name: str, cpus: int, confined: bool) -> str:
    """Return a node's line of slurm.conf.

    Slurm gives out a node's first CPUs first, and all nodes have the CPUs of one machine: every other node keeps a first one
    from jobs, or all guests with one CPU would run on the same, and the machine's others idle. In a second box, it is the
    others that do.
    """
    others = int(name.removeprefix("n")) + (state.GROUP != state.FIRST)
    spared = 1 if confined and others % 2 == 0 else 0
    size = f"CPUs={cpus + spared}{' CpuSpecList=0' * spared} RealMemory=8000"
    return f"NodeName={name} NodeAddr={state.address(name)} {size} Gres=gpu:1,nic:4 State=UNKNOWN"


def _can_disable() -> bool:
    """Tell whether this Slurm knows CgroupPlugin=disabled: from 24.05 on; before, what does without cgroups asks for none."""
    shown = subprocess.run(["/usr/sbin/slurmd", "-V"], capture_output=True, text=True, check=True).stdout
    return [int(number) for number in re.findall(r"\d+", shown)[:2]] >= [24, 5]


def _services(name: str) -> dict[str, list[str]]:
    if name != LOGIN:
        return {"slurmd": ["/usr/sbin/slurmd", "-D", "-N", name]}
    munge = pwd.getpwnam("munge")
    become = ["/usr/bin/setpriv", f"--reuid={munge.pw_uid}", f"--regid={munge.pw_gid}", "--clear-groups"]
    files = [f"--key-file={STATE}/munge/key/munge.key", "--socket=/run/munge/munge.socket.2"]
    files += [f"--{kind}-file={STATE}/munge/var/{name}" for kind, name in (("pid", "pid"), ("log", "log"), ("seed", "seed"))]
    return {"munged": [*become, "/usr/sbin/munged", "--foreground", *files], "slurmctld": ["/usr/sbin/slurmctld", "-D"]}


def _render_policy() -> None:
    """Let the installed command render what slurmctld checks."""
    if not (PREFIX / "bin/pcocc").exists():
        return
    done = run_login(str(PREFIX / "bin/pcocc"), "config", "policy", "--output=-")
    if done.returncode:
        raise BoxError(f"pcocc config policy failed:\n{done.stdout}{done.stderr}")
    state.write_if_changed(STATE / "etc/pcocc/policy.lua", done.stdout)


def ensure_running(count: int) -> None:
    """Bring up what is missing, and restart the daemons whose configuration or plugin changed."""
    nodes.ensure_bridge()
    names = state.node_names(count)
    for name in (LOGIN, *names):
        nodes.ensure_holder(name, _services(name))
    _render_policy()
    slurm = _digest(
        STATE / "etc/slurm/slurm.conf", STATE / "etc/slurm/cgroup.conf", STATE / "etc/slurm/gres.conf",
        STATE / "etc/hosts",
    )
    plugin = _digest(STATE / "etc/slurm/plugstack.conf", *sorted((PREFIX / "lib/slurm").glob("*.so")))
    rules = [STATE / "etc/slurm/job_submit.lua", STATE / "etc/pcocc/policy.lua"]
    policy = _digest(*rules, *sorted((PREFIX / "share/pcocc/lua").glob("*")))
    ensure_service(LOGIN, "munged", "")
    _wait("munged", lambda: (STATE / "munge/run/munge.socket.2").exists())
    ensure_service(LOGIN, "slurmctld", slurm + policy)
    for name in names:
        ensure_service(name, "slurmd", slurm + plugin)
    wait_ready(count)


def ensure_service(name: str, service: str, digest: str) -> None:
    """Start a daemon; restart it when it runs with another configuration."""
    record = STATE / "run" / f"{name}.{service}.conf"
    if state.read_pid(f"{name}.{service}") is not None:
        if record.exists() and record.read_text() == digest:
            return
        nodes.stop_service(name, service)
    record.write_text(digest)
    start_service(name, service)


def start_service(name: str, service: str) -> None:
    """Start a daemon that does not run, and wait until its process exists."""
    nodes.start_services(name)
    _wait(f"{service} of {name}", lambda: state.read_pid(f"{name}.{service}") is not None)


def wait_ready(count: int) -> None:
    """Wait until every node can take a job."""
    want = sorted(state.node_names(count))
    _wait("slurmctld", _answers, 30)

    def ready() -> bool:
        words = run_login("sinfo", "--noheader", "--Node", "--format=%N %T").stdout.split("\n")
        # a line for each partition of a node
        return sorted({line.split()[0] for line in words if line.split()[1:] in (["idle"], ["mixed"], ["allocated"])}) == want

    try:
        _wait("the nodes", ready, 30)
    except BoxError:
        run_login("scontrol", "update", f"nodename={','.join(want)}", "state=resume")
        _wait("the nodes", ready, 10)


def _answers() -> bool:
    """Tell whether slurmctld listens; Slurm's commands would wait for seconds before they try again."""
    with socket.socket() as probe:
        return probe.connect_ex((state.address(LOGIN), SLURMCTLD_PORT)) == 0


def run_login(*argv: str) -> subprocess.CompletedProcess[str]:
    """Run a command as root on the login side."""
    enter = ["nsenter", f"--target={state.holder_of(LOGIN)}", "--mount", "--uts"]
    return subprocess.run([*enter, *argv], capture_output=True, text=True, check=False, timeout=60)


def _wait(what: str, condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise BoxError(f"{what}: not ready after {seconds:.0f} s; see {STATE}/log")
        time.sleep(0.05)  # daemons announce nothing


def _digest(*paths: Path) -> str:
    found = hashlib.sha256()
    for path in paths:
        if path.is_file():
            found.update(f"{path}\0".encode() + path.read_bytes())
    return found.hexdigest()


def remove_made(made: list[str]) -> None:
    """Remove the users and mount points that `up` made."""
    for one in made:
        if one.startswith("user "):
            subprocess.run(["userdel", "--remove", one.removeprefix("user ")], check=False, capture_output=True)
        else:
            shutil.rmtree(one, ignore_errors=True) if one == "/var/lib/pcocc" else _remove_directory(Path(one))


def _remove_directory(path: Path) -> None:
    try:
        path.rmdir()
    except OSError:
        print(f"box: {path} is left: it is not empty any more")
