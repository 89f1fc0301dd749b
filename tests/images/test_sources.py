"""Importing from web servers and from containerDisks."""

import hashlib
import io
import json
import os
import random
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pcocc_runtime.errors import RequestError
from pcocc_runtime.images import images, oci
from pcocc_runtime.images.references import Reference, Repo
from tests.images.disks import Ran, content, disk, leftovers, listing, make_disk, raw_sum, write_raw
from tests.images.layouts import PACKERS, Members, build, layer, pack, write_layout
from tests.images.web import registry, serve

Pcocc = Callable[..., Ran]


def test_a_url_is_fetched_and_kept_without_its_secrets(pcocc: Pcocc, repo: Repo, tmp_path: Path) -> None:
    data = make_disk(tmp_path / "a.qcow2").read_bytes()
    with serve({"/a.qcow2?key=secret": (302, {"Location": "/b"}, b""), "/b": (200, {}, data)}) as host:
        pcocc("image", "import", "--checksum", hashlib.sha256(data).hexdigest(), f"http://{host}/a.qcow2?key=secret", "a")
    assert content(disk(repo, "a")) == raw_sum()
    assert images.find_image(Reference("a"), [repo]).revision.custom["source"] == f"http://{host}/a.qcow2"


def test_a_url_without_a_length_is_fetched(pcocc: Pcocc, repo: Repo, tmp_path: Path) -> None:
    data = make_disk(tmp_path / "a.qcow2").read_bytes()
    with serve({"/a": (200, {"Content-Length": ""}, data)}) as host:
        pcocc("image", "import", f"http://{host}/a", "a")
    assert content(disk(repo, "a")) == raw_sum()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((404, {}, b""), "could not be fetched: status 404: Not Found"),
        ((200, {"Content-Length": "5000000"}, b"x" * 4096), "could not be fetched: "),
        ((200, {"Content-Length": str(1 << 60)}, b""), "and the file system of"),
        (
            (200, {"Content-Length": "many"}, b""),
            "could not be fetched: the server announces an invalid length: 'many'",
        ),
        (
            (206, {"Content-Range": "bytes 0-511/1024"}, b"x" * 512),
            "could not be fetched: the server answers with status 206, which is not",
        ),
        (
            (302, {"Location": "file:///etc/passwd"}, b""),
            "redirects to file:///etc/passwd, which is not on a web server",
        ),
        (
            (302, {"Location": "ftp://u:secret@127.0.0.1:1/x?secret"}, b""),
            "redirects to ftp://127.0.0.1:1/x, which is not on a web server",
        ),
        ((302, {}, b""), "could not be fetched: status 302"),
        ((302, {"Location": "/a"}, b""), "could not be fetched: "),
        (
            (200, {}, b"<html>not found</html>"),
            "is not a sound raw image: its 22 bytes are not a whole number of sectors",
        ),
    ],
)
def test_what_a_server_does_wrong_is_told(pcocc: Pcocc, repo: Repo, answer: Any, said: str) -> None:
    with serve({"/a": answer}) as host:
        text = pcocc("image", "import", f"http://{host}/a", "a", ok=False).err
    assert said in text and f"http://{host}/a" in text and "secret" not in text
    assert listing(repo) == {} and leftovers(repo) == []


LOGIN = "Basic dTpwQHc="  # of u and p@w


def test_a_login_is_sent_to_its_own_server_and_told_to_nobody(pcocc: Pcocc, repo: Repo, tmp_path: Path) -> None:
    data = make_disk(tmp_path / "a.qcow2").read_bytes()
    with serve({"/b": (200, {}, data)}) as other:
        pages = {
            f"/a {LOGIN}": (302, {"Location": "/b?k=secret"}, b""),
            f"/b?k=secret {LOGIN}": (302, {"Location": f"http://{other}/b"}, b""),
        }
        with serve(pages) as host:
            pcocc("image", "import", f"http://u:p%40w@{host}/a", "a")
            said = pcocc("image", "import", f"HTTP://u:p%40x@{host}/a?secret", "b", ok=False).err
    assert images.find_image(Reference("a"), [repo]).revision.custom["source"] == f"http://{host}/a"
    assert f"http://{host}/a could not be fetched: status 404" in said and "p%40x" not in said and "secret" not in said


