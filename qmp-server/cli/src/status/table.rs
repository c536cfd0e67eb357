// SPDX-License-Identifier: MIT OR Apache-2.0
//! A status for people.

use std::fmt::Write;

use qmp_server::{ClientStatus, ServerStatus, UpstreamStatus};

use crate::mux::MachineStatus;

/// The clients of a server.
pub(super) fn clients(clients: &[ClientStatus]) -> String {
    Table::of(&CLIENTS, clients).render()
}

/// The machines of a mux.
pub(super) fn machines(machines: &[MachineStatus]) -> String {
    Table::of(&MACHINES, machines).render()
}

/// A few lines on the whole.
pub(super) fn summary(server: &ServerStatus) -> String {
    let ServerStatus { clients, suspended, greeted, refused, queued, executing, .. } = server;
    let ServerStatus { in_band, out_of_band, failed, deadlines_passed, late_answers, .. } = server;
    let ServerStatus { events_sent, events_held_back, events_dropped, .. } = server;
    format!(
        "server    {}, up {}\n\
         clients   {clients} now, {suspended} suspended; {greeted} greeted, {refused} refused so far\n\
         requests  {queued} waiting, {executing} executing; {in_band} in-band, {out_of_band} out-of-band, \
         {failed} failed so far\n\
         deadlines {deadlines_passed} passed, {late_answers} late answers dropped\n\
         events    {events_sent} sent, {events_held_back} held back, {events_dropped} dropped\n",
        printable(&server.version),
        duration(server.uptime_ms),
    )
}

/// What is known of the server behind a mux.
pub(super) fn upstream_summary(upstream: &UpstreamStatus) -> String {
    let UpstreamStatus { address, connected, since_ms, reconnects, queued, .. } = upstream;
    let machine = upstream.machine.as_deref();
    let machine = machine.map(|name| format!("{} at ", printable(name))).unwrap_or_default();
    let mut text = format!("upstream  {machine}{}, ", printable(address));
    let since = duration(*since_ms);
    // Strings take everything.
    let _ = match (connected, &upstream.reason) {
        (true, _) => write!(text, "connected for {since}"),
        (false, None) => write!(text, "not connected for {since}"),
        (false, Some(reason)) => {
            write!(text, "not connected for {since}: {}", printable(reason))
        }
    };
    if let Some(version) = upstream.version.as_deref().filter(|_| *connected) {
        text.push_str(&format!(", version {}", printable(version)));
    }
    text.push_str(&format!(
        "; {reconnects} reconnects, {queued} waiting, {} in flight",
        upstream.in_flight.len()
    ));
    if let Some(oldest) = upstream.oldest_ms {
        let hangs = if upstream.hangs { ": it HANGS" } else { "" };
        text.push_str(&format!(", the oldest for {}{hangs}", duration(oldest)));
    }
    text.push('\n');
    for command in &upstream.in_flight {
        let whose = match command.monitor {
            Some(monitor) => format!("of monitor {monitor}"),
            None => "which nobody waits for".to_owned(),
        };
        let name = printable(&command.command);
        text.push_str(&format!("          {name} {whose}, for {}\n", duration(command.sent_ms)));
    }
    text
}

/// Cells of text, each column as wide as it has to be.
struct Table {
    /// Whether each column is of numbers.
    are_numbers: Vec<bool>,
    rows: Vec<Vec<String>>,
}

/// A column: its head, whether it is of numbers, and what stands there of one of those that have a row.
type Column<T> = (&'static str, bool, fn(&T) -> String);

const MACHINES: [Column<MachineStatus>; 10] = [
    ("MACHINE", false, |machine| machine.name.as_deref().map_or("-".to_owned(), printable)),
    ("STATE", false, |machine| {
        if machine.upstream.connected { "there" } else { "absent" }.to_owned()
    }),
    ("FOR", true, |machine| duration(machine.upstream.since_ms)),
    ("VERSION", false, |machine| {
        machine.upstream.version.as_deref().map_or("-".to_owned(), printable)
    }),
    ("CLIENTS", true, |machine| machine.clients.to_string()),
    ("WAITING", true, |machine| machine.upstream.queued.to_string()),
    // What was sent first stands first.
    ("RUNS", false, |machine| match machine.upstream.in_flight.first() {
        Some(oldest) => printable(&oldest.command),
        None => "-".to_owned(),
    }),
    ("SENT", true, |machine| match machine.upstream.in_flight.first() {
        Some(oldest) => duration(oldest.sent_ms),
        None => "-".to_owned(),
    }),
    ("AGENT", false, |machine| {
        let state = match machine.agent.as_ref().map(|agent| &agent.channel) {
            None => "-",
            Some(channel) if !channel.connected => "absent",
            Some(channel) if channel.hangs => "silent",
            Some(_) => "there",
        };
        state.to_owned()
    }),
    ("UPSTREAM", false, |machine| printable(&machine.upstream.address)),
];

const CLIENTS: [Column<ClientStatus>; 12] = [
    ("MONITOR", true, |client| client.monitor.to_string()),
    ("PEER", false, |client| printable(&client.peer)),
    ("ROLE", false, |client| client.role.as_deref().map_or_else(|| "-".to_owned(), printable)),
    ("STATE", false, |client| state(client).to_owned()),
    ("OOB", false, |client| if client.oob { "yes" } else { "no" }.to_owned()),
    ("QUEUED", true, |client| client.queued.to_string()),
    ("RUNS", false, |client| match &client.running {
        Some(running) => printable(&running.command),
        None => "-".to_owned(),
    }),
    ("FOR", true, |client| match &client.running {
        Some(running) => duration(running.running_ms),
        None => "-".to_owned(),
    }),
    ("SERVED", true, |client| (client.in_band + client.out_of_band).to_string()),
    ("UNREAD", true, |client| bytes(client.unread_bytes)),
    ("DROPPED", true, |client| client.events_dropped.to_string()),
    ("CONNECTED", true, |client| duration(client.connected_ms)),
];

fn state(client: &ClientStatus) -> &'static str {
    match (client.negotiated, client.suspended) {
        (false, _) => "negotiating",
        (true, true) => "suspended",
        (true, false) => "ready",
    }
}

