"""What a member of a group tries to do to another member in their common repository: nothing of hers is overwritten, read or
published.

Each attack is also tried against the code as it was before (`disarm`), where it must succeed: otherwise the test would prove
nothing.
"""

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pcocc_runtime.cli import main as cli
from pcocc_runtime.images import images, in_use, qemu_img, references, removing, repository, writing
from pcocc_runtime.images.references import Repo
from tests.attack.shared import GROUP, PRECIOUS, Moment, Ours, at, disarm, plant, swap
from tests.attack.user import ALICE, BOB
from tests.images import children
from tests.images.disks import content, raw_sum, write_raw

BOTH = pytest.mark.parametrize("armed", [True, False], ids=["now", "before"])


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ours]:
    """Return the directory, in which the group's repository does not exist yet."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        found = Ours(Path(name), Path(name, "ours"), Path(name, "home"))
        found.directory.chmod(0o755)
        for part in ("etc", "none", "ours", "home"):
            (found.directory / part).mkdir()
        os.chown(found.root, BOB, GROUP)
        found.root.chmod(0o2775)
        os.chown(found.home, ALICE, ALICE)
        found.home.chmod(0o700)
        found.precious.write_bytes(PRECIOUS)
        os.chown(found.precious, ALICE, ALICE)
        found.precious.chmod(0o600)
        (found.directory / "etc/repos.yaml").write_text(
            f"repos: [{{name: ours, path: {found.root}}}, {{name: mine, path: {found.home}/images}}]"
        )
        monkeypatch.setattr("pcocc_runtime.settings.directories.site_dir", lambda environ, uid: f"{name}/etc")
        monkeypatch.setenv("PCOCC_USER_CONF_DIR", f"{name}/none")
        write_raw(found.directory / "a.raw").chmod(0o644)
        yield found


def filled(ours: Ours) -> None:
    """Have an image in the repository."""
    assert ours.alice("import", "../a.raw", "a")[0] == 0


@contextlib.contextmanager
def attacked(ours: Ours, patch: pytest.MonkeyPatch, place: object, name: str, attack: Callable[[], object]) -> Iterator[None]:
    """Let Bob do something at a moment of what Alice does in the block."""
    bob = Moment(attack, ours.root)
    at(patch, place, name, bob)
    yield
    bob.end()


@BOTH
@pytest.mark.parametrize("trick", [plant, swap])
def test_a_link_in_the_place_of_a_layer(
    ours: Ours, monkeypatch: pytest.MonkeyPatch, armed: bool, trick: Callable[..., Callable[[], None]]
) -> None:
    if not armed:
        disarm(monkeypatch)
    with attacked(ours, monkeypatch, qemu_img, "convert", trick("layer", ours.precious)):
        ours.alice("import", "../a.raw", "a")
    assert (ours.precious.read_bytes() == PRECIOUS) == armed


@BOTH
@pytest.mark.parametrize("trick", [plant, swap])
def test_a_link_in_the_place_of_a_source_publishes_what_it_leads_to(
    ours: Ours, monkeypatch: pytest.MonkeyPatch, armed: bool, trick: Callable[..., Callable[[], None]]
) -> None:
    if not armed:
        disarm(monkeypatch)
    secret = write_raw(ours.home / "secret", seed=7)
    os.chown(secret, ALICE, ALICE)
    secret.chmod(0o600)
    with (
        attacked(ours, monkeypatch, qemu_img, "read_extent", trick("source", secret)),
        open(ours.directory / "a.raw", "rb") as stream,
    ):
        saved = os.dup(0)
        os.dup2(stream.fileno(), 0)
        ours.alice("import", "-", "a")
        os.dup2(saved, 0)
        os.close(saved)
    found = images.find_image(references.parse_reference("a"), [Repo("ours", str(ours.root))])
    assert content(found.path) == (raw_sum() if armed else raw_sum(seed=7))


@BOTH
def test_a_link_in_the_place_of_metadata(ours: Ours, monkeypatch: pytest.MonkeyPatch, armed: bool) -> None:
    if not armed:
        disarm(monkeypatch)
    with attacked(ours, monkeypatch, repository, "put_revision", plant("meta", ours.precious)):
        ours.alice("import", "../a.raw", "a")
    assert (ours.precious.read_bytes() == PRECIOUS) == armed


@BOTH
def test_a_link_in_the_place_of_pins(ours: Ours, monkeypatch: pytest.MonkeyPatch, armed: bool) -> None:
    filled(ours)
    if not armed:
        disarm(monkeypatch)

    def attack() -> None:
        for name in os.listdir(".tmp"):
            if name.startswith(".work-") and name.endswith(".lock"):
                Path(".tmp", name.removesuffix(".lock") + ".note").symlink_to(ours.precious)
        plant("pins", ours.precious)()

    with attacked(ours, monkeypatch, writing, "pin", attack):
        ours.alice("resize", "a", "2M")
    assert (ours.precious.read_bytes() == PRECIOUS) == armed


@BOTH
def test_a_link_in_the_place_of_a_new_repositorys_config(ours: Ours, monkeypatch: pytest.MonkeyPatch, armed: bool) -> None:
    if not armed:
        disarm(monkeypatch)

    def attack() -> None:
        Path(".tmp").mkdir()
        Path(".tmp").chmod(0o2775)
        Path(".tmp/.config").symlink_to(ours.precious)

    ours.bob(attack)
    ours.alice("import", "../a.raw", "a")
    assert (ours.precious.read_bytes() == PRECIOUS) == armed


@BOTH
def test_a_link_in_the_place_of_a_probe_makes_no_file_elsewhere(ours: Ours, monkeypatch: pytest.MonkeyPatch, armed: bool) -> None:
    filled(ours)
    if not armed:
        disarm(monkeypatch)
    ours.bob(lambda: Path("meta/.probe").symlink_to(ours.home / "new"))
    with contextlib.suppress(AssertionError) if not armed else contextlib.nullcontext():
        assert ours.alice("delete", "a")[0] == 0
    assert (ours.home / "new").exists() == (not armed)


@BOTH
def test_the_work_of_pcocc_0_7_is_not_looked_for_behind_a_link(ours: Ours, monkeypatch: pytest.MonkeyPatch, armed: bool) -> None:
    filled(ours)
    monkeypatch.setattr(removing, "_FOREIGN_AGE", 0)
    if not armed:
        disarm(monkeypatch)

    def attack() -> None:
        Path(".tmp").rename("away")
        Path(".tmp").symlink_to(ours.home)

    ours.bob(attack)
    status, said = ours.alice("repo", "gc", "--grace", "0")
    assert ours.precious.exists() == armed
    if armed:
        assert status == 1 and f".tmp: it is a symbolic link of uid {BOB}, which is not followed" in said


@BOTH
def test_what_a_dead_gc_put_aside_is_not_looked_for_behind_a_link(
    ours: Ours, monkeypatch: pytest.MonkeyPatch, armed: bool
) -> None:
    """Alice's own repository has private layers, with names of the kind that a gc puts back."""
    filled(ours)
    write_raw(ours.directory / "b.raw", seed=5).chmod(0o644)
    assert ours.alice("import", "../b.raw", "mine:b")[0] == 0
    private = [path for path in (ours.home / "images/data").glob("*/*") if path.is_file()]
    if not armed:
        disarm(monkeypatch)

    def attack() -> None:
        Path(".tmp/.work-x-1-00").mkdir(mode=0o755)
        Path(".tmp/.work-x-1-00/aside").symlink_to(private[0].parent)
        Path(".tmp/.work-x-1-00.lock").touch()
        Path(".tmp/.work-x-1-00.lock").chmod(0o666)

    ours.bob(attack)
    ours.alice("import", "../a.raw", "c")
    assert private[0].exists() == armed
    assert (ours.root / "data" / private[0].parent.name / private[0].name).exists() == (not armed)


