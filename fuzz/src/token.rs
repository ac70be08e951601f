//! A line that somebody takes for an invitation. What is read comes back the same when it is written again.

use weft::trust::Token;

/// The target.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Token::parse(text) {
        Ok(token) => {
            let line = token.to_string();
            assert!(!line.contains(char::is_whitespace));
            assert_eq!(Token::parse(&line), Ok(token));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
