//! What is wrong with a configuration file: every error of it, each with its line, its key and a remedy.
//!
//! One error is one line of text, in the form compilers use, so editors can jump to it:
//!
//! ```text
//! weft.toml:12: peer[2] "beta".public_key: not a WireGuard key: …; write it like public_key = "…"
//! ```

use std::fmt;

/// How many errors are written out. A file of the wrong kind has one in every line; nobody reads the thousandth.
const MAX_SHOWN: usize = 100;

/// One thing wrong with a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as it was named by the caller.
    pub file: String,
    /// The line, counted from 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// The key's path, like `node.log` or `peer[2] "beta".endpoints`, where the first `[[peer]]` is `peer[1]`.
    /// Empty when the error lies before any key, as in a file that is not TOML.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}; {}", self.problem, self.remedy)
    }
}

/// Everything wrong with one configuration file, in the order of its lines; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors(pub Vec<ConfigError>);

impl Errors {
    /// One error about the file as a whole.
    pub fn whole_file(file: &str, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (problem, remedy) = (problem.into(), remedy.into());
        Self(vec![ConfigError { file: file.to_owned(), line: 0, key: String::new(), problem, remedy }])
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().take(MAX_SHOWN).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        match self.0.len().saturating_sub(MAX_SHOWN) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more errors"),
        }
    }
}

impl std::error::Error for Errors {}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: usize) -> ConfigError {
        let (file, key) = ("weft.toml".to_owned(), "node.log".to_owned());
        ConfigError { file, line, key, problem: "wrong".into(), remedy: "mend it".into() }
    }

    #[test]
    fn an_error_is_one_line_with_file_line_key_problem_and_remedy() {
        assert_eq!(error(12).to_string(), "weft.toml:12: node.log: wrong; mend it");
        assert_eq!(Errors::whole_file("a", "no file", "make one").to_string(), "a: no file; make one");
    }

    #[test]
    fn a_flood_of_errors_is_cut_short_with_their_number() {
        let text = Errors((1..=150).map(error).collect()).to_string();
        assert_eq!(text.lines().count(), MAX_SHOWN + 1);
        assert!(text.ends_with("and 50 more errors"));
    }
}
