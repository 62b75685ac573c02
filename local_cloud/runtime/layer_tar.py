"""Applies one image layer's tar to the root directory of this process, in the form overlayfs reads.

The process has changed its root to the layer's directory before, so no path in a tar, through links or not, leads out
of it. Whiteouts become character devices 0:0, opaque directories the attribute `overlay.opaque` (kernel,
Documentation/filesystems/overlayfs; OCI image-spec, layer.md).
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from typing import IO

from local_cloud.runtime.trash import remove_tree

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_CHUNK = 1 << 20
_XATTR = "SCHILY.xattr."
_NO_SUPPORT = (errno.ENOTSUP, errno.EPERM)


class HostileLayer(Exception):
    """The tar contains what no layer may."""


class LayerTar:
    """`own_only`: this process has one user id, so all files belong to it. `privileged`: a real root."""

    def __init__(self, privileged: bool, own_only: bool) -> None:
        self._privileged, self._own_only = privileged, own_only
        self._opaque = "trusted.overlay.opaque" if privileged else "user.overlay.opaque"
        self._directories = {"/"}
        self._times: dict[str, int] = {}

    def apply(self, stream: IO[bytes]) -> None:
        """Reads an uncompressed tar; raises HostileLayer, tarfile.TarError, OSError."""
        os.umask(0)
        with tarfile.open(fileobj=stream, mode="r|", bufsize=_CHUNK, errorlevel=2) as tar:
            for member in tar:
                self._entry(tar, member)
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep every header
        for path in sorted(self._times, reverse=True):
            if os.path.isdir(path) and not os.path.islink(path):
                _set_time(path, self._times[path])

    def _entry(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = _clean(member.name)
        parent, base = os.path.split(path)
        self._parents(parent)
        if base.startswith(_WHITEOUT):
            self._whiteout(parent, base)
            return
        if not self._clear(path, member):
            return
        if member.isreg():
            self._file(tar, member, path)
            return
        if member.islnk():
            target = _clean(member.linkname)
            try:
                os.link(target, path, follow_symlinks=False)
            except OSError as error:
                raise HostileLayer(f"{path} is a hard link to {target}: {(error.strerror or '').lower()}") from None
            return
        if not self._special(member, path):
            return
        self._attributes(member, path)

    def _parents(self, parent: str) -> None:
        if parent in self._directories:
            return
        self._parents(os.path.dirname(parent))
        try:
            os.mkdir(parent, 0o755)
        except FileExistsError:
            if not os.path.isdir(parent):
                raise HostileLayer(f"{parent} is used as a directory and is none") from None
        else:
            self._directories.add(parent)
        # A link to a directory is not remembered: a later entry may replace it.

    def _clear(self, path: str, member: tarfile.TarInfo) -> bool:
        """Makes way for an entry; False when the entry is of a kind that is left out."""
        if not (member.isreg() or member.isdir() or member.issym() or member.islnk() or member.isdev()):
            raise HostileLayer(f"{path} is of the unknown type {member.type!r}")
        if (member.ischr() or member.isblk()) and not self._privileged:
            return False  # an ordinary user cannot make devices; the runtime provides /dev
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            return True
        if path == "/" and not member.isdir():
            raise HostileLayer("the root of the layer is not a directory")
        if stat.S_ISDIR(mode) and member.isdir():
            return True
        if stat.S_ISDIR(mode):
            below = f"{path}/"
            self._directories = {each for each in self._directories if each != path and not each.startswith(below)}
        remove_tree(path)
        return True

    def _whiteout(self, parent: str, base: str) -> None:
        if base == _OPAQUE:
            os.setxattr(parent, self._opaque, b"y")
            return
        if base.startswith(_WHITEOUT * 2):
            return  # bookkeeping of an older file system (aufs)
        name = base.removeprefix(_WHITEOUT)
        if name in ("", ".", ".."):
            raise HostileLayer(f"{base} in {parent} is not a whiteout")
        path = os.path.join(parent, name)
        self._directories = {each for each in self._directories if each != path and not each.startswith(f"{path}/")}
        remove_tree(path)
        os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))

    def _file(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            source = tar.extractfile(member) if member.issparse() else tar.fileobj
            assert source is not None
            left = member.size
            while left:
                data = source.read(min(left, _CHUNK))
                if not data:
                    raise tarfile.ReadError(f"it ends within {path}")
                left -= len(data)
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)
        self._attributes(member, path)

    def _special(self, member: tarfile.TarInfo, path: str) -> bool:
        if member.isdir():
            if not os.path.isdir(path):
                os.mkdir(path, 0o755)
            self._directories.add(path)
        elif member.issym():
            os.symlink(member.linkname, path)
        elif member.isfifo():
            os.mkfifo(path)
        else:
            kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            os.mknod(path, kind, os.makedev(member.devmajor, member.devminor))
        return True

    def _attributes(self, member: tarfile.TarInfo, path: str) -> None:
        """Owner first: a change of owner clears set-id bits and capabilities."""
        if not self._own_only:
            try:
                os.lchown(path, member.uid, member.gid)
            except (OverflowError, ValueError):
                raise HostileLayer(f"{path} has the impossible owner {member.uid}:{member.gid}") from None
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                owner = f"{member.uid}:{member.gid}"
                raise HostileLayer(f"{path} belongs to {owner}, an id this account has no range for") from None
        if not member.issym():
            os.chmod(path, stat.S_IMODE(member.mode))
        for key, text in member.pax_headers.items():
            if key.startswith(_XATTR):
                self._extended(path, key.removeprefix(_XATTR), text.encode("utf-8", "surrogateescape"))
        nanoseconds = _mtime(member)
        if member.isdir():
            self._times[path] = nanoseconds
        else:
            _set_time(path, nanoseconds)

    def _extended(self, path: str, name: str, value: bytes) -> None:
        """Attributes of users and file capabilities; overlayfs's own would let a tar speak to the kernel."""
        if not (name == "security.capability" or (name.startswith("user.") and not name.startswith("user.overlay."))):
            return
        try:
            os.setxattr(path, name, value, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_SUPPORT or (self._privileged and error.errno == errno.EPERM):
                raise


def _clean(name: str) -> str:
    """The absolute path within the layer that a name in a tar means."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise HostileLayer(f"the path {name!r} leaves the layer")
    return "/" + "/".join(parts)


def _mtime(member: tarfile.TarInfo) -> int:
    """Nanoseconds; a pax header's decimal text is exact where tarfile's float is not."""
    text = member.pax_headers.get("mtime", "")
    seconds, _, fraction = text.partition(".")
    if seconds.isdecimal() and len(seconds) < 12 and (not fraction or fraction.isdecimal()):
        return int(seconds) * 10**9 + int(fraction[:9].ljust(9, "0"))
    return max(0, min(int(member.mtime), 1 << 34)) * 10**9


def _set_time(path: str, nanoseconds: int) -> None:
    os.utime(path, ns=(nanoseconds, nanoseconds), follow_symlinks=False)
