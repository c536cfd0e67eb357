// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rust types from the schema that a QMP server tells: for build scripts.
//!
//! `query-qmp-schema` describes all commands and events of a server, of QEMU 10.0 and 11.1 for instance, with the types of their
//! arguments, results and data. [`Generator`] writes them in Rust, those of all commands or of some, for clients and for
//! servers.
//!
//! ```
//! use qmp_codegen::Generator;
//!
//! // As the server returns it; from a file, usually.
//! let schema = r#"[
//!     {"name": "query-status", "meta-type": "command", "arg-type": "1", "ret-type": "2"},
//!     {"name": "1", "meta-type": "object", "members": []},
//!     {"name": "2", "meta-type": "object", "members": [
//!         {"name": "running", "type": "bool"}, {"name": "status", "type": "3"}]},
//!     {"name": "3", "meta-type": "enum", "members": [{"name": "running"}, {"name": "paused"}]},
//!     {"name": "bool", "meta-type": "builtin", "json-type": "boolean"}
//! ]"#;
//! let code = Generator::new().command("query-status").generate(schema)?;
//! assert!(code.contains("pub struct QueryStatusResult {\n    pub running: bool,\n"));
//! assert!(code.contains("pub status: QueryStatusResultStatus"));
//! # Ok::<(), qmp_codegen::Error>(())
//! ```
//!
//! # In a build script
//!
//! ```no_run
//! // build.rs; `qmp-codegen` is a build dependency, `qmp-proto` a dependency.
//! fn main() -> Result<(), qmp_codegen::Error> {
//!     qmp_codegen::Generator::new()
//!         .commands(["query-block", "blockdev-add"])
//!         .event("BLOCK_IO_ERROR")
//!         .build("schema.json", "qmp.rs")
//! }
//! ```
//!
//! ```ignore
//! // Where the types are to be:
//! #[allow(dead_code, missing_docs)]
//! mod qmp {
//!     include!(concat!(env!("OUT_DIR"), "/qmp.rs"));
//! }
//! ```
//!
//! `qmp-server call SOCKET query-qmp-schema > schema.json` asks a running server for its schema. Keep that file with the
//! program; what is generated from it need not be.
//!
//! # What is generated
//!
//! | QAPI | Rust |
//! |---|---|
//! | struct | struct; optional members are `Option`s, `new` takes the others |
//! | union | enum of its variants; a struct, if there are other members than the tag, with that enum flattened into it |
//! | enum | enum |
//! | alternate | enum |
//! | array | `Vec` |
//! | `str`, `bool`, `number`, `any` | `String`, `bool`, `f64`, `qmp_proto::Value` |
//! | `int` | `i128`, or the type that the QAPI schema has: see below |
//! | command | in the module `commands`, a type that is a `qmp_proto::CommandType` |
//! | event | in the module `events`, a constant `qmp_proto::EventType` |
//!
//! Clients meet servers that are newer. So members that a type does not know are ignored, and enums are open: what they do not
//! know is kept in their last variant, `Unknown` (or `Unrecognized`, where QEMU has an `unknown`), as text or as the
//! members of an object. This variant is no part of the schema, and a server of such types refuses what is in it.
//!
//! `device_add` takes more members than its schema lists, the properties of the device; they are in the field `more_`. So it is for
//! any command whose QAPI schema has `'gen': false`.
//!
//! An optional member that may be null keeps null and absent apart: `None` is absent. A type that contains itself has a
//! `Box` on the way. Unions and alternates are deserialized without copies of what is within them, however deep that is.
//!
//! # Names
//!
//! QEMU masks the names of types. A name comes from where the type is used first: `BlockdevAddArguments`,
//! `QueryBlockResult`, `QueryBlockResultInserted`. It stays the same as long as the schema and the selected commands do. With
//! the QAPI schema of QEMU's source ([`Generator::qapi`]), types and branches have the names that they have there, and integers
//! their width and sign. Introspection decides what exists: the QAPI schema may be of another version.

mod ident;
mod names;
mod qapi;
mod schema;
mod write;

use std::path::{Path, PathBuf};

use qapi::Known;
use qmp_proto::SyntaxError;
use schema::Schema;
use write::Writer;

/// Why no code was generated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A schema is not JSON.
    #[error("the schema is not JSON: {0}")]
    Syntax(#[from] SyntaxError),
    /// A schema is not what `query-qmp-schema` returns.
    #[error("not a schema of query-qmp-schema: {0}")]
    Schema(String),
    /// A command or event was asked for that the schema does not have.
    #[error("the schema has no command or event '{0}'")]
    NotFound(String),
    /// A file could not be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        error: std::io::Error,
    },
    /// Not called by Cargo for a build script.
    #[error("OUT_DIR is not set: not in a build script")]
    NotInBuildScript,
}

/// Generates the types of commands and events; by default, of all that a schema has, for clients.
#[derive(Clone, Debug, Default)]
pub struct Generator {
    selected: Vec<String>,
    qapi: Vec<String>,
    server: Option<String>,
}

