"""Importing: every format and source gives the same disk (what is refused: test_refused.py)."""

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pcocc_runtime.errors import RequestError
from pcocc_runtime.images import qemu_img as qemu_image
from pcocc_runtime.images.images import Found
from pcocc_runtime.images.references import Repo
from pcocc_runtime.system import copy
from tests.images.disks import (
    TEXT,
    Ran,
    as_stdin,
    content,
    disk,
    leftovers,
    listing,
    make_disk,
    qemu_img,
    raw_sum,
    write_raw,
)

Pcocc = Callable[..., Ran]


@pytest.mark.parametrize("form", ["raw", "qcow2", "vmdk", "vdi", "vhdx", "vpc"])
def test_every_format_is_recognised_and_gives_the_same_disk(pcocc: Pcocc, repo: Repo, tmp_path: Path, form: str) -> None:
    source = make_disk(tmp_path / "source", form)
    assert pcocc("image", "import", str(source), "new").out == "stored as user:new@0\n"
    assert content(disk(repo, "new")) == raw_sum()
    assert leftovers(repo) == []


@pytest.mark.parametrize(
    "options",
    [
        ("-O", "vmdk", "-o", "subformat=streamOptimized"),
        ("-O", "vpc", "-o", "subformat=fixed,force_size=on"),
        ("-O", "vdi", "-o", "static=on"),
        ("-O", "qcow2", "-c"),
        ("-O", "qcow2", "-o", "compat=0.10"),
    ],
)
def test_their_variants_too(pcocc: Pcocc, repo: Repo, tmp_path: Path, options: tuple[str, ...]) -> None:
    write_raw(tmp_path / "raw")
    qemu_img("convert", "-f", "raw", *options, tmp_path / "raw", tmp_path / "source")
    pcocc("image", "import", "source", "new")
    assert content(disk(repo, "new")) == raw_sum()



@pytest.mark.parametrize(
    "options",
    [
        ("-O", "vmdk", "-o", "subformat=streamOptimized"),
        ("-O", "qcow2", "-c"),
        ("-O", "qcow2", "-c", "-o", "cluster_size=512"),
        ("-O", "qcow2", "-c", "-o", "extended_l2=on"),
        ("-O", "qcow2", "-o", "extended_l2=on"),
        ("-O", "qcow2", "-o", "preallocation=metadata"),
    ],
)
@pytest.mark.parametrize("length", [3 << 20, 65536 * 7 + 2560])
def test_an_image_smaller_than_its_content_is_whole(
    pcocc: Pcocc, repo: Repo, tmp_path: Path, options: tuple[str, ...], length: int
) -> None:
    (tmp_path / "raw").write_bytes(TEXT[:length])
    qemu_img("convert", "-f", "raw", *options, tmp_path / "raw", tmp_path / "source")
    pcocc("image", "import", "--compress", "source", "new")
    assert content(disk(repo, "new")) == hashlib.sha256(TEXT[:length]).hexdigest()
    pcocc("image", "verify")


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_what_is_exported_compressed_can_be_imported(pcocc: Pcocc, repo: Repo, tmp_path: Path, compression: str) -> None:
    (tmp_path / "raw").write_bytes(TEXT)
    options = ("-c", "-O", "qcow2", "-o", f"compression_type={compression}")
    qemu_img("convert", "-f", "raw", *options, tmp_path / "raw", tmp_path / "source")
    pcocc("image", "import", "source", "a")
    for number, name in enumerate(("a.qcow2", "a.vmdk")):
        pcocc("image", "export", "--compress", "a", name)
        pcocc("image", "import", name, f"copy{number}")
        assert content(disk(repo, f"copy{number}")) == hashlib.sha256(TEXT).hexdigest()


