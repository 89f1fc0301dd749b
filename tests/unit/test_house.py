"""The house rules: which module may import which, what may act, what runs as root, and how long things may be.

All of it is computed from the code: a new module belongs to its room, and is judged, without being named here.
"""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.unit.loading import MODULES, ROOT, RUNTIME, loaded, within

# The floors, from the ground up. A room may use its own files and every floor below, but no other room of its own floor.
GROUND = {path.stem for path in RUNTIME.glob("*.py")} - {"__init__"} | {"documents", "qemu", "settings"}
FLOORS = [{"system", "guest"}, {"slurm", "networks", "images", "templates"}, {"site"}, {"cache"}]
# a room per process: they never import each other
PROCESSES = {"submit", "node", "vm", "keeper", "steps", "save", "observe", "check"}
SHARED = set().union(GROUND, *FLOORS)
OPERATIONS = {"save", "observe"}  # what the table of steps/operations.py names
OF_ROOT = GROUND | {"node", "system", "networks", "site"}
BEYOND_THE_COMMAND = {"node", "keeper"}  # the rooms that cli/ may not import

# one importer each at most; nobody imports pyroute2: netlink goes through ip(8), see docs/decisions/021
DOORS = {"pycdlib": {"vm.iso"}, "dns": {"observe.resolver"}, "pyroute2": set[str]()}
# in a process's own room, JSON that is not ours: of ip(8), of nft(8), and what a user types for QEMU or its agent
FOREIGN_JSON = {"observe.facts", "check.texts", "steps.qmp", "steps.agent"}
ACTING = {
    "os", "socket", "subprocess", "select", "selectors", "time", "shutil", "tempfile", "fcntl", "ctypes", "signal",
    "random", "threading",
}  # fmt: skip
# a program's beginning, and what steps/operations.py calls in the module of every operation
EACH_MODULES_OWN = {"main", "check_words", "operate"}
QUIET_PREFIXES = ("parse_", "plan_", "render_")


def room_of(module: str) -> str:
    return module.partition(".")[0]


def allowed(room: str) -> set[str]:
    """Return the rooms that a room may import."""
    if room in GROUND:
        return GROUND
    if room == "node":
        return OF_ROOT
    if room == "cli":
        return SHARED | PROCESSES - BEYOND_THE_COMMAND | {"cli"}
    if room in PROCESSES:
        return SHARED | {room} | (OPERATIONS if room == "steps" else set())
    place = next(index for index, floor in enumerate(FLOORS) if room in floor)
    return set().union(GROUND, *FLOORS[:place]) | {room}


