"""Repositories that several people use: at the same time, and also without the rights for it."""

import fcntl
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pytest_mock import MockerFixture

from pcocc_runtime.cli import main as cli
from pcocc_runtime.images import claims, images, in_use, qemu_img, references, repository
from pcocc_runtime.images.images import Found
from pcocc_runtime.images.references import Repo
from pcocc_runtime.system import held, locks
from tests.images import children
from tests.images.disks import Ran, content, leftovers, listing, make_disk, raw_sum, save

Pcocc = Callable[..., Ran]
NOBODY, SOMEBODY = 65533, 65532


def test_two_who_save_to_one_image_get_revisions_of_their_own(pcocc: Pcocc, repo: Repo, tmp_path: Path) -> None:
    for seed in range(8):
        make_disk(tmp_path / f"{seed}.qcow2", seed=seed)
    pcocc("image", "import", "0.qcow2", "a")

    def start(seed: int) -> int:
        return children.start(lambda: cli.main(["image", "import", "--update", f"{seed}.qcow2", "a"]), tmp_path / f"out{seed}")

    assert [children.wait(child) for child in [start(seed) for seed in range(1, 8)]] == [0] * 7
    found = images.read_images([repo], [])
    assert [one.revision.revision for one in found] == list(range(8))
    assert {content(one.path) for one in found} == {raw_sum(seed) for seed in range(8)}
    said = {int(re.findall(r"@(\d+)", (tmp_path / f"out{seed}").read_text())[0]): raw_sum(seed) for seed in range(1, 8)}
    assert said == {one.revision.revision: content(one.path) for one in found[1:]}


def test_two_who_make_one_image_cannot_both(pcocc: Pcocc, repo: Repo, tmp_path: Path) -> None:
    for seed in (1, 2):
        make_disk(tmp_path / f"{seed}.qcow2", seed=seed)
    for _ in range(5):
        shutil.rmtree(repo.path, ignore_errors=True)
        pair = [children.start(lambda seed=seed: cli.main(["image", "import", f"{seed}.qcow2", "a"])) for seed in (1, 2)]
        assert sorted(children.wait(child) for child in pair) == [0, 1]
        assert len(images.read_images([repo], [])) == 1 and leftovers(repo) == []


def test_imports_copies_deletes_and_gc_at_once_lose_nothing(pcocc: Pcocc, repo: Repo, tmp_path: Path) -> None:
    for seed in range(3):
        make_disk(tmp_path / f"{seed}.qcow2", seed=seed)
    pcocc("image", "import", "0.qcow2", "keep")

    def work(seed: int) -> int:
        for turn in range(6):
            steps = (
                ["import", f"{seed}.qcow2", f"i{seed}"],
                ["resize", f"i{seed}", f"{turn + 2}M"],
                ["copy", f"i{seed}", f"c{seed}"],
                ["delete", f"i{seed}"],
                ["resize", f"c{seed}", "+1M"],
                ["verify", "-R", "user"],
                ["delete", f"c{seed}"],
            )
            for argv in steps:
                done = cli.main(["image", *argv])
                if done:
                    return turn + 1
        return 0

    def collect() -> int:
        return max(cli.main(["image", "repo", "gc", "--grace", "0"]) for _ in range(60))

    crew = [children.start(lambda seed=seed: work(seed), tmp_path / f"out{seed}") for seed in range(3)]
    crew.append(children.start(collect, tmp_path / "gc"))
    assert [children.wait(child) for child in crew] == [0] * 4, [
        (tmp_path / f"out{seed}").read_text()[-400:] for seed in range(3)
    ]
    pcocc("image", "repo", "gc", "--grace", "0")
    assert content(images.find_image(references.parse_reference("keep"), [repo]).path) == raw_sum()
    assert len(listing(repo)) == 2 and leftovers(repo) == []


