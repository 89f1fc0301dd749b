"""kill -9 at each step of each command: what was there before stays, and what was asked for is there completely or not at all."""

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from pcocc_runtime.cli import main as cli
from pcocc_runtime.images import images, in_use, metadata, references
from pcocc_runtime.images.references import Repo
from tests.images import children
from tests.images.disks import Ran, content, find, leftovers, listing, make_disk, raw_sum, save, write_raw
from tests.images.layouts import layer, write_layout
from tests.waiting import wait_closely

Pcocc = Callable[..., Ran]
COMMANDS = [
    ["import", "new.qcow2", "new"],
    ["import", "--update", "new.qcow2", "a"],
    ["copy", "a", "b"],
    ["copy", "a", "site:b"],
    ["copy", "site:far", "far"],
    ["resize", "a", "2M"],
    ["delete", "a@0"],
    ["delete", "a"],
    ["repo", "gc", "--grace", "0"],
    ["export", "a", "out.raw"],
    ["import", "oci:oci", "new"],
    ["save", "a"],
    ["save", "--new", "a"],
]


def do(argv: Sequence[str]) -> int:
    """Run `pcocc image`, or do what `pcocc save` does to repositories."""
    if argv[1] != "save":
        return cli.main(argv)
    repo = Repo("user", str(Path("home/.pcocc/images").absolute()))
    save(repo, "saved" if "--new" in argv else argv[-1], find(argv[-1], repo), 9, new="--new" in argv)
    return 0


@pytest.fixture
def world(pcocc: Pcocc, tmp_path: Path) -> Path:
    """Return a directory with two repositories, an unreferenced layer, and a leftover of a process that is gone."""
    for name, seed in (("a.qcow2", 0), ("new.qcow2", 1), ("far.qcow2", 2), ("lost.qcow2", 3)):
        make_disk(tmp_path / name, seed=seed)
    write_layout(tmp_path / "oci", [layer([("disk/a", write_raw(tmp_path / "raw", 1).read_bytes())], "zstd")], "zstd")
    pcocc("image", "import", "a.qcow2", "a")
    pcocc("image", "resize", "a", "1536K")
    pcocc("image", "import", "far.qcow2", "site:far")
    pcocc("image", "import", "lost.qcow2", "lost")
    (tmp_path / "home/.pcocc/images/meta/lost@0").unlink()
    assert children.run_to_step(15, tmp_path, "image", "import", "new.qcow2", "dead") == -signal.SIGKILL
    return tmp_path


def disks(*every: Repo) -> dict[str, str]:
    """Return the content of every revision there is."""
    found = images.read_images(every, problems := [])
    assert problems == []
    return {one.reference: content(one.path) for one in found}


@pytest.mark.parametrize("argv", COMMANDS, ids=" ".join)
def test_a_killed_command_leaves_all_or_nothing(pcocc: Pcocc, repo: Repo, other: Repo, world: Path, argv: list[str]) -> None:
    before = disks(repo, other)
    saved = world.with_name(f"{world.name}-saved")
    shutil.copytree(world, saved, symlinks=True)
    assert children.wait(children.start(lambda: do(["image", *argv]))) == 0
    after = disks(repo, other)
    step, ended = 0, False
    while not ended:
        shutil.rmtree(world)
        shutil.copytree(saved, world, symlinks=True)
        os.chdir(world)
        status = children.run_to_step(step, world, "image", *argv, do=do)
        assert status in (0, -signal.SIGKILL)
        ended = status == 0
        check(argv, before, after, repo, other, step)
        step += 1
    assert step > 3


def check(argv: list[str], before: dict[str, str], after: dict[str, str], repo: Repo, other: Repo, step: int) -> None:
    now = disks(repo, other)
    if argv == ["delete", "a"]:
        assert before.items() >= now.items() >= after.items() and ("user:a@1" in now or "user:a@0" not in now), step
    else:
        assert now in (before, after), step
    assert not Path("out.raw").exists() or content(Path("out.raw"), "raw") == raw_sum(size=3 << 19)
    done_before = now == after != before or Path("out.raw").exists()
    refused = done_before and argv[0] in ("import", "copy", "resize", "delete", "export") and "--update" not in argv
    if "--new" not in argv or not done_before:
        assert children.wait(children.start(lambda: do(["image", *argv]))) == (1 if refused else 0)
    for name in ("user", "site"):
        assert children.pcocc("image", "repo", "gc", name, "--grace", "0") == 0
    assert leftovers(repo) == [] and leftovers(other) == [] and not list(Path().glob(".pcocc-export-*"))
    assert children.pcocc("image", "verify") == 0
    layers = {layer for one in (repo, other) for found in images.read_images([one], []) for layer in found.revision.layers}
    assert not any("/." in path for one in (repo, other) for path in listing(one))
    stored = {path.rpartition("/")[2] for one in (repo, other) for path in listing(one) if path.startswith("data/")}
    assert stored == layers, step


@pytest.mark.parametrize(
    "argv", [["image", "export", "--force", "a", "out.raw"], ["config", "policy", "-o", "out.raw"]], ids=" ".join
)
def test_a_file_that_is_replaced_is_the_old_one_or_the_new_one(pcocc: Pcocc, world: Path, argv: list[str]) -> None:
    path = world / "out.raw"
    assert children.wait(children.start(lambda: cli.main(argv))) == 0
    new = path.read_bytes()
    step, status = 0, -signal.SIGKILL
    while status:
        path.write_bytes(b"old")
        status = children.run_to_step(step, world, *argv)
        assert status in (0, -signal.SIGKILL) and path.read_bytes() in (b"old", new)
        step += 1
    assert step > 1 and path.read_bytes() == new
    assert cli.main(argv) == 0 and not list(world.glob(".pcocc*"))