def test_a_url_may_have_any_letters(pcocc: Pcocc, repo: Repo, tmp_path: Path) -> None:
    data = make_disk(tmp_path / "a.qcow2").read_bytes()
    with serve({"/%C3%A9%20a?%C3%A9=%2F": (302, {"Location": "/\u00c3\u00a9"}, b""), "/%C3%A9": (200, {}, data)}) as host:
        pcocc("image", "import", f"http://{host}/é a?é=%2F", "a")
    assert content(disk(repo, "a")) == raw_sum()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("http://[x/secret@y", "http://y is not the address of a file on a web server"),
        ("http://", "http:// is not the address of a file on a web server"),
        ("http://u:secret@h:x/y?secret", "http://h:x/y is not the address of a file on a web server"),
        ("https://h:99999/y", "is not the address of a file on a web server"),
        ("ftp://u:secret@h/x?secret", "ftp://h/x cannot be imported: ftp:// is not known"),
        ("file:///etc/passwd", "file:///etc/passwd cannot be imported: file:// is not known"),
    ],
)
def test_what_is_no_address_is_told(pcocc: Pcocc, source: str, said: str) -> None:
    text = pcocc("image", "import", source, "a", ok=False).err
    assert said in text and "secret" not in text


def test_no_server_is_told(pcocc: Pcocc, repo: Repo) -> None:
    assert "Connection refused" in pcocc("image", "import", "http://127.0.0.1:1/a", "a", ok=False).err


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize(("form", "name"), [("raw", "disk/debian.img"), ("qcow2", "./disk/disk.qcow2"), ("qcow2", "/disk/x")])
def test_a_container_disk_is_imported(pcocc: Pcocc, repo: Repo, tmp_path: Path, packing: str, form: str, name: str) -> None:
    data = make_disk(tmp_path / "disk", form).read_bytes()
    write_layout(tmp_path / "oci", [layer([("etc/x", b"y")], packing), layer([("disk", None), (name, data)], packing)], packing)
    pcocc("image", "import", "oci:oci", "a")
    assert content(disk(repo, "a")) == raw_sum()
    assert leftovers(repo) == []


def test_the_top_layer_wins_and_a_tag_chooses(pcocc: Pcocc, repo: Repo, tmp_path: Path) -> None:
    low, high = write_raw(tmp_path / "low", 1).read_bytes(), write_raw(tmp_path / "high", 2).read_bytes()
    name = {"org.opencontainers.image.ref.name": "v1"}
    write_layout(
        tmp_path / "o:c", [layer([("disk/a", low)]), layer([("disk/a", high)]), layer([("other", b"")])], annotations=name
    )
    pcocc("image", "import", "oci:o:c:v1", "a")
    assert content(disk(repo, "a")) == raw_sum(2)
    assert "has no image 'v2'" in pcocc("image", "import", "oci:o:c:v2", "b", ok=False).err


