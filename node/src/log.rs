//! The log: where it goes, and what never stands in it.
//!
//! Owns the filter and the formats of lines. Must not know what is logged.
//!
//! Invariant. Libraries log nothing below `info`, whatever the filter says: there they print what they work on. The parser prints every literal, and so the value of a
//! secret; planners print plans with the values in them. Our own modules know what is secret, and their types do not show it.

use anyhow::Context;
use tracing::{Level, Metadata};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, filter, fmt, registry};

use crate::config::{LogFormat, Settings};

/// What the targets of our own modules begin with.
const OWN_TARGET: &str = "flowstone";

/// Sets up the log of the process.
///
/// # Errors
/// A filter that is none, or a log that is set up already.
pub(crate) fn init(settings: &Settings) -> anyhow::Result<()> {
    let wanted = EnvFilter::try_new(&settings.log)
        .with_context(|| format!("\"{}\" is not a log filter", settings.log))?;
    let lines = match settings.log_format {
        LogFormat::Text => fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .boxed(),
        LogFormat::Json => fmt::layer().with_writer(std::io::stderr).json().boxed(),
    };
    registry()
        .with(filter::filter_fn(may_be_logged))
        .with(wanted)
        .with(lines)
        .try_init()
        .map_err(|error| anyhow::anyhow!("cannot set up the log: {error}"))
}

fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO || metadata.target().starts_with(OWN_TARGET)
}