def test_a_layer_is_named_by_its_content_and_shared(pcocc: Pcocc, repo: Repo, tmp_path: Path) -> None:
    make_disk(tmp_path / "a.qcow2")
    make_disk(tmp_path / "b.vdi", "vdi")
    pcocc("image", "import", "a.qcow2", "a")
    pcocc("image", "import", "b.vdi", "b")
    path = disk(repo, "a")
    assert path == disk(repo, "b") and path.name == hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.stat().st_mode & 0o777 == 0o444
    assert sorted(listing(repo)) == [f"data/{path.name[:2]}/{path.name}", "meta/a@0", "meta/b@0"]


def test_a_name_with_a_colon_or_comma_is_only_a_name(pcocc: Pcocc, repo: Repo, tmp_path: Path) -> None:
    make_disk(tmp_path / "nbd:x,file=y 'z'.qcow2")
    pcocc("image", "import", "./nbd:x,file=y 'z'.qcow2", "a")
    assert content(disk(repo, "a")) == raw_sum()


def test_a_name_that_is_taken_is_refused_unless_it_is_an_update(pcocc: Pcocc, repo: Repo, tmp_path: Path) -> None:
    make_disk(tmp_path / "a.qcow2")
    make_disk(tmp_path / "b.qcow2", seed=1)
    pcocc("image", "import", "a.qcow2", "a")
    before = listing(repo)
    assert "has an image 'a' already" in pcocc("image", "import", "b.qcow2", "a", ok=False).err
    assert listing(repo) == before
    assert pcocc("image", "import", "--update", "b.qcow2", "a").out == "stored as user:a@1\n"
    assert content(disk(repo, "a", 0)) == raw_sum() and content(disk(repo, "a")) == raw_sum(1)


def test_stdin_is_read_to_its_end(pcocc: Pcocc, repo: Repo, tmp_path: Path) -> None:
    with as_stdin(make_disk(tmp_path / "a.qcow2")):
        pcocc("image", "import", "-", "a")
    assert content(disk(repo, "a")) == raw_sum()
    with as_stdin(Path("/dev/null")):
        assert "stdin is not a sound raw image: it is empty" in pcocc("image", "import", "-", "b", ok=False).err


def test_what_never_ends_is_given_up(pcocc: Pcocc, repo: Repo, tmp_path: Path) -> None:
    with as_stdin(Path("/dev/zero")):
        assert "standard input is a device, such as /dev/zero" in pcocc("image", "import", "-", "b", ok=False).err
    assert listing(repo) == {} and leftovers(repo) == []
    with pytest.raises(RequestError, match="the source does not end: it goes on after 5000000 bytes"):
        copy.copy_stream(bytes, tmp_path / "zeros", 0, lambda done, total: None, longest=5000000)
    assert (tmp_path / "zeros").stat().st_blocks == 0


