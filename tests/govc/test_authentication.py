"""The real server with authentication on: tokens, keys, CSRF."""

import logging

import pytest

from caiafs.core.errors import Misconfigured
from caiafs.core.types import DocPath
from tests.support.govc_documents import a_change_set

pytestmark = pytest.mark.govc


@pytest.fixture(params=["new", "old"])
def guarded(request, govc_servers):
    return govc_servers(architecture=request.param, auth=True)


async def test_a_jwt_is_taken_and_every_write_has_its_csrf_token(guarded, backends, contents):
    backend = backends(guarded, token=guarded.login())
    await backend.connect()
    entries = {b"d/%d" % n: contents.put(b"%d" % n) for n in range(30)}

    result = await backend.commit(a_change_set(entries))

    assert result.refused == ()
    assert await backend.current(list(map(DocPath, entries))) == entries


async def test_an_api_key_is_taken(guarded, backends, contents):
    backend = backends(guarded, token=guarded.api_key())
    await backend.connect()

    await backend.commit(a_change_set({b"a": contents.put(b"1")}))

    assert await backend.read(DocPath(b"a")) is not None


@pytest.mark.parametrize("token", ["aaa.bbb.ccc", "govc_aaaa"])
async def test_a_wrong_token_is_found_out_although_the_server_would_take_it(
    guarded, backends, token, caplog
):
    caplog.set_level(logging.DEBUG)
    backend = backends(guarded, token=token)

    with pytest.raises(Misconfigured) as caught:
        await backend.connect()

    assert "token" in str(caught.value)
    assert token not in str(caught.value) + repr(caught.value) + caplog.text


async def test_a_token_is_no_trouble_where_nobody_asks_for_one(govc_servers, backends):
    backend = backends(govc_servers(), token="any")

    assert (await backend.connect()).implementation == "rest-v2"
