//! Trying again what the environment refuses.

use std::time::Duration;

use crate::error::with_causes;

/// First and longest pause between tries of a storage operation that the environment refuses (a full disk, for one).
pub(crate) const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// Tries again, ever more slowly, while the environment refuses; gives up only when trying again cannot help.
pub(crate) async fn retrying<T, F>(
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> Result<T, flowstone_storage::Error>
where
    F: Future<Output = Result<T, flowstone_storage::Error>>,
{
    let mut pause = RETRY_FIRST;
    loop {
        match attempt().await {
            Err(error) if error.retryable() => {
                tracing::warn!(
                    error = with_causes(&error),
                    what,
                    "storage refused; trying again"
                );
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_LONGEST);
            }
            outcome => return outcome,
        }
    }
}
