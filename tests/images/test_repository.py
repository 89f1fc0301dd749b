"""What a repository holds: layers on layers, names on layers; moved, shared, read-only, from pcocc 0.7, damaged."""

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pcocc_runtime import imagegc, imagemeta, images, repos
from pcocc_runtime.errors import PcoccError, RequestError
from pcocc_runtime.images import Found
from pcocc_runtime.repos import Repo
from tests.images.disks import Ran, content, leftovers, listing, make_disk, qemu_img, raw_sum

Pcocc = Callable[..., Ran]


def find(text: str, *every: Repo) -> Found:
    return images.find_image(repos.parse_reference(text), every)


def save(repo: Repo, name: str, parent: Found, seed: int, new: bool = False) -> Found:
    """Do what a save does: write into an overlay of a VM's disk, and make it a revision."""
    with images.open_work(repo) as work:
        images.pin(work, parent.revision.layers)
        layer = work.path / "saved"
        qemu_img("create", "-q", "-f", "qcow2", "-b", parent.path, "-F", "qcow2", layer)
        subprocess.run(
            ["qemu-io", "-f", "qcow2", "-c", f"write -P {seed} {seed * 4096} 4096", layer], check=True, capture_output=True
        )
        return Found(repo, images.add_revision(work, name, layer, parent, new=new))


def patched(*seeds: int, seed: int = 0, size: int = 1 << 20) -> str:
    """Return the sha256 of `write_raw`'s content after these saves."""
    import random

    data = bytearray(random.Random(seed).randbytes(1 << 18) + bytes(size - (1 << 18)))
    for one in seeds:
        data[one * 4096 : one * 4096 + 4096] = bytes([one]) * 4096
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def base(pcocc: Pcocc, repo: Repo, tmp_path: Path) -> Found:
    """Return an imported image, user:base@0."""
    make_disk(tmp_path / "base.qcow2")
    pcocc("image", "import", "base.qcow2", "base")
    return find("base", repo)


def test_a_save_is_a_layer_on_the_layers_before(pcocc: Pcocc, repo: Repo, base: Found) -> None:
    first = save(repo, "base", base, 1)
    second = save(repo, "base", first, 2)
    assert [one.revision.revision for one in (base, first, second)] == [0, 1, 2]
    assert second.revision.layers[:1] == base.revision.layers
    assert content(second.path) == patched(1, 2) and content(first.path) == patched(1) and content(base.path) == raw_sum()
    info = json.loads(qemu_img("info", "--output=json", second.path))
    assert info["backing-filename"] == imagemeta.backing_name(first.revision.layers[-1])
    pcocc("image", "verify")


def test_a_repository_can_be_moved(pcocc: Pcocc, repo: Repo, base: Found, tmp_path: Path) -> None:
    save(repo, "base", base, 3)
    shutil.move(repo.path, tmp_path / "elsewhere")
    moved = Repo("moved", str(tmp_path / "elsewhere"))
    assert content(find("base", moved).path) == patched(3)
    images.ensure_disk(find("base", moved))


def test_a_new_image_can_build_on_another_repository(pcocc: Pcocc, repo: Repo, other: Repo, base: Found) -> None:
    new = save(other, "mine", base, 4, new=True)
    assert new.reference == "site:mine@0" and content(new.path) == patched(4)
    shutil.rmtree(repo.path)
    assert content(new.path) == patched(4)


def test_resize_makes_a_larger_revision(pcocc: Pcocc, repo: Repo, base: Found) -> None:
    assert pcocc("image", "resize", "base", "3M").out == "stored as user:base@1\n"
    assert content(find("base", repo).path) == raw_sum(size=3 << 20)
    pcocc("image", "resize", "base", "+1M")
    assert content(find("base", repo).path) == raw_sum(size=4 << 20)
    for size in ("1M", "x", "+", "-1G", "1.5G", "100", "9999999999T"):
        pcocc("image", "resize", "--", "base", size, ok=False)
    assert "a disk cannot be made smaller" in pcocc("image", "resize", "base", "3M", ok=False).err


def test_too_many_layers_are_refused_when_they_are_made(pcocc: Pcocc, repo: Repo, base: Found) -> None:
    for number in range(1, imagemeta.MAX_LAYERS):
        pcocc("image", "resize", "base", f"{number + 1}M")
    assert "has 16 layers, an image can have 16" in pcocc("image", "resize", "base", "1G", ok=False).err
    pcocc("image", "export", "base", "flat.qcow2")
    pcocc("image", "import", "flat.qcow2", "flat")
    assert content(find("flat", repo).path) == raw_sum(size=16 << 20)


def test_copies_share_layers_or_bring_them(pcocc: Pcocc, repo: Repo, other: Repo, base: Found) -> None:
    save(repo, "base", base, 5)
    before = listing(repo)
    pcocc("image", "copy", "base@0", "twin")
    assert set(listing(repo)) - set(before) == {"meta/twin@0"}
    pcocc("image", "copy", "base", "site:far")
    assert content(find("site:far", other).path) == patched(5)
    assert "has an image 'far' already" in pcocc("image", "copy", "base", "site:far", ok=False).err


