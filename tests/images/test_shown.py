"""What `pcocc image` prints, for people and for programs."""

import json
import os
import re
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pcocc_runtime import terminal
from pcocc_runtime.images.references import Repo
from tests.images.disks import Ran, make_disk
from tests.waiting import limit

Pcocc = Callable[..., Ran]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def filled(pcocc: Pcocc, tmp_path: Path) -> None:
    """Have debian in both repositories, with three revisions in the user's, and alma in the site's."""
    make_disk(tmp_path / "a.qcow2")
    make_disk(tmp_path / "b.qcow2", seed=1)
    pcocc("image", "import", "a.qcow2", "site:debian")
    pcocc("image", "import", "b.qcow2", "site:alma", "-d", "AlmaLinux 9")
    pcocc("image", "import", "b.qcow2", "debian")
    for size in ("2M", "3M"):
        pcocc("image", "resize", "debian", size)


@pytest.mark.usefixtures("filled")
def test_the_list_says_what_to_type(pcocc: Pcocc) -> None:
    rows = [line.split() for line in pcocc("image", "list").out.splitlines()]
    assert [row[:5] for row in rows] == [
        ["NAME", "REVISIONS", "REPO", "KIND", "SIZE"],
        ["debian", "0-2", "user", "vm", "3M"],
        ["alma", "0", "site", "vm", "1M"],
        ["site:debian", "0", "site", "vm", "1M"],
    ]
    assert rows[2][-2:] == ["AlmaLinux", "9"]
    assert [line.split()[0] for line in pcocc("image", "list", "^al").out.splitlines()] == ["NAME", "alma"]
    assert [line.split()[0] for line in pcocc("image", "list", "-R", "site").out.splitlines()] == ["NAME", "alma", "debian"]
    assert pcocc("image", "list", "--names").out.split() == ["debian", "alma", "site:debian"]
    for regex in ("(", "a{4294967296}", "(" * 5000 + ")" * 5000):
        assert "is not a regular expression" in pcocc("image", "list", regex, ok=False).err
    pcocc("image", "delete", "debian@1")
    assert pcocc("image", "list").out.splitlines()[1].split()[1] == "0,2"


@pytest.mark.usefixtures("filled")
def test_programs_get_every_revision(pcocc: Pcocc) -> None:
    found = json.loads(pcocc("image", "list", "--json").out)
    assert [(one["repo"], one["name"], one["revision"]) for one in found] == [
        ("user", "debian", 0),
        ("user", "debian", 1),
        ("user", "debian", 2),
        ("site", "alma", 0),
        ("site", "debian", 0),
    ]
    last = found[2]
    assert last["virtual_size"] == 3 << 20 and len(last["layers"]) == 3 and last["path"].endswith(last["layers"][-1])
    shown = json.loads(pcocc("image", "show", "debian@2", "--json").out)
    assert [layer["sha256"] for layer in shown[0]["layers"]] == last["layers"] and shown[0]["layers"][0]["stored"] > 0


@pytest.mark.usefixtures("filled")
def test_an_image_is_shown_with_its_revisions_and_layers(pcocc: Pcocc, repo: Repo) -> None:
    text = pcocc("image", "show", "debian").out
    assert re.search(r"image +user:debian\nkind +vm\ndisk +3M\nsource +/\S+/b.qcow2\n", text)
    assert [line.split()[0] for line in text.split("REVISION")[1].split("\n\n")[0].splitlines()[1:]] == ["0", "1", "2"]
    assert len(re.findall(r"^[0-9a-f]{64}  ", text, re.MULTILINE)) == 3
    next(Path(repo.path, "data").glob("*/*")).unlink()
    assert "missing" in pcocc("image", "show", "debian").out


@pytest.mark.usefixtures("filled")
def test_repositories_are_listed_in_order(pcocc: Pcocc, repo: Repo) -> None:
    rows = [line.split() for line in pcocc("image", "repo", "list").out.splitlines()]
    assert [row[:4] for row in rows[1:]] == [["user", "site", "writable", "1"], ["site", "site", "writable", "2"]]
    found = json.loads(pcocc("image", "repo", "list", "--json").out)
    assert found[0]["path"] == repo.path and found[0]["free"] > 0


@pytest.mark.parametrize(
    "verb",
    ["list", "show", "import", "export", "copy", "delete", "resize", "verify", "repo list", "repo gc", "repo", "cache list",
             "cache clear", "cache", ""]
)
def test_every_verb_explains_itself(pcocc: Pcocc, verb: str) -> None:
    assert f"usage: pcocc image {verb}".rstrip() in pcocc("image", *verb.split(), "--help").out


@pytest.mark.parametrize(
    "argv",
    [
        ["image"],
        ["image", "burn"],
        ["image", "show"],
        ["image", "import", "a"],
        ["image", "repo", "gc", "--grace", "x"],
        ["image", "import", "-t", "qed", "a", "b"],
    ],
)
def test_wrong_usage_has_a_status_of_its_own(pcocc: Pcocc, argv: list[str]) -> None:
    assert pcocc(*argv, ok=False).status == 2


def test_long_work_is_shown_on_a_terminal() -> None:
    main, terminal = os.openpty()
    code = (
        "import time; from pcocc_runtime import terminal as p; p.QUIET_SECONDS = 0\nwith p.Meter() as m:\n w ="
        " m.begin('reading')\n w(1, 4)\n time.sleep(.3); w(2, 4)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stderr=terminal, cwd=ROOT)
    os.close(terminal)
    assert child.wait() == 0
    text = b""
    while select.select([main], [], [], 0.2)[0]:
        try:
            text += os.read(main, 1000)
        except OSError:
            break
    os.close(main)
    assert text == b"\r\x1b[Kreading: 25%\r\x1b[Kreading: 50%\r\x1b[K"


def test_short_work_is_not_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal.Meter() as meter:
        meter.begin("reading")(1, 2)
        assert capsys.readouterr().err == ""
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 10)
        watch = meter.begin("writing")
        monkeypatch.setattr(time, "monotonic", lambda: now + 70)
        for done in (1 << 20, 2 << 20):
            watch(done, 8 << 20)
        watch(5 << 20, 0)
    assert capsys.readouterr().err == "pcocc: writing: 12%, 7 min left\n"


@pytest.mark.usefixtures("filled")
def test_verify_looks_in_the_repository_that_is_named(pcocc: Pcocc) -> None:
    assert pcocc("image", "verify", "-R", "site").out == "2 revisions are sound\n"
    assert pcocc("image", "verify", "-R", "site", "debian").out == "1 revision is sound\n"
    assert "there is no image 'alma'" in pcocc("image", "verify", "-R", "user", "alma", ok=False).err


@pytest.mark.parametrize(
    ("outputs", "status"),
    [(">/dev/full", 1), (">/dev/full 2>&-", 1), (">&-", 0), ("2>&-", 0), (">&- 2>&-", 0), ("2>/dev/full", 0)]
)
def test_work_is_done_although_nobody_can_be_told(pcocc: Pcocc, tmp_path: Path, outputs: str, status: int) -> None:
    make_disk(tmp_path / "a.qcow2")
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pcocc_runtime.cli.main import main; sys.exit(main())"
    script = f"exec {sys.executable} -c {shlex.quote(code)} image import a.qcow2 new {outputs}"
    assert subprocess.run(["bash", "-c", script], check=False, timeout=limit(60)).returncode == status
    assert pcocc("image", "list", "--names").out == "new\n"
