// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where one text is shown after the other.

use std::io::{self, IsTerminal, Write};

use rustix::termios::tcgetwinsize;

/// Standard output: a terminal, on which each text takes the place of the one before, or something else,
/// to which they are written one below the other.
pub(super) struct Screen {
    terminal: bool,
    /// What comes between two texts, if this is no terminal.
    between: &'static str,
    shown: bool,
}

const CLEAR: &str = "\x1b[2J";
const HOME: &str = "\x1b[H";
const CLEAR_REST_OF_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

impl Screen {
    /// `lines` says that each text is a line for programs.
    pub(super) fn new(lines: bool) -> Screen {
        let terminal = io::stdout().is_terminal() && !lines;
        Screen { terminal, between: if lines { "" } else { "\n" }, shown: false }
    }

    /// Shows a text. Whether anybody looks on still.
    pub(super) fn show(&mut self, text: &str) -> io::Result<bool> {
        let mut out = io::stdout();
        let frame = self.frame(text);
        self.shown = true;
        match out.write_all(frame.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            written => written.map(|()| true),
        }
    }

    fn frame(&self, text: &str) -> String {
        let text = text.trim_end();
        if !self.terminal {
            let between = if self.shown { self.between } else { "" };
            return format!("{between}{text}\n");
        }
        let size =
            tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 1);
        let (columns, rows) = size.map_or((usize::MAX, usize::MAX), |size| {
            (usize::from(size.ws_col), usize::from(size.ws_row) - 1)
        });
        let mut frame = String::from(if self.shown { HOME } else { CLEAR });
        if !self.shown {
            frame.push_str(HOME);
        }
        for line in text.lines().take(rows) {
            // What is longer would take two lines, and move the others.
            frame.extend(line.chars().take(columns));
            frame.push_str(CLEAR_REST_OF_LINE);
            frame.push('\n');
        }
        frame + CLEAR_BELOW
    }
}
