//! Settings: command line, then `FLOWSTONE_…` variables, then a TOML file, then defaults.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use serde::Deserialize;

/// Less does not suffice to sort anything.
const QUERY_MEMORY_MIB_MIN: usize = 64;
/// Less would cut off a subscriber that merely shares the machine with others.
const SUBSCRIBER_MEMORY_MIB_MIN: usize = 64;

/// Less would fail what clients ordinarily send.
const SESSION_MEMORY_MIB_MIN: usize = 64;
/// What the time between two group commits may be: a commit takes a few milliseconds, and what is not committed is replayed at a start.
const COMMIT_INTERVAL_MS: std::ops::RangeInclusive<u64> = 20..=600_000;

/// The command line of `serve`. What is not given is looked for in the file, then defaulted.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where everything is stored [default: ./flowstone-data]
    #[arg(long, env = "FLOWSTONE_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Where PostgreSQL clients connect [default: 127.0.0.1:6875]
    #[arg(long, env = "FLOWSTONE_PG_LISTEN")]
    pg_listen: Option<SocketAddr>,
    /// Where the console, SQL over HTTP, health and metrics are served [default: 127.0.0.1:6876]
    #[arg(long, env = "FLOWSTONE_HTTP_LISTEN")]
    http_listen: Option<SocketAddr>,
    /// Where Arrow Flight SQL clients connect [default: 127.0.0.1:6877]
    #[arg(long, env = "FLOWSTONE_FLIGHT_LISTEN")]
    flight_listen: Option<SocketAddr>,
    /// Threads that maintain views [default: half the cores, at least 1]
    #[arg(long, env = "FLOWSTONE_SHARDS")]
    shards: Option<usize>,
    /// Memory that one-shot queries may use together, in MiB; sorts, joins and aggregates that need more spill to disk [default: a quarter of what
    /// the machine has]
    #[arg(long, env = "FLOWSTONE_QUERY_MEMORY_MIB")]
    query_memory_mib: Option<usize>,
    /// Changes that may wait for subscribers that read slowly, all together, in MiB; beyond it the slowest is cut off [default: a sixteenth of what the
    /// machine has]
    #[arg(long, env = "FLOWSTONE_SUBSCRIBER_MEMORY_MIB")]
    subscriber_memory_mib: Option<usize>,
    /// Memory that what sessions hold may take together, in MiB: what clients send until it is done with, rows on their way to them, writes of open transactions; one
    /// session may hold half of it, and what needs more fails [default: a quarter of what the machine has]
    #[arg(long, env = "FLOWSTONE_SESSION_MEMORY_MIB")]
    session_memory_mib: Option<usize>,
    /// Milliseconds between two group commits, which write what has changed to the Delta tables: less shows it to other engines sooner, in more and smaller files
    /// [default: 1000]
    #[arg(long, env = "FLOWSTONE_COMMIT_INTERVAL_MS")]
    commit_interval_ms: Option<u64>,
    /// Seconds that a view which is recomputed at each change may take for one; beyond it the view is in error and no longer maintained [default: 60]
    #[arg(long, env = "FLOWSTONE_RECOMPUTE_SECONDS_MAX")]
    recompute_seconds_max: Option<u64>,
    /// Log filter, as in `info,flowstone_worker=debug` [default: info, libraries at warn]
    #[arg(long, env = "FLOWSTONE_LOG")]
    log: Option<String>,
    /// Log format: `text` or `json` [default: text]
    #[arg(long, env = "FLOWSTONE_LOG_FORMAT")]
    log_format: Option<LogFormat>,
    /// Who must say a password: `trust-loopback` (nobody; only this machine can connect) or `scram` (everybody) [default: trust-loopback]
    #[arg(long, env = "FLOWSTONE_AUTH")]
    auth: Option<Auth>,
    /// Certificate in PEM, those between it and its root after it
    #[arg(long, env = "FLOWSTONE_TLS_CERT_FILE")]
    tls_cert_file: Option<PathBuf>,
    /// Private key of the certificate in PEM, not encrypted
    #[arg(long, env = "FLOWSTONE_TLS_KEY_FILE")]
    tls_key_file: Option<PathBuf>,
    /// Whether clients without TLS are refused [default: true if there is a certificate]
    #[arg(long, env = "FLOWSTONE_TLS_REQUIRED")]
    tls_required: Option<bool>,
    /// File with the first password of the role `materialize`; used only while that role has none. `FLOWSTONE_INITIAL_PASSWORD` may hold the password itself
    #[arg(long, env = "FLOWSTONE_INITIAL_PASSWORD_FILE")]
    initial_password_file: Option<PathBuf>,
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

