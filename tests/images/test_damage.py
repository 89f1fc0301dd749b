"""Damaged repositories: whatever metadata, layers and headers contain, it is reported or ignored, and nothing else suffers."""

import hashlib
import json
import os
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pcocc_runtime.errors import NodeError, PcoccError, RequestError
from pcocc_runtime.images import images, metadata
from pcocc_runtime.images import qemu_img as qemu_image
from pcocc_runtime.images.images import Found
from pcocc_runtime.images.references import Reference, Repo
from tests.images.disks import Ran, find, leftovers, listing, make_disk, qemu_img, save, spoil
from tests.images.layouts import layer, write_layout
from tests.waiting import limit

Pcocc = Callable[..., Ran]


def test_a_damaged_layer_is_not_copied(pcocc: Pcocc, repo: Repo, other: Repo, base: Found) -> None:
    spoil(base.path, 300000)
    assert "is damaged: the content of layer" in pcocc("image", "copy", "base", "site:far", ok=False).err
    assert listing(other) == {} and leftovers(other) == []


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("version: 1\n", "is of version 1, not 2"),
        ("version: 3\n", "is of version 3, not 2"),
        ("{{{", "cannot be read as YAML"),
        ("", "is of version None, not 2"),
        ("[]", "cannot be read as YAML"),
        (None, "is not an image repository: it has no file .config"),
    ],
)
def test_what_is_no_repository_is_told(pcocc: Pcocc, repo: Repo, base: Found, config: str | None, said: str) -> None:
    path = Path(repo.path, ".config")
    path.unlink() if config is None else path.write_text(config)
    if config is None:
        Path(repo.path, "thesis.tex").touch()
    for argv in (["list"], ["show", "base"], ["import", "../base.qcow2", "new"], ["repo", "gc"], ["delete", "base"]):
        assert said in pcocc("image", *argv, ok=False).err
    assert "error: " in pcocc("image", "repo", "list").out


def test_a_fifo_is_not_waited_for(pcocc: Pcocc, repo: Repo, base: Found) -> None:
    base.path.unlink()
    os.mkfifo(base.path)
    for argv in (["copy", "base", "site:b"], ["verify"], ["export", "base", "x.raw"], ["resize", "base", "9M"]):
        assert "not a regular file" in pcocc("image", *argv, ok=False).err
    config = Path(repo.path, ".config")
    config.unlink()
    os.mkfifo(config)
    for argv in (["list"], ["import", "../base.qcow2", "new"], ["repo", "gc"]):
        assert f"cannot be read: {config}: it is not a regular file" in pcocc("image", *argv, ok=False).err


def test_limits_of_this_process_are_not_taken_for_the_repositorys(repo: Repo, base: Found) -> None:
    _soft, hard = limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open("/", os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.raises(NodeError, match=r"work in repository 'user' \(.*\) had to stop: Too many open files"):
            images.find_image(Reference("base"), [repo])
        with pytest.raises(NodeError, match=r"qemu-img cannot be run on .*: Too many open files"):
            qemu_image.read_extent(qemu_image.chain(base.path))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "other"}, "it describes another image"),
        ({"revision": 1}, "it describes another image"),
        ({"revision": True}, "revision is not"),
        ({"data_blobs": []}, "data_blobs is not a list"),
        ({"data_blobs": ["../../x"]}, "data_blobs is not a list"),
        ({"kind": 5}, "kind is not"),
        ({"timestamp": float("nan")}, "timestamp is not a time"),
        ({"timestamp": 1e300}, "timestamp is not a time"),
        ({"timestamp": -1}, "timestamp is not a time"),
        ({"owner": None}, "owner is not text"),
    ],
)
def test_damaged_metadata_hurts_only_its_image(pcocc: Pcocc, repo: Repo, base: Found, changed: dict[str, Any], said: str) -> None:
    pcocc("image", "copy", "base", "good")
    path = Path(repo.path, "meta/base@0")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    done = pcocc("image", "list", ok=False)
    assert "good" in done.out and said in done.err and str(path) in done.err
    assert said in pcocc("image", "show", "base", ok=False).err
    assert json.loads(pcocc("image", "list", "--json", ok=False).out)[0]["name"] == "good"


