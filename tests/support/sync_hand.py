"""Somebody who works in a `SyncWorld`: steps that make sense there, and which versions have to be in the history."""

from hypothesis import strategies as st

from caiafs.core.types import GitMode

NAMES = ["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "s.txt", "é\n", "x.json"]
MODES = [GitMode.FILE, GitMode.FILE, GitMode.EXECUTABLE, GitMode.SYMLINK]
hand_steps = st.tuples(
    st.sampled_from(["put", "put", "put", "remove", "move", "dance", "mode"]),
    st.integers(0, 9),
    st.integers(0, 9),
)


class Hand:
    """Saves, renames and removes, as far as a file system would let it."""

    def __init__(self, world, prefix=""):
        self.world = world
        self.prefix = prefix
        self.count = 0
        self.versions: dict[str, bytes] = {}
        """Blob id to path of each version that no later step of the same group may have buried."""
        self.log = []

    def do(self, step):
        kind, first, second = step
        self.count += 1
        path, other = NAMES[first].encode(), NAMES[second].encode()
        shown = self.world.shown
        if kind == "put" and self._may_put(path):
            self._put(path, MODES[second % len(MODES)])
        elif kind == "mode" and path in shown and shown[path].mode != GitMode.SYMLINK:
            self._chmod(path)
        elif kind == "remove" and path in shown:
            self._bury(path)
            self.world.remove(path)
        elif kind == "dance" and path in shown:
            mark = path + b".tmp"
            self._put(mark, GitMode.FILE)
            self._bury(path)
            self.world.move(mark, path)
        elif kind == "move" and self._may_move(path, other):
            self._bury(other)
            self.world.move(path, other)

    def text(self, path):
        lines = [f"line {number}" for number in range(6)]
        lines[self.count % 6] = f"{self.prefix}{self.count}"
        return "\n".join(lines) + "\n"

    def _put(self, path, mode):
        self.world.put(path, self.text(path), mode=mode)
        self.versions[self.world.shown[path].oid] = path

    def _chmod(self, path):
        entry = self.world.shown[path]
        mode = GitMode.FILE if entry.mode == GitMode.EXECUTABLE else GitMode.EXECUTABLE
        self.world.set_mode(path, mode)

    def _bury(self, path):
        """What came and went within one group is in no commit."""
        entry = self.world.shown.get(path)
        if entry is not None:
            self.versions.pop(entry.oid, None)

    def _may_put(self, path):
        shown = self.world.shown
        above = [path[:i] for i, c in enumerate(path) if c == ord("/")]
        return not any(a in shown for a in above) and not _below(shown, path)

    def _may_move(self, path, other):
        shown = self.world.shown
        if path == other or other.startswith(path + b"/") or path.startswith(other + b"/"):
            return False
        above = [other[:i] for i, c in enumerate(other) if c == ord("/")]
        if any(a in shown for a in above) or _below(shown, other):
            return False
        return path in shown or (bool(_below(shown, path)) and other not in shown)

    def check(self):
        """Assert that every version that had to be stored is."""
        history = self.world.history()
        lost = {oid: path for oid, path in self.versions.items() if oid not in history}
        assert not lost, lost


def _below(shown, path):
    return [p for p in shown if p.startswith(path + b"/")]
