"""What `pcocc image` shows, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from pcocc_runtime.cache.cached_layer import CachedLayer
from pcocc_runtime.errors import one_line
from pcocc_runtime.images.metadata import Revision
from pcocc_runtime.images.references import Repo
from pcocc_runtime.images.sizes import render_size
from pcocc_runtime.tables import columns, count

_Entry = tuple[Repo, Revision]
ShownDisk = tuple[str, int | None]  # its path, and its size in bytes as a VM sees it


def render_images(every: Sequence[_Entry], sizes: Mapping[tuple[str, str], int | None]) -> str:
    """Return a line for each image of each repository; NAME is what to type, with REPO: when another one comes first.

    `sizes` are the disks' sizes in bytes by repository and entry.
    """
    rows = [("NAME", "REVISIONS", "REPO", "KIND", "SIZE", "OWNER", "DATE", "DESCRIPTION")]
    for name, (repo, revisions) in zip(names_to_type(every), _grouped(every), strict=True):
        top = revisions[-1]
        rows.append((
            name, _ranges([one.revision for one in revisions]), repo.name, one_line(top.kind),
            _size(sizes.get((repo.name, top.entry))), one_line(top.owner), _date(top),
            one_line(top.description.strip().partition("\n")[0]),
        ))  # fmt: skip
    return columns(rows)


def names_to_type(every: Sequence[_Entry]) -> list[str]:
    """Return what to type for each image: its name, with REPO: when an earlier repository has an image of that name."""
    taken: set[str] = set()
    names = []
    for repo, revisions in _grouped(every):
        name = revisions[-1].name
        names.append(f"{repo.name}:{name}" if name in taken else name)
        taken.add(name)
    return names


def _grouped(every: Sequence[_Entry]) -> list[tuple[Repo, list[Revision]]]:
    groups: dict[tuple[str, str], tuple[Repo, list[Revision]]] = {}
    for repo, one in every:
        groups.setdefault((repo.name, one.name), (repo, []))[1].append(one)
    for _repo, revisions in groups.values():
        revisions.sort(key=lambda one: one.revision)
    return list(groups.values())


def _ranges(numbers: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in runs)


def _size(size: int | None) -> str:
    return "-" if size is None else render_size(size)


def _date(one: Revision) -> str:
    return _minute(one.timestamp)


def _minute(when: float) -> str:
    return datetime.fromtimestamp(when).strftime("%Y-%m-%d %H:%M")


def render_images_json(every: Sequence[_Entry], disks: Mapping[tuple[str, str], ShownDisk]) -> str:
    """Return all revisions as JSON; `disks` has their disks by repository and entry."""
    return json.dumps([_tree(repo, one, disks[repo.name, one.entry]) for repo, one in every], indent=2) + "\n"


def _tree(repo: Repo, one: Revision, disk: ShownDisk) -> dict[str, Any]:
    return {
        "name": one.name, "revision": one.revision, "repo": repo.name, "kind": one.kind, "owner": one.owner,
        "timestamp": one.timestamp, "description": one.description, "layers": list(one.layers),
        "path": disk[0],
        "virtual_size": disk[1], "source": one.custom.get("source"),
    }  # fmt: skip


def render_image(
    repo: Repo, revisions: Sequence[Revision], sizes: Mapping[str, int | None], virtual: int | None
) -> str:
    """Return what there is to know of an image; `sizes` has the bytes of its layers, None for a missing one."""
    top = revisions[-1]
    rows = [("image", f"{repo.name}:{top.name}"), ("kind", one_line(top.kind))]
    rows += [("disk", render_size(virtual))] if virtual else []
    rows += [("source", one_line(str(top.custom["source"])))] if top.custom.get("source") else []
    rows += [("description", one_line(top.description))] if top.description.strip() else []
    table = [("REVISION", "DATE", "OWNER", "LAYERS", "STORED")]
    for one in revisions:
        known = [sizes[layer] or 0 for layer in one.layers]
        lost = sum(sizes[layer] is None for layer in one.layers)
        stored = f"{render_size(sum(known))}" + (f", {lost} layers missing" if lost else "")
        table.append((str(one.revision), _date(one), one_line(one.owner), str(len(one.layers)), stored))
    layers = [("LAYER", "STORED", f"of revision {top.revision}, lowest first")]
    layers += [
        (layer, "missing" if sizes[layer] is None else _size(sizes[layer]), "") for layer in top.layers
    ]
    return f"{columns(rows)}\n{columns(table)}\n{columns(layers)}"


def render_image_json(
    repo: Repo, every: Sequence[tuple[Revision, ShownDisk]], sizes: Mapping[str, int | None]
) -> str:
    """Return the revisions of an image with their layers as JSON; each is given with its disk."""
    trees = [
        {
            **_tree(repo, one, disk),
            "layers": [{"sha256": layer, "stored": sizes[layer]} for layer in one.layers],
        }
        for one, disk in every
    ]
    return json.dumps(trees, indent=2) + "\n"


def render_freed(revisions: int, layers: int, size: int, leftovers: int) -> str:
    """Return what was removed, in a sentence."""
    parts = [f"{count(revisions, 'revision')} deleted"] if revisions else []
    parts += [f"{count(layers, 'layer')} removed, {render_size(size)} freed"]
    parts += [f"{count(leftovers, 'leftover')} of interrupted commands removed"] if leftovers else []
    return "; ".join(parts)


def render_repos(rows: Sequence[tuple[Repo, str, int, int]]) -> str:
    """Return a line for each repository: its state, images, and bytes free."""
    table = [("NAME", "FROM", "STATE", "IMAGES", "FREE", "PATH")]
    for repo, state, images, free in rows:
        table.append(
            (repo.name, "site" if repo.is_site else "user", state, str(images), render_size(free), repo.path)
        )
    return columns(table)


def render_repos_json(rows: Sequence[tuple[Repo, str, int, int]]) -> str:
    """Return the repositories as JSON."""
    trees = [
        {"name": repo.name, "from": "site" if repo.is_site else "user", "path": repo.path, "state": state,
         "images": images,
         "free": free}
        for repo, state, images, free in rows
    ]  # fmt: skip
    return json.dumps(trees, indent=2) + "\n"


def render_cache(directory: str, limit: int, every: Sequence[CachedLayer]) -> str:
    """Return a summary of a node's image cache, then a line for each layer."""
    taken = sum(one.stored for one in every)
    head = (
        f"{directory}: {count(len(every), 'layer')}, {render_size(taken)} of at most {render_size(limit)}\n"
    )
    table = [("LAYER", "READERS", "STORED", "LAST USE")]
    table += [
        (
            one.sha256, "all" if one.public else "some", render_size(one.stored),
            "now" if one.used else _minute(one.last_use),
        )
        for one in every
    ]
    return f"{head}\n{columns(table)}" if every else head


def render_cache_json(directory: str, limit: int, every: Sequence[CachedLayer]) -> str:
    """Return a node's image cache as JSON: sizes in bytes, times in seconds since 1970."""
    return (
        json.dumps(
            {"directory": directory, "size": limit, "layers": [asdict(one) for one in every]}, indent=2
        )
        + "\n"
    )


def render_cleared(removed: int, freed: int, kept: int) -> str:
    """Return what was removed from a node's image cache, in a sentence."""
    text = f"{count(removed, 'layer')} removed, {render_size(freed)} freed"
    return f"{text}; {count(kept, 'layer')} in use kept" if kept else text
