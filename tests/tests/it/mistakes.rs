// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages about mistakes in flags and in the configuration file.

use std::fs;

use tempfile::TempDir;
use tests::server::refusal;

/// Mistakes, each with a text that the message must contain.
const IN_FLAGS: [(&[&str], &str); 46] = [
    (&["no-such-subcommand"], "no-such-subcommand"),
    (&["--no-such-option"], "--no-such-option"),
    (&["serve", "--no-such-option"], "--no-such-option"),
    (&["serve", "too", "much"], "'too'"),
    (&["serve", "--listen"], "--listen"),
    (&["serve", "--listen", ""], "expected unix:PATH"),
    (&["serve", "--listen", "nowhere"], "expected unix:PATH"),
    (&["serve", "--listen", "unix:"], "the path is missing"),
    (&["serve", "--listen", "tcp:127.0.0.1:http"], "'http' is not a port"),
    (&["serve", "--listen", "tcp:0.0.0.0:0"], "not a loopback address"),
    (&["serve", "--listen", "vsock:host:1"], "'host' is not a context"),
    (&["serve", "--listen", "fd:none"], "'none' is not a descriptor"),
    (&["serve", "--listen", "unix:x,colour=blue"], "'colour=blue' is unknown"),
    (&["serve", "--listen", "unix:x,mode=rw"], "'rw' is not a mode"),
    (&["serve", "--listen", "unix:x,wait=on"], "use wait=off"),
    (&["serve", "--listen", "unix:x,owner=no such user"], "there is no user"),
    (&["serve", "--listen", "tls:127.0.0.1:0"], "TLS needs cert=FILE"),
    (&["serve", "--listen", "tls:127.0.0.1:0,cert=no-cert,key=no-key"], "no-cert: No such file"),
    (&["serve", "--listen", "unix:x,mode=9"], "'9' is not a mode"),
    (&["serve", "--listen", "tcp:127.0.0.1:0,mode=0600"], "are for the file of a Unix socket"),
    (&["serve", "--listen", "tls:h:0,cert=a,key=b,allow-name=c"], "allow-name needs client-ca"),
    (&["serve", "--listen", "stdio", "--listen", "stdio"], "stdio"),
    (&["serve", "--allow-user", "no such user"], "there is no user 'no such user'"),
    (&["serve", "--allow-group", "no such group"], "there is no group 'no such group'"),
    (&["serve", "--insecure=perhaps"], "'perhaps'"),
    (&["serve", "--log", "xml"], "'xml'"),
    (&["serve", "--log-filter", "loud"], "'loud' is no level"),
    (&["serve", "--log-filter", "qmp_server=loud"], "'loud' is no level"),
    (&["serve", "--trace", "no_such_point"], "there is no trace point 'no_such_point'"),
    (&["serve", "--uuid", "not-a-uuid"], "expected a UUID"),
    (&["serve", "--name", "one", "--name", "two"], "--name"),
    (&["serve", "--config", "no-such-file.toml"], "no-such-file.toml: No such file"),
    (&["serve", "--config", "."], ".: Is a directory"),
    (&["serve", "--deadline", "soon"], "expected a number of seconds"),
    (&["serve", "--deadline", "=1"], "the name of the command is missing"),
    (&["mux", "--listen", "unix:x"], "mux needs --upstream"),
    (&["mux", "--upstream", "unix:x"], "mux needs --listen"),
    (&["completions"], "<SHELL>"),
    (&["completions", "no-such-shell"], "'no-such-shell'"),
    (&["man", "no-such-subcommand"], "there is no subcommand 'no-such-subcommand'"),
    (&["call"], "<ADDR>"),
    (&["call", "unix:x"], "<COMMAND>"),
    (&["call", "nowhere", "query-name"], "expected unix:PATH"),
    (&["call", "unix:x", "query-name", "--timeout", "soon"], "expected a number of seconds"),
    (&["call", "unix:x", "query-name", "no-value"], "expected NAME=VALUE or NAME:=JSON"),
    (&["call", "unix:x", "query-name", "name:={"], "incomplete value"),
];

