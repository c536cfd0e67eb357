// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who has done what, written down.

mod output;
mod queue;
mod record;
mod secrets;
mod writer;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use qmp_dispatch::proto::{Error, Json, RequestError};
use qmp_dispatch::{Call, Interceptor, Monitor, Registry};
use rustix::fs::{Access, access};

use self::output::{Output, begin, end};
use self::record::Record;
use self::secrets::Secrets;
use crate::{PatternError, Server};

/// How long the end may take.
const FINISH_DEADLINE: Duration = Duration::from_secs(1);

/// A file with a line of JSON for each client that comes, goes or is not let in, each command that has
/// been answered, and each input that was no request. `docs/roles.md` describes the lines.
///
/// Secrets in arguments are replaced by `***`: members whose names look like it, such as `password`,
/// more that are [hidden](Audit::hide), and those that QEMU's commands are known to have.
///
/// One thread writes all audits of the process. Nobody waits for it: what it cannot write in time, because the disk is
/// full or nobody reads the pipe, is left out beyond 8 MiB, and counted in a line when it can go on.
///
/// ```
/// use qmp_dispatch::{Dispatcher, Registry};
/// use qmp_server::{Audit, Server, system_time, version};
///
/// let folder = tempfile::tempdir()?;
/// let mut audit = Audit::open(folder.path().join("audit.jsonl"))?;
/// audit.hide("*-pin").unwrap();
///
/// let mut registry = Registry::new();
/// audit.register(&mut registry);
/// // Commands are registered.
/// let server = Server::new(Dispatcher::new(registry, version(), system_time)).audit(&audit);
/// // Clients are served, until the server has ended.
/// audit.finish();
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Audit {
    file: Arc<AuditFile>,
    secrets: Secrets,
    machine: Option<Arc<str>>,
}

/// Dropped with the last audit that writes there.
struct AuditFile {
    output: Arc<Output>,
}

impl Audit {
    /// Appends to this file from now on. One that does not exist is made, and only its owner can read
    /// and write it. A pipe that nobody reads yet is opened when somebody does.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened, or the system refuses a thread.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Audit> {
        let output = Output::open(path.as_ref())?;
        begin()?;
        let file = Arc::new(AuditFile { output });
        Ok(Audit { file, secrets: Secrets::default(), machine: None })
    }

    /// An audit in the same file, in which the lines name this machine, if it has a name. Secrets that are hidden from now on are hidden in
    /// one of the two.
    ///
    /// ```
    /// use qmp_dispatch::{LocalClient, Registry};
    /// use qmp_server::Audit;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("audit.jsonl");
    /// let audit = Audit::open(&path)?;
    /// for machine in ["vm0", "vm1"] {
    ///     let mut registry = Registry::new();
    ///     audit.of_machine(Some(machine)).register(&mut registry);
    ///     drop(LocalClient::new(registry));
    /// }
    /// audit.finish();
    /// assert!(std::fs::read_to_string(path)?.contains(r#""machine": "vm1""#));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn of_machine(&self, machine: Option<&str>) -> Audit {
        let (file, secrets) = (Arc::clone(&self.file), self.secrets.clone());
        Audit { file, secrets, machine: machine.map(Arc::from) }
    }

    /// Looks for mistakes that can be found without opening the file.
    ///
    /// ```
    /// use qmp_server::Audit;
    ///
    /// let folder = tempfile::tempdir()?;
    /// assert!(Audit::verify(folder.path().join("audit.jsonl")).is_ok());
    /// assert!(Audit::verify(folder.path()).is_err());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If there is no such directory, or no right to write.
    pub fn verify(path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        if path.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let file = if path.exists() { path } else { path.parent().unwrap_or(path) };
        let file = if file.as_os_str().is_empty() { Path::new(".") } else { file };
        Ok(access(file, Access::WRITE_OK)?)
    }

    /// Hides the values of members whose names match, too: of arguments, at any depth. In patterns, `*` stands
    /// for any text and `?` for any character; `_` is like `-`, and an upper case letter like a lower case one.
    ///
    /// # Errors
    ///
    /// [`PatternError`] if no name could match.
    pub fn hide(&mut self, pattern: &str) -> Result<(), PatternError> {
        self.secrets.hide(pattern)
    }

    /// Writes down what the clients of a registry's servers do; [`Server::audit`]
    /// adds who does not become one. To be called before other interceptors
    /// are added: only what is inside of this one, [`Roles`](crate::Roles) for instance, has its
    /// outcome written down as clients see it.
    pub fn register(&self, registry: &mut Registry) {
        let secrets = self.secrets.clone();
        let (output, machine) = (Arc::clone(&self.file.output), self.machine.clone());
        registry.intercept(Recorder { output, secrets, machine });
    }

    /// Opens the file anew, which somebody has moved away. If that fails, the old one goes on.
    pub fn reopen(&self) {
        self.file.output.reopen();
    }

    /// Waits until everything that has happened has been written, for at most a second.
    pub fn flush(&self) {
        self.file.output.flush(FINISH_DEADLINE);
    }

    /// Waits until everything has been written, for at most a second. Nothing is written from then on.
    pub fn finish(&self) {
        self.file.output.finish(FINISH_DEADLINE);
    }
}

impl Drop for AuditFile {
    fn drop(&mut self) {
        self.output.finish(FINISH_DEADLINE);
        end();
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").finish_non_exhaustive()
    }
}

/// What is written down of a request that had an error, whoever sent it.
#[cfg(feature = "fuzzing")]
pub(crate) fn line_of(request: &qmp_dispatch::proto::Request, error: Error) -> String {
    let mut record = Record::new("command");
    record.request(request, Some(&Err(error)), &Secrets::default());
    record.to_line()
}

impl Server {
    /// Has an audit tell of those who are not let in, too, and why. What clients do is told by
    /// [registering](Audit::register) it.
    pub fn audit(self, audit: &Audit) -> Server {
        let (output, machine) = (Arc::clone(&audit.file.output), audit.machine.clone());
        self.on_refusal(move |peer, why, reason| {
            let record = Record::connection_refused(peer, why, reason);
            output.push(record.at(machine.as_deref()).to_line());
        })
    }
}

struct Recorder {
    output: Arc<Output>,
    secrets: Secrets,
    machine: Option<Arc<str>>,
}

impl Recorder {
    fn write<'a>(&'a self, record: Record<'a>) {
        self.output.push(record.at(self.machine.as_deref()).to_line());
    }

    fn command(&self, call: &Call<'_>, outcome: Option<&Result<Json, Error>>, duration: Duration) {
        let mut record = Record::of("command", call.monitor);
        record.request(call.request, outcome, &self.secrets);
        record.duration(duration);
        self.write(record);
    }
}

impl Interceptor for Recorder {
    fn connected(&self, monitor: &Monitor) {
        self.write(Record::of("connected", monitor));
    }

    fn disconnected(&self, monitor: &Monitor) {
        self.write(Record::of("disconnected", monitor));
    }

    fn after(&self, call: &Call<'_>, outcome: &mut Result<Json, Error>, duration: Duration) {
        self.command(call, Some(outcome), duration);
    }

    fn abandoned(&self, call: &Call<'_>, duration: Duration) {
        self.command(call, None, duration);
    }

    fn refused(&self, monitor: &Arc<Monitor>, refused: &RequestError) {
        let mut record = Record::of("refused", monitor);
        record.refused(refused, &self.secrets);
        self.write(record);
    }
}
