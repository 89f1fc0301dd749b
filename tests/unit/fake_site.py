"""A site's configuration in a temporary directory, for tests."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

from pcocc_runtime.documents import wire_steps
from pcocc_runtime.documents.cluster import Cluster, decode_cluster

Ask = Callable[..., tuple[int, str]]

FILES = {
    "pcocc.yaml": "max-vms: 64\n",
    "networks.yaml": "lan: {type: ethernet}\nib:\n  type: host-infiniband\n  settings: {host-device: m}\n",
    "resources.yaml": "default: {networks: [lan], default: true}\nfast: {networks: [lan, ib]}\nbare: {}\n",
    "templates.yaml": "tiny: {image: IMAGE, memory: 256M}\nbig: {inherits: tiny, cpus: 4, memory: 2G, resource-set: bare}\n"
    "fast: {inherits: tiny, resource-set: fast}\nempty: {}\n",
}


def write_image(path: Path, size: int = 1 << 30) -> Path:
    """Write the first bytes of a qcow2 image."""
    head = struct.pack(">4sIQIIQIIQQIIQQ", b"QFI\xfb", 3, 0, 0, 16, size, 0, 1, 0x30000, 0x10000, 1, 0, 0, 0)
    path.write_bytes(head.ljust(4096, b"\0"))
    return path


def write_images(root: Path, *names: str) -> None:
    """Write an image repository that has images of these names, each of a layer that is missing."""
    for part in ("data", "meta"):
        (root / part).mkdir(parents=True)
    (root / ".config").write_text("version: 2\n")
    for name in names:
        meta = {"name": name, "revision": 0, "kind": "vm", "owner": "alice", "timestamp": 1.0, "data_blobs": ["0" * 64]}
        (root / f"meta/{name}@0").write_text(json.dumps(meta))


def write_site(directory: Path, **changed: str) -> Path:
    """Write a site's files; a keyword such as templates= replaces a file's text, and IMAGE is an image that exists."""
    directory.mkdir(parents=True, exist_ok=True)
    image = write_image(directory.parent / "tiny.qcow2")
    for name, text in {**FILES, **{f"{key}.yaml": value for key, value in changed.items()}}.items():
        (directory / name).write_text(text.replace("IMAGE", str(image)))
    return directory


def user_template(directory: Path, text: str) -> None:
    """Write the templates of the user whom `ask` submits as."""
    (directory / "home/.pcocc/templates.yaml").write_text(text)


def frozen(answer: tuple[int, str]) -> Cluster:
    """Return the cluster of an answer, which must not be a refusal."""
    assert answer[0] == wire_steps.CHECK_PASSED, answer[1]
    return decode_cluster(dict(line.split(" ", 1) for line in answer[1].splitlines())["cluster"])


def refused(answer: tuple[int, str]) -> str:
    """Return the sentence of an answer, which must be a refusal of one sentence and at most one hint."""
    code, text = answer
    assert code == wire_steps.CHECK_REFUSED, text
    assert text.startswith("pcocc: error: ") and text.count("\n") <= 1
    return text


def noted(answer: tuple[int, str]) -> str:
    """Return the notes, one a line, of an answer, which must not be a refusal."""
    assert answer[0] == wire_steps.CHECK_PASSED, answer[1]
    return "\n".join(line.removeprefix("note ") for line in answer[1].splitlines() if line.startswith("note "))
