"""YAML files become trees that know their lines, and whatever is wrong with one is a sentence with a place."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pcocc_runtime import yamlfile
from pcocc_runtime.errors import ConfigError

keys = st.text("abcdefg-", min_size=1, max_size=6)
scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=20)
trees = st.dictionaries(
    keys, st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)),
    min_size=1, max_size=4,
)  # fmt: skip


@given(trees)
def test_values_are_what_yaml_says(tree: dict[str, object]) -> None:
    assert yamlfile.parse(yaml.safe_dump(tree), "f").plain() == yaml.safe_load(yaml.safe_dump(tree))


def test_every_value_knows_its_line_and_path() -> None:
    root = yamlfile.parse("a: 1\n\nb:\n  c:\n    - x\n    - d: 2\n", "f.yaml")
    inner = root.value["b"].value["c"].value[1].value["d"]
    assert (inner.line, inner.path, inner.value) == (6, "b.c[1].d", 2)
    assert str(inner.error("bad")) == "f.yaml:6: b.c[1].d: bad"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: b: c\n", "f:1: not valid YAML"),
        ("a:\n\t- b\n", "f:2: not valid YAML"),
        ("a: {b\n", "f:2: not valid YAML"),
        ("a: 1\nb: 2\na: 3\n", "f:3: a: set twice, first in line 1"),
        ("a:\n  [1]: 2\n", "f:2: a: a list or mapping cannot be a key"),
        ("a: &x [*x]\n", "f:1: a[0]: a value contains itself"),
        ("a: !!python/object:os.system {}\nb: !thing 2\n", "f:2: not valid YAML"),
        ("a: \x07\n", "f: not valid YAML"),
        ("a: 1\n---\nb: 2\n", "f:2: not valid YAML"),
        ("a: 2020-13-45\n", "f: not valid YAML"),
    ],
)
def test_what_is_wrong_has_a_place(text: str, place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        yamlfile.parse(text, "f")
    assert str(caught.value).startswith(place)


def test_an_empty_file_is_an_empty_mapping() -> None:
    assert yamlfile.parse("# nothing\n", "f").value == {}


def test_merge_keys_and_anchors_work() -> None:
    root = yamlfile.parse("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n", "f")
    assert root.plain()["b"] == {"x": 1, "y": 3}


def test_aliases_cannot_explode() -> None:
    text = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
    assert len(yamlfile.parse(text, "f").value) == 60
