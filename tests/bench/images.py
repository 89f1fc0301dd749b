"""The figures of templates and images, each against a baseline of the same run: part of `make bench`; needs no box."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pcocc_runtime.images import qemu_img
from tests.bench import cache, figures
from tests.bench.figures import ROOT, Figure, median

IMAGES, TEMPLATES, SIZE = 1000, 500, 2 << 30
_CODE = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from pcocc_runtime.settings import directories; directories.site_dir = lambda environ, uid: environ["BENCH_SITE"]
from pcocc_runtime.cli.main import main; sys.exit(main())
"""


def seconds(*argv: object) -> float:
    """Return how long a command takes."""
    start = time.monotonic()
    subprocess.run([str(word) for word in argv], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - start


def spent(run: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds and the CPU seconds that something takes with the processes it starts."""
    os.sync()
    start, before = time.monotonic(), os.times()
    run()
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.monotonic() - start, cpu


def pcocc(*argv: object) -> float:
    """Return how long a `pcocc` command takes, its interpreter included."""
    return seconds(sys.executable, "-I", "-c", _CODE, *argv)


def measure_overlay(home: Path, rounds: int) -> list[Figure]:
    """The boot disk of a VM over an image of 100 GB, and over one of 1 GB, against qemu-img typed."""
    found = {}
    for name, size in (("100G", 100 << 30), ("1G", 1 << 30)):
        image = home / f"{name}.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, str(size)], check=True)
        ours, theirs = [], []
        for number in range(10 * rounds):
            start = time.monotonic()
            qemu_img.create_overlay(str(image), home / f"{name}-{number}.ours")
            ours.append(time.monotonic() - start)
            theirs.append(
                seconds(
                    "qemu-img", "create", "-q", "-f", "qcow2", "-b", image, "-F", "qcow2",
                    home / f"{name}-{number}.theirs",
                )
            )
        found[name] = median(ours), median(theirs)
    (ours100, theirs100), (ours1, _theirs1) = found["100G"], found["1G"]
    what = f"boot disk over an image of 100 GB, median of {10 * rounds}"
    value = f"ratio {ours100 / theirs100:.2f} ({1000 * ours100:.0f} ms; over 1 GB {1000 * ours1:.0f})"
    return [Figure(what, value, f"`qemu-img create -b` {1000 * theirs100:.0f} ms", "at most 1.2")]


def measure_lists(home: Path, rounds: int) -> list[Figure]:
    """Lists with many images and templates, on a site where images are templates too; the last is as pcocc 0.7 leaves it."""
    root = home / ".pcocc/images"
    for part in ("meta", "data", ".tmp"):
        (root / part).mkdir(parents=True)
    (root / ".config").write_text("version: 2\n")
    head = Path(home / "1G.qcow2").read_bytes()[: 1 << 16]
    for number in range(IMAGES):
        layer = f"{number:064x}"
        path = root / "data" / layer[:2] / layer
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(head)
        write_meta(root, number, layer, {"disk": {"layer": layer, "size": 1 << 30}})
    text = "".join(f"t{number}: {{image: image{number}, cpus: 2, memory: 1G}}\n" for number in range(TEMPLATES))
    (home / ".pcocc/templates.yaml").write_text(text)
    found = [measure_list(words, rounds) for words in ("template show t7", "template list", "image list", "image list --json")]
    for number in range(IMAGES):
        write_meta(root, number, f"{number:064x}", {})
    return [*found, measure_list("image list", rounds, " of a repository of pcocc 0.7's")]


def write_meta(root: Path, number: int, layer: str, custom: object) -> None:
    """Write the metadata of an image."""
    meta = {"name": f"image{number}", "revision": 0, "kind": "vm", "owner": "alice", "timestamp": 1.7e9, "data_blobs": [layer],
            "custom_meta": custom}  # fmt: skip
    (root / f"meta/image{number}@0").write_text(json.dumps(meta))


def measure_list(words: str, rounds: int, kind: str = "") -> Figure:
    """One of the lists against an interpreter that does nothing."""
    runs, bare = [], []
    for _ in range(3 * rounds):
        runs.append(pcocc(*words.split()))
        bare.append(seconds(sys.executable, "-I", "-c", "pass"))
    what = f"`pcocc {words}`{kind}, {TEMPLATES} templates, {IMAGES} images"
    return Figure(what, f"{median(runs):.2f} s", f"Python itself {median(bare):.2f} s", "at most 0.3 s")


def measure_import(home: Path, rounds: int) -> list[Figure]:
    """Import of a raw file of 2 GiB against qemu-img convert with the same options and one read of its result for the sum."""
    source, plain = home / "big.raw", home / "big.qcow2"
    with open(source, "wb") as stream:
        for _ in range(SIZE >> 20):
            stream.write(os.urandom(1 << 20))
    code = f"import hashlib; hashlib.file_digest(open({str(plain)!r}, 'rb'), 'sha256')"

    def by_hand() -> None:
        seconds("qemu-img", "convert", "-p", "-f", "raw", "-O", "qcow2", "-t", "writeback", source, plain)
        seconds(sys.executable, "-c", code)

    ours, theirs = [], []
    for number in range(rounds + rounds % 2):
        turns = [(ours, lambda: pcocc("image", "import", source, "big")), (theirs, by_hand)]
        for times, run in turns if number % 2 else turns[::-1]:  # the second finds the disk still busy
            times.append(spent(run))
        plain.unlink()
        pcocc("image", "delete", "big")
    wall, cpu = (sum(one[kind] for one in ours) / sum(one[kind] for one in theirs) for kind in (0, 1))
    each = sorted(one[0] / other[0] for one, other in zip(ours, theirs, strict=True))
    value = f"ratio {wall:.2f} of all together ({', '.join(f'{one:.2f}' for one in each)}), of CPU seconds {cpu:.2f}"
    baseline = "`qemu-img convert` with the same options, and `hashlib` over what it made"
    return [
        Figure(
            f"import of a raw file of {SIZE >> 30} GiB of noise, {len(each)} runs in turns", value, baseline,
            "at most 1.1",
        )
    ]


ALL: dict[str, Callable[[Path, int], list[Figure]]] = {
    "overlay": measure_overlay, "lists": measure_lists, "import": measure_import, "cache": cache.measure,
}  # fmt: skip


def main() -> None:
    """Measure in a home of its own on the disk of the temporary directory."""
    parser = argparse.ArgumentParser(description="Measure, and print a line for each figure.")
    parser.add_argument(
        "--rounds", type=int, default=5,
        help="how often each is repeated (lists three times, overlays ten times as often)",
    )
    parser.add_argument("--write", action="store_true", help="put the table into SPECIFICATION.md")
    arguments = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as name:
        home = Path(name)
        (home / "etc").mkdir()
        (home / "etc/resources.yaml").write_text("default: {default: true}\n")
        os.environ.update(HOME=name, BENCH_SITE=f"{home}/etc", PCOCC_USER_CONF_DIR=f"{home}/.pcocc")
        for measure in ALL.values():
            for one in measure(home, arguments.rounds):
                print(one.line, flush=True)
                found.append(one)
    if arguments.write:
        machine = f"on {os.cpu_count()} CPUs that other work shares, images on a local disk"
        figures.write(found, datetime.date.today().isoformat(), "images", "Templates and images", machine)


if __name__ == "__main__":
    main()
