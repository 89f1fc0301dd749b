"""Where things are installed: the runtime finds them there, and meson's options alone decide."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.spank.building import run

LOOK = """
import sys
sys.path.insert(0, sys.argv[1])
from pcocc_runtime.node import probe
from pcocc_runtime.slurm import steps
from pcocc_runtime.vm import launcher
print(steps.LAUNCHER, launcher.KEEPER[0], probe._IMAGE)
"""


def test_the_runtime_finds_its_own_files(installed: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-IS", "-c", LOOK, str(installed / "lib/pcocc")], capture_output=True, text=True, check=True
    )
    launch, keeper, probe = map(Path, done.stdout.split())
    assert (launch, keeper) == (installed / "libexec/pcocc/launch", installed / "libexec/pcocc/keeper")
    for program in (launch, keeper):
        assert program.stat().st_mode & 0o111 == 0o111
    assert probe.is_relative_to(installed) and probe.read_bytes()[510:512] == b"\x55\xaa"  # a boot sector


@pytest.mark.thorough
def test_the_directories_of_a_distribution_are_options(tmp_path: Path) -> None:
    run("meson", "setup", str(tmp_path), "--prefix=/usr", "--libexecdir=lib", "--libdir=lib64", "--bindir=/usr/sbin")
    places = json.loads(run("meson", "introspect", "--installed", str(tmp_path)))
    assert {
        "/usr/lib/pcocc/keeper", "/usr/lib/pcocc/pcocc_runtime/system/installed.py", "/usr/share/pcocc/probe.img",
        "/usr/sbin/pcocc", "/usr/share/pcocc/lua/pcocc.lua", "/usr/lib64/slurm/pcocc.so", "/usr/lib64/slurm/pcocc_client.so",
    } <= set(places.values())  # fmt: skip
    written = {
        name: (tmp_path / name).read_text()
        for name in ("installed.py", "job_submit.lua", "completion", "config.h", "keeper")
    }
    assert 'LIBEXEC = "/usr/lib/pcocc"' in written["installed.py"] and 'SHARE = "/usr/share/pcocc"' in written["installed.py"]
    assert "/usr/share/pcocc/lua/?.lua" in written["job_submit.lua"] and "/usr/sbin/pcocc" in written["completion"]
    assert '"/usr/lib/pcocc"' in written["config.h"] and '"/usr/lib64/slurm/pcocc_client.so"' in written["config.h"]
    assert not [name for name, text in written.items() if "/opt/pcocc" in text]


@pytest.mark.thorough
def test_where_slurm_and_the_distribution_have_theirs_is_an_option(tmp_path: Path) -> None:
    libraries = ("/usr/lib/python3/dist-packages", "/srv/more")
    run(
        "meson", "setup", str(tmp_path), "--prefix=/usr", "-Dslurm-plugins=/srv/slurm",
        f"-Dpython-libraries={','.join(libraries)}",
    )
    places = json.loads(run("meson", "introspect", "--installed", str(tmp_path))).values()
    assert {"/srv/slurm/pcocc.so", "/srv/slurm/pcocc_client.so", "/usr/share/pcocc/plugstack.conf"} <= {*places}
    assert (tmp_path / "plugstack.conf").read_text().splitlines()[-1] == "required /srv/slurm/pcocc.so"
    for program in ("pcocc", "node", "keeper"):
        (line,) = (line for line in (tmp_path / program).read_text().splitlines() if "sys.path" in line)
        path = json.loads(run(sys.executable, "-ISc", f"import json, sys; {line}; print(json.dumps(sys.path))"))
        assert (path[0], tuple(path[-2:])) == ("/usr/lib/pcocc", libraries)
