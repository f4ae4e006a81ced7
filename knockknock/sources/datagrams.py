"""Reads many datagrams with one recvmmsg(2), which Python's socket does not offer."""

import ctypes
import errno
import os
import socket

BATCH = 64
"""The most datagrams that one call reads."""


class _Vector(ctypes.Structure):
    """struct iovec (readv(2))."""

    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr (recvmsg(2))."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_size", ctypes.c_uint),
        ("vectors", ctypes.POINTER(_Vector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr (recvmmsg(2))."""

    _fields_ = (("header", _Header), ("length", ctypes.c_uint))


class Datagrams:
    """A buffer for a batch of datagrams, and the call that fills it."""

    def __init__(self, one: socket.socket, size: int) -> None:
        """one: may be blocking. size: bytes of buffer for each datagram; a longer one is cut off."""
        self._socket = one
        self.buffer = bytearray(BATCH * size)
        """The datagrams: one begins each `size` bytes."""
        self._room = (ctypes.c_char * len(self.buffer)).from_buffer(self.buffer)
        first = ctypes.addressof(self._room)
        self._vectors = (_Vector * BATCH)(*[_Vector(first + at * size, size) for at in range(BATCH)])
        self._messages = (_Message * BATCH)()
        for message, vector in zip(self._messages, self._vectors, strict=True):
            message.header.vectors, message.header.vector_count = ctypes.pointer(vector), 1
        words = memoryview(self._messages).cast("B").cast("I")
        self._lengths = words[_Message.length.offset // 4 :: ctypes.sizeof(_Message) // 4]
        self._receive = ctypes.CDLL(None, use_errno=True).recvmmsg
        self._receive.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]

    def receive(self) -> list[int]:
        """Fill the buffer without waiting. Return the sizes of the datagrams, none if none came. Raises OSError."""
        count = self._receive(self._socket.fileno(), self._messages, BATCH, socket.MSG_DONTWAIT, None)
        if count >= 0:
            return self._lengths[:count].tolist()
        if (code := ctypes.get_errno()) == errno.EAGAIN:
            return []
        raise OSError(code, os.strerror(code))
