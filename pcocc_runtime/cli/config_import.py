"""`pcocc config import`: files of the original pcocc as files of this one, with a report."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcocc_runtime.cli.common import complain, confdir, say_notes
from pcocc_runtime.errors import EXIT_FAILURE, ConfigError, RequestError
from pcocc_runtime.settings import directories
from pcocc_runtime.settings.tree import Node, parse_yaml
from pcocc_runtime.site.check import load_everything
from pcocc_runtime.site.fates import CHANGED, LEFT_OUT, SAME, TO_DO
from pcocc_runtime.system import files, user_files
from pcocc_runtime.tables import count

if TYPE_CHECKING:
    from pcocc_runtime.site.original import Translation


def add_import(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `pcocc config import`."""
    parser.add_argument("directory", metavar="DIR", help="the directory with the original's networks.yaml and so on")
    parser.add_argument("-o", "--output", metavar="NEW", help="where to write; default: the site's directory")
    parser.set_defaults(run=_config_import)


def _config_import(arguments: argparse.Namespace) -> int:
    from pcocc_runtime.site import original

    source, target = Path(arguments.directory), Path(arguments.output or confdir())
    problems: list[ConfigError] = []
    trees = _read(source, problems)
    if any(one.key is None for one in problems):  # a whole file, not one of its keys
        return complain(problems)
    if not trees:
        hint = f"the original's files are {', '.join(original.FILES)} and templates.d/*.yaml, by default in /etc/pcocc"
        raise RequestError(f"{source} has no file of the original pcocc", hint)
    done = original.plan_import(trees, user_files.find_last_revision)
    _ensure_free(target, done)
    _write(target, done, source)
    say_notes([str(one) for one in problems])
    for fate in done.fates:
        sys.stdout.write(f"{fate}\n")
    found = Counter(fate.what for fate in done.fates)
    counts = ", ".join(f"{found[what]} {what}" for what in (SAME, CHANGED, LEFT_OUT, TO_DO))
    sys.stdout.write(f"{count(len(done.trees), 'file')} written to {target}; keys: {counts}\n")
    status = complain(_check(done))
    return EXIT_FAILURE if found[TO_DO] else status


def _read(source: Path, problems: list[ConfigError]) -> dict[str, Node]:
    """Return the trees of the original's files by their names; what is wrong in them is added to `problems`."""
    from pcocc_runtime.site import original

    drop_ins = directories.list_drop_ins(f"{source}/templates.d", problems)
    names = [*original.FILES, *(f"templates.d/{Path(one).name}" for one in drop_ins), *original.GONE]
    trees: dict[str, Node] = {}
    for name in names:
        try:
            text = directories.read_file(f"{source}/{name}")
            if text is not None:
                trees[name] = parse_yaml(text, name, problems)
        except ConfigError as error:
            problems.append(error)
    return trees


def _ensure_free(target: Path, done: Translation) -> None:
    there = next((name for name in done.trees if (target / name).exists()), None)
    if there:
        raise RequestError(f"{target / there} exists already", "write to an empty directory: --output=NEW")


def _write(target: Path, done: Translation, source: Path | None = None) -> None:
    for name, tree in done.trees.items():
        path = target / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.replace_file(path, _render(name, tree, source).encode(), 0o644)
        except OSError as error:
            raise RequestError(f"{path} cannot be written: {error.strerror}") from None


def _render(name: str, tree: Any, source: Path | None) -> str:
    """Return the text of a file."""
    import yaml

    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=110) if tree else ""
    return f"# {name}, made from {source} of the original pcocc by 'pcocc config import'\n\n{text}"


def _check(done: Translation) -> list[ConfigError]:
    """Return what is wrong in the files as they were written; a user's own, without resources.yaml, are not checked."""
    if "resources.yaml" not in done.trees:
        return []
    with tempfile.TemporaryDirectory(prefix="pcocc-import-") as place:
        _write(Path(place), done)
        found = load_everything(place).problems
        return [
            ConfigError(one.message, os.path.relpath(one.file, place), one.line, one.key, one.hint) for one in found
        ]
