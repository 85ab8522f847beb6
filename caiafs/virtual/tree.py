"""The .caia directory: what it contains and from what each file is made.

Used by app, which hands the root to the FUSE layer. Nothing here waits but a control command.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from caiafs.core.config import Config
from caiafs.core.settings import describe
from caiafs.link.report import StoreReport
from caiafs.status.health import health
from caiafs.status.prometheus import prometheus
from caiafs.status.report import MountReport
from caiafs.status.stats import stats
from caiafs.virtual.conflicts import Versions, build_conflicts
from caiafs.virtual.control import Commands, run_command
from caiafs.virtual.nodes import ControlFile, VirtualDirectory, VirtualFile, VirtualNode

DEFAULT_NAME = b".caia"


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the files' contents come from.

    Attributes:
        mount: makes a new MountReport; called at each open.
        versions: of the open conflicts.
        store: the newest report of the store process, None before the first and while it is dead.
    """

    config: Config
    origins: Mapping[str, str]
    version: str
    mount: Callable[[], MountReport]
    store: Callable[[], StoreReport | None]
    versions: Versions


def build_caia(sources: Sources, commands: Commands) -> VirtualDirectory:
    """Return the root of .caia, under the name that `caia_dir` gives it."""

    def report(
        make: Callable[[MountReport, StoreReport | None, Config], dict[str, Any]],
    ) -> Callable[[], bytes]:
        return lambda: to_json(make(sources.mount(), sources.store(), sources.config))

    async def control(data: bytes, uid: int) -> None:
        await run_command(commands, data, uid)

    nodes: list[VirtualNode] = [
        VirtualFile(b"stats.json", report(stats)),
        VirtualFile(b"health.json", report(health)),
        VirtualFile(
            b"metrics",
            lambda: prometheus(sources.mount(), sources.store(), sources.config).encode(),
        ),
        VirtualFile(b"config.json", lambda: to_json(describe(sources.config, sources.origins))),
        VirtualFile(b"version", lambda: f"{sources.version}\n".encode()),
        *build_conflicts(sources.versions),
        ControlFile(b"control", control),
    ]
    return VirtualDirectory(directory_name(sources.config), {node.name: node for node in nodes})


def directory_name(config: Config) -> bytes:
    """Return the name that the directory answers to."""
    if config.caia_dir in {"hidden", "visible"}:
        return DEFAULT_NAME
    return config.caia_dir.encode("utf-8", "surrogateescape")


def to_json(value: dict[str, Any]) -> bytes:
    """Return `value` as indented JSON with a newline at the end, as cat and tail like it."""
    return (json.dumps(value, indent=2) + "\n").encode()