/// Who must say a password.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Auth {
    /// Nobody: only this machine can connect.
    #[default]
    TrustLoopback,
    /// Everybody.
    Scram,
}

/// Where the certificate and the key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// A password from outside. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(pub(crate) String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(<redacted>)")
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data_dir: Option<PathBuf>,
    pg_listen: Option<SocketAddr>,
    http_listen: Option<SocketAddr>,
    flight_listen: Option<SocketAddr>,
    shards: Option<usize>,
    query_memory_mib: Option<usize>,
    subscriber_memory_mib: Option<usize>,
    session_memory_mib: Option<usize>,
    commit_interval_ms: Option<u64>,
    recompute_seconds_max: Option<u64>,
    log: Option<String>,
    log_format: Option<LogFormat>,
    auth: Option<Auth>,
    tls_cert_file: Option<PathBuf>,
    tls_key_file: Option<PathBuf>,
    tls_required: Option<bool>,
    initial_password_file: Option<PathBuf>,
}

/// The settings a node runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) data_dir: PathBuf,
    pub(crate) pg_listen: SocketAddr,
    pub(crate) http_listen: SocketAddr,
    pub(crate) flight_listen: SocketAddr,
    pub(crate) shards: usize,
    pub(crate) query_memory_mib: usize,
    pub(crate) subscriber_memory_mib: usize,
    pub(crate) session_memory_mib: usize,
    pub(crate) commit_interval_ms: u64,
    pub(crate) recompute_seconds_max: u64,
    pub(crate) log: String,
    pub(crate) log_format: LogFormat,
    pub(crate) auth: Auth,
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) tls_required: bool,
    pub(crate) initial_password: Option<Password>,
}

