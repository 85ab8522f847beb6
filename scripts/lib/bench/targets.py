"""What is measured: the plain directory, bindfs, the pyfuse3 passthrough, caiafs with and without stores.

A target is entered once, gives a directory to work in, and knows the processes that serve it.
"""

import abc
import contextlib
import runpy
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.mount import Mount, children, mounted_paths, rss_bytes
from tests.support.outage_proxy import OutageProxy
from tests.support.waiting import wait_until

PROJECT = Path(__file__).resolve().parents[3]
NO_PUBLISHING = ("commit=fsync", "commit_max_age=1h")


class Unavailable(Exception):
    """The target cannot run here; the text says why."""


class Target(abc.ABC):
    """One file system under test, as a context manager; `path` is where to work."""

    name: str
    path: Path

    def __init__(self, base: Path) -> None:
        self.base = base / self.name
        self.base.mkdir()

    def __enter__(self) -> "Target":
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @abc.abstractmethod
    def start(self) -> None: ...

    @abc.abstractmethod
    def stop(self) -> None: ...

    def processes(self) -> dict[str, int]:
        """Return the serving processes, by role."""
        return {}

    def memory_mib(self) -> dict[str, float]:
        """Return resident memory of each serving process."""
        return {role: rss_bytes(pid) / 2**20 for role, pid in self.processes().items()}

    def settle(self) -> None:  # noqa: B027 - most have nothing to wait for
        """Return when background work of the last case is done; not timed."""


class Plain(Target):
    """The directory itself, which every other target stands on."""

    name = "plain"

    def start(self) -> None:
        self.path = self.base

    def stop(self) -> None:
        pass


class Passing(Target):
    """A file system in a process of its own that hands requests to a directory."""

    def start(self) -> None:
        source, self.path = self.base / "source", self.base / "mnt"
        source.mkdir()
        self.path.mkdir()
        self._process = subprocess.Popen(
            self.command(source, self.path), stdin=subprocess.DEVNULL, start_new_session=True
        )
        wait_until(self._is_up, f"{self.name} is mounted")

    @abc.abstractmethod
    def command(self, source: Path, mountpoint: Path) -> list[str]: ...

    def _is_up(self) -> bool:
        if self._process.poll() is not None:
            raise Unavailable(f"{self.name} ended with {self._process.returncode}")
        return str(self.path) in mounted_paths()

    def stop(self) -> None:
        if self._is_mounted():
            subprocess.run(["fusermount3", "-u", self.path], check=False)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        if self._is_mounted():
            subprocess.run(["fusermount3", "-uz", self.path], check=False)
        self._process.kill()
        self._process.wait()

    def _is_mounted(self) -> bool:
        return str(self.path) in mounted_paths()

    def processes(self) -> dict[str, int]:
        return {"fs": self._process.pid}


class Bindfs(Passing):
    """bindfs: the C library's passthrough, multithreaded, with time-outs as long as ours."""

    name = "bindfs"

    def command(self, source: Path, mountpoint: Path) -> list[str]:
        program = shutil.which("bindfs")
        if not program:
            raise Unavailable("bindfs is not installed (apt install bindfs)")
        options = "entry_timeout=3600,attr_timeout=3600,negative_timeout=3600,kernel_cache"
        flags = ["-f", "--multithreaded", "--no-allow-other", "-o", options]
        return [program, *flags, str(source), str(mountpoint)]


class Passthrough(Passing):
    """The tuned pyfuse3 passthrough beside this module."""

    name = "passthrough"

    def command(self, source: Path, mountpoint: Path) -> list[str]:
        return [sys.executable, "-m", "bench.passthrough", str(source), str(mountpoint)]


class Caiafs(Target):
    """caiafs on git alone, publishing as it does by default."""

    name = "caiafs"
    options: tuple[str, ...] = ()

    def start(self) -> None:
        self._mount = Mount(self.base, options=self.options, env=self.environment())
        try:
            self._mount.start()
        except AssertionError as exc:
            self._mount.close()
            raise Unavailable(
                f"caiafs does not mount: {str(exc).strip().splitlines()[-1]}"
            ) from exc
        self.path, self.repo = self._mount.path, self._mount.repo

    def environment(self) -> dict[str, str]:
        return {}

    def stop(self) -> None:
        self._mount.close()

    def processes(self) -> dict[str, int]:
        mount = self._mount
        store = children(mount.pid)[:1]
        return {"mount": mount.pid, **({"store": store[0]} if store else {})}

    def settle(self) -> None:
        self.sync()

    def sync(self) -> None:
        """Return when every configured store has everything."""
        self._mount.sync(timeout_s=600)


class CaiafsIdle(Caiafs):
    """caiafs that publishes nothing during the run: what publishing is compared with."""

    name = "caiafs-idle"
    options = NO_PUBLISHING

    def settle(self) -> None:
        pass


class CaiafsGovc(Caiafs):
    """caiafs with the real govc server in its default form."""

    name = "caiafs+govc"
    architecture = "new"

    def start(self) -> None:
        self._server = Govc(self.base, architecture=self.architecture)
        try:
            super().start()
        except BaseException:
            self._server.stop()
            raise

    def environment(self) -> dict[str, str]:
        return {"GOVC_SERVICE_URL": self._server.url}

    def stop(self) -> None:
        super().stop()
        self._server.stop()


class CaiafsGovcV1(CaiafsGovc):
    """caiafs with the real govc server in its old form."""

    name = "caiafs+govc-v1"
    architecture = "old"


class CaiafsOutage(CaiafsGovc):
    """caiafs with a govc behind a proxy, which can be told to hang; measured in `availability` only."""

    name = "caiafs+outage"

    def environment(self) -> dict[str, str]:
        self.proxy = OutageProxy(int(self._server.url.rpartition(":")[2]))
        return {"GOVC_SERVICE_URL": self.proxy.url}

    def virtual(self, name: str) -> bytes:
        """Return the content of `.caia/NAME`."""
        return self._mount.virtual(name)

    def stop(self) -> None:
        super().stop()
        self.proxy.stop()


ALL: tuple[type[Target], ...] = (
    Plain, Bindfs, Passthrough, CaiafsIdle, Caiafs, CaiafsGovc, CaiafsGovcV1, CaiafsOutage,
)  # fmt: skip


class Govc:
    """The real govc server on a free port, as scripts/govc-server configures it."""

    def __init__(self, base: Path, *, architecture: str) -> None:
        script = runpy.run_path(str(PROJECT / "scripts" / "govc-server"))
        binary = script["find_server"]()
        if binary is None:
            raise Unavailable("no govc server: scripts/govc-server says how to build it")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        config = base / "govc.yaml"
        config.write_text(script["config_text"](port, architecture=architecture))
        with (base / "govc.log").open("wb") as log:
            self._process = subprocess.Popen(
                [binary, "-config", config], stdout=log, stderr=log, start_new_session=True
            )
        wait_until(lambda: self._lives() and script["answers"](port), "the govc server answers")

    def _lives(self) -> bool:
        if self._process.poll() is not None:
            raise Unavailable(f"the govc server ended with {self._process.returncode}")
        return True

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def scratch() -> tempfile.TemporaryDirectory[str]:
    """Return a directory of our own on a real file system, removed on exit."""
    return tempfile.TemporaryDirectory(prefix="caiafs-bench-", ignore_cleanup_errors=True)
