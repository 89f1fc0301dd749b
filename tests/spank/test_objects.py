"""The two objects of the plugin: what they export, what they need, and that the check fails closed."""

import ctypes
import os
import re
from pathlib import Path

from pcocc_runtime import __version__
from pcocc_runtime.check import read_slurm
from pcocc_runtime.documents.typed_options import TypedOptions, encode_typed_options
from tests.spank.building import ROOT, run

EXPORTED = {
    "plugin_name", "plugin_type", "plugin_version", "spank_plugin_version", "pcocc_version", "slurm_spank_init",
    "slurm_spank_init_post_opt", "slurm_spank_local_user_init", "slurm_spank_task_init_privileged",
    "slurm_spank_task_init", "slurm_spank_exit",
}  # fmt: skip


def check(prefix: Path, options: TypedOptions, **environ: str) -> tuple[int, str]:
    out = run(str(prefix / "harness"), encode_typed_options(options), env={**os.environ, **environ})
    code, _, text = out.partition("\n")
    return int(code), text


WRONG = TypedOptions("x:0")


def test_only_slurms_symbols_are_exported(installed: Path) -> None:
    lines = run("nm", "-D", "--defined-only", str(installed / "lib/slurm/pcocc.so")).splitlines()
    assert {line.split()[-1] for line in lines} == EXPORTED


def test_the_front_needs_no_python(installed: Path) -> None:
    needed = run("readelf", "-d", str(installed / "lib/slurm/pcocc.so"))
    assert "NEEDED" in needed and "python" not in needed


def test_it_opens_as_slurm_opens_it(installed: Path) -> None:
    plugin = ctypes.CDLL(str(installed / "lib/slurm/pcocc.so"), mode=os.RTLD_LAZY | os.RTLD_LOCAL)
    assert (ctypes.c_char * 6).in_dll(plugin, "plugin_name").value == b"pcocc"
    assert (ctypes.c_char * 6).in_dll(plugin, "plugin_type").value == b"spank"


def test_releases_of_slurm_differ_in_one_file() -> None:
    for path in sorted((ROOT / "spank").glob("*.[ch]")):
        lines = [line for line in path.read_text().splitlines() if re.match(r"\s*#\s*(if|elif|else)", line)]
        guard = f"#ifndef PCOCC_{path.stem.upper()}_H" if path.name != "pcocc.h" else "#ifndef PCOCC_H"
        assert path.name == "compat.h" or (set(lines) <= {guard} and "HAVE_" not in path.read_text()), path


def test_the_options_that_the_plugin_hands_over_are_those_that_are_read() -> None:
    written = re.findall(r'\\"(\w+)\\":', (ROOT / "spank/request.c").read_text())
    assert sorted(written) == sorted(TypedOptions._fields)


def test_root_runs_little_c() -> None:
    texts = [path.read_text() for path in (ROOT / "spank").glob("*.[ch]")]
    roots = [text for text in texts if '#include "client.h"' not in text and "#define PCOCC_CLIENT_H" not in text]
    assert 6 < len(roots) < len(texts) and sum(text.count("\n") for text in roots) <= 1000


def test_a_wrong_request_is_refused_with_a_sentence(installed: Path) -> None:
    code, text = check(installed, WRONG)
    assert code == 2
    assert text.startswith("pcocc: error:")


def test_the_users_python_variables_do_not_reach_it(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('hijacked')\n")
    code, _ = check(installed, WRONG, PYTHONPATH=str(tmp_path), PYTHONHOME=str(tmp_path))
    assert code == 2


def test_it_fails_closed_when_the_runtime_is_broken(installed: Path) -> None:
    module = installed / "lib/pcocc/pcocc_runtime/submit/main.py"
    kept = module.read_text()
    module.write_text("raise ImportError('broken')\n")
    try:
        code, _ = check(installed, WRONG)
    finally:
        module.write_text(kept)
    assert code == 0


def test_it_fails_closed_when_the_object_is_missing(installed: Path) -> None:
    path = installed / "lib/slurm/pcocc_client.so"
    hidden = path.rename(path.with_suffix(".hidden"))
    try:
        code, text = check(installed, WRONG)
    finally:
        hidden.rename(path)
    assert code == 0
    assert "pcocc_client.so" in text


def test_everything_installed_is_readable_by_every_user(installed: Path) -> None:
    for path in [*(installed / "lib").rglob("*"), *(installed / "libexec").rglob("*"), *(installed / "share").rglob("*")]:
        mode = path.stat().st_mode
        assert mode & 0o004, path
        assert not path.is_dir() or mode & 0o001, path


def test_it_tells_what_it_is_built_for_and_its_version(installed: Path, tmp_path: Path) -> None:
    """As `pcocc node check` asks it."""
    source = tmp_path / "number.c"
    source.write_text(
        '#include <stdio.h>\n#include <slurm/slurm.h>\nint main(void) { return printf("%d", SLURM_VERSION_NUMBER) <'
        " 0; }\n"
    )
    run("cc", "-o", str(tmp_path / "number"), str(source))
    number = int(run(str(tmp_path / "number")))
    (tmp_path / "now.c").write_text(
        f'extern int spank_getenv(void); int f(void) {{ return spank_getenv(); }}\nconst unsigned plugin_version = {number};\n'
        f'const char pcocc_version[] = "{__version__}";\n'
    )
    now = ["-shared", "-fPIC", "-Wl,-z,now"]  # as Debian's packages are built: nobody but Slurm can open it
    run("cc", *now, "-o", str(tmp_path / "now.so"), str(tmp_path / "now.c"))
    for path in (installed / "lib/slurm/pcocc.so", tmp_path / "now.so"):
        built, version, trouble = read_slurm._read_plugin_file(str(path))
        assert (built, version, trouble) == ((number >> 16 & 255, number >> 8 & 255), __version__, "")


def test_what_is_no_plugin_is_told(installed: Path, tmp_path: Path) -> None:
    whole = (installed / "lib/slurm/pcocc.so").read_bytes()
    for name, data in (
        ("text.so", b"nothing"), ("empty.so", b""), ("cut.so", whole[:1000]), ("short.so", whole[:60]),
        ("other.so", (installed / "lib/slurm/pcocc_client.so").read_bytes()),
        ("32.so", whole[:4] + b"\1" + whole[5:]),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(data)
    for path in (*sorted(tmp_path.glob("*.so")), tmp_path / "missing.so"):
        built, version, trouble = read_slurm._read_plugin_file(str(path))
        assert (built, version) == (None, None) and str(path) in trouble
