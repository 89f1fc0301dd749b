"""A user with a home and a site, and real images made by qemu-img."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pcocc_runtime.cli import main as cli
from pcocc_runtime.images.images import Found
from pcocc_runtime.images.references import Repo
from tests.images.disks import Ran, find, make_disk


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """Return the user's repository, which is not created yet."""
    return Repo("user", str(tmp_path / "home/.pcocc/images"))


@pytest.fixture
def other(tmp_path: Path) -> Repo:
    """Return the second repository, which is not created yet."""
    return Repo("site", str(tmp_path / "site-images"), True)


@pytest.fixture
def pcocc(
    repo: Repo, other: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ran]:
    """Return a function that runs a `pcocc` command line with both repositories; `ok=False` expects it to fail, None either."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "etc/repos.yaml").write_text(
        f"repos:\n- {{name: user, path: '%{{homedir}}/.pcocc/images'}}\n- {{name: site, path: {other.path}}}\n"
    )
    monkeypatch.setattr("pcocc_runtime.settings.directories.site_dir", lambda environ, uid: str(tmp_path / "etc"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PCOCC_USER_CONF_DIR", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.chdir(tmp_path)

    def run(*argv: str, ok: bool | None = True) -> Ran:
        try:
            status = cli.main(argv)
        except SystemExit as end:
            status = int(end.code or 0)
        done = Ran(status, *capsys.readouterr())
        assert ok in (None, done.status == 0), done
        if done.status:
            lines = done.err.splitlines()
            assert lines[0].startswith("pcocc: error: ") and all(
                line.startswith(("hint: ", "pcocc: error: ")) for line in lines
            ), done.err
        return done

    return run


@pytest.fixture
def base(pcocc: Callable[..., Ran], repo: Repo, tmp_path: Path) -> Found:
    """Return an imported image, user:base@0."""
    make_disk(tmp_path / "base.qcow2")
    pcocc("image", "import", "base.qcow2", "base")
    return find("base", repo)