impl Settings {
    /// Resolves the settings.
    ///
    /// # Errors
    /// A file that cannot be read or names an unknown setting; an address beyond loopback without TLS and passwords; no shards; too little memory.
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
        let tls = tls_files(
            arguments.tls_cert_file.or(file.tls_cert_file),
            arguments.tls_key_file.or(file.tls_key_file),
        )?;
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
            flight_listen: arguments
                .flight_listen
                .or(file.flight_listen)
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 6877))),
            shards: arguments
                .shards
                .or(file.shards)
                .unwrap_or_else(|| (cores / 2).max(1)),
            query_memory_mib: arguments
                .query_memory_mib
                .or(file.query_memory_mib)
                .unwrap_or_else(|| (machine_memory_mib() / 4).max(QUERY_MEMORY_MIB_MIN)),
            subscriber_memory_mib: arguments
                .subscriber_memory_mib
                .or(file.subscriber_memory_mib)
                .unwrap_or_else(|| (machine_memory_mib() / 16).max(SUBSCRIBER_MEMORY_MIB_MIN)),
            session_memory_mib: arguments
                .session_memory_mib
                .or(file.session_memory_mib)
                .unwrap_or_else(|| (machine_memory_mib() / 4).max(SESSION_MEMORY_MIB_MIN)),
            commit_interval_ms: arguments
                .commit_interval_ms
                .or(file.commit_interval_ms)
                .unwrap_or(1_000),
            recompute_seconds_max: arguments
                .recompute_seconds_max
                .or(file.recompute_seconds_max)
                .unwrap_or(60),
            log: arguments.log.or(file.log).unwrap_or_else(|| {
                "info,openraft=warn,buoyant_kernel=warn,deltalake=warn".to_owned()
            }),
            log_format: arguments.log_format.or(file.log_format).unwrap_or_default(),
            auth: arguments.auth.or(file.auth).unwrap_or_default(),
            tls_required: arguments
                .tls_required
                .or(file.tls_required)
                .unwrap_or(tls.is_some()),
            tls,
            initial_password: initial_password(
                arguments
                    .initial_password_file
                    .or(file.initial_password_file),
            )?,
        };
        settings.check()?;
        Ok(settings)
    }

    /// Every listener: the setting's name and the address.
    const fn listeners(&self) -> [(&'static str, SocketAddr); 3] {
        [
            ("pg_listen", self.pg_listen),
            ("http_listen", self.http_listen),
            ("flight_listen", self.flight_listen),
        ]
    }

    fn check(&self) -> anyhow::Result<()> {
        for (name, address) in self.listeners() {
            if address.ip().is_loopback() {
                continue;
            }
            let mut missing = Vec::new();
            if self.tls.is_none() {
                missing.push("tls_cert_file and tls_key_file");
            }
            if self.auth != Auth::Scram {
                missing.push("auth = \"scram\"");
            }
            if !missing.is_empty() {
                bail!(
                    "{name} is {address}: beyond loopback a node listens only with TLS and passwords; set {}",
                    missing.join(" and ")
                );
            }
            if !self.tls_required {
                bail!(
                    "{name} is {address} and tls_required is false: beyond loopback a node listens only with TLS; remove tls_required"
                );
            }
        }
        if self.tls_required && self.tls.is_none() {
            bail!("tls_required is true without a certificate: set tls_cert_file and tls_key_file");
        }
        if self.shards == 0 {
            bail!("shards must be at least 1");
        }
        if self.query_memory_mib < QUERY_MEMORY_MIB_MIN {
            bail!("query_memory_mib must be at least {QUERY_MEMORY_MIB_MIN}");
        }
        if self.session_memory_mib < SESSION_MEMORY_MIB_MIN {
            bail!("session_memory_mib must be at least {SESSION_MEMORY_MIB_MIN}");
        }
        if !COMMIT_INTERVAL_MS.contains(&self.commit_interval_ms) {
            bail!(
                "commit_interval_ms must be between {} and {}",
                COMMIT_INTERVAL_MS.start(),
                COMMIT_INTERVAL_MS.end()
            );
        }
        if self.recompute_seconds_max == 0 {
            bail!("recompute_seconds_max must be at least 1");
        }
        if self.subscriber_memory_mib < SUBSCRIBER_MEMORY_MIB_MIN {
            bail!("subscriber_memory_mib must be at least {SUBSCRIBER_MEMORY_MIB_MIN}");
        }
        Ok(())
    }
}

/// The certificate and the key, which are set together or not at all.
fn tls_files(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
) -> anyhow::Result<Option<TlsFiles>> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles { certificate, key })),
        (None, None) => Ok(None),
        (Some(_), None) => bail!("tls_cert_file is set and tls_key_file is not"),
        (None, Some(_)) => bail!("tls_key_file is set and tls_cert_file is not"),
    }
}

/// The first password of the default role. A line break at the end of the file is not part of it.
fn initial_password(file: Option<PathBuf>) -> anyhow::Result<Option<Password>> {
    let password = match file {
        Some(path) => {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let text = text.strip_suffix('\n').unwrap_or(&text);
            Some(text.strip_suffix('\r').unwrap_or(text).to_owned())
        }
        None => match std::env::var("FLOWSTONE_INITIAL_PASSWORD") {
            Ok(text) => Some(text),
            Err(std::env::VarError::NotPresent) => None,
            Err(std::env::VarError::NotUnicode(_)) => {
                bail!("FLOWSTONE_INITIAL_PASSWORD is not UTF-8")
            }
        },
    };
    if password.as_ref().is_some_and(String::is_empty) {
        bail!("the initial password is empty");
    }
    Ok(password.map(Password))
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
