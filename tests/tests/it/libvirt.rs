// SPDX-License-Identifier: MIT OR Apache-2.0
//! libvirt, whose machines' monitors are shared by the recipe of docs/mux.md: it notices nothing, and others have the machine
//! as well.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tests::endpoint::Endpoint;
use tests::json::Json;
use tests::process::{Process, run};
use tests::programs::{Oracle, find_optional};
use tests::server::{Client, LIMIT, program, qmp_server};
use tests::waiting::wait_for;

/// The machine of all tests here.
const MACHINE: &str = "vm1";

/// A libvirt daemon with namespaces of its own, so that it is a host by itself. They end with it, and all its machines.
struct Host {
    process: Process,
    dir: PathBuf,
    name: &'static str,
}

impl Host {
    fn start(dir: &Path, name: &'static str) -> Host {
        let dir = dir.join(name);
        let configuration = dir.join("etc");
        fs::create_dir_all(&configuration).unwrap();
        for folder in ["run", "lib", "log", "cache", "shared"] {
            fs::create_dir(dir.join(folder)).unwrap();
        }
        let qemu = "user = \"root\"\ngroup = \"root\"\nsecurity_driver = \"none\"\n\
                    cgroup_controllers = []\nnamespaces = []\nstdio_handler = \"file\"\n\
                    remember_owner = 0\n";
        fs::write(configuration.join("qemu.conf"), qemu).unwrap();
        let number = name.bytes().map(u64::from).sum::<u64>();
        let daemon = format!(
            "auth_unix_rw = \"none\"\nunix_sock_dir = \"/run/libvirt\"\n\
             host_uuid = \"8e4f7f1e-0000-4000-8000-{number:012}\"\n"
        );
        fs::write(configuration.join("libvirtd.conf"), daemon).unwrap();
        // The folder of the mux's sockets is another one at each host. The shell is the first process, and takes
        // leave of those that have nobody else: libvirt's probing of QEMU does not end when the daemon has to.
        let script = format!(
            "set -e; hostname {name}; cd {}; mount --bind shared ../shared; \
             mount -t tmpfs tmpfs /run; mkdir /run/libvirt; mount --bind run /run/libvirt; \
             mount --bind etc /etc/libvirt; mount --bind lib /var/lib/libvirt; \
             mount --bind log /var/log/libvirt; mount --bind cache /var/cache/libvirt; \
             libvirtd -f /etc/libvirt/libvirtd.conf -p /run/libvirt/libvirtd.pid & wait",
            dir.display()
        );
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "--net",
            "--uts",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]);
        command.args(["sh", "-c", &script]).stdin(Stdio::null()).stdout(Stdio::null());
        let host = Host { process: Process::start(&mut command).unwrap(), dir, name };
        wait_for(|| match host.dir.join("run/libvirt-sock").exists() {
            true => Ok(()),
            false => Err(format!("no socket of libvirt: {}", host.process.stderr())),
        });
        host
    }

    fn uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.dir.join("run/libvirt-sock").display())
    }

    /// Has libvirt do something, which must succeed.
    #[track_caller]
    fn virsh(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("virsh");
        command.args(["--quiet", "--connect", &self.uri()]).args(arguments);
        let finished = run(&mut command, "", LIMIT * 3).unwrap();
        assert!(finished.status.success(), "{}: {arguments:?}: {finished:#?}", self.name);
        finished.stdout.trim().to_owned()
    }

    fn state(&self) -> String {
        self.virsh(&["domstate", MACHINE])
    }

    /// Has the mux of the machine execute the program anew, and waits until it has.
    #[track_caller]
    fn upgrade(&self) {
        let shared = self.dir.parent().unwrap().join("shared");
        let mux = process(&["--behind=mux:", &shared.display().to_string()]);
        let log = self.dir.join("log/qemu").join(format!("{MACHINE}.log"));
        let handed_over = || {
            let log = fs::read_to_string(&log).unwrap();
            (log.matches("another program has handed over").count(), log)
        };
        let (before, _) = handed_over();
        kill_process(mux, Signal::USR2).unwrap();
        wait_for(|| match handed_over() {
            (now, _) if now > before => Ok(()),
            (_, log) => Err(log),
        });
    }

    /// A client of the mux, beside libvirt.
    fn client(&self) -> Client {
        let socket = self.dir.join("shared").join(format!("{MACHINE}.sock"));
        let mut client = Client::connect(&Endpoint::Unix(socket));
        client.negotiate("{}");
        client
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.process.child().kill());
    }
}

