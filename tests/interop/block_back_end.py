#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Drives the block back end with QEMU's own Python client, while QEMU's tools read and write.

Usage: block_back_end.py QMP-SOCKET NBD-SOCKET IMAGE IMAGE LIMIT.  The back end serves the images as
disk0, of one mebibyte, and disk1, of which it cannot write what lies beyond LIMIT bytes.  It is made
to quit.
"""

import asyncio
import json
import os
import signal
import sys
import time

from qemu.qmp import EventListener, ExecuteError, QMPClient, Runstate

QMP, NBD, IMAGE, FULL_IMAGE = sys.argv[1:5]
WRITE_LIMIT = int(sys.argv[5])
LIMIT = 60.0
MEBIBYTE = 1 << 20
ERRORS = 50


def url(device):
    return "nbd+unix:///%s?socket=%s" % (device, NBD)


async def start(*command):
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=asyncio.subprocess.STDOUT)


async def end(process):
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def run(*command):
    status, output = await end(await start(*command))
    assert status == 0, (command, output)
    return output


def qemu_io(device, *commands):
    arguments = [argument for command in commands for argument in ("-c", command)]
    return start("qemu-io", "-f", "raw", *arguments, url(device))


def bench():
    """Writes to the whole of disk0, as fast as it goes, without end."""
    return start("qemu-img", "bench", "-f", "raw", "-w", "-c", "1000000000", "-s", "4096", url("disk0"))


async def block(client, device):
    """What is said of a device."""
    [info] = [info for info in await client.execute("query-block") if info["device"] == device]
    return info["inserted"]


async def stats(client, device):
    [entry] = [entry for entry in await client.execute("query-blockstats") if entry["device"] == device]
    return entry["stats"]


async def expect_error(client, description, command, arguments):
    try:
        await client.execute(command, arguments)
    except ExecuteError as error:
        assert error.error_class == "GenericError" and str(error) == description, error
    else:
        raise AssertionError("%s has not failed" % command)


async def check_what_is_written(client):
    wrote = await qemu_io("disk0", "write -P 0xa5 64k 64k", "flush", "read -P 0xa5 64k 64k", "write -z 96k 4k", "discard 100k 4k")
    status, output = await end(wrote)
    assert status == 0 and "Pattern verification failed" not in output, output
    await run("qemu-img", "compare", "-f", "raw", "-F", "raw", url("disk0"), IMAGE)
    with open(IMAGE, "rb") as image:
        image.seek(65536)
        assert image.read(65536) == b"\xa5" * 32768 + b"\0" * 8192 + b"\xa5" * 24576
    counted = await stats(client, "disk0")
    assert counted["wr_operations"] >= 2 and counted["wr_bytes"] >= 65536 + 4096, counted
    assert counted["flush_operations"] >= 1 and counted["unmap_bytes"] == 4096, counted
    assert counted["rd_bytes"] >= 65536 + MEBIBYTE and counted["failed_rd_operations"] == 0, counted


async def check_what_is_said(client):
    disk = await block(client, "disk0")
    assert disk["file"] == IMAGE and not disk["ro"] and disk["drv"] == "raw", disk
    assert disk["image"]["virtual-size"] == MEBIBYTE, disk
    no_device = "Cannot find device='no' nor node-name=''"
    await expect_error(client, no_device, "block_resize", {"device": "no", "size": 1})
    negative = "Parameter 'size' expects a >0 size"
    await expect_error(client, negative, "block_resize", {"device": "disk0", "size": -1})
    too_large = "Could not resize file: File too large (os error 27)"
    await expect_error(client, too_large, "block_resize", {"device": "disk0", "size": 2 * WRITE_LIMIT})


async def check_resizing_under_io(client):
    io = await bench()
    for size in [2 * MEBIBYTE, 3 * MEBIBYTE, 3 * MEBIBYTE // 2]:
        await more_writes(client)
        await client.execute("block_resize", {"node-name": "disk0", "size": size})
        assert (await block(client, "disk0"))["image"]["virtual-size"] == size
        info = json.loads(await run("qemu-img", "info", "-f", "raw", "--output=json", url("disk0")))
        assert info["virtual-size"] == size == os.path.getsize(IMAGE), info
    await more_writes(client)
    io.terminate()
    status, output = await end(io)
    assert status == -signal.SIGTERM, output
    counted = await stats(client, "disk0")
    assert counted["failed_wr_operations"] == 0 == counted["invalid_wr_operations"], counted
    status, output = await end(await qemu_io("disk0", "write -P 7 1M 512k", "read -P 7 1M 512k"))
    assert status == 0, output


async def more_writes(client):
    """Waits until more has been written to disk0."""
    before = (await stats(client, "disk0"))["wr_operations"]
    while (await stats(client, "disk0"))["wr_operations"] < before + 100:
        pass


async def check_errors(client):
    """Each device has its first error told at once, and its last when the second is over."""
    before = (await stats(client, "disk1"))["failed_rd_operations"]
    for image in (IMAGE, FULL_IMAGE):
        os.truncate(image, MEBIBYTE // 2)
    with client.listener("BLOCK_IO_ERROR") as listener:
        started = time.monotonic()
        reads, writes = ["read 768k 512"] * ERRORS, ["write %d 512" % WRITE_LIMIT] * ERRORS
        status, output = await end(await qemu_io("disk1", *reads, *writes))
        assert status == 1 and output.count("read failed: Input/output error") == ERRORS, output
        assert output.count("write failed: No space left on device") == ERRORS, output
        status, output = await end(await qemu_io("disk0", *reads))
        assert status == 1 and output.count("read failed: Input/output error") == ERRORS, output
        told = {"disk0": [], "disk1": []}
        while len(told["disk0"]) < 2 or told["disk1"][-1]["operation"] != "write":
            event = await listener.get()
            told[event["data"]["device"]].append(event["data"])
        elapsed = time.monotonic() - started
    for events in told.values():
        assert 2 <= len(events) <= elapsed + 1, (events, elapsed)
        first = {"operation": "read", "nospace": False, "reason": "the file is shorter than the device"}
        assert first.items() <= events[0].items(), events
        assert all(event["action"] == "report" for event in events), events
    last = {"node-name": "disk1", "nospace": True, "reason": "File too large (os error 27)"}
    assert last.items() <= told["disk1"][-1].items(), told
    counted = await stats(client, "disk1")
    assert counted["failed_rd_operations"] - before == ERRORS == counted["failed_wr_operations"], counted


async def check_that_it_can_be_mended(client):
    await client.execute("block_resize", {"device": "disk0", "size": MEBIBYTE})
    status, output = await end(await qemu_io("disk0", "read -P 0 768k 512", "write -P 0x5a 768k 64k"))
    assert status == 0, output


async def check_quitting_under_io(client):
    io = await bench()
    await more_writes(client)
    listener = EventListener()
    client.register_listener(listener)
    await client.execute("quit")
    status, output = await end(io)
    assert status != 0, output
    try:
        if client.runstate == Runstate.RUNNING:
            await client.runstate_changed()
        await client.disconnect()
    except EOFError:
        # The client's way to say that the server has closed the connection.
        pass
    else:
        raise AssertionError("the server has not closed the connection")
    told = [(event["event"], event["data"]) for event in listener.clear() if event["event"] != "BLOCK_IO_ERROR"]
    deleted = [("BLOCK_EXPORT_DELETED", {"id": device}) for device in ("disk0", "disk1")]
    assert told == [("SHUTDOWN", {"guest": False, "reason": "host-qmp-quit"}), *deleted], told


async def check():
    client = QMPClient("block-back-end")
    await client.connect(QMP)
    await check_what_is_written(client)
    await check_what_is_said(client)
    await check_resizing_under_io(client)
    await check_errors(client)
    await check_that_it_can_be_mended(client)
    await check_quitting_under_io(client)


asyncio.run(asyncio.wait_for(check(), LIMIT))
print("all checks passed")
