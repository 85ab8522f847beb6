"""What of the attributes was saved last: the trees of all directories, by inode number.

Used by `sync.attributes`, in one thread at a time. A file of its own in the state directory: with it the next save
composes changed directories only, and a directory that was moved takes its tree along. It may be lost, or be of another
commit than the reference or of another state DB: then everything is saved anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from caiafs.core.types import InodeNo, ObjectId
from caiafs.sync.side_file import SideFile

FILE_NAME = "saved.db"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS directory (ino INTEGER PRIMARY KEY, own BLOB, tree BLOB) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Exported:
    """A directory as it was saved: its own blobs as a raw tree, and its tree with those below."""

    own: bytes
    tree: ObjectId


class ExportRecord:
    """The record of one state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._side = SideFile(state_dir / FILE_NAME, _SCHEMA)
        self.owner: str | None = self._side.state("owner")
        self.commit: ObjectId | None = self._side.state("commit")
        self.round: int = self._side.state("round") or -1

    def close(self) -> None:
        """Close the file."""
        self._side.close()

    def get(self, directory: InodeNo) -> Exported | None:
        """Return a directory as it was saved, None where it was not.

        Raises:
            StateCorrupt: the file is damaged.
        """
        rows = self._side.rows("SELECT own, tree FROM directory WHERE ino=?", directory)
        return Exported(rows[0][0], ObjectId(rows[0][1].hex())) if rows else None

    def is_of(self, owner: str, commit: ObjectId | None) -> bool:
        """Whether this is what state DB `owner` saved as `commit`."""
        return commit is not None and (self.owner, self.commit) == (owner, commit)

    def forget(self) -> None:
        """Have everything saved anew; raises as `update`."""
        if self.commit is None:
            return
        self.update({}, "", None, -1)
        self._change([("DELETE FROM directory", [()])])

    def update(
        self,
        directories: Mapping[InodeNo, Exported],
        owner: str,
        commit: ObjectId | None,
        newest_round: int,
    ) -> None:
        """Note what state DB `owner` saved as `commit`.

        Raises:
            StateCorrupt: the file cannot be written.
        """
        rows = [(ino, item.own, bytes.fromhex(item.tree)) for ino, item in directories.items()]
        state = [("owner", owner), ("commit", commit), ("round", newest_round)]
        self._change(
            [
                ("INSERT OR REPLACE INTO directory VALUES (?,?,?)", rows),
                ("INSERT OR REPLACE INTO state VALUES (?,?)", state),
            ]
        )
        self.owner, self.commit, self.round = owner, commit, newest_round

    def _change(self, statements: Sequence[tuple[str, Sequence[tuple[object, ...]]]]) -> None:
        with self._side.transaction() as db:
            for sql, rows in statements:
                db.executemany(sql, rows)
