"""Resolves an image's USER text against /etc/passwd and /etc/group of the container, with Docker's rules.

`""` is root · `1000` · `1000:1000` · `app` · `app:staff`. A number need not be in the files. Without a group the
primary one of the user counts (0 for a number that is not in the file), and the groups that list the user are added.
Call it inside the container's root: the paths are absolute.
"""

from __future__ import annotations

_MAX_FILE = 4 << 20
_MAX_ID = 0x7FFFFFFF


class UnknownUser(Exception):
    """USER names someone the image does not know; the text is runc's."""


class Identity:
    """Who the first process is."""

    __slots__ = ("gid", "groups", "home", "uid")

    def __init__(self, uid: int, gid: int, groups: list[int], home: str) -> None:
        self.uid, self.gid, self.groups, self.home = uid, gid, groups, home


def resolve(user: str, passwd: str = "/etc/passwd", group: str = "/etc/group") -> Identity:  # noqa: S107
    """The identity that `user` names; raises UnknownUser."""
    name, separator, group_name = user.partition(":")
    if not name and not separator and user:
        raise UnknownUser(f"invalid user {user!r}")
    name = name or "0"
    entry = _entry(passwd, name, 7)
    if entry is None and not name.isdecimal():
        raise UnknownUser(f"unable to find user {name}: no matching entries in passwd file")
    uid = _number(entry[2] if entry else name, name)
    gid = _number(entry[3] or "0", name) if entry else 0
    home = (entry[5] if entry else "") or "/"
    if group_name:
        found = _entry(group, group_name, 4)
        if found is None and not group_name.isdecimal():
            raise UnknownUser(f"unable to find group {group_name}: no matching entries in group file")
        return Identity(uid, _number(found[2] if found else group_name, group_name), [], home)
    return Identity(uid, gid, _groups_of(group, entry[0]) if entry else [], home)


def _number(text: str, of: str) -> int:
    if not text.isdecimal() or int(text) > _MAX_ID:
        raise UnknownUser(f"the id of {of} is not between 0 and {_MAX_ID}")
    return int(text)


def _lines(path: str, fields: int) -> list[list[str]]:
    try:
        with open(path, "rb") as file:
            text = file.read(_MAX_FILE).decode(errors="surrogateescape")
    except OSError:
        return []
    rows = (line.split(":") for line in text.splitlines() if line and not line.startswith("#"))
    return [row + [""] * (fields - len(row)) for row in rows]


def _entry(path: str, wanted: str, fields: int) -> list[str] | None:
    """The line of this name; or of this number, when no name is the same text."""
    rows = _lines(path, fields)
    for row in rows:
        if row[0] == wanted:
            return row
    if wanted.isdecimal():
        for row in rows:
            if row[2] == wanted:
                return row
    return None


def _groups_of(path: str, name: str) -> list[int]:
    rows = _lines(path, 4)
    return [int(row[2]) for row in rows if name in row[3].split(",") and row[2].isdecimal() and int(row[2]) <= _MAX_ID]
