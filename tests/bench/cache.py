"""The node's cache of layers: its copy against cp and a sum, and what 16 VMs read of their image where it is."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

from pcocc_runtime.cache import layer_store
from tests.bench.figures import Figure, median
from tests.images import cachenode

SIZE = 128 << 20


def measure(home: Path, rounds: int) -> list[Figure]:
    """Measure both."""
    home.chmod(0o755)
    layer = home / "layer"
    layer.write_bytes(os.urandom(SIZE))
    return [measure_copy(home, layer, rounds), measure_reads(home, layer)]


def measure_copy(home: Path, layer: Path, rounds: int) -> Figure:
    """A layer's copy to a node's cache."""
    digest = hashlib.sha256(layer.read_bytes()).hexdigest()
    ours, theirs = [], []
    for number in range(rounds):
        begin = time.monotonic()
        command = f"cp {layer} {home}/plain && sync {home}/plain && sha256sum {home}/plain"
        subprocess.run(["sh", "-c", command], check=True, stdout=subprocess.DEVNULL)
        theirs.append(time.monotonic() - begin)
        root = home / f"cache{number}"
        root.mkdir()
        fd, begin = os.open(layer, os.O_RDONLY), time.monotonic()
        layer_store.fill(layer_store.Store(str(root), 1 << 40), digest, fd, lambda state, size: None)
        ours.append(time.monotonic() - begin)
        os.close(fd)
        shutil.rmtree(root)
    value = f"ratio {median(ours) / median(theirs):.2f} ({median(ours):.2f} s)"
    return Figure(f"a layer of {SIZE >> 20} MiB into a node's cache", value, f"cp, sync and sha256sum {median(theirs):.2f} s", "")


def measure_reads(home: Path, layer: Path) -> Figure:
    """The bytes that 16 VMs of a node read of their image from its file system, with the cache."""
    (home / "node").mkdir()
    node, mounted = cachenode.Node(home / "node"), cachenode.make_disk_file(home / "fs", 2 * SIZE)
    try:
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", layer, home / "disk"], check=True)
        digest = hashlib.sha256((home / "disk").read_bytes()).hexdigest()
        image = mounted / f"data/{digest[:2]}/{digest}"
        image.parent.mkdir(parents=True)
        shutil.copyfile(home / "disk", image)
        read = cachenode.count_reads(node, home / "fs", mounted, image, 7) / image.stat().st_size
    finally:
        subprocess.run(["umount", "-l", mounted], check=True)
    return Figure("16 VMs of one image on a node, with `image-cache`: read of it from its file system",
                  f"{read:.3f} of its bytes", "counted at the block device, with the file system's own blocks",
                  "at most once each")  # fmt: skip
