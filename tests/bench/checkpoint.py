"""How long a cluster stands still while it is stored, and how soon it goes on in another job, against the disk's own speed."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from pathlib import Path

from tests.bench.figures import Figure, median
from tests.boot.box import HOME, Box
from tests.boot.cluster import make_cluster
from tests.waiting import wait_for

_NOISE = 120  # MiB in each guest's memory that are no zeros, beside what its kernel has
_LAYER = 16  # MiB that each guest has written to its disk
_PIECE = 1 << 20
_MOST = 3  # seconds from a restart to the first command, beside reading


def measure(box: Box, rounds: int) -> list[Figure]:
    """Two VMs on two nodes: boot, store, and go on, each round with turns of reading and writing the same bytes by hand."""
    boots, stills, writes, restarts, reads = (list[float]() for _ in range(5))
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir=HOME) as name:
            place = Path(name, "stored")
            shutil.chown(name, "alice", "alice")
            begin = time.monotonic()
            with make_cluster(box, "--pcocc-template=tiny:2", "-N2") as cluster:
                boots.append(time.monotonic() - begin)
                cluster.vm(f"head -c {_NOISE << 20} /dev/urandom >/tmp/noise", vms="vm[0-1]", timeout=300)
                cluster.vm(f"head -c {_LAYER << 20} /dev/urandom | sudo tee /noise >/dev/null; sync", vms="vm[0-1]", timeout=300)
                said = box.out(["pcocc", "checkpoint", "-j", str(cluster.job), str(place)], timeout=600)
                stills.append(float(re.search(r"stood still for ([0-9.]+) s", said)[1]))  # type: ignore[index]
                files = [*place.glob("current/vm*.memory")]
                writes.append(_write(files, Path(name, "by-hand")))
            wait_for(lambda job=cluster.job: box.is_over(job), "the job's end", 120)
            stored = [one for one in place.glob("current/*") if one.is_file()]
            _forget(stored)
            reads.append(_read(stored))
            _forget(stored)
            begin = time.monotonic()
            with make_cluster(box, f"--pcocc-restart={place}", "-N2"):
                restarts.append(time.monotonic() - begin)
    pause, again = median(stills) / median(writes), median(restarts)
    runs = f"two VMs with {_NOISE} MiB of noise in memory, {rounds} runs"
    return [
        Figure(f"pause of a checkpoint, {runs}", f"ratio {pause:.2f} ({median(stills):.2f} s)",
               f"writing the memory's bytes once, until they are on disk: {median(writes):.2f} s", "1.2"),
        Figure("restart to the first command", f"{again:.1f} s, {again - median(reads):.1f} s beside reading",
               f"reading all stored files: {median(reads):.1f} s", f"{_MOST} s beside reading"),
        Figure("restart against a boot, to the first command", f"ratio {again / median(boots):.2f} ({again:.1f} s)",
               f"boot of the same VMs: {median(boots):.1f} s", "0.3"),
    ]  # fmt: skip


def _write(files: list[Path], target: Path) -> float:
    """Write what is in these files to a new one, without their holes; return the seconds until it is on disk."""
    size = sum(one.stat().st_blocks * 512 for one in files)
    noise = os.urandom(_PIECE)
    begin = time.monotonic()
    with target.open("wb", buffering=0) as stream:
        for _ in range(size // _PIECE):
            stream.write(noise)
        os.fsync(stream.fileno())
    return time.monotonic() - begin


def _forget(files: list[Path]) -> None:
    """Have the kernel forget these files, which are on disk: it would have them in memory."""
    for one in files:
        with one.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read(files: list[Path]) -> float:
    begin = time.monotonic()
    for one in files:
        with one.open("rb", buffering=0) as stream:
            while stream.read(_PIECE):
                pass
    return time.monotonic() - begin
