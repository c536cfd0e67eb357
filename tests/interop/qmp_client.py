#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Drives a server with QEMU's own Python client and checks what it gets.

Usage: qmp_client.py SOCKET.  The machine must not be running.
"""

import asyncio
import os
import sys

from qemu.qmp import ExecuteError, QMPClient

LIMIT = 15.0


async def check(socket):
    client = QMPClient("interop")
    await client.connect(socket)
    try:
        assert client.greeting.QMP.capabilities == ["oob"], client.greeting
        await check_results(client)
        await check_errors(client)
        await check_events(client)
        await check_out_of_band(client)
        await check_descriptor(client)
        await check_many_at_once(client)
    finally:
        await client.disconnect()
    await check_reconnecting(client, socket)


async def check_results(client):
    assert await client.execute("query-name") == {"name": "confvm"}
    status = await client.execute("query-status")
    assert status["status"] == "prelaunch" and not status["running"], status
    commands = [entry["name"] for entry in await client.execute("query-commands")]
    assert "query-status" in commands and "query-qmp-schema" in commands, commands
    version = (await client.execute("query-version"))["qemu"]
    assert all(isinstance(version[part], int) for part in ("major", "minor", "micro")), version


async def check_errors(client):
    await expect_error(client, "CommandNotFound", "no-such-command")
    await expect_error(client, "GenericError", "getfd", {})
    await expect_error(client, "GenericError", "query-name", {"surplus": 1})
    assert await client.execute("query-name") == {"name": "confvm"}


async def expect_error(client, error_class, command, arguments=None):
    try:
        await client.execute(command, arguments)
    except ExecuteError as error:
        assert error.error_class == error_class, error.error_class
    else:
        raise AssertionError("%s has not failed" % command)


async def check_events(client):
    """Each event is there when its command returns."""
    with client.listener(("STOP", "RESUME")) as listener:
        for command, event in [("cont", "RESUME"), ("stop", "STOP"), ("cont", "RESUME"), ("stop", "STOP")]:
            await client.execute(command)
            assert not listener.empty(), "%s came after the reply to %s" % (event, command)
            message = await listener.get()
            assert message["event"] == event, message
            assert set(message["timestamp"]) == {"seconds", "microseconds"}, message
        assert listener.empty()


async def check_out_of_band(client):
    """The client enables oob because it is offered."""
    reply = await client._raw({"exec-oob": "yank", "arguments": {"instances": []}, "id": "oob"}, assign_id=False)
    assert reply == {"return": {}, "id": "oob"}, dict(reply)


async def check_descriptor(client):
    with open(os.devnull, "rb") as stream:
        client.send_fd_scm(stream.fileno())
        await client.execute("getfd", {"fdname": "null"})
    await client.execute("closefd", {"fdname": "null"})
    await expect_error(client, "GenericError", "closefd", {"fdname": "null"})


async def check_many_at_once(client):
    commands = ["query-name", "query-status", "query-kvm", "query-target"] * 10
    results = await asyncio.gather(*(client.execute(command) for command in commands))
    for command, result in zip(commands, results):
        assert result == results[commands.index(command)], (command, result)


async def check_reconnecting(client, socket):
    await client.connect(socket)
    assert await client.execute("query-name") == {"name": "confvm"}
    await client.disconnect()


asyncio.run(asyncio.wait_for(check(sys.argv[1]), LIMIT))
print("all checks passed")
