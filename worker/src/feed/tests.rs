//! What the feed makes of a local log that refuses.

use super::*;

#[test]
fn writes_that_are_too_large_together_are_refused_and_a_bug_is_not() {
    let large = flowstone_storage::Error::TooLarge {
        bytes: 5 << 30,
        limit: 4 << 30,
    };
    let refusal = refusal(&large);
    assert!(
        matches!(&refusal, Some(RequestError::Eval(error)) if error.kind == EvalErrorKind::TooLarge && error.message == large.to_string()),
        "{refusal:?}"
    );
    let bug = flowstone_storage::Error::Invariant("x".to_owned());
    assert_eq!(super::refusal(&bug), None);
}
