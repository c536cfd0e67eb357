// SPDX-License-Identifier: MIT OR Apache-2.0
//! Installs what tasks need besides Rust. If everything is present, nothing is installed and the network is not used.

use std::fs;
use std::path::{Path, PathBuf};
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
    install_python_environment()
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
    let requirements = root().join("tests/interop/requirements.txt");
    let environment = target_dir().join("interop-venv");
    // The copy of the requirements is written last: without it, an environment is incomplete and is made again.
    let done = environment.join("requirements.txt");
    let wanted = files::read(&requirements)?;
    if fs::read_to_string(&done).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    println!(
        "installing {} into {}",
        wanted.split_whitespace().collect::<Vec<_>>().join(" "),
        environment.display()
    );
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
    let mut pip = Command::new(python_of(&environment));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    run(pip.arg(&requirements).stdin(Stdio::null()))?;
    files::write(&done, &wanted)
}

fn python_of(environment: &Path) -> PathBuf {
    environment.join("bin/python")
}
