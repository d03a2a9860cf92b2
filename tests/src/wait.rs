//! Waiting for conditions.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Tries `condition` until it gives a value; fails with what it last said once `deadline` has passed. One try may take as long.
///
/// # Errors
/// The deadline passed, or a try did not end.
pub async fn until<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let seen = match tokio::time::timeout(deadline, condition()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(seen)) => seen,
            Err(_) => bail!("waited for {what}: a try did not end within {deadline:?}"),
        };
        if start.elapsed() > deadline {
            bail!("waited {deadline:?} for {what}; last seen: {seen}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await; // poll interval
    }
}