def test_a_killed_creation_is_completed(pcocc: Pcocc, repo: Repo, tmp_path: Path) -> None:
    make_disk(tmp_path / "a.qcow2")
    for step in range(1000):
        shutil.rmtree(repo.path, ignore_errors=True)
        if children.run_to_step(step, Path(repo.path), "image", "import", "a.qcow2", "a") == 0:
            break
        assert children.pcocc("image", "list") == 0
        children.pcocc("image", "import", "--update", "a.qcow2", "a")
        assert children.pcocc("image", "verify") == 0 and disks(repo)["user:a@0"] == raw_sum()
    assert step > 10


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a directory with a repository of many, in which another member's image is kept and another has been deleted."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        for part in ("etc", "none", "ours"):
            (directory / part).mkdir()
        (directory / "ours").chmod(0o777)
        (directory / "etc/repos.yaml").write_text(f"repos: [{{name: ours, path: {directory}/ours}}]")
        monkeypatch.setattr("pcocc_runtime.settings.directories.site_dir", lambda environ, uid: f"{directory}/etc")
        monkeypatch.setenv("PCOCC_USER_CONF_DIR", f"{directory}/none")
        for seed, image in enumerate(("keep", "gone")):
            make_disk(directory / image, seed=seed)
            assert children.as_user(OWNER, lambda image=image: cli.main(["image", "import", f"{name}/{image}", image])) == 0
        (directory / "ours/meta/gone@0").unlink()
        yield directory


OWNER, MEMBER = 65533, 65532


def member(*argv: str) -> int:
    """Run `pcocc image` as another member of the repository; return its exit status."""
    return children.wait(children.start(lambda: as_member(["image", *argv])))


def as_member(argv: Sequence[str]) -> int:
    """Become another member of the repository and run a command."""
    os.setgroups([])
    os.setresgid(MEMBER, MEMBER, MEMBER)
    os.setresuid(MEMBER, MEMBER, MEMBER)
    return cli.main(argv)


@pytest.mark.parametrize("used", [True, False])
def test_another_members_layer_that_a_vm_uses_is_put_back(shared: Path, mocker: MockerFixture, used: bool) -> None:
    """An NFS client keeps its VMs' locks to itself until a file is renamed: in this test, locks are not visible before that."""
    repo = Repo("ours", str(shared / "ours"))
    kept = {Path(repo.path, metadata.layer_path(layer)) for layer in find("keep", repo).revision.layers}
    [layer] = set(Path(repo.path, "data").glob("*/*")) - kept
    original = in_use._is_locked
    mocker.patch.object(in_use, "_is_locked", lambda path: path != layer and original(path))
    subprocess.run(["cp", "-a", repo.path, shared / "saved"], check=True)
    step, status = 0, -signal.SIGKILL
    while status:
        subprocess.run(["rm", "-r", repo.path], check=True)
        subprocess.run(["cp", "-a", shared / "saved", repo.path], check=True)
        with open(layer, "rb") as vm:
            if used:
                fcntl.lockf(vm, fcntl.LOCK_SH, 1, 100)
            status = children.run_to_step(step, shared, "image", "repo", "gc", "--grace", "0", do=as_member)
            assert status in (0, -signal.SIGKILL) and all(path.exists() for path in kept), step
            assert member("copy", "keep", f"copy{step}") == 0
            assert leftovers(repo) == [] and (not used or layer.exists()), step
            assert member("repo", "gc", "--grace", "0") == 0
            assert leftovers(repo) == [] and layer.exists() == used, step
        if used:
            assert member("repo", "gc", "--grace", "0") == 0
        assert set(Path(repo.path, "data").glob("*/*")) == kept, step
        step += 1
    assert step > 15 and children.pcocc("image", "verify") == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_qemu_img_ends_with_the_command(pcocc: Pcocc, repo: Repo, tmp_path: Path, number: int) -> None:
    write_raw(tmp_path / "slow.raw", size=64 << 20, used=64 << 20)
    fifo_slow = tmp_path / "bin"
    fifo_slow.mkdir()
    (fifo_slow / "qemu-img").write_text(
        f'#!/bin/sh\n[ "$1" = convert ] && {{ echo $$ > {tmp_path}/pid; exec sleep 300; }}\nexec /usr/bin/qemu-img "$@"\n'
    )
    (fifo_slow / "qemu-img").chmod(0o755)
    os.environ["PATH"] = f"{fifo_slow}:{os.environ['PATH']}"

    def run() -> int:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return cli.main(["image", "import", "slow.raw", "a"])

    try:
        child = children.start(run)
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
            time.sleep(0.01)
        os.kill(child, number)
        assert children.wait(child) == (-9 if number == signal.SIGKILL else 128 + number)
    finally:
        os.environ["PATH"] = os.environ["PATH"].partition(":")[2]
    converter = Path("/proc", (tmp_path / "pid").read_text().strip(), "stat")
    wait_closely(
        lambda: not converter.exists() or converter.read_text().rpartition(")")[2].split()[0] == "Z",
        "the converter's end",
    )
    assert bool(leftovers(repo)) == (number == signal.SIGKILL) and listing(repo) == {}
    pcocc("image", "import", "slow.raw", "a")
    assert leftovers(repo) == []
    assert content(images.find_image(references.parse_reference("a"), [repo]).path) == content(tmp_path / "slow.raw", "raw")
