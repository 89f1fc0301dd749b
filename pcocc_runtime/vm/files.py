"""The files a VM needs on its node: made, checked and locked with the user's rights before its QEMU exists."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from pcocc_runtime.documents.login import FORMER_KEY_FILE, NEW_KEYS_FILE
from pcocc_runtime.documents.members import MEMBERS_FILE
from pcocc_runtime.documents.reach import render_ports
from pcocc_runtime.errors import NodeError
from pcocc_runtime.guest import network_config, seed
from pcocc_runtime.images import qemu_img
from pcocc_runtime.qemu.arguments import SharedFs, Uefi
from pcocc_runtime.qemu.disks import Disk
from pcocc_runtime.system import accounts, files
from pcocc_runtime.vm import iso
from pcocc_runtime.vm.plan import VmFiles

if TYPE_CHECKING:
    from pcocc_runtime.documents.boot import Keys
    from pcocc_runtime.documents.cluster import Cluster, Drive, Group, Mount
    from pcocc_runtime.documents.node import NodeFacts
    from pcocc_runtime.vm.restart import Restart


def make_files(
    job: int, rank: int, node: NodeFacts, cluster: Cluster, keys: Keys, directory: PurePath,
    tell: Callable[[str], None], restart: Restart | None = None,
) -> VmFiles:
    """Make all files of a VM, or take those of its checkpoint, and `tell` notes for the user.

    RequestError or NodeError when one is impossible.
    """
    group = cluster.group_of(rank)
    check_readable(group)
    locked = [_lock(drive, job) for drive in group.persistent]
    try:
        made = _make_own(job, rank, node, cluster, keys, directory, tell, restart)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = error.filename or f"{node.scratch} or {directory}"
        raise NodeError(
            f"the file system of {where} is full", "free space there, or use other nodes"
        ) from None
    return replace(
        made,
        disks=made.disks + tuple(disk for disk, _fd in locked),
        locks=(*made.locks, *(fd for _disk, fd in locked if fd is not None)),
    )


def _make_own(
    job: int, rank: int, node: NodeFacts, cluster: Cluster, keys: Keys, directory: PurePath,
    tell: Callable[[str], None], restart: Restart | None,
) -> VmFiles:
    """Make the files that belong to this VM alone."""
    group, scratch = cluster.group_of(rank), PurePath(node.scratch)
    image, held = _place_image(group.image, node, scratch, rank, tell)
    if held:
        os.utime(directory.parent / MEMBERS_FILE)  # steps read from its age how long a VM may still be silent
    written = _write_seed(job, rank, node, cluster, keys, directory)
    if restart is not None:
        return _take_stored(restart, group, image, scratch, written, held)
    boot = qemu_img.create_overlay(image, scratch / f"vm{rank}.qcow2")
    return VmFiles(
        disks=() if boot is None else (Disk(boot, cache=group.disk_cache),),
        seed=written,
        firmware=_copy_firmware(group, scratch / f"vm{rank}.vars.fd") if group.firmware == "uefi" else None,
        locks=held,
    )


def _take_stored(
    restart: Restart, group: Group, image: str | None, scratch: PurePath, written: str, held: tuple[int, ...]
) -> VmFiles:
    """Make the files of a VM that goes on from its checkpoint; its seed is a new one, with the keys of this job."""
    from pcocc_runtime.vm import restart as stored

    rank = restart.record.rank
    stored.ensure_drives(restart)
    boot = stored.take_disk(restart, image, scratch / f"vm{rank}.qcow2")
    firmware = None
    if group.firmware == "uefi":
        firmware = _copy_firmware(group, scratch / f"vm{rank}.vars.fd")
        stored.take_variables(restart, PurePath(firmware.variables))
    return VmFiles(
        disks=() if boot is None else (Disk(boot, cache=group.disk_cache),),
        seed=written,
        firmware=firmware,
        locks=held,
    )


def leave_new_keys(
    job: int, rank: int, node: NodeFacts, directory: PurePath, keys: Keys, former: Keys, user: str
) -> None:
    """Write what the keeper of a VM that goes on needs to have its guest take the keys and ports of this job."""
    from pcocc_runtime.guest.new_keys import render_new_keys

    ports = render_ports(node.forwards, rank, node.name)
    text = render_new_keys(former, keys, user, f"{job} {ports}" if ports else "")
    files.replace_file(directory / FORMER_KEY_FILE, former.user.encode())
    files.replace_file(directory / NEW_KEYS_FILE, text.encode())


def _place_image(
    image: str | None, node: NodeFacts, scratch: PurePath, rank: int, tell: Callable[[str], None]
) -> tuple[str | None, tuple[int, ...]]:
    if image is None or node.cache is None:
        return image, ()
    from pcocc_runtime.cache.place import locate_image

    return locate_image(image, scratch, rank, len(node.here.ranks), node.cache, tell)


def check_readable(group: Group) -> None:
    """Check again what was checked at submission: directories to export, kernels."""
    if group.mounts or group.kernel:
        from pcocc_runtime.system import user_files

        for mount in group.mounts:
            user_files.ensure_directory_readable(mount.path, f"mount {mount.tag!r}: directory")
        for what, path in (("kernel", group.kernel), ("initrd", group.initrd)):
            if path:
                user_files.read_user_start(path, 1, what)


def virtiofs_log(node: NodeFacts, rank: int, tag: str) -> str:
    """Return the log of the virtiofsd that serves a VM one directory."""
    return f"{node.scratch}/vm{rank}.virtiofs-{tag}.log"


def start_filesystems(
    mounts: tuple[Mount, ...], directory: PurePath, log_of: Callable[[str], str]
) -> tuple[SharedFs, ...]:
    """Start a virtiofsd for each mount of that type, logging to `log_of(tag)`; each ends with its connection."""
    wanted = [mount for mount in mounts if mount.type == "virtiofs"]
    if not wanted:
        return ()
    from pcocc_runtime.vm import virtiofs

    program, sockets = virtiofs.find_program(), f"{directory}/virtiofs"
    return tuple(
        SharedFs(
            tag, virtiofs.start_server(program, mount.path, mount.readonly, f"{sockets}-{tag}", log_of(tag))
        )
        for mount in wanted
        for tag in (mount.tag,)
    )


def _lock(drive: Drive, job: int) -> tuple[Disk, int | None]:
    from pcocc_runtime.system import drive_locks

    fd = drive_locks.lock_drive(drive.path, drive.mmp, job)
    return (
        Disk(drive.path, drive.format, drive.cache, drive.mmp != "yes", drive.mmp != "no", persistent=True),
        fd,
    )


def _copy_firmware(group: Group, path: PurePath) -> Uefi:
    from pcocc_runtime.qemu import descriptors, firmware
    from pcocc_runtime.system import qemu_descriptors

    known = map(descriptors.parse_uefi, qemu_descriptors.read_descriptors("firmware"))
    found = firmware.choose_uefi(filter(None, known), group.machine)
    if found is None:
        raise NodeError(
            f"template {group.template!r} needs UEFI, and this node has no UEFI firmware for machine"
            f" {group.machine}", "install the package ovmf (edk2-ovmf) on the node",
        )
    with open(found.variables, "rb") as stream:
        files.replace_file(path, stream.read())
    return Uefi(found.code, str(path))


def _write_seed(
    job: int, rank: int, node: NodeFacts, cluster: Cluster, keys: Keys, directory: PurePath
) -> str:
    user = accounts.read_account(os.getuid())
    group = cluster.group_of(rank)
    first = f"pcocc-{cluster.first_job}-vm{rank}" if cluster.first_job is not None else None
    interfaces = (*network_config.plan_interfaces(node, rank), *network_config.plan_function_interfaces(node, rank))
    content = seed.render_seed(
        job=job,
        rank=rank,
        vms=cluster.vm_count,
        domain=next((one.search[0] for one in interfaces if one.search), "vcluster"),
        login=seed.JobUser(user.pw_name, user.pw_uid, user.pw_gid, user.pw_dir, user.pw_gecos),
        keys=keys,
        user_data=group.user_data,
        instance_id=group.instance_id or first,
        command_user=group.command_user,
        mounts=group.mounts,
        interfaces=interfaces,
        ports=render_ports(node.forwards, rank, node.name),
    )
    path = directory / "seed.iso"
    iso.write_iso(path, seed.VOLUME_LABEL, content)
    return str(path)
