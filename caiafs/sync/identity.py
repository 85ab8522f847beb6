"""Who made a change: the user of an op as the author of a commit.

Used by `sync.publisher`. The password database is asked once for each user.
"""

import os
import pwd
import re
import socket
import time

from caiafs.core.types import Signature

# What git refuses in an identity line, and what is not printable ASCII: a server's e-mail check is strict.
_NOT_IN_NAME = re.compile(r"[<>\x00-\x1f\x7f]")
_NOT_IN_ADDRESS = re.compile(r"[^A-Za-z0-9._+-]")


class Identities:
    """Names and addresses of users of this host."""

    def __init__(self, host: str | None = None, *, domain: str = "") -> None:
        """Name this host `host`, and what follows the @ in addresses `domain`, else that host."""
        self.host = (
            _NOT_IN_ADDRESS.sub("-", host or socket.gethostname()).strip(".-") or "localhost"
        )
        self._domain = domain or self.host
        self._known: dict[int, tuple[str, str, str]] = {}

    def login(self, uid: int) -> str:
        """Return the login name of user `uid`, its number where it has none."""
        return self._look_up(uid)[0]

    def signature(self, uid: int, time_ns: int) -> Signature:
        """Return user `uid` as an author."""
        _, name, email = self._look_up(uid)
        offset_s = time.localtime(time_ns // 1_000_000_000).tm_gmtoff
        return Signature(name, email, time_ns, offset_s // 60)

    def own(self, not_before_ns: int = 0) -> Signature:
        """Return who runs the mount as an author, now or at `not_before_ns` if that is later."""
        return self.signature(os.getuid(), max(time.time_ns(), not_before_ns))

    def _look_up(self, uid: int) -> tuple[str, str, str]:
        if uid not in self._known:
            self._known[uid] = self._ask(uid)
        return self._known[uid]

    def _ask(self, uid: int) -> tuple[str, str, str]:
        try:
            user = pwd.getpwuid(uid)
        except KeyError:
            return str(uid), f"user {uid}", f"{uid}@{self._domain}"
        gecos = user.pw_gecos.split(",")[0].replace("&", user.pw_name.capitalize())
        full_name = _NOT_IN_NAME.sub("", gecos).strip()
        login = _NOT_IN_ADDRESS.sub("-", user.pw_name)
        return user.pw_name, full_name or user.pw_name, f"{login}@{self._domain}"