def test_a_damaged_layer_is_not_copied(pcocc: Pcocc, repo: Repo, other: Repo, base: Found) -> None:
    spoil(base.path, 300000)
    assert "is damaged: the content of layer" in pcocc("image", "copy", "base", "site:far", ok=False).err
    assert listing(other) == {} and leftovers(other) == []


def spoil(path: Path, at: int) -> None:
    """Change one byte of a file."""
    path.chmod(0o644)
    with open(path, "r+b") as stream:
        stream.seek(at)
        byte = stream.read(1)
        stream.seek(at)
        stream.write(bytes([byte[0] ^ 255]))


def test_deleting_frees_what_nobody_else_needs(pcocc: Pcocc, repo: Repo, base: Found) -> None:
    top = save(repo, "base", base, 6)
    pcocc("image", "copy", "base@0", "twin")
    assert "1 revision deleted; 0 layers removed" in pcocc("image", "delete", "base@0").out
    assert content(top.path) == patched(6) and base.path.exists()
    assert "1 layer removed" in pcocc("image", "delete", "base").out
    assert not top.path.exists() and content(find("twin", repo).path) == raw_sum()
    pcocc("image", "delete", "twin")
    assert listing(repo) == {}


@pytest.mark.parametrize("name", ["nope", "base@7", "site:base", "nowhere:base", "base@x"])
def test_deleting_what_is_not_there_is_refused(pcocc: Pcocc, repo: Repo, base: Found, name: str) -> None:
    before = listing(repo)
    pcocc("image", "delete", name, ok=False)
    assert listing(repo) == before


def test_deleting_never_goes_on_to_another_repository(pcocc: Pcocc, repo: Repo, other: Repo, base: Found) -> None:
    pcocc("image", "copy", "base", "site:only")
    said = pcocc("image", "delete", "only", ok=False).err
    assert "there is no image 'only' in repository 'user'" in said and "hint: there is site:only" in said
    assert find("site:only", other)


