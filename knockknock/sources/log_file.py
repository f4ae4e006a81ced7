"""Follows a log file that a syslog daemon writes, by inotify, through every way of rotating it.

inotify only wakes the daemon; the files themselves tell what to do, so a lost or merged event does no harm. A rotated
file is closed only when its successor has content: until then the syslog daemon may still write to the old one.
"""

import contextlib
import grp
import os
from collections.abc import Iterator

import inotify_simple

from ..core.packet import Packet
from ..errors import SourceError
from .kernel_line import MAX_LINE, Lines

CHUNK = 1 << 16
MAX_LINKS = 8
MAX_FILES = 8
"""The most files that are open at a time: the current one, and rotated ones whose successors are still empty."""
TAIL = 64
"""Bytes before the read position that are compared: others there mean that the file was truncated and grew again."""
TRIES = 5
"""Attempts to open a file whose mode allows it. If all fail, the sandbox forbids it; one can fail because of a chown()
between open() and access()."""
FLAGS = inotify_simple.flags
MOVES = FLAGS.MOVE_SELF | FLAGS.DELETE_SELF | FLAGS.ONLYDIR
NEWS = MOVES | FLAGS.CREATE | FLAGS.MOVED_TO | FLAGS.ATTRIB


class _File:
    """An open log file and the read position in it."""

    def __init__(self, fd: int, watch: int) -> None:
        self.fd, self.watch = fd, watch
        status = os.fstat(fd)
        self.identity = status.st_dev, status.st_ino
        self._place, self._tail, self._line, self._skip = 0, b"", b"", False

    def begun(self) -> bool:
        """Return True if anything was ever written to the file."""
        return self._place > 0 or os.fstat(self.fd).st_size > 0

    def skip(self) -> None:
        """Go to the end, and skip a line that is half written there."""
        self._place = os.fstat(self.fd).st_size
        self._tail = os.pread(self.fd, TAIL, max(0, self._place - TAIL))[: self._place]
        self._skip = not self._tail.endswith(b"\n") and self._place > 0

    def lines(self) -> Iterator[list[bytes]]:
        """Yield portions of the complete lines that were written since the last call, without their newlines."""
        if os.pread(self.fd, len(self._tail), self._place - len(self._tail)) != self._tail:
            self._place, self._tail, self._line, self._skip = 0, b"", b"", False
        while data := os.pread(self.fd, CHUNK, self._place):
            self._place += len(data)
            self._tail = (self._tail + data)[-TAIL:]
            *whole, rest = (self._line + data).split(b"\n")
            if whole:
                yield whole[self._skip :]
                self._skip = False
            # A line that is too long to be ours is dropped, and the rest of it skipped.
            self._skip = self._skip or len(rest) > MAX_LINE
            self._line = b"" if self._skip else rest


