"""A git host of a test's own: a bare repository, somebody else who works with it, and what may be wrong with it."""

import os
import subprocess
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from tests.support.store_world import WAIT_S
from tests.support.sync_world import SyncWorld

INTERVAL_S = 0.05
AUTHOR = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Else"), ("EMAIL", "else@example.org"))
}


class SharedRepository:
    """A bare repository that several mounts name as their remote."""

    def __init__(self, path):
        self.path = path
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(path)], check=True)
        self._clones = 0

    def git(self, *arguments, data=None, check=True):
        done = subprocess.run(
            ["git", f"--git-dir={self.path}", *arguments],
            input=data,
            capture_output=True,
            check=False,
            env=os.environ | AUTHOR,
        )
        assert not check or done.returncode == 0, done.stderr.decode()
        return done.stdout.decode("utf-8", "surrogateescape")

    def head(self):
        return self.git("rev-parse", "--verify", "--quiet", "main", check=False).strip() or None

    def tree(self, commit="main"):
        found = {}
        for line in self.git("ls-tree", "-rz", commit).split("\0") if self.head() else ():
            if line:
                meta, path = line.split("\t", 1)
                found[os.fsencode(path)] = tuple(meta.split(" ")[::2])
        return found

    def content(self, path):
        return self.git("cat-file", "blob", f"main:{path}")

    def commits(self):
        return self.git("rev-list", "main").split() if self.head() else []

    def commit(self, files, *, parents=None, message="Commit elsewhere", onto=None):
        """Put the branch at a new commit that changes `files` (path to text, None removes); return it.

        Args:
            files: what differs from the first parent's tree.
            parents: the head by default; () begins another history.
            message: of the commit.
            onto: the tree to start from, where it is not the first parent's.
        """
        if parents is None:
            parents = (self.head(),) if self.head() else ()
        index = self.path / "index-of-a-test"
        env = os.environ | AUTHOR | {"GIT_INDEX_FILE": str(index)}

        def run(*arguments, data=None):
            command = ["git", f"--git-dir={self.path}", *arguments]
            return subprocess.run(command, env=env, input=data, capture_output=True, check=True)

        run("read-tree", onto or parents[0]) if onto or parents else run("read-tree", "--empty")
        for path, text in files.items():
            if text is None:
                run("update-index", "--force-remove", path)
                continue
            blob = run("hash-object", "-w", "--stdin", data=text.encode()).stdout.decode().strip()
            run("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}")
        tree = run("write-tree").stdout.decode().strip()
        options = [part for parent in parents for part in ("-p", parent)]
        commit = run("commit-tree", tree, *options, "-m", message).stdout.decode().strip()
        self.git("update-ref", "refs/heads/main", commit)
        return commit

    def hook(self, name, script):
        file = self.path / "hooks" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        return file


def remote_settings(shared, **more):
    address = shared if isinstance(shared, str) else str(shared.path)
    return {"git_remote": address, "git_remote_interval_s": INTERVAL_S, **more}


@asynccontextmanager
async def worlds_on(root, shared, number=2, **more):
    """Yield running worlds that have `shared` as their remote."""
    async with AsyncExitStack() as stack:
        worlds = []
        for index in range(number):
            world = SyncWorld(
                root / f"world{index}", writer=f"{index + 1:08x}", **remote_settings(shared, **more)
            )
            stack.callback(world.close)
            worlds.append(await stack.enter_async_context(world.running()))
        yield worlds


def documents(world):
    tree = world.tree() if world.head() else {}
    return {path: (entry.mode, entry.oid) for path, entry in tree.items()}


async def come_level(worlds, shared, timeout_s=WAIT_S):
    """Wait until all are at the remote's commit, show it, and nothing moves any more."""
    with trio.move_on_after(timeout_s):
        while True:
            for world in worlds:
                assert await world.stored() == ""
            heads = {shared.head(), *(world.head() for world in worlds)}
            if len(heads) == 1 and all(world.agrees() for world in worlds):
                await trio.sleep(4 * INTERVAL_S)
                if heads == {shared.head(), *(world.head() for world in worlds)}:
                    return
            await trio.sleep(INTERVAL_S)
    told = [(world.head(), world.agrees(), world.report.get("remote")) for world in worlds]
    raise AssertionError(f"not level within {timeout_s} s: {shared.head()}, {told}")
