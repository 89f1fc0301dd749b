"""`pcocc image`: its options, and what it prints."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Sequence

from pcocc_runtime import errors, terminal
from pcocc_runtime.cli.common import complain, confdir, interruptible, say_notes
from pcocc_runtime.cli.image_text import (
    ShownDisk,
    names_to_type,
    render_cache,
    render_cache_json,
    render_cleared,
    render_freed,
    render_image,
    render_image_json,
    render_images,
    render_images_json,
    render_repos,
    render_repos_json,
)
from pcocc_runtime.documents.image_cache import ImageCache
from pcocc_runtime.errors import PcoccError, RequestError
from pcocc_runtime.images import checksums, formats, images, references, writing
from pcocc_runtime.images.images import Found
from pcocc_runtime.images.repositories import load_own_repos
from pcocc_runtime.site.settings import read_image_cache
from pcocc_runtime.tables import count

_KINDS = ("vm", "ctr", "cont")  # what pcocc 0.6 called images for VMs, and for containers
_IMAGE = "[REPO:]NAME[@REV]; default: the first REPO that has it, the highest REV"


def add_parsers(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of `pcocc image`."""
    parser.description = (
        "Images are kept in repositories, as revisions made of layers. Repositories are named in repos.yaml in"
        " ~/.pcocc and in /etc/pcocc, in order of priority; without those there is one in ~/.pcocc/images."
    )
    parser.epilog = (
        "Use an image with 'image: NAME' in a template, or --pcocc-image=NAME on the command line of srun or"
        " sbatch."
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    _add_readers(verbs.add_parser)
    _add_import(verbs.add_parser("import", help="make an image from a file, a URL or a container image"))
    _add_export(verbs.add_parser("export", help="write an image to one file"))
    _add_writers(verbs.add_parser)
    _add_repo(verbs.add_parser("repo", help="the repositories"))
    _add_cache(verbs.add_parser("cache", help="this node's copies of images"))


_Add = Callable[..., argparse.ArgumentParser]


def _add_readers(add: _Add) -> None:
    listing = add(
        "list", help="a line for each image", description="Lists images, and with --json all their revisions."
    )
    listing.add_argument("regex", metavar="REGEX", nargs="?", help="only images whose name matches")
    listing.add_argument("-R", "--repo", metavar="REPO", help="only images of this repository")
    form = listing.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="every revision with its layers, as JSON")
    form.add_argument("--names", action="store_true", help="only what to type for each image, one per line")
    listing.set_defaults(run=_list)
    show = add(
        "show",
        help="an image's revisions and layers",
        description="Shows an image's revisions and layers, and the room they take.",
    )
    show.add_argument("image", metavar="IMAGE", help=_IMAGE)
    show.add_argument("--json", action="store_true", help="the same as JSON")
    show.set_defaults(run=_show)
    verify = add(
        "verify", help="read images and report damage",
        description=(
            "Reads all layers of the given images, or of all images, compares their checksums and checks"
            " their tables. Exit status 1 when something is wrong."
        ),
    )
    verify.add_argument("images", metavar="IMAGE", nargs="*", help=_IMAGE)
    verify.add_argument("-R", "--repo", metavar="REPO", help="only images of this repository")
    verify.set_defaults(run=_verify)


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "SOURCE is a file, '-' (stdin), a URL, or an OCI image with one disk in /disk (a containerDisk), as"
        " oci:DIR[:TAG], oci-archive:FILE[:TAG], or with skopeo docker://HOST/NAME:TAG or docker-archive:FILE."
        " The format is detected from the content unless --format is given."
    )
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument(
        "dest", metavar="NAME", help="the new image, as [REPO:]NAME; default: the first repository"
    )
    parser.add_argument("-t", "--format", metavar="FORMAT", choices=formats.FORMATS, help=", ".join(formats.FORMATS))
    parser.add_argument(
        "--checksum", metavar="SUM",
        help="refuse the source if its checksum differs: sha256:HEX or sha512:HEX",
    )
    parser.add_argument("-d", "--description", metavar="TEXT", default="", help="shown by 'pcocc image list'")
    parser.add_argument(
        "--compress", action="store_true", help="store it compressed: smaller, and slower to run from"
    )
    parser.add_argument(
        "--update", action="store_true", help="add a revision if there is an image of this name"
    )
    parser.add_argument("--json", action="store_true", help="print what was stored as JSON")
    parser.set_defaults(run=_import, explain=_name_old_form)


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Writes an image with all its layers to one file, which appears only when it is complete."
    )
    parser.add_argument("image", metavar="IMAGE", help=_IMAGE)
    parser.add_argument("dest", metavar="FILE", help="its suffix decides the format unless --format is given")
    parser.add_argument(
        "-t", "--format", metavar="FORMAT", choices=formats.FORMATS, help=", ".join(formats.FORMATS)
    )
    parser.add_argument("--compress", action="store_true", help="compress a qcow2 or vmdk file")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    parser.set_defaults(run=_export)


