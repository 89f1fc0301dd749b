"""Deleting images, and garbage collection: layers that no image needs, and what interrupted commands left."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pcocc_runtime.errors import PcoccError, RequestError
from pcocc_runtime.images import images, references, removal, repository, writing
from pcocc_runtime.images.references import Reference, Repo
from pcocc_runtime.tables import count

GRACE = 600  # seconds: pcocc 0.7 adds layers before the metadata that refer to them, without taking the lock
_FOREIGN_AGE = 86400  # seconds after which what pcocc 0.7 left in .tmp is removed


@dataclass(slots=True)
class Freed:
    """What was removed, `size` in bytes; `kept` says why layers that no image needs are still there."""

    revisions: int = 0
    layers: int = 0
    size: int = 0
    leftovers: int = 0
    kept: tuple[str, ...] = ()


def delete_image(reference: Reference, every: Sequence[Repo]) -> Freed:
    """Delete a revision or a whole image from the named or first repository, and layers that only it needed."""
    repo = references.choose_repo(every, reference.repo)
    with repository.explained(repo, changing=True):
        if reference.name not in repository.list_entries(repo):
            raise _absent(reference, repo, every)
        with writing.lock_repository(repo):
            repository.refresh(repo)
            revisions = repository.list_entries(repo).get(reference.name, [])
            chosen = [number for number in revisions if reference.revision in (None, number)]
            if not chosen:
                raise RequestError(
                    f"image {reference.name!r} has no revision {reference.revision}",
                    f"it has {', '.join(map(str, revisions)) or 'none any more'}",
                )
            layers = _layers_of(repo, reference.name, chosen)
            # the highest last: until then the image's name means the same revision as before
            for number in chosen:
                repository.remove_revision(repo, reference.name, number)
            freed = Freed(revisions=len(chosen))
            _remove_layers(repo, freed, lambda layer, _changed: layer in layers)
    return freed


def collect(repo: Repo, grace: float = GRACE) -> Freed:
    """Remove what interrupted commands left, and layers that no image needs and that are older than `grace` seconds."""
    freed = Freed()
    with repository.explained(repo, changing=True):
        if not repository.is_created(repo):
            return freed
        with writing.lock_repository(repo):
            repository.complete(repo)
            repository.remove_probes(repo)
            freed.leftovers = removal.sweep_repo(repo)
            now = repository.refresh(repo)
            freed.leftovers += repository.remove_foreign(repo, now - max(_FOREIGN_AGE, grace))
            young = _remove_layers(repo, freed, lambda _layer, changed: changed <= now - grace)
            if young:
                reason = f"younger than {grace / 60:g} minutes, so an image may be about to use them"
                freed.kept += (f"{count(young, 'layer')} kept: {reason}",)
    return freed


def _absent(reference: Reference, repo: Repo, every: Sequence[Repo]) -> RequestError:
    elsewhere = [
        one for one in every if reference.repo is None and reference.name in images.list_images([one])
    ]
    hint = f"there is {elsewhere[0].name}:{reference.name}" if elsewhere else "see 'pcocc image list'"
    return RequestError(f"there is no image {reference.name!r} in repository {repo.name!r}", hint)


def _layers_of(repo: Repo, name: str, revisions: Sequence[int]) -> set[str]:
    layers: set[str] = set()
    for number in revisions:
        with contextlib.suppress(PcoccError, FileNotFoundError):  # damaged: gc will find its layers
            layers.update(repository.read_revision(repo, name, number).layers)
    return layers


def _remove_layers(repo: Repo, freed: Freed, is_chosen: Callable[[str, float], bool]) -> int:
    """Remove unneeded layers that `is_chosen` picks by sum and time of change; return how many it leaves."""
    problems = repository.find_unknown(repo)
    needed = {
        layer for one in repository.read_all(repo, problems) for layer in one.layers
    } | repository.read_pins(repo)
    if problems:
        freed.kept += (
            f"no layer was removed, because it is not known which ones are needed: {problems[0].message}",
        )
        return 0
    others = used = 0
    unknown: list[OSError] = []
    for layer, info in list(repository.list_layers(repo)):
        if layer in needed:
            continue
        if not is_chosen(layer, info.st_ctime):
            others += 1
            continue
        try:
            removed = removal.remove_unused_layer(repo, layer)
        except OSError as error:
            unknown.append(error)
            continue
        if removed:
            freed.layers += 1
            freed.size += info.st_blocks * 512
        else:
            used += 1
    if used:
        freed.kept += (f"{count(used, 'layer')} in use by running VMs, left for a later gc",)
    if unknown:
        reason = f"{unknown[0].filename}: {unknown[0].strerror}"
        freed.kept += (
            f"{count(len(unknown), 'layer')} left, because you may not read or remove them: {reason}",
        )
    return others
