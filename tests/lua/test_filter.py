"""The job_submit filter, run by every Lua that is here; Slurm's own may be any of 5.1 to 5.4."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pcocc_runtime.site import policy
from pcocc_runtime.site.check import load_everything

ROOT = Path(__file__).parents[2]
INTERPRETERS = [name for name in ("lua5.1", "lua5.2", "lua5.3", "lua5.4", "luajit") if shutil.which(name)]

SITE = {
    "pcocc.yaml": "max-vms: 16\n",
    "networks.yaml": "lan: {type: ethernet}\n",
    "resources.yaml": "default: {networks: [lan], default: true}\nib: {networks: [lan], partitions: [ib]}\n"
    "own: {users: [alice, carol], groups: [physics], qos: [normal]}\nlab: {groups: [physics]}\n",
    "templates.yaml": "tiny: {memory: 256M}\nbig: {cpus: 4, memory: 2G, resource-set: ib}\nwhole: {full-node: true}\n",
    "policy.yaml": "limits: [{accounts: [students], max-vms: 4}, {partitions: [vm], max-vms: 16}, {partitions: [debug], max-vms: 2}]\n"
    "templates: {big: {accounts: [physics]}}\n",
}


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    return write_policy(tmp_path)


def write_policy(directory: Path) -> Path:
    """Write the policy of SITE as `pcocc config policy` would."""
    for name, text in SITE.items():
        (directory / name).write_text(text)
    loaded = load_everything(str(directory))
    assert loaded.problems == ()
    path = directory / "policy.lua"
    path.write_text(policy.render_policy(loaded.policy, loaded.site.max_vms, loaded.templates, loaded.site.default_set))
    return path


@pytest.fixture(scope="module")
def filter_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The filter with the shared names filled in, as the build installs it."""
    directory = tmp_path_factory.mktemp("lua")
    for name in ("pcocc.lua", "job_submit.lua"):
        text = run(sys.executable, ROOT / "spank/render_wire.py", ROOT / "pcocc_runtime/documents/wire.py", ROOT / "job_submit" / name, "/opt/x")
        (directory / name).write_text(text)
    return directory


def run(interpreter: str, *arguments: str | Path) -> str:
    done = subprocess.run([interpreter, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_lua_is_here() -> None:
    assert INTERPRETERS, "install lua5.3"


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_the_filter(interpreter: str, filter_dir: Path, policy_file: Path) -> None:
    print(run(interpreter, ROOT / "tests/lua/filter.lua", filter_dir, policy_file))


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_the_filter_does_not_load_as_it_is_in_the_sources(interpreter: str) -> None:
    done = subprocess.run([interpreter, ROOT / "job_submit/pcocc.lua"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "pcocc.lua is not installed" in done.stderr


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


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_what_a_submitter_sends_never_makes_much_work(interpreter: str, policy_file: Path) -> None:
    print(run(interpreter, ROOT / "tests/lua/bounds.lua", ROOT / "job_submit", policy_file))
