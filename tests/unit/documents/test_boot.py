"""The document for a boot step tells a runtime that is too old for it."""

import base64
import json
import zlib

import pytest

from pcocc_runtime import __version__
from pcocc_runtime.documents.boot import Boot, Keys, decode_boot, encode_boot
from pcocc_runtime.errors import NodeError

KEYS = Keys("a", "b", "c", "d")


@pytest.mark.parametrize("version", ["0.0.9", __version__])
def test_who_is_as_new_or_newer_boots(version: str) -> None:
    assert decode_boot(encode_boot(Boot("cluster", KEYS), version)) == Boot("cluster", KEYS)


@pytest.mark.parametrize("version", ["0.1.1", "0.10.0", "1.0"])
def test_a_node_that_is_older_says_so_with_both_versions(version: str) -> None:
    with pytest.raises(NodeError) as caught:
        decode_boot(encode_boot(Boot("cluster", KEYS), version))
    assert caught.value.message == f"this node has pcocc {__version__}, which is older than the {version} that boots these VMs"


def test_former_keys_and_those_of_a_pcocc_that_knew_of_none() -> None:
    boot = Boot("cluster", KEYS._replace(other_hosts="x\ny"), KEYS)
    assert decode_boot(encode_boot(boot)) == boot
    tree = {"cluster": "c", "keys": dict.fromkeys(("user", "user_public", "host", "host_public"), "k")}
    older = base64.b64encode(zlib.compress(json.dumps(tree).encode())).decode()
    assert decode_boot(older) == Boot("c", Keys("k", "k", "k", "k"), None)
