// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client `qapi` from crates.io.

use std::io::{BufReader, ErrorKind};
use std::os::unix::net::UnixStream;

use qapi::qmp::{Event, RunState, cont, getfd, query_status, stop};
use qapi::{ErrorClass, ExecuteError, Qmp, Stream};
use tests::server::{LIMIT, Server};

type Client = Qmp<Stream<BufReader<UnixStream>, UnixStream>>;

fn connect(server: &Server) -> Client {
    let reader = UnixStream::connect(server.socket()).unwrap();
    reader.set_read_timeout(Some(LIMIT)).unwrap();
    let writer = reader.try_clone().unwrap();
    Qmp::new(Stream::new(BufReader::new(reader), writer))
}

fn events(client: &mut Client) -> Vec<&'static str> {
    let name = |event: Event| match event {
        Event::STOP { .. } => "STOP",
        Event::RESUME { .. } => "RESUME",
        _ => "another",
    };
    client.events().map(name).collect()
}

#[test]
fn commands_return_what_their_types_say() {
    let server = Server::start();
    let mut client = connect(&server);
    let greeting = client.handshake().unwrap();
    assert_eq!(greeting.capabilities.len(), 1);

    let status = client.execute(&query_status {}).unwrap();
    assert!(matches!(status.status, RunState::prelaunch) && !status.running);
    client.execute(&cont {}).unwrap();
    assert_eq!(events(&mut client), ["RESUME"]);
    assert!(client.execute(&query_status {}).unwrap().running);
    client.execute(&stop {}).unwrap();
    assert_eq!(events(&mut client), ["STOP"]);
    let status = client.execute(&query_status {}).unwrap();
    assert!(matches!(status.status, RunState::paused));
}

#[test]
fn errors_have_their_class_and_do_no_harm() {
    let server = Server::start();
    let mut client = connect(&server);
    client.handshake().unwrap();
    match client.execute(&getfd { fdname: "nothing-was-passed".to_owned() }) {
        Err(ExecuteError::Qapi(error)) => {
            assert!(matches!(error.class, ErrorClass::GenericError));
            assert_eq!(error.desc, "No file descriptor supplied via SCM_RIGHTS");
        }
        other => panic!("not an error response: {other:?}"),
    }
    client.nop().unwrap();
}

#[test]
fn the_end_of_the_server_is_noticed() {
    let mut server = Server::start();
    let mut client = connect(&server);
    client.handshake().unwrap();
    server.process().stop().unwrap();
    let error = client.nop().unwrap_err();
    assert!(matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
    ));
}