@cache
def imports(module: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the modules of ours and of others that a module imports, anywhere in it."""
    ours: set[str] = set()
    others: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            others |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] != "pcocc_runtime":
            others.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.ImportFrom):
            base = (node.module or "").partition(".")[2]
            names = [f"{base}.{alias.name}".lstrip(".") for alias in node.names]
            ours |= {name if name in MODULES else base for name in names} - {""}  # "" is the version
    return frozenset(ours), frozenset(others)


@cache
def acting_modules() -> frozenset[str]:
    """Return the modules that import something acting, or one that does."""
    acting = {module for module in MODULES if imports(module)[1] & ACTING}
    while more := {module for module in MODULES if imports(module)[0] & acting} - acting:
        acting |= more
    return frozenset(acting)


def test_every_room_has_its_floor() -> None:
    rooms = {room_of(module) for module in MODULES}
    assert rooms == SHARED | PROCESSES | {"cli"}


def test_the_table_for_strangers_has_every_room() -> None:
    rows = re.findall(r"(?m)^\|[^|\n]*\| `([a-z_ ]+)/?` \|", (ROOT / "CONTRIBUTING.md").read_text())
    assert {room for row in rows for room in row.split()} == {room_of(module) for module in MODULES}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_room_imports_what_it_may(module: str) -> None:
    strangers = {one for one in imports(module)[0] if room_of(one) not in allowed(room_of(module))}
    assert not strangers, f"{module} imports {sorted(strangers)}"


def test_each_dangerous_library_has_its_importer() -> None:
    for library, door in DOORS.items():
        assert {module for module in MODULES if library in imports(module)[1]} == door


def test_a_broad_except_and_a_pause_have_a_reason() -> None:
    """An event is waited for, and the narrowest class caught, unless a comment says why not."""
    wanting = re.compile(r"(except (Base)?Exception( as \w+)?:|^ +time\.sleep\([^#]*\))$")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in [*MODULES.values(), *(ROOT / "tests").glob("*lib/*.py"), *(ROOT / "tests/faults").glob("*.py")]
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if wanting.search(line)
    ]
    assert found == []


def test_locks_are_taken_in_one_place() -> None:
    takers = {module for module, path in MODULES.items() if re.search(r"fcntl\.(flock|lockf)\(|_OFD_", path.read_text())}
    small = "system.used"  # resident keepers import it, and not what the others need
    assert takers == {"system.locks", "system.shared_locks", small}, "flock, and those that hosts see of each other"


@pytest.mark.parametrize("module", sorted(acting_modules()))
def test_what_acts_neither_parses_nor_plans_nor_renders(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    named = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith(QUIET_PREFIXES)]
    assert not named, f"{module} acts, and has {named}"


def test_acting_is_told_from_quiet() -> None:
    acting = acting_modules()
    assert "system.process" in acting and "networks.host" in acting and "site.site" in acting
    assert not {"naming", "networks.plan", "documents.cluster", "guest.seed", "templates.inherit"} & acting


@pytest.mark.parametrize(("verb", "most"), [("set_up", 2200), ("release", 1200), ("start", 2200), ("remove", 1500)])
def test_what_root_reads_can_be_read_in_one_sitting(verb: str, most: int, capsys: pytest.CaptureFixture[str]) -> None:
    code = within(verb)
    names = loaded(code)
    lines = {name: MODULES[name].read_text().count("\n") for name in names}
    with capsys.disabled():
        print(f"\nroot's {verb}: {sum(lines.values())} lines of ours in {len(names)} modules (at most {most})")
    assert {room_of(name) for name in names} <= OF_ROOT
    assert sum(lines.values()) <= most, lines


@pytest.mark.parametrize("module", ["keeper.main", "steps.main"])
def test_what_every_vm_and_step_waits_for_imports_little(module: str) -> None:
    """Half of the time that one of them takes to start; see documents/record.py."""
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import pcocc_runtime.{module}; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-IS", "-c", program], text=True).split()
    assert f"pcocc_runtime.{module}" in loaded
    assert not {"contextlib", "dataclasses", "inspect", "ipaddress", "pathlib", "subprocess", "typing"} & {*loaded}


@pytest.mark.parametrize("module", ["keeper.main", "vm.starter", "steps.session"])
def test_who_runs_as_long_as_a_vm_imports_nothing_of_ours_later(module: str) -> None:
    """An upgrade of the package may have put other modules in the place of those that it began with."""
    names = loaded(f"import pcocc_runtime.{module}")
    assert module in names
    functions = [
        node
        for name in names
        for node in ast.walk(ast.parse(MODULES[name].read_text()))
        if isinstance(node, ast.FunctionDef)
    ]
    imports = [ast.unparse(node) for one in functions for node in ast.walk(one) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [line for line in imports if "pcocc_runtime" in line] == []


def public_names(body: list[ast.stmt]) -> set[str]:
    """Return the classes, functions and values without an underscore that the statements define."""
    found: set[str] = set()
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}
        elif isinstance(node, ast.If):
            found |= public_names([*node.body, *node.orelse])
    return {name for name in found if not name.startswith("_")}


def test_a_name_means_one_thing() -> None:
    homes: dict[str, list[str]] = {}
    for module, path in MODULES.items():
        for name in public_names(ast.parse(path.read_text()).body) - EACH_MODULES_OWN:
            homes.setdefault(name, []).append(module)
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}
    assert homes["Group"] == ["documents.cluster"] and homes["Send"] == ["keeper.transaction"]


def test_a_class_means_one_thing_even_where_it_is_a_modules_own() -> None:
    homes: dict[str, list[str]] = {}
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name.lstrip("_"), []).append(module)
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def fields_of(body: list[ast.stmt]) -> dict[str, str]:
    """Return the annotations of the fields of classes, by `Class.field`."""
    found: dict[str, str] = {}
    for node in body:
        if isinstance(node, ast.ClassDef):
            annotated = [one for one in node.body if isinstance(one, ast.AnnAssign)]
            found |= {f"{node.name}.{ast.unparse(one.target)}": ast.unparse(one.annotation) for one in annotated}
    return found


@pytest.mark.parametrize("module", sorted(module for module in MODULES if room_of(module) == "documents"))
def test_what_a_process_leaves_for_another_is_typed(module: str) -> None:
    """A field of QEMU's own JSON is a Message, as qemu/qmp.py calls that."""
    found = fields_of(ast.parse(MODULES[module].read_text()).body)
    assert {name: kind for name, kind in found.items() if re.search(r"\b(Any|object|dict\[str, (?!str\]))", kind)} == {}


def test_documents_are_encoded_and_decoded_where_they_are_defined() -> None:
    for module, path in MODULES.items():
        names = {name for name in public_names(ast.parse(path.read_text()).body) if name.startswith(("encode_", "decode_"))}
        assert not names or room_of(module) == "documents", f"{module} has {sorted(names)}"


def test_a_process_reads_json_of_ours_only_by_documents() -> None:
    readers = {module for module, path in MODULES.items() if re.search(r"\bloads\(|read_json", path.read_text())}
    assert {module for module in readers if room_of(module) in PROCESSES} == FOREIGN_JSON


def test_what_slurms_commands_print_is_parsed_in_one_place() -> None:
    parsers = {module for module in MODULES if room_of(module) == "slurm" and "def parse_" in MODULES[module].read_text()}
    assert parsers == {"slurm.text"}


def sources() -> list[Path]:
    found: list[Path] = []
    for pattern in ("pcocc_runtime/**/*.py", "tests/**/*.py", "spank/*", "job_submit/*.lua"):
        found += ROOT.glob(pattern)
    return sorted(path for path in found if path.is_file() and path.suffix != ".pyc")


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_sizes(path: Path) -> None:
    text = path.read_text()
    lines, most = text.splitlines(), 120 if path.is_relative_to(RUNTIME) else 130
    assert len(lines) <= 400
    assert [f"{number}: {line}" for number, line in enumerate(lines, 1) if len(line) > most] == []
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 40, f"{node.name} is too long"
    if path.suffix == ".c":
        for name, body in re.findall(r"(?m)^(.*)\n\{\n((?s:.*?))^\}$", text):
            assert body.count("\n") <= 40, f"{name} is too long"