@pytest.mark.parametrize("source", ["fifo", "/dev/zero", "/dev/stdin", "/dev/fd/0"])
def test_what_is_read_only_once_is_to_be_piped(pcocc: Pcocc, repo: Repo, tmp_path: Path, source: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    with as_stdin(make_disk(tmp_path / "a.qcow2")):
        said = pcocc("image", "import", source, "a", ok=False).err
    assert f"image {source} is not a regular file\nhint: pipe it in: pcocc image import - NAME <{source}" in said


def test_a_directory_that_is_gone_is_told(pcocc: Pcocc, repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_disk(tmp_path / "a.qcow2")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert "error: the working directory is gone" in pcocc("image", "import", "a.raw", "a", ok=False).err
    pcocc("image", "import", str(tmp_path / "a.qcow2"), "a")
    assert "error: the working directory is gone" in pcocc("image", "export", "a", "x.raw", ok=False).err


def test_a_path_that_is_no_text_is_told(pcocc: Pcocc, repo: Repo, tmp_path: Path) -> None:
    name = os.fsdecode(b"l\xe9.raw")
    write_raw(tmp_path / name)
    assert "/l?.raw is not valid UTF-8, which QEMU requires" in pcocc("image", "import", name, "a", ok=False).err
    with pytest.raises(RequestError, match="is not valid UTF-8"):
        qemu_image.chain(tmp_path / name / "data")
    write_raw(tmp_path / "lé.raw")
    pcocc("image", "import", "lé.raw", "a")
    path = tmp_path / os.fsdecode(b"x\xe9.raw")
    assert pcocc("image", "export", "a", path.name).out == f"user:a@0 written to {tmp_path}/x?.raw\n" and path.exists()


def test_a_qemu_img_that_cannot_be_run_is_told(pcocc: Pcocc, repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_disk(tmp_path / "a.qcow2")
    (tmp_path / "qemu-img").touch(mode=0o644)
    monkeypatch.setenv("PATH", str(tmp_path))
    said = pcocc("image", "import", "a.qcow2", "a", ok=False).err
    assert "qemu-img cannot be run on" in said and "Permission denied\nhint: install qemu-utils" in said


def test_a_containers_image_gets_no_disk(pcocc: Pcocc, repo: Repo, base: Found) -> None:
    meta = Path(repo.path, "meta/base@0")
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "kind": "ctr"}))
    before = listing(repo)
    assert (
        "image user:base is for containers, not for VMs" in pcocc(
            "image", "import", "--update", "base.qcow2", "base", ok=False
        ).err
    )
    assert listing(repo) == before


def test_a_terminal_is_no_image(pcocc: Pcocc, repo: Repo) -> None:
    main, terminal = os.openpty()
    try:
        with as_stdin(Path(os.ttyname(terminal))):
            assert "standard input is a terminal" in pcocc("image", "import", "-", "b", ok=False).err
    finally:
        os.close(main)
        os.close(terminal)
    assert leftovers(repo) == []


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_checksums_are_compared(pcocc: Pcocc, repo: Repo, tmp_path: Path, algorithm: str) -> None:
    source = make_disk(tmp_path / "a.qcow2")
    right = hashlib.new(algorithm, source.read_bytes()).hexdigest()
    wrong = right.translate(str.maketrans("0123", "1230"))
    said = pcocc("image", "import", "--checksum", f"{algorithm}:{wrong}", "a.qcow2", "a", ok=False).err
    assert f"the {algorithm} sum of {source} is {right}, not {wrong}" in said
    assert listing(repo) == {} and leftovers(repo) == []
    pcocc("image", "import", "--checksum", f"{algorithm}:{right.upper()}", "a.qcow2", "a")


@pytest.mark.parametrize("text", ["", "md5:" + "0" * 32, "sha256:123", "sha256:" + "g" * 64, "0" * 63])
def test_a_text_that_is_no_checksum_is_refused(pcocc: Pcocc, tmp_path: Path, text: str) -> None:
    make_disk(tmp_path / "a.qcow2")
    if text:
        assert "is not a checksum" in pcocc("image", "import", "--checksum", text, "a.qcow2", "a", ok=False).err


@pytest.mark.parametrize("form", ["qcow2", "vmdk"])
def test_qemu_img_is_never_led_to_a_backing_file(tmp_path: Path, form: str) -> None:
    make_disk(tmp_path / "base", form)
    qemu_img("create", "-q", "-f", form, "-b", tmp_path / "base", "-F", form, tmp_path / "over")
    qemu_image.convert(qemu_image.source(tmp_path / "over", form), "qcow2", tmp_path / "got", lambda done, total: None)
    assert content(tmp_path / "got") == raw_sum(used=0)


