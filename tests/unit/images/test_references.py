"""repos.yaml, and the references to images that users may write."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcocc_runtime.errors import ConfigError, RequestError
from pcocc_runtime.images import references
from pcocc_runtime.images.references import Reference, Repo
from pcocc_runtime.images.repositories import read_repos
from pcocc_runtime.settings.tree import parse_yaml

WORDS = {"user": "alice", "homedir": "/home/alice", "env:SCRATCH": "/scratch/alice"}


def parse(text: str) -> tuple[tuple[Repo, ...], list[ConfigError]]:
    problems: list[ConfigError] = []
    return references.parse_repos(parse_yaml(text, "r.yaml"), False, WORDS, problems), problems


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("debian", Reference("debian")),
        ("site:debian", Reference("debian", "site")),
        ("debian@0", Reference("debian", None, 0)),
        ("a.b:c_d-1@12", Reference("c_d-1", "a.b", 12)),
        ("-odd", Reference("-odd")),
    ],
)
def test_references_are_read(text: str, meant: Reference) -> None:
    assert references.parse_reference(text) == meant
    assert str(meant) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@1",
        ":",
        "a:",
        ":a",
        "a/b",
        "../a",
        "a:../b",
        "../r:a",
        "a\nb",
        "a\n",
        "a@",
        "a@x",
        "a@-1",
        "a@1@2",
        "a@1\n",
        "é",
        "a b",
        "x" * 300,
        "a@" + "9" * 254,
        "a@٣",
        "a:b:c/d",
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        references.parse_reference(text)
    assert len(str(caught.value)) < 250 and caught.value.hint


@pytest.mark.parametrize("text", ["a@1", ".hidden", "-a", "..", "x" * 65, "_a"])
def test_new_images_have_names_that_templates_can_have(text: str) -> None:
    with pytest.raises(RequestError):
        references.parse_new_reference(text)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        assert str(references.parse_reference(text)) == text or "@0" in text
    except RequestError:
        pass


def test_repositories_come_in_order_with_their_paths_filled_in() -> None:
    found, problems = parse(
        "repos:\n- {name: a, path: '%{homedir}/i'}\n- {name: b, path: ~/x}\n"
        "- {name: c, path: '%{env:SCRATCH}/%{user}'}\ncache: {path: /c}"
    )
    assert problems == []
    assert [(one.name, one.path) for one in found] == [
        ("a", "/home/alice/i"),
        ("b", "/home/alice/x"),
        ("c", "/scratch/alice/alice"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("repos: {name: a, path: /b}", "r.yaml:1: repos: expected a list, found a mapping"),
        ("repos: [{name: a}]", "r.yaml:1: repos[0]: path is missing"),
        ("repos: [{name: a, path: b}]", "r.yaml:1: repos[0].path: 'b' is not an absolute path"),
        ("repos: [{name: a, path: '%{env:NO}/b'}]", "r.yaml:1: repos[0].path: '%{env:NO}/b' is not an absolute path"),
        ("repos: [{name: a/b, path: /b}]", "r.yaml:1: repos[0].name: expected a name of letters"),
        (
            "repos:\n- {name: a, path: /b}\n- {name: a, path: /c}",
            "r.yaml:3: repos[1].name: two repositories have the name 'a'",
        ),
        ("repo: []", "r.yaml:1: repo: unknown setting"),
        ("[]", "r.yaml:1: expected a mapping, found a list"),
    ],
)
def test_a_wrong_file_is_told_with_line_and_key(text: str, said: str) -> None:
    problems = parse(text)[1]
    assert len(problems) == 1 and str(problems[0]).startswith(said)


def load(tmp_path: Path, site: str | None, user: str | None) -> tuple[Repo, ...]:
    for name, text in (("site", site), ("user", user)):
        (tmp_path / name).mkdir()
        if text is not None:
            (tmp_path / name / "repos.yaml").write_text(text)
    return read_repos(str(tmp_path / "site"), str(tmp_path / "user"), WORDS)


def test_the_user_comes_before_the_site(tmp_path: Path) -> None:
    found = load(tmp_path, "repos: [{name: s, path: /s}]", "repos: [{name: u, path: /u}]")
    assert found == (Repo("u", "/u", False), Repo("s", "/s", True))


def test_without_any_file_there_is_one_at_home(tmp_path: Path) -> None:
    assert load(tmp_path, None, None) == (Repo("user", "/home/alice/.pcocc/images", False),)


def test_one_name_twice_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the site has a repository with the name 's', too"):
        load(tmp_path, "repos: [{name: s, path: /s}]", "repos: [{name: s, path: /u}]")
