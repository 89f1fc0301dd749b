"""`pcocc template`: its options, and what it prints."""

from __future__ import annotations

import argparse
import os
import sys

from pcocc_runtime import errors
from pcocc_runtime.cli.common import complain, confdir, load, say_notes
from pcocc_runtime.cli.template_text import (
    render_names,
    render_one,
    render_one_json,
    render_templates,
    render_templates_json,
)
from pcocc_runtime.errors import ConfigError
from pcocc_runtime.images import images
from pcocc_runtime.images.repositories import load_repos, path_words
from pcocc_runtime.settings import checks, directories
from pcocc_runtime.site.check import add_new, check_templates
from pcocc_runtime.site.site import Site
from pcocc_runtime.submit.template_check import check_own
from pcocc_runtime.system import accounts
from pcocc_runtime.tables import count
from pcocc_runtime.templates import inherit
from pcocc_runtime.templates.template import Resolved, Template


def add_template(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of `pcocc template`."""
    parser.description = (
        "Templates are read from templates.yaml and templates.d/*.yaml in /etc/pcocc and in ~/.pcocc "
        "(PCOCC_USER_CONF_DIR names another directory than ~/.pcocc)."
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="a line for each template")
    form = listing.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="all settings, as JSON")
    form.add_argument("--names", action="store_true", help="only the names, one per line")
    listing.set_defaults(run=_template_list)
    show = verbs.add_parser("show", help="a template's settings, and where each is inherited from")
    show.add_argument("name", metavar="NAME")
    show.add_argument("--json", action="store_true", help="all settings, as JSON")
    show.set_defaults(run=_template_show)
    check = verbs.add_parser("check", help="report everything that is wrong in any template")
    check.set_defaults(run=_template_check)


def _template_list(arguments: argparse.Namespace) -> int:
    site, defined, problems = load()
    every, unread = _with_images(defined, site)
    found, wrong = _resolve_all(every, site)
    told: list[errors.PcoccError] = [*problems]
    if not arguments.names:
        for error in [*wrong, *unread]:
            add_new(error, told)
    render = (
        render_templates_json if arguments.json else render_names if arguments.names else render_templates
    )
    sys.stdout.write(render(found))
    if not arguments.names:
        say_notes(_find_misnamed())
    return complain(told)


def _find_misnamed() -> list[str]:
    """Return what is said of files that are not read, of the site's and the user's."""
    every = (confdir(), directories.user_dir(os.environ))
    return [told for directory in every if directory for told in directories.find_misnamed(directory)]


def _template_show(arguments: argparse.Namespace) -> int:
    site, defined, problems = load()
    every, unread = _with_images(defined, site)
    try:
        inherit.ensure_known(every, arguments.name, unread)
        one = inherit.resolve(every, arguments.name, site.default_set)
    except errors.PcoccError as error:
        return complain([*inherit.find_own_problems(problems, arguments.name, every), error])
    sys.stdout.write(render_one_json(one) if arguments.json else render_one(one))
    return complain(inherit.find_own_problems(problems, arguments.name, every))


def _template_check(_arguments: argparse.Namespace) -> int:
    from pcocc_runtime.submit.main import read_whole_caller

    site, defined, problems = load()
    every, unread = _with_images(defined, site)
    check_templates(site, every, problems)
    notes: list[str] = []
    check_own(site, every, read_whole_caller(confdir()), problems, notes)
    say_notes(notes)
    told: list[errors.PcoccError] = [*problems]
    for error in unread:
        add_new(error, told)
    say_notes(_find_misnamed())
    if not told:
        sys.stdout.write(f"{count(len(defined), 'template')}, no error\n")
    return complain(told)


def _with_images(
    every: dict[str, Template], site: Site
) -> tuple[dict[str, Template], list[errors.PcoccError]]:
    """Return the templates, those that images are by themselves included, and why some may be missing."""
    if site.default_set is None:
        return every, []
    words = path_words(os.environ, accounts.user_name(), os.path.expanduser("~"))
    problems: list[ConfigError] = []
    found = load_repos(confdir(), directories.user_dir(os.environ), words, problems)
    unread: list[errors.PcoccError] = [*problems]
    return inherit.with_images(every, images.list_names(found, unread)), unread


def _resolve_all(every: dict[str, Template], site: Site) -> tuple[list[Resolved], list[ConfigError]]:
    """Return the templates that can be resolved, by name, and what is wrong with the others."""
    found, wrong = [], []
    for name in sorted(filter(checks.is_template_name, every)):
        try:
            found.append(inherit.resolve(every, name, site.default_set))
        except ConfigError as error:
            wrong.append(error)
    return found, wrong
