"""The disk, the kernel and the initial RAM disk that the machine starts from, made of its root directory."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.releaselib.suites import ROOT, RootError, say

from .place import HERE, NAME, USERS, MachineError, Place, digest_files, read_record

MEGABYTES = 6144  # most of it is a hole in a file
IMAGES = "srv/images"  # in the machine, for guests
FETCHED = "root/debian-12-genericcloud-amd64.qcow2"  # what the reader of docs/admin.md has fetched: here it is a smaller one
_MODULES = ("virtio_pci", "virtio_blk", "ext4")
# of a guest that starts from the node's kernel, since its own knows no igbvf: what tiny itself would load later, too
_GUEST_MODULES = (*_MODULES, "virtio_net", "virtio_console", "virtio-rng", "isofs", "button", "evdev", "igbvf", "nvme")
_INIT = """#!/bin/busybox sh
B=/bin/busybox
$B mount -t devtmpfs dev /dev
for module in {modules}; do $B insmod /modules/$module; done
$B mount -t ext4 -o rw,noatime {device} /root
[ -d /dev/pts ] || $B mkdir /dev/pts /dev/shm
$B mount -o move /dev /root/dev
exec $B switch_root /root {init}
"""


def ensure_disk(place: Place) -> bool:
    """Make the disk unless there is one of the same ingredients; return whether it was made."""
    tiny = ensure_guest()
    made_of = [HERE / name for name in ("files", "configure", "disk.py")]
    wanted = digest_files(made_of, place.root.record.read_text(), tiny.name, *USERS)
    if read_record(place.disk) == wanted:
        return False
    say("making the machine's disk, half a minute")
    new, tree = place.path / "disk.new", place.path / "tree"
    for path in (place.disk, new, tree):
        _remove(path)
    new.mkdir(mode=0o700)
    _run("cp", "-a", "--reflink=auto", place.root.root, tree)
    _configure(tree, new, tiny)
    version = next((tree / "lib/modules").iterdir()).name
    (new / "vmlinux").write_bytes(_unpack_kernel((tree / f"boot/vmlinuz-{version}").read_bytes()))
    _make_initrd(tree, version, new / "initrd", _MODULES, device="/dev/vda", init="/sbin/init")
    _make_initrd(tree, version, tree / IMAGES / "initrd-node", _GUEST_MODULES, device="/dev/vda1", init="/etc/init")
    shutil.copyfile(new / "vmlinux", tree / IMAGES / "vmlinux-node")
    for path in (tree / IMAGES).iterdir():
        path.chmod(0o644)
    with (new / "disk.ext4").open("xb") as stream:
        stream.truncate(MEGABYTES << 20)
    _run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-O", "^metadata_csum", "-m", "0", "-E",
         "root_owner=0:0,lazy_itable_init=1",
         "-d", tree, new / "disk.ext4")  # fmt: skip
    _remove(tree)
    (new / "made-of").write_text(wanted)
    new.rename(place.disk)
    return True


def ensure_guest() -> Path:
    """Return the image of the guest tiny, which the box keeps; it is made when there is none."""
    argv = [ROOT / "tests/box", "image", "tiny"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise RootError(f"there is no image of the guest tiny: {said[-1] if said else 'tests/box says nothing of it'}")
    image = Path(done.stdout.split()[-1])
    return image.parent.parent / "cache" / image.with_suffix(".from").read_text()


def _configure(tree: Path, new: Path, tiny: Path) -> None:
    """Turn a copy of the root into a node's, and keep the keys that open it."""
    _run("cp", "-a", "--no-preserve=ownership", f"{HERE}/files/.", tree)
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", NAME, "-f", new / "id_ed25519")
    shutil.copy(new / "id_ed25519.pub", tree / "key.pub")
    shutil.copy(HERE / "configure", tree / "configure")
    _run("chroot", tree, "/configure", *USERS)
    (tree / "configure").unlink()
    kind, key, *_comment = (tree / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()
    (new / "known_hosts").write_text(f"{NAME} {kind} {key}\n")
    images = tree / IMAGES
    images.mkdir(parents=True)
    shutil.copyfile(tiny, tree / FETCHED)
    _unpack_guest(tiny, images, new / "guest.raw")


def _unpack_guest(image: Path, target: Path, raw: Path) -> None:
    """Copy kernel and initial RAM disk out of a guest's image, the former unpacked; `raw` is for the disk meanwhile."""
    _run("qemu-img", "convert", "-O", "raw", image, raw)
    for name in ("vmlinuz", "initrd"):  # its only partition begins at 1 MiB
        _run("debugfs", "-R", f"dump /boot/{name} {target}/{name}", f"{raw}?offset=1048576")
    raw.unlink()
    (target / "vmlinux").write_bytes(_unpack_kernel((target / "vmlinuz").read_bytes()))
    (target / "vmlinuz").unlink()


def _unpack_kernel(image: bytes) -> bytes:
    """Return the kernel that a boot image holds: QEMU starts it as it is, and to unpack it takes an emulated CPU a minute."""
    for magic, program in ((b"\x02\x21\x4c\x18", "lz4"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd")):
        if (at := image.find(magic)) >= 0:
            # complains of what follows
            done = subprocess.run([program, "-qdc"], input=image[at:], capture_output=True, check=False)
            if done.stdout.startswith(b"\x7fELF"):
                return done.stdout
    raise MachineError("Debian's kernel is packed in a way that is not known here: see tests/machinelib/disk.py")


def _make_initrd(tree: Path, version: str, file: Path, modules: Sequence[str], device: str, init: str) -> None:
    """Pack modules, such as those that find the disk, and a busybox that loads them, mounts `device`, and becomes `init`."""
    base = tree / "initrd"
    for name in ("bin", "dev", "modules", "root"):
        (base / name).mkdir(parents=True)
    shutil.copy(tree / "bin/busybox", base / "bin/busybox")
    names = []
    for path in _find_modules(tree, version, modules):
        packed = path.read_bytes()
        data = (
            subprocess.run(["xz", "-dc"], input=packed, stdout=subprocess.PIPE, check=True).stdout
            if path.suffix == ".xz"
            else packed
        )
        names.append(path.name.removesuffix(".xz"))
        (base / "modules" / names[-1]).write_bytes(data)
    (base / "init").write_text(_INIT.format(modules=" ".join(names), device=device, init=init))
    (base / "init").chmod(0o755)
    with file.open("wb") as stream:
        subprocess.run(["sh", "-c", "find . | cpio --quiet -o -H newc"], cwd=base, stdout=stream, check=True)
    _remove(base)


def _find_modules(tree: Path, version: str, modules: Sequence[str]) -> list[Path]:
    """Return the files of the modules in the order in which they load."""
    found: dict[Path, None] = {}
    for module in modules:
        shown = _run("modprobe", "-d", tree, "-S", version, "--show-depends", module)
        found |= {Path(line.split()[1]): None for line in shown.splitlines() if line.startswith("insmod ")}
    return list(found)


def _remove(path: Path) -> None:
    if path.exists():
        _run("rm", "-rf", "--one-file-system", path)


def _run(*argv: str | Path) -> str:
    """Run a program and return what it said; MachineError with its last words when it fails."""
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        said: Sequence[str] = done.stdout.strip().splitlines()
        raise MachineError(f"{Path(argv[0]).name} failed: {said[-1] if said else 'it said nothing'} ({' '.join(map(str, argv))})")
    return done.stdout
