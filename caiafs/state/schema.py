"""The state database: its tables, its version, and how an older one is brought up to date.

The mount process writes; the store process reads through short read-only transactions. An object id
is stored as its 20 bytes. `content` holds bytes that no ref reaches yet: inline, or as extents of a
spool file.

A created file costs as many pages as its transaction touches, twice 4 KiB each: hence no
AUTOINCREMENT, no index that memory can stand in for, and a file's first name in its own row.
"""

SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value ANY
) STRICT, WITHOUT ROWID;

CREATE TABLE inode (
    ino      INTEGER PRIMARY KEY,  -- never used twice: meta.next_ino is above all
    mode     INTEGER NOT NULL,
    uid      INTEGER NOT NULL,
    gid      INTEGER NOT NULL,
    rdev     INTEGER NOT NULL,
    nlink    INTEGER NOT NULL,
    size     INTEGER NOT NULL,   -- -1: not asked git yet
    atime_ns INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,
    oid      BLOB,               -- blob that the op log's end has; a directory not loaded: its tree
    content  INTEGER,            -- content row with what is newer; once settled it is gone
    flags    INTEGER NOT NULL,   -- state.flags.InodeFlag
    parent   INTEGER,            -- first name: its directory,
    name     BLOB,               -- and what it is called there
    round    INTEGER NOT NULL    -- commit that wrote the row; later ones have higher numbers
) STRICT;

CREATE TABLE saved (
    ino  INTEGER PRIMARY KEY,    -- a directory that is not loaded,
    tree BLOB NOT NULL           -- and the tree of attributes saved for what is in it
) STRICT;

CREATE TABLE dentry (
    parent INTEGER NOT NULL,
    name   BLOB NOT NULL,
    ino    INTEGER NOT NULL,
    shared INTEGER NOT NULL,     -- 1: the inode has, or had, other names too
    PRIMARY KEY (parent, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX dentry_shared ON dentry (ino) WHERE shared;

-- vfs.conflicts finds open conflicts by the names of their copies.
CREATE INDEX dentry_conflict ON dentry (name) WHERE instr(name, x'2e636f6e666c6963742d');

CREATE TABLE xattr (
    ino   INTEGER NOT NULL,
    name  BLOB NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (ino, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE content (
    id      INTEGER PRIMARY KEY,
    size    INTEGER NOT NULL,
    spool   TEXT,                -- file in the spool directory
    extents BLOB,                -- state.extents: how spool file and base make it
    data    BLOB                 -- whole content, up to inline_max_bytes; last, it may be long
) STRICT;

CREATE INDEX content_spool ON content (spool) WHERE spool IS NOT NULL;

CREATE TABLE synced (
    content INTEGER PRIMARY KEY, -- content row whose spool file is on the disk,
    extents BLOB NOT NULL        -- as far as these say
) STRICT;

CREATE TABLE replaced (
    ino     INTEGER PRIMARY KEY,  -- a file that took a name before any op put it there
    oid     BLOB,                -- what the op log's end has at that name
    content INTEGER              -- content row whose id `oid` gets once it is hashed
) STRICT;

CREATE TABLE op (
    seq      INTEGER PRIMARY KEY,  -- never used twice: above meta.settled_seq
    kind     TEXT NOT NULL,      -- OpKind
    path     BLOB NOT NULL,
    target   BLOB,               -- move: where to
    mode     INTEGER NOT NULL,   -- put: GitMode
    oid      BLOB,               -- put: the content
    size     INTEGER NOT NULL,
    content  INTEGER,            -- put: content row; NULL where git has the blob
    replaced BLOB,               -- what the writer saw at path (move: at target); NULL: nothing
    replaced_content INTEGER,    -- content row whose id `replaced` gets once it is hashed
    ino      INTEGER NOT NULL,
    uid      INTEGER NOT NULL,
    program  TEXT NOT NULL,
    time_ns  INTEGER NOT NULL,
    aside    INTEGER NOT NULL DEFAULT 0 -- remove: 1: it goes on under a name that is not published
) STRICT;

CREATE TABLE txn (
    first_seq INTEGER PRIMARY KEY, -- ops from here
    last_seq  INTEGER NOT NULL,    -- to here are one commit
    message   TEXT NOT NULL,       -- what was said of it, '' for nothing
    uid       INTEGER NOT NULL     -- who committed it
) STRICT;

CREATE TABLE note (
    ino   INTEGER NOT NULL,
    kind  TEXT NOT NULL,           -- message or source
    seq   INTEGER NOT NULL,        -- op that it is about; 0: the inode's next one
    value TEXT NOT NULL,
    PRIMARY KEY (ino, kind, seq)
) STRICT, WITHOUT ROWID;
"""

PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    # With OFF a checkpoint syncs nothing, and a composed power-cut image was malformed.
    "PRAGMA synchronous=NORMAL",
    "PRAGMA wal_autocheckpoint=0",
    "PRAGMA temp_store=MEMORY",
    "PRAGMA mmap_size=0",
)
