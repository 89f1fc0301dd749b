"""Saves of VMs that the launcher has started: runs the `@save` task as the VM's user, with the user's repository."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from pcocc_runtime.documents import wire
from pcocc_runtime.documents.cluster import Drive, Group
from pcocc_runtime.images import images, references, writing
from pcocc_runtime.images.images import Found
from pcocc_runtime.images.references import Repo
from pcocc_runtime.system import held
from tests.qemu.vm import APPEND, DATA, GUEST, SOURCE, USER, Vm
from tests.waiting import limit, wait_for

MEBIBYTE = 1 << 20
SIZE = 64 * MEBIBYTE
BASE = 0xB5  # fills the first MiB of the base image


def own(path: Path) -> None:
    """Give everything below a path to the VM's user."""
    subprocess.run(["chown", "-R", f"{USER}:", path], check=True)


class Home:
    """The VM's user's home and repositories, below a test's directory; `inside` it is the VM's DATA."""

    def __init__(self, data: Path, size: int = SIZE) -> None:
        self.data, self.size = data, size
        self.user, self.site = Repo("user", str(data / "repo")), Repo("site", str(data / "site"))
        (data / "etc").mkdir()
        (data / "etc/repos.yaml").write_text(
            f"repos:\n- {{name: user, path: {DATA}/repo}}\n- {{name: site, path: {DATA}/site}}\n- {{name: small, path:"
            f" {DATA}/small/repo}}\n"
        )
        (data / "home").mkdir()
        self.add(self.user, "base")

    def add(self, repo: Repo, name: str, disk: Path | None = None) -> Found:
        """Make an image of a disk, or one with a known first MiB."""
        with writing.open_repo_work(repo) as work:
            layer = Path(held.show(str(work.path)), "layer")
            if disk:
                shutil.copy(disk, layer)
            else:
                subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", layer, str(self.size)], check=True)
                qemu_io(layer, f"write -P {BASE} 0 1M")
            one = writing.add_revision(work, name, layer, None)
        own(Path(repo.path))
        own(self.data / "home")
        return Found(repo, one)

    def find(self, text: str) -> Found:
        """Return the revision that a reference means."""
        return images.find_image(
            references.parse_reference(text), (self.user, self.site, Repo("small", str(self.data / "small/repo")))
        )

    def group(self, text: str = "user:base@0", **more: Any) -> Group:
        """Return a VM that boots from an image."""
        found = self.find(text)
        return Group("t", 1, image=f"{DATA}/{found.path.relative_to(self.data)}", origin=found.reference, **more)

    def shell(self, text: str = "user:base@0", **more: Any) -> Group:
        """Return a VM whose system is in memory, and whose first disk is an image."""
        return self.group(text, kernel=f"{GUEST}/vmlinux", initrd=f"{GUEST}/initrd", append=APPEND, **more)

    def leftovers(self) -> list[str]:
        """Return what is in the user's repository beside layers and metadata."""
        return sorted(path.name for path in Path(self.user.path, ".tmp").iterdir())

    def revisions(self) -> dict[str, str]:
        """Return the content of all revisions of the user's repository."""
        problems: list[Any] = []
        found = {one.reference: content(one.path) for one in images.read_images((self.user,), problems)}
        assert problems == []
        return found


def qemu_io(path: Path, *commands: str) -> None:
    """Write into an image that no VM uses."""
    words = [word for command in commands for word in ("-c", command)]
    subprocess.run(["qemu-io", "-f", "qcow2", *words, path], check=True, capture_output=True)


def read_disk(path: Path) -> bytes:
    """Return the content of an image, layers below included."""
    name = "json:" + json.dumps({"driver": "qcow2", "file": {"driver": "file", "filename": str(path)}})
    with tempfile.NamedTemporaryFile() as raw:
        subprocess.run(["qemu-img", "convert", "-O", "raw", name, raw.name], check=True)
        return Path(raw.name).read_bytes()


def content(path: Path) -> str:
    """Return the sum of the content of an image."""
    return hashlib.sha256(read_disk(path)).hexdigest()


def hold_copies(data: Path, verb: str = "convert") -> tuple[Path, Path]:
    """Make saves wait before they copy, or before they `create` a file on scratch.

    Return the file that they make when they wait, and the one that lets them go on.
    """
    there, go = data / "home/there", data / "go"
    (data / "bin").mkdir()
    held = f"while ! [ -e {DATA}/go ]; do sleep 0.02; done"
    (data / "bin/qemu-img").write_text(
        f'#!/bin/sh\n[ "$1" != {verb} ] || {{ : >{DATA}/home/there; {held}; }}\nexec /usr/bin/qemu-img "$@"\n'
    )
    (data / "bin/qemu-img").chmod(0o755)
    return there, go


