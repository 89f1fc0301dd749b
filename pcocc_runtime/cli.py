"""The `pcocc` command: the only place that prints and picks exit codes (0 done, 1 refused or failed, 2 wrong usage)."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from pcocc_runtime import (
    __version__,
    cli_image,
    cli_network,
    cli_ps,
    cli_save,
    cli_streams,
    config,
    errors,
    images,
    policy,
    report,
    schema,
    sitecheck,
    templates,
)
from pcocc_runtime.errors import ConfigError
from pcocc_runtime.imagereport import count
from pcocc_runtime.templates import Resolved, Template

Command = Callable[[argparse.Namespace], int]


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose complaints read like our other errors."""

    def error(self, message: str) -> NoReturn:
        cli_streams.say(f"pcocc: error: {message}\nhint: {self.prog} --help\n")
        raise SystemExit(errors.EXIT_USAGE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status."""
    cli_streams.ensure_open()
    try:
        status = _run(argv)
        return cli_streams.finish_output() or status
    except SystemExit as end:  # argparse's, or a signal's
        failed = cli_streams.finish_output()
        raise SystemExit(end.code or failed) from None
    except KeyboardInterrupt:
        return 130


def _run(argv: Sequence[str] | None) -> int:
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as libexec/pcocc has it until here
            signal.signal(signal.SIGINT, signal.default_int_handler)
        arguments = _parser().parse_args(argv)
        run: Command = arguments.run
        return run(arguments)
    except errors.PcoccError as error:
        return _complain([error])
    except BrokenPipeError:
        return errors.EXIT_FAILURE
    except OSError as error:
        return cli_streams.finish_output() or _complain([errors.PcoccError(f"{error.filename or 'pcocc'}: {error.strerror}")])
    except Exception as error:  # the outermost layer
        return _complain([cli_streams.confess(error)])


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="pcocc", description="Virtual clusters of VMs as ordinary Slurm jobs.",
        epilog="Jobs are made with Slurm's own commands: sbatch --pcocc-template=TPL:N job.sh, then srun --pcocc-vm COMMAND "
        "in it; their options are in 'sbatch --help' and 'srun --help'.",
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"pcocc {__version__}")
    groups = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_template(groups.add_parser("template", help="the VM templates you can use"))
    cli_image.add_parsers(groups.add_parser("image", help="the images VMs boot from, and the repositories that keep them"))
    cli_save.add_save(groups.add_parser("save", help="save the disk of a running VM as an image"))
    cli_ps.add_ps(groups.add_parser("ps", help="the virtual clusters that run, and their VMs"))
    cli_network.add_network(groups.add_parser("network", help="the networks of a running job"))
    _add_config(groups.add_parser("config", help="the site's configuration, for its administrator"))
    return parser


def _add_template(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Templates are read from templates.yaml and templates.d/*.yaml in /etc/pcocc and in ~/.pcocc "
        "(PCOCC_USER_CONF_DIR names another directory than ~/.pcocc)."
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="a line for each template")
    form = listing.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="all settings, as JSON")
    form.add_argument("--names", action="store_true", help="the names only, one a line")
    listing.set_defaults(run=_template_list)
    show = verbs.add_parser("show", help="a template's settings, and where each is inherited from")
    show.add_argument("name", metavar="NAME")
    show.add_argument("--json", action="store_true", help="all settings, as JSON")
    show.set_defaults(run=_template_show)
    check = verbs.add_parser("check", help="say what is wrong in any template, all at once")
    check.set_defaults(run=_template_check)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "The site's configuration is /etc/pcocc. PCOCC_SYSTEM_CONF_DIR names another directory, to check it before it is "
        "installed; commands run by root ignore it."
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    check = verbs.add_parser("check", help="say what is wrong in the site's files, all at once")
    check.set_defaults(run=_config_check)
    render = verbs.add_parser("policy", help="write the table that job_submit reads in slurmctld")
    render.add_argument("-o", "--output", metavar="FILE", help="default: policy.lua beside the site's files; '-' prints it")
    render.set_defaults(run=_config_policy)


def _template_list(arguments: argparse.Namespace) -> int:
    site, defined, problems = _load()
    every, unread = _with_images(defined, site)
    found, wrong = _resolve_all(every, site)
    told: list[errors.PcoccError] = [*problems]
    if not arguments.names:
        for error in [*wrong, *unread]:
            sitecheck.add_new(error, told)
    render = report.render_list_json if arguments.json else report.render_names if arguments.names else report.render_list
    sys.stdout.write(render(found))
    return _complain(told)


def _template_show(arguments: argparse.Namespace) -> int:
    site, defined, problems = _load()
    every, unread = _with_images(defined, site)
    try:
        templates.ensure_known(every, arguments.name, unread)
        one = templates.resolve(every, arguments.name, site.default_set)
    except errors.PcoccError as error:
        return _complain([*templates.find_own(problems, arguments.name, every), error])
    sys.stdout.write(report.render_one_json(one) if arguments.json else report.render_one(one))
    return _complain(templates.find_own(problems, arguments.name, every))


def _template_check(_arguments: argparse.Namespace) -> int:
    from pcocc_runtime import client

    site, defined, problems = _load()
    every, unread = _with_images(defined, site)
    sitecheck.check_templates(site, every, problems)
    sitecheck.check_own(site, every, client.read_caller(_site_dir()), problems)
    told: list[errors.PcoccError] = [*problems]
    for error in unread:
        sitecheck.add_new(error, told)
    if not told:
        sys.stdout.write(f"{count(len(defined), 'template')}, no error\n")
    return _complain(told)


def _config_check(_arguments: argparse.Namespace) -> int:
    directory = _site_dir()
    loaded = sitecheck.load_all(directory)
    problems = list(loaded.problems)
    if not Path(directory).is_dir():
        problems.append(ConfigError("is not a directory", directory, hint="PCOCC_SYSTEM_CONF_DIR names it"))
    if directory == config.SITE_DIR:
        _add_distrust(directory, problems)
    if not problems:
        _note([*loaded.notes, *_stale_policy(directory, loaded)])
        sys.stdout.write(
            f"{directory}: {count(len(loaded.templates), 'template')}, {count(len(loaded.site.all_sets), 'resource set')}, "
            f"{count(len(loaded.site.all_networks), 'network')}, no error\n"
        )
    return _complain(problems)


def _add_distrust(directory: str, problems: list[ConfigError]) -> None:
    try:
        config.ensure_trusted(directory)
    except ConfigError as error:
        problems.append(error)


def _stale_policy(directory: str, loaded: sitecheck.Everything) -> list[str]:
    path = Path(directory, "policy.lua")
    try:
        fresh = path.read_text(encoding="utf-8") == _policy_text(loaded)
    except FileNotFoundError:
        return [f"{path} does not exist: 'pcocc config policy' writes it"]
    return [] if fresh else [f"{path} is not what the YAML files say now: run 'pcocc config policy'"]


def _config_policy(arguments: argparse.Namespace) -> int:
    directory = _site_dir()
    loaded = sitecheck.load_all(directory)
    if loaded.problems:
        return _complain(loaded.problems)
    text = _policy_text(loaded)
    if arguments.output == "-":
        sys.stdout.write(text)
        return 0
    from pcocc_runtime.system import files

    path = Path(arguments.output or f"{directory}/policy.lua")
    files.replace_file(path, text.encode(), 0o644)
    sys.stdout.write(f"{path} written; slurmctld takes it up when job_submit.lua is touched, or at its next start\n")
    return 0


def _policy_text(loaded: sitecheck.Everything) -> str:
    return policy.render_policy(loaded.policy, loaded.site.max_vms, loaded.templates, loaded.site.default_set)


def _load() -> tuple[config.Site, dict[str, Template], list[ConfigError]]:
    problems: list[ConfigError] = []
    directory = _site_dir()
    site = config.load_site(directory, problems)
    return site, config.load_templates(directory, config.user_dir(os.environ), problems), problems


def _with_images(every: dict[str, Template], site: config.Site) -> tuple[dict[str, Template], list[errors.PcoccError]]:
    """Return the templates and the images, which are templates with a default resource set, and why some may be missing."""
    if site.default_set is None:
        return every, []
    words = images.path_words(os.environ, images.user_name(), os.path.expanduser("~"))
    problems: list[ConfigError] = []
    found = images.load_repos(_site_dir(), config.user_dir(os.environ), words, problems)
    unread: list[errors.PcoccError] = [*problems]
    return templates.with_images(every, images.list_names(found, unread)), unread


def _site_dir() -> str:
    return config.site_dir(os.environ, os.geteuid())


def _resolve_all(every: dict[str, Template], site: config.Site) -> tuple[list[Resolved], list[ConfigError]]:
    """Return the templates that can be resolved, by name, and what is wrong with the others."""
    found, wrong = [], []
    for name in sorted(filter(schema.is_name, every)):
        try:
            found.append(templates.resolve(every, name, site.default_set))
        except ConfigError as error:
            wrong.append(error)
    return found, wrong


def _note(notes: Sequence[str]) -> None:
    for note in notes:
        cli_streams.say_note(note)


def _complain(problems: Sequence[errors.PcoccError]) -> int:
    sys.stdout.flush()
    for problem in problems:
        cli_streams.say_error(problem)
    return errors.EXIT_FAILURE if problems else 0
