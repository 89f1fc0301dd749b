"""A node with an image cache: its service as an unprivileged user, its VMs' launchers as others."""

from __future__ import annotations

import ctypes
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Any

from pcocc_runtime.cache import layer_store, protocol, service
from pcocc_runtime.cache.place import locate_image
from pcocc_runtime.errors import PcoccError, render
from pcocc_runtime.images import writing
from pcocc_runtime.images.images import Found
from pcocc_runtime.images.references import Repo
from pcocc_runtime.site.settings import read_image_cache
from tests.images import children
from tests.images.disks import make_disk

SERVICE, ALICE, BOB = 65533, 65532, 65531
MEBIBYTE = 1 << 20


class Node:
    """Directories of a node below `root`, which everybody may enter."""

    def __init__(self, root: Path, size: str = "1G") -> None:
        self.root = root
        self.cache = root / "cache"
        self.cache.mkdir(mode=0o755)
        os.chown(self.cache, SERVICE, SERVICE)
        (root / "etc").mkdir()
        self.configure(size)
        self.service: int | None = None

    def configure(self, size: str) -> None:
        """Write the site's configuration."""
        (self.root / "etc/pcocc.yaml").write_text(f"image-cache: {{size: {size}, directory: {self.cache}}}\n")
        found = read_image_cache(self.root / "etc")
        assert found is not None
        self.settings = found

    def start_service(self) -> None:
        """Do what systemd does for pcocc-cache.socket."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(protocol.SOCKET))
        Path(protocol.SOCKET).chmod(0o666)
        listener.listen(64)
        self.service = children.start(lambda: self._accept(listener), self.root / "journal")
        listener.close()

    def _accept(self, listener: socket.socket) -> int:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        os.setgroups([])
        os.setresgid(SERVICE, SERVICE, SERVICE)
        os.setresuid(SERVICE, SERVICE, SERVICE)
        service.read_image_cache = functools.partial(read_image_cache, self.root / "etc")
        while True:
            connection, _address = listener.accept()
            if not os.fork():
                os.dup2(connection.fileno(), 0)
                connection.close()
                os._exit(service.main())
            connection.close()

    def start(
        self, image: Path, *, uid: int = ALICE, groups: Sequence[int] = (), job: int = 7, rank: int = 0, here: int = 1,
        run: Callable[[str], int] | None = None,
    ) -> int:
        """Start a launcher in a child that then does `run` with the disk; return its pid."""
        scratch = self.root / f"scratch{job}"
        scratch.mkdir(exist_ok=True, mode=0o700)
        os.chown(scratch, uid, uid)

        def place() -> int:
            os.setgroups(groups)
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            # PR_SET_DUMPABLE, which exec does for a real launcher: /proc/PID/fd is its own
            ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
            try:
                path, held = locate_image(str(image), PurePath(scratch), rank, here, self.settings, print)
            except PcoccError as error:
                print(render(error))
                return 1
            for fd in held:
                os.set_inheritable(fd, True)
            print(json.dumps({"path": path}), flush=True)
            return run(path) if run else 0

        return children.start(place, self.said_path(job, rank))

    def said_path(self, job: int, rank: int) -> Path:
        """Return the file with what a launcher said."""
        return self.root / f"said{job}.{rank}"

    def said(self, job: int = 7, rank: int = 0) -> str:
        """Return what a launcher said, except the path."""
        return "\n".join(line for line in self.said_path(job, rank).read_text().splitlines() if not line.startswith('{"path'))

    def launch(self, image: Path, **options: Any) -> Path:
        """Run a launcher to its end; return the path of its disk."""
        assert children.wait(self.start(image, **options)) == 0, self.said(options.get("job", 7), options.get("rank", 0))
        lines = self.said_path(options.get("job", 7), options.get("rank", 0)).read_text().splitlines()
        return Path(json.loads(next(line for line in lines if line.startswith('{"path')))["path"])

    def cached(self) -> set[str]:
        """Return the layers in the cache of all users."""
        return {path.name for path in self.cache.glob("data/*/*")}

    def private(self) -> set[str]:
        """Return the layers in the cache of those who may read their sources."""
        return {path.name.partition(".")[0] for path in self.cache.glob("private/data/*/*")}

    def own(self, job: int = 7) -> set[str]:
        """Return the layers in a job's own cache."""
        return {path.name for path in self.root.glob(f"scratch{job}/layers/data/*/*")}

    def stop(self) -> None:
        """End the service."""
        if self.service is not None:
            os.kill(self.service, signal.SIGKILL)
            children.wait(self.service)


def make_disk_file(path: Path, size: int) -> Path:
    """Put a file system in a file, in the part of the shared one; return where to mount it."""
    path.touch()
    os.truncate(path, size)
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    (mounted := path.with_name(f"{path.name}.mnt")).mkdir()
    mount(path, mounted)
    mounted.chmod(0o755)
    return mounted


def mount(path: Path, mounted: Path) -> None:
    """Mount it, with none of its content in memory."""
    subprocess.run(["umount", mounted], check=False, stderr=subprocess.DEVNULL)
    subprocess.run(["mount", "-o", "loop", path, mounted], check=True)


def count_reads(node: Node, disk: Path, mounted: Path, image: Path, job: int) -> int:
    """Return the bytes read from a file system's device while 16 VMs of a job start, and each reads its whole disk directly."""
    mount(disk, mounted)
    before = sectors_read(mounted)
    crew = [node.start(image, job=job, rank=rank, here=16, run=read_directly) for rank in range(16)]
    status = [children.wait(child) for child in crew]
    assert status == [0] * 16 and "".join(node.said(job, rank) for rank in range(16)) == "", status
    return 512 * (sectors_read(mounted) - before)


def sectors_read(mounted: Path) -> int:
    """Return the sectors of 512 bytes that were read from the device of a file system (Documentation/block/stat.rst)."""
    number = os.stat(mounted).st_dev
    return int(Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/stat").read_text().split()[2])


def hold(path: str) -> int:
    """Act as a QEMU that runs from a disk, until it is killed; exec keeps the locks."""
    os.execvp("sleep", ["sleep", "600"])


def read_directly(path: str) -> int:
    """Read a whole disk past the page cache, as QEMU does with disk-cache none."""
    words = ["qemu-img", "convert", "-T", "none", "-t", "unsafe", "-f", "qcow2", "-O", "raw", path, f"{path}.raw"]
    return subprocess.run(words, check=False).returncode


def store(node: Node) -> layer_store.Store:
    """Return the cache of all users."""
    return layer_store.public_store(node.settings.directory, node.settings.size)


def add(repo: Repo, name: str, seed: int = 0, **options: int) -> Found:
    """Import a disk."""
    disk = make_disk(Path(repo.path).parent / f"{name}.qcow2", seed=seed, **options)
    with writing.open_repo_work(repo) as work:
        shutil.copy(disk, work.path / "layer")
        return Found(repo, writing.add_revision(work, name, work.path / "layer", None))


def layers(*found: Found) -> set[str]:
    """Return the layers of images."""
    return {layer for one in found for layer in one.revision.layers}