def test_layers_that_a_vm_uses_are_kept(pcocc: Pcocc, repo: Repo, base: Found, tmp_path: Path) -> None:
    top = save(repo, "base", base, 7)
    qemu_img("create", "-q", "-f", "qcow2", "-b", top.path, "-F", "qcow2", tmp_path / "overlay")
    with subprocess.Popen(["qemu-io", "-f", "qcow2", tmp_path / "overlay"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as vm:
        assert vm.stdin and vm.stdout
        vm.stdin.write(b"read 0 512\n")
        vm.stdin.flush()
        vm.stdout.readline()
        assert "2 layers in use by running VMs" in pcocc("image", "delete", "base").err
        assert "2 layers in use by running VMs" in pcocc("image", "repo", "gc", "--grace", "0").err
        assert content(top.path) == patched(7)
        vm.stdin.close()
    assert "2 layers removed" in pcocc("image", "repo", "gc", "--grace", "0").out
    assert listing(repo) == {}


def test_gc_leaves_young_layers_and_takes_old_ones(pcocc: Pcocc, repo: Repo, base: Found) -> None:
    Path(repo.path, "meta/base@0").unlink()
    done = pcocc("image", "repo", "gc")
    assert "0 layers removed" in done.out and "1 layer came within the last 10 minutes" in done.err
    assert "1 layer removed" in pcocc("image", "repo", "gc", "user", "--grace", "0").out


def test_gc_takes_nothing_when_it_cannot_know_what_is_needed(pcocc: Pcocc, repo: Repo, base: Found) -> None:
    Path(repo.path, "meta/base@0").write_text("{")
    assert "nobody knows which are needed" in pcocc("image", "repo", "gc", "--grace", "0").err
    assert base.path.exists()
    pcocc("image", "delete", "base@0")
    assert "1 layer removed" in pcocc("image", "repo", "gc", "--grace", "0").out


def write_old_repository(root: Path, disk: Path, **changed: Any) -> str:
    """Write a repository as pcocc 0.7 does: version 2, one image of one layer; return the layer's sum."""
    digest = hashlib.sha256(disk.read_bytes()).hexdigest()
    (root / "data" / digest[:2]).mkdir(parents=True)
    (root / "meta").mkdir()
    (root / ".tmp").mkdir()
    (root / ".config").write_text("version: 2\n")
    shutil.copyfile(disk, root / "data" / digest[:2] / digest)
    meta = {
        "name": "old",
        "revision": 0,
        "kind": "vm",
        "owner": "alice",
        "timestamp": 1700000000.25,
        "data_blobs": [digest],
        "custom_meta": {},
    }
    (root / "meta/old@0").write_text(json.dumps({**meta, **changed}))
    return digest


def test_a_repository_of_the_original_is_read_and_written(pcocc: Pcocc, repo: Repo, other: Repo, tmp_path: Path) -> None:
    digest = write_old_repository(Path(other.path), make_disk(tmp_path / "old.qcow2"))
    assert "old" in pcocc("image", "list").out and "1M" in pcocc("image", "list", "old").out
    assert content(find("old", other).path) == raw_sum()
    assert pcocc("image", "resize", "old", "2M").out == "stored as site:old@1\n"
    meta = json.loads(Path(other.path, "meta/old@1").read_text())
    assert set(meta) == {"name", "revision", "kind", "owner", "timestamp", "data_blobs", "custom_meta"}
    assert meta["data_blobs"][0] == digest and isinstance(meta["custom_meta"], dict)
    pcocc("image", "verify")
    before = listing(other)
    Path(other.path, ".tmp/tmpabc").write_text("left by pcocc 0.7")
    os.utime(Path(other.path, ".tmp/tmpabc"))
    pcocc("image", "repo", "gc", "site", "--grace", "0")
    assert listing(other) == before and leftovers(other) == ["tmpabc"]  # it may be at work


def test_a_size_that_the_original_carries_on_is_not_believed(pcocc: Pcocc, repo: Repo, base: Found) -> None:
    pcocc("image", "resize", "base", "5M")
    for revision in (0, 1):
        path = Path(repo.path, f"meta/base@{revision}")
        meta = json.loads(path.read_text())
        meta["custom_meta"]["disk"] = {"layer": "0" * 64, "size": 7 << 40}
        path.write_text(json.dumps(meta))
    assert "  5M  " in pcocc("image", "list").out and "disk    5M\n" in pcocc("image", "show", "base").out


def test_a_container_image_is_listed_copied_and_refused_for_vms(pcocc: Pcocc, repo: Repo, other: Repo, tmp_path: Path) -> None:
    digest = write_old_repository(Path(other.path), make_disk(tmp_path / "old.qcow2"), kind="ctr")
    meta = Path(other.path, "meta/old@0")
    meta.write_text(meta.read_text().replace(digest, f"sha256:{digest}"))
    pcocc("image", "copy", "old", "user:ctr")
    assert find("ctr", repo).revision.blobs == (f"sha256:{digest}",) and "ctr" in pcocc("image", "list").out
    assert "is a container's, not a VM's" in pcocc("image", "export", "ctr", "x.raw", ok=False).err
    pcocc("image", "verify")


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


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "other"}, "it is about another image"),
        ({"revision": 1}, "it is about another image"),
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
    for name in (".x@0", "base", "base@01", "base@0~", "base@-1", "a b@0"):
        Path(repo.path, "meta", name).touch()
    Path(repo.path, "meta/dir@0").mkdir()
    os.mkfifo(Path(repo.path, "meta/fifo@0"))
    Path(repo.path, "data/readme").write_text("x")
    (base.path.parent / "notes").write_text("x")
    done = pcocc("image", "list", ok=False)
    assert [line.split()[0] for line in done.out.splitlines()] == ["NAME", "base"] and done.err.count("error: ") == 2
    Path(repo.path, "meta/dir@0").rmdir()
    Path(repo.path, "meta/fifo@0").unlink()
    pcocc("image", "repo", "gc", "--grace", "0")
    assert base.path.exists() and (base.path.parent / "notes").exists()


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
            revision = imagemeta.parse_revision(one, "a@0", "w")
        except PcoccError as error:
            assert error.message.startswith("the metadata file w is damaged: ")
        else:
            assert imagemeta.parse_revision(imagemeta.render_revision(revision).decode(), "a@0", "w") == revision


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(at=st.integers(0, 600), value=st.binary(min_size=1, max_size=16))
def test_any_header_is_imported_or_refused(pcocc: Pcocc, repo: Repo, tmp_path: Path, at: int, value: bytes) -> None:
    source = tmp_path / "fuzz.qcow2"
    data = bytearray((make_disk(source) if not source.exists() else source).read_bytes())
    data[at : at + len(value)] = value
    (tmp_path / "bad").write_bytes(data)
    start = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        try:
            done = pcocc("image", "import", "--format", "qcow2", "--update", "bad", "a")
        except AssertionError:
            done = pcocc("image", "import", "--format", "qcow2", "--update", "bad", "a", ok=False)
    assert time.monotonic() - start < 20 and leftovers(repo) == [], done


def test_work_that_is_under_way_is_safe_from_gc(pcocc: Pcocc, repo: Repo, base: Found) -> None:
    with images.open_work(repo) as work:
        assert images.pin(work, base.revision.layers) == []
        (work.path / "layer").write_text("half")
        for argv in (["delete", "base"], ["repo", "gc", "--grace", "0"]):
            subprocess_run(*argv, repo=repo)
        assert base.path.exists() and (work.path / "layer").exists()
    imagegc.collect(repo, 0)
    assert not base.path.exists() and leftovers(repo) == []


def subprocess_run(*argv: str, repo: Repo) -> None:
    """Run `pcocc image` in another process: a process's own locks do not keep it out."""
    child = os.fork()
    if not child:
        from pcocc_runtime import cli

        os._exit(cli.main(["image", *argv]))
    assert os.waitpid(child, 0)[1] == 0
