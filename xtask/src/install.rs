// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the tests need besides Rust. Nothing is installed, and the network is left alone, if it is there already.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::command::{Failure, Outcome, exists, output_of, run};
use crate::files;
use crate::workspace::{root, target_dir};

/// Programs, and the Debian packages that they come from.
const PROGRAMS: [(&str, &str); 2] = [("qemu-storage-daemon", "qemu-utils"), ("socat", "socat")];
const PYTHON_PACKAGES: [&str; 2] = ["python3", "python3-venv"];

/// Installs what is missing, and says so.
pub(crate) fn install_test_tools() -> Outcome {
    let missing = missing_packages();
    if !missing.is_empty() {
        install_packages(&missing)?;
        let still_missing = missing_packages();
        if !still_missing.is_empty() {
            return Err(Failure::Task(format!(
                "installed, but of no use: {}",
                still_missing.join(" ")
            )));
        }
    }
    install_python_environment()
}

fn missing_packages() -> Vec<&'static str> {
    let absent =
        PROGRAMS.iter().filter(|(program, _)| !exists(program)).map(|&(_, package)| package);
    let python = if has_python() { &[][..] } else { &PYTHON_PACKAGES };
    absent.chain(python.iter().copied()).collect()
}

/// Whether there is a Python that can make virtual environments.
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

/// Makes a virtual environment in the target directory that holds exactly what `requirements.txt` names.
fn install_python_environment() -> Outcome {
    let requirements = root().join("tests/interop/requirements.txt");
    let environment = target_dir().join("interop-venv");
    // A copy of the requirements is written last, so that half an environment is no environment.
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
