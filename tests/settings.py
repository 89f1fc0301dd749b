"""Makes lines of documents/cluster.Group from the rows of templates/settings.py: `make settings` writes them there."""

from collections.abc import Iterator
from pathlib import Path

from pcocc_runtime.templates.row import TemplateSetting
from pcocc_runtime.templates.settings import SETTINGS

CLUSTER = Path(__file__).resolve().parents[1] / "pcocc_runtime/documents/cluster.py"
_BEGIN, _END = "    # rendered from templates/settings.py by `make settings`\n", "    # end\n"


def fields_of(row: TemplateSetting) -> list[str]:
    """Return the names of the fields that carry a setting, those of its parts too."""
    names = [row.field] if isinstance(row.field, str) else [*(row.field or ())]
    return [*names, *(name for part in row.parts for name in fields_of(part))]


def type_of(row: TemplateSetting) -> str:
    """Return the type of a field as Python writes it: that of the default, if the row names no other."""
    return row.carried or ("str | None" if row.default is None else type(row.default).__name__)


def render_fields() -> Iterator[str]:
    """Yield a line for each field; one that has several entries is a tuple, empty where there are none."""
    for row in SETTINGS.values():
        for one in row.parts or (row,):
            default = "()" if one.each else str(one.default) if not isinstance(one.default, str) else f'"{one.default}"'
            yield from (f"    {name}: {type_of(one)} = {default}\n" for name in fields_of(one))


def render_cluster(text: str) -> str:
    """Return the module with the lines as they should be."""
    before, _, rest = text.partition(_BEGIN)
    return f"{before}{_BEGIN}{''.join(render_fields())}{_END}{rest.partition(_END)[2]}"


if __name__ == "__main__":
    CLUSTER.write_text(render_cluster(CLUSTER.read_text()))
