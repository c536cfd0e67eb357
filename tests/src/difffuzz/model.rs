// SPDX-License-Identifier: MIT OR Apache-2.0
//! Predicts what a server must answer, from `qmp-proto` and the rules of negotiation.

use qmp_proto::{
    Band, Bands, Dialect, Error, ErrorClass, Json, Layout, Limits, Reader, Request, RequestError,
    Response, Value,
};

/// Brings a connection back to a clean state, whatever came before: one lexical error.
pub const RESYNC: &[u8] = b"\xFF\n";

/// The state in which a connection takes its inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Fresh,
    /// After negotiation without capabilities.
    Negotiated,
    /// After negotiation with out-of-band execution.
    Oob,
}

impl Mode {
    pub const ALL: [Mode; 3] = [Mode::Fresh, Mode::Negotiated, Mode::Oob];

    /// The request that brings a new connection into this state.
    pub fn negotiation(self) -> &'static [u8] {
        match self {
            Mode::Fresh => b"",
            Mode::Negotiated => b"{'execute': 'qmp_capabilities'}",
            Mode::Oob => b"{'execute': 'qmp_capabilities', 'arguments': {'enable': ['oob']}}",
        }
    }
}

/// One line that a server must send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The band of the request. Only answers of the same band keep their order.
    pub band: Band,
    /// The line, with its end.
    pub line: String,
}

/// A server with two commands, which do nothing.
#[derive(Debug)]
pub struct Model {
    reader: Reader,
    negotiated: bool,
    oob: bool,
}

impl Model {
    pub fn new(dialect: Dialect) -> Self {
        Self { reader: Reader::new(dialect, Limits::default()), negotiated: false, oob: false }
    }

    /// Takes some input, and returns the answers.
    pub fn feed(&mut self, mut input: &[u8]) -> Vec<Answer> {
        let mut answers = Vec::new();
        while let Some(message) = self.reader.read(&mut input) {
            let bands = bands(self.oob);
            let request = message
                .map_err(RequestError::from)
                .and_then(|message| Request::parse(&message, bands));
            answers.push(self.answer(request));
        }
        answers
    }

    fn answer(&mut self, request: Result<Request, RequestError>) -> Answer {
        let (id, band, result) = match request {
            Ok(mut request) => {
                let (id, band) = (request.id.take(), request.band);
                (id, band, self.execute(&request))
            }
            Err(refused) => (refused.id, refused.band, Err(refused.error)),
        };
        let mut line = String::new();
        let response = Response::new(id, result.map(|()| Json::EMPTY_OBJECT));
        response.write(Layout::Compact, &mut line);
        Answer { band, line }
    }

    fn execute(&mut self, request: &Request) -> Result<(), Error> {
        let name = request.command.as_str();
        if !self.negotiated && name != "qmp_capabilities" {
            return Err(Error::new(
                ErrorClass::CommandNotFound,
                "Expecting capabilities negotiation with 'qmp_capabilities'",
            ));
        }
        let known = ["qmp_capabilities", "query-version"].contains(&name);
        if !known {
            return Err(Error::command_not_found(name));
        }
        if request.band == Band::OutOfBand {
            return Err(Error::generic(format!("The command {name} does not support OOB")));
        }
        let enable = match name {
            "qmp_capabilities" => enabled(request.arguments.get("enable"))?,
            _ => false,
        };
        let unexpected = request
            .arguments
            .iter()
            .find(|(argument, _)| (name, *argument) != ("qmp_capabilities", "enable"));
        if let Some((argument, _)) = unexpected {
            return Err(Error::generic(format!("Parameter '{argument}' is unexpected")));
        }
        if self.negotiated {
            return Err(Error::new(
                ErrorClass::CommandNotFound,
                "Capabilities negotiation is already complete, command ignored",
            ));
        }
        self.negotiated = true;
        self.oob = enable;
        Ok(())
    }
}

/// Whether the argument `enable` enables out-of-band execution.
fn enabled(enable: Option<&Value>) -> Result<bool, Error> {
    let wrong_type = |path: String, expected: &str| {
        Error::generic(format!("Invalid parameter type for '{path}', expected: {expected}"))
    };
    let Some(enable) = enable else { return Ok(false) };
    let capabilities = enable.as_array().ok_or_else(|| wrong_type("enable".to_owned(), "array"))?;
    for (index, capability) in capabilities.iter().enumerate() {
        let capability =
            capability.as_str().ok_or_else(|| wrong_type(format!("enable[{index}]"), "string"))?;
        if capability != "oob" {
            return Err(Error::generic(format!(
                "Parameter 'null' does not accept value '{capability}'"
            )));
        }
    }
    Ok(!capabilities.is_empty())
}

fn bands(oob: bool) -> Bands {
    if oob { Bands::Both } else { Bands::InBand }
}

/// Whether `input`, read from a clean state, can be compared: it does not kill QEMU, and every command of `commands` in
/// it is refused by all servers with the same words.
pub fn is_comparable(dialect: Dialect, input: &[u8], mode: Mode, commands: &[String]) -> bool {
    let harmless = |request: &Request| match request.command.as_str() {
        // qmp-proto does not decide which of several unexpected arguments is reported.
        "qmp_capabilities" => {
            request.arguments.iter().filter(|(name, _)| *name != "enable").count() <= 1
        }
        "query-version" => request.arguments.len() == 1,
        name => !commands.iter().any(|command| command == name),
    };
    [false, true].into_iter().all(|oob| {
        let mut reader = Reader::new(dialect, Limits::default());
        [input, RESYNC].concat().chunks(1).all(|mut byte| {
            let mut requests = Vec::new();
            while let Some(message) = reader.read(&mut byte) {
                requests.push(
                    message
                        .map_err(RequestError::from)
                        .and_then(|message| Request::parse(&message, bands(oob))),
                );
            }
            // With oob, QEMU fails an assertion where one byte completes two messages and seven are waiting.
            (mode == Mode::Negotiated || requests.len() < 2)
                && requests.iter().flatten().all(harmless)
        })
    })
}
