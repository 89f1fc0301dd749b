"""The site's files are read whole, and root reads them only when nobody else can have written them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pcocc_runtime import errors
from pcocc_runtime.errors import ConfigError
from pcocc_runtime.settings import directories
from pcocc_runtime.site.check import load_everything
from pcocc_runtime.site.settings import ImageCache, read_image_cache
from pcocc_runtime.site.site import read_site
from pcocc_runtime.system import trust
from pcocc_runtime.templates.load import load_templates
from tests.unit.fake_site import write_site


def test_a_directory_without_files_is_a_site_with_defaults(tmp_path: Path) -> None:
    site = read_site(tmp_path)
    assert (site.accel, site.scratch, site.qemu) == ("auto", "/var/lib/pcocc/scratch", "/usr/bin/qemu-system-x86_64")
    assert site.default_set is None and site.networks == {} and site.resource_sets == {}


def test_only_what_can_be_built_is_offered_to_the_node(tmp_path: Path) -> None:
    site = read_site(write_site(tmp_path / "etc"))
    assert set(site.networks) == {"lan"} and set(site.all_networks) == {"lan", "ib"}
    assert site.resource_sets == {"default": ("lan",), "bare": (), "fast": ("lan", "ib")}
    assert site.default_set == "default" and site.max_vms == 64


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("pcocc", "accel: fast\n", "pcocc.yaml:1: accel: expected one of auto, kvm, tcg, found text 'fast'"),
        ("pcocc", "accel: on\n", "pcocc.yaml:1: accel: expected one of auto, kvm, tcg, found true or false 'on'"),
        ("pcocc", "\nqemu: bin/qemu\n", "pcocc.yaml:2: qemu: 'bin/qemu' is not an absolute path"),
        ("pcocc", "max-vm: 3\n", "pcocc.yaml:1: max-vm: unknown setting"),
        ("pcocc", "image-cache: {directory: /c}\n", "pcocc.yaml:1: image-cache: size is missing"),
        (
            "pcocc", "image-cache: {size: 50}\n",
            "pcocc.yaml:1: image-cache.size: expected an amount of disk space such as 50G or 1T, found a",
        ),
        ("pcocc", "image-cache: {size: 0G}\n", "pcocc.yaml:1: image-cache.size: expected an amount of disk space"),
        (
            "pcocc", "image-cache: {size: 1G, directory: c}\n",
            "pcocc.yaml:1: image-cache.directory: 'c' is not an absolute path",
        ),
        ("pcocc", "image-cache:\n", "pcocc.yaml:1: image-cache: expected a mapping, found nothing"),
        ("pcocc", "[]\n", "pcocc.yaml:1: expected a mapping, found a list"),
        ("networks", "lan: {type: ethernet\n", "networks.yaml:2: not valid YAML"),
    ],
)
def test_a_wrong_file_is_one_sentence_with_its_line(tmp_path: Path, name: str, text: str, said: str) -> None:
    directory = write_site(tmp_path / "etc", **{name: text})
    with pytest.raises(ConfigError) as caught:
        read_site(directory)
    assert str(caught.value).startswith(f"{directory}/{said}")


def test_the_image_cache_is_read_alone_too(tmp_path: Path) -> None:
    directory = write_site(tmp_path / "etc", pcocc="image-cache: {size: 1536m}\n")
    assert read_image_cache(directory) == read_site(directory).image_cache == ImageCache(1536 << 20, "/var/cache/pcocc")
    assert read_image_cache(tmp_path) is None
    (directory / "pcocc.yaml").write_text("image-cache: {size: 1G}\nwrong: 1\n")
    with pytest.raises(ConfigError, match="wrong: unknown setting"):
        read_image_cache(directory)


def test_what_users_may_set_is_checked_for_them_and_not_for_root(tmp_path: Path) -> None:
    """Root needs none of it, and so knows no settings of templates."""
    directory = write_site(tmp_path / "etc", pcocc="users-may-set:\n  kernels: []\n  qemu-bin: /opt\n  kernel: [/boot/*]\n")
    assert [str(one).partition("pcocc.yaml:")[2] for one in load_everything(str(directory)).problems] == [
        "2: users-may-set.kernels: unknown setting", "3: users-may-set.qemu-bin: expected a list, found text '/opt'",
    ]  # fmt: skip
    limits = read_site(directory).users_may_set
    assert (limits.patterns("kernel"), limits.patterns("custom-args")) == (("/boot/*",), None)
    for wrong in ("[]", "", "all"):
        (directory / "pcocc.yaml").write_text(f"users-may-set: {wrong}\n")
        with pytest.raises(ConfigError, match="users-may-set: expected a mapping, found "):
            read_site(directory)


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pcocc.yaml"
    path.write_bytes(b"a: 1\n\xff\n")
    with pytest.raises(ConfigError, match=r"pcocc.yaml:2: is not UTF-8 text"):
        read_site(tmp_path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="is not a regular file"):
        read_site(tmp_path)


def test_templates_come_from_both_directories_and_their_drop_ins(tmp_path: Path) -> None:
    site, user = write_site(tmp_path / "etc"), tmp_path / "home/.pcocc"
    for directory, text in ((site, "more: {cpus: 2}"), (user, "mine: {inherits: more}")):
        (directory / "templates.d").mkdir(parents=True)
        (directory / "templates.d/10.yaml").write_text(text)
        (directory / "templates.d/ignored.txt").write_text("{")
    problems: list[ConfigError] = []
    found = load_templates(site, str(user), problems)
    assert problems == [] and set(found) == {"tiny", "big", "fast", "empty", "more", "mine"}
    assert found["more"].is_site and not found["mine"].is_site


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_text(""), "is not a directory"), (os.mkfifo, "is not a directory"),
        (lambda path: path.symlink_to("gone"), "is a link to something that does not exist"),
        (
            lambda path: (path.mkdir(), (path / "a.yaml").symlink_to("gone")),
            "/a.yaml: is a link to something that does not exist",
        ),
        (lambda path: (path.mkdir(), (path / "a.yaml").mkdir()), "/a.yaml: is not a regular file"),
    ],
)
def test_templates_that_cannot_be_there_are_told(tmp_path: Path, make: Callable[[Path], object], said: str) -> None:
    make(tmp_path / "templates.d")
    problems: list[ConfigError] = []
    assert load_templates(tmp_path, None, problems) == {}
    assert [str(problem).startswith(f"{tmp_path}/templates.d") and str(problem).endswith(said) for problem in problems] == [True]


def test_a_link_that_leads_nowhere_is_no_missing_file(tmp_path: Path) -> None:
    (tmp_path / "pcocc.yaml").symlink_to("gone")
    with pytest.raises(ConfigError, match=r"pcocc\.yaml: is a link to something that does not exist"):
        read_site(tmp_path)


@pytest.mark.parametrize("name", ["gone", "file"])
def test_a_directory_that_the_environment_names_must_exist(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    for variable in ("PCOCC_SYSTEM_CONF_DIR", "PCOCC_USER_CONF_DIR"):
        with pytest.raises(ConfigError) as caught:
            find = directories.user_dir if "USER" in variable else lambda environ: directories.site_dir(environ, 1000)
            find({variable: str(tmp_path / name), "HOME": "/home/a"})
        assert (str(caught.value), caught.value.hint) == (
            f"{tmp_path}/{name}: is not a directory",
            f"the environment variable {variable} names it",
        )


def test_the_environment_leads_users_elsewhere_and_never_root() -> None:
    environ = {"PCOCC_SYSTEM_CONF_DIR": "/usr", "HOME": "/home/a"}
    assert directories.site_dir(environ, 1000) == "/usr"
    assert directories.site_dir(environ, 0) == directories.site_dir({}, 1000) == "/etc/pcocc"
    assert directories.user_dir(environ) == "/home/a/.pcocc"
    assert directories.user_dir({**environ, "PCOCC_USER_CONF_DIR": "/var"}) == "/var"
    assert directories.user_dir({**environ, "PCOCC_USER_CONF_DIR": ""}) == "/home/a/.pcocc"
    assert directories.user_dir({}) is None


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(["/x", "%{homedir}/x", "ethernet", "lan"])
)
keys = st.text(max_size=5) | st.sampled_from(
    ["name", "path", "repos", "cache", "networks", "default", "users", "type", "settings", "mtu", "accel", "users-may-set",
     "host-paths", "inherits",
     "image", "accounts", "allow", "deny", "max-vms", "resource-set", "reverse-nat", "int-network", "a", "b"]
)  # fmt: skip
trees = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=12)


@pytest.mark.thorough
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.sampled_from(["pcocc", "networks", "resources", "templates", "policy", "repos"]), trees)
def test_any_content_of_any_file_is_taken_or_told_with_its_place(tmp_path: Path, name: str, tree: object) -> None:
    directory = write_site(tmp_path / "etc", **{name: yaml.safe_dump(tree)})
    for problem in load_everything(str(directory)).problems:
        assert problem.file.startswith(f"{directory}/") and problem.line and problem.message, problem


@pytest.mark.thorough
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.sampled_from(["pcocc", "networks", "resources", "templates", "policy", "repos"]), st.binary(max_size=60))
def test_any_bytes_are_taken_or_told(tmp_path: Path, name: str, data: bytes) -> None:
    directory = write_site(tmp_path / "etc")
    (directory / f"{name}.yaml").write_bytes(data)
    for problem in load_everything(str(directory)).problems:
        assert problem.file.startswith(f"{directory}/") and "\n" not in errors.one_line(str(problem))


@pytest.fixture
def rooted(tmp_path: Path) -> Path:
    if os.geteuid():
        pytest.skip("needs root to own files")
    for parent in (tmp_path, *tmp_path.parents):
        if parent != Path("/tmp") and parent != Path("/"):
            parent.chmod(0o755)
    return write_site(tmp_path / "etc")


def test_root_trusts_what_only_root_can_write(rooted: Path) -> None:
    trust.ensure_root_only(str(rooted))


@pytest.mark.parametrize("name", [".", "templates.yaml", "templates.d", "templates.d/x.yaml", ".."])
@pytest.mark.parametrize("how", ["group", "others", "owner"])
def test_root_refuses_what_others_can_write(rooted: Path, name: str, how: str) -> None:
    (rooted / "templates.d").mkdir()
    (rooted / "templates.d/x.yaml").touch()
    path = (rooted / name).resolve()
    if how == "owner":
        os.chown(path, 1234, 0)
    else:
        path.chmod(path.stat().st_mode | (0o020 if how == "group" else 0o002))
    try:
        with pytest.raises(ConfigError, match="belongs to uid 1234" if how == "owner" else "can be written by others") as caught:
            trust.ensure_root_only(str(rooted))
    finally:
        os.chown(path, 0, 0)
        path.chmod(0o755)
    assert caught.value.file == str(path) and caught.value.hint


def test_root_refuses_links_and_a_missing_directory(rooted: Path) -> None:
    (rooted / "link.yaml").symlink_to("/tmp/elsewhere")
    with pytest.raises(ConfigError, match="is a symbolic link"):
        trust.ensure_root_only(str(rooted))
    with pytest.raises(ConfigError, match="does not exist"):
        trust.ensure_root_only(str(rooted / "missing"))
