"""What cloud-init's own check of user-data is asked, and when its answer refuses."""

import os
from pathlib import Path

import pytest
import yaml

from pcocc_runtime.submit import cloud_init
from tests.unit.fake_site import Ask, frozen, noted, refused, user_template

VERDICTS = {
    "wrong": "Error:\\nCloud config schema errors: packages: 5 is not of type 'array'",
    "broken": "Traceback (most recent call last):\\nModuleNotFoundError: No module named 'requests'",
}


def install_cloud_init(directory: Path, monkeypatch: pytest.MonkeyPatch, said: str, status: int) -> Path:
    """Put a program of that name on PATH that says what the real one was seen to say (22.4), and keeps what it was given."""
    (directory / "bin").mkdir()
    program = directory / "bin/cloud-init"
    check = f'[ "$1 $2" = "schema --config-file" ] || exit 9\ncp "$3" {directory}/given'
    program.write_text(f'#!/bin/sh\n{check}\nprintf "{said}\\n" >&2\nexit {status}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}/bin:{os.environ['PATH']}")
    return directory / "given"


def test_what_cloud_init_finds_wrong_is_noted(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = install_cloud_init(tmp_path, monkeypatch, VERDICTS["wrong"], 1)
    (tmp_path / "ud").write_text("#cloud-config\npackages: 5\n")
    assert "packages: 5 is not of type 'array', says the cloud-init of this host" in noted(ask(user_data="ud"))
    assert given.read_text() == "#cloud-config\npackages: 5\n"
    user_template(tmp_path, "mine:\n  inherits: tiny\n  user-data: {packages: 5}\n")
    assert "templates.yaml:3: mine.user-data: packages: 5 is not of type 'array'" in noted(ask("mine"))
    (tmp_path / "script").write_text("#!/bin/sh\n")
    assert frozen(ask(user_data="script")).groups[0].user_data == "#!/bin/sh\n"


def test_a_text_is_asked_about_once(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_cloud_init(tmp_path, monkeypatch, f'.$(echo >>{tmp_path}/asked)', 0)
    user_template(tmp_path, "mine: {inherits: tiny, user-data: {packages: [a]}, instance-id: 'i-%{vm_rank}'}\n")
    assert len(frozen(ask("mine:20")).groups) == 20
    assert (tmp_path / "asked").read_text() == "\n"


def test_only_the_first_texts_of_many_are_shown_to_cloud_init(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_cloud_init(tmp_path, monkeypatch, f'.$(echo >>{tmp_path}/asked)', 0)
    user_template(tmp_path, f"mine: {{inherits: tiny, user-data: '{tmp_path}/%{{vm_rank}}'}}\n")
    for rank in range(20):
        (tmp_path / str(rank)).write_text(f"#cloud-config\npackages: [v{rank}]\n")
    assert len(frozen(ask("tiny:2,mine:18")).groups) == 19
    assert (tmp_path / "asked").read_text() == 4 * "\n"
    (tmp_path / "19").write_text("#cloud-config\n[\n")
    assert f"user-data file {tmp_path}/19 is not a valid cloud-config" in refused(ask("tiny:2,mine:18"))


def test_a_cloud_init_that_does_not_answer_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud_init, "CHECK_SECONDS", 0.1)
    program = install_cloud_init(tmp_path, monkeypatch, VERDICTS["wrong"], 1).parent / "bin/cloud-init"
    verdict = program.read_text()
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    assert cloud_init.find_schema_error("#cloud-config\npackages: 7\n") is None
    program.write_text(verdict)
    monkeypatch.setattr(cloud_init, "CHECK_SECONDS", 60)
    assert cloud_init.find_schema_error("#cloud-config\npackages: 8\n") is None
    assert not (tmp_path / "given").exists()


@pytest.mark.parametrize(("said", "status"), [(VERDICTS["broken"], 1), (VERDICTS["wrong"], 0), ("", 1)])
def test_only_a_verdict_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, status: int) -> None:
    install_cloud_init(tmp_path, monkeypatch, said, status)
    assert cloud_init.find_schema_error("#cloud-config\n") is None


def test_a_check_that_cannot_be_made_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/proc/self")  # as a full /tmp: nothing can be written
    assert cloud_init.find_schema_error("#cloud-config\npackages: 6\n") is None


def test_the_key_is_named_for_which_an_entry_is_wrong(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """22.4 says of an entry only that no form of it fits: asked about it without each of its keys, it tells which was
    not known."""
    program = install_cloud_init(tmp_path, monkeypatch, "", 1).parent / "bin/cloud-init"
    wrong = "{x} is not valid under any of the given schemas"
    program.write_text(
        f"#!/bin/sh\nif grep -q packages $3; then echo 'schema errors: users.0: {wrong}, packages: 5 is wrong'\n"
        f"else cat $3 >{tmp_path}/tries; echo 'schema errors: users.0: {wrong}, users.2: {wrong}'; fi >&2\nexit 1\n"
    )
    (tmp_path / "ud").write_text("#cloud-config\nusers: [{name: bob, sudo: [a], gecos: x}]\npackages: 5\n")
    assert "ud: users.0.sudo: ['a'] is not valid there, packages: 5 is wrong, says" in noted(ask(user_data="ud"))
    tries = yaml.safe_load((tmp_path / "tries").read_text())["users"]
    assert tries == [{"sudo": ["a"], "gecos": "x"}, {"name": "bob", "gecos": "x"}, {"name": "bob", "sudo": ["a"]}]
