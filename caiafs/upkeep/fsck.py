"""Checks a repository that is not mounted, and repairs it without losing anything: `caiafs fsck`.

The order matters: git first, for the state DB is compared with it; then the state DB and its files; then govc. A repair goes the
same way, and afterwards everything is checked again: only that says whether it helped.
"""

import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import trio

from caiafs.backends.git.contents import GitContents
from caiafs.backends.govc import GovcBackend, GovcSettings
from caiafs.core.errors import CaiaError, StoreError
from caiafs.core.types import DocPath, ObjectId
from caiafs.state import paths
from caiafs.state.view import open_state
from caiafs.upkeep import repair_git
from caiafs.upkeep.begin_anew import begin_anew
from caiafs.upkeep.check_files import (
    check_cache,
    check_contents,
    check_records,
    check_set_aside,
    check_spool,
)
from caiafs.upkeep.check_git import check_branch, check_caia_refs, check_repository
from caiafs.upkeep.check_govc import check_stores, documents_of
from caiafs.upkeep.check_shown import check_shown
from caiafs.upkeep.check_state import check_database
from caiafs.upkeep.elsewhere import BaseFiles, Elsewhere
from caiafs.upkeep.findings import Finding, Kind, Report
from caiafs.upkeep.lost import Lost
from caiafs.upkeep.place import Place, held
from caiafs.upkeep.salvage import files_of_database

_SCRATCH = "fsck-"


@dataclass(frozen=True, slots=True)
class Checked:
    """What a run of fsck came to.

    Attributes:
        before: what was found.
        after: what is left after the repair; `before` where nothing was repaired.
        done: what the repair did, one line each.
        lost: where it put what it took away, None where nothing was.
    """

    before: Report
    after: Report
    done: tuple[str, ...] = ()
    lost: Path | None = None


@dataclass(frozen=True, slots=True)
class Fsck:
    """One run.

    Attributes:
        wants_govc: None: compare where govc is configured and answers.
    """

    place: Place
    repair: bool = False
    wants_govc: bool | None = None

    async def run(self) -> Checked:
        """Check, and repair where that is wanted.

        Raises:
            StateBusy: the repository is mounted.
            CaiaError: it cannot be checked; nothing was changed.
        """
        async with held(self.place.state_dir), self._govc() as (govc, why_not):
            with self._scratch() as scratch:
                base_files = BaseFiles(self.place.repository, scratch)
                before = await self._check(base_files, govc)
                if why_not:
                    before.findings.append(_not_compared(why_not))
                wanted = before.errors or before.orphans
                if not self.repair or not wanted:
                    return Checked(before, before)
                lost = Lost(self.place.state_dir)
                await _Repair(self.place, base_files, govc, lost).run(before)
                after = await self._check(base_files, govc)
        return Checked(before, after, tuple(lost.notes), lost.directory if lost.is_used else None)

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        where = self.place.state_dir if self.place.state_dir.is_dir() else None
        for left in where.glob(f"{_SCRATCH}*") if where is not None else ():
            shutil.rmtree(left, ignore_errors=True)  # of one that was killed
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=where) as directory:
            yield Path(directory)

    @contextlib.asynccontextmanager
    async def _govc(self) -> AsyncIterator[tuple[GovcBackend | None, str]]:
        config = self.place.config
        if self.wants_govc is False or not (config.use_govc or self.wants_govc):
            yield None, ""
            return
        contents = GitContents(self.place.repository)
        govc = GovcBackend(GovcSettings.from_config(config), contents)
        try:
            try:
                await govc.connect()
            except StoreError as exc:
                if self.wants_govc:
                    raise
                yield None, str(exc)
                return
            yield govc, ""
        finally:
            await govc.aclose()

    async def _check(self, base_files: BaseFiles, govc: GovcBackend | None) -> Report:
        report = Report()
        place, found = self.place, report.findings
        bad = repair_git.bad_ref_files(place.repository)
        found += [_bad_ref(file, place) for file in bad]
        if bad:
            return report  # until they are gone no reference can be read with trust
        found += await check_repository(place)
        for check in _state_checks(place, base_files, report.looked_at.__setitem__):
            found += await trio.to_thread.run_sync(check)
        is_readable = not report.of(Kind.BRANCH, Kind.OBJECT, Kind.CURSOR)
        if govc is not None and is_readable:
            found += await check_stores(place, govc, report.looked_at.__setitem__)
        return report


def _state_checks(
    place: Place, base_files: BaseFiles, count: Callable[[str, int], None]
) -> tuple[Callable[[], list[Finding]], ...]:
    return (
        lambda: check_database(place, count),
        lambda: check_contents(place, base_files, count),
        lambda: check_shown(place),
        lambda: check_spool(place, place.repository.new_reader()),
        lambda: check_records(place),
        lambda: check_cache(place, count),
        lambda: check_set_aside(place),
    )