def _add_writers(add: _Add) -> None:
    copy = add(
        "copy",
        help="make an image of another one's layers",
        description="Copies the layers that the other repository does not have.",
    )
    copy.add_argument("image", metavar="IMAGE", help=_IMAGE)
    copy.add_argument(
        "dest", metavar="NAME", help="the new image, as [REPO:]NAME; default: the first repository"
    )
    copy.set_defaults(run=_copy)
    resize = add(
        "resize", help="make a revision with a larger disk",
        description=(
            "Makes a revision whose disk is larger; the guest grows its file systems itself, as cloud"
            " images do."
        ),
    )
    # -5G is a size, though a wrong one, and not an option
    resize._negative_number_matcher = re.compile(r"-[0-9]")
    resize.add_argument("image", metavar="IMAGE", help=_IMAGE)
    resize.add_argument("size", metavar="SIZE", help="such as 20G, or +5G for that much more")
    resize.set_defaults(run=_resize)
    delete = add(
        "delete", help="delete a revision, or all of an image",
        description=(
            "Layers that other images need are kept, and so are, until a later gc, those that running VMs"
            " use. Jobs that wait for the image will not find it."
        ),
    )
    delete.add_argument(
        "image", metavar="IMAGE", help="[REPO:]NAME[@REV]; default: the first REPO, and all revisions"
    )
    delete.set_defaults(run=_delete)


def _add_repo(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="a line for each repository, in order of priority")
    listing.add_argument("--json", action="store_true", help="the same as JSON")
    listing.set_defaults(run=_repo_list)
    collect = verbs.add_parser(
        "gc", help="remove layers that no image needs, and what interrupted commands left"
    )
    collect.add_argument("repo", metavar="REPO", nargs="?", help="default: the first repository")
    collect.add_argument(
        "--grace",
        metavar="MINUTES",
        type=_minutes,
        default=10,
        help="keep layers younger than this (default 10): pcocc 0.7 may be about to use them",
    )
    collect.set_defaults(run=_repo_gc)


def _add_cache(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "The copies of image layers that this node keeps for all users, if 'image-cache' is set in"
        " pcocc.yaml."
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="list the layers, the one to be removed next at the top")
    listing.add_argument("--json", action="store_true", help="the same as JSON")
    listing.set_defaults(run=_cache_list)
    clear = verbs.add_parser(
        "clear", help="remove what no VM uses", description="Needs to be root, or the directory's owner."
    )
    clear.set_defaults(run=_cache_clear)