#[test]
fn mistakes_in_flags_get_one_line() {
    for (arguments, expected) in IN_FLAGS {
        let line = refusal(arguments);
        assert!(line.starts_with("qmp-server: "), "{line}");
        assert!(line.contains(expected), "{arguments:?}: {line}");
    }
}

/// Mistakes, each with the message after the name of the file.
const IN_FILES: [(&str, &str); 29] = [
    ("nonsense", ":1: key with no value, expected `=`"),
    ("\n\nname = 'outside of [serve]'", ":3: name: unknown field `name`, expected one of"),
    ("insecure = true\n\ninsecure = true", ":3: insecure: duplicate key"),
    ("insecure = 'yes'", ":1: insecure: invalid type: string \"yes\", expected a boolean"),
    ("insecure = tru", ":1: "),
    ("listen = 'unix:x'", ":1: listen: invalid type: string"),
    ("listen = [\n  'unix:x',\n  'unix:',\n]", ":3: listen[1]: 'unix:': the path is missing"),
    ("listen = [1]", ":1: listen[0]: invalid type: integer `1`"),
    ("listen = ['tcp:0.0.0.0:0']", ":1: listen: cannot listen at tcp:0.0.0.0:0: "),
    ("[[listen]]\npretty = true", ":1: listen[0]: the address is missing"),
    ("[[listen]]\naddress = 'unix:'", ":2: listen[0].address: 'unix:': the path is missing"),
    ("[[listen]]\naddress = 'unix:x'\npretty = 1", ":3: listen[0].pretty: invalid type"),
    ("[[listen]]\naddress = 'unix:x'\npretty = 'very'", ":3: listen[0].pretty: pretty is on or"),
    ("[[listen]]\naddress = 'unix:x'\ncolour = 'red'", ":3: listen[0].colour: option 'colour=red'"),
    ("[[listen]]\naddress = 'unix:x'\nmode = 'rw'", ":3: listen[0].mode: 'rw' is not a mode"),
    ("\n[[listen]]\naddress = 'unix:x'\nowner = 'no such user'", ":2: listen: cannot listen at"),
    (
        "\n[[listen]]\naddress = 'tls:localhost:0'",
        ":2: listen[0]: TLS needs cert=FILE and key=FILE",
    ),
    (
        "listen = ['tls:localhost:0,cert=a,key=b']",
        ":1: listen: cannot listen at tls:localhost:0: a",
    ),
    ("allow-user = [\n'0',\n'no such user']", ":3: allow-user[1]: there is no user"),
    ("allow-group = ['no such group']", ":1: allow-group[0]: there is no group"),
    ("log = 'xml'", ":1: log: unknown variant `xml`, expected `text` or `json`"),
    ("log-filter = 'loud'", ":1: log-filter: 'loud' is no level"),
    ("trace = ['x*']", ":1: trace[0]: there is no trace point 'x*'"),
    ("serve = true", ":1: serve: invalid type: boolean `true`, expected a table"),
    ("[serve]\nuuid = 'x'", ":2: serve.uuid: expected a UUID"),
    ("[serve]\npaused = 1", ":2: serve.paused: invalid type"),
    ("deadline = ['5', 'query-status=soon']", ":1: deadline[1]: expected a number of seconds"),
    ("[mux]\nupstream = 'nowhere'", ":2: mux.upstream: 'nowhere': expected unix:PATH"),
    ("[serve]\nlisten = []", ":2: serve.listen: unknown field `listen`, expected one of"),
];

#[test]
fn mistakes_in_files_get_one_line_that_names_the_place() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("qmp-server.toml");
    let file = path.display().to_string();
    for (text, expected) in IN_FILES {
        fs::write(&path, text).unwrap();
        let line = refusal(&["serve", "--config", &file, "--check-config"]);
        let rest = line.strip_prefix(&format!("qmp-server: {file}"));
        assert!(rest.is_some_and(|rest| rest.starts_with(expected)), "{text}: {line}");
        // The message is the same when the server is started.
        assert_eq!(refusal(&["--config", &file]), line);
    }
}

#[test]
fn a_file_that_is_not_text_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("qmp-server.toml");
    fs::write(&path, [0xff, 0xfe]).unwrap();
    refusal(&["--config", &path.display().to_string()]);
}
