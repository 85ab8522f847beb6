"""Looking at a real govc server, and writing to it, as any other client would."""

import json
import urllib.error
import urllib.parse
import urllib.request

import pytest

from caiafs.backends.govc import GovcBackend, GovcSettings
from caiafs.core.types import DocPath

REPO = "docs"


class Peek:
    """A plain client of one server's repository; on the old architecture it reads the log and documents only."""

    def __init__(self, url, repo=REPO, *, architecture="new"):
        self.url, self.repo = url, repo
        self._version, self._log = ("v2", "commits") if architecture == "new" else ("v1", "log")

    def _ask(self, method, path, body=None):
        request = urllib.request.Request(
            f"{self.url}/api/{self._version}/repos/{self.repo}/{path}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.load(reply)

    def log(self, limit=1000):
        try:
            return self._ask("GET", f"{self._log}?limit={limit}")["commits"]
        except urllib.error.HTTPError:
            return []

    def messages(self):
        return [entry["message"] for entry in self.log()]

    def text(self, path):
        try:
            return self._ask("GET", f"files?path={urllib.parse.quote(path)}")["content"]
        except urllib.error.HTTPError:
            return None

    def write(self, files, message="Write as another client"):
        for path, text in files.items():
            self._ask("POST", "files", {"path": path, "content": text})
        return self._ask(
            "POST", "commits", {"message": message, "author": "Other", "email": "other@example.org"}
        )["hash"]

    async def entries(self, paths):
        """Return what a fresh caiafs backend finds at `paths`."""
        backend = GovcBackend(GovcSettings(url=self.url, repo_name=self.repo), None)
        await backend.connect()
        try:
            return await backend.current([DocPath(path) for path in paths])
        finally:
            await backend.aclose()

    async def agrees(self, world):
        """Whether the server holds just what the branch holds, as far as paths are known."""
        tree = world.tree()
        found = await self.entries(list(tree))
        wrong = {p: (found[p], e) for p, e in tree.items() if not e.same_content(found[DocPath(p)])}
        assert not wrong, wrong
        return True


@pytest.fixture
def server(govc_servers):
    """Return a server in its default form; one that ended by itself says why."""
    made = govc_servers(architecture="new", storage="memory")
    yield made
    if made._process is not None and made._process.poll() is not None:
        pytest.fail(f"govc ended by itself: {made.log()}", pytrace=False)


@pytest.fixture
def peek(server):
    return Peek(server.url)
