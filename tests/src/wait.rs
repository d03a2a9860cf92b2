//! Waiting for conditions.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Tries `condition` until it gives a value; fails with what it last said once `deadline` has passed.
///
/// # Errors
/// The deadline passed.
pub async fn until<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let seen = match condition().await {
            Ok(value) => return Ok(value),
            Err(seen) => seen,
        };
        if start.elapsed() > deadline {
            bail!("waited {deadline:?} for {what}; last seen: {seen}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await; // poll interval
    }
}
