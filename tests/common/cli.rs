//! The real command line, asked by a test.

use std::path::Path;
use std::process::{Command, Output};

/// The binary under test.
pub(crate) const WEFT: &str = env!("CARGO_BIN_EXE_weft");

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub line: String,
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Runs `weft LINE` against the daemon behind `socket`.
pub(crate) fn weft(socket: &Path, line: &str) -> Said {
    said(line, &command(socket, line).output().unwrap())
}

/// `weft LINE`, not started. Arguments are separated by blanks.
pub(crate) fn command(socket: &Path, line: &str) -> Command {
    let mut command = Command::new(WEFT);
    command.env("WEFT_SOCKET", socket).args(line.split_whitespace());
    command
}

pub(crate) fn said(line: &str, output: &Output) -> Said {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Said { line: line.to_owned(), code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

impl Said {
    /// It worked: its output.
    #[track_caller]
    pub(crate) fn done(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "weft {}", self.line);
        self.out
    }

    /// It worked: its output as the type it is JSON of.
    #[track_caller]
    pub(crate) fn json<T: serde::de::DeserializeOwned>(self) -> T {
        let line = self.line.clone();
        let text = self.done();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("weft {line}: {error}: {text}"))
    }

    /// It was refused in one sentence, with exit code 1.
    #[track_caller]
    pub(crate) fn refused(self) -> String {
        assert_eq!(self.code, Some(1), "weft {}: {self:?}", self.line);
        let lines: Vec<&str> = self.err.lines().collect();
        assert!(lines.len() == 1 && self.out.is_empty(), "weft {}: not one sentence: {self:?}", self.line);
        lines[0].to_owned()
    }

    /// The command line was wrong: exit code 2 and a usage error.
    #[track_caller]
    pub(crate) fn misused(self) -> String {
        assert_eq!(self.code, Some(2), "weft {}: {self:?}", self.line);
        assert!(self.err.starts_with("error: "), "weft {}: {self:?}", self.line);
        self.err
    }
}