def damaged(directory: Path) -> None:
    largest = max((directory / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)


def cut(directory: Path) -> None:
    largest = max((directory / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


def gone(directory: Path) -> None:
    max((directory / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size).unlink()


def no_index(directory: Path) -> None:
    (directory / "index.json").unlink()


def silly_index(directory: Path) -> None:
    (directory / "index.json").write_text('{"manifests": [5, {"digest": "sha256:../../etc/passwd", "size": 1}]}')


def deep_index(directory: Path) -> None:
    (directory / "index.json").write_text("[" * 100000)


def leave(_directory: Path) -> None:
    pass


def fifo_index(directory: Path) -> None:
    (directory / "index.json").unlink()
    os.mkfifo(directory / "index.json")


def fifo_layer(directory: Path) -> None:
    largest = max((directory / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    largest.unlink()
    os.mkfifo(largest)


def endless_layer(directory: Path) -> None:
    largest = max((directory / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    largest.unlink()
    largest.symlink_to("/dev/zero")


GOOD: Members = [("disk/a", random.Random(0).randbytes(65536))]


@pytest.mark.parametrize(
    ("members", "spoil", "said"),
    [
        ([("etc/disk/a", b"x")], leave, "has no file in /disk, so it is not a containerDisk"),
        ([("disk/a", b"x" * 512), ("disk/b", b"y" * 512)], leave, "has more than one file in /disk: disk/a, disk/b"),
        ([("disk/a", "/etc/passwd")], leave, "disk/a in the image is not a regular file"),
        (GOOD, damaged, "is damaged: "),
        (GOOD, cut, "is damaged: "),
        (GOOD, gone, "cannot be read: No such file"),
        (GOOD, fifo_layer, "cannot be read: it is not a regular file"),
        (GOOD, endless_layer, "cannot be read: it is not a regular file"),
        (GOOD, fifo_index, "index.json cannot be read: it is not a regular file"),
        (GOOD, no_index, "index.json cannot be read: No such file"),
        (GOOD, silly_index, "a descriptor has no sha256 digest or no size"),
        (GOOD, deep_index, "is damaged: it is not JSON"),
    ],
)
@pytest.mark.parametrize("packing", PACKERS)
def test_a_wrong_layout_is_refused(
    pcocc: Pcocc, repo: Repo, tmp_path: Path, members: Members, spoil: Callable[[Path], None], said: str, packing: str
) -> None:
    spoil(write_layout(tmp_path / "oci", [layer(members, packing)], packing))
    assert said in pcocc("image", "import", "oci:oci", "a", ok=False).err
    assert listing(repo) == {} and leftovers(repo) == []


def odd_layer(facts: dict[str, str], data: bytes = b"") -> bytes:
    """Return a layer whose disk has such PAX headers."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("disk/a")
        info.size, info.pax_headers = 512, facts
        archive.addfile(info, io.BytesIO(data.ljust(512, b"\0")))
    return pack(out.getvalue(), "gzip")


def long_name(size: int, count: int = 1) -> bytes:
    """Return a layer whose disk has a name of so many bytes, which is repeated so many times."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for _ in range(count):
            info = tarfile.TarInfo("././@LongLink")
            info.type, info.size = tarfile.GNUTYPE_LONGNAME, size
            archive.addfile(info, io.BytesIO(b"a" * size))
        archive.addfile(tarfile.TarInfo("disk/a"))
    return pack(out.getvalue(), "gzip")


SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (odd_layer({"GNU.sparse.map": "a,b"}), "a header in its tar archive makes no sense"),
        (odd_layer({"GNU.sparse.size": "zz"}), "a header in its tar archive makes no sense"),
        (odd_layer({"GNU.sparse.realsize": "zz"}), "a header in its tar archive makes no sense"),
        (odd_layer({**SPARSE, "GNU.sparse.realsize": "512"}, b"junk\njunk\n"), "a header in its tar archive makes no sense"),
        (odd_layer({**SPARSE, "GNU.sparse.realsize": str(1 << 62)}, b"0\n"), "is 4194304 TiB large, more than pcocc accepts"),
        (long_name(8 << 20), "a header in its tar archive is too large"),
        (long_name(0, 2000), "a header in its tar archive "),
    ],
)  # fmt: skip
def test_odd_headers_of_an_archive_are_told(pcocc: Pcocc, repo: Repo, tmp_path: Path, made: bytes, said: str) -> None:
    write_layout(tmp_path / "oci", [made])
    assert said in pcocc("image", "import", "oci:oci", "a", ok=False).err
    assert listing(repo) == {} and leftovers(repo) == []


def test_a_sparse_disk_is_whole(pcocc: Pcocc, repo: Repo, tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    (tmp_path / "tree/disk").mkdir(parents=True)
    subprocess.run(["cp", "--sparse=always", "raw", "tree/disk/a"], cwd=tmp_path, check=True)
    for form in ("gnu", "posix"):
        made = subprocess.run(["tar", "-C", tmp_path / "tree", "-cS", "-H", form, "disk"], capture_output=True, check=True).stdout
        assert len(made) < 1 << 19
        write_layout(tmp_path / form, [pack(made, "gzip")])
        pcocc("image", "import", f"oci:{form}", form)
        assert content(disk(repo, form)) == raw_sum()


def test_not_every_tag_is_told() -> None:
    entry = {"digest": "sha256:" + "0" * 64, "size": 1}
    tags = [{**entry, "annotations": {"org.opencontainers.image.ref.name": f"v{number}"}} for number in range(3000)]
    with pytest.raises(RequestError, match="index has 3000 images") as caught:
        oci.choose_manifests(json.dumps({"manifests": tags}).encode(), None, "x86_64", "index")
    assert str(caught.value.hint).endswith("one of v0, v1, v2, v3, v4, v5, v6, v7, v8, v9 and 2990 more")


def test_without_zstd_that_is_told(pcocc: Pcocc, repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_layout(tmp_path / "oci", [layer(GOOD, "zstd")], "zstd")
    monkeypatch.setenv("PATH", str(tmp_path))
    said = pcocc("image", "import", "oci:oci", "a", ok=False).err
    assert "the program zstd is not installed" in said and "hint: install zstd, or push the image with gzip layers" in said
    assert listing(repo) == {} and leftovers(repo) == []


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
@pytest.mark.parametrize("spoiled", [b"", b"x" * 9000, "cut", "tail"])
def test_a_layer_that_cannot_be_unpacked_is_told(
    pcocc: Pcocc, repo: Repo, tmp_path: Path, packing: str, spoiled: bytes | str
) -> None:
    whole = layer([("disk/a", write_raw(tmp_path / "raw").read_bytes())], packing)
    data = {"cut": whole[: len(whole) // 2], "tail": whole[:-3]}[spoiled] if isinstance(spoiled, str) else spoiled
    write_layout(tmp_path / "oci", [data], packing)  # with the sum that it has
    pcocc("image", "import", "oci:oci", "a", ok=False)
    assert listing(repo) == {} and leftovers(repo) == []


def test_an_image_for_another_machine_is_refused(pcocc: Pcocc, tmp_path: Path) -> None:
    write_layout(tmp_path / "oci", [layer(GOOD)], platform={"architecture": "s390x", "os": "linux"})
    assert "has no image for x86_64" in pcocc("image", "import", "oci:oci", "a", ok=False).err


def test_a_registry_is_read_through_skopeo(pcocc: Pcocc, repo: Repo, tmp_path: Path) -> None:
    blobs, manifest = build([layer([("disk/disk.img", write_raw(tmp_path / "raw").read_bytes())])])
    with serve(registry("vm/debian", "12", blobs, manifest)) as host:
        (tmp_path / "home/.config/containers").mkdir(parents=True)
        (tmp_path / "home/.config/containers/registries.conf").write_text(f'[[registry]]\nlocation = "{host}"\ninsecure = true\n')
        pcocc("image", "import", f"docker://{host}/vm/debian:12", "a")
        assert content(disk(repo, "a")) == raw_sum()
        said = pcocc("image", "import", f"docker://{host}/vm/debian:13", "b", ok=False).err
        assert f"docker://{host}/vm/debian:13 could not be fetched: " in said and "msg=" not in said and "level=" not in said
    assert leftovers(repo) == []


def test_a_full_repository_is_not_a_matter_of_logins(pcocc: Pcocc, repo: Repo, tmp_path: Path) -> None:
    blobs, manifest = build([layer([("disk/disk.img", write_raw(tmp_path / "raw", size=4 << 20, used=4 << 20).read_bytes())])])
    Path(repo.path).mkdir(parents=True)
    (tmp_path / "home/.config/containers").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "pcocc-test", repo.path], check=True)
    try:
        with serve(registry("vm/debian", "12", blobs, manifest)) as host:
            (tmp_path / "home/.config/containers/registries.conf").write_text(
                f'[[registry]]\nlocation = "{host}"\ninsecure = true\n'
            )
            said = pcocc("image", "import", f"docker://{host}/vm/debian:12", "a", ok=False).err
        assert f"repository 'user' ({repo.path}) is full: No space left on device" in said and leftovers(repo) == []
    finally:
        subprocess.run(["umount", "-l", repo.path], check=True)


def test_without_skopeo_that_is_told(pcocc: Pcocc, repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    text = pcocc("image", "import", "docker://example.org/a", "a", ok=False).err
    assert "the program skopeo is not installed" in text and "oci:DIR" in text
    for wrong in ("docker:a", "docker://", "docker:///a", "docker://-a"):
        assert "is not an image in a registry" in pcocc("image", "import", wrong, "a", ok=False).err