@BOTH
def test_a_mode_is_set_on_the_file_that_was_looked_at(ours: Ours, monkeypatch: pytest.MonkeyPatch, armed: bool) -> None:
    """While gc sets a layer's mode again, the layer becomes a link to something that only Alice may read."""
    filled(ours)
    (layer,) = (ours.root / "data").glob("*/*")
    (ours.root / "meta/a@0").unlink()
    if not armed:
        disarm(monkeypatch)
    (ours.home / "public").write_text("for all")
    os.chown(ours.home / "public", ALICE, ALICE)

    def first() -> None:
        layer.unlink()
        layer.symlink_to(ours.home / "public")

    def then() -> None:
        layer.unlink()
        layer.symlink_to(ours.precious)

    monkeypatch.setattr(in_use, "stat", SimpleNamespace(**vars(stat)))
    with attacked(ours, monkeypatch, in_use, "is_in_use", first), attacked(ours, monkeypatch, in_use.stat, "S_IMODE", then):
        ours.alice("repo", "gc", "--grace", "0")
    assert (ours.precious.stat().st_mode & 0o077 == 0) == armed


@BOTH
def test_a_layer_is_not_put_behind_a_link(ours: Ours, monkeypatch: pytest.MonkeyPatch, armed: bool) -> None:
    filled(ours)
    (layer,) = (ours.root / "data").glob("*/*")
    assert ours.alice("delete", "a")[0] == 0
    (ours.home / "private").mkdir()
    os.chown(ours.home / "private", ALICE, ALICE)
    if not armed:
        disarm(monkeypatch)
    ours.bob(lambda: layer.parent.symlink_to(ours.home / "private"))
    status, said = ours.alice("import", "../a.raw", "a")
    assert bool(list((ours.home / "private").iterdir())) == (not armed)
    assert not armed or (status == 1 and f"{layer.parent}: it is a symbolic link of uid {BOB}" in said)


