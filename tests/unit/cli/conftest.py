"""A site's directory for the commands, which ask no slurmctld."""

from pathlib import Path

import pytest

from tests.unit.fake_site import write_site


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = write_site(tmp_path / "etc")
    monkeypatch.setattr("pcocc_runtime.settings.directories.site_dir", lambda environ, uid: str(directory))
    monkeypatch.setenv("PCOCC_USER_CONF_DIR", str(tmp_path / "user"))
    (tmp_path / "user").mkdir()
    monkeypatch.setattr(
        "pcocc_runtime.cli.slurm_notes.read_settings",
        lambda: "Licenses = pkey2000,pkey2001:1,pkey2002*1,pkey2003,x:5\nGresTypes = nic\n",
    )
    return directory
