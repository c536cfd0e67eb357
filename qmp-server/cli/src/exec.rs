// SPDX-License-Identifier: MIT OR Apache-2.0
//! `--exec`: this process becomes QEMU, and leaves a mux behind that stands between QEMU and whoever was to have its
//! monitor.
//!
//! ```text
//!   this process ─┬─ waits until the mux listens ──────────────▶ executes QEMU, with one end of a pair of sockets
//!                 └─ helper: closes what is QEMU's, ends
//!                      └─ mux: the other end of the pair, and the descriptor that was passed for the monitor
//! ```
//!
//! QEMU keeps the number of this process, its signals and its exit status, and has no child that it does not know of. The
//! mux ends when QEMU does.

use std::borrow::Cow;
use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

use clap::Args;
use qmp_dispatch::proto::Value;
use qmp_server::{Address, Dial, Listen};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::setsid;

use crate::Failure;
use crate::options::{MachineName, ServerOptions};

/// This program, whatever has become of its file.
const SELF: &str = "/proc/self/exe";

/// Standard input of the mux is its end of the pair.
const UPSTREAM: i32 = 0;

/// Descriptors that every process has.
const STANDARD: i32 = 3;

/// What stands for the name of QEMU's machine in addresses and file names.
const NAME: &str = "{name}";

/// Options that run QEMU.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ExecOptions {
    /// Become this QEMU, and share the monitor that it is passed as a descriptor (-chardev socket,fd=N for -mon), in whose
    /// place the mux serves; without such a monitor QEMU runs alone. {name} in --listen and --audit is the name of its
    /// machine
    #[arg(long, requires = "command", conflicts_with_all = ["upstream", "deadline"])]
    exec: bool,
    /// QEMU and its arguments, for --exec
    #[arg(last = true, value_name = "QEMU", requires = "exec")]
    command: Vec<OsString>,
    /// How this program starts itself for --exec.
    #[arg(long, hide = true, value_name = "STAGE:FD[:NAME]")]
    behind: Option<Behind>,
}

/// The mux behind which QEMU is, or the helper that starts it.
#[derive(Clone, Debug)]
pub(crate) struct Behind {
    stage: Stage,
    /// The descriptor that was passed for the monitor.
    door: i32,
    /// That of the machine, if it has one.
    name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Helper,
    Mux,
}

impl FromStr for Behind {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Behind, &'static str> {
        let parse = || {
            let mut parts = text.splitn(3, ':');
            let stage = match parts.next()? {
                "helper" => Stage::Helper,
                "mux" => Stage::Mux,
                _ => return None,
            };
            let door = parts.next()?.parse().ok().filter(|door| *door >= STANDARD)?;
            Some(Behind { stage, door, name: parts.next().map(str::to_owned) })
        };
        parse().ok_or("is for the program itself")
    }
}

impl Behind {
    fn argument(&self, stage: Stage) -> String {
        let stage = match stage {
            Stage::Helper => "helper",
            Stage::Mux => "mux",
        };
        let name = self.name.as_ref().map(|name| format!(":{name}")).unwrap_or_default();
        format!("--behind={stage}:{}{name}", self.door)
    }
}

impl ExecOptions {
    /// Becomes QEMU, or the helper, and then does not return but for an error; returns what the mux has to do.
    pub(crate) fn run(self) -> Result<Option<Behind>, Failure> {
        match self.behind {
            Some(behind) if behind.stage == Stage::Mux => Ok(Some(behind)),
            Some(behind) => help(&behind),
            None if self.exec => match become_qemu(self.command)? {},
            None => Ok(None),
        }
    }

    /// What the mux would have to do, with any monitor and name.
    pub(crate) fn to_check(&self) -> Option<Behind> {
        let name = Some("name".to_owned());
        let any = self.exec.then_some(Behind { stage: Stage::Mux, door: STANDARD, name });
        self.behind.clone().or(any)
    }
}

