#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Prints what QEMU's own Python client sees when its server is killed, again and again.

Usage: killed_client.py SOCKET ROUNDS COMMANDS.  In each round it asks for what is not there, prints "ready" after so many
commands, goes on until that fails, and prints how. After a line of input it prints how connecting fails, and "done". The
server is back when the next line comes.
"""

import asyncio
import sys
from itertools import count

from qemu.qmp import ExecInterruptedError, ExecuteError, QMPClient, QMPError, Runstate, StateError

LIMIT = 50.0


async def line():
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


async def ask(client, commands):
    for number in count():
        if number == commands:
            print("ready", flush=True)
        node = "no-%d" % number
        try:
            await client.execute("blockdev-del", {"node-name": node})
        except ExecuteError as error:
            assert str(error) == "Failed to find node with node-name='%s'" % node, str(error)
        except (ExecInterruptedError, StateError):
            # Which one depends on whether the command or the end was first.
            return
        else:
            raise AssertionError("there is no such node")


async def main(socket, rounds, commands):
    client = QMPClient("killed")
    for _ in range(rounds):
        await client.connect(socket)
        await ask(client, commands)
        while client.runstate == Runstate.RUNNING:
            await client.runstate_changed()
        await failure(client.disconnect())
        await line()
        await failure(client.connect(socket))
        print("done", flush=True)
        await line()


async def failure(attempt):
    try:
        await attempt
    except (EOFError, ConnectionResetError, BrokenPipeError):
        # A server that is killed before it has read everything resets the connection.
        print("the end")
    except (QMPError, EOFError, OSError) as error:
        cause = error.__cause__
        print(type(error).__name__, type(cause).__name__ if cause else "-")
    else:
        print("nothing")


asyncio.run(asyncio.wait_for(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])), LIMIT))
