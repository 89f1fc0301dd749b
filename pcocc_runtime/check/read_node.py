"""What is seen of a node itself: devices, programs, namespaces, directories, the site's files."""

from __future__ import annotations

import ctypes
import grp
import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import sysconfig
import time
from pathlib import Path, PurePath

from pcocc_runtime import naming
from pcocc_runtime.cache import layer_store, protocol
from pcocc_runtime.check import seen
from pcocc_runtime.check.judge_node import FORBIDDING
from pcocc_runtime.documents.image_cache import ImageCache
from pcocc_runtime.documents.verdict import KVM_DEVICE, MAX_VERDICT, VERDICT_FILE, decode_verdict
from pcocc_runtime.errors import ConfigError, NodeError, one_line
from pcocc_runtime.qemu.version import parse_version
from pcocc_runtime.site.check import load_everything
from pcocc_runtime.system import drop, process, regular, run_as, trust

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"  # of root's helper (spank/helper.c)
_PROGRAMS = (  # name, package on Debian and on RHEL, and whether jobs fail without it
    ("ip", "iproute2", "iproute", True), ("bridge", "iproute2", "iproute", True),
    ("tc", "iproute2", "iproute-tc", False),
    ("nft", "nftables", "nftables", True),
    ("dnsmasq", "dnsmasq-base", "dnsmasq", True), ("ssh", "openssh-client", "openssh-clients", True),
    ("ssh-keygen", "openssh-client", "openssh", True), ("qemu-img", "qemu-utils", "qemu-img", True),
    ("ping", "iputils-ping", "iputils", False),
)  # fmt: skip
_SECONDS = 20.0  # for a program that does next to nothing


def read_configuration(confdir: str) -> seen.Configuration:
    """Return what is wrong in the site's directory, and a digest of all its YAML files."""
    problems: list[ConfigError] = []
    try:
        trust.ensure_root_only(confdir)
        problems += load_everything(confdir).problems
    except ConfigError as error:
        problems.append(error)
    digest = hashlib.sha256()
    for path in sorted(Path(confdir).rglob("*.yaml")):
        digest.update(f"{path.relative_to(confdir)}\0".encode() + path.read_bytes() + b"\0")
    return seen.Configuration(tuple((str(one), one.hint) for one in problems), digest.hexdigest()[:12])


def read_programs() -> seen.Programs:
    """Return which of the programs are there, in the path that root's helper has, and the library that srun opens."""
    every = [
        seen.Program(name, deb, rpm, shutil.which(name, path=PATH) is not None, needed)
        for name, deb, rpm, needed in _PROGRAMS
    ]
    library = str(sysconfig.get_config_var("INSTSONAME"))
    package = "libpython" + sysconfig.get_python_version()
    every.append(seen.Program(library, package, "python3-libs", _opens(library)))
    return seen.Programs(
        tuple(every),
        dnf=shutil.which("apt-get", path=PATH) is None and shutil.which("dnf", path=PATH) is not None,
    )


def _opens(library: str) -> bool:
    try:
        return bool(ctypes.CDLL(library, mode=os.RTLD_LAZY | os.RTLD_LOCAL))
    except OSError:
        return False


def read_device_file(path: str) -> seen.DeviceFile:
    """Return what is to be known of a character device."""
    try:
        status = os.stat(path)
    except OSError:
        return seen.DeviceFile(path, None)
    try:
        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        group = str(status.st_gid)
    if not stat.S_ISCHR(status.st_mode):
        return seen.DeviceFile(path, stat.S_IMODE(status.st_mode), group, "it is not a device")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError as error:
        return seen.DeviceFile(path, stat.S_IMODE(status.st_mode), group, error.strerror or "it cannot be opened")
    return seen.DeviceFile(path, stat.S_IMODE(status.st_mode), group)


def read_accelerator(setting: str, qemu: str) -> seen.Accelerator:
    """Return the node's accelerator, and what root's helper remembers of it."""
    try:
        version = parse_version(process.run([qemu, "--version"]))
    except NodeError:
        version = None
    kept = decode_verdict(regular.read_start(naming.STATE_DIR / VERDICT_FILE, MAX_VERDICT))
    return seen.Accelerator(setting, read_device_file(KVM_DEVICE), version, kept, int(time.time()))


def read_user_namespaces() -> seen.UserNamespaces:
    """Return whether nobody, an ordinary user here, can make a user namespace and mount in it."""
    nobody = pwd.getpwnam("nobody")
    argv = ["unshare", "--user", "--map-root-user", "--mount", "true"]
    try:
        done = run_as.run_as(
            drop.Rights(nobody.pw_uid, nobody.pw_gid), argv, {"PATH": PATH, "LANG": "C.UTF-8"},
            seconds=_SECONDS,
        )
        trouble = (
            ""
            if done.status == 0
            else one_line(done.stderr.decode(errors="replace")) or f"exit status {done.status}"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        trouble = one_line(str(error))
    values = {name: regular.read_start(PurePath("/proc/sys", *name.split(".")), 64) for name in FORBIDDING}
    return seen.UserNamespaces(
        trouble, {name: value.decode().strip() for name, value in values.items() if value is not None}
    )


def read_scratch(path: str) -> seen.Scratch:
    """Return what is to be known of the directory of VMs' disks."""
    try:
        status, space = os.stat(path), os.statvfs(path)
    except FileNotFoundError:
        return seen.Scratch(path, None, 0, "", False, 0, 0)
    return seen.Scratch(
        path=path, owner=status.st_uid, mode=stat.S_IMODE(status.st_mode),
        filesystem=process.run(
            ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", path], timeout=_SECONDS
        ).split("\n")[0],
        writable=os.access(path, os.W_OK), free=space.f_bavail * space.f_frsize,
        size=space.f_blocks * space.f_frsize,
    )


def read_cache(cache: ImageCache | None) -> seen.Cache:
    """Return what is to be known of the image cache."""
    if cache is None:
        return seen.Cache(None)
    connection = protocol.connect()
    if connection is not None:
        connection.close()
    return seen.Cache(
        cache.directory, layer_store.is_trusted(layer_store.public_store(cache.directory, cache.size)),
        connection is not None,
    )
