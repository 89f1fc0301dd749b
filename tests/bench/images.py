"""The figures of images in SPECIFICATION.md, each against a baseline of the same run: part of `make bench`."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMAGES, TEMPLATES, SIZE = 1000, 500, 2 << 30


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


def main() -> None:
    """Measure in a home of its own on the disk of the temporary directory."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as home:
        os.environ.update(HOME=home, PCOCC_SYSTEM_CONF_DIR="/nonexistent", PCOCC_USER_CONF_DIR=f"{home}/.pcocc")
        measure_lists(Path(home))
        measure_import(Path(home))


if __name__ == "__main__":
    main()