def start_save(vm: Vm, *words: str, log: str = "saver", die_at: int | None = None) -> subprocess.Popen[bytes]:
    """Start the task of `srun --pcocc-vm=vm0 @save`; what it says goes to a file in the test's directory."""
    argv, environ = plan_task(vm, "@save", *words)
    if die_at is not None:
        environ["DIE_AT"] = str(die_at)
    with (vm.log.parent / log).open("w") as stream:
        return subprocess.Popen(argv, env=environ, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)


def start_task(vm: Vm, *words: str) -> subprocess.Popen[bytes]:
    """Start the task of another operation, with pipes in place of srun."""
    argv, environ = plan_task(vm, *words)
    return subprocess.Popen(
        argv, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )


def plan_task(vm: Vm, *words: str) -> tuple[list[str], dict[str, str]]:
    """Return the command line and the environment of the task of an operation."""
    environ = {
        "PATH": f"{DATA}/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": f"{DATA}/home",
        "PCOCC_SYSTEM_CONF_DIR": f"{DATA}/etc", "SLURM_JOB_ID": str(vm.job), "SLURM_PROCID": "0",
        "SLURM_NTASKS": "1", "SLURMD_NODENAME": "here", wire.ENV_VM_NAME: "vm0", wire.ENV_STEP_VMS: "vm0",
    }  # fmt: skip
    argv = [
        "nsenter", f"--target={vm.process.pid}", "--mount", "--wd=/", "setpriv", f"--reuid={USER}", f"--regid={USER}",
        "--init-groups", "/usr/bin/python3", "-IS", f"{SOURCE}/tests/qemu/launcher.py", "attach", *words,
    ]  # fmt: skip
    return argv, environ


def save(vm: Vm, *words: str, status: int = 0) -> str:
    """Run it to its end; return what it said."""
    child = start_save(vm, *words)
    ended = child.wait(limit(120))
    said = (vm.log.parent / "saver").read_text()
    assert ended == status and "Traceback" not in said, said
    return said


def ask_qemu(vm: Vm, command: str, **arguments: Any) -> Any:
    """Return what a VM's QEMU answers on its own monitor."""
    with socket.socket(socket.AF_UNIX) as monitor, monitor.makefile("rw") as stream:
        monitor.settimeout(limit(30))
        monitor.connect(str(vm.directory / "qmp"))
        stream.readline()
        for words in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
            stream.write(json.dumps(words) + "\n")
            stream.flush()
            while "event" in (answer := json.loads(stream.readline())):
                pass
        return answer["return"]


def wait_for_monitor(vm: Vm) -> None:
    """Wait until nobody talks to the VM's QEMU."""
    wait_for(
        lambda: vm.process.poll() is not None or any(event["event"] == "started" for event in vm.events()), vm.said, 60,
        0.05,
    )
    assert vm.process.poll() is None, vm.said()


def left_behind(vm: Vm) -> list[str]:
    """Return what a save has left in a VM's QEMU or on its scratch; nothing when its disk is as before."""
    jobs = [f"job {job['device']}" for job in ask_qemu(vm, "query-block-jobs")]
    nodes = [
        str(node["node-name"]) for node in ask_qemu(vm, "query-named-block-nodes") if str(node["node-name"]).startswith("save")
    ]
    own = ("/vm0.qcow2", f"{DATA}/drive")
    disks = [one["inserted"] for one in ask_qemu(vm, "query-block") if one["device"].startswith("disk")]
    changed = [str(disk["file"]) for disk in disks if not disk["file"].endswith(own) or disk["node-name"].startswith("save")]
    exports = [str(one["id"]) for one in ask_qemu(vm, "query-block-exports")]
    files = {path.name for path in (vm.log.parent / f"scratch/pcocc/{vm.job}").iterdir()} - {"vm0.qcow2", "vm0.console.log"}
    return [*jobs, *nodes, *changed, *exports, *sorted(files), *(["socket"] if (vm.directory / "save.nbd").exists() else [])]


def inside(vm_pid: int, *argv: str) -> None:
    """Run a command as root where a VM's files are."""
    subprocess.run(["nsenter", f"--target={vm_pid}", "--mount", *argv], check=True)


def make_drive(home: Home, form: str = "raw", size: int = 64) -> Drive:
    """Make a drive whose first MiB is known."""
    path = home.data / "drive"
    subprocess.run(["qemu-img", "create", "-q", "-f", form, path, f"{size}M"], check=True)
    subprocess.run(["qemu-io", "-f", form, "-c", "write -P 7 0 1M", path], check=True, capture_output=True)
    os.chown(path, 1, 1)
    return Drive(f"{DATA}/drive", format=form)
