//! Settings: command line, then `FLOWSTONE_…` variables, then a TOML file, then defaults.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use serde::Deserialize;

/// Less does not suffice to sort anything.
const QUERY_MEMORY_MIB_MIN: usize = 64;

/// The command line of `serve`. What is not given is looked for in the file, then defaulted.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where everything is stored [default: ./flowstone-data]
    #[arg(long, env = "FLOWSTONE_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Where PostgreSQL clients connect [default: 127.0.0.1:6875]
    #[arg(long, env = "FLOWSTONE_PG_LISTEN")]
    pg_listen: Option<SocketAddr>,
    /// Where health and metrics are served over HTTP [default: 127.0.0.1:6876]
    #[arg(long, env = "FLOWSTONE_HTTP_LISTEN")]
    http_listen: Option<SocketAddr>,
    /// Threads that maintain views [default: half the cores, at least 1]
    #[arg(long, env = "FLOWSTONE_SHARDS")]
    shards: Option<usize>,
    /// Memory that one-shot queries may use together, in MiB; sorts, joins and aggregates that need more spill to disk [default: a quarter of what
    /// the machine has]
    #[arg(long, env = "FLOWSTONE_QUERY_MEMORY_MIB")]
    query_memory_mib: Option<usize>,
    /// Log filter, as in `info,flowstone_worker=debug` [default: info, libraries at warn]
    #[arg(long, env = "FLOWSTONE_LOG")]
    log: Option<String>,
    /// Log format: `text` or `json` [default: text]
    #[arg(long, env = "FLOWSTONE_LOG_FORMAT")]
    log_format: Option<LogFormat>,
    /// TOML file with any of these settings, dashes as underscores
    #[arg(long, env = "FLOWSTONE_CONFIG")]
    config: Option<PathBuf>,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON object a line.
    Json,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data_dir: Option<PathBuf>,
    pg_listen: Option<SocketAddr>,
    http_listen: Option<SocketAddr>,
    shards: Option<usize>,
    query_memory_mib: Option<usize>,
    log: Option<String>,
    log_format: Option<LogFormat>,
}

/// The settings a node runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) data_dir: PathBuf,
    pub(crate) pg_listen: SocketAddr,
    pub(crate) http_listen: SocketAddr,
    pub(crate) shards: usize,
    pub(crate) query_memory_mib: usize,
    pub(crate) log: String,
    pub(crate) log_format: LogFormat,
}

impl Settings {
    /// Resolves the settings.
    ///
    /// # Errors
    /// A file that cannot be read or names an unknown setting; an address beyond loopback; no shards.
    pub(crate) fn load(arguments: Arguments) -> anyhow::Result<Self> {
        let file = match &arguments.config {
            None => File::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                toml::from_str(&text)
                    .with_context(|| format!("{} is not a valid configuration", path.display()))?
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let settings = Self {
            data_dir: arguments
                .data_dir
                .or(file.data_dir)
                .unwrap_or_else(|| PathBuf::from("./flowstone-data")),
            pg_listen: arguments
                .pg_listen
                .or(file.pg_listen)
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 6875))),
            http_listen: arguments
                .http_listen
                .or(file.http_listen)
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 6876))),
            shards: arguments
                .shards
                .or(file.shards)
                .unwrap_or_else(|| (cores / 2).max(1)),
            query_memory_mib: arguments
                .query_memory_mib
                .or(file.query_memory_mib)
                .unwrap_or_else(|| (machine_memory_mib() / 4).max(QUERY_MEMORY_MIB_MIN)),
            log: arguments.log.or(file.log).unwrap_or_else(|| {
                "info,openraft=warn,buoyant_kernel=warn,deltalake=warn".to_owned()
            }),
            log_format: arguments.log_format.or(file.log_format).unwrap_or_default(),
        };
        for (name, address) in [
            ("pg_listen", settings.pg_listen),
            ("http_listen", settings.http_listen),
        ] {
            if !address.ip().is_loopback() {
                bail!(
                    "{name} is {address}: a node listens on loopback only, because this version has no TLS and no passwords yet"
                );
            }
        }
        if settings.shards == 0 {
            bail!("shards must be at least 1");
        }
        if settings.query_memory_mib < QUERY_MEMORY_MIB_MIN {
            bail!("query_memory_mib must be at least {QUERY_MEMORY_MIB_MIN}");
        }
        Ok(settings)
    }
}

/// What the machine has, or the control group allows if that is less; a guess where the system does not say.
fn machine_memory_mib() -> usize {
    const GUESS_MIB: usize = 4096;
    let total_kib = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| meminfo_total_kib(&text));
    let allowed = std::fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| text.trim().parse::<usize>().ok());
    let machine = total_kib.map_or(GUESS_MIB, |total| total / 1024);
    allowed.map_or(machine, |allowed| machine.min(allowed / (1 << 20)))
}

/// `MemTotal` of `/proc/meminfo`.
fn meminfo_total_kib(text: &str) -> Option<usize> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_the_machine_is_found() {
        let text = "MemTotal:       24579716 kB\nMemFree:        22000000 kB\n";
        assert_eq!(meminfo_total_kib(text), Some(24_579_716));
        assert_eq!(meminfo_total_kib("MemFree: 1 kB\n"), None);
    }
}
