"""Runs nft(8) commands through libnftables, by ctypes."""

import ctypes
import functools

from ..errors import FirewallError


def run(commands: str) -> None:
    """Carry out commands of nft(8) as one transaction. Raises FirewallError with nothing changed."""
    library = _library()
    context = ctypes.c_void_p(library.nft_ctx_new(0))
    try:
        library.nft_ctx_buffer_error(context)
        if library.nft_run_cmd_from_buffer(context, commands.encode()):
            said: bytes = library.nft_ctx_get_error_buffer(context)
            raise FirewallError(f"nftables refused: {said.decode(errors='replace').strip().partition(chr(10))[0]}")
    finally:
        library.nft_ctx_free(context)


@functools.cache
def _library() -> ctypes.CDLL:
    """Return libnftables. Raises FirewallError if it is not installed."""
    try:
        library = ctypes.CDLL("libnftables.so.1")
    except OSError:
        raise FirewallError("libnftables is not installed: apt install nftables") from None
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    return library