def test_odd_things_in_meta_and_data_are_passed_over(pcocc: Pcocc, repo: Repo, base: Found) -> None:
    odd = ("base", "base@01", "base@0~", "base@-1", "a b@0")
    for name in (".x@0", *odd):
        Path(repo.path, "meta", name).touch()
    Path(repo.path, "meta/dir@0").mkdir()
    os.mkfifo(Path(repo.path, "meta/fifo@0"))
    Path(repo.path, "data/readme").write_text("x")
    (base.path.parent / "notes").write_text("x")
    done = pcocc("image", "list", ok=False)
    assert [line.split()[0] for line in done.out.splitlines()] == ["NAME", "base"] and done.err.count("error: ") == 2
    Path(repo.path, "meta/dir@0").rmdir()
    Path(repo.path, "meta/fifo@0").unlink()
    assert "no layer was removed" in pcocc("image", "delete", "base@0").err
    for name in odd:  # each may have been an image's metadata
        said = pcocc("image", "repo", "gc", "--grace", "0").err
        assert "no layer was removed, because it is not known which ones are needed" in said and base.path.exists()
        Path(repo.path, "meta", name).unlink()
    assert "1 layer removed" in pcocc("image", "repo", "gc", "--grace", "0").out
    assert (base.path.parent / "notes").exists()


@pytest.mark.parametrize("part", ["meta", "data"])
def test_nothing_is_done_in_a_repository_that_has_lost_a_part(pcocc: Pcocc, repo: Repo, base: Found, part: str) -> None:
    shutil.move(Path(repo.path, part), Path(repo.path, "away"))
    before = sorted(os.listdir(repo.path))
    for argv in (
        ["repo", "gc", "--grace", "0"], ["import", "../base.qcow2", "new"], ["list"], ["show", "base"],
        ["delete", "base"],
    ):
        assert f"lacks its directory {part}/" in pcocc("image", *argv, ok=False).err
    assert f"error: repository 'user' ({repo.path}) lacks its directory {part}/" in pcocc("image", "repo", "list").out
    assert sorted(os.listdir(repo.path)) == before
    shutil.move(Path(repo.path, "away"), Path(repo.path, part))
    shutil.rmtree(Path(repo.path, ".tmp"))
    assert "0 layers removed" in pcocc("image", "repo", "gc", "--grace", "0").out
    pcocc("image", "verify")


def test_a_repository_without_its_dot_files_is_told(pcocc: Pcocc, repo: Repo, base: Found) -> None:
    for name in (".config", ".lock", ".tmp"):
        path = Path(repo.path, name)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for argv in (["list"], ["show", "base"], ["repo", "gc"], ["import", "../base.qcow2", "new"], ["delete", "base"]):
        said = pcocc("image", *argv, ok=False).err
        assert f"({repo.path}) has no file .config, but its data/ is not empty" in said
        assert said.endswith(f"copy .config too; or make it: echo 'version: 2' >{repo.path}/.config\n")
    Path(repo.path, ".config").write_text("version: 2\n")
    assert "0 layers removed" in pcocc("image", "repo", "gc", "--grace", "0").out
    pcocc("image", "resize", "base", "2M")
    pcocc("image", "verify")


@pytest.mark.parametrize("how", ["flip", "cut", "gone", "rebased", "header"])
def test_verify_finds_damage(pcocc: Pcocc, repo: Repo, base: Found, how: str) -> None:
    top = save(repo, "base", base, 8)
    if how == "flip":
        spoil(base.path, 400000)
    elif how == "cut":
        os.truncate(base.path, 300000)
    elif how == "gone":
        base.path.unlink()
    elif how == "header":
        spoil(base.path, 1)
    else:
        top.path.chmod(0o644)
        qemu_img("rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", top.path)
    done = pcocc("image", "verify", ok=False)
    damaged = {"rebased": ["user:base@1"]}.get(how, ["user:base@0", "user:base@1"])
    assert done.err.count("is damaged") == len(damaged)
    assert [line.split("image ")[1].split()[0] for line in done.err.splitlines() if "error: " in line] == damaged
    if how in ("gone", "rebased", "header"):
        pcocc("image", "export", "base", "x.raw", ok=False)
        with pytest.raises(RequestError):
            images.find_boot_disk("base", [repo])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(data=st.data())
def test_any_metadata_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    good = {"name": "a", "revision": 0, "kind": "vm", "owner": "o", "timestamp": 1.0, "data_blobs": ["0" * 64], "custom_meta": {}}
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
    text = json.dumps({**good, **data.draw(st.dictionaries(st.sampled_from([*good, "description", "x"]), values))})
    cut = data.draw(st.integers(0, len(text)))
    for one in (text, text[:cut]):
        try:
            revision = metadata.parse_revision(one, "a@0", "w")
        except PcoccError as error:
            assert error.message.startswith("the metadata file w is damaged: ")
        else:
            assert metadata.parse_revision(metadata.render_revision(revision).decode(), "a@0", "w") == revision


