"""`pcocc config`: the site's configuration, checked and rendered for slurmctld."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pcocc_runtime.cli.common import complain, confdir, say_notes
from pcocc_runtime.cli.config_import import add_import
from pcocc_runtime.cli.partitions import add_partitions
from pcocc_runtime.cli.slurm_notes import find_slurm_notes
from pcocc_runtime.errors import ConfigError
from pcocc_runtime.settings import directories
from pcocc_runtime.site import policy
from pcocc_runtime.site.check import Everything, load_everything
from pcocc_runtime.system import trust
from pcocc_runtime.tables import count


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of `pcocc config`."""
    parser.description = (
        "The site's configuration is /etc/pcocc. PCOCC_SYSTEM_CONF_DIR names another directory, to check it"
        " before it is installed; commands run by root ignore it."
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    check = verbs.add_parser("check", help="report everything that is wrong in the site's files")
    check.set_defaults(run=_config_check)
    render = verbs.add_parser("policy", help="write the table that job_submit reads in slurmctld")
    render.add_argument(
        "-o", "--output", metavar="FILE", help="default: policy.lua in the site's directory; '-' prints it"
    )
    render.set_defaults(run=_config_policy)
    add_import(verbs.add_parser("import", help="turn files of the original pcocc into new ones, with a report"))
    add_partitions(
        verbs.add_parser(
            "partitions", help="print the partitions that an InfiniBand fabric's subnet manager must be given once"
        )
    )


def _config_check(_arguments: argparse.Namespace) -> int:
    directory = confdir()
    loaded = load_everything(directory)
    problems = list(loaded.problems)
    if not Path(directory).is_dir():
        is_named = directory != directories.SITE_DIR  # root reads no other, whatever the variable says
        hint = "PCOCC_SYSTEM_CONF_DIR names it" if is_named else None
        problems.append(ConfigError("is not a directory", directory, hint=hint))
    if directory == directories.SITE_DIR:
        _add_distrust(directory, problems)
    if not problems:
        say_notes([*loaded.notes, *_stale_policy(directory, loaded), *find_slurm_notes(loaded.site)])
        sys.stdout.write(
            f"{directory}: {count(len(loaded.templates), 'template')},"
            f" {count(len(loaded.site.all_sets), 'resource set')},"
            f" {count(len(loaded.site.all_networks), 'network')}, no error\n"
        )
    return complain(problems)


def _add_distrust(directory: str, problems: list[ConfigError]) -> None:
    try:
        trust.ensure_root_only(directory)
    except ConfigError as error:
        problems.append(error)


def _stale_policy(directory: str, loaded: Everything) -> list[str]:
    path = Path(directory, "policy.lua")
    try:
        fresh = path.read_text(encoding="utf-8") == _policy_text(loaded)
    except FileNotFoundError:
        return [f"{path} does not exist: 'pcocc config policy' writes it"]
    return [] if fresh else [f"{path} does not match the YAML files: run 'pcocc config policy'"]


def _config_policy(arguments: argparse.Namespace) -> int:
    directory = confdir()
    loaded = load_everything(directory)
    if loaded.problems:
        return complain(loaded.problems)
    text = _policy_text(loaded)
    if arguments.output == "-":
        sys.stdout.write(text)
        return 0
    from pcocc_runtime.system import files

    path = Path(arguments.output or f"{directory}/policy.lua")
    files.replace_file(path, text.encode(), 0o644)
    sys.stdout.write(
        f"{path} written; slurmctld reads it when job_submit.lua is touched, or at its next start\n"
    )
    return 0


def _policy_text(loaded: Everything) -> str:
    site = loaded.site
    return policy.render_policy(
        loaded.policy, site.max_vms, loaded.templates, site.default_set, site.all_networks, site.all_sets
    )
