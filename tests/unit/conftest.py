"""Settings for all unit tests, and submitting requests to a site of a test's own."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from pcocc_runtime.documents.typed_options import TypedOptions, encode_typed_options
from pcocc_runtime.submit import cloud_init
from pcocc_runtime.submit import main as client
from tests.unit.fake_site import Ask, write_site
from tests.waiting import limit

settings.register_profile("pcocc", deadline=None)  # a busy machine is no fault of what is tested
settings.load_profile("pcocc")
cloud_init.CHECK_SECONDS = int(limit(cloud_init.CHECK_SECONDS))  # after which nothing more is asked of cloud-init


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Return a function that submits a request to a site in tmp_path/etc, as a user whose home is tmp_path/home."""
    directory = write_site(tmp_path / "etc")
    (tmp_path / "home/.pcocc").mkdir(parents=True)
    monkeypatch.setattr("pcocc_runtime.settings.directories.site_dir", lambda environ, uid: str(directory))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USER", "alice")
    monkeypatch.delenv("PCOCC_USER_CONF_DIR", raising=False)
    monkeypatch.chdir(tmp_path)

    def submit(template: str | None = "tiny", **options: Any) -> tuple[int, str]:
        return client.check_request(encode_typed_options(TypedOptions(template, **options)))

    return submit