impl Generator {
    /// Creates a generator of all types.
    pub fn new() -> Generator {
        Generator::default()
    }

    /// Selects a command. If commands or events are selected, types are generated for these alone.
    pub fn command(&mut self, name: impl Into<String>) -> &mut Generator {
        self.selected.push(name.into());
        self
    }

    /// Selects commands, as [`command`](Generator::command).
    pub fn commands<N: Into<String>>(
        &mut self,
        names: impl IntoIterator<Item = N>,
    ) -> &mut Generator {
        self.selected.extend(names.into_iter().map(Into::into));
        self
    }

    /// Selects an event, as [`command`](Generator::command).
    pub fn event(&mut self, name: impl Into<String>) -> &mut Generator {
        self.command(name)
    }

    /// Selects events, as [`command`](Generator::command).
    pub fn events<N: Into<String>>(
        &mut self,
        names: impl IntoIterator<Item = N>,
    ) -> &mut Generator {
        self.commands(names)
    }

    /// Takes names of types and widths of integers from the text of a QAPI schema, such as a file in QEMU's directory `qapi`.
    /// Can be called for several.
    pub fn qapi(&mut self, text: impl Into<String>) -> &mut Generator {
        self.qapi.push(text.into());
        self
    }

    /// Takes names of types and widths of integers from all `.json` files of a directory, as [`qapi`](Generator::qapi).
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn qapi_directory(&mut self, path: impl AsRef<Path>) -> Result<&mut Generator, Error> {
        let path = path.as_ref();
        let mut files = Vec::new();
        for entry in std::fs::read_dir(path).map_err(failure(path))? {
            let file = entry.map_err(failure(path))?.path();
            if file.extension().is_some_and(|extension| extension == "json") {
                files.push(file);
            }
        }
        files.sort();
        for file in files {
            self.qapi(std::fs::read_to_string(&file).map_err(failure(&file))?);
        }
        Ok(self)
    }

    /// Makes the types describe themselves (`JsonSchema`), so that a server can register commands and events with them.
    /// `dispatch` is the path of the crate `qmp-dispatch`: `qmp_dispatch` or `qmp_server::dispatch`. By default, types are for
    /// clients and need `qmp_proto` alone.
    pub fn served_by(&mut self, dispatch: impl Into<String>) -> &mut Generator {
        self.server = Some(dispatch.into());
        self
    }

    /// Returns the code. `schema` is the result of `query-qmp-schema`, a response that contains it, or its entries one after the
    /// other.
    ///
    /// # Errors
    ///
    /// [`Error`] if a text is not a schema, or has not what was selected.
    pub fn generate(&self, schema: &str) -> Result<String, Error> {
        let schema = Schema::parse(schema)?;
        let known = Known::find(&schema, &self.qapi)?;
        let is_selected =
            |name: &str| self.selected.is_empty() || self.selected.iter().any(|own| own == name);
        let commands: Vec<usize> = (0..schema.commands.len())
            .filter(|&index| is_selected(&schema.commands[index].name))
            .collect();
        let events: Vec<usize> = (0..schema.events.len())
            .filter(|&index| is_selected(&schema.events[index].name))
            .collect();
        let exists = |name: &str| {
            schema.commands.iter().any(|command| command.name == name)
                || schema.events.iter().any(|event| event.name == name)
        };
        if let Some(name) = self.selected.iter().find(|name| !exists(name)) {
            return Err(Error::NotFound(name.clone()));
        }
        let names = names::name(&schema, &known, &commands, &events);
        let proto = self
            .server
            .as_ref()
            .map_or("qmp_proto".to_owned(), |server| format!("{server}::proto"));
        let mut writer = Writer {
            schema: &schema,
            known: &known,
            names: &names,
            proto: &proto,
            dispatch: self.server.as_deref(),
            out: "// Generated by qmp-codegen.\n\n".to_owned(),
        };
        writer.types();
        writer.entities(&commands, &events);
        Ok(writer.out)
    }

    /// Generates the code from a file into a file in Cargo's `OUT_DIR`, and tells Cargo when to do so again.
    ///
    /// # Errors
    ///
    /// Those of [`generate`](Generator::generate), and if a file cannot be read or written.
    pub fn build(&self, schema: impl AsRef<Path>, out: impl AsRef<Path>) -> Result<(), Error> {
        let schema = schema.as_ref();
        println!("cargo::rerun-if-changed={}", schema.display());
        let text = std::fs::read_to_string(schema).map_err(failure(schema))?;
        let directory = std::env::var_os("OUT_DIR").ok_or(Error::NotInBuildScript)?;
        let out = Path::new(&directory).join(out);
        std::fs::write(&out, self.generate(&text)?).map_err(failure(&out))
    }
}

fn failure(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    |error| Error::File { path: path.to_owned(), error }
}

/// Its example is compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