def _not_compared(why: str) -> Finding:
    return Finding(Kind.STORES, "govc", "it was not compared", why, is_error=False)


def _bad_ref(file: Path, place: Place) -> Finding:
    name = str(file.relative_to(place.repository.git_dir))
    is_branch = name == place.repository.branch_ref
    return Finding(
        Kind.BRANCH if is_branch else Kind.REFERENCE,
        name,
        "its file holds no object id",
        "git cannot be used until that is mended; more is checked then",
        "sets the file aside"
        + (" and moves the branch to the newest whole commit" if is_branch else ""),
        subject=name,
    )


class _Repair:
    """Goes through what was found, in the order of the checks."""

    def __init__(
        self, place: Place, base_files: BaseFiles, govc: GovcBackend | None, lost: Lost
    ) -> None:
        self._place = place
        self._repository = place.repository
        self._base_files = base_files
        self._govc = govc
        self._lost = lost

    async def run(self, report: Report) -> None:
        bad = repair_git.bad_ref_files(self._repository)
        has_lost_branch = any(
            file == self._repository.git_dir / self._repository.branch_ref for file in bad
        )
        repair_git.drop_bad_ref_files(self._repository, bad, self._lost)
        if bad or report.of(Kind.OBJECT, Kind.BRANCH, Kind.REFERENCE, Kind.CURSOR, Kind.STORES):
            await self._repair_git(report, has_lost_branch=has_lost_branch)
        await self._repair_state()
        self._set_aside(report)

    async def _repair_git(self, report: Report, *, has_lost_branch: bool) -> None:
        repository, lost = self._repository, self._lost
        if report.of(Kind.OBJECT, Kind.BRANCH, Kind.REFERENCE, Kind.CURSOR):
            await repair_git.take_apart(repository, lost)
            elsewhere = Elsewhere(self._place, self._base_files, self._by_blob(), self._govc)
            returned = await repair_git.fill_gaps(repository, elsewhere.find)
            if returned:
                lost.note(f"{returned} objects that git had lost were found elsewhere")
        if has_lost_branch or check_branch(repository):
            newest = await repair_git.find_newest_whole(repository, self._known_commits())
            if newest is not None:
                await repair_git.move_branch(repository, newest, lost)
        names = {f.subject for f in report.of(Kind.STORES) if f.subject}
        # Looked at again: what was put back may be all that they lacked.
        names.update(finding.subject for finding in check_caia_refs(repository))
        names.update(await repair_git.unreadable_refs(repository))
        await repair_git.drop_broken_refs(repository, sorted(names), lost)

    def _by_blob(self) -> dict[ObjectId, list[DocPath]]:
        found: dict[ObjectId, list[DocPath]] = {}
        with contextlib.suppress(CaiaError):
            tree = self._repository.tree_of(self._repository.head_commit())
            for path, entry in documents_of(self._repository.new_reader(), tree).items():
                found.setdefault(entry.oid, []).append(path)
        return found

    def _known_commits(self) -> list[ObjectId]:
        try:
            with contextlib.closing(open_state(self._place.state_dir)) as db:
                row = db.execute("SELECT value FROM meta WHERE key='known_commit'").fetchone()
        except sqlite3.Error:
            return []
        return [ObjectId(row[0])] if row is not None and row[0] else []

    async def _repair_state(self) -> None:
        """Put counts right, or begin anew where that is not enough; looks again, for git has changed."""
        found: list[Finding] = []
        for check in _state_checks(self._place, self._base_files, lambda *_: None)[:3]:
            found += await trio.to_thread.run_sync(check)
        errors = [finding for finding in found if finding.is_error]
        if any(finding.subject == "newer" for finding in errors):
            return
        if any(finding.kind in {Kind.DATABASE, Kind.CONTENT} for finding in errors):
            await begin_anew(self._place, self._base_files, self._lost)
        elif errors:
            await trio.to_thread.run_sync(self._put_right, errors)

    def _put_right(self, counts: list[Finding]) -> None:
        db = sqlite3.connect(paths.database(self._place.state_dir), isolation_level=None)
        with contextlib.closing(db):
            db.execute("BEGIN IMMEDIATE")
            for finding in counts:
                db.execute(finding.subject)
            db.execute("COMMIT")
        self._lost.notes += [f"{finding.where}: put right" for finding in counts]

    def _set_aside(self, report: Report) -> None:
        state_dir = self._place.state_dir
        for finding in report.findings:
            if finding.kind is Kind.ORPHAN:
                file = paths.spool(state_dir) / finding.subject
                if file.exists():
                    self._lost.keep(file, "spool")
            elif finding.kind is Kind.CACHE:
                self._lost.keep(state_dir / finding.subject, "cache")
            elif finding.kind is Kind.RECORD:
                for file in files_of_database(state_dir, finding.subject):
                    self._lost.keep(file, "state")
