"""Running the git command against another host: as the user who mounts, never waiting for a person, and with a time limit.

Used by `remote`. The repository's own configuration is not read at all: it may come from elsewhere, and could send what
is pushed to another host (`url.*.insteadOf`), name programs to run (`credential.helper`, `core.sshCommand`, `http.proxy`,
`remote.*.vcs`), or turn off TLS. So git runs in a bare directory of ours, which borrows the repository's objects; the
user's own configuration, credentials and ssh settings hold there as anywhere else.
"""

import contextlib
import os
import shlex
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import trio

from caiafs.backends.git.repository import Repository
from caiafs.core.errors import DeadlineExceeded, Unreachable
from caiafs.core.remote_url import Credentials
from caiafs.core.types import ObjectId

_OVERRIDES = (
    "core.hooksPath=/dev/null",  # also of templates, and of the user's: they are made for work trees
    "core.fsmonitor=false",
    "core.alternateRefsCommand=",
    "core.askPass=",
    "core.fsync=all",
    "core.fsyncMethod=fsync",
    "credential.interactive=false",
    "fetch.fsckObjects=false",  # one odd entry of long ago must not keep everything else out
    "fetch.recurseSubmodules=no",
    "fetch.unpackLimit=1",  # a pack is two files to sync; loose objects are one each
    "fetch.writeCommitGraph=false",
    "gc.auto=0",
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=60",
    "maintenance.auto=false",
    "push.followTags=false",
    "push.gpgSign=false",
    "push.recurseSubmodules=no",
    "transfer.bundleURI=false",
)
_KEPT_ENVIRONMENT = (
    *("PATH", "HOME", "USER", "LOGNAME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "TMPDIR"),
    *("SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "KRB5CCNAME", "GNUPGHOME"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *(
        "GIT_CONFIG_GLOBAL",
        "GIT_CONFIG_SYSTEM",
        "GIT_CONFIG_NOSYSTEM",
        "GIT_SSH",
        "GIT_SSH_COMMAND",
    ),
)
PROTOCOLS = "file:git:http:https:ssh"
_SSH_OPTIONS = (
    "-o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=15 -o ServerAliveCountMax=4"
)
_OUTPUT_MAX_BYTES = 1 << 20
_LINGER_S = 1.0
_CONFIG_S = 10.0

_CONFIG = "[core]\n\trepositoryformatversion = 0\n\tbare = true\n"


@dataclass(frozen=True, slots=True)
class Transported:
    """How a git command ended; texts hold the last of what it printed."""

    code: int
    stdout: str
    stderr: str


class Transport:
    """A bare directory of ours beside the state, to fetch into and to push from a repository's objects."""

    def __init__(self, repository: Repository, directory: Path) -> None:
        self._repository = repository
        self._directory = directory
        self._ssh: str | None = None

    async def run(
        self,
        *arguments: str,
        credentials: tuple[str, Credentials],
        tips: tuple[ObjectId, ...],
        silence_s: float,
    ) -> Transported:
        """Run `git ARGUMENTS` to its end.

        Args:
            arguments: the command.
            credentials: a URL, and what it said of who we are.
            tips: commits that are here with all that they need.
            silence_s: git is ended when it has said nothing for so long.

        Raises:
            DeadlineExceeded: it was ended.
            Unreachable: it could not be started.
        """
        self._prepare(tips, *credentials)
        if self._ssh is None:
            self._ssh = await self._ssh_command()
        argv = ["git", "--no-pager", "--no-replace-objects", f"--git-dir={self._directory}"]
        argv += [part for setting in _OVERRIDES for part in ("-c", setting)]
        return await _run([*argv, *arguments], self._environment(self._ssh), silence_s=silence_s)

    def mark(self, name: str) -> None:
        """Leave a mark that outlives this process."""
        with contextlib.suppress(OSError):  # the directory is made by the first command
            (self._directory / f"mark-{name}").touch()

    def has_mark(self, name: str) -> bool:
        """Whether the mark was left."""
        return (self._directory / f"mark-{name}").exists()

    def _prepare(self, tips: tuple[ObjectId, ...], url: str, credentials: Credentials) -> None:
        """Make the directory, and name `tips` in it: what they reach is not fetched or looked at again."""
        directory = self._directory
        heads = directory / "refs" / "heads"
        try:
            heads.mkdir(mode=0o700, parents=True, exist_ok=True)
            (directory / "objects").mkdir(exist_ok=True)
            self._write_config(url, credentials)
            for old in heads.iterdir():
                if old.name not in tips:
                    old.unlink()
            for tip in tips:
                (heads / tip).write_text(f"{tip}\n")
            # Last: without it git takes the directory for none.
            (directory / "HEAD").write_text("ref: refs/heads/none\n")
        except OSError as exc:
            raise Unreachable(f"cannot write {directory}: {exc}", backend="git") from exc

    def _environment(self, ssh: str) -> dict[str, str]:
        kept = _kept()
        own = self._repository.git_dir / "objects"
        if self._repository.object_dir is not None:
            kept["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = str(own)
        if ssh:
            kept["GIT_SSH_COMMAND"] = ssh
        shallow = self._repository.git_dir / "shallow"
        if shallow.is_file():
            kept["GIT_SHALLOW_FILE"] = str(shallow)
        return kept | {
            "LC_ALL": "C",
            "GIT_OBJECT_DIRECTORY": str(self._repository.write_dir),
            "GIT_ALLOW_PROTOCOL": PROTOCOLS,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "",  # set and empty: no window either
            "GCM_INTERACTIVE": "never",
            "GIT_NO_LAZY_FETCH": "1",
        }

    async def _ssh_command(self) -> str:
        """Return the user's ssh command, told to ask nobody; "" where git is to use another program as it is."""
        if "GIT_SSH" in os.environ and "GIT_SSH_COMMAND" not in os.environ:
            return ""
        command = os.environ.get("GIT_SSH_COMMAND", "")
        if not command:
            command = (await self.setting("core.sshCommand", self._directory)) or "ssh"
        try:
            program = shlex.split(command)[0]
        except (ValueError, IndexError):
            return command
        return f"{command} {_SSH_OPTIONS}" if Path(program).name == "ssh" else command

    async def setting(self, name: str, git_dir: Path) -> str:
        """Return a setting of git as it holds in `git_dir`, "" where there is none."""
        argv = ["git", f"--git-dir={git_dir}", "config", "--get", name]
        found = await _run(argv, _kept() | {"LC_ALL": "C"}, silence_s=_CONFIG_S)
        return found.stdout.strip() if found.code == 0 else ""

    def _write_config(self, url: str, credentials: Credentials) -> None:
        """Write a configuration that makes git answer `url`'s host as the configured address said, and no other.

        In files that only we read, and git writes nothing to: command lines are everybody's to see.
        """
        text = _CONFIG
        file = self._directory / "credentials"
        if credentials.user:
            user, password = (_one_line(part) for part in credentials)
            text += f"[credential {_quoted(_root_of(url))}]\n\tusername = {_quoted(user)}\n"
            if password:
                _write_private(file, f"password={password}\n")
                helper = f'!f() {{ test "$1" != get || cat {shlex.quote(str(file))}; }}; f'
                text += f"\thelper = \n\thelper = {_quoted(helper)}\n"
        if not credentials.password:
            file.unlink(missing_ok=True)
        _write_private(self._directory / "config", text)


def _kept() -> dict[str, str]:
    return {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}


def _write_private(file: Path, text: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    with open(os.open(file, flags, 0o600), "w", encoding="utf-8") as handle:
        handle.write(text)


def _root_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _one_line(text: str) -> str:
    return "".join(char for char in text if char.isprintable())


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


async def _run(argv: list[str], environment: dict[str, str], *, silence_s: float) -> Transported:
    try:
        process = await trio.lowlevel.open_process(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # no terminal to ask at, and one group to end
        )
    except OSError as exc:
        raise Unreachable(f"cannot run git: {exc}", backend="git") from exc
    texts = {"stdout": bytearray(), "stderr": bytearray()}
    try:
        async with trio.open_nursery() as nursery:
            scope = nursery.cancel_scope

            async def read(stream: trio.abc.ReceiveStream | None, into: bytearray) -> None:
                assert stream is not None, "it is a pipe"
                async for piece in stream:
                    if process.returncode is None:
                        scope.deadline = trio.current_time() + silence_s
                    into += piece
                    del into[:-_OUTPUT_MAX_BYTES]

            scope.deadline = trio.current_time() + silence_s
            nursery.start_soon(read, process.stdout, texts["stdout"])
            nursery.start_soon(read, process.stderr, texts["stderr"])
            await process.wait()
            # What ssh leaves running to share its connection holds the pipes open.
            scope.deadline = trio.current_time() + _LINGER_S
    finally:
        is_late = process.returncode is None
        if is_late:
            await _end(process)
        await _close(process)
    if is_late:
        raise DeadlineExceeded(f"git said nothing for {silence_s:.0f} s", backend="git")
    stdout, stderr = (bytes(text).decode("utf-8", "replace") for text in texts.values())
    return Transported(process.returncode or 0, stdout, stderr)


async def _end(process: trio.Process) -> None:
    """End git and what it started: politely, so that it removes its temporary files, then not."""
    with trio.CancelScope(shield=True):
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
            with trio.move_on_after(_LINGER_S):
                await process.wait()
                return
        await process.wait()


async def _close(process: trio.Process) -> None:
    with trio.CancelScope(shield=True):
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                await stream.aclose()
