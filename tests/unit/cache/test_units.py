"""systemd's own opinion of our units."""

import subprocess
from pathlib import Path

UNITS = Path(__file__).resolve().parents[3] / "etc/systemd"


def test_systemd_takes_the_units_of_the_image_cache(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("#!/bin/sh\n")
    (tmp_path / "cache").chmod(0o755)
    text = (UNITS / "pcocc-cache@.service.in").read_text().replace("@libexec@", str(tmp_path))
    (tmp_path / "pcocc-cache@.service").write_text(text)
    (tmp_path / "pcocc-cache.socket").write_text((UNITS / "pcocc-cache.socket").read_text())
    words = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no"]
    done = subprocess.run([*words, *tmp_path.glob("pcocc-cache*")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert subprocess.run([*words, tmp_path / "none.socket"], capture_output=True, check=False).returncode != 0


def test_sysusers_takes_the_services_user(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}", UNITS / "pcocc-cache.conf"], check=True, capture_output=True)
    user = (tmp_path / "etc/passwd").read_text().split(":")
    assert user[0] == "pcocc-cache" and user[-1].strip().endswith("nologin")
