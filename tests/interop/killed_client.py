#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Prints what QEMU's own Python client sees when its server is killed.

Usage: killed_client.py SOCKET.  Asks for what is not there, and prints "ready"; the server is killed before a line comes.
"""

import asyncio
import sys

from qemu.qmp import ExecuteError, QMPClient, QMPError, Runstate

COMMANDS = 20
LIMIT = 50.0


async def main(socket):
    client = QMPClient("killed")
    await client.connect(socket)
    for number in range(COMMANDS):
        try:
            await client.execute("no-%d" % number)
        except ExecuteError as error:
            assert str(error) == "The command no-%d has not been found" % number, str(error)
        else:
            raise AssertionError("there is no such command")
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    while client.runstate == Runstate.RUNNING:
        await client.runstate_changed()
    for attempt in (client.disconnect, lambda: QMPClient().connect(socket)):
        try:
            await attempt()
        except (QMPError, EOFError, OSError) as error:
            cause = error.__cause__
            print(type(error).__name__, type(cause).__name__ if cause else "-")
        else:
            print("nothing")


asyncio.run(asyncio.wait_for(main(sys.argv[1]), LIMIT))
