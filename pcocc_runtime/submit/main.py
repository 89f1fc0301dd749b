"""The check behind srun, sbatch and salloc, called by the embedded interpreter once per command with our options."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pcocc_runtime import errors
from pcocc_runtime.documents import wire_steps
from pcocc_runtime.documents.cluster import ARRAY_TASK, Cluster
from pcocc_runtime.documents.hook import plan_hook_cluster
from pcocc_runtime.documents.typed_options import decode_typed_options
from pcocc_runtime.settings import directories
from pcocc_runtime.site import admission, hooks
from pcocc_runtime.site.check import load_site_and_templates
from pcocc_runtime.site.resource_sets import ResourceSet
from pcocc_runtime.site.site import Site
from pcocc_runtime.submit import freeze, restart
from pcocc_runtime.submit.checkpoints import ensure_storable, parse_checkpoints
from pcocc_runtime.submit.request import (
    Request,
    RequestPart,
    RestartRequest,
    find_empty_options,
    find_restart,
    parse_request,
    parse_vms,
    render_answer,
)
from pcocc_runtime.submit.submission import Caller
from pcocc_runtime.system import accounts, user_files
from pcocc_runtime.system.checkpoint_place import ensure_makable
from pcocc_runtime.templates import inherit
from pcocc_runtime.templates.fill import typed_path

if TYPE_CHECKING:
    from pcocc_runtime.images.references import Repo
    from pcocc_runtime.templates.template import Template


def check_request(request_json: str) -> tuple[int, str]:
    """Return (1, lines of 'key value'), (2, what to tell the user), or (0, the fault) when the check itself failed."""
    try:
        return wire_steps.CHECK_PASSED, _answer(request_json)
    except errors.PcoccError as error:
        return wire_steps.CHECK_REFUSED, errors.render(error)
    except Exception as error:  # the outermost layer: an exception must not cross into C
        place = _last_frame(error)
        return wire_steps.CHECK_BROKEN, errors.one_line(f"{type(error).__name__} at {place}: {error}")


def _answer(request_json: str) -> str:
    options = decode_typed_options(request_json)
    if wanted := find_restart(options):
        return _answer_restart(wanted)
    asked = parse_request(options)
    if asked.vms:
        parse_vms(asked.vms, asked.vm_count)
    problems: list[errors.ConfigError] = []
    directory = directories.site_dir(os.environ, os.geteuid())
    site, every = load_site_and_templates(directory, directories.user_dir(os.environ), problems)
    if problems:
        raise problems[0]
    caller = read_whole_caller(directory)
    if site.default_set and any(inherit.needs_images(every, part.template) for part in asked.parts):
        every = _with_images(every, asked, _repos(directory, caller.user, caller.home))
    notes = find_empty_options(options)
    cluster = freeze.freeze(asked, site, every, caller, notes)
    sets = [site.all_sets[name] for name in dict.fromkeys(group.resource_set for group in cluster.groups)]
    admission.ensure_compatible(sets, site.all_networks)
    _ensure_admitted(cluster, site, every)
    cluster = _with_checkpoints(cluster, asked.checkpoints, sets, site)
    hooks.run_hooks(directory, plan_hook_cluster(hooks.SUBMIT, caller.user, None, cluster))
    return render_answer(asked.parts, cluster, notes)


def _answer_restart(wanted: RestartRequest) -> str:
    """Return the answer for a job that goes on from a checkpoint: its cluster is the one that was stored."""
    problems: list[errors.ConfigError] = []
    directory = directories.site_dir(os.environ, os.geteuid())
    site, _every = load_site_and_templates(directory, directories.user_dir(os.environ), problems)
    if problems:
        raise problems[0]
    cluster = restart.read_cluster_of(_typed(wanted.directory))
    if wanted.vms:
        parse_vms(wanted.vms, cluster.vm_count)
    sets = restart.find_sets(cluster, site)
    admission.ensure_compatible(sets, site.all_networks)
    admission.ensure_admitted(sets, accounts.read_person_here)
    cluster = _with_checkpoints(cluster, wanted.checkpoints, sets, site)
    hooks.run_hooks(directory, plan_hook_cluster(hooks.SUBMIT, accounts.user_name(), None, cluster))
    return render_answer(tuple(RequestPart(one.template, one.count) for one in cluster.groups), cluster)


def _with_checkpoints(cluster: Cluster, text: str | None, sets: Sequence[ResourceSet], site: Site) -> Cluster:
    """Return the cluster with what --pcocc-checkpoint asks for, if anything; RequestError when it cannot be."""
    if text is None:
        return cluster
    asked = parse_checkpoints(text)
    asked = replace(asked, directory=_typed(asked.directory))
    if ARRAY_TASK not in asked.directory:  # else it is known when its task boots
        ensure_makable(Path(asked.directory))
    ensure_storable(cluster, sets, site.all_networks)
    return replace(cluster, checkpoints=asked)


def _typed(path: str) -> str:
    return typed_path(path, user_files.working_directory(), os.environ.get("HOME", "/"))


def _with_images(every: dict[str, Template], asked: Request, repos: tuple[Repo, ...]) -> dict[str, Template]:
    """Return the templates, with images added as templates; RequestError when one asked for is neither."""
    from pcocc_runtime.images import images  # here, as in find_image: it takes 20 ms

    unread: list[errors.PcoccError] = []
    every = inherit.with_images(every, images.list_names(repos, unread))
    for part in asked.parts:
        inherit.ensure_known(every, part.template, unread)
    return every


def _ensure_admitted(cluster: Cluster, site: Site, every: dict[str, Template]) -> None:
    """Raise ConfigError, at the first template that has it, when the caller may not use a resource set."""
    first = {group.resource_set: group.template for group in reversed(cluster.groups)}
    for name, template in first.items():
        with inherit.resolve(every, template, site.default_set).at("resource-set"):
            admission.ensure_admitted([site.all_sets[name]], accounts.read_person_here)


def read_whole_caller(confdir: str) -> Caller:
    """Return who runs this command, and where."""
    environ = dict(os.environ)
    user, own_home = accounts.read_home()  # the account's, not the environment's: a site's limits use them
    home = environ.get("HOME") or own_home or "/"

    def find_image(text: str) -> tuple[str, str]:
        from pcocc_runtime.images import images  # 20 ms that paths need not pay

        return images.find_boot_disk(text, _repos(confdir, user, home))

    return Caller(user, home, own_home, user_files.working_directory(), environ, find_image)


def _repos(confdir: str, user: str, home: str) -> tuple[Repo, ...]:
    from pcocc_runtime.images.repositories import path_words, read_repos

    return read_repos(confdir, directories.user_dir(os.environ), path_words(os.environ, user, home))


def _last_frame(error: BaseException) -> str:
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    if not trace:
        return "an unknown place"
    return f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
