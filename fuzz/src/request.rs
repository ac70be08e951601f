//! A line on the control socket. What is taken must come back the same when it is written and read again.

use weft::io::api::parse_request;

/// The target.
pub fn run(data: &[u8]) {
    match parse_request(data) {
        Ok(request) => {
            let line = serde_json::to_string(&request).expect("a request can be written");
            assert_eq!(parse_request(line.as_bytes()), Ok(request), "{line}");
        }
        Err(problem) => assert!(!problem.is_empty() && !problem.contains('\n')),
    }
}
