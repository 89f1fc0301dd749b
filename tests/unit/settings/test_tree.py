"""YAML files become trees that know their lines; whatever is wrong with a file is a sentence with a place."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pcocc_runtime.errors import ConfigError
from pcocc_runtime.settings.tree import parse_yaml

keys = st.text("abcdefg-", min_size=1, max_size=6)
scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=20)
trees = st.dictionaries(
    keys, st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)),
    min_size=1, max_size=4,
)  # fmt: skip


@pytest.mark.thorough
@given(trees)
def test_values_are_what_yaml_says(tree: dict[str, object]) -> None:
    assert parse_yaml(yaml.safe_dump(tree), "f").plain() == yaml.safe_load(yaml.safe_dump(tree))


def test_every_value_knows_its_line_and_path() -> None:
    root = parse_yaml("a: 1\n\nb:\n  c:\n    - x\n    - d: 2\n", "f.yaml")
    inner = root.value["b"].value["c"].value[1].value["d"]
    assert (inner.line, inner.path, inner.value) == (6, "b.c[1].d", 2)
    assert str(inner.error("bad")) == "f.yaml:6: b.c[1].d: bad"


def test_a_value_is_found_by_its_keys_and_a_missing_one_where_it_would_stand() -> None:
    root = parse_yaml("a:\n  b:\n  - 1\n  - {c: 2}\n", "f.yaml")
    assert (root.at(["a", "b", 1, "c"]).value, root.at([]).path) == (2, "")
    for keys, place in ((["x"], "f.yaml:1: x"), (["a", "b", 7, "d"], "f.yaml:2: a.b[7].d"), (["a", 0], "f.yaml:1: a[0]")):
        assert str(root.at(keys).error("bad")) == f"{place}: bad"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: b: c\n", "f:1: not valid YAML"), ("a:\n\t- b\n", "f:2: not valid YAML"),
        ("a: {b\n", "f:2: not valid YAML"),
        ("a: 1\nb: 2\na: 3\n", "f:3: a: set twice, first in line 1"),
        ("a:\n  [1]: 2\n", "f:2: a: a list or mapping cannot be a key"),
        ("a: &x [*x]\n", "f:1: a[0]: a value contains itself"),
        ("a: !!python/object:os.system {}\nb: !thing 2\n", "f:2: b: '2' is not a valid !thing"),
        ("a: é\n\nb: \x07\n", "f:3: not valid YAML: control characters"),
        ("a: é\n\nb: \x1b[1m\n", "f:3: not valid YAML: control characters"),
        ("a: 1\nb: \0\n", "f:2: not valid YAML: control characters"), ("a: 1\n---\nb: 2\n", "f:2: not valid YAML"),
        ("\na: 2020-13-45\n", "f:2: a: '2020-13-45' is not a valid timestamp: month must be in 1..12"),
        ("2020-13-45\n", "f:1: '2020-13-45' is not a valid timestamp"),
        *[
            (f"a: {text}\n", f"f:1: a: {said}")
            for text, said in [
                ("!!int x", "'x' is not a valid int: invalid literal"), ("!!int ''", "'' is not a valid int"),
                ("!!float ''", "'' is not a valid float"), ("!!bool x", "'x' is not a valid bool"),
                ("!!timestamp x", "'x' is not a valid timestamp"), ("!!binary é", "'é' is not a valid binary"),
                ("!!set x", "'x' is not a valid set"), ("!!seq x", "'x' is not a valid seq"),
                ("1:" + "00:" * 200 + "00.5", "'1:00:"), ("9" * 5000, "'999"),
            ]
        ],
        ("a: {<<: 5}\n", "f:1: a: '<<' takes a mapping or a list of mappings"),
        ("a: &a {<<: *a}\n", "f:1: a: a value contains itself"),
        *[
            (text, f"f:{line}: lists and mappings are nested more than 100 levels deep")
            for line, text in [
                (2, "m:\n  " + "{a: " * 20000),
                (3, "\nm:\n  " + "- " * 100000), (1, "? " * 50000 + "x"), (1, "m: " + "[" * 100 + "]" * 100),
                (101, "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 6000))),
                (
                    1,
                    "{a0: &a0 {x: 1}, "
                    + "".join(f"a{n}: &a{n} {{<<: *a{n - 1}}}, " for n in range(1, 300))
                    + "<<: *a299}",
                ),
            ]
        ],
        (
            "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60)),
            "f:19: a18: aliases make this too large",
        ),
        (
            "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: *a{n - 1}, k{n}: 1}}\n" for n in range(1, 600)),
            "f:448: a447: '<<' keys copy",
        ),
    ],
)
def test_what_is_wrong_has_a_place(text: str, place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "f")
    assert str(caught.value).startswith(place)


def test_brackets_without_end_do_not_end_the_process() -> None:
    """Some versions of the parser have a limit of their own."""
    with pytest.raises(ConfigError, match=r"^f:1: (lists and mappings are nested|not valid YAML: exceeded maximum nesting)"):
        parse_yaml("m: " + "[" * 100000, "f")


def test_an_empty_file_is_an_empty_mapping() -> None:
    assert parse_yaml("# nothing\n", "f").value == {}


def test_merge_keys_and_anchors_work() -> None:
    root = parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n", "f")
    assert root.plain()["b"] == {"x": 1, "y": 3}


settings = st.dictionaries(keys, st.none() | st.integers(), max_size=3)
merges = st.recursive(
    settings,
    lambda inner: st.tuples(settings, st.lists(inner, min_size=1, max_size=3)),
    max_leaves=6,
)


def written(tree: object) -> str:
    """A mapping, or one with a `<<` key, as YAML on one line."""
    own, below = tree if isinstance(tree, tuple) else (tree, [])
    parts = [f"{key}: {json.dumps(value)}" for key, value in own.items()]
    if below:
        parts.insert(len(parts) // 2, f"<<: [{', '.join(map(written, below))}]" if len(below) > 1 else f"<<: {written(below[0])}")
    return "{" + ", ".join(parts) + "}"


def meant(tree: object) -> dict[str, object]:
    """What a mapping has by YAML's merge key: its own settings before those below, of which the first has the say."""
    own, below = tree if isinstance(tree, tuple) else (tree, [])
    found: dict[str, object] = {}
    for one in reversed(below):
        found |= meant(one)
    return found | own


@pytest.mark.thorough
@given(merges)
def test_merge_keys_mean_what_yaml_says(tree: object) -> None:
    """PyYAML itself gives `{<<: {<<: {a: 1}, a: 2}}` the wrong one of them."""
    assert parse_yaml(written(tree), "f").plain() == meant(tree)


def test_merge_keys_cannot_explode() -> None:
    text = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 60))
    assert parse_yaml(text, "f").plain()["a59"] == {"x": 1}


def test_everything_that_is_wrong_is_found_at_once() -> None:
    problems: list[ConfigError] = []
    text = "a: 2020-13-45\nb: [1, !!int x, 2]\nc: 3\nc: 4\nd: {[1]: 2, e: 5}\n"
    assert parse_yaml(text, "f", problems).plain() == {"b": [1, 2], "c": 4, "d": {"e": 5}}
    assert [problem.where for problem in problems] == ["f:4: c", "f:1: a", "f:2: b[1]", "f:5: d"]


def test_half_a_surrogate_pair_is_told_with_its_line() -> None:
    with pytest.raises(ConfigError, match=r"^f:2: not valid YAML: surrogates not allowed"):
        parse_yaml("a: 1\nb: \udce9\n", "f")