@BOTH
def test_the_place_of_an_export_is_not_taken(ours: Ours, monkeypatch: pytest.MonkeyPatch, armed: bool) -> None:
    filled(ours)
    out = ours.directory / "out"
    out.mkdir()
    os.chown(out, 0, GROUP)
    out.chmod(0o2775)
    if not armed:
        disarm(monkeypatch)

    def attack() -> None:
        os.chdir(out)
        (path,) = (one for one in Path().iterdir() if one.suffix != ".lock")
        path.rename("away")
        path.mkdir()
        path.chmod(0o777)
        (path / "image").symlink_to(ours.precious)

    with attacked(ours, monkeypatch, qemu_img, "convert", attack):
        ours.alice("export", "a", f"{out}/a.raw")
    assert (ours.precious.read_bytes() == PRECIOUS) == armed


def test_a_directory_that_nobody_can_empty_stops_nobody(ours: Ours) -> None:
    filled(ours)

    def attack() -> None:
        for name, mode in (("1-00", 0o755), ("2-00", 0o700)):
            Path(f".tmp/.work-x-{name}").mkdir()
            Path(f".tmp/.work-x-{name}/file").touch()
            Path(f".tmp/.work-x-{name}").chmod(mode)
            Path(f".tmp/.work-x-{name}.lock").touch()
            Path(f".tmp/.work-x-{name}.lock").chmod(0o666)

    ours.bob(attack)
    assert ours.alice("import", "../a.raw", "b")[0] == 0 and ours.alice("repo", "gc", "--grace", "0")[0] == 0


def test_only_its_user_enters_a_work_directory_and_all_see_what_it_pins(ours: Ours) -> None:
    filled(ours)
    repo = Repo("ours", str(ours.root))
    seen = ours.directory / "seen"

    def look() -> int:
        with writing.open_repo_work(repo) as work:
            found = images.find_image(references.parse_reference("a"), [repo])
            assert writing.pin(work, found.revision.layers) == []
            seen.write_text(f"{work.path.stat().st_mode & 0o777:o} {repository.read_pins(repo) == set(found.revision.layers)}")
            os.unlink(ours.root / "meta/a@0")
            assert children.pcocc("image", "repo", "gc", "ours", "--grace", "0") == 0 and found.path.exists()
        return 0

    seen.touch()
    os.chown(seen, ALICE, ALICE)
    assert children.wait(children.start_as(ALICE, look, ours.directory / "alice", [GROUP])) == 0, (
        ours.directory / "alice"
    ).read_text()
    assert seen.read_text() == "700 True"


def test_another_members_unfinished_work_is_left_to_its_user(ours: Ours) -> None:
    filled(ours)
    assert ours.root.stat().st_uid == BOB

    def die() -> int:
        return int(children.run_to_step(15, ours.root, "image", "import", str(ours.directory / "a.raw"), "x") >= 0)

    assert children.wait(children.start_as(ALICE, die, None, [GROUP])) == 0
    left = [name for name in os.listdir(ours.root / ".tmp") if not name.endswith((".lock", ".note"))]
    assert len(left) == 1

    def collect() -> int:
        return cli.main(["image", "repo", "gc", "ours", "--grace", "0"])

    assert children.wait(children.start_as(BOB, collect, ours.directory / "bob", [GROUP])) == 0
    assert ours.alice("repo", "gc", "ours", "--grace", "0")[0] == 0
    assert os.listdir(ours.root / ".tmp") == []
