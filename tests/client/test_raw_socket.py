"""Raw sockets that cannot be had, and the sentence for it."""

import errno
import os
import socket

import pytest

from knockknock.client import raw_socket
from knockknock.errors import SendError


@pytest.mark.parametrize(("number", "sentence"), [(errno.EMFILE, "Too many open files"), (errno.EPERM, "--send|sudo")])
def test_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch, number: int, sentence: str) -> None:
    def fail(*_: object) -> socket.socket:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket, "socket", fail)
    with pytest.raises(SendError, match=sentence):
        raw_socket.open_raw(0)


def test_a_family_that_the_kernel_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(socket, "socket", fail)
    assert raw_socket.open_raw(0) == {}
