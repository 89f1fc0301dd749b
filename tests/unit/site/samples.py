"""The commented samples of a site's configuration."""

import re
from collections.abc import Iterable
from pathlib import Path

SAMPLES = Path(__file__).parents[3] / "etc/pcocc"


def find_unnamed(sample: str, names: Iterable[str]) -> list[str]:
    """Return those settings that no line of a sample sets, not even one that is commented."""
    text = (SAMPLES / f"{sample}.yaml").read_text()
    return [name for name in names if not re.search(rf"(?m)(^#? *(- )?|[{{,] *){re.escape(name)}:", text)]
