"""Explicit transactions: what is saved between `begin` and `commit` in .caia/control becomes one commit.

Used by `store_link`, which says what is due. While one is open its ops are journaled as ever and not due; nothing else
changes. So a crash, an unmount or `end` publishes them as if it had never been opened: in pieces, each save a commit. A
transaction that was committed is a row of the state DB, written with its last op, and outlives both processes.

A mount has one transaction at a time, which holds what everybody saves. Ended by itself when it is too old or too large.
"""

import logging
import time
from collections.abc import Callable

import trio

from caiafs.core.errors import InvalidArgument
from caiafs.state.journal import Journal

log = logging.getLogger(__name__)

MESSAGE_MAX_BYTES = 8000
_LOOK_S = 1.0


class Transactions:
    """The open transaction, if there is one."""

    def __init__(
        self,
        journal: Journal,
        *,
        make_versions: Callable[[], None],
        max_age_s: float,
        max_ops: int,
    ) -> None:
        """`make_versions` logs what was closed and is not logged yet, and commits it."""
        self.journal = journal
        self._make_versions = make_versions
        self._max_age_s = max_age_s
        self._max_ops = max_ops
        self._first_seq: int | None = None
        self._logged_before = 0
        self._began_s = 0.0
        self._begun = trio.Event()
        self._committed = False
        self.on_ended: Callable[[], None] = lambda: None
        """Told when what was held back is due."""
        journal.run_sql("DELETE FROM txn WHERE last_seq<=?", journal.db.meta("settled_seq") or 0)
        journal.commit()
        self._committed = bool(journal.db.rows("SELECT 1 FROM txn LIMIT 1"))

    @property
    def is_open(self) -> bool:
        """Whether `begin` was said, and nothing that ends it."""
        return self._first_seq is not None

    @property
    def due_seq(self) -> int:
        """Position of the newest op that may be published."""
        newest = self.journal.last_seq
        return newest if self._first_seq is None else min(newest, self._first_seq - 1)

    @property
    def held(self) -> int:
        """How many ops the open transaction holds back."""
        return self.journal.ops_logged - self._logged_before if self.is_open else 0

    def reasons(self) -> tuple[str, ...]:
        """Return what health says of an open transaction."""
        if not self.is_open:
            return ()
        age_s = time.monotonic() - self._began_s
        return (
            f"a transaction is open for {age_s:.0f} s and holds {self.held} changes back;"
            " 'commit MESSAGE' or 'end' in .caia/control ends it",
        )

    def begin(self) -> None:
        """Open a transaction; what was closed before is not in it.

        Raises:
            InvalidArgument: one is open.
        """
        if self.is_open:
            raise InvalidArgument("a transaction is open already")
        self._make_versions()
        self._first_seq = self.journal.last_seq + 1
        self._logged_before = self.journal.ops_logged
        self._began_s = time.monotonic()
        self._begun.set()

    def commit(self, message: str, uid: int) -> int:
        """Make one commit of what was closed since `begin`, by user `uid`; return its last op.

        Raises:
            InvalidArgument: none is open, or the message is too long.
        """
        first = self._first_seq
        if first is None:
            raise InvalidArgument("no transaction is open; begin opens one")
        if len(message.encode()) > MESSAGE_MAX_BYTES or "\0" in message:
            raise InvalidArgument(f"a message is a text of at most {MESSAGE_MAX_BYTES} bytes")
        self._make_versions()
        last = self.journal.last_seq
        if last >= first:
            self.journal.run_sql("INSERT INTO txn VALUES (?,?,?,?)", first, last, message, uid)
            self.journal.commit()
            self._committed = True
        self._close()
        return last

    def bind(self, first: int, last: int, uid: int, message: str = "") -> None:
        """Make one commit of ops that are being logged, by user `uid`; the caller commits the state DB."""
        if self.is_open:
            return
        self.journal.run_sql("INSERT INTO txn VALUES (?,?,?,?)", first, last, message, uid)
        self._committed = True

    def end(self) -> None:
        """Give the transaction up: nothing is undone, what it holds is published as usual.

        Raises:
            InvalidArgument: none is open.
        """
        if not self.is_open:
            raise InvalidArgument("no transaction is open")
        self._close()

    def _close(self) -> None:
        self._first_seq = None
        self._begun = trio.Event()
        self.on_ended()

    def settled(self, last_seq: int) -> None:
        """Forget transactions that are in a commit."""
        if not self._committed:
            return
        self.journal.run_sql("DELETE FROM txn WHERE last_seq<=?", last_seq)
        self.journal.commit()
        self._committed = bool(self.journal.db.rows("SELECT 1 FROM txn LIMIT 1"))

    async def run(self) -> None:
        """End a transaction that somebody forgot, until cancelled."""
        while True:
            await self._begun.wait()
            await trio.sleep(min(_LOOK_S, self._max_age_s / 4))
            age_s = time.monotonic() - self._began_s
            if not self.is_open or (age_s < self._max_age_s and self.held < self._max_ops):
                continue
            log.warning(
                "a transaction is ended after %.0f s with %d changes: nobody committed it;"
                " they are published one by one",
                age_s,
                self.held,
            )
            self._close()