impl Behind {
    /// Makes these options those of the mux: its first listener is the descriptor that was passed, where everything is
    /// allowed that QEMU allows.
    pub(crate) fn complete(&self, options: &mut ServerOptions) -> Result<(), Failure> {
        if let Some(upstream) = &options.mux.upstream {
            return Err(upstream.blame("upstream", "with --exec it is QEMU"));
        }
        if !options.deadline.is_empty() {
            return Err(Failure::usage("with --exec there are no deadlines"));
        }
        if let Some(machine) = options.machine.first() {
            return Err(machine.blame("machine", "with --exec there is one machine"));
        }
        options.mux.upstream = Some(Dial::from(Address::Fd(UPSTREAM)).into());
        let mut door = Listen::new(Address::Fd(self.door));
        door.role = Some("admin".to_owned());
        options.listen.insert(0, door.into());
        options.mux.quiet = true;
        options.mux.name =
            self.name.as_deref().map(str::parse).transpose().map_err(Failure::usage)?;
        fill_name(options, self.name.as_deref())
    }

    /// Says that clients are served, and leaves standard output to whoever has it besides.
    pub(crate) fn ready(&self) -> io::Result<()> {
        let null = fs::OpenOptions::new().write(true).open("/dev/null")?;
        io::stdout().write_all(b"\n")?;
        io::stdout().flush()?;
        Ok(rustix::stdio::dup2_stdout(&null)?)
    }
}

/// Replaces `{name}`.
fn fill_name(options: &mut ServerOptions, name: Option<&str>) -> Result<(), Failure> {
    let fill = |text: &str| -> Result<Option<String>, Failure> {
        if !text.contains(NAME) {
            return Ok(None);
        }
        let Some(name) = name else {
            return Err(Failure::usage(format_args!("{text}: the machine of QEMU has no name")));
        };
        if name.is_empty() || name.starts_with('.') || name.contains('/') {
            let error = format_args!("'{name}' cannot stand for {NAME} in {text}");
            return Err(Failure::usage(error));
        }
        Ok(Some(text.replace(NAME, name)))
    };
    let fill_path = |path: &mut PathBuf| -> Result<(), Failure> {
        let filled = path.to_str().map(fill).transpose()?.flatten();
        filled.into_iter().for_each(|filled| *path = filled.into());
        Ok(())
    };
    for listen in &mut options.listen {
        match &mut listen.value.address {
            Address::Unix(path) => fill_path(path)?,
            Address::UnixAbstract(name) => {
                fill(name)?.into_iter().for_each(|filled| *name = filled);
            }
            _ => {}
        }
    }
    options.audit.iter_mut().try_for_each(|audit| fill_path(&mut audit.value))
}

/// Starts a mux in front of the monitor that QEMU is passed, if it is passed one, and becomes QEMU.
fn become_qemu(command: Vec<OsString>) -> Result<Infallible, Failure> {
    let mut command = command.into_iter();
    let program = command.next().unwrap_or_default();
    let mut arguments: Vec<_> = command.collect();
    if let Some(monitor) = Monitor::find(&arguments) {
        let (ours, theirs) = UnixStream::pair().map_err(Failure::usage)?;
        let name = machine_name(&arguments);
        leave_mux(&Behind { stage: Stage::Helper, door: monitor.fd, name }, ours.into())?;
        // The mux has it now, and nobody else: so it is refused or ended when the mux is.
        nix::unistd::close(monitor.fd).map_err(Failure::usage)?;
        fcntl_setfd(&theirs, FdFlags::empty()).map_err(Failure::usage)?;
        arguments[monitor.argument] = monitor.with_descriptor(theirs.into_raw_fd());
    }
    let error = Command::new(&program).args(arguments).exec();
    Err(Failure::usage(format_args!("{}: {error}", Path::new(&program).display())))
}

