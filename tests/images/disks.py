"""Real disk images for tests, and what tests compare of a repository."""

import contextlib
import hashlib
import json
import os
import random
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pcocc_runtime.images import images, references, writing
from pcocc_runtime.images.images import Found
from pcocc_runtime.images.references import Reference, Repo
from pcocc_runtime.system import held

TEXT = b"".join(b"line %d\n" % number for number in range(1 << 19))[: 3 << 20]  # what can be compressed


class Ran(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


def qemu_img(*argv: object) -> str:
    """Run qemu-img and return what it said."""
    words = ["qemu-img", *map(str, argv)]
    return subprocess.run(words, check=True, capture_output=True, text=True, pass_fds=held.descriptors(*words)).stdout


def write_raw(path: Path, seed: int = 0, size: int = 1 << 20, used: int = 1 << 18) -> Path:
    """Write a raw disk of `size` bytes that begins with `used` bytes of noise."""
    path.write_bytes(random.Random(seed).randbytes(used) + bytes(size - used))
    return path


def make_disk(path: Path, form: str = "qcow2", seed: int = 0, **options: Any) -> Path:
    """Write a disk of this format with the content of `write_raw`."""
    raw = write_raw(path.with_name(path.name + ".raw"), seed, **options)
    qemu_img("convert", "-f", "raw", "-O", form, *(["-o", "force_size=on"] if form == "vpc" else []), raw, path)
    return path


def content(path: Path, form: str = "qcow2") -> str:
    """Return the sha256 of a disk's content, layers below included."""
    name = "json:" + json.dumps({"driver": form, "file": {"driver": "file", "filename": str(path)}})
    with tempfile.TemporaryDirectory() as directory:
        qemu_img("convert", "-O", "raw", name, f"{directory}/raw")
        return hashlib.sha256(Path(directory, "raw").read_bytes()).hexdigest()


@contextlib.contextmanager
def as_stdin(path: Path) -> Iterator[None]:
    """Make a file standard input."""
    saved = os.dup(0)
    try:
        with open(path, "rb") as stream:
            os.dup2(stream.fileno(), 0)
        yield
    finally:
        os.dup2(saved, 0)
        os.close(saved)


def raw_sum(seed: int = 0, size: int = 1 << 20, used: int = 1 << 18) -> str:
    """Return the sha256 of what `write_raw` writes."""
    return hashlib.sha256(random.Random(seed).randbytes(used) + bytes(size - used)).hexdigest()


def listing(repo: Repo) -> dict[str, bytes]:
    """Return what matters in a repository: every file in data/ and meta/ with its content."""
    root = Path(repo.path)
    return {
        str(path.relative_to(root)): path.read_bytes()
        for part in ("data", "meta")
        for path in (root / part).rglob("*")
        if path.is_file()
    }


def leftovers(repo: Repo) -> list[str]:
    """Return what is in .tmp."""
    return sorted(path.name for path in Path(repo.path, ".tmp").iterdir())


def find(text: str, *every: Repo) -> Found:
    """Return the revision that a reference means."""
    return images.find_image(references.parse_reference(text), every)


def save(repo: Repo, name: str, parent: Found, seed: int, new: bool = False) -> Found:
    """Do what a save does: write into an overlay of a VM's disk, and make it a revision."""
    with writing.open_repo_work(repo) as work:
        writing.pin(work, parent.revision.layers)
        layer = work.path / "saved"
        qemu_img("create", "-q", "-f", "qcow2", "-b", parent.path, "-F", "qcow2", layer)
        words = ["qemu-io", "-f", "qcow2", "-c", f"write -P {seed} {seed * 4096} 4096", str(layer)]
        subprocess.run(words, check=True, capture_output=True, pass_fds=held.descriptors(*words))
        return Found(repo, writing.add_revision(work, name, layer, parent, new=new))


def patched(*seeds: int, seed: int = 0, size: int = 1 << 20, used: int = 1 << 18) -> str:
    """Return the sha256 of `write_raw`'s content after these saves."""
    data = bytearray(random.Random(seed).randbytes(used) + bytes(size - used))
    for one in seeds:
        data[one * 4096 : one * 4096 + 4096] = bytes([one]) * 4096
    return hashlib.sha256(data).hexdigest()


def spoil(path: Path, at: int) -> None:
    """Change one byte of a file."""
    path.chmod(0o644)
    with open(path, "r+b") as stream:
        stream.seek(at)
        byte = stream.read(1)
        stream.seek(at)
        stream.write(bytes([byte[0] ^ 255]))


def disk(repo: Repo, name: str, revision: int | None = None) -> Path:
    """Return the path of an image's disk."""
    return images.find_image(Reference(name, None, revision), [repo]).path