def test_a_lock_that_is_held_is_waited_for_and_its_holder_named(
    pcocc: Pcocc, repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_disk(tmp_path / "a.qcow2")
    pcocc("image", "import", "a.qcow2", "a")

    def hold() -> int:
        with open(Path(repo.path, ".lock"), "r+") as stream:
            fcntl.lockf(stream, fcntl.LOCK_EX)
            (tmp_path / "held").touch()
            time.sleep(300)
        return 0

    holder = children.start(hold)
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    with monkeypatch.context() as patch:
        patch.setattr("pcocc_runtime.images.claims.LOCK_WAIT", 0.3)
        assert re.search(
            r"repository 'user' is busy: process \d+ on \S+ has held its lock", pcocc("image", "delete", "a", ok=False).err
        )
    pcocc("image", "show", "a")  # to read needs no lock
    waiting = children.start(lambda: cli.main(["image", "delete", "a"]))
    time.sleep(0.3)
    assert os.waitpid(waiting, os.WNOHANG) == (0, 0)
    os.kill(holder, signal.SIGKILL)
    assert children.wait(holder) == -signal.SIGKILL and children.wait(waiting) == 0
    assert listing(repo) == {}


@pytest.mark.parametrize(("stale", "swept"), [(["lstat"], 0), (["lstat", "fstat"], 1)])
def test_work_that_ends_on_another_host_is_no_failure(
    tmp_path: Path, mocker: MockerFixture, stale: list[str], swept: int
) -> None:
    """An NFS client may still know the name, or even the state, of a file that is gone (seen on NFS 4.2, Linux 6.1)."""
    lock = tmp_path / ".work-elsewhere-7-00.lock"
    lock.touch()
    before = lock.stat()
    mocker.patch.object(locks, "os", SimpleNamespace(**{**vars(os), **{name: lambda _file: before for name in stale}}))
    mocker.patch.object(claims, "_try_lock", lambda _fd, path: path.unlink() or True)  # who made it has ended just before
    assert claims.sweep(tmp_path, ".work-") == swept


def test_a_client_that_keeps_its_locks_to_itself_is_asked_for_them(tmp_path: Path, mocker: MockerFixture) -> None:
    """An NFS 4 client with a delegation tells its locks when the file is changed: here, when its ctime is."""
    layer = tmp_path / "layer"
    layer.touch(0o444)
    before = layer.stat()
    mocker.patch.object(in_use, "_is_locked", lambda path: path.stat().st_ctime_ns > before.st_ctime_ns)
    time.sleep(0.02)  # two ticks of a file system's clock
    assert in_use.is_in_use(layer)
    assert (layer.stat().st_mode, layer.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


def test_a_layer_is_looked_for_anew(pcocc: Pcocc, repo: Repo, base: Found) -> None:
    """An NFS client asks for names anew in a directory that it has changed."""
    [layer] = base.revision.layers
    before = base.path.parent.stat().st_mtime_ns
    time.sleep(0.02)
    assert repository.has_layer(repo, layer) and not repository.has_layer(repo, "0" * 64)
    assert base.path.parent.stat().st_mtime_ns > before and [path.name for path in base.path.parent.iterdir()] == [layer]


@pytest.fixture
def public() -> Iterator[Path]:
    """Return a directory that other users can enter."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture
def site(public: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return a site in `public` with a repository `site` of root's, and a home for NOBODY and for SOMEBODY."""
    (public / "etc").mkdir()
    (public / "etc/repos.yaml").write_text(
        f"repos:\n- {{name: user, path: '%{{homedir}}/images'}}\n- {{name: site, path: {public}/images}}\n"
    )
    for uid in (NOBODY, SOMEBODY):
        (public / str(uid)).mkdir()
        os.chown(public / str(uid), uid, uid)
    monkeypatch.setattr("pcocc_runtime.settings.directories.site_dir", lambda environ, uid: str(public / "etc"))
    (public / "conf").mkdir()
    monkeypatch.setenv("PCOCC_USER_CONF_DIR", str(public / "conf"))
    monkeypatch.setenv("HOME", str(public / "0"))
    (public / "0").mkdir()
    make_disk(public / "a.qcow2")
    assert children.pcocc("image", "import", str(public / "a.qcow2"), "site:a") == 0
    return public


def user_runs(site: Path, uid: int, *argv: str) -> tuple[int, str]:
    """Run `pcocc image` as a user; return its exit status and what it said."""
    with tempfile.NamedTemporaryFile(dir=site) as out:
        os.chmod(out.name, 0o666)

        def run() -> int:
            os.environ["HOME"] = str(site / str(uid))
            os.chdir(site / str(uid))
            return cli.main(["image", *argv])

        return children.as_user(uid, run, Path(out.name)), Path(out.name).read_text()


def test_users_read_the_sites_images_and_cannot_change_them(site: Path) -> None:
    before = listing(Repo("site", str(site / "images")))
    assert user_runs(site, NOBODY, "list")[1].split()[8] == "a"
    assert user_runs(site, NOBODY, "verify")[0] == 0
    assert user_runs(site, NOBODY, "export", "a", "a.raw")[0] == 0
    assert user_runs(site, NOBODY, "copy", "a", "mine") == (0, "stored as user:mine@0\n")
    for argv in (
        ["import", "../a.qcow2", "site:b"],
        ["copy", "a", "site:b"],
        ["delete", "site:a"],
        ["resize", "site:a", "2M"],
        ["repo", "gc", "site"],
    ):
        status, text = user_runs(site, NOBODY, *argv)
        assert status == 1 and "repository 'site'" in text and "you may not change" in text and ": Permission denied" in text
    assert listing(Repo("site", str(site / "images"))) == before
    assert user_runs(site, NOBODY, "show", "a")[0] == 0 and not children.as_user(
        NOBODY, lambda: os.access(site / "images/.lock", os.R_OK)
    )
    text = user_runs(site, NOBODY, "repo", "list")[1]
    assert re.search(r"user .*writable.*\n.*site .*read-only", text)


def test_a_layer_that_another_may_not_read_is_not_called_damaged(site: Path) -> None:
    [layer] = (site / "images/data").glob("*/*")
    layer.chmod(0o400)
    status, text = user_runs(site, NOBODY, "verify")
    assert status == 1 and "damaged" not in text and "delete" not in text
    assert f"image site:a@0 cannot be verified: you may not read {layer}: Permission denied" in text


def test_what_is_exported_to_a_public_directory_is_nobody_elses_to_change(site: Path, mocker: MockerFixture) -> None:
    seen: list[int] = []

    def convert(image: str, form: str, target: Path, *rest: Any, **more: Any) -> None:
        work = Path(held.show(str(target.parent)))
        seen.extend(path.stat().st_mode & 0o777 for path in (work, work.with_name(work.name + ".lock")))
        original(image, form, target, *rest, **more)

    original = qemu_img.convert
    mocker.patch("pcocc_runtime.images.qemu_img.convert", convert)
    (site / "tmp").mkdir()
    (site / "tmp").chmod(0o1777)
    assert cli.main(["image", "export", "a", f"{site}/tmp/a.raw"]) == 0
    assert seen == [0o700, 0o600] and (site / "tmp/a.raw").stat().st_mode & 0o777 == 0o644


def test_a_layer_that_cannot_be_looked_at_is_kept(site: Path) -> None:
    """Another member's layer, with a mode that pcocc 0.7 gives under a strict umask: VMs may use it."""
    shared = site / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    (site / "etc/repos.yaml").write_text(f"repos: [{{name: ours, path: {shared}}}]")
    assert user_runs(site, NOBODY, "import", str(site / "a.qcow2"), "a")[0] == 0
    [path] = [path for path in (shared / "data").glob("*/*") if path.is_file()]
    path.chmod(0o400)
    status, text = user_runs(site, SOMEBODY, "delete", "a")
    assert status == 0 and "1 layer left, because you may not read or remove them: " in text and "Permission denied" in text
    assert path.exists() and "1 layer removed" in user_runs(site, NOBODY, "repo", "gc", "--grace", "0")[1]


def test_a_private_repository_is_private(site: Path) -> None:
    (site / str(NOBODY)).chmod(0o700)
    assert user_runs(site, NOBODY, "copy", "a", "mine")[0] == 0
    (site / "etc/repos.yaml").write_text(f"repos: [{{name: his, path: {site}/{NOBODY}/images}}]")
    status, text = user_runs(site, SOMEBODY, "list")
    assert status == 1 and "repository 'his'" in text and "Permission denied" in text


def test_a_group_shares_a_repository(site: Path) -> None:
    shared = site / "shared"
    shared.mkdir()
    shared.chmod(0o777)  # for two users, this serves as a group
    (site / "etc/repos.yaml").write_text(f"repos: [{{name: ours, path: {shared}}}]")
    assert user_runs(site, NOBODY, "import", str(site / "a.qcow2"), "a")[0] == 0
    assert user_runs(site, SOMEBODY, "resize", "a", "2M") == (0, "stored as ours:a@1\n")
    assert "1 layer removed" in user_runs(site, NOBODY, "delete", "a@1")[1]
    assert user_runs(site, SOMEBODY, "delete", "a")[0] == 0
    assert listing(Repo("ours", str(shared))) == {}


def test_a_repository_that_another_completes_this_moment_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = Repo("ours", str(tmp_path / "ours"))
    repository.make_root(repo)
    real = os.listdir

    def complete_first(path: str) -> list[str]:
        monkeypatch.setattr(os, "listdir", real)
        repository.complete(repo)
        return real(path)

    monkeypatch.setattr(os, "listdir", complete_first)
    assert repository.is_created(repo)


def test_two_users_save_to_one_image_at_the_same_time(site: Path) -> None:
    """Two real users in a group whose directory it is: each gets revisions of its own, and both can read all."""
    group, shared = 65531, site / "shared"
    shared.mkdir()
    os.chown(shared, 0, group)
    shared.chmod(0o2770)
    (site / "etc/repos.yaml").write_text(f"repos: [{{name: ours, path: {shared}}}, {{name: site, path: {site}/images}}]")
    repo = Repo("ours", str(shared))
    overlays = {
        uid: [make_disk(site / f"{uid}-{turn}.qcow2", seed=uid + turn) for turn in range(4)]
        for uid in (NOBODY, SOMEBODY)
    }

    def work(uid: int) -> int:
        os.environ["HOME"] = str(site / str(uid))
        for turn, path in enumerate(overlays[uid]):
            status = cli.main(["image", "import", "--update", str(path), "a"])
            found = images.find_image(references.parse_reference("a"), [repo])
            save(repo, "a", found, uid % 50 + turn)
            if status:
                return status
        return cli.main(["image", "repo", "gc", "--grace", "0"]) or cli.main(["image", "verify"])

    crew = [children.start_as(uid, lambda uid=uid: work(uid), site / f"out{uid}", [group]) for uid in (NOBODY, SOMEBODY)]
    assert [children.wait(child) for child in crew] == [0, 0], [(site / f"out{uid}").read_text() for uid in (NOBODY, SOMEBODY)]
    found = images.read_images([repo], problems := [])
    assert problems == [] and [one.revision.revision for one in found] == list(range(16))
    assert {one.revision.owner for one in found} == {str(NOBODY), str(SOMEBODY)}
    sums = {content(one.path) for one in found if len(one.revision.layers) == 1}
    assert sums == {raw_sum(uid + turn) for uid in (NOBODY, SOMEBODY) for turn in range(4)}
    other = children.start_as(SOMEBODY, lambda: cli.main(["image", "delete", "a"]), None, [group])
    assert children.wait(other) == 0 and listing(repo) == {} and leftovers(repo) == []
