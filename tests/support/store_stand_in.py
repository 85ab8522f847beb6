"""A process that speaks the store process's side of the link and stores nothing.

`--lived PATH` is made by its first life, so that it knows its second.
"""

import sys
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from caiafs.core.types import EMPTY_TREE
from caiafs.link.channel import Channel
from caiafs.link.messages import Due, LoadDone, LoadRequest, Ready, Report, Start, Stop, Stopped


def option(name):
    return sys.argv[sys.argv.index(name) + 1]


async def load(channel, message, again):
    if message.oid == "hang":
        while True:
            pass
    if message.oid == "second-life" and not again:
        await channel.send(Report(report="waiting"))
    elif message.oid != "never":
        await channel.send(LoadDone(message.request_id, message.oid))


async def main(again):
    channel = Channel(trio.SocketStream(trio.socket.socket(fileno=int(option("--fd")))))
    assert isinstance(await channel.receive(), Start)
    await channel.send(Ready(commit=None, tree=EMPTY_TREE))
    while (message := await channel.receive()) is not None:
        if isinstance(message, Due):
            await channel.send(Report(report=f"due {message.last_seq}"))
        elif isinstance(message, LoadRequest):
            await load(channel, message, again)
        elif isinstance(message, Stop):
            await channel.send(Stopped(left={"git": 0}))
            return


if __name__ == "__main__":
    lived = Path(option("--lived"))
    again = lived.exists()
    lived.touch()
    trio.run(main, again)
