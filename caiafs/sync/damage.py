"""What becomes of a group with a content that cannot be read: the mount sets that version aside, the rest goes on.

Used by `sync.publisher`. The mount owns the op log: it is told, takes the op out and says Due; until then nothing is
published, so that no commit and no trailer ever counts a version as settled that no store has.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence

from caiafs.backends.git.backend import DamagedContent
from caiafs.core.errors import Corrupt
from caiafs.link.messages import Damaged, Message
from caiafs.state.ops import Op, OpKind
from caiafs.sync.contents import Contents

log = logging.getLogger(__name__)


class DamageTeller:
    """Tells the mount of ops that put what cannot be read."""

    def __init__(self, contents: Contents, send: Callable[[Message], Awaitable[None]]) -> None:
        self._contents = contents
        self._send = send

    async def tell(self, group: Sequence[Op], damaged: Sequence[DamagedContent]) -> None:
        """Tell of the ops of `group` that put `damaged` contents.

        Raises:
            Corrupt: there are some; the group is to be cut again.
        """
        found = [
            (op, lost)
            for lost in damaged
            for op in group
            if op.oid == lost.oid and op.kind in (OpKind.PUT, OpKind.MOVE)
        ]
        if not found:
            return  # not this group's doing: those documents are left out
        doubted = [self._contents.doubt_base(lost.oid) for _, lost in found]
        if not any(doubted):
            for op, lost in found:
                await self._send(Damaged(op.seq, lost.reason))
        raise Corrupt(f"a saved content cannot be read: {found[0][1].reason}", backend="git")