def _minutes(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes")
    return float(text)


def _list(arguments: argparse.Namespace) -> int:
    every, problems = load_own_repos(), list[PcoccError]()
    if arguments.repo:
        every = (references.choose_repo(every, arguments.repo),)
    pattern = _pattern(arguments.regex or "")
    found = [one for one in images.read_images(every, problems) if pattern.search(one.revision.name)]
    entries = [(one.repo, one.revision) for one in found]
    if arguments.names:
        sys.stdout.write("".join(f"{name}\n" for name in names_to_type(entries)))
    elif arguments.json:
        sys.stdout.write(render_images_json(entries, {_key(one): _disk(one) for one in found}))
    else:
        tops = {(one.repo.name, one.revision.name): one for one in found}  # revisions come in order
        sys.stdout.write(render_images(entries, {_key(one): images.read_size(one) for one in tops.values()}))
    return complain(problems)


def _key(one: Found) -> tuple[str, str]:
    return one.repo.name, one.revision.entry


def _disk(one: Found) -> ShownDisk:
    return str(one.path), images.read_size(one)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise RequestError(
            f"{text!r} is not a regular expression: {error}", "quote it from the shell"
        ) from None


def _show(arguments: argparse.Namespace) -> int:
    reference = references.parse_reference(arguments.image)
    top, problems = images.find_image(reference, load_own_repos()), list[PcoccError]()
    found = [top]
    if reference.revision is None:
        found = [
            one for one in images.read_images([top.repo], problems) if one.revision.name == top.revision.name
        ]
    sizes = images.stored_sizes(found)
    if arguments.json:
        pairs = [(one.revision, _disk(one)) for one in found]
        sys.stdout.write(render_image_json(top.repo, pairs, sizes))
    else:
        text = render_image(top.repo, [one.revision for one in found], sizes, images.read_size(top))
        sys.stdout.write(text)
    return complain([one for one in problems if f"/{top.revision.name}@" in one.message])


def _verify(arguments: argparse.Namespace) -> int:
    from pcocc_runtime.images import verifying

    every, problems = load_own_repos(), list[PcoccError]()
    if arguments.repo:
        every = (references.choose_repo(every, arguments.repo),)
    if arguments.images:
        found = [images.find_image(references.parse_reference(image), every) for image in arguments.images]
    else:
        found = images.read_images(every, problems)
    with terminal.Meter() as meter:
        problems += verifying.verify_images(found, meter.begin)
    if not problems:
        sys.stdout.write(f"{count(len(found), 'revision')} {'is' if len(found) == 1 else 'are'} sound\n")
    return complain(problems)


def _import(arguments: argparse.Namespace) -> int:
    from pcocc_runtime.images import importing

    target = references.parse_new_reference(arguments.dest)
    wish = importing.ImportOptions(
        arguments.format, checksums.parse_checksum(arguments.checksum) if arguments.checksum else None,
        errors.one_line(arguments.description), arguments.compress, arguments.update,
    )  # fmt: skip
    notes: list[str] = []
    with interruptible(), terminal.Meter() as meter:
        one = importing.import_image(
            arguments.source, target, load_own_repos(), wish, meter.begin, notes.append
        )
    say_notes(notes)
    if arguments.json:
        sys.stdout.write(render_images_json([(one.repo, one.revision)], {_key(one): _disk(one)}))
        return 0
    return _stored(one)


def _name_old_form(arguments: argparse.Namespace, more: Sequence[str]) -> str | None:
    """Return what to write instead of the form of pcocc 0.6, which had the kind of image before the source."""
    if arguments.source not in _KINDS or len(more) != 1:
        return None
    form = ["-t", arguments.format] if arguments.format else []
    return (
        "pcocc 0.6 took the kind of image first; now write:"
        f" {shlex.join(['pcocc', 'image', 'import', *form, arguments.dest, *more])}"
    )


def _stored(one: Found) -> int:
    sys.stdout.write(f"stored as {one.reference}\n")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from pcocc_runtime.images import exporting

    every = load_own_repos()
    found = images.find_image(references.parse_reference(arguments.image), every)
    with interruptible(), terminal.Meter() as meter:
        path = exporting.export_image(
            found, arguments.dest, arguments.format, every, meter.begin, force=arguments.force,
            compress=arguments.compress
        )
    sys.stdout.write(f"{found.reference} written to {errors.one_line(str(path))}\n")
    return 0


def _copy(arguments: argparse.Namespace) -> int:
    every = load_own_repos()
    target = references.parse_new_reference(arguments.dest)
    source = images.find_image(references.parse_reference(arguments.image), every)
    with interruptible(), terminal.Meter() as meter:
        return _stored(writing.copy_image(source, target, every, meter.begin))


def _resize(arguments: argparse.Namespace) -> int:
    found = images.find_image(references.parse_reference(arguments.image), load_own_repos())
    with interruptible(), terminal.Meter() as meter:
        return _stored(writing.resize_image(found, arguments.size, meter.begin))


def _delete(arguments: argparse.Namespace) -> int:
    from pcocc_runtime.images import removing

    freed = removing.delete_image(references.parse_reference(arguments.image), load_own_repos())
    sys.stdout.write(f"{render_freed(freed.revisions, freed.layers, freed.size, freed.leftovers)}\n")
    say_notes(freed.kept)
    return 0


def _repo_list(arguments: argparse.Namespace) -> int:
    rows = [images.describe_repo(repo) for repo in load_own_repos()]
    sys.stdout.write(render_repos_json(rows) if arguments.json else render_repos(rows))
    return 0


def _repo_gc(arguments: argparse.Namespace) -> int:
    from pcocc_runtime.images import removing

    freed = removing.collect(references.choose_repo(load_own_repos(), arguments.repo), arguments.grace * 60)
    sys.stdout.write(f"{render_freed(freed.revisions, freed.layers, freed.size, freed.leftovers)}\n")
    say_notes(freed.kept)
    return 0


def _cache_list(arguments: argparse.Namespace) -> int:
    from pcocc_runtime.cache import admin

    cache, every = admin.list_cached(_read_cache())
    render = render_cache_json if arguments.json else render_cache
    sys.stdout.write(render(cache.directory, cache.size, every))
    return 0


def _cache_clear(_arguments: argparse.Namespace) -> int:
    from pcocc_runtime.cache import admin

    sys.stdout.write(f"{render_cleared(*admin.clear_cache(_read_cache()))}\n")
    return 0


def _read_cache() -> ImageCache | None:
    return read_image_cache(confdir())