class KernLog:
    """Reads a log file, from its end on (sources.Source)."""

    GIVES = frozenset({"tcp timestamps"})

    def __init__(self, path: str) -> None:
        self.path, self._complaint = path, ""
        self._lines = Lines()
        self.hearing = self._lines.hearing
        self._inotify = inotify_simple.INotify(nonblocking=True)
        self._watched: set[int] = set()
        self._files: list[_File] = []
        """Rotated files that may still be written to, then the file at the path."""
        if problem := self._watch():
            raise SourceError(problem)
        self._follow()
        for file in self._files:
            file.skip()
        self.group = self._group()
        if _mounted(path):
            self._complaint = (
                f"{path} is mounted by itself, so its rotation outside is not seen here, and nothing is heard after: "
                "mount its directory, or set source = kmsg"
            )

    def fileno(self) -> int:
        return int(self._inotify.fileno())

    def read(self) -> Iterator[Packet | None]:
        """Yield the packets of new lines, in order, from all files. Raises SourceError."""
        if any(event.mask & ~(FLAGS.MODIFY | FLAGS.IGNORED) for event in self._inotify.read(timeout=0)):
            self._complaint = self._watch() or self._complaint
        more = True
        while more:
            for file in tuple(self._files):
                if file.begun():
                    # The writer has finished the files before it, but perhaps after they were last read.
                    while self._files[0] is not file:
                        yield from self._packets(self._files[0])
                        self._leave(self._files.pop(0))
                yield from self._packets(file)
            more = self._follow()

    def _packets(self, file: _File) -> Iterator[Packet | None]:
        for lines in file.lines():
            yield from self._lines.packets(lines)

    def drain(self) -> None:
        """Do nothing: the file keeps its lines."""

    def complaint(self) -> str:
        text, self._complaint = self._complaint, ""
        return text

    def _watch(self) -> str:
        """Watch all directories that the path leads through. Return a sentence about what is wrong with it, or ""."""
        problem, ways = "", None
        while (now := _ways(self.path)) != ways:  # again, if something changed before it was watched
            ways, watched = now, set()
            directories, missing = now
            problem = f"{self.path} cannot be followed: {missing} is not there" if missing else ""
            for place, events in directories.items():
                try:
                    watched.add(self._inotify.add_watch(place, events))
                except OSError as error:
                    problem = f"{self.path} cannot be followed: {place} cannot be watched: {error.strerror}"
            for old in self._watched - watched:
                self._unwatch(old)
            self._watched = watched
        return problem

    def _follow(self) -> bool:
        """Open the file at the path, and return True, if it is a new file that may be read.

        Raises SourceError if only the sandbox forbids it, because that does not change until the next start.
        """
        try:
            status = os.stat(self.path)
            if self._files and self._files[-1].identity == (status.st_dev, status.st_ino):
                return False
            fd = self._open()
        except (FileNotFoundError, NotADirectoryError):
            return False
        if fd is None:
            # A new file may not have its group yet; the chown will be an inotify event.
            self._complaint = f"{self.path} may not be read yet: let the daemon's group read it (chgrp, chmod g+r)"
            return False
        self._files.append(_File(fd, self._inotify.add_watch(f"/proc/self/fd/{fd}", FLAGS.MODIFY)))
        if len(self._files) > MAX_FILES:
            self._leave(self._files.pop(0))
        return True

    def _open(self) -> int | None:
        """Open the file at the path; return None if it may not be read. Raises OSError, SourceError."""
        for _ in range(TRIES):
            try:
                return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
            except PermissionError:
                if not os.access(self.path, os.R_OK):
                    return None
        raise SourceError(
            f"{self.path} is in another directory now, which the sandbox does not let it read: restart the daemon"
        )

    def _leave(self, file: _File) -> None:
        self._unwatch(file.watch)
        os.close(file.fd)

    def _unwatch(self, watch: int) -> None:
        with contextlib.suppress(OSError):
            # The kernel has already removed the watch of a file or directory that is gone.
            self._inotify.rm_watch(watch)

    def _group(self) -> int | None:
        """Return the group that may read the file after its next rotation, None if everybody may.

        A file that does not exist yet counts as adm's. Raises SourceError if only root may read it.
        """
        if not self._files:
            with contextlib.suppress(KeyError):
                return grp.getgrnam("adm").gr_gid
            return None
        status = os.fstat(self._files[-1].fd)
        if status.st_mode & 0o004:
            return None
        if status.st_mode & 0o040 and status.st_gid != 0:
            return status.st_gid
        raise SourceError(
            f"{self.path} can be read by root alone, so not after its next rotation: "
            "give it a group (chgrp adm, chmod 640), or set source = kmsg"
        )


def _ways(path: str) -> tuple[dict[str, int], str]:
    """Return the directories on the way to a file, through every link, and the first missing one, or "".

    Each has the mask of the events to watch: MOVES, and NEWS for a directory that holds a link, the file, or a name
    that is missing. New files in other directories are irrelevant, and may be many.
    """
    found: dict[str, int] = {}
    here, left, links = "/", path.split("/")[::-1], 0
    while left:
        name = left.pop()
        if name in ("", ".", ".."):
            here = os.path.dirname(here) if name == ".." else here
            continue
        place = os.path.join(here, name)
        leads = ""
        with contextlib.suppress(OSError):
            leads = os.readlink(place)
        missing = not os.path.lexists(place)
        found[here] = found.get(here, MOVES) | (NEWS if leads or missing or not left else MOVES)
        if leads and links < MAX_LINKS:
            links += 1
            here = "/" if leads.startswith("/") else here
            left += leads.split("/")[::-1]
        elif missing and left:
            return found, place
        else:
            here = place
    return found, ""


def _mounted(path: str) -> bool:
    """Return True if a file is a mount point, as in containers (proc_pid_mountinfo(5), field 5)."""
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", "rb") as mounts:
        place = os.fsencode(os.path.realpath(path))
        return any(line.split(b" ")[4].replace(b"\\040", b" ") == place for line in mounts)
    return False


def open_source(path: str) -> KernLog:
    """Open a log file at its end, or watch for its creation. Raises SourceError."""
    try:
        return KernLog(path)
    except OSError as error:
        raise SourceError(f"{path} cannot be followed: {error.strerror}") from None


look = open_source  # reading takes the file from nobody