/// Starts the helper, which starts the mux, and waits until that serves.
fn leave_mux(behind: &Behind, upstream: OwnedFd) -> Result<(), Failure> {
    let own = std::env::args_os().skip(1).take_while(|argument| argument != "--");
    let own = own.filter(|argument| argument != "--exec");
    let mut helper = Command::new(SELF);
    helper.arg0("qmp-server").args(own).arg(behind.argument(Stage::Helper));
    helper.stdin(upstream).stdout(Stdio::piped());
    let started = helper.spawn().and_then(|mut child| {
        // The command still holds an end of the pair.
        drop(helper);
        let mut ready = [0];
        let ready = child.stdout.take().map_or(Ok(0), |mut stdout| stdout.read(&mut ready));
        child.wait()?;
        ready
    });
    match started {
        Ok(1) => Ok(()),
        // It has said why.
        Ok(_) => Err(Failure::usage("the mux does not start, and QEMU is not run")),
        Err(error) => Err(Failure::usage(format_args!("{SELF}: {error}"))),
    }
}

/// Starts the mux, in a session of its own so that no signal of a terminal reaches it, and ends. What else was inherited is
/// QEMU's, and closed: somebody may wait until QEMU alone has closed it.
fn help(behind: &Behind) -> ! {
    let start = || -> io::Result<()> {
        close_all_but(behind.door)?;
        let _ = setsid();
        let own = std::env::args_os().skip(1);
        let own = own.filter(|argument| !is_behind(argument));
        Command::new(SELF).arg0("qmp-server").args(own).arg(behind.argument(Stage::Mux)).spawn()?;
        Ok(())
    };
    let code = match start() {
        Ok(()) => 0,
        Err(error) => {
            crate::complain(&Failure::usage(error));
            1
        }
    };
    std::process::exit(code)
}

fn is_behind(argument: &OsStr) -> bool {
    argument.as_encoded_bytes().starts_with(b"--behind=")
}

/// Closes all descriptors but the standard ones and this one. Nothing of this program has one yet.
fn close_all_but(kept: i32) -> io::Result<()> {
    let numbers: Vec<i32> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for number in numbers.into_iter().filter(|number| *number >= STANDARD && *number != kept) {
        // One of them was that of the directory.
        let _ = nix::unistd::close(number);
    }
    Ok(())
}

/// A monitor of QEMU's that is passed as a descriptor.
#[derive(Debug, PartialEq, Eq)]
struct Monitor {
    fd: i32,
    /// Which argument describes its character device.
    argument: usize,
    /// How that begins.
    prefix: &'static str,
    /// The options there that are not about the descriptor, as they are written.
    rest: Vec<String>,
}

impl Monitor {
    /// The first one of QEMU's arguments that speaks QMP. A descriptor that a process always has is none that was passed.
    fn find(arguments: &[OsString]) -> Option<Monitor> {
        let arguments: Vec<_> = arguments.iter().map(|argument| argument.to_str()).collect();
        let values = |option: &'static str| {
            let pairs = arguments.windows(2).enumerate();
            pairs.filter_map(move |(at, pair)| {
                let name = pair[0]?.strip_prefix('-')?;
                let name = name.strip_prefix('-').unwrap_or(name);
                (name == option).then_some((at + 1, pair[1]?))
            })
        };
        let qmp = || ["qmp", "qmp-pretty"].into_iter().flat_map(values);
        // So kata-containers passes it.
        let passed = qmp().filter_map(|(at, text)| {
            let options = split(text.strip_prefix("unix:")?);
            Some((at, Monitor::passed(at, "unix:", &options)?))
        });
        let of_qmp = qmp().filter_map(|(at, text)| Some((at, text.strip_prefix("chardev:")?)));
        let of_mon = values("mon").filter_map(|(at, text)| Some((at, of_monitor(text, false)?)));
        // That of the storage daemon. QEMU's option of this name is for people.
        let of_daemon = values("monitor").filter(|(_, text)| text.starts_with("chardev="));
        let of_daemon = of_daemon.filter_map(|(at, text)| Some((at, of_monitor(text, true)?)));
        let of_object = values("object").filter_map(|(at, text)| Some((at, of_object(text)?)));
        let ids = of_qmp.chain(of_mon).chain(of_daemon);
        let ids = ids.map(|(at, id)| (at, Cow::Borrowed(id))).chain(of_object);
        let monitors = ids.filter_map(|(at, id)| {
            let mut devices = values("chardev");
            Some((at, devices.find_map(|(argument, text)| Monitor::at(argument, text, &id))?))
        });
        let (_, first) = monitors.chain(passed).min_by_key(|(at, _)| *at)?;
        Some(first)
    }

    /// That of this character device, if it has this id.
    fn at(argument: usize, text: &str, id: &str) -> Option<Monitor> {
        let options = split(text);
        let (backend, options) = options.split_first()?;
        if *backend != "socket" || value(options, "id") != Some(id) {
            return None;
        }
        Monitor::passed(argument, "socket,", options)
    }

    /// The one with these options, if it is passed.
    fn passed(argument: usize, prefix: &'static str, options: &[&str]) -> Option<Monitor> {
        let fd = value(options, "fd")?.parse().ok().filter(|fd| *fd >= STANDARD)?;
        let about_fd = |option: &str| {
            let name = option.split('=').next().unwrap_or_default();
            matches!(name, "fd" | "server" | "noserver" | "wait" | "nowait")
        };
        let rest = options.iter().filter(|option| !about_fd(option));
        let rest = rest.map(|&option| option.to_owned()).collect();
        Some(Monitor { fd, argument, prefix, rest })
    }

    /// The same device, connected through this descriptor.
    fn with_descriptor(&self, fd: i32) -> OsString {
        let rest = self.rest.iter().map(|option| format!("{option},")).collect::<String>();
        format!("{}{rest}fd={fd}", self.prefix).into()
    }
}

