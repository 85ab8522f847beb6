"""Finding out what answers: which dialect, by behaviour, and whether it takes us.

Used by `backend.connect`, at start and after each reconnection: a server that was restarted may be another one. Version numbers and
status pages are not asked: the real server serves half of v1 in both of its architectures.
"""

from caiafs.backends.govc import failures
from caiafs.backends.govc.client import GovcClient
from caiafs.backends.govc.dialects.base import LOG_CODES, Dialect, encode_body
from caiafs.backends.govc.dialects.contract import Contract
from caiafs.backends.govc.dialects.v1 import V1
from caiafs.backends.govc.dialects.v2 import V2
from caiafs.backends.govc.wire import Request
from caiafs.core.errors import Misconfigured, Refused

_NO_ENDPOINT = "ENDPOINT_NOT_FOUND"
_NO_REPO = "REPO_NOT_FOUND"


async def probe(client: GovcClient, repo: str, *, has_token: bool) -> Dialect:
    """Return the dialect of the repository, which is there afterwards.

    Raises:
        Unreachable, Misconfigured: see `Backend.connect`.
    """
    if has_token:
        await _check_token(client)
    await _make_repository(client, repo)
    if await _serves_contract(client, repo):
        return Contract(repo)
    answer = await client.send(
        Request(
            "GET",
            f"/api/v2/repos/{repo}/commits?limit=1",
            "probe",
            expected=LOG_CODES | {_NO_ENDPOINT, _NO_REPO},
        )
    )
    if not answer.code or answer.code in LOG_CODES:
        return V2(repo)
    # The old architecture says "cannot reload memory repository" there, and shows its log here.
    await client.send(
        Request("GET", f"/api/v1/repos/{repo}/log?limit=1", "probe", expected=LOG_CODES)
    )
    return V1(repo)


async def _check_token(client: GovcClient) -> None:
    """Ask who we are: the real server takes writes with any token, or none."""
    await client.send(
        Request("GET", "/api/v1/auth/whoami", "probe", expected=frozenset({_NO_ENDPOINT}))
    )


async def _make_repository(client: GovcClient, repo: str) -> None:
    """Create the repository where it is missing; somebody else may just have done it."""
    known = await client.send(
        Request(
            "GET", f"/api/v1/repos/{repo}", "probe", expected=frozenset({_NO_REPO, _NO_ENDPOINT})
        )
    )
    if known.code != _NO_REPO:
        return
    body = encode_body({"id": repo, "memory_only": False})
    try:
        await client.send(
            Request("POST", "/api/v1/repos", "create", body, expected=frozenset({"REPO_EXISTS"}))
        )
    except Refused as exc:
        raise Misconfigured(
            f"govc does not make the repository {repo}: {exc.reason}",
            backend=failures.GOVC,
            operation="create",
        ) from exc


async def _serves_contract(client: GovcClient, repo: str) -> bool:
    """Whether the one-request commit exists; an empty one changes nothing where it does."""
    try:
        answer = await client.send(
            Request(
                "POST",
                f"/api/v1/repos/{repo}/commits",
                "probe",
                b"{}",
                expected=frozenset({_NO_ENDPOINT, "INVALID_REQUEST"}),
            )
        )
    except Refused:
        return True
    return answer.code != _NO_ENDPOINT
