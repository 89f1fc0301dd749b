"""`pcocc config partitions`, and what `pcocc config check` says of licences."""

import json
from pathlib import Path

import pytest

from pcocc_runtime.cli import main as cli
from pcocc_runtime.errors import NodeError

POOL = (
    "ib: {type: infiniband, settings: {host-device: m, min-pkey: '0x2000', max-pkey: '0x2003', max-vms: 3}}\n"
)


@pytest.fixture
def site(site: Path) -> Path:
    """The same with a network of partitions."""
    (site / "networks.yaml").write_text("lan: {type: ethernet}\n" + POOL)
    return site


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (
            "(null)",
            (
                "slurm.conf lacks licences for the keys of network ib; add to it:"
                " Licenses=pkey2000,pkey2001,pkey2002,pkey2003"
            ),
        ),
        (
            "x,pkey2001,pkey2002",
            "slurm.conf lacks licences for the keys of network ib; add to it: Licenses=pkey2000,pkey2003",
        ),
        (
            "pkey2000,pkey2001:2,pkey2002:1,pkey2003:0",
            "slurm.conf must have one of each licence of network ib, or clusters share a key: pkey2001,pkey2003",
        ),
    ],
)
def test_config_check_notes_the_licences_that_slurm_lacks(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, known: str, said: str
) -> None:
    assert cli.main(["config", "policy"]) == 0
    monkeypatch.setattr("pcocc_runtime.cli.slurm_notes.read_settings", lambda: f"Licenses = {known}\nGresTypes = gpu,nic\n")
    assert cli.main(["config", "check"]) == 0
    assert capsys.readouterr().err == f"pcocc: note: {said}\n"


def test_config_check_says_when_slurm_does_not_answer(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> str:
        raise NodeError("scontrol failed: no")

    monkeypatch.setattr("pcocc_runtime.cli.slurm_notes.read_settings", fail)
    assert cli.main(["config", "check"]) == 0
    assert (
        "whether Slurm has what devices need, such as GresTypes: scontrol failed: no\n"
        in capsys.readouterr().err
    )
    (site / "networks.yaml").write_text(
        "lan: {type: ethernet}\nib: {type: ethernet, settings: {network-layer: L2}}\n"
    )
    assert cli.main(["config", "check"]) == 0
    assert "Slurm" not in capsys.readouterr().err


def test_config_partitions_prints_what_it_then_finds_right(
    site: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["config", "partitions"]) == 0
    text = capsys.readouterr().out
    assert text.count("0xc2cc") == 2 * 4 * 3
    (tmp_path / "p").write_text(text)
    assert cli.main(["config", "partitions", "--check", str(tmp_path / "p")]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/p: has pcocc's partitions, no error\n"
    (tmp_path / "p").write_text(text.replace(" ;", "", 1))
    assert cli.main(["config", "partitions", "--check", str(tmp_path / "p")]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"pcocc: error: {tmp_path}/p:3: 'pcocc_2000=0x2000, ipoib, ")
    assert cli.main(["config", "partitions", "--format", "ufm"]) == 0
    assert [json.loads(line)["pkey"] for line in capsys.readouterr().out.splitlines()][::2] == [
        f"0x200{key}" for key in range(4)
    ]


def test_config_partitions_wants_a_network_and_a_file(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "partitions", "--check", str(site / "none")]) == 1
    assert (
        capsys.readouterr().err == f"pcocc: error: {site}/none: cannot be read: No such file or directory\n"
    )
    (site / "networks.yaml").write_text(
        "lan: {type: ethernet}\nib: {type: ethernet, settings: {network-layer: L2}}\n"
    )
    assert cli.main(["config", "partitions"]) == 1
    assert f"{site}/networks.yaml: there is no network of type infiniband\n" in capsys.readouterr().err


GRES_CONF = """# of all nodes
NodeName=n[1-9] Name=nic Type=mlx5 File=/dev/vfio/[12-15]   # fine
Name=gpu Type=a100 \\
  Count=4
name=NVME count=2
NodeName=n7 Name=nic Count=2 # File=/dev/vfio/9
Name=licence Count=5
AutoDetect=off
"""


@pytest.mark.parametrize(
    ("types", "said"),
    [
        ("(null)", ["slurm.conf lacks GRES of networks and devices: gpu, nic; have in it: GresTypes=gpu,nic"]),
        ("mps, nic", ["slurm.conf lacks GRES of networks and devices: gpu; have in it: GresTypes=mps,nic,gpu"]),
        ("nic,gpu", []),
    ],
)
def test_config_check_notes_what_slurm_lacks_for_devices(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, types: str, said: list[str]
) -> None:
    with (site / "pcocc.yaml").open("a") as file:
        file.write("devices: {'gpu:a100': {ids: ['10de:20b2']}}\n")
    assert cli.main(["config", "policy"]) == 0
    conf = f"Licenses = pkey2000,pkey2001,pkey2002,pkey2003\nGresTypes = {types}\nSLURM_CONF = {tmp_path}/slurm.conf\n"
    monkeypatch.setattr("pcocc_runtime.cli.slurm_notes.read_settings", lambda: conf)
    assert cli.main(["config", "check"]) == 0
    assert capsys.readouterr().err == "".join(f"pcocc: note: {one}\n" for one in said)
    (tmp_path / "gres.conf").write_text(GRES_CONF)
    assert cli.main(["config", "check"]) == 0
    told = [line.partition("; ")[0] for line in capsys.readouterr().err.splitlines()[len(said) :]]
    assert told == [
        f"pcocc: note: {tmp_path}/gres.conf:{line}: GRES {name} has no File=, so nobody knows which devices a job has"
        for line, name in ((3, "gpu"), (6, "nic"))
    ]
