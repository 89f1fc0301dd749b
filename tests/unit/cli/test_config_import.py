"""`pcocc config import`: what it reads and writes, and its exit status."""

from pathlib import Path

import pytest

from pcocc_runtime.cli import main as cli

FILES = {
    "networks.yaml": "lan: {type: nat, settings: {vm-network: 10.1.0.0/16, bridge: natbr}}\n",
    "resources.yaml": "default: {networks: [lan], default: true}\n",
    "templates.yaml": "old: {image: %s}\n",
    "templates.d/more.yaml": "more: {inherits: old}\n",
    "batch.yaml": "type: slurm\n",
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory of the original's, with an image in the directory that it kept it in."""
    for name, text in {**FILES, "images/image": "", "images/image-rev3": ""}.items():
        path = tmp_path / "old" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("%s", f"{tmp_path}/old/images"))
    return tmp_path / "old"


def test_new_files_are_written_and_every_key_is_told(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "import", "-o", f"{tmp_path}/new", str(source)]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.splitlines()[:3] == [
        "networks.yaml:1: lan.type: changed: now ethernet",
        "networks.yaml:1: lan.settings.vm-network: changed: now int-network: 10.1.0.0/16",
        "networks.yaml:1: lan.settings.bridge: left out: no longer needed",
    ]
    assert out.splitlines()[-1] == f"4 files written to {tmp_path}/new; keys: 3 kept, 3 changed, 2 left out, 0 to do"
    assert f"templates.yaml:1: old.image: changed: now image: {source}/images/image-rev3" in out
    assert (tmp_path / "new/templates.d/more.yaml").read_text().endswith("\n\nmore:\n  inherits: old\n")
    assert not (tmp_path / "new/batch.yaml").exists() and (tmp_path / "new/networks.yaml").stat().st_mode & 0o777 == 0o644


def test_nothing_is_replaced(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (source / "networks.yaml").read_text()
    assert cli.main(["config", "import", "-o", str(source), str(source)]) == 1
    said = capsys.readouterr().err
    assert f"{source}/networks.yaml exists already\nhint: write to an empty directory: --output=NEW" in said
    assert (source / "networks.yaml").read_text() == before
    assert cli.main(["config", "import", "-o", f"{tmp_path}/new", str(tmp_path)]) == 1
    assert "has no file of the original pcocc" in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_what_is_left_to_do_is_an_error(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "templates.d/more.yaml").write_text("more: {inherits: nowhere, disk-model: sata}\n")
    assert cli.main(["config", "import", "-o", f"{tmp_path}/new", str(source)]) == 1
    out, err = capsys.readouterr()
    assert "templates.d/more.yaml:1: more.disk-model: to do: expected one of virtio, virtio-scsi, ide" in out
    assert "templates.d/more.yaml:4: more.inherits: there is no template 'nowhere' to inherit from" in err
    (source / "networks.yaml").write_text("lan: [\n")
    assert cli.main(["config", "import", "-o", f"{tmp_path}/other", str(source)]) == 1
    assert "networks.yaml:2: not valid YAML" in capsys.readouterr().err and not (tmp_path / "other").exists()
