"""The document for a boot step tells a runtime that is too old for it."""

import pytest

from pcocc_runtime import __version__
from pcocc_runtime.documents.boot import Keys, decode_boot, encode_boot
from pcocc_runtime.errors import NodeError

KEYS = Keys("a", "b", "c", "d")


@pytest.mark.parametrize("version", ["0.0.9", __version__])
def test_who_is_as_new_or_newer_boots(version: str) -> None:
    assert decode_boot(encode_boot("cluster", KEYS, version)) == ("cluster", KEYS)


@pytest.mark.parametrize("version", ["0.1.1", "0.10.0", "1.0"])
def test_a_node_that_is_older_says_so_with_both_versions(version: str) -> None:
    with pytest.raises(NodeError) as caught:
        decode_boot(encode_boot("cluster", KEYS, version))
    assert caught.value.message == f"this node has pcocc {__version__}, which is older than the {version} that boots these VMs"
