"""The figures of images in SPECIFICATION.md, each against a baseline of the same run: part of `make bench`."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMAGES, TEMPLATES, SIZE, CACHED = 1000, 500, 2 << 30, 128 << 20
sys.path.insert(0, str(ROOT))

from pcocc_runtime.system import layerstore  # noqa: E402
from tests.images import cachenode  # noqa: E402


def seconds(*argv: object) -> float:
    """Return how long a command takes."""
    start = time.monotonic()
    subprocess.run([str(word) for word in argv], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - start


def pcocc(*argv: object) -> float:
    """Return how long a `pcocc` command takes, its interpreter included."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pcocc_runtime.cli import main; sys.exit(main())"
    return seconds(sys.executable, "-I", "-c", code, *argv)


def measure_lists(home: Path) -> None:
    """`image list` and `template show` with many images and templates."""
    root = home / ".pcocc/images"
    (root / "meta").mkdir(parents=True)
    (root / "data").mkdir()
    (root / ".config").write_text("version: 2\n")
    for number in range(IMAGES):
        layer = f"{number:064x}"
        meta = {"name": f"image{number}", "revision": 0, "kind": "vm", "owner": "alice", "timestamp": 1.7e9, "data_blobs": [layer],
                "custom_meta": {"disk": {"layer": layer, "size": 1 << 30}}}  # fmt: skip
        (root / f"meta/image{number}@0").write_text(json.dumps(meta))
    text = "".join(f"t{number}: {{image: image{number}, cpus: 2, memory: 1G}}\n" for number in range(TEMPLATES))
    (home / ".pcocc/templates.yaml").write_text(text)
    for words in (["image", "list"], ["template", "show", "t7"]):
        runs = [pcocc(*words) for _ in range(9)]
        print(f"pcocc {' '.join(words)}, {IMAGES} images, {TEMPLATES} templates: {statistics.median(runs):.2f} s (promise 0.3)")


def measure_import(home: Path) -> None:
    """Import of a raw file of 2 GiB against qemu-img convert with the same options and one read of its result for the sum."""
    source, plain = home / "big.raw", home / "big.qcow2"
    with open(source, "wb") as stream:
        for _ in range(SIZE >> 20):
            stream.write(os.urandom(1 << 20))
    ratios = []
    for number in range(5):
        convert = seconds("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-t", "writeback", source, plain)
        read = seconds(sys.executable, "-c", f"import hashlib; hashlib.file_digest(open({str(plain)!r}, 'rb'), 'sha256')")
        plain.unlink()
        mine = pcocc("image", "import", source, f"big{number}")
        pcocc("image", "delete", f"big{number}")
        ratios.append(mine / (convert + read))
    print(f"import of {SIZE >> 30} GiB raw: {statistics.median(ratios):.2f} of qemu-img convert and a sum (promise 1.1), {ratios}")


def measure_cache(home: Path) -> None:
    """A layer's copy to a node's cache against cp and a sum; bytes that 16 VMs of a node read of their image where it is."""
    root = home / "node"
    root.mkdir()
    layer = home / "layer"
    layer.write_bytes(os.urandom(CACHED))
    digest = hashlib.sha256(layer.read_bytes()).hexdigest()
    ratios = []
    for number in range(5):
        by_hand = seconds("sh", "-c", f"cp {layer} {home}/plain && sync {home}/plain && sha256sum {home}/plain")
        fd, begin = os.open(layer, os.O_RDONLY), time.monotonic()
        (root / str(number)).mkdir()
        layerstore.fill(layerstore.Store(str(root / str(number)), 1 << 40), digest, fd, lambda state, size: None)
        ratios.append((time.monotonic() - begin) / by_hand)
        os.close(fd)
        shutil.rmtree(root / str(number))
    print(f"a layer of {CACHED >> 20} MiB into the cache: {statistics.median(ratios):.2f} of cp, sync and sha256sum, {ratios}")
    node = cachenode.Node(root)
    mounted = cachenode.make_disk_file(home / "fs", 2 * CACHED)
    try:
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", layer, home / "disk"], check=True)
        digest = hashlib.sha256((home / "disk").read_bytes()).hexdigest()
        image = mounted / f"data/{digest[:2]}/{digest}"
        image.parent.mkdir(parents=True)
        shutil.copyfile(home / "disk", image)
        read = cachenode.count_reads(node, home / "fs", mounted, image, 7) / image.stat().st_size
        print(f"16 VMs read {read:.3f} of their image's bytes from its file system (promise 1, and the file system's own blocks)")
    finally:
        subprocess.run(["umount", "-l", mounted], check=True)


def main() -> None:
    """Measure in a home of its own on the disk of the temporary directory."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as home:
        os.environ.update(HOME=home, PCOCC_SYSTEM_CONF_DIR="/nonexistent", PCOCC_USER_CONF_DIR=f"{home}/.pcocc")
        measure_lists(Path(home))
        measure_import(Path(home))
        Path(home).chmod(0o755)
        measure_cache(Path(home))


if __name__ == "__main__":
    main()
