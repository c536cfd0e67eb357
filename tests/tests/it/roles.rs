// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each role allows.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use qmp_dispatch::proto::{Reader, ServerMessage};
use qmp_dispatch::{
    Context, Dispatcher, Forwarded, Interceptor, LocalClient, Monitor, Registry, Responder,
};
use qmp_server::{Role, Roles, system_time, version};
use tempfile::TempDir;
use tests::certificates::{Authority, Identity};
use tests::channel::TlsClient;
use tests::endpoint::Endpoint;
use tests::json::Json;
use tests::process::{Process, run};
use tests::programs::find;
use tests::schema::Schema;
use tests::server::{Client, LIMIT, Server, copy_for_all, program, refusal};

/// Starts a server with a listener for each of these roles.
fn server_with_doors(roles: &[&str], more: &[&str]) -> Server {
    let doors = roles.iter().map(|role| format!("unix:{role}.sock,role={role}"));
    let doors: Vec<_> = doors.flat_map(|door| ["--listen".to_owned(), door]).collect();
    let arguments = doors.iter().map(String::as_str).chain(["--listen", "unix:{sock}"]);
    Server::start_with(arguments.chain(more.iter().copied()))
}

/// Connects a client with this role.
fn client_as(server: &Server, role: &str) -> Client {
    let mut client = Client::connect(&Endpoint::Unix(server.dir().join(format!("{role}.sock"))));
    client.negotiate(r#"{"enable": ["oob"]}"#);
    client
}

/// A command that causes an event.
#[track_caller]
fn execute_with_event(client: &mut Client, command: &str, event: &str) {
    client.send(&format!(r#"{{"execute": "{command}"}}"#));
    client.expect_event(event);
    client.expect(r#"{"return": {}}"#);
}

fn disabled(command: &str) -> String {
    let desc = format!("The command {command} has been disabled for this instance");
    format!(r#"{{"error": {{"class": "CommandNotFound", "desc": "{desc}"}}}}"#)
}

#[track_caller]
fn check_refused(client: &mut Client, commands: &[&str]) {
    for command in commands {
        for verb in ["execute", "exec-oob"] {
            client.send(&format!(r#"{{"{verb}": "{command}", "arguments": {{"no": "such"}}}}"#));
            client.expect(&disabled(command));
        }
    }
}

fn names(commands: &Json) -> Vec<String> {
    let name = |entry: &Json| entry.get("name").and_then(Json::as_str).unwrap().to_owned();
    commands.as_array().unwrap().iter().map(name).collect()
}

#[test]
fn each_door_has_its_role() {
    let server = server_with_doors(&["observer", "operator", "admin"], &["--paused"]);
    let mut observer = client_as(&server, "observer");
    let mut operator = client_as(&server, "operator");
    let mut admin = client_as(&server, "admin");
    let mut default = server.negotiated();

    check_refused(&mut observer, &["cont", "quit", "getfd", "human-monitor-command"]);
    check_refused(&mut operator, &["quit", "getfd", "add-fd", "human-monitor-command", "yank"]);
    execute_with_event(&mut operator, "cont", "RESUME");
    // The operator received the event before the answer.
    let all = [&mut observer, &mut admin, &mut default];
    for client in all {
        client.expect_event("RESUME");
        assert_eq!(client.execute("query-status").get("running").unwrap().to_string(), "true");
    }

    let everything = names(&default.execute("query-commands"));
    assert_eq!(names(&admin.execute("query-commands")), everything);
    for (client, role) in [(&mut observer, Role::observer()), (&mut operator, Role::operator())] {
        let mut expected = everything.clone();
        expected.retain(|name| role.allows_command(name));
        assert!((5..everything.len()).contains(&expected.len()), "{expected:?}");
        assert_eq!(names(&client.execute("query-commands")), expected);
    }
    observer.send(r#"{"execute": "no-such-command"}"#);
    let not_found = "The command no-such-command has not been found";
    observer
        .expect(&format!(r#"{{"error": {{"class": "CommandNotFound", "desc": "{not_found}"}}}}"#));
}

#[test]
fn before_negotiation_there_are_no_roles() {
    let server = server_with_doors(&["observer"], &[]);
    let mut client = Client::connect(&Endpoint::Unix(server.dir().join("observer.sock")));
    client.receive();
    client.send(r#"{"execute": "quit"}"#);
    let desc = "Expecting capabilities negotiation with 'qmp_capabilities'";
    client.expect(&format!(r#"{{"error": {{"class": "CommandNotFound", "desc": "{desc}"}}}}"#));
    client.send(r#"{"execute": "qmp_capabilities"}"#);
    client.expect(r#"{"return": {}}"#);
    client.send(r#"{"execute": "quit"}"#);
    client.expect(&disabled("quit"));
}

const OWN_ROLES: &str = r#"
default-role = "observer"
role = ["user:4242=admin", "name:bob=scaler"]

[[listen]]
address = "unix:qmp.sock"

[[listen]]
address = "unix:starter.sock"
role = "starter"

[[listen]]
address = "unix:scaler.sock"
role = "scaler"

[roles.scaler]
allow = ["query-*", "stop"]
deny = ["query-u*"]
allow-events = ["*"]
deny-events = ["STOP"]

[roles.starter]
base = "operator"
allow = ["quit"]
deny = ["stop"]
"#;

fn directory_with(text: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("qmp-server.toml"), text).unwrap();
    dir
}

#[test]
fn the_file_may_have_roles_of_its_own() {
    let dir = directory_with(OWN_ROLES);
    let mut server = Server::start_in(dir, ["--config", "qmp-server.toml"]);
    let mut scaler = client_as(&server, "scaler");
    let mut starter = client_as(&server, "starter");
    check_refused(&mut scaler, &["query-uuid", "cont", "quit"]);
    check_refused(&mut starter, &["stop", "getfd"]);
    let mut observer = server.negotiated();
    observer.send(r#"{"execute": "stop"}"#);
    observer.expect(&disabled("stop"));

    scaler.execute("stop");
    starter.expect_event("STOP");
    observer.expect_event("STOP");
    execute_with_event(&mut starter, "cont", "RESUME");
    // But no STOP before it.
    scaler.expect_event("RESUME");
    assert!(!names(&scaler.execute("query-commands")).contains(&"query-uuid".to_owned()));
    let schema = Schema::new(&scaler.execute("query-qmp-schema"));
    assert!(schema.entities().contains(&"RESUME") && !schema.entities().contains(&"STOP"));

    execute_with_event(&mut starter, "quit", "SHUTDOWN");
    assert!(server.wait().success());
}

#[test]
fn users_have_roles() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root can be somebody else");
    }
    let nobody = 65_534;
    let named = ["--role", "user:65534=observer", "--allow-user", "65534", "--allow-user", "0"];
    let grouped = ["--role", "group:65534=observer", "--allow-group", "65534", "--allow-user", "0"];
    for options in [named, grouped] {
        let listen = ["--listen", "unix:{sock},mode=0666"];
        let server = Server::start_with(listen.into_iter().chain(options));
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(server.dir(), mode).unwrap();
        let copy = copy_for_all(server.dir());
        let call = |command: &str| {
            let mut program = Command::new(&copy);
            program.uid(nobody).gid(nobody).current_dir("/");
            program.args(["call", &server.endpoint().to_string(), command]);
            run(&mut program, "", LIMIT).unwrap()
        };
        assert!(call("query-status").status.success());
        let refused = call("stop");
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(refused.stderr.contains("disabled for this instance"), "{refused:?}");
        execute_with_event(&mut server.negotiated(), "stop", "STOP");
    }
}

#[test]
fn who_has_no_number_is_nobody_in_particular() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root can be somebody else");
    }
    let Some(unshare) = find("unshare", "apt-get install util-linux") else { return };
    // Only root has a number there; all others are the user who is called nobody.
    let isolated = |arguments: &[&str], dir: &Path| {
        let mut command = Command::new(&unshare);
        command.args(["-Ur", "--"]).arg(program()).args(arguments).current_dir(dir);
        command.stdin(Stdio::null());
        command
    };
    let dir = TempDir::new().unwrap();
    let probe = Command::new(&unshare).args(["-Ur", "true"]).status().unwrap();
    if !probe.success() {
        return eprintln!("skipped: there are no user namespaces");
    }
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(dir.path(), mode).unwrap();
    let copy = copy_for_all(dir.path());
    for option in ["--allow-user", "--allow-group"] {
        let path = dir.path().join(format!("{option}.sock"));
        let listen = format!("unix:{},mode=0666", text(&path));
        let arguments = ["serve", "--listen", &listen, option, "65534"];
        let mut server =
            Process::start(isolated(&arguments, dir.path()).stdout(Stdio::null())).unwrap();
        let endpoint = Endpoint::Unix(path);
        server.expect_ready(&endpoint);
        let mut stranger = Command::new(&copy);
        stranger.uid(54_321).gid(54_321).current_dir("/");
        stranger.args(["call", &endpoint.to_string(), "query-status"]);
        let finished = run(&mut stranger, "", LIMIT).unwrap();
        assert!(!finished.status.success(), "{finished:?}");
        server.expect_log("uid 65534, gid 65534 is refused");
        assert!(server.stderr().contains("means nobody"), "{}", server.stderr());
    }
}

#[test]
fn owners_of_certificates_have_roles() {
    let dir = TempDir::new().unwrap();
    let authority = Authority::new(dir.path(), "authority").unwrap();
    let Identity { cert, key } = authority.issue("server", &["localhost"]).unwrap();
    let [cert, key, ca] =
        [cert, key, authority.certificate()].map(|path| path.display().to_string());
    let server = Server::start_with([
        "--listen",
        &format!("tls:127.0.0.1:0,cert={cert},key={key},client-ca={ca}"),
        "--listen",
        "unix:{sock}",
        "--role",
        "cn:alice=operator",
        "--role",
        "uri:urn://x=y=admin",
        "--default-role=observer",
    ]);
    let port = server.ports()[0];
    let connect = |name: &str, names: &[&str]| {
        let identity = authority.issue(name, names).unwrap();
        let client = TlsClient { ca: authority.certificate(), identity: Some(identity) };
        let mut client = Client::connect(&Endpoint::Tls { port, client });
        client.negotiate(r#"{"enable": ["oob"]}"#);
        client
    };
    let mut alice = connect("alice", &[]);
    alice.execute("query-status");
    check_refused(&mut alice, &["quit"]);
    assert!(names(&alice.execute("query-commands")).contains(&"stop".to_owned()));
    let mut bob = connect("bob", &[]);
    check_refused(&mut bob, &["stop", "quit"]);
    // The others may not execute `stop`.
    execute_with_event(&mut connect("anybody", &["urn://x=y"]), "stop", "STOP");
    // The common name does not count beside another one.
    let mut mallory = connect("alice", &["mallory"]);
    check_refused(&mut mallory, &["stop", "quit"]);
}

#[test]
fn mistakes_in_roles_get_one_line_that_names_the_place() {
    let unknown = "there is no role 'janitor', only observer, operator, admin";
    for (options, expected) in [
        (["--default-role", "janitor"], unknown),
        (["--role", "user:0=janitor"], unknown),
        (["--listen", "unix:x,role=janitor"], unknown),
        (["--listen", "unix:x,role=admin,role=observer"], "there is a role already, 'admin'"),
        (["--metrics", "unix:x,role=admin"], "metrics take no role"),
        (
            ["--role", "admin"],
            "expected user:NAME=ROLE, group:NAME=ROLE, dns:NAME=ROLE, uri:URI=ROLE or cn:NAME=ROLE",
        ),
        (["--role", "root=admin"], "expected user:NAME, group:NAME, dns:NAME"),
        (["--role", "user:no such user=admin"], "there is no user 'no such user'"),
        (["--role", "name:=admin"], "the name is missing"),
    ] {
        for check in [&[][..], &["--check-config"]] {
            let line = refusal(&[&["serve"], &options[..], check].concat());
            assert!(line.contains(expected), "{options:?}: {line}");
        }
    }
    let twice = refusal(&["serve", "--role", "user:0=admin", "--role", "user:root=observer"]);
    assert!(twice.ends_with("'user:root' has a role already, 'admin'"), "{twice}");

    for (text, expected) in [
        ("\ndefault-role = 'janitor'", format!(":2: default-role: {unknown}")),
        ("role = [\n'user:0=admin',\n'name:x=janitor']", format!(":3: role: {unknown}")),
        (
            "role = [\n'user:0=admin',\n'user:root=observer']",
            ":3: role: 'user:root' has a role already, 'admin'".to_owned(),
        ),
        ("role = ['bob=admin']", ":1: role[0]: 'bob': expected user:NAME, group:".to_owned()),
        ("[[listen]]\naddress = 'unix:x'\nrole = 'janitor'", format!(":1: listen: {unknown}")),
        ("[roles.x]\nallow = ['a b']", ":2: roles.x.allow[0]: 'a b' is no pattern".to_owned()),
        ("[roles.x]\ndeny = 'a'", ":2: roles.x.deny: invalid type: string".to_owned()),
        ("[roles.x]\nbase = 'y'", ":2: roles.x.base: there is no role 'y', only".to_owned()),
        ("[roles.x]\nallows = ['a']", ":2: roles.x.allows: unknown field `allows`".to_owned()),
        ("\n[roles.x]\ndeny = ['quit']", ":2: roles.x: nothing is allowed".to_owned()),
        ("\n[roles.admin]\nallow = ['*']", ":2: roles.admin: there is a role 'admin'".to_owned()),
        ("\n[roles.'a b']\nallow = ['*']", ":2: roles.a b: 'a b' is no name".to_owned()),
        ("[roles.x]\nallow = ['a']\n[roles.x]\nallow = ['b']", ":3: x: duplicate key".to_owned()),
    ] {
        let dir = directory_with(text);
        let file = dir.path().join("qmp-server.toml").display().to_string();
        let line = refusal(&["serve", "--config", &file, "--check-config"]);
        let rest = line.strip_prefix(&format!("qmp-server: {file}"));
        assert!(rest.is_some_and(|rest| rest.starts_with(&expected)), "{text}: {line}");
        assert_eq!(refusal(&["--config", &file]), line);
    }
}

/// Returns what `query-qmp-schema` of another server shows to a client that may do only this.
fn schema_through_proxy(whole: &str, role: Role) -> String {
    let schema = json(whole);
    let forward = move |_: &Context, request: Forwarded, responder: Responder<_>| {
        assert_eq!(request.command, "query-qmp-schema");
        responder.respond_json(Ok(schema.clone()));
    };
    let mut registry = Registry::forwarding(forward);
    let mut roles = Roles::default();
    let name = role.name().to_owned();
    roles.add(role).unwrap();
    roles.set_default(&name).unwrap();
    roles.register(&mut registry);
    let client = LocalClient::new(registry);
    let said = client.ask("{'execute': 'query-qmp-schema'}");
    assert_eq!(client.ask("{'execute': 'query-qmp-schema'}"), said, "from memory");
    let text = said[0].strip_prefix(r#"{"return": "#).and_then(|text| text.strip_suffix('}'));
    text.unwrap_or_else(|| panic!("{said:?}")).to_owned()
}

/// JSON as a server may have sent it.
fn json(text: &str) -> qmp_dispatch::proto::Json {
    let mut reader = Reader::default();
    let text = format!(r#"{{"return": {text}}}"#);
    let message = reader.read(&mut text.as_bytes()).unwrap().unwrap();
    match ServerMessage::parse(&message).unwrap() {
        ServerMessage::Response(response) => response.result.unwrap(),
        other => panic!("{other:?}"),
    }
}

/// All commands and events of QEMU 10.0.
fn recorded() -> Json {
    let reply = include_str!("../../../qmp-proto/benches/samples/schema-reply.json");
    Json::parse(reply.trim_end()).unwrap().get("return").unwrap().clone()
}

fn lines(schema: &Json) -> Vec<String> {
    schema.as_array().unwrap().iter().map(Json::to_string).collect()
}

/// A part of a schema must have exactly these commands and events and the types that they refer to, all as in the whole.
#[track_caller]
fn check_part(whole: &Schema, part: &str, entities: &[&str], all: &[String]) {
    let value = Json::parse(part).unwrap();
    let part = Schema::new(&value);
    assert_eq!(part.entities(), entities);
    let excerpt = part.excerpt(entities);
    assert_eq!(excerpt, whole.excerpt(entities), "what they lead to is there");
    let entries = lines(&value);
    assert_eq!(entries.len(), excerpt.len(), "nothing else is there");
    let mut rest = all.iter();
    assert!(
        entries.iter().all(|entry| rest.any(|other| other == entry)),
        "in the same order and words"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(16) })]
    #[test]
    fn schemas_show_what_a_role_allows_and_nothing_else(
        often in 1..40u32,
        dice in prop::collection::vec(any::<u32>(), 300),
    ) {
        let schema = recorded();
        let whole = Schema::new(&schema);
        let mut role = Role::new("r").unwrap();
        role.allow("query-qmp-schema").unwrap();
        let mut entities = vec!["qmp_capabilities", "query-qmp-schema"];
        for (entity, dice) in whole.entities().into_iter().zip(dice) {
            if dice % often == 0 {
                entities.push(entity);
                match entity.chars().all(|character| !character.is_lowercase()) {
                    true => role.allow_events(entity).unwrap(),
                    false => role.allow(entity).unwrap(),
                }
            }
        }
        entities.sort_unstable();
        entities.dedup();
        let part = schema_through_proxy(&schema.to_string(), role);
        check_part(&whole, &part, &entities, &lines(&schema));
    }
}

/// Returns the response that a client with this role gets from a server that accepts everything.
fn asked_as(role: &str, requests: &str) -> Vec<String> {
    let forward = |_: &Context, _: Forwarded, responder: Responder<_>| {
        responder.respond_json(Ok(json("{}")));
    };
    let mut registry = Registry::forwarding(forward);
    let mut roles = Roles::default();
    let mut hot = Role::new("hot").unwrap();
    hot.allow("object-add").unwrap();
    hot.allow("human-monitor-command").unwrap();
    roles.add(hot).unwrap();
    roles.add(Role::based_on("like-admin", Role::admin()).unwrap()).unwrap();
    roles.set_default(role).unwrap();
    roles.register(&mut registry);
    LocalClient::new(registry).ask(requests)
}

#[test]
fn nobody_but_an_admin_adds_a_monitor() {
    let adding = [
        r#"{"execute": "object-add", "arguments": {"qom-type": "monitor-qmp", "id": "m", "chardev": "c"}}"#,
        r#"{'arguments': {'qom-type': '\u006donitor-hmp', 'id': 'm'}, 'execute': 'object-add'}"#,
        r#"{"execute": "human-monitor-command", "arguments": {"command-line": " object_add  id=m,qom-type=monitor-qmp"}}"#,
        r#"{"execute": "human-monitor-command", "arguments": {"command-line": "\tgdbserver tcp::1234"}}"#,
    ];
    let other = [
        r#"{"execute": "object-add", "arguments": {"qom-type": "iothread", "id": "monitor-qmp"}}"#,
        r#"{"execute": "human-monitor-command", "arguments": {"command-line": "info qom-tree"}}"#,
    ];
    let done = r#"{"return": {}}"#;
    for role in ["hot", "like-admin"] {
        let refused = format!(
            r#"{{"error": {{"class": "GenericError", "desc": "Clients of the role '{role}' may not add a monitor"}}}}"#
        );
        assert_eq!(asked_as(role, &adding.concat()), [&*refused; 4]);
        assert_eq!(asked_as(role, &other.concat()), [done; 2]);
    }
    assert_eq!(asked_as("admin", &adding.concat()), [done; 4]);
    assert_eq!(asked_as("observer", adding[0]), [disabled("object-add")]);
}

#[test]
fn filters_of_the_embedder_leave_roles_in_force() {
    struct Permissive;
    impl Interceptor for Permissive {
        fn connected(&self, monitor: &Monitor) {
            monitor.add_command_filter(|command| command != "query-version");
            monitor.add_event_filter(|_| true);
        }
    }
    let mut registry = Registry::new();
    registry.intercept(Permissive);
    let mut roles = Roles::default();
    let mut role = Role::based_on("r", Role::observer()).unwrap();
    role.deny("query-commands").unwrap();
    role.deny_events("X").unwrap();
    roles.add(role).unwrap();
    roles.set_default("r").unwrap();
    roles.register(&mut registry);
    let client = LocalClient::new(registry);
    for command in ["query-commands", "query-version"] {
        assert_eq!(client.ask(&format!("{{'execute': '{command}'}}")), [disabled(command)]);
    }
    assert!(!client.monitor().accepts_event("X") && client.monitor().accepts_event("Y"));
}

#[test]
fn admins_get_the_text_as_it_is() {
    let text = r#"[{"name":"x",  "meta-type":"command","ret-type":"0","arg-type":"0"}]"#;
    assert_eq!(schema_through_proxy(text, Role::based_on("r", Role::admin()).unwrap()), text);
}

/// What ends QEMU, opens, writes or executes something, passes descriptors, or leads to any of that.
const OUT_OF_REACH: &[&str] = &[
    "quit",
    "human-monitor-command",
    "getfd",
    "closefd",
    "add-fd",
    "remove-fd",
    "add_client",
    "blockdev-add",
    "blockdev-create",
    "blockdev-reopen",
    "blockdev-change-medium",
    "blockdev-snapshot-sync",
    "blockdev-del",
    "drive-backup",
    "drive-mirror",
    "block-commit",
    "block-stream",
    "change-backing-file",
    "block-export-add",
    "transaction",
    "memsave",
    "pmemsave",
    "dump-guest-memory",
    "dumpdtb",
    "screendump",
    "xen-save-devices-state",
    "xen-load-devices-state",
    "migrate",
    "migrate-incoming",
    "migrate-recover",
    "migrate-set-parameters",
    "chardev-add",
    "chardev-change",
    "netdev_add",
    "device_add",
    "object-add",
    "nbd-server-start",
    "nbd-server-add",
    "display-reload",
    "display-update",
    "qom-set",
    "qom-get",
    "set_password",
    "trace-event-set-state",
];

#[test]
fn operators_of_qemu_are_kept_from_the_host() {
    let schema = Schema::new(&recorded());
    let (observer, operator) = (Role::observer(), Role::operator());
    for command in OUT_OF_REACH {
        assert!(schema.commands().any(|known| known == *command), "{command} is no command");
        assert!(!operator.allows_command(command), "{command}");
    }
    for command in schema.commands() {
        let observed = observer.allows_command(command);
        assert!(!observed || operator.allows_command(command), "{command}");
        assert!(!command.starts_with("x-") || !operator.allows_command(command), "{command}");
    }
    let may = |role: &Role| schema.commands().filter(|name| role.allows_command(name)).count();
    assert!(may(&observer) > 70 && may(&operator) > may(&observer) + 50, "{}", may(&operator));
    assert_eq!(may(&Role::admin()), schema.commands().count());
}

/// `qemu-storage-daemon` behind a mux with a listener for each role.
struct Shared {
    mux: Server,
    _daemon: Process,
}

impl Shared {
    fn start() -> Option<Shared> {
        let daemon = find("qemu-storage-daemon", "apt-get install qemu-utils")?;
        let dir = TempDir::new().unwrap();
        let upstream = dir.path().join("upstream.sock");
        let mut daemon = Command::new(daemon);
        daemon.args([
            "--chardev",
            &format!("socket,path={},server=on,wait=off,id=c", text(&upstream)),
        ]);
        daemon.args(["--monitor", "chardev=c"]).stdin(Stdio::null()).stdout(Stdio::null());
        let daemon = Process::start(&mut daemon).unwrap();
        let upstream = format!("unix:{}", text(&upstream));
        let mux = ["mux", "--upstream", &upstream, "--listen", "unix:{sock}"];
        let doors = ["--listen", "unix:observer.sock,role=observer"]
            .into_iter()
            .chain(["--listen", "unix:operator.sock,role=operator"]);
        Some(Shared { mux: Server::start_in(dir, mux.into_iter().chain(doors)), _daemon: daemon })
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn roles_hold_in_front_of_a_real_server() {
    let Some(shared) = Shared::start() else { return };
    let mut admin = shared.mux.negotiated();
    let whole_json = admin.execute("query-qmp-schema");
    let all = lines(&whole_json);
    let whole = Schema::new(&whole_json);
    let commands = names(&admin.execute("query-commands"));
    for (name, role) in [("observer", Role::observer()), ("operator", Role::operator())] {
        let mut client = client_as(&shared.mux, name);
        check_refused(
            &mut client,
            &["quit", "blockdev-add", "object-add", "nbd-server-start", "transaction", "qom-get"],
        );
        client.execute("query-block-jobs");
        let mut expected = commands.clone();
        expected.retain(|command| role.allows_command(command));
        assert_eq!(names(&client.execute("query-commands")), expected);
        let part = client.execute("query-qmp-schema");
        let is_event = |entity: &&str| !whole.commands().any(|command| command == *entity);
        let mut entities = whole.entities();
        entities.retain(|entity| is_event(entity) || role.allows_command(entity));
        check_part(&whole, &part.to_string(), &entities, &all);
    }
    admin.send(
        r#"{"execute": "blockdev-add", "arguments": {"driver": "null-co", "node-name": "n"}}"#,
    );
    admin.expect(r#"{"return": {}}"#);
    let mut operator = client_as(&shared.mux, "operator");
    operator.send(r#"{"execute": "block_resize", "arguments": {"node-name": "n", "size": 512}}"#);
    let answer = operator.receive().to_string();
    assert!(answer.contains("GenericError"), "the server itself refuses to: {answer}");
}

#[test]
fn a_door_whose_role_does_not_exist_is_closed() {
    let register_some = |registry: &mut Registry| drop(Roles::default().register(registry));
    let register_none = |_: &mut Registry| ();
    for register in [&register_some as &dyn Fn(&mut Registry), &register_none] {
        let mut registry = Registry::new();
        register(&mut registry);
        let dispatcher = Dispatcher::new(registry, version(), system_time);
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("qmp.sock");
        let listen = format!("unix:{},role=janitor", text(&path)).parse().unwrap();
        let server = qmp_server::Server::new(dispatcher).listen(&listen).unwrap();
        let server = server.spawn().unwrap();
        let mut client = Client::connect(&Endpoint::Unix(path));
        client.receive();
        client.expect_end();
        server.control().shutdown();
        server.wait();
    }
}
