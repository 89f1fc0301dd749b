"""OCI image layouts and their layers."""

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

Members = list[tuple[str, bytes | str | None]]  # a file's content, the target of a link, None for a directory
PACKERS: dict[str, list[str]] = {"gzip": ["gzip", "-1"], "zstd": ["zstd", "-1q"], "": ["cat"]}


def pack(data: bytes, packing: str) -> bytes:
    """Compress data."""
    return subprocess.run(PACKERS[packing], input=data, capture_output=True, check=True).stdout


def layer(members: Members, packing: str = "gzip") -> bytes:
    """Return a layer: a tar archive, compressed."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if isinstance(data, bytes):
                info.size = len(data)
            else:
                info.type, info.linkname = (tarfile.DIRTYPE, "") if data is None else (tarfile.SYMTYPE, data)
            archive.addfile(info, io.BytesIO(data) if isinstance(data, bytes) else None)
    return pack(out.getvalue(), packing)


def build(layers: list[bytes], packing: str = "gzip") -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the blobs and the manifest of an image, its lowest layer first."""
    kind = "application/vnd.oci.image.layer.v1.tar" + (f"+{packing}" if packing else "")
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {
                "type": "layers",
                # of what is unpacked, by the book; nobody asks here,
                "diff_ids": ["sha256:" + hashlib.sha256(one).hexdigest() for one in layers]
            },
        }
    ).encode()
    blobs = {hashlib.sha256(data).hexdigest(): data for data in [config, *layers]}

    def descriptor(data: bytes, media: str) -> dict[str, Any]:
        return {"mediaType": media, "digest": "sha256:" + hashlib.sha256(data).hexdigest(), "size": len(data)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor(one, kind) for one in layers],
    }
    return blobs, manifest


def write_layout(directory: Path, layers: list[bytes], packing: str = "gzip", **index: Any) -> Path:
    """Write an OCI image layout, its lowest layer first; return its directory."""
    blobs, manifest = build(layers, packing)
    text = json.dumps(manifest).encode()
    blobs[hashlib.sha256(text).hexdigest()] = text
    (directory / "blobs/sha256").mkdir(parents=True)
    for digest, data in blobs.items():
        (directory / "blobs/sha256" / digest).write_bytes(data)
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    entry = {"mediaType": manifest["mediaType"], "digest": "sha256:" + hashlib.sha256(text).hexdigest(), "size": len(text)}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [{**entry, **index}]}))
    return directory