def test_an_image_in_use_by_a_writer_is_refused(pcocc: Pcocc, repo: Repo, tmp_path: Path) -> None:
    make_disk(tmp_path / "a.qcow2")
    with subprocess.Popen(
        ["qemu-io", "-f", "qcow2", "a.qcow2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path
    ) as user:
        assert user.stdin and user.stdout
        user.stdin.write(b"read 0 512\n")
        user.stdin.flush()
        user.stdout.readline()
        assert 'Failed to get shared "write" lock' in pcocc("image", "import", "a.qcow2", "a", ok=False).err
        user.stdin.close()
    pcocc("image", "import", "a.qcow2", "a")


@pytest.mark.parametrize("name", ["a/b", "../a", "..", "a\nb", "x" * 300, "", "a@1", "nowhere:a", "user:", "user:../a", "-"])
def test_a_wrong_name_is_refused(pcocc: Pcocc, repo: Repo, tmp_path: Path, name: str) -> None:
    make_disk(tmp_path / "a.qcow2")
    pcocc("image", "import", "--", "a.qcow2", name, ok=False)
    assert not Path(repo.path).exists() and sorted(p.name for p in tmp_path.iterdir()) == [
        "a.qcow2",
        "a.qcow2.raw",
        "etc",
        "home",
    ]


WRONG = ["a/b", "../a", "..", "a\nb", "x" * 300, "", "a@1x", "a@-1", "nowhere:a", "user:", "user:../a", "a@99999999999"]


@pytest.mark.parametrize(
    "argv", ["show {}", "export {} x.raw", "copy {} b", "copy base {}", "resize {} 2M", "delete {}", "verify {}"]
)
def test_a_wrong_name_is_refused_by_every_verb(pcocc: Pcocc, repo: Repo, base: Found, argv: str) -> None:
    before = listing(repo)
    for name in WRONG:
        pcocc("image", *(word.format(name) for word in argv.split(" ")), ok=False)
    assert listing(repo) == before and leftovers(repo) == [] and not Path("x.raw").exists()


@pytest.mark.parametrize("argv", ["repo gc {}", "list -R {}", "verify -R {}"])
def test_a_wrong_name_of_a_repository_is_refused(pcocc: Pcocc, base: Found, argv: str) -> None:
    for name in ("a/b", "..", "a\nb", "x" * 300, "x y"):
        pcocc("image", *(word.format(name) for word in argv.split(" ")), ok=False)


def test_compressed_and_described(pcocc: Pcocc, repo: Repo, tmp_path: Path) -> None:
    (tmp_path / "text.raw").write_bytes(b"line\n" * (1 << 18) + bytes(512 - (5 << 18) % 512))
    pcocc("image", "import", "--compress", "-d", "Some \x1b[31mtext", "text.raw", "small")
    pcocc("image", "import", "text.raw", "large")
    assert disk(repo, "small").stat().st_size < disk(repo, "large").stat().st_size / 3
    assert content(disk(repo, "small")) == hashlib.sha256((tmp_path / "text.raw").read_bytes()).hexdigest()
    assert "Some ?[31mtext" in pcocc("image", "list").out


def test_an_export_replaces_files_only(pcocc: Pcocc, repo: Repo, other: Repo, base: Found, tmp_path: Path) -> None:
    pcocc("image", "copy", "base", "site:far")
    os.mkfifo("fifo.raw")
    Path("link.raw").symlink_to("base.qcow2")
    before = (listing(repo), listing(other))
    inside = [str(base.path), f"{other.path}/data/new", os.path.relpath(base.path), f"{repo.path}/meta/x@0"]
    for name, said in (
        ("fifo.raw", "is not a regular file"), ("link.raw", "is a symbolic link"),
        *((one, "is inside repository") for one in inside),
    ):
        assert said in pcocc("image", "export", "--force", "-t", "raw", "base", name, ok=False).err
        assert said in pcocc("image", "export", "-t", "raw", "base", name, ok=False).err
    assert (listing(repo), listing(other)) == before and not list(tmp_path.rglob(".pcocc-export*"))
    assert Path("fifo.raw").is_fifo() and Path("link.raw").is_symlink()
    Path("old.raw").write_text("old")
    pcocc("image", "export", "--force", "base", "old.raw")
    assert content(Path("old.raw"), "raw") == raw_sum()
