"""OCI images by the book: layers upon each other, indexes of several platforms, tags, archives, and artifacts that are disks."""

import hashlib
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pcocc_runtime.images import containers
from pcocc_runtime.images.references import Repo
from tests.images.disks import Ran, content, disk, leftovers, listing, make_disk, raw_sum, write_raw
from tests.images.layouts import Members, build, layer, pack, write_layout
from tests.images.odd_disks import tar_of

Pcocc = Callable[..., Ran]
MANIFEST, INDEX = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
REF = "org.opencontainers.image.ref.name"


@pytest.fixture
def disks(tmp_path: Path) -> list[bytes]:
    """Two raw disks, of which the first is known by raw_sum(0)."""
    return [write_raw(tmp_path / f"disk{seed}", seed).read_bytes() for seed in range(2)]


LOW, HIGH = 1, 0  # which disk


@pytest.mark.parametrize(
    "layers",
    [
        [[("disk/old", LOW)], [("disk/.wh.old", b""), ("disk/new", HIGH)]],
        [[("disk/old", LOW)], [("disk/.wh..wh..opq", b""), ("disk/new", HIGH)]],
        [[("disk/old", LOW)], [("disk/new", HIGH), ("disk/.wh..wh..opq", b"")]],
        [[("disk/old", LOW)], [(".wh.disk", b"")], [("disk/new", HIGH)]],
        [[("disk/old", LOW)], [("disk", "elsewhere")], [("disk", None), ("disk/new", HIGH)]],
        [[("disk/old", LOW), ("disk/new", HIGH)], [("./disk/.wh.old", b"")]],
        [[("disk/a", LOW)], [("disk/a", HIGH)]],
        [[("disk/a", LOW)], [("disk/.wh.a", b"")], [("disk/a", HIGH)]],
        [[("disk/a", LOW), ("disk/a", HIGH)]],
        [[("disk/a", "/etc/passwd")], [("disk/.wh.a", b""), ("disk/b", HIGH)]],
        [[("disk/old", LOW)], [("disk/old", None), ("disk/new", HIGH)]],
        [[("disk/sub/other", LOW), ("etc/.wh.x", b""), ("disk/new", HIGH)], [("etc/.wh..wh..opq", b"")]],
    ],
)
def test_layers_are_one_file_system(
    pcocc: Pcocc, repo: Repo, tmp_path: Path, disks: list[bytes], layers: list[list[tuple[str, Any]]]
) -> None:
    made: list[Members] = [[(name, disks[what] if isinstance(what, int) else what) for name, what in one] for one in layers]
    write_layout(tmp_path / "oci", [layer(one) for one in made])
    pcocc("image", "import", "oci:oci", "a")
    assert content(disk(repo, "a")) == raw_sum() and leftovers(repo) == []


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([["disk/a"], ["disk/b"]], "has more than one file in /disk: disk/a, disk/b"),
        ([["disk/a"], ["disk/.wh.a"]], "has no file in /disk"),
        ([["disk/a"], ["disk/.wh..wh..opq"]], "has no file in /disk"),
        ([["disk/a"], [".wh.disk"]], "has no file in /disk"),
        ([["disk/a", "disk/c"], ["disk/b", "disk/.wh.c"]], "has more than one file in /disk: disk/a, disk/b"),
    ],
)
def test_what_layers_leave_is_counted_in_the_end(
    pcocc: Pcocc, repo: Repo, tmp_path: Path, layers: list[list[str]], said: str
) -> None:
    write_layout(tmp_path / "oci", [layer([(name, name.encode().ljust(512)) for name in one]) for one in layers])
    assert said in pcocc("image", "import", "oci:oci", "a", ok=False).err
    assert listing(repo) == {} and leftovers(repo) == []


def write_index(directory: Path, entries: list[dict[str, Any]], blobs: dict[str, bytes]) -> None:
    """Write a layout of these descriptors; `data` of each is its manifest, or its index."""
    (directory / "blobs/sha256").mkdir(parents=True)
    listed = [describe(entry, blobs) for entry in entries]
    for digest, data in blobs.items():
        (directory / "blobs/sha256" / digest).write_bytes(data)
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": listed}))


