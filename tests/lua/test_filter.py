"""The job_submit filter, run by every Lua that is here; Slurm's own may be any of 5.1 to 5.4."""

import subprocess
from pathlib import Path

import pytest

from tests.lua.site import INTERPRETERS, ROOT, install_filter, run, write_policy


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    return write_policy(tmp_path)


@pytest.fixture(scope="module")
def filter_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_filter(tmp_path_factory.mktemp("lua"))


def test_a_lua_is_here() -> None:
    assert INTERPRETERS, "install lua5.3"


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_the_filter(interpreter: str, filter_dir: Path, policy_file: Path) -> None:
    print(run(interpreter, ROOT / "tests/lua/filter.lua", filter_dir, policy_file))


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_keys_of_partitions(interpreter: str, filter_dir: Path, policy_file: Path) -> None:
    print(run(interpreter, ROOT / "tests/lua/keys.lua", filter_dir, policy_file))


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_devices_of_vms(interpreter: str, filter_dir: Path, policy_file: Path) -> None:
    print(run(interpreter, ROOT / "tests/lua/devices.lua", filter_dir, policy_file))


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_the_filter_does_not_load_as_it_is_in_the_sources(interpreter: str) -> None:
    done = subprocess.run(
        [interpreter, ROOT / "job_submit/pcocc_text.lua"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1 and "pcocc_text.lua is not installed" in done.stderr


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_the_sample_calls_the_filter(interpreter: str, filter_dir: Path, tmp_path: Path) -> None:
    script = f"""
package.path = "{ROOT}/tests/lua/?.lua;{filter_dir}/?.lua;" .. package.path
local stub = require("stub")
dofile("{filter_dir}/job_submit.lua")
require("pcocc").policy_file = "{tmp_path}/none"
local job, written = stub.job({{ spank_job_env = {{ [0] = "_SLURM_SPANK_OPTION_pcocc_pcocc-template=a:3" }} }})
assert(slurm_job_submit(job, {{}}, 1000) == slurm.SUCCESS and slurm_job_modify(job, {{}}, {{}}, 1000) == slurm.SUCCESS)
assert(written.num_tasks == 3)
"""
    (tmp_path / "sample.lua").write_text(script)
    run(interpreter, tmp_path / "sample.lua")


@pytest.mark.thorough
@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_what_a_submitter_sends_never_makes_much_work(interpreter: str, filter_dir: Path, policy_file: Path) -> None:
    print(run(interpreter, ROOT / "tests/lua/bounds.lua", filter_dir, policy_file))
