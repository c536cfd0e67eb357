// SPDX-License-Identifier: MIT OR Apache-2.0
//! A block back end: it serves files as network block devices, and is controlled with the commands that
//! QEMU has for that.
//!
//! `nbd --qmp unix:qmp.sock --socket nbd.sock disk0=disk.img`, then for example `qemu-img info
//! 'nbd+unix:///disk0?socket=nbd.sock'` and `qmp-server call unix:qmp.sock query-block`.
//!
//! Whoever embeds QMP in a program of this kind finds what they look for in
//!
//! - `control.rs`: the commands, and what they do to the exports,
//! - `events.rs`: what clients are told unasked, and how often,
//! - `main_loop.rs`: how commands are executed by a main loop that is there already, and how it ends.
//!
//! The rest is what there would be without QMP: `export.rs` makes a block device of a file, `handshake.rs`
//! and `transmission.rs` speak NBD, and `clients.rs` has a thread for each client.

mod back_end;
mod block_types;
mod clients;
mod control;
mod events;
mod export;
mod handshake;
mod main_loop;
mod socket;
mod stats;
mod transmission;
mod wire;

use std::error::Error;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;

use clap::Parser;
use qmp_dispatch::{Dispatcher, Registry};
use qmp_server::{Listen, Server, system_time, version};
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};

use crate::back_end::BackEnd;
use crate::clients::Clients;
use crate::export::Export;
use crate::main_loop::MainLoop;
use crate::socket::Socket;

/// Serves files as network block devices, controlled by QMP.
#[derive(Parser)]
struct Options {
    /// Where QMP clients connect, such as unix:qmp.sock
    #[arg(long, value_name = "ADDR")]
    qmp: Listen,
    /// Where NBD clients connect
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Has clients not write
    #[arg(long)]
    read_only: bool,
    /// Names of devices, and the files that they are
    #[arg(required = true, value_name = "NAME=FILE")]
    exports: Vec<NamedFile>,
}

#[derive(Clone)]
struct NamedFile {
    name: String,
    file: PathBuf,
}

impl FromStr for NamedFile {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<NamedFile, &'static str> {
        match text.split_once('=') {
            Some((name, file)) if !name.is_empty() && !file.is_empty() => {
                Ok(NamedFile { name: name.to_owned(), file: file.into() })
            }
            _ => Err("a name, '=' and a file are expected"),
        }
    }
}

fn open_exports(options: &Options) -> Result<Vec<Export>, String> {
    let mut exports: Vec<Export> = Vec::new();
    for NamedFile { name, file } in &options.exports {
        if exports.iter().any(|export| export.name() == name) {
            return Err(format!("there are two devices '{name}'"));
        }
        let export = Export::open(name, file, options.read_only)
            .map_err(|error| format!("cannot open {}: {error}", file.display()))?;
        exports.push(export);
    }
    Ok(exports)
}

fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    let back_end = Arc::new(BackEnd::new(open_exports(options)?));
    let mut registry = Registry::new();
    control::register(&mut registry, &back_end)?;
    events::register(&mut registry)?;
    let dispatcher = Dispatcher::new(registry, version(), system_time);

    let (signals, sender) = UnixStream::pair()?;
    for signal in [SIGTERM, SIGINT] {
        signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
    }
    // Beyond a limit on the size of files, a write is to fail as on a full disk, not to end the program.
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;

    let socket = Socket::bind(&options.socket)
        .map_err(|error| format!("cannot listen at {}: {error}", options.socket.display()))?;
    let clients = Clients::new(Arc::clone(&back_end), dispatcher.clone());
    let qmp = Server::new(dispatcher).listen(&options.qmp)?.embed()?;
    MainLoop { qmp, socket, signals, clients, back_end }.run()
}

fn main() -> ExitCode {
    match serve(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nbd: {error}");
            ExitCode::FAILURE
        }
    }
}
