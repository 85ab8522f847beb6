"""`caiafs fsck` finds each kind of damage, and --repair mends it without losing a version that close(2) returned for."""

import contextlib
import os
import sqlite3
import subprocess
from pathlib import Path

import pytest

from caiafs.core.types import blob_id
from tests.conftest import MountFactory, govc_environment
from tests.support.govc_peek import Peek
from tests.support.govc_server import GovcServer
from tests.support.mount import Mount, git, run_caiafs
from tests.support.small_disk import a_small_disk, fill
from tests.support.upkeep import (
    NEVER,
    blob_of,
    checkpoint,
    digests,
    flip,
    fsck,
    loose_file,
    save_some,
    state,
)
from tests.support.waiting import wait_until
from tests.support.writer import Writer

pytestmark = [pytest.mark.mount, pytest.mark.slow]


def repaired(caia: Mount, *args: str, env: dict[str, str] | None = None):
    """Repair; check that it says so, that the next fsck is clean, and return what it told."""
    told = fsck(caia.repo, "--repair", *args, env=env)
    assert told.code == 1, (told.findings, told.left, told.done)
    assert fsck(caia.repo, *args, env=env).code == 0
    assert git("fsck", "--strict", "--no-dangling", cwd=caia.repo) == ""
    return told


def sql(caia: Mount, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(state(caia) / "state.db", isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


@pytest.fixture
def unmounted(caia: Mount) -> Mount:
    """Return a mount that was used and unmounted."""
    save_some(caia.path)
    caia.sync()
    caia.unmount()
    return caia


@pytest.fixture
def killed(mount_caia: MountFactory) -> tuple[Mount, dict[bytes, str]]:
    """Return a mount that was killed with saves pending, and the hashes of all that was saved."""
    caia = mount_caia(options=NEVER)
    save_some(caia.path, "-old")
    caia.sync()
    (caia / "small-old").write_text("changed, and not published")
    (caia / "d" / "inline-old").rename(caia / "d" / "moved")
    (caia / "empty-old").unlink()
    hashes = save_some(caia.path, "-new")
    settle(caia)
    store = caia.store_pid
    caia.kill9()
    wait_until(lambda: not Path(f"/proc/{store}").exists(), "the store process has ended")
    return caia, hashes


def settle(caia: Mount) -> None:
    """Wait until large contents have been hashed, so that every version has its id in the log."""
    uri = f"file:{state(caia) / 'state.db'}?mode=ro"

    def is_hashed() -> bool:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
            query = "SELECT count(*) FROM op WHERE kind='put' AND oid IS NULL"
            return bool(db.execute(query).fetchone()[0] == 0)

    wait_until(is_hashed, "every version has its id")


def files(caia: Mount) -> dict[Path, bytes]:
    """Return what is in the state directory, but for locks and what any reader of SQLite makes."""
    found = [f for f in state(caia).rglob("*") if f.is_file()]
    found = [f for f in found if not f.name.startswith("lock.") and not f.name.endswith("-shm")]
    contents = {f: f.read_bytes() for f in found}
    return {f: content for f, content in contents.items() if content}


# --- what is well


def test_repository_is_clean_after_ordinary_use(unmounted: Mount):
    told = fsck(unmounted.repo)

    assert (told.code, told.findings) == (0, [])


def test_repository_is_clean_after_a_kill_with_saves_pending(killed):
    caia, _ = killed

    told = fsck(caia.repo)

    assert (told.code, told.errors()) == (0, [])


@pytest.mark.parametrize("saves", [3, 40, 150])
def test_repository_is_clean_after_a_kill_in_the_middle_of_saving(caia: Mount, saves: int):
    writer = Writer(caia.path, seed=saves)
    writer.wait_done(saves)
    caia.kill9()
    writer.stop()

    told = fsck(caia.repo)

    assert (told.code, told.errors()) == (0, []), told.text()
    caia.start()
    writer.check(caia.path)


def test_repository_is_clean_after_a_kill_while_others_push(caia: Mount):
    (caia / "ours").write_text("ours")
    caia.sync()
    clone = caia.clone(caia.base / "work")
    for index in range(300):
        (clone / f"theirs-{index}").write_text(f"{index}")
    git("add", ".", cwd=clone)
    git("commit", "-qm", "Many", cwd=clone)
    git("push", "-q", cwd=clone)
    wait_until(lambda: (caia / "theirs-0").exists(), "the push is seen")
    caia.kill9()

    told = fsck(caia.repo)

    assert (told.code, told.errors()) == (0, []), told.text()


def test_check_changes_nothing(killed):
    caia, hashes = killed
    before = files(caia)
    refs = git("for-each-ref", cwd=caia.repo)

    fsck(caia.repo)

    assert files(caia) == before
    assert git("for-each-ref", cwd=caia.repo) == refs
    caia.start()
    assert digests(caia.path) == hashes


def test_clean_repository_that_was_never_mounted(tmp_path: Path):
    git("init", "-q", "--bare", "repo.git", cwd=tmp_path)

    assert fsck(tmp_path / "repo.git").code == 0


def test_mounted_repository_is_refused_with_where_it_is_mounted(caia: Mount):
    done = run_caiafs("fsck", caia.repo)

    assert done.returncode == 8
    assert str(caia.path) in done.stderr
    by_mount = run_caiafs("fsck", caia.path)
    assert by_mount.returncode == 8
    assert str(caia.repo) in by_mount.stderr


@pytest.mark.parametrize("args", [(), ("--nonsense", "."), ("a", "b")])
def test_wrong_command_line_is_code_16(args):
    assert run_caiafs("fsck", *args).returncode == 16


def test_missing_repository_is_code_8(tmp_path: Path):
    done = run_caiafs("fsck", tmp_path / "nothing")

    assert done.returncode == 8
    assert len(done.stderr.splitlines()) == 1


# --- the state DB


def zero_the_header(caia: Mount) -> None:
    checkpoint(state(caia) / "state.db")
    flip(state(caia) / "state.db", 0, 100)


def damage_the_schema(caia: Mount) -> None:
    checkpoint(state(caia) / "state.db")
    flip(state(caia) / "state.db", 100, 12)


def damage_the_index_of_names(caia: Mount) -> None:
    database = state(caia) / "state.db"
    checkpoint(database)
    with contextlib.closing(sqlite3.connect(database)) as db:
        query = "SELECT rootpage FROM sqlite_master WHERE name='dentry'"
        page = db.execute(query).fetchone()[0]
    flip(database, (page - 1) * 4096, 100)


def take_the_root_away(caia: Mount) -> None:
    sql(caia, "DELETE FROM inode WHERE ino=1")


def take_an_inode_away(caia: Mount) -> None:
    sql(
        caia,
        "DELETE FROM inode WHERE ino=(SELECT ino FROM dentry WHERE name=CAST('link-new' AS BLOB))",
    )


@pytest.mark.parametrize(
    "harm",
    [
        zero_the_header,
        damage_the_schema,
        damage_the_index_of_names,
        take_the_root_away,
        take_an_inode_away,
    ],
)
def test_damaged_state_database_is_rebuilt_with_everything_that_was_pending(killed, harm):
    caia, hashes = killed
    harm(caia)
    assert "database" in fsck(caia.repo).errors()

    told = repaired(caia)

    caia.start()
    assert digests(caia.path) == hashes
    caia.sync()
    assert digests(caia.clone(caia.base / "clone")) == hashes
    assert told.lost is not None
    assert (told.lost / "state" / "state.db").exists()
    assert oct((caia / "tool-new").stat().st_mode)[-3:] == "755"


def test_cut_off_state_database_loses_no_published_version_and_invents_none(killed):
    caia, hashes = killed
    published = digests(caia.clone(caia.base / "before"))
    database = state(caia) / "state.db"
    checkpoint(database)
    with database.open("r+b") as file:
        file.truncate(database.stat().st_size // 2)

    repaired(caia)

    caia.start()
    shown = digests(caia.path)
    gone = set(published) - set(shown)
    assert gone <= {b"empty-old", b"d/inline-old"}  # removed and renamed before
    versions = {**published, **hashes}
    for path, digest in shown.items():
        assert digest in {versions.get(path), published.get(path)}, path


def test_pending_versions_are_committed_as_their_writer_s(killed):
    caia, _ = killed
    zero_the_header(caia)

    repaired(caia)

    message = git("log", "-1", "--format=%B", cwd=caia.repo)
    assert "Caiafs-Operation: " in message
    assert "caiafs fsck" in message


def test_every_pending_version_of_a_document_is_a_commit_of_its_own(mount_caia: MountFactory):
    caia = mount_caia(options=NEVER)
    (caia / "other").write_text("published")
    caia.sync()
    versions = [os.urandom(1_500_000)]
    (caia / "doc").write_bytes(versions[0])
    for _ in range(2):
        with (caia / "doc").open("ab") as file:
            file.write(b"and more")
        versions.append(versions[-1] + b"and more")
    settle(caia)
    caia.kill9()
    sql(caia, f"UPDATE meta SET value='{'5' * 40}' WHERE key='known_commit'")

    repaired(caia)

    commits = git("log", "--reverse", "--format=%H", "--", "doc", cwd=caia.repo).split()
    blobs = [git("rev-parse", f"{commit}:doc", cwd=caia.repo).strip() for commit in commits]
    assert blobs == [blob_id(version) for version in versions]
    assert not list((state(caia) / "spool").iterdir())


def show_another_version(caia: Mount) -> None:
    sql(
        caia,
        "UPDATE inode SET content=NULL, size=-1, oid=(SELECT oid FROM inode WHERE name=CAST('inline' AS BLOB))"
        " WHERE name=CAST('small' AS BLOB)",
    )


def hide_a_document(caia: Mount) -> None:
    sql(
        caia,
        "DELETE FROM dentry WHERE name=CAST('small' AS BLOB)",
        "DELETE FROM inode WHERE name=CAST('small' AS BLOB)",
    )


def misspell_a_name(caia: Mount) -> None:
    sql(
        caia,
        "UPDATE dentry SET name=CAST('smell' AS BLOB) WHERE name=CAST('small' AS BLOB)",
        "UPDATE inode SET name=CAST('smell' AS BLOB) WHERE name=CAST('small' AS BLOB)",
    )


@pytest.mark.parametrize("harm", [show_another_version, hide_a_document, misspell_a_name])
def test_state_that_shows_something_else_than_git_has_is_found(unmounted: Mount, harm):
    hashes = digests(unmounted.clone(unmounted.base / "clone"))
    harm(unmounted)
    assert set(fsck(unmounted.repo).errors()) == {"database"}

    repaired(unmounted)

    unmounted.start()
    assert digests(unmounted.path) == hashes


def test_wrong_counts_are_put_right_in_place(unmounted: Mount):
    hashes = digests(unmounted.clone(unmounted.base / "clone"))
    sql(unmounted, "UPDATE inode SET nlink=7 WHERE name=CAST('small' AS BLOB)")
    sql(unmounted, "UPDATE inode SET size=size+5 WHERE name=CAST('inline' AS BLOB)")
    sql(unmounted, "UPDATE meta SET value=2 WHERE key='next_ino'")
    assert fsck(unmounted.repo).errors() == ["count"] * 3

    told = repaired(unmounted)

    assert told.lost is None
    unmounted.start()
    assert digests(unmounted.path) == hashes
    assert (unmounted / "small").stat().st_nlink == 1


def test_state_database_that_another_program_holds_is_no_damage(unmounted: Mount):
    database = state(unmounted) / "state.db"
    number = database.stat().st_ino
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as db:
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute("BEGIN EXCLUSIVE")

        done = run_caiafs("fsck", "--repair", unmounted.repo)

    assert done.returncode == 8
    assert "locked" in done.stderr
    assert database.stat().st_ino == number
    assert fsck(unmounted.repo).code == 0


def test_full_disk_is_no_damage_of_the_state_database(mount_caia: MountFactory, tmp_path: Path):
    with a_small_disk(tmp_path / "disk") as disk:
        caia = mount_caia(repo=disk / "repo", options=("reserve_bytes=0",))
        (caia / "doc").write_text("saved")
        caia.sync()
        caia.unmount()
        full = fill(disk, leave=0)

        done = run_caiafs("fsck", "--repair", caia.repo)

        assert done.returncode == 8
        assert "no room left" in done.stderr
        full.unlink()
        assert fsck(caia.repo).code == 0


def test_newer_state_database_is_left_alone(unmounted: Mount):
    sql(unmounted, "PRAGMA user_version=99")
    before = (state(unmounted) / "state.db").read_bytes()

    told = fsck(unmounted.repo, "--repair")

    assert told.code == 4
    assert (state(unmounted) / "state.db").read_bytes() == before


def test_attributes_outlive_the_repair_of_a_readable_database(killed):
    caia, _ = killed
    take_an_inode_away(caia)
    name = b"small-new".hex()
    sql(caia, f"UPDATE inode SET mtime_ns=1234567890123456789, mode=33152 WHERE name=x'{name}'")

    repaired(caia)

    caia.start()
    status = (caia / "small-new").stat()
    assert status.st_mtime_ns == 1234567890123456789
    assert oct(status.st_mode)[-3:] == "600"


# --- the spool, the cache, the record


def spool_file(caia: Mount) -> Path:
    (file,) = (f for f in (state(caia) / "spool").iterdir() if f.stat().st_size == 1_500_000)
    return file


def lose_it(file: Path) -> None:
    file.unlink()


def cut_it(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(700_000)


def change_it(file: Path) -> None:
    flip(file, 900_000)


@pytest.mark.parametrize("harm", [lose_it, cut_it, change_it])
def test_damaged_pending_content_costs_that_version_alone(killed, harm):
    caia, hashes = killed
    file = spool_file(caia)
    harm(file)
    left = file.read_bytes() if file.exists() else None
    told = fsck(caia.repo)
    assert told.errors() == ["content"]
    assert "d/deep/large-new" in told.text()

    repaired(caia)

    caia.start()
    hashes.pop(b"d/deep/large-new")
    assert digests(caia.path) == hashes
    kept = [f.read_bytes() for f in (state(caia) / "damaged").glob("*.content")]
    assert kept == ([left] if left is not None else [])


def test_changed_pending_inline_content_is_found(killed):
    caia, hashes = killed
    sql(
        caia,
        "UPDATE content SET data=zeroblob(size) WHERE id=(SELECT content FROM op WHERE path=CAST('small-new' AS BLOB))",
    )
    assert fsck(caia.repo).errors() == ["content"]

    repaired(caia)

    kept = [f.read_bytes() for f in (state(caia) / "damaged").glob("*.content")]
    assert kept == [bytes(len("small -new\n"))]
    caia.start()
    hashes.pop(b"small-new")
    assert digests(caia.path) == hashes


def test_orphaned_spool_file_is_a_note_and_kept_by_a_repair(unmounted: Mount):
    content = os.urandom(5000)
    (state(unmounted) / "spool" / "00112233445566ff").write_bytes(content)
    told = fsck(unmounted.repo)
    assert (told.code, [f["kind"] for f in told.findings]) == (0, ["orphan"])

    told = fsck(unmounted.repo, "--repair")

    assert told.code == 0
    assert told.lost is not None
    assert (told.lost / "spool" / "00112233445566ff").read_bytes() == content


def test_wrong_file_in_the_disk_cache_is_taken_out(unmounted: Mount):
    hashes = digests(unmounted.clone(unmounted.base / "clone"))
    oid = blob_of(unmounted.repo, "d/deep/large")
    cached = state(unmounted) / "cache" / oid[:2] / oid
    cached.parent.mkdir(parents=True, exist_ok=True)
    cached.write_bytes(b"x" * 1_500_000)
    assert fsck(unmounted.repo).errors() == ["cache"]

    repaired(unmounted)

    unmounted.start()
    assert digests(unmounted.path) == hashes


@pytest.mark.parametrize("name", ["saved.db", "documents.db"])
def test_damaged_record_is_set_aside(unmounted: Mount, name: str):
    for file in state(unmounted).glob(f"{name}*"):
        file.write_bytes(b"no database" * 1000)
    assert fsck(unmounted.repo).errors() == ["record"]

    repaired(unmounted)

    unmounted.start()
    (unmounted / "another").write_text("text")
    unmounted.sync()


# --- git


def test_lost_object_that_the_disk_cache_has_comes_back(unmounted: Mount):
    oid = blob_of(unmounted.repo, "d/deep/large")
    content = subprocess.run(
        ["git", "cat-file", "blob", oid], cwd=unmounted.repo, capture_output=True, check=True
    ).stdout
    loose_file(unmounted.repo, oid).unlink()
    cached = state(unmounted) / "cache" / oid[:2] / oid
    cached.parent.mkdir(parents=True, exist_ok=True)
    cached.write_bytes(content)
    told = fsck(unmounted.repo)
    assert told.errors() == ["object"]
    assert "d/deep/large" in told.text()

    repaired(unmounted)

    unmounted.start()
    assert (unmounted / "d" / "deep" / "large").read_bytes() == content


def test_lost_tree_is_made_again_from_the_state_database(unmounted: Mount):
    hashes = digests(unmounted.clone(unmounted.base / "clone"))
    tree = git("rev-parse", "HEAD:d", cwd=unmounted.repo).strip()
    loose_file(unmounted.repo, tree).unlink()
    told = fsck(unmounted.repo)
    assert "object" in told.errors()
    assert "d/" in told.text()

    repaired(unmounted)

    unmounted.start()
    assert digests(unmounted.path) == hashes


def test_lost_object_that_nobody_has_is_named_and_the_rest_is_served(unmounted: Mount):
    oid = blob_of(unmounted.repo, "small")
    loose_file(unmounted.repo, oid).unlink()

    told = fsck(unmounted.repo, "--repair")

    assert told.code == 4
    assert [finding["kind"] for finding in told.left] == ["object"]
    assert "small" in told.text()
    unmounted.start()
    unmounted.expect_log(r".")
    assert (unmounted / "d" / "inline").stat().st_size == 30_000


def test_damaged_loose_object_is_set_aside(unmounted: Mount):
    oid = blob_of(unmounted.repo, "d/deep/large")
    file = loose_file(unmounted.repo, oid)
    cached = state(unmounted) / "cache" / oid[:2] / oid
    cached.parent.mkdir(parents=True, exist_ok=True)
    cached.write_bytes(
        subprocess.run(
            ["git", "cat-file", "blob", oid], cwd=unmounted.repo, capture_output=True, check=True
        ).stdout
    )
    flip(file, file.stat().st_size // 2, 50)
    damaged = file.read_bytes()

    told = repaired(unmounted)

    assert told.lost is not None
    assert (told.lost / "objects" / oid[:2] / oid[2:]).read_bytes() == damaged


def test_every_object_that_a_damaged_pack_still_has_comes_back(unmounted: Mount):
    oid = blob_of(unmounted.repo, "d/deep/large")
    content = subprocess.run(
        ["git", "cat-file", "blob", oid], cwd=unmounted.repo, capture_output=True, check=True
    ).stdout
    git("repack", "-adq", cwd=unmounted.repo)
    (pack,) = (unmounted.repo / "objects" / "pack").glob("*.pack")
    offset = int(
        next(
            line.split()[4]
            for line in git(
                "verify-pack", "-v", pack.with_suffix(".idx"), cwd=unmounted.repo
            ).splitlines()
            if line.startswith(oid)
        )
    )
    flip(pack, offset + 700_000, 20)
    cached = state(unmounted) / "cache" / oid[:2] / oid
    cached.parent.mkdir(parents=True, exist_ok=True)
    cached.write_bytes(content)
    assert "object" in fsck(unmounted.repo).errors()

    told = repaired(unmounted)

    assert told.lost is not None
    assert list((told.lost / "objects" / "pack").glob("*.pack"))
    unmounted.start()
    assert (unmounted / "d" / "deep" / "large").read_bytes() == content
    assert (unmounted / "small").read_text() == "small \n"


def test_damaged_index_of_a_pack_is_made_anew(unmounted: Mount):
    hashes = digests(unmounted.clone(unmounted.base / "clone"))
    git("repack", "-adq", cwd=unmounted.repo)
    (index,) = (unmounted.repo / "objects" / "pack").glob("*.idx")
    flip(index, index.stat().st_size // 2, 8)
    assert fsck(unmounted.repo).code == 4

    repaired(unmounted)

    unmounted.start()
    assert digests(unmounted.path) == hashes


@pytest.mark.parametrize("text", ["0123456789" * 4, "", "nonsense"])
def test_branch_that_leads_nowhere_goes_to_the_newest_whole_commit(unmounted: Mount, text: str):
    hashes = digests(unmounted.clone(unmounted.base / "clone"))
    head = git("rev-parse", "HEAD", cwd=unmounted.repo).strip()
    (unmounted.repo / "refs" / "heads" / "main").write_text(text + "\n" if text else "")
    told = fsck(unmounted.repo)
    assert "branch" in told.errors()

    repaired(unmounted)

    assert git("rev-parse", "HEAD", cwd=unmounted.repo).strip() == head
    unmounted.start()
    assert digests(unmounted.path) == hashes


def test_lost_branch_keeps_what_others_pushed(unmounted: Mount):
    clone = unmounted.clone(unmounted.base / "clone")
    (clone / "theirs").write_text("no mount has seen it")
    git("add", ".", cwd=clone)
    git("commit", "-qm", "Theirs", cwd=clone)
    git("push", "-q", cwd=clone)
    head = git("rev-parse", "HEAD", cwd=unmounted.repo)
    (unmounted.repo / "refs" / "heads" / "main").write_text("")

    repaired(unmounted)

    assert git("rev-parse", "HEAD", cwd=unmounted.repo) == head


def test_saved_attributes_stay_where_only_the_pack_around_them_was_damaged(unmounted: Mount):
    saved = git("rev-parse", "refs/caia/meta", cwd=unmounted.repo)
    git("repack", "-adq", cwd=unmounted.repo)
    (index,) = (unmounted.repo / "objects" / "pack").glob("*.idx")
    flip(index, 8, 1200)

    repaired(unmounted)

    assert git("rev-parse", "refs/caia/meta", cwd=unmounted.repo) == saved


def test_saved_attributes_that_cannot_be_read_are_dropped_and_saved_anew(unmounted: Mount):
    (unmounted.repo / "refs" / "caia" / "meta").write_text("5" * 40 + "\n")
    assert fsck(unmounted.repo).errors()[0] == "reference"

    repaired(unmounted)

    unmounted.start()
    (unmounted / "small").chmod(0o640)
    unmounted.sync()
    unmounted.unmount()
    assert fsck(unmounted.repo).code == 0


# --- govc


@pytest.fixture
def on_govc(mount_caia: MountFactory, govc_servers) -> tuple[Mount, GovcServer]:
    """Return a mount that was used on a govc and unmounted."""
    govc = govc_servers()
    caia = mount_caia(env={**govc_environment(govc), "GOVC_REPO_NAME": "docs"})
    save_some(caia.path)
    caia.sync(timeout_s=60)
    caia.unmount()
    return caia, govc


def cursor(caia: Mount) -> str:
    return git("for-each-ref", "--format=%(refname)", "refs/caia/govc", cwd=caia.repo).strip()


@pytest.mark.govc
def test_stores_that_agree_are_clean(on_govc):
    caia, _ = on_govc

    told = fsck(caia.repo, env=caia.env)

    assert (told.code, told.errors()) == (0, [])


@pytest.mark.govc
def test_document_that_was_changed_in_govc_is_named(on_govc):
    caia, govc = on_govc
    Peek(govc.url).write({"small": "somebody else's\n"})

    told = fsck(caia.repo, "--govc", env=caia.env)

    assert told.errors() == ["stores"]
    assert "small: git and govc have different versions" in told.text()
    assert fsck(caia.repo, "--no-govc", env=caia.env).code == 0


@pytest.mark.govc
def test_after_a_repair_the_next_mount_brings_the_stores_together(on_govc):
    caia, govc = on_govc
    Peek(govc.url).write({"small": "somebody else's\n"})

    told = fsck(caia.repo, "--repair", env=caia.env)

    assert told.code == 1
    assert cursor(caia) == ""
    caia.start()
    caia.sync(timeout_s=60)
    shown = {(caia / "small").read_text()} | {
        file.read_text() for file in caia.path.glob("small.conflict-*")
    }
    versions = git("log", "-p", "--format=", "--", "small", "small.conflict-*", cwd=caia.repo)
    assert "somebody else's\n" in shown | {line[1:] + "\n" for line in versions.splitlines()}
    caia.unmount()
    assert fsck(caia.repo, env=caia.env).code == 0


@pytest.mark.govc
@pytest.mark.parametrize("what", ["nonsense", "another tree"])
def test_wrong_cursor_is_dropped_and_made_again(on_govc, what: str):
    caia, _ = on_govc
    name = cursor(caia)
    message = "no cursor"
    if what == "another tree":
        message = git("log", "-1", "--format=%B", name, cwd=caia.repo)
    tree = git("rev-parse", "HEAD:d", cwd=caia.repo).strip()
    commit = git("commit-tree", tree, "-m", message, cwd=caia.repo).strip()
    git("update-ref", name, commit, cwd=caia.repo)
    assert "cursor" in fsck(caia.repo, "--no-govc").errors()

    repaired(caia, "--no-govc")

    assert git("rev-parse", f"refs/caia/lost/{commit}", cwd=caia.repo).strip() == commit
    caia.start()
    caia.sync(timeout_s=60)
    caia.unmount()
    assert cursor(caia) == name
    assert fsck(caia.repo, env=caia.env).code == 0


@pytest.mark.govc
def test_lost_object_comes_back_from_govc(on_govc):
    caia, _ = on_govc
    oid = blob_of(caia.repo, "d/inline")
    loose_file(caia.repo, oid).unlink()

    told = repaired(caia, env=caia.env)

    assert any("found elsewhere" in line for line in told.done)
    assert blob_of(caia.repo, "d/inline") == oid


@pytest.mark.govc
def test_govc_that_came_back_empty_is_no_fault(on_govc):
    caia, govc = on_govc
    govc.restart()

    told = fsck(caia.repo, env=caia.env)

    assert (told.code, told.errors()) == (0, [])
    assert "fills it again" in told.text()


@pytest.mark.govc
def test_govc_that_is_away_is_a_note_unless_it_was_asked_for(on_govc):
    caia, govc = on_govc
    govc.stop()

    assert fsck(caia.repo, env=caia.env).code == 0
    assert run_caiafs("fsck", "--govc", caia.repo, env=caia.env).returncode == 8
