"""Gives a state directory a new beginning: what is pending goes into git, the old state DB is set aside.

Used by the repair. The next mount makes a new state DB from git, with the attributes that are saved there.
"""

import contextlib
import logging
import os
import sqlite3
from pathlib import Path

import trio

from caiafs.backends.git.backend import GitBackend
from caiafs.backends.git.contents import GitContents
from caiafs.core.errors import CaiaError
from caiafs.state import paths
from caiafs.state.view import open_state
from caiafs.sync.attributes import open_saver
from caiafs.sync.export_record import FILE_NAME as RECORD_NAME
from caiafs.upkeep.check_files import BaseFile, hash_file
from caiafs.upkeep.lost import Lost
from caiafs.upkeep.pages import salvage_pages
from caiafs.upkeep.place import Place
from caiafs.upkeep.salvage import Gathering, Salvaged, files_of_database, publish

log = logging.getLogger(__name__)


async def begin_anew(place: Place, base_file: BaseFile, lost: Lost) -> int:
    """Publish what is pending and set the state DB aside; return how many documents were published.

    Raises:
        CaiaError: it could not be published; the state DB is still in its place.
    """
    if await trio.to_thread.run_sync(_is_whole, place):
        await _save_attributes(place, lost)
    found = await trio.to_thread.run_sync(_gather, place, base_file)
    published = await publish(place, found, base_file, lost)
    for name in ("state.db", RECORD_NAME):
        for file in files_of_database(place.state_dir, name):
            lost.keep(file, "state")
    await trio.to_thread.run_sync(_clear_spool, place, found, lost)
    if published:
        lost.note(f"{published} changes of documents that were pending are in git now")
    return published


def _is_whole(place: Place) -> bool:
    try:
        with contextlib.closing(open_state(place.state_dir)) as db:
            return bool(db.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",))
    except sqlite3.Error:
        return False


def _gather(place: Place, base_file: BaseFile) -> Salvaged:
    is_whole = _is_whole(place)
    db = open_state(place.state_dir) if is_whole else salvage_pages(place.state_dir)
    with contextlib.closing(db):
        return Gathering(db, place, base_file, is_whole=is_whole).run()


async def _save_attributes(place: Place, lost: Lost) -> None:
    """Save owners, modes and times in git, as an unmount does; without them documents begin with defaults."""
    git = GitBackend(place.repository, GitContents(place.repository))
    try:
        saver = open_saver(place.config, place.state_dir, git, lambda: True)
        if saver is None:
            return
        try:
            await saver.save()
        finally:
            saver.close()
        if saver.reason:
            lost.note(f"attributes changed last are in the old state database only: {saver.reason}")
    except (CaiaError, sqlite3.Error) as exc:
        lost.note(f"attributes changed last are in the old state database only: {exc}")


def _clear_spool(place: Place, found: Salvaged, lost: Lost) -> None:
    """Empty the spool: what git has now is removed, anything else is kept; versions may share a file."""
    directory = paths.spool(place.state_dir)
    if not directory.is_dir():
        return
    reader = place.repository.new_reader()
    published: dict[str, bool] = {}
    for oid, stored in found.contents.items():
        if stored.spool is not None:
            name = stored.spool.name
            published[name] = published.get(name, True) and reader.exists(oid)
    for name in os.listdir(directory):
        file = Path(directory, name)
        if published.get(name, False) or (file.is_file() and reader.exists(hash_file(file))):
            file.unlink()
        else:
            lost.keep(file, "spool")