/// The value of this one of some options.
fn value<'a>(options: &[&'a str], name: &str) -> Option<&'a str> {
    let mut all = options.iter().filter_map(|option| option.split_once('='));
    all.find_map(|(its_name, value)| (its_name == name).then_some(value))
}

/// The character device of a monitor that speaks QMP, as it does without a mode if `is_qmp`.
fn of_monitor(text: &str, mut is_qmp: bool) -> Option<&str> {
    let options = split(text);
    let mut device = options.first().copied().filter(|first| !first.contains('='));
    for (name, value) in options.iter().filter_map(|option| option.split_once('=')) {
        match name {
            "chardev" => device = Some(value),
            "mode" => is_qmp = value == "control",
            _ => {}
        }
    }
    device.filter(|_| is_qmp)
}

/// The character device of an object that is a monitor (since QEMU 11.1), in either form.
fn of_object(text: &str) -> Option<Cow<'_, str>> {
    const MONITOR: &str = "monitor-qmp";
    if text.starts_with('{') {
        let object: Value = text.parse().ok()?;
        let member = |name: &str| object.as_object()?.get(name)?.as_str();
        return (member("qom-type") == Some(MONITOR))
            .then(|| member("chardev").map(str::to_owned))?
            .map(Cow::Owned);
    }
    let options = split(text);
    let (kind, options) = options.split_first()?;
    let kind = kind.strip_prefix("qom-type=").unwrap_or(kind);
    let id = options.iter().find_map(|option| option.strip_prefix("chardev="));
    id.filter(|_| kind == MONITOR).map(Cow::Borrowed)
}

/// The name of QEMU's machine: `-name guest=NAME,…` or `-name NAME,…`, the last one.
fn machine_name(arguments: &[OsString]) -> Option<String> {
    let is_name = |argument: &OsString| argument == "-name" || argument == "--name";
    let at = arguments.iter().rposition(is_name)?;
    let options = split(arguments.get(at + 1)?.to_str()?);
    let guest = options.iter().find_map(|option| option.strip_prefix("guest="));
    let first = options.first().copied().filter(|first| !first.contains('='));
    let name: MachineName = guest.or(first)?.replace(",,", ",").parse().ok()?;
    Some(name.0)
}