# where the tables are that lead through an image: qcow2's header and its L1, refcount and L2 tables; VMDK's
# header, descriptor and grain tables; VDI's header and block map; VHDX's headers, region tables, log, BAT;
# VHD's footer, header, BAT
PLACES = {
    "qcow2": [0, 0x10000, 0x20000, 0x30000, 0x40000], "vmdk": [0, 512, 21 * 512, 0x10000], "vdi": [0, 512],
    "vhdx": [0, 1 << 16, 2 << 16, 3 << 16, 1 << 20, 2 << 20, 3 << 20], "vpc": [0, 512, 1536, -512],
}  # fmt: skip


@pytest.mark.parametrize("form", PLACES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(data=st.data())
def test_any_header_is_imported_or_refused(pcocc: Pcocc, repo: Repo, tmp_path: Path, form: str, data: st.DataObject) -> None:
    source = tmp_path / f"fuzz.{form}"
    content = bytearray((make_disk(source, form) if not source.exists() else source).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.sampled_from(PLACES[form])) % len(content) + data.draw(st.integers(0, 160))
        value = data.draw(st.binary(min_size=1, max_size=16) | st.sampled_from([bytes(8), b"\xff" * 8, b"\0\0\0\x80" * 2]))
        content[at : at + len(value)] = value
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    (tmp_path / "bad").write_bytes(content)
    attempt(pcocc, repo, tmp_path, "import", "--format", form, "--update", "bad", "a")


def attempt(pcocc: Pcocc, repo: Repo, directory: Path, *argv: str) -> None:
    """Run a command that may be refused: with one sentence, soon, and without leaving anything behind."""
    start = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        done = pcocc("image", *argv, ok=None)
    assert time.monotonic() - start < limit(20) and leftovers(repo) == [], done


odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.just("sha256:" + "0" * 64) | st.just("../../etc/passwd"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["digest", "size", "mediaType", "platform"]),
                                                                inner),
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(
    st.integers(0, 2), st.dictionaries(st.sampled_from(["manifests", "layers", "config", "annotations"]), odd),
    st.integers(0, 400),
)
def test_any_document_of_a_container_image_is_read_or_refused(
    pcocc: Pcocc, repo: Repo, tmp_path: Path, which: int, changed: dict[str, Any], cut: int
) -> None:
    disk = make_disk(tmp_path / "disk", "raw").read_bytes()
    shutil.rmtree(tmp_path / "oci", ignore_errors=True)
    write_layout(tmp_path / "oci", [layer([("disk/a", disk)])])
    index = json.loads((tmp_path / "oci/index.json").read_text())
    digest = index["manifests"][0]["digest"].partition(":")[2]
    if which:
        manifest = {**json.loads((tmp_path / "oci/blobs/sha256" / digest).read_text()), **changed}
        text = json.dumps(manifest).encode()[: None if which == 1 else cut]
        digest = hashlib.sha256(text).hexdigest()
        (tmp_path / "oci/blobs/sha256" / digest).write_bytes(text)
        index["manifests"][0]["digest"] = f"sha256:{digest}"
    (tmp_path / "oci/index.json").write_text(json.dumps(index if which else {**index, **changed}))
    attempt(pcocc, repo, tmp_path, "import", "--update", "oci:oci", "a")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    part=st.sampled_from(["meta", "data", ".config", "top"]), at=st.integers(0, 2000),
    value=st.binary(min_size=1, max_size=9), cut=st.booleans(),
)
def test_any_damage_to_a_repository_is_told(
    pcocc: Pcocc, repo: Repo, base: Found, tmp_path: Path, part: str, at: int, value: bytes, cut: bool
) -> None:
    path = {"meta": Path(repo.path, "meta/base@0"), "data": base.path, ".config": Path(repo.path, ".config")}.get(part)
    if path is None:
        path = (save(repo, "base", base, 3) if len(images.read_images([repo], [])) == 1 else find("base", repo)).path
    before = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(before[:at] if cut else before[:at] + value + before[at + len(value) :])
    try:
        for argv in (
            ["list"], ["show", "base"], ["verify"], ["export", "--force", "base", "out.raw"], ["repo", "list"],
            ["list", "--json"],
        ):
            attempt(pcocc, repo, tmp_path, *argv)
        if part in ("data", "top") and path.read_bytes() != before:
            pcocc("image", "verify", ok=False)
    finally:
        path.write_bytes(before)
    pcocc("image", "verify")
