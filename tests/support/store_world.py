"""A mount without FUSE: a state DB that a test fills, and the real store process beside it.

The mount's side of the link is a model of what the real one does: it shows a tree (path to content), journals ops, takes
in changes from outside by the rule of `messages.Changes`.
"""

import json
import os
import signal
import sqlite3
import subprocess
import time
from contextlib import asynccontextmanager, closing
from pathlib import Path

import trio

from caiafs.core.config import Config, config_to_json
from caiafs.core.types import DocPath, Entry, GitMode, ObjectId, blob_id
from caiafs.link.messages import Due, Start, StoredRequest, SyncRequest
from caiafs.link.supervisor import StoreProcess
from caiafs.state import paths
from caiafs.state.schema import PRAGMAS, SCHEMA

WRITER = "0badcafe"
WAIT_S = 60


class World:
    """One repository, one state DB, one store process."""

    def __init__(self, root: Path, *, writer=WRITER, **settings):
        self.root = root
        self.repo = root / "repo.git"
        self.writer = writer
        self.state_dir = root / "state"
        self.state_dir.mkdir(parents=True, exist_ok=True)
        paths.spool(self.state_dir).mkdir(exist_ok=True)
        self.config = Config(repository=self.repo, mountpoint=root / "mnt", **settings)
        is_new = not paths.database(self.state_dir).exists()
        self.db = sqlite3.connect(paths.database(self.state_dir), isolation_level=None)
        for pragma in PRAGMAS:
            self.db.execute(pragma)
        if is_new:
            self.db.executescript(SCHEMA)
        self.shown: dict[bytes, Entry] = {}
        self.settled_seq = self._meta("settled_seq") or 0
        self.known_commit = self._meta("known_commit")
        if is_new and self.repo.exists() and self.head() is not None:
            self.known_commit, self.shown = ObjectId(self.head()), self.tree()
        # As in the mount: never used twice.
        newest = self.db.execute("SELECT max(seq) FROM op").fetchone()[0]
        self.last_seq = max(newest or 0, self.settled_seq)
        self.events = []
        self.deaf = False
        """It hears nothing any more, as a mount that is killed."""
        self.report = {}
        self.grew = trio.Event()
        self.process: StoreProcess | None = None

    def _meta(self, key):
        row = self.db.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
        return row[0] if row else None

    def _remember(self):
        for key in ("settled_seq", "known_commit"):
            row = (key, getattr(self, key))
            self.db.execute("INSERT OR REPLACE INTO meta VALUES (?,?)", row)

    # --- what a mount does

    def _op(
        self, kind, path, *, target=None, entry=None, content=None, replaced=None, uid=None, ino=0
    ):
        oid = bytes.fromhex(entry.oid) if entry else None
        self.last_seq += 1
        self.db.execute(
            "INSERT INTO op (seq,kind,path,target,mode,oid,size,content,replaced,ino,uid,program,time_ns)"
            " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                self.last_seq,
                kind,
                path,
                target,
                entry.mode if entry else 0,
                oid,
                max(entry.size_bytes, 0) if entry else 0,
                content,
                bytes.fromhex(replaced) if replaced else None,
                ino,
                os.getuid() if uid is None else uid,
                "pytest",
                time.time_ns(),
            ),
        )
        return self.last_seq

    def put(self, path, content, *, mode=GitMode.FILE, uid=None):
        """Save `content` at `path`; return the op's number."""
        path = path.encode() if isinstance(path, str) else path
        content = content.encode() if isinstance(content, str) else content
        entry = Entry(int(mode), blob_id(content), len(content))
        before = self.shown.get(path)
        row = self.db.execute(
            "INSERT INTO content (size,data) VALUES (?,?)",
            (len(content), content),
        ).lastrowid
        seq = self._op(
            "put", path, entry=entry, content=row, replaced=before and before.oid, uid=uid
        )
        self.shown[path] = entry
        return seq

    def remove(self, path):
        path = path.encode() if isinstance(path, str) else path
        before = self.shown.pop(path, None)
        for below in [p for p in self.shown if p.startswith(path + b"/")]:
            del self.shown[below]
        return self._op("remove", path, replaced=before and before.oid)

    def move(self, path, target):
        path, target = (p.encode() if isinstance(p, str) else p for p in (path, target))
        over = self.shown.get(target)
        entry = self.shown.get(path)
        seq = self._op("move", path, target=target, entry=entry, replaced=over and over.oid)
        moved = {p: e for p, e in self.shown.items() if p == path or p.startswith(path + b"/")}
        for old, entry in moved.items():
            del self.shown[old]
            self.shown[target + old[len(path) :]] = entry
        return seq

    def due(self, *, urgent=True):
        self.process.notify(Due(self.last_seq, urgent=urgent))

    async def stored(self, seq=None, timeout_s=WAIT_S):
        """Wait until a store has acknowledged; return the error, "" for none."""
        request = StoredRequest(0, self.last_seq if seq is None else seq, timeout_s)
        return (await self.process.request(request)).error

    async def sync(self, timeout_s=WAIT_S, progress=None):
        return await self.process.request(
            SyncRequest(0, self.last_seq, timeout_s), progress=progress
        )

    # --- what the link tells it

    def start_message(self):
        return Start(
            config=config_to_json(self.config),
            state_dir=str(self.state_dir),
            settled_seq=self.settled_seq,
            known_commit=self.known_commit,
            writer_id=self.writer,
        )

    def _grow(self, message):
        self._remember()
        self.events.append(message)
        self.grew.set()
        self.grew = trio.Event()

    async def on_ready(self, message):
        self._grow(message)

    async def on_current(self, message):
        pass

    async def on_settled(self, message):
        if self.deaf:
            return
        self._settle(message.last_seq)
        self.known_commit = message.commit
        self._grow(message)

    def _settle(self, seq):
        self.settled_seq = max(self.settled_seq, seq)
        self.db.execute(
            "DELETE FROM content WHERE id IN (SELECT content FROM op WHERE seq<=?)", (seq,)
        )
        self.db.execute("DELETE FROM op WHERE seq<=?", (seq,))

    async def on_damaged(self, message):
        """Take the op out of the log; its path shows what it replaced."""
        sql = "SELECT path, replaced FROM op WHERE seq=?"
        for path, replaced in self.db.execute(sql, (message.seq,)).fetchall():
            self.db.execute("DELETE FROM op WHERE seq=?", (message.seq,))
            entry = self.shown.pop(path)
            if replaced is not None:
                self.shown[path] = Entry(entry.mode, ObjectId(replaced.hex()))
        self._grow(message)
        self.process.notify(Due(self.last_seq))

    async def on_changes(self, message):
        if self.deaf:
            return
        touched = self.db.execute("SELECT path,target FROM op WHERE seq>?", (message.last_seq,))
        pending = {path for row in touched for path in row if path is not None}
        for change in message.changes:
            shown = self.shown.get(change.path)
            same = shown is None if change.before is None else change.before.same_content(shown)
            if not same or change.path in pending:
                continue
            if change.after is None:
                self.shown.pop(change.path, None)
            else:
                self.shown[change.path] = change.after
        self.known_commit = message.commit
        self._grow(message)

    async def on_report(self, message):
        self.report = json.loads(message.report)
        self._grow(message)

    async def wait_for(self, condition, what="the condition", timeout_s=WAIT_S):
        with trio.move_on_after(timeout_s):
            while not (value := condition()):
                await self.grew.wait()
            return value
        raise AssertionError(f"waited {timeout_s} s in vain for {what}; report: {self.report}")

    # --- looking at the repository

    def git(self, *arguments, data=None, check=True):
        done = subprocess.run(
            ["git", f"--git-dir={self.repo}", *arguments],
            input=data,
            capture_output=True,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr.decode()
        return done.stdout.decode("utf-8", "surrogateescape")

    def head(self):
        return self.git("rev-parse", "--verify", "--quiet", "main", check=False).strip() or None

    def tree(self, commit="main") -> dict[bytes, Entry]:
        found = {}
        for line in self.git("ls-tree", "-rz", commit).split("\0"):
            if line:
                meta, path = line.split("\t", 1)
                mode, _, oid = meta.split(" ")
                found[os.fsencode(path)] = Entry(int(mode, 8), ObjectId(oid))
        return found

    def content(self, path, commit="main"):
        return self.git("cat-file", "blob", f"{commit}:{path}")

    def subjects(self):
        return (
            []
            if self.head() is None
            else self.git("log", "--reverse", "--format=%s", "main").splitlines()
        )

    def messages(self):
        return (
            []
            if self.head() is None
            else self.git("log", "--format=%B%x00", "main").split("\0")[:-1]
        )

    def agrees(self):
        """Whether mount and branch hold the same."""
        tree = self.tree() if self.head() else {}
        return {p: (e.mode, e.oid) for p, e in tree.items()} == {
            p: (e.mode, e.oid) for p, e in self.shown.items()
        }

    def kill(self):
        os.kill(self.process.statistics().pid, signal.SIGKILL)

    @asynccontextmanager
    async def running(self, *, grace_s=5):
        """Run the store process; stopped at the end."""
        self.process = StoreProcess(self.start_message, self)
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: self.process.run(task_status=task_status))
            with trio.fail_after(WAIT_S):
                await self.process.wait_ready()
            try:
                yield self
            finally:
                with trio.CancelScope(shield=True):
                    self.stopped = await self.process.stop(grace_s)

    def push(self, files, *, message="Push from elsewhere", remove=()):
        """Commit `files` (path to text) through a clone of the repository, as somebody else."""
        clone = self.root / f"clone-{time.monotonic_ns()}"
        run = ["git", "-C", str(clone), "-c", "user.name=Else", "-c", "user.email=else@example.org"]
        subprocess.run(
            ["git", "clone", "-q", str(self.repo), str(clone)], check=True, capture_output=True
        )
        subprocess.run([*run, "checkout", "-q", "-B", "main"], check=True, capture_output=True)
        for path, text in files.items():
            file = clone / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        for path in remove:
            (clone / path).unlink()
        subprocess.run([*run, "add", "-A"], check=True)
        subprocess.run([*run, "commit", "-q", "-m", message], check=True)
        subprocess.run([*run, "push", "-q", "origin", "main"], check=True, capture_output=True)

    def close(self):
        self.db.close()


@asynccontextmanager
async def a_world(root: Path, **settings):
    """Return a world whose store process runs."""
    settings.setdefault("poll_interval_s", 0.1)
    with closing(World(root, **settings)) as world:
        async with world.running():
            yield world


def doc(path: str) -> DocPath:
    return DocPath(path.encode())
