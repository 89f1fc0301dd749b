"""Writes the C source of pcocc_client.so: cffi's embedding of the request check (https://cffi.readthedocs.io,
Embedding)."""

import sys

import cffi

INIT = """
from pcocc_client_object import ffi

@ffi.def_extern(error=0)
def pcocc_client_check(request, answer, size):
    from pcocc_runtime.submit.main import check_request
    code, text = check_request(ffi.string(request).decode("utf-8", "surrogateescape"))
    data = text.encode("utf-8", "surrogateescape")
    if len(data) >= size:
        return 0
    ffi.memmove(answer, data + b"\\0", len(data) + 1)
    return code
"""


def main() -> None:
    """Emit the source into the given file."""
    (output,) = sys.argv[1:]
    ffi = cffi.FFI()
    ffi.embedding_api("int pcocc_client_check(const char *request, char *answer, size_t size);")
    ffi.set_source("pcocc_client_object", "")
    ffi.embedding_init_code(INIT)
    ffi.emit_c_code(output)


main()
