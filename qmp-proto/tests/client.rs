// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client's session does not depend on how its input is cut, nor on the order of responses.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use qmp_proto::client::{Ids, Received, Session, SessionError};
use qmp_proto::{Band, Capability, Json, Value};

type Outcome = Result<Received<usize>, SessionError>;

const IDS: Ids = Ids::nth_connection(0, 0);
const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\r\n";
const NEGOTIATED: &str = "{\"return\": {}, \"id\": 4294967296}\r\n";

fn session() -> Session<usize> {
    Session::new(IDS, vec![Capability::OOB])
}

fn read(session: &mut Session<usize>, mut input: &[u8]) -> Vec<Outcome> {
    let outcomes = std::iter::from_fn(|| session.read(&mut input)).collect();
    assert!(input.is_empty());
    outcomes
}

/// What servers of all kinds send, and pieces of it.
fn sent() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        4 => Just(GREETING.as_bytes().to_vec()),
        2 => Just(NEGOTIATED.as_bytes().to_vec()),
        8 => select(vec![
            &b"{\"QMP\": {\r\n    \"version\": {\r\n    },\r\n    \"capabilities\": [\r\n    ]\r\n}}\r\n"[..],
            b"{\"event\": \"A\"}", b"{\"event\": \"B\"}\r\n", b"{\"return\": [1], \"id\": 0}\r\n",
            b"{\"error\": {\"class\": \"\", \"desc\": \"\"}}\r\n", b"efault\", \"a\": {}}, \"id\": 3}\r\n",
            b"{}", b"}", b",", b"\n", b"\r\n", b" ", b"'abc\nskipped {}\n", b"'abc\"\nskipped", b"12", b"true",
            b"HTTP/1.1 400 Bad Request\r\n", b"\xFF\xFB\x01", b"@", b"\"", b"'", b"[", b"]\n", b"x\n",
        ]).prop_map(<[u8]>::to_vec),
        1 => vec(any::<u8>(), 0..8),
    ];
    vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn pieces_of_input_may_be_cut_anywhere(sent in sent(), cuts in vec(any::<Index>(), 0..8)) {
        let whole = read(&mut session(), &sent);

        let mut bytewise = session();
        let outcomes: Vec<_> = sent.iter().flat_map(|byte| read(&mut bytewise, &[*byte])).collect();
        prop_assert_eq!(&outcomes, &whole);

        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(sent.len() + 1)).collect();
        cuts.sort_unstable();
        let mut session = session();
        let mut outcomes = Vec::new();
        for (from, to) in [0].iter().chain(&cuts).zip(cuts.iter().chain([&sent.len()])) {
            outcomes.extend(read(&mut session, &sent[*from..*to]));
        }
        prop_assert_eq!(outcomes, whole);
    }

    #[test]
    fn responses_match_in_any_order(
        requests in vec((any::<bool>(), any::<Index>(), any::<bool>()), 1..60),
        foreign in vec(any::<u64>(), 0..10),
    ) {
        let mut session = session();
        read(&mut session, [GREETING, NEGOTIATED].concat().as_bytes());
        prop_assert!(session.transmit().is_some());
        // What has been sent and not answered: its number and id.
        let mut in_flight: Vec<(usize, u64)> = Vec::new();
        let mut used = Vec::new();
        let mut foreign = foreign.into_iter();
        for (number, (oob, which, answer)) in requests.into_iter().enumerate() {
            let band = if oob { Band::OutOfBand } else { Band::InBand };
            session.request("x", None, band, number).unwrap();
            let text = session.transmit().unwrap();
            let id = text.parse::<Value>().unwrap().get("id").and_then(Value::as_u64).unwrap();
            prop_assert!(in_flight.iter().all(|&(_, other)| other != id), "ids are distinct");
            in_flight.push((number, id));
            used.push(id);
            if answer {
                let (number, id) = in_flight.swap_remove(which.index(in_flight.len()));
                let text = format!("{{\"return\": {number}, \"id\": {id}}}\r\n");
                let result = Ok(Json::from(&Value::from(number as u64)));
                let twice = text.repeat(2);
                let received = read(&mut session, twice.as_bytes());
                prop_assert_eq!(&received[0], &Ok(Received::Response { request: number, result }));
                let unmatched = matches!(received[1], Ok(Received::Unmatched(_)));
                prop_assert!(unmatched, "{:?}", received[1]);
            }
            if let Some(id) = foreign.next().filter(|id| !used.contains(id)) {
                let text = format!("{{\"return\": {{}}, \"id\": {id}}}\r\n");
                let received = read(&mut session, text.as_bytes());
                prop_assert!(matches!(received[..], [Ok(Received::Unmatched(_))]));
            }
        }
        let mut left = session.take_pending();
        left.sort_unstable();
        let mut expected: Vec<usize> = in_flight.into_iter().map(|(number, _)| number).collect();
        expected.sort_unstable();
        prop_assert_eq!(left, expected);
    }
}

/// Counts allocated bytes: input of twice the size before the greeting takes no more memory, and what has
/// been read is not kept.
#[test]
fn nothing_that_has_been_read_is_kept() {
    let peak = |count: usize| {
        let events = "{\"event\": \"A\", \"data\": {\"x\": [1, 2, 3]}}\r\n".repeat(count);
        let mut session = session();
        let allocated = allocation_counter::measure(|| {
            for text in [GREETING, NEGOTIATED, &events] {
                let mut input = text.as_bytes();
                while let Some(received) = session.read(&mut input) {
                    assert!(received.is_ok());
                }
            }
        });
        assert_eq!(session.kept(), 0);
        allocated.bytes_max
    };
    assert_eq!(peak(1000), peak(2000));
}
