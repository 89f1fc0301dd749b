"""What docs/trust.md says of root, against the code: the programs started with root's rights, and where walls are attacked."""

import ast
import re

from tests.unit.loading import MODULES, ROOT, loaded, within

TRUST = (ROOT / "docs/trust.md").read_text()
STARTERS = {
    "run",
    "start_confined",
    "Popen",
    "check_output",
    "execv",
    "execve",
    "execvp",
    "execvpe",
    "posix_spawn",
    "posix_spawnp",
    "started_as",
}
# who starts what its caller names: the callers are what counts
PASS_ON = {"system.process", "system.confined", "system.run_as", "system.programs", "system.children"}


def started_by(module: str) -> set[str]:
    """Return the programs that a module starts, `?` for one that the code does not name."""
    tree = ast.parse(MODULES[module].read_text())
    names = {
        one.targets[0].id: one.value
        for one in ast.walk(tree)
        if isinstance(one, ast.Assign) and isinstance(one.targets[0], ast.Name)
    }
    found = set()
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = (
            call.func.attr
            if isinstance(call.func, ast.Attribute)
            else call.func.id
            if isinstance(call.func, ast.Name)
            else ""
        )
        if name not in STARTERS or not call.args:
            continue
        words: ast.expr | None = call.args[1] if name == "started_as" else call.args[0]
        words = names.get(words.id) if isinstance(words, ast.Name) else words
        first = words.elts[0] if isinstance(words, ast.List | ast.Tuple) and words.elts else None
        found.add(
            str(first.value)
            if isinstance(first, ast.Constant)
            else ast.unparse(first)
            if first is not None
            else "?"
        )
    return found


def test_the_programs_that_root_starts_are_the_ones_it_names() -> None:
    modules = {name for verb in ("set_up", "release", "start", "remove") for name in loaded(within(verb))} | {
        "node.probe"
    }
    found: dict[str, set[str]] = {}
    for module in modules - PASS_ON:
        for program in started_by(module):
            found.setdefault(program, set()).add(module)
    sentence = re.search(r"Programs it starts as root: (.*?), found in", TRUST).group(1)  # type: ignore[union-attr]
    named = set(re.findall(r"`([a-z]+)`", sentence))
    # the kind of an act is looked at before it is a program's name
    assert (
        found.pop("act.kind", None) == {"node.apply"}
        and 'act.kind in ("ip", "bridge", "tc")' in MODULES["node.apply"].read_text()
    )
    assert named == set(found) - {"?", "str(qemu)"} | {"bridge", "tc"}, found
    assert found.get("?", set()) | found.get("str(qemu)", set()) <= {"node.probe"}, "QEMU, as nobody"


def test_what_trust_names_is_there() -> None:
    """Tests and modules that it says walls are attacked by, or stand in."""
    for path in re.findall(r"`((?:tests|system|guest|node|networks)/[a-z_/]+(?:\.py)?)`", TRUST):
        assert any((ROOT / top / path).exists() for top in (".", "pcocc_runtime")), path
    for path in re.findall(r"`(test_[a-z_]+)`", TRUST):
        assert list((ROOT / "tests").rglob(f"{path}.py")), path
    for path in re.findall(r"\]\((decisions/[^)]*)\)", TRUST):
        assert (ROOT / "docs" / path).exists(), path
