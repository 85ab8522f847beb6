"""What a check found: one line each, for a person, and enough for the repair to know what it is about."""

import enum
from dataclasses import dataclass, field


class Kind(enum.StrEnum):
    """What is wrong, in a word; `--json` shows it."""

    OBJECT = "object"
    """A git object is damaged or missing."""
    BRANCH = "branch"
    """The branch does not lead to a readable commit."""
    REFERENCE = "reference"
    """A reference of ours leads nowhere, or to what cannot be read."""
    CURSOR = "cursor"
    """What govc is said to hold makes no sense, or is not so."""
    DATABASE = "database"
    """The state DB cannot be read, or its tables do not fit together."""
    COUNT = "count"
    """A number in the state DB is wrong that follows from the rest of it."""
    CONTENT = "content"
    """The bytes of a version that no store has yet are damaged or gone."""
    ORPHAN = "orphan"
    """A file in the spool that no version needs."""
    RECORD = "record"
    """A record of saved attributes or of document ids is damaged."""
    CACHE = "cache"
    """A file of the disk cache is not what its name says."""
    STORES = "stores"
    """govc and git differ."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        where: the object, reference, file or document.
        what: what is wrong with it.
        meaning: what that means for documents.
        remedy: what --repair would do; empty where it can do nothing.
        is_error: False for what the next mount puts right by itself: told, not counted.
        subject: what the repair works on, as it needs it.
    """

    kind: Kind
    where: str
    what: str
    meaning: str
    remedy: str = ""
    is_error: bool = True
    subject: str = ""

    def __str__(self) -> str:
        mark = "" if self.is_error else "note: "
        remedy = f"; --repair {self.remedy}" if self.remedy else "; --repair cannot help"
        return f"{mark}{self.where}: {self.what}; {self.meaning}" + (
            remedy if self.is_error or self.remedy else ""
        )

    def as_json(self) -> dict[str, object]:
        """Return it as `--json` prints it."""
        return {
            "kind": self.kind.value,
            "where": self.where,
            "what": self.what,
            "meaning": self.meaning,
            "remedy": self.remedy,
            "error": self.is_error,
        }


@dataclass(slots=True)
class Report:
    """What one check found, and how much it looked at."""

    findings: list[Finding] = field(default_factory=list)
    looked_at: dict[str, int] = field(default_factory=dict)

    @property
    def errors(self) -> list[Finding]:
        """The findings that count."""
        return [finding for finding in self.findings if finding.is_error]

    @property
    def orphans(self) -> list[Finding]:
        """What no version needs, and a repair keeps all the same."""
        return [finding for finding in self.findings if finding.kind is Kind.ORPHAN]

    def of(self, *kinds: Kind) -> list[Finding]:
        """Return the errors of these kinds."""
        return [finding for finding in self.errors if finding.kind in kinds]
