#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Drives a server that has other clients with QEMU's own Python client, and prints the events of jobs.

Usage: mux_client.py SOCKET NAME COMMANDS.  Prints "ready" when it is connected, begins when it is sent a line, and
ends with the end of the job "last".
"""

import asyncio
import sys

from qemu.qmp import ExecuteError, QMPClient

AT_ONCE = 8
LIMIT = 50.0


async def main(socket, name, commands):
    client = QMPClient(name)
    await client.connect(socket)
    with client.listener("JOB_STATUS_CHANGE") as listener:
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        for first in range(0, commands, AT_ONCE):
            await asyncio.gather(*(ask(client, "%s-%d" % (name, n)) for n in range(first, first + AT_ONCE)))
        while True:
            event = await listener.get()
            data, at = event["data"], event["timestamp"]
            print("%s %s %d.%06d" % (data["id"], data["status"], at["seconds"], at["microseconds"]))
            if data == {"id": "last", "status": "null"}:
                break
    await client.disconnect()


async def ask(client, node):
    """The answer names what was asked for."""
    try:
        await client.execute("blockdev-del", {"node-name": node})
    except ExecuteError as error:
        assert str(error) == "Failed to find node with node-name='%s'" % node, str(error)
    else:
        raise AssertionError("there is no %s" % node)


asyncio.run(asyncio.wait_for(main(sys.argv[1], sys.argv[2], int(sys.argv[3])), LIMIT))
