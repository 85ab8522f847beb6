"""The `caiafs` command: finds the command that is meant, runs it, and turns errors into one line and an exit code.

The only reader of argv and of the process's environment.
"""

import difflib
import io
import os
import sys
from collections.abc import Callable, Mapping

from caiafs import __version__
from caiafs.cli import (
    adopt,
    backup,
    fetch,
    fsck,
    migrate,
    mount,
    resolve,
    restore,
    status,
    sync,
    umount,
)
from caiafs.cli.exits import ExitCode, exit_code, os_error
from caiafs.core.errors import CaiaError, ConfigError
from caiafs.core.secrets import forget_secrets

Command = Callable[[list[str], Mapping[str, str]], int]

COMMANDS: dict[str, tuple[Command, str]] = {
    "mount": (mount.run, "mount a repository (the default command)"),
    "umount": (umount.run, "publish what is pending and unmount"),
    "status": (status.run, "say how a mount is"),
    "sync": (sync.run, "wait until every store has everything"),
    "fetch": (fetch.run, "look documents up in govc that it cannot list"),
    "adopt": (adopt.run, "merge a govc and a git that never met"),
    "resolve": (resolve.run, "end a conflict, or list those that are open"),
    "fsck": (fsck.run, "check a repository, repair it"),
    "backup": (backup.run, "write a repository into one file"),
    "restore": (restore.run, "make a repository from a backup"),
    "migrate": (migrate.run, "bring documents to another store"),
}

_HELP = """\
caiafs: a folder whose saved documents are commits in govc and git

  caiafs [REPO] MNT [options]             mount; `caiafs mount --help` lists the options
{commands}
  caiafs --version

REPO is a git repository, ./data/repo when not given; a new one is made when missing.
Each command has its own --help. Exit codes: {codes}.
See caiafs(1) and caiafs.conf(5).
"""

_USAGE = {
    "umount": "caiafs umount MNT [--timeout 20s]",
    "status": "caiafs status MNT [--json]",
    "sync": "caiafs sync MNT [--timeout 60s]",
    "fetch": "caiafs fetch MNT PATH... [--from FILE]",
    "adopt": "caiafs adopt MNT",
    "resolve": "caiafs resolve MNT PATH --ours|...",
    "fsck": "caiafs fsck [--repair] REPO",
    "backup": "caiafs backup REPO|MNT FILE",
    "restore": "caiafs restore FILE REPO",
    "migrate": "caiafs migrate SOURCE TARGET",
}


def help_text() -> str:
    """Return what --help prints."""
    lines = [f"  {usage:<40}{COMMANDS[name][1]}" for name, usage in _USAGE.items()]
    codes = ", ".join(f"{code.value} {code.name.lower()}" for code in ExitCode)
    return _HELP.format(commands="\n".join(lines), codes=codes.replace("_", " "))


def dispatch(argv: list[str], environ: Mapping[str, str]) -> int:
    """Run the command that `argv` names; without one, mount.

    Raises:
        CaiaError: what stopped it.
    """
    if argv and argv[0] in {"-h", "--help", "help"}:
        print(help_text(), end="")
        return ExitCode.OK
    if argv and argv[0] in {"-V", "--version"}:
        print(f"caiafs {__version__}")
        return ExitCode.OK
    if not argv:
        print(help_text(), end="", file=sys.stderr)
        return ExitCode.USAGE
    if argv[0] in COMMANDS:
        return COMMANDS[argv[0]][0](argv[1:], environ)
    _check_misspelt(argv[0])
    return mount.run(argv, environ)


def _check_misspelt(word: str) -> None:
    """Refuse what looks like a command and is none: a mount would make a repository of that name."""
    near = difflib.get_close_matches(word, COMMANDS, n=1, cutoff=0.8)
    if near and not os.path.lexists(word):
        raise ConfigError(
            f"there is no command {word}; did you mean {near[0]}? To mount a repository of that name: caiafs ./{word} MNT"
        )


def main() -> int:
    """Be the console command."""
    environ = dict(os.environ)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name may be no text, or none of the terminal's
        sys.stdout.reconfigure(errors="backslashreplace")
    forget_secrets(os.environ)
    try:
        return int(dispatch(sys.argv[1:], environ))
    except CaiaError as exc:
        print(f"caiafs: {exc}", file=sys.stderr)
        return exit_code(exc)
    except BrokenPipeError:
        # The reader of our output is gone (| head); the interpreter must not say so again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILURE
    except OSError as exc:
        print(f"caiafs: {os_error(exc)}", file=sys.stderr)
        return ExitCode.FAILURE
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