/// What a test needs: a folder with the emulator of the recipe, a disk, and the description of a machine.
struct Files {
    dir: TempDir,
    images: PathBuf,
}

impl Files {
    /// `None` if the test is to be skipped.
    fn new() -> Option<Files> {
        for name in ["libvirtd", "virsh", "unshare"] {
            find_optional(name)?;
        }
        let succeeds = |program: &str, arguments: &[&str]| {
            run(Command::new(program).args(arguments), "", LIMIT)
                .is_ok_and(|ran| ran.status.success())
        };
        let namespaces = ["--mount", "--net", "--uts", "--pid", "--fork", "--mount-proc", "true"];
        if !succeeds("unshare", &namespaces) || !succeeds("getent", &["passwd", "libvirt-qemu"]) {
            eprintln!("skipped: libvirt needs root, namespaces and the user libvirt-qemu");
            return None;
        }
        let qemu = Oracle::V10_0.program("qemu-system-x86_64")?;
        let images = Oracle::V10_0.program("qemu-img")?;
        let dir = tempfile::Builder::new().prefix("qmp-libvirt-").tempdir().unwrap();
        let files = Files { dir, images };
        fs::create_dir(files.path("shared")).unwrap();
        let emulator = files.path("qemu-shared");
        let script = format!(
            "#!/bin/sh\nexec {} mux --log-filter info \\\n    --listen \"unix:{}/{{name}}.sock,mode=0660,role=observer\" \\\n    \
             --exec -- {} \"$@\"\n",
            program().display(),
            files.path("shared").display(),
            qemu.display()
        );
        fs::write(&emulator, script).unwrap();
        fs::set_permissions(&emulator, fs::Permissions::from_mode(0o755)).unwrap();
        for disk in ["first.qcow2", "second.qcow2"] {
            let mut create = Command::new(&files.images);
            create.args(["create", "-q", "-f", "qcow2"]).arg(files.path(disk)).arg("16M");
            assert!(run(&mut create, "", LIMIT).unwrap().status.success());
        }
        let machine = format!(
            "<domain type='qemu'><name>{MACHINE}</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
             <os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features>
             <devices>
               <emulator>{}</emulator>
               <disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
                 <source file='{}'/><target dev='vda' bus='virtio'/></disk>
               <controller type='usb' model='none'/><memballoon model='none'/>
             </devices></domain>",
            emulator.display(),
            files.path("first.qcow2").display()
        );
        fs::write(files.path("machine.xml"), machine).unwrap();
        let interface = "<interface type='ethernet'><mac address='52:54:00:11:22:33'/>
                         <model type='virtio'/></interface>";
        fs::write(files.path("interface.xml"), interface).unwrap();
        Some(files)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}

/// The number of the process among whose arguments these texts are, when there is only one.
#[track_caller]
fn process(texts: &[&str]) -> Pid {
    wait_for(|| {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let found = processes.filter(|process| {
            let arguments = fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
            texts.iter().all(|text| arguments.contains(text))
        });
        let found: Vec<_> = found.map(|process| process.file_name()).collect();
        match &found[..] {
            [number] => Ok(Pid::from_raw(number.to_str().unwrap().parse().unwrap()).unwrap()),
            others => Err(format!("processes of {texts:?}: {others:?}")),
        }
    })
}

#[test]
fn libvirt_does_what_it_does_with_qemu_alone() {
    let Some(files) = Files::new() else { return };
    let host = Host::start(files.dir.path(), "host-a");
    host.virsh(&["create", &files.text("machine.xml")]);
    let mut other = host.client();
    // Others see what libvirt does, and libvirt what they do.
    host.virsh(&["suspend", MACHINE]);
    other.expect_event("STOP");
    assert_eq!(host.state(), "paused");
    host.virsh(&["resume", MACHINE]);
    other.expect_event("RESUME");
    assert_eq!(host.state(), "running");
    other.send(r#"{"execute": "quit"}"#);
    let refused = other.receive().to_string();
    assert!(refused.contains("CommandNotFound"), "{refused}");
    host.upgrade();

    for snapshot in [
        ["snapshot-create-as", MACHINE, "s"],
        ["snapshot-revert", MACHINE, "s"],
        ["snapshot-delete", MACHINE, "s"],
    ] {
        host.virsh(&snapshot);
    }
    let overlay = format!("vda,file={}", files.text("overlay.qcow2"));
    host.virsh(&["snapshot-create-as", MACHINE, "external", "--disk-only", "--diskspec", &overlay]);
    host.virsh(&["blockcommit", MACHINE, "vda", "--active", "--pivot", "--wait"]);
    host.upgrade();
    let copy = files.text("copy.qcow2");
    host.virsh(&[
        "blockcopy",
        MACHINE,
        "vda",
        "--dest",
        &copy,
        "--wait",
        "--pivot",
        "--transient-job",
    ]);
    let second = files.text("second.qcow2");
    host.virsh(&[
        "attach-disk",
        MACHINE,
        &second,
        "vdb",
        "--driver",
        "qemu",
        "--subdriver",
        "qcow2",
    ]);
    host.upgrade();
    assert!(host.virsh(&["domblklist", MACHINE]).contains("vdb"));
    host.virsh(&["detach-disk", MACHINE, "vdb"]);
    // Its device is passed as a descriptor.
    if Path::new("/dev/net/tun").exists() {
        host.virsh(&["attach-device", MACHINE, &files.text("interface.xml")]);
        assert!(host.virsh(&["domiflist", MACHINE]).contains("52:54:00:11:22:33"));
        host.upgrade();
        host.virsh(&["detach-device", MACHINE, &files.text("interface.xml")]);
    }
    let saved = files.text("saved");
    host.virsh(&["save", MACHINE, &saved]);
    host.virsh(&["restore", &saved]);
    assert_eq!(host.state(), "running");
    host.upgrade();
    host.virsh(&["destroy", MACHINE]);
}

#[test]
fn libvirt_sees_that_qemu_was_killed() {
    let Some(files) = Files::new() else { return };
    let host = Host::start(files.dir.path(), "host-a");
    host.virsh(&["create", &files.text("machine.xml")]);
    let mut other = host.client();
    host.upgrade();
    let qemu = process(&[&files.text("first.qcow2"), "charmonitor,fd="]);
    kill_process(qemu, Signal::KILL).unwrap();
    other.expect_end();
    wait_for(|| match host.virsh(&["list", "--all", "--name"]) {
        none if none.is_empty() => Ok(()),
        some => Err(format!("there is still {some}")),
    });
    // Its place is free.
    host.virsh(&["create", &files.text("machine.xml")]);
    let status = host.client().execute("query-status").to_string();
    assert!(status.contains("running"), "{status}");
}

#[test]
fn a_machine_moves_from_one_host_to_another_and_back() {
    let Some(files) = Files::new() else { return };
    let hosts = ["host-a", "host-b"].map(|name| Host::start(files.dir.path(), name));
    hosts[0].virsh(&["create", &files.text("machine.xml")]);
    let socket = format!("unix://{}", files.text("migration.sock"));
    for [from, to] in [[0, 1], [1, 0]] {
        let [from, to] = [&hosts[from], &hosts[to]];
        let mut before = from.client();
        let destination = to.uri();
        // Without storage that both are known to share.
        let options = ["--live", "--unsafe", "--migrateuri", &socket, "--desturi", &destination];
        let arguments: Vec<_> = ["migrate", MACHINE].iter().chain(&options).copied().collect();
        from.virsh(&arguments);
        while before.receive().get("event").and_then(Json::as_str) != Some("STOP") {}
        assert_eq!(to.state(), "running");
        assert_eq!(from.virsh(&["list", "--all", "--name"]), "");
        let status = to.client().execute("query-status").to_string();
        assert!(status.contains("running"), "{status}");
        to.upgrade();
    }
}

/// libvirt reports what the mux has said when a machine cannot be started.
#[test]
fn libvirt_says_why_a_mux_does_not_start() {
    let Some(files) = Files::new() else { return };
    let host = Host::start(files.dir.path(), "host-a");
    let taken = host.dir.join("shared").join(format!("{MACHINE}.sock"));
    let listen = format!("unix:{}", taken.display());
    let mut other = Process::start(&mut qmp_server(["--listen", &listen])).unwrap();
    other.expect_ready(&Endpoint::Unix(taken));
    let mut command = Command::new("virsh");
    command.args(["--quiet", "--connect", &host.uri(), "create", &files.text("machine.xml")]);
    let finished = run(&mut command, "", LIMIT * 3).unwrap();
    assert!(!finished.status.success());
    assert!(finished.stderr.contains("another server listens there"), "{}", finished.stderr);
}
