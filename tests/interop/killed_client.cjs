#!/usr/bin/env node
// SPDX-License-Identifier: MIT OR Apache-2.0
// Prints what a client of Node programs sees when its server is killed, again and again.
//
// Usage: killed_client.cjs PACKAGE SOCKET ROUNDS COMMANDS. PACKAGE is the folder of node-qemu or qemu-qmp. The rest is as
// in killed_client.py.
"use strict";

const assert = require("node:assert");
const { once } = require("node:events");
const path = require("node:path");
const readline = require("node:readline");

const [folder, socket, rounds, commands] = process.argv.slice(2);
const found = require(folder);

const LIMIT = 50_000;

/** There is no such node: a success is waited for until the limit. */
const never = () => new Promise(() => {});

const clients = {
  /** One object for all rounds. */
  "node-qemu": () => {
    const client = new found.QMPClient({ socketPath: socket });
    return {
      connect: () => client.connect(),
      execute: (node) => client.execute("blockdev-del", { "node-name": node }),
      ended: () => once(client, "disconnected"),
      close: () => client.close(),
    };
  },
  /** It has one object for each connection, and forgets what is unanswered at the end. */
  "qemu-qmp": () => {
    let client;
    return {
      connect: () =>
        new Promise((connected, failed) => {
          client = new found();
          client.connect(socket, (error) => (error ? failed(error) : connected()));
        }).then(() => client.on("error", () => {})),
      execute: (node) =>
        new Promise((returned, failed) => {
          const answered = (error, value) => (error ? failed(error) : returned(value));
          client.execute("blockdev-del", { "node-name": node }, answered);
        }),
      ended: () => once(client, "close"),
      close: () => client.destroy(),
    };
  },
};

const END = Symbol("the end");

/** Executes commands until the connection ends. */
async function ask(client) {
  const ended = client.ended().then(() => END, () => END);
  for (let number = 0; ; number++) {
    if (number === Number(commands)) {
      console.log("ready");
    }
    const node = `no-${number}`;
    const failed = await Promise.race([client.execute(node).then(never, (error) => error), ended]);
    if (failed === END || failed.code === "CONNECTION_CLOSED") {
      await ended;
      return;
    }
    const said = failed.description ?? failed.message;
    assert.strictEqual(said, `Failed to find node with node-name='${node}'`);
  }
}

async function main() {
  const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  const client = clients[path.basename(folder)]();
  for (let round = 0; round < Number(rounds); round++) {
    await client.connect();
    await ask(client);
    console.log("the end");
    await lines.next();
    await client.connect().then(
      () => console.log("connected"),
      (error) => console.log(error.code),
    );
    console.log("done");
    await lines.next();
  }
  await client.close();
}

setTimeout(() => process.exit(2), LIMIT).unref();
main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