impl Table {
    fn of<T>(columns: &[Column<T>], of: &[T]) -> Table {
        let head = columns.iter().map(|(head, ..)| (*head).to_owned()).collect();
        let rows = of.iter().map(|one| columns.iter().map(|(_, _, cell)| cell(one)).collect());
        Table {
            are_numbers: columns.iter().map(|(_, is_number, _)| *is_number).collect(),
            rows: [head].into_iter().chain(rows).collect(),
        }
    }

    fn render(&self) -> String {
        let width = |column: usize| {
            self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<_> = (0..self.are_numbers.len()).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, width), is_number) in row.iter().zip(&widths).zip(&self.are_numbers) {
                let padded = match is_number {
                    true => format!("{cell:>width$}  "),
                    false => format!("{cell:<width$}  "),
                };
                line.push_str(&padded);
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// On one line, and with nothing that a terminal would obey: clients have a say in this.
fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => printable.extend(character.escape_unicode()),
            false => printable.push(character),
        }
    }
    printable
}

/// Two units at most.
fn duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match milliseconds {
        0..1_000 => format!("{milliseconds}ms"),
        1_000..60_000 => format!("{seconds}.{}s", milliseconds % 1000 / 100),
        60_000..3_600_000 => format!("{minutes}m{:02}s", seconds % 60),
        3_600_000..86_400_000 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

fn bytes(bytes: u64) -> String {
    let tenths = |unit: u32| format!("{}.{}", bytes >> unit, ((bytes % (1 << unit)) * 10) >> unit);
    match bytes {
        0..1024 => bytes.to_string(),
        1024..0x10_0000 => tenths(10) + "K",
        0x10_0000..0x4000_0000 => tenths(20) + "M",
        _ => tenths(30) + "G",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units_at_most() {
        let minute = 60_000;
        for (milliseconds, expected) in [
            (0, "0ms"),
            (999, "999ms"),
            (1_000, "1.0s"),
            (59_999, "59.9s"),
            (minute, "1m00s"),
            (60 * minute - 1, "59m59s"),
            (60 * minute, "1h00m"),
            (25 * 60 * minute, "1d01h"),
            (u64::MAX, "213503982334d14h"),
        ] {
            assert_eq!(duration(milliseconds), expected);
        }
    }

    #[test]
    fn bytes_have_a_unit() {
        for (number, expected) in
            [(0, "0"), (1023, "1023"), (1024, "1.0K"), (1 << 20, "1.0M"), (3 << 29, "1.5G")]
        {
            assert_eq!(bytes(number), expected);
        }
    }

    #[test]
    fn columns_are_as_wide_as_they_have_to_be() {
        let client = r#"{"monitor": 7, "peer": "a\u001b[2J", "connected-ms": 1500, "negotiated": true,
            "oob": true, "suspended": false, "queued": 0, "running": {"command": "stop", "running-ms": 70000},
            "in-band": 3, "out-of-band": 1, "received-bytes": 9, "sent-bytes": 9, "unread-bytes": 0,
            "events-dropped": 12345678}"#;
        let client: ClientStatus = decode(client);
        let expected = "\
MONITOR  PEER        ROLE  STATE  OOB  QUEUED  RUNS    FOR  SERVED  UNREAD   DROPPED  CONNECTED
      7  a\\u{1b}[2J  -     ready  yes       0  stop  1m10s       4       0  12345678       1.5s
";
        assert_eq!(clients(&[client]), expected);
    }

    fn decode<T: serde::de::DeserializeOwned>(text: &str) -> T {
        qmp_dispatch::proto::from_value(text.parse().unwrap()).unwrap()
    }

    #[test]
    fn what_nobody_waits_for_is_in_flight_all_the_same() {
        let upstream: UpstreamStatus = decode(
            r#"{"machine": "vm1", "address": "unix:a", "connected": true, "since-ms": 5, "version": "10.0.2", "oob": true,
            "reconnects": 1, "queued": 2, "in-flight": [{"command": "stop", "monitor": 3, "sent-ms": 5},
            {"command": "cont", "sent-ms": 61000}]}"#,
        );
        let expected = "\
upstream  vm1 at unix:a, connected for 5ms, version 10.0.2; 1 reconnects, 2 waiting, 2 in flight
          stop of monitor 3, for 5ms
          cont which nobody waits for, for 1m01s
";
        assert_eq!(upstream_summary(&upstream), expected);
    }
}
