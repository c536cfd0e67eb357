// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server from outside: what its sockets, its command line and its exit status promise.

/// What clients do is written down.
mod audit;
/// The benchmark runs, and says what it is to say.
mod bench;
/// The example of a block back end, while QEMU's tools read and write.
mod block_back_end;
/// `qmp-server call`, against our own server and QEMU's.
mod call;
/// What `qmp-server call` makes of servers that do not do as it expects, and of signals.
mod call_truth;
/// Clients of every bad sort, and what others notice of them.
mod chaos;
/// What the program says and returns when it cannot start.
mod command_line;
/// The configuration file.
mod configuration;
/// The recorded cases.
mod conformance;
/// Responses that go out together.
mod corking;
/// Descriptors that clients pass along.
mod descriptors;
/// Random input, and what QEMU makes of it.
mod difffuzz;
/// README.md and the guide show what happens.
mod documents;
/// The server as a library.
mod embedded;
/// Servers that share an engine.
mod engine;
/// What a polite client waits for beside greedy ones.
mod fairness;
/// Completions and manual pages.
mod generated;
/// The guide to embedding.
mod guide;
/// Sockets that somebody else has opened, systemd or a parent process.
mod inherited;
/// `query-qmp-schema`, held against QEMU's and read as clients read it.
mod introspection;
mod isolation;
/// Coming and going: clients, signals, sockets.
mod lifecycle;
/// How much clients may take of the server, and what happens when they want more.
mod limits;
mod lingering;
/// Many clients at once, each with its own ids.
mod many_clients;
/// Figures for Prometheus.
mod metrics;
/// What the program says of mistakes, in flags and in the configuration file.
mod mistakes;
/// The mux: what reaches the server behind it, and what comes back.
mod mux;
/// Clients of all kinds at one mux with a real QEMU behind it.
mod mux_clients;
/// Descriptors on their way through a mux.
mod mux_descriptors;
/// What becomes of everybody when the server behind a mux fails, or a client does.
mod mux_faults;
/// What clients of a mux leave behind.
mod mux_leaving;
/// Servers behind a mux that do what a mux has to bear with.
mod mux_upstreams;
/// Which processes may connect.
mod peers;
/// The server in a poll loop of somebody else's.
mod poll_loop;
/// The client from crates.io.
mod qapi_client;
/// Handlers that take and return the types of that client.
mod qapi_types;
/// Addresses and options as QEMU has them, and those that contradict each other.
mod qemu_addresses;
/// QEMU's own Python client and its shell.
mod qemu_qmp;
/// The events that QEMU limits.
mod rate_limits;
/// Sockets and `socat`, with input that no library would write.
mod raw_clients;
/// Who may do what.
mod roles;
/// The files and names of sockets, and vsock.
mod sockets;
/// `qmp-server status`, and the commands behind it.
mod status;
/// TLS: who is let in, and that it carries everything.
mod tls;
/// What happens inside, by QEMU's names, and the log.
mod trace_points;