def describe(entry: dict[str, Any], blobs: dict[str, bytes]) -> dict[str, Any]:
    tree = dict(entry.pop("data"))
    if "manifests" in tree:
        tree["manifests"] = [describe(dict(one), blobs) for one in tree["manifests"]]
    text = json.dumps(tree).encode()
    digest = hashlib.sha256(text).hexdigest()
    blobs[digest] = text
    return {"mediaType": tree.get("mediaType", MANIFEST), "digest": f"sha256:{digest}", "size": len(text), **entry}


def manifests(disks: list[bytes]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, bytes]]:
    """Return the manifest of the right image, of a wrong one, of an attestation, and all blobs."""
    blobs, found = {}, []
    for one in disks:
        more, manifest = build([layer([("disk/a", one)])])
        blobs.update(more)
        found.append(manifest)
    statement = b'{"_type": "https://in-toto.io/Statement/v0.1"}'
    blobs[hashlib.sha256(statement).hexdigest()] = statement
    in_toto = {
        "mediaType": "application/vnd.in-toto+json", "digest": f"sha256:{hashlib.sha256(statement).hexdigest()}",
        "size": len(statement),
    }
    return found[0], found[1], {**found[0], "layers": [in_toto]}, blobs


UNKNOWN = {"architecture": "unknown", "os": "unknown"}
ATTESTED = {"platform": UNKNOWN, "annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
AMD, ARM = {"architecture": "amd64", "os": "linux"}, {"architecture": "arm64", "os": "linux"}


def indexes(right: dict[str, Any], wrong: dict[str, Any], proof: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return lists of descriptors in which the right one is to be found."""
    many = {
        "mediaType": INDEX,
        "manifests": [{"data": wrong, "platform": ARM}, {"data": proof, **ATTESTED}, {"data": right, "platform": AMD}],
    }
    bundle = "application/vnd.dev.sigstore.bundle.v0.3+json"
    signature = {**proof, "artifactType": bundle, "config": {"mediaType": "application/vnd.oci.empty.v1+json"},
                 "subject": {"mediaType": MANIFEST, "digest": f"sha256:{'1' * 64}", "size": 3}}  # fmt: skip
    return {
        "a signature about another first": [{"data": signature, "artifactType": bundle}, {"data": right}],
        "a signature about another first, beside a tag": [{"data": signature}, {"data": right, "annotations": {REF: "v1"}}],
        "a signature in an inner index": [
            {"data": {"mediaType": INDEX, "manifests": [{"data": signature}, {"data": right, "platform": AMD}]}}
        ],
        "an image that names its base": [{"data": {**right, "subject": signature["subject"]}}],
        "a machine as uname calls it": [{"data": right, "platform": {"architecture": "x86_64", "os": "linux"}}],
        "an attestation first": [{"data": proof, **ATTESTED}, {"data": right, "platform": AMD}],
        "an attestation without its platform": [{"data": proof, "annotations": ATTESTED["annotations"]}, {"data": right}],
        "an unknown platform first": [{"data": wrong, "platform": UNKNOWN}, {"data": right, "platform": AMD}],
        "an unknown platform alone": [{"data": right, "platform": UNKNOWN}],
        "the first of two that fit": [{"data": right, "platform": AMD}, {"data": wrong, "platform": AMD}],
        "of another machine first": [{"data": wrong, "platform": ARM}, {"data": right, "platform": AMD}],
        "of another system first": [{"data": wrong, "platform": {**AMD, "os": "windows"}}, {"data": right, "platform": AMD}],
        "an index in the index": [{"data": many}],
        "an index that does not say so": [{"data": many, "mediaType": ""}],
        "an index that leads to none first": [{"data": {**many, "manifests": many["manifests"][:2]}}, {"data": right}],
        "something else first": [{"data": wrong, "mediaType": "application/vnd.example.thing"}, {"data": right}],
        "a signature beside": [{"data": right, "annotations": {REF: "v1"}},
                               {"data": proof, "annotations": {REF: f"sha256-{'0' * 64}.sig"}}],
        "one without a tag": [{"data": right, "annotations": {REF: "v1"}}, {"data": wrong}],
        "one tag for two platforms": [
            {"data": wrong, "platform": ARM, "annotations": {REF: "v1"}},
            {"data": right, "platform": AMD, "annotations": {REF: "v1"}},
        ],
    }  # fmt: skip


@pytest.mark.parametrize("case", sorted(indexes({}, {}, {})))
def test_an_index_is_resolved_as_the_specification_says(
    pcocc: Pcocc, repo: Repo, tmp_path: Path, disks: list[bytes], case: str
) -> None:
    right, wrong, proof, blobs = manifests(disks)
    write_index(tmp_path / "oci", indexes(right, wrong, proof)[case], blobs)
    pcocc("image", "import", "oci:oci", "a")
    assert content(disk(repo, "a")) == raw_sum()


def test_what_fits_nowhere_says_what_there_is(pcocc: Pcocc, tmp_path: Path, disks: list[bytes]) -> None:
    right, _wrong, proof, blobs = manifests(disks)
    write_index(tmp_path / "oci", [{"data": right, "platform": ARM}, {"data": proof, **ATTESTED}], blobs)
    said = pcocc("image", "import", "oci:oci", "a", ok=False).err
    assert "index.json has no image for x86_64\nhint: it has linux/arm64" in said


TAGS = ["v1", "docker.io/library/vm:12", "quay.io:5000/a/b:1", "quay.io/a/b@sha256:00", "a/b"]


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("folder", ["oci", "o:c", "with:many:colons"])
def test_a_tag_may_have_colons_and_slashes(
    pcocc: Pcocc, repo: Repo, tmp_path: Path, disks: list[bytes], tag: str, folder: str
) -> None:
    right, wrong, _proof, blobs = manifests(disks)
    write_index(
        tmp_path / folder, [{"data": wrong, "annotations": {REF: "other"}}, {"data": right, "annotations": {REF: tag}}],
        blobs,
    )
    pcocc("image", "import", f"oci:{folder}:{tag}", "a")
    pcocc("image", "import", f"oci:{tmp_path}/{folder}:{tag}", "b")
    assert content(disk(repo, "a")) == content(disk(repo, "b")) == raw_sum()
    assert "has no image 'v9'" in pcocc("image", "import", f"oci:{folder}:v9", "c", ok=False).err
    assert "index.json has 2 images\nhint: name one of them" in pcocc("image", "import", f"oci:{folder}", "c", ok=False).err


def test_a_tag_is_known_by_its_end_and_by_the_name_of_containerd(
    pcocc: Pcocc, repo: Repo, tmp_path: Path, disks: list[bytes]
) -> None:
    right, wrong, _proof, blobs = manifests(disks)
    named = {REF: "12", "io.containerd.image.name": "docker.io/library/vm:12"}
    write_index(
        tmp_path / "oci",
        [{"data": wrong, "annotations": {REF: "quay.io/x:11"}}, {"data": right, "annotations": named}], blobs,
    )
    pcocc("image", "import", "oci:oci:docker.io/library/vm:12", "a")
    assert content(disk(repo, "a")) == raw_sum()
    pcocc("image", "import", "oci:oci:11", "b")
    assert content(disk(repo, "b")) == raw_sum(1)


def test_a_place_is_split_where_something_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "a:b"):
        Path(name).mkdir()
    split = {
        "a": ("a", None), "a:b": ("a:b", None), "a:b:c/d:e": ("a:b", "c/d:e"), "a:x:y": ("a", "x:y"),
        "no:x/y:z": ("no", "x/y:z"), "no": ("no", None),
    }  # fmt: skip
    assert {text: containers.split_place(text) for text in split} == {
        text: (Path(path), tag) for text, (path, tag) in split.items()
    }


@pytest.mark.parametrize("how", ["tar", "gz", "skopeo"])
def test_an_archive_of_a_layout_is_imported(pcocc: Pcocc, repo: Repo, tmp_path: Path, disks: list[bytes], how: str) -> None:
    directory = write_layout(tmp_path / "oci", [layer([("disk/a", disks[0])])], annotations={REF: "v1"})
    archive = tmp_path / "a.tar"
    if how == "skopeo":
        subprocess.run(["skopeo", "copy", "-q", f"oci:{directory}:v1", f"oci-archive:{archive}:v1"], check=True)
    else:
        subprocess.run(["tar", "-C", directory, *(["-z"] if how == "gz" else []), "-cf", archive, "."], check=True)
    for number, source in enumerate((f"oci-archive:{archive}", "oci-archive:a.tar:v1", "oci:a.tar:v1")):
        pcocc("image", "import", source, f"a{number}")
        assert content(disk(repo, f"a{number}")) == raw_sum() and leftovers(repo) == []
    assert "has no image 'v2'" in pcocc("image", "import", "oci-archive:a.tar:v2", "b", ok=False).err


def test_an_archive_leads_nowhere_else(pcocc: Pcocc, repo: Repo, tmp_path: Path) -> None:
    for number, files in enumerate(
        ({"../../x": b"", "index.json": b"{}"}, {"blobs/sha256/../../../x": b""}, {"manifest.json": b"[]"})
    ):
        tar_of(tmp_path / f"{number}.tar", files)
        pcocc("image", "import", f"oci-archive:{number}.tar", "a", ok=False)
    assert (
        "a tar archive of 'docker save', not one of an OCI image layout" in pcocc(
            "image", "import", "oci-archive:2.tar", "a", ok=False
        ).err
    )
    (tmp_path / "text").write_text("no archive" * 200)
    assert "is not a tar archive of an OCI image layout" in pcocc("image", "import", "oci-archive:text", "a", ok=False).err
    assert "nowhere cannot be read" in pcocc("image", "import", "oci-archive:nowhere", "a", ok=False).err
    assert leftovers(repo) == [] and not list(tmp_path.rglob("x"))


def artifact(
    directory: Path, files: dict[str, bytes], kind: str = "application/vnd.oci.image.layer.v1.tar", **manifest: Any
) -> None:
    """Write a layout of an artifact as oras push makes it."""
    blobs = {hashlib.sha256(data).hexdigest(): data for data in [b"{}", *files.values()]}

    def entry(data: bytes, media: str, **more: Any) -> dict[str, Any]:
        return {"mediaType": media, "digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data), **more}

    layers = [entry(data, kind, annotations={"org.opencontainers.image.title": name}) for name, data in files.items()]
    config = entry(b"{}", "application/vnd.oci.empty.v1+json")
    tree = {
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.unknown.artifact.v1",
        "config": config, "layers": layers,
    }
    write_index(directory, [{"data": {**tree, **manifest}}], blobs)


@pytest.mark.parametrize("form", ["raw", "qcow2", "vmdk"])
@pytest.mark.parametrize("kind", ["application/vnd.oci.image.layer.v1.tar", "application/x-qemu-disk"])
def test_an_artifact_that_is_a_disk_is_imported(pcocc: Pcocc, repo: Repo, tmp_path: Path, form: str, kind: str) -> None:
    data = make_disk(tmp_path / "d", form).read_bytes()
    artifact(tmp_path / "one", {f"d.{form}": data}, kind)
    artifact(tmp_path / "many", {"README.md": b"text", f"d.{form}": data, "sums": b"x"}, kind)
    for name in ("one", "many"):
        pcocc("image", "import", f"oci:{name}", name)
        assert content(disk(repo, name)) == raw_sum()


def test_a_disk_is_known_in_an_image_too(pcocc: Pcocc, repo: Repo, tmp_path: Path) -> None:
    data = make_disk(tmp_path / "d").read_bytes()
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "sha256:" + "0" * 64, "size": 2}
    artifact(tmp_path / "oci", {"d": data}, config=config)
    pcocc("image", "import", "oci:oci", "a")
    assert content(disk(repo, "a")) == raw_sum()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.raw": b"x" * 512, "b.qcow2": b"y" * 512}, "has 2 files, and it is not clear which is the disk: a.raw, b.qcow2"),
        ({"a.txt": b"x" * 512, "b.txt": b"y" * 512}, "has 2 files, and it is not clear which is the disk: a.txt, b.txt"),
        ({"d.qcow2.gz": pack(b"x" * 512, "gzip")}, "the file is compressed with gzip"),
    ],
)
def test_an_artifact_whose_disk_is_not_clear_is_refused(
    pcocc: Pcocc, repo: Repo, tmp_path: Path, files: dict[str, bytes], said: str
) -> None:
    artifact(tmp_path / "oci", files)
    assert said in pcocc("image", "import", "oci:oci", "a", ok=False).err
    assert listing(repo) == {} and leftovers(repo) == []


def test_a_damaged_artifact_is_told(pcocc: Pcocc, tmp_path: Path) -> None:
    data = make_disk(tmp_path / "d").read_bytes()
    artifact(tmp_path / "oci", {"d.qcow2": data})
    path = tmp_path / "oci/blobs/sha256" / hashlib.sha256(data).hexdigest()
    path.write_bytes(data[:-1] + b"!")
    assert "its length or its checksum is wrong" in pcocc("image", "import", "oci:oci", "a", ok=False).err


def test_what_docker_saves_is_read_by_skopeo(pcocc: Pcocc, repo: Repo, tmp_path: Path, disks: list[bytes]) -> None:
    directory = write_layout(tmp_path / "oci", [layer([("disk/a", disks[0])], "")], "", annotations={REF: "v1"})
    subprocess.run(["skopeo", "copy", "-q", f"oci:{directory}:v1", "docker-archive:saved.tar:vm:1"], check=True)
    pcocc("image", "import", "docker-archive:saved.tar", "a")
    assert content(disk(repo, "a")) == raw_sum() and leftovers(repo) == []
    said = pcocc("image", "import", "saved.tar", "b", ok=False).err
    assert "a tar archive of 'docker save'" in said and f"docker-archive:{tmp_path}/saved.tar NAME" in said


@pytest.mark.parametrize("packer", ["xz", "bzip2"])
def test_what_no_layer_is_packed_with_is_named(pcocc: Pcocc, repo: Repo, tmp_path: Path, packer: str) -> None:
    def run(data: bytes) -> bytes:
        return subprocess.run([packer, "-c"], input=data, capture_output=True, check=True).stdout

    directory = write_layout(tmp_path / "oci", [run(layer([("disk/a", b"x" * 512)], ""))], "")
    said = pcocc("image", "import", "oci:oci", "a", ok=False).err
    assert f"is compressed with {packer}, which no layer of an image may be" in said
    subprocess.run(["tar", "-C", directory.parent, "-cf", "around.tar", "oci"], check=True)
    (tmp_path / "packed").write_bytes(run((tmp_path / "around.tar").read_bytes()))
    said = pcocc("image", "import", "oci-archive:packed", "a", ok=False).err
    assert f"packed is compressed with {packer}, and not a tar archive\nhint: unpack it first: {packer} -dc" in said
    for source in ("oci-archive:around.tar", "around.tar"):
        said = pcocc("image", "import", source, "a", ok=False).err
        assert "a tar archive of a directory around an OCI image layout" in said and "pcocc image import oci:oci NAME" in said
    assert leftovers(repo) == []


def test_frames_to_be_skipped_are_of_zstd(pcocc: Pcocc, repo: Repo, tmp_path: Path, disks: list[bytes]) -> None:
    skipped = b"\x50\x2a\x4d\x18\4\0\0\0text"
    packed = layer([("disk/a", disks[0])], "zstd")
    write_layout(tmp_path / "oci", [skipped + packed + skipped], "")
    pcocc("image", "import", "oci:oci", "a")
    assert content(disk(repo, "a")) == raw_sum()


def test_a_hard_link_and_another_digest_are_named(pcocc: Pcocc, tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        link = tarfile.TarInfo("disk/a")
        link.type, link.linkname = tarfile.LNKTYPE, "images/a"
        archive.addfile(link)
    directory = write_layout(tmp_path / "oci", [out.getvalue()], "")
    said = pcocc("image", "import", "oci:oci", "a", ok=False).err
    assert "disk/a in the image is a hard link to 'images/a'\nhint: let its maker copy the disk" in said
    index = directory / "index.json"
    index.write_text(re.sub('sha256:.{64}', f"sha512:{'0' * 128}", index.read_text()))
    said = pcocc("image", "import", "oci:oci", "a", ok=False).err
    assert "index.json has sha512 digests, and pcocc compares only sha256" in said


def test_a_wrong_media_type_does_no_harm(pcocc: Pcocc, repo: Repo, tmp_path: Path, disks: list[bytes]) -> None:
    write_layout(tmp_path / "oci", [layer([("disk/a", disks[0])], "gzip")], "zstd")
    write_layout(tmp_path / "plain", [layer([("disk/a", disks[0])], "gzip")], "")
    for name in ("oci", "plain"):
        pcocc("image", "import", f"oci:{name}", name)
        assert content(disk(repo, name)) == raw_sum()