/// QEMU's options, as they are written: a comma is one of a value if there are two of it.
fn split(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let (mut parts, mut start, mut at) = (Vec::new(), 0, 0);
    while let Some(&byte) = bytes.get(at) {
        if byte != b',' {
            at += 1;
        } else if bytes.get(at + 1) == Some(&b',') {
            at += 2;
        } else {
            parts.push(&text[start..at]);
            at += 1;
            start = at;
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[track_caller]
    fn check(arguments: &str, expected: Option<(i32, &str)>) {
        let arguments = words(arguments);
        let monitor = Monitor::find(&arguments);
        let found = monitor.as_ref().map(|monitor| (monitor.fd, monitor.with_descriptor(9)));
        assert_eq!(found, expected.map(|(fd, text)| (fd, text.into())), "{arguments:?}");
    }

    #[test]
    fn the_monitor_that_is_passed_is_found() {
        let libvirt = "-name guest=a -no-user-config \
                       -chardev socket,id=charmonitor,fd=24,server=on,wait=off \
                       -mon chardev=charmonitor,id=monitor,mode=control -rtc base=utc";
        check(libvirt, Some((24, "socket,id=charmonitor,fd=9")));
        check(
            "-chardev socket,fd=7,id=a,,b,logfile=x,,y,server,nowait --mon a,,b,mode=control",
            Some((7, "socket,id=a,,b,logfile=x,,y,fd=9")),
        );
        check("--monitor chardev=m --chardev socket,id=m,fd=3", Some((3, "socket,id=m,fd=9")));
        check("-qmp chardev:m --chardev socket,id=m,fd=3", Some((3, "socket,id=m,fd=9")));
        for object in [
            r#"{"qom-type":"monitor-qmp","id":"monitor","chardev":"m"}"#,
            "monitor-qmp,id=monitor,chardev=m",
            "qom-type=monitor-qmp,id=monitor,chardev=m",
        ] {
            let arguments = format!("-chardev socket,id=m,fd=3 -object {object}");
            check(&arguments, Some((3, "socket,id=m,fd=9")));
        }
        check("-name a -qmp unix:fd=3,server=on,wait=off -pidfile p", Some((3, "unix:fd=9")));
        check(
            "--qmp-pretty unix:path=x,server=on -qmp unix:fd=4,logfile=x -qmp unix:fd=5",
            Some((4, "unix:logfile=x,fd=9")),
        );
        // The first monitor is the one.
        check(
            "-chardev socket,id=a,fd=3 -chardev socket,id=b,fd=4 -mon b,mode=control -mon a,mode=control",
            Some((4, "socket,id=b,fd=9")),
        );
    }

    #[test]
    fn without_such_a_monitor_there_is_none() {
        for arguments in [
            "",
            "-version",
            "-qmp unix:/run/probe.monitor,server=on,wait=off -daemonize",
            "-chardev socket,id=m,path=x,server=on -mon chardev=m,mode=control",
            "-chardev socket,id=m,fd=3,server=on -mon chardev=m,mode=readline",
            "-chardev socket,id=m,fd=3,server=on -mon chardev=other,mode=control",
            "-chardev socket,id=m,fd=3,server=on -device virtserialport,chardev=m",
            "-chardev socket,id=m,fd=1 -mon m,mode=control",
            "-chardev stdio,id=m -mon m,mode=control",
            "-qmp unix:path=qmp.sock,server=on,wait=off -monitor unix:fd=3,server=on",
            "-chardev socket,id=m,fd=3 -monitor chardev:m",
            "-chardev socket,id=m,fd=3 -object monitor-hmp,id=monitor,chardev=m",
            "-chardev socket,id=m,fd=3 -object {",
            "-chardev",
        ] {
            check(arguments, None);
        }
    }

    #[test]
    fn a_machine_has_the_name_that_qemu_gives_it() {
        for (arguments, expected) in [
            ("-name vm1", Some("vm1")),
            ("-name guest=vm,,1,debug-threads=on", Some("vm,1")),
            ("-name debug-threads=on,guest=vm1", Some("vm1")),
            ("-name a -name b", Some("b")),
            ("-name debug-threads=on", None),
            ("-name", None),
            ("", None),
        ] {
            assert_eq!(machine_name(&words(arguments)).as_deref(), expected, "{arguments}");
        }
    }
}
