// SPDX-License-Identifier: MIT OR Apache-2.0
//! What becomes of clients when the upstream server is lost.

use std::str::FromStr;

/// What becomes of the clients of a [`Mux`](crate::Mux) when its upstream server is lost, in whatever way.
///
/// Those that get [notices](crate::Listen::notices) can connect at any time and stay in each case, unless the mux ends.
///
/// ```
/// use qmp_server::UpstreamLost;
///
/// assert_eq!("keep".parse(), Ok(UpstreamLost::Keep));
/// assert_eq!(UpstreamLost::default(), UpstreamLost::Disconnect);
/// let error = "wait".parse::<UpstreamLost>().unwrap_err();
/// assert_eq!(error.to_string(), "'wait' is not disconnect, keep or exit");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UpstreamLost {
    /// As if they were its own clients: they get what is left for them, no answers to what is unanswered, and the end.
    /// Until the server has greeted again, and before it has greeted for the first time, nobody can connect: the system
    /// refuses clients where that is [possible](crate::Listener::shut). Elsewhere, such as at a socket that was inherited,
    /// they are disconnected at once; those that come before the first greeting can wait for it for five seconds.
    ///
    /// This is the default.
    #[default]
    Disconnect,
    /// They stay, and get errors for what is unanswered; unless the server has ended as it was told to: then they are
    /// disconnected. Others can connect, and are greeted in the name of the last upstream server. Before the first one,
    /// they wait.
    Keep,
    /// As [`Disconnect`](UpstreamLost::Disconnect), and the mux ends.
    Exit,
}

/// Something else than what may become of clients.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not disconnect, keep or exit")]
pub struct UnknownUpstreamLost(String);

impl FromStr for UpstreamLost {
    type Err = UnknownUpstreamLost;

    fn from_str(text: &str) -> Result<UpstreamLost, UnknownUpstreamLost> {
        match text {
            "disconnect" => Ok(UpstreamLost::Disconnect),
            "keep" => Ok(UpstreamLost::Keep),
            "exit" => Ok(UpstreamLost::Exit),
            _ => Err(UnknownUpstreamLost(text.to_owned())),
        }
    }
}
