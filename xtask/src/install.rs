// SPDX-License-Identifier: MIT OR Apache-2.0
//! Installs what tasks need besides Rust. If everything is present, nothing is installed and the network is not used.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::command::{Failure, Outcome, exists, output_of, run};
use crate::files;
use crate::workspace::{root, target_dir};

/// A program and its Debian package.
pub(crate) type Program = (&'static str, &'static str);

const TEST_PROGRAMS: [Program; 3] =
    [("socat", "socat"), ("openssl", "openssl"), ("strace", "strace")];
const PYTHON_PACKAGES: [&str; 2] = ["python3", "python3-venv"];

/// Installs missing programs that the tests need, and prints their names.
pub(crate) fn install_test_tools() -> Outcome {
    install_missing(|| {
        let python = if has_python() { &[][..] } else { &PYTHON_PACKAGES };
        missing_packages(&TEST_PROGRAMS).chain(python.iter().copied()).collect()
    })?;
    install_python_environment()?;
    install_node_packages()
}

/// Installs those programs that are missing, and prints their names.
pub(crate) fn install_programs(programs: &[Program]) -> Outcome {
    install_missing(|| missing_packages(programs).collect())
}

fn install_missing(missing: impl Fn() -> Vec<&'static str>) -> Outcome {
    let packages = missing();
    if packages.is_empty() {
        return Ok(());
    }
    install_packages(&packages)?;
    match missing()[..] {
        [] => Ok(()),
        [..] => {
            Err(Failure::Task(format!("installed, but still not found: {}", missing().join(" "))))
        }
    }
}

fn missing_packages(programs: &[Program]) -> impl Iterator<Item = &'static str> {
    programs.iter().filter(|(program, _)| !exists(program)).map(|&(_, package)| package)
}

/// Whether Python can create virtual environments.
fn has_python() -> bool {
    let mut command = Command::new("python3");
    command.args(["-c", "import ensurepip, venv"]).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn install_packages(packages: &[&str]) -> Outcome {
    let advice = format!("install {}", packages.join(", "));
    if !exists("apt-get") {
        return Err(Failure::Task(format!("there is no apt-get here; {advice}")));
    }
    let prefix: &[&str] = match output_of(Command::new("id").arg("-u"))?.trim() {
        "0" => &[],
        _ if exists("sudo") => &["sudo", "--non-interactive"],
        _ => return Err(Failure::Task(format!("neither root nor sudo; {advice}"))),
    };
    println!("installing {}", packages.join(" "));
    let apt_get = |arguments: &[&str]| {
        let words =
            [prefix, &["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"], arguments]
                .concat();
        run(Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()))
            .map_err(|failure| Failure::Task(format!("{failure}; {advice}")))
    };
    apt_get(&["update"])?;
    apt_get(&[&["install", "--yes", "--no-install-recommends"], packages].concat())
}

/// Creates a virtual environment in the target directory with exactly the packages of `requirements.txt`.
fn install_python_environment() -> Outcome {
    install_listed("requirements.txt", "interop-venv", |list, _, environment| {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(environment))?;
        let mut pip = Command::new(environment.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        run(pip.arg("--requirement").arg(list).stdin(Stdio::null()))
    })
}

/// Installs the packages of `node-packages.txt` into the target directory. Without Node, what is tested with these packages
/// is left out.
fn install_node_packages() -> Outcome {
    if !(exists("node") && exists("npm")) {
        println!("skipped: packages for Node, as node or npm is absent");
        return Ok(());
    }
    install_listed("node-packages.txt", "interop-node", |_, packages, environment| {
        files::remove(environment)?;
        let mut npm = Command::new("npm");
        npm.args([
            "install",
            "--silent",
            "--no-save",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
        ]);
        npm.arg("--prefix").arg(environment).args(packages);
        run(npm.stdin(Stdio::null()))
    })
}

/// Installs the packages of a list in `tests/interop` into a directory of the target directory, unless that has been done.
/// `install` gets the file, its packages, and the directory.
fn install_listed(
    list: &str,
    directory: &str,
    install: impl FnOnce(&Path, &[&str], &Path) -> Outcome,
) -> Outcome {
    let file = root().join("tests/interop").join(list);
    let environment = target_dir().join(directory);
    // The copy of the list is written last: without it, an environment is incomplete and is made again.
    let done = environment.join(list);
    let wanted = files::read(&file)?;
    if fs::read_to_string(&done).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    let packages: Vec<_> = wanted.split_whitespace().collect();
    println!("installing {} into {}", packages.join(" "), environment.display());
    install(&file, &packages, &environment)?;
    files::write(&done, &wanted)
}
