//! Starting a node, and stopping it in the right order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use flowstone_coordinator::{AuthPolicy, Machine};
use flowstone_tls::{Admission, Plaintext, Protocol, ServerTls, TlsListener};
use flowstone_types::Clock;
use flowstone_types::budget::allocator::this_thread_ends;
use flowstone_types::clock::SystemClock;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{Auth, Settings, TlsFiles};
use crate::data_dir::DataDir;

/// Stack of the runtimes' threads in bytes: query planning recurses deeply, in debug builds above all.
const STACK_BYTES: usize = 64 << 20;

/// Runs a node until it is told to stop.
///
/// # Errors
/// Whatever keeps the node from starting, or broke while it ran.
pub(crate) fn run(settings: Settings) -> anyhow::Result<()> {
    crate::log::init(&settings)?;
    activate_failpoints()?;
    crate::privacy::mask_new_files();
    let admission = Admission::new(crate::descriptors::connections_max()?);
    let data_dir = DataDir::open(&settings.data_dir)?;
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is installed already"))?;
    let runtime = |name: &'static str| {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_name(name)
            .thread_stack_size(STACK_BYTES)
            .on_thread_stop(this_thread_ends)
            .build()
    };
    let compute = runtime("compute").context("cannot start the compute runtime")?;
    let messages = runtime("messages").context("cannot start the message runtime")?;
    let outcome = messages.block_on(serve(&settings, compute.handle().clone(), admission));
    messages.shutdown_background();
    compute.shutdown_background();
    drop(data_dir);
    outcome
}

/// Which writes are made to fail: for tests, and not a setting of a deployment.
fn activate_failpoints() -> anyhow::Result<()> {
    match std::env::var("FLOWSTONE_FAILPOINTS") {
        Ok(setting) => Ok(flowstone_disk::failpoint::activate(&setting)
            .context("FLOWSTONE_FAILPOINTS is wrong")?),
        Err(std::env::VarError::NotPresent) => Ok(()),
        Err(error) => Err(error).context("FLOWSTONE_FAILPOINTS is wrong"),
    }
}

async fn serve(
    settings: &Settings,
    compute: tokio::runtime::Handle,
    admission: Admission,
) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let tls = load_tls(settings, clock.as_ref()).await?;
    // Bind first: a port in use should be said before anything is recovered.
    let pg = bind("PostgreSQL clients", settings.pg_listen).await?;
    let http = bind("HTTP", settings.http_listen).await?;
    let flight = bind("Arrow Flight clients", settings.flight_listen).await?;
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;

    let (coordinator_end, worker_end) = flowstone_proto::local::connect();
    let worker_config = flowstone_worker::Config {
        data_dir: settings.data_dir.clone(),
        shards: settings.shards,
        clock: Arc::clone(&clock),
        compute,
        query_memory_bytes: settings.query_memory_mib.saturating_mul(1 << 20),
        subscriber_memory_bytes: settings.subscriber_memory_mib.saturating_mul(1 << 20),
        recompute_time_max: Duration::from_secs(settings.recompute_seconds_max),
    };
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(flowstone_worker::start(worker_config, worker_end));
    let coordinator_config = flowstone_coordinator::Config {
        data_dir: settings.data_dir.clone(),
        secret_key_file: None,
        auth: match settings.auth {
            Auth::TrustLoopback => AuthPolicy::TrustLoopback,
            Auth::Scram => AuthPolicy::Scram,
        },
        commit_interval_ms: settings.commit_interval_ms,
        session_memory_bytes: settings.session_memory_mib.saturating_mul(1 << 20),
        machine: Machine {
            shards: settings.shards,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        },
        clock: Arc::clone(&clock),
    };
    let client = tokio::select! {
        client = flowstone_coordinator::start(coordinator_config, coordinator_end) => client.context("the coordinator cannot start")?,
        outcome = tasks.join_next() => return worker_ended(outcome),
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    set_first_password(settings, &client).await?;
    let security = flowstone_pgwire::Security {
        tls: tls.clone(),
        tls_required: settings.tls_required,
    };
    // `refusal` is what clients hear that begin without TLS where it is required.
    let listener = |socket, protocol, refusal: &'static [u8]| {
        let tls = tls.clone().map(|tls| {
            let plaintext = if settings.tls_required {
                Plaintext::Refused(refusal)
            } else {
                Plaintext::Allowed
            };
            (tls, protocol, plaintext)
        });
        let admission = admission.clone();
        match tls {
            None => TlsListener::plain(socket, admission),
            Some((tls, protocol, plaintext)) => {
                TlsListener::tls(socket, tls, protocol, plaintext, admission)
            }
        }
    };
    let http = listener(http, Protocol::Http, flowstone_console::PLAINTEXT_REFUSED);
    let flight = listener(flight, Protocol::Grpc, flowstone_flight::PLAINTEXT_REFUSED);
    let serving = [
        server_task(
            "pgwire",
            flowstone_pgwire::serve(pg, client.clone(), security, admission, stop.clone()),
        ),
        server_task(
            "flight",
            flowstone_flight::serve(flight, client.clone(), stop.clone()),
        ),
        server_task("http", {
            let (client, stop) = (client.clone(), stop.clone());
            async move {
                if let Err(error) = flowstone_console::serve(http, client, stop).await {
                    tracing::error!(%error, "HTTP stopped");
                }
            }
        }),
    ];
    tracing::info!(
        pg = %settings.pg_listen,
        http = %settings.http_listen,
        flight = %settings.flight_listen,
        data_dir = %settings.data_dir.display(),
        shards = settings.shards,
        "flowstone {} is ready: psql -h {} -p {} -U materialize materialize",
        env!("CARGO_PKG_VERSION"),
        settings.pg_listen.ip(),
        settings.pg_listen.port(),
    );
    let giving_back = crate::memory::give_back();
    tokio::pin!(giving_back);
    let outcome = loop {
        tokio::select! {
            () = &mut giving_back => {}
            outcome = tasks.join_next() => break worker_ended(outcome),
            reason = client.failed() => break Err(anyhow::anyhow!("the node cannot go on: {reason}")),
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            _ = hangup.recv() => reload_tls(tls.clone(), clock.as_ref()).await,
        }
    };
    tracing::info!("stopping");
    stop.cancel();
    for task in serving {
        if task.await.is_err() {
            tracing::error!("a server task panicked");
        }
    }
    if outcome.is_ok() {
        client.shutdown().await;
        while let Some(ended) = tasks.join_next().await {
            ended.context("the worker panicked")??;
        }
        tracing::info!("stopped");
    }
    outcome
}

/// Reads the certificate and the key, if there are any.
async fn load_tls(
    settings: &Settings,
    clock: &dyn Clock,
) -> anyhow::Result<Option<Arc<ServerTls>>> {
    let Some(TlsFiles { certificate, key }) = settings.tls.clone() else {
        return Ok(None);
    };
    let loaded = tokio::task::spawn_blocking(move || ServerTls::load(&certificate, &key))
        .await
        .context("reading the certificate panicked")??;
    warn_of_validity(&loaded, clock);
    Ok(Some(Arc::new(loaded)))
}

/// SIGHUP: the files have changed. What cannot be used is said in the log, and what is in use stays.
async fn reload_tls(tls: Option<Arc<ServerTls>>, clock: &dyn Clock) {
    let Some(tls) = tls else {
        tracing::info!("SIGHUP: there is no certificate to read again");
        return;
    };
    let reloading = Arc::clone(&tls);
    match tokio::task::spawn_blocking(move || reloading.reload()).await {
        Ok(Ok(())) => {
            tracing::info!("SIGHUP: the certificate and the key were read again");
            warn_of_validity(&tls, clock);
        }
        Ok(Err(error)) => {
            let error = format!("{:#}", anyhow::Error::new(error));
            tracing::error!(%error, "SIGHUP: the certificate and the key stay as they were");
        }
        Err(error) => tracing::error!(%error, "reading the certificate panicked"),
    }
}

/// A certificate out of its time is no error: clients may not check, and an old one is better than no node.
fn warn_of_validity(tls: &ServerTls, clock: &dyn Clock) {
    let now_s = i64::try_from(clock.now_ms() / 1000).unwrap_or(i64::MAX);
    let file = tls.certificate_file().display();
    match tls.validity() {
        Some(validity) if now_s > validity.not_after_s => {
            tracing::warn!(%file, "the certificate has expired: clients that verify it will refuse to connect");
        }
        Some(validity) if now_s < validity.not_before_s => {
            tracing::warn!(%file, "the certificate is not valid yet: clients that verify it will refuse to connect");
        }
        Some(_) | None => {}
    }
}

/// Sets the initial password where it is needed, and warns if nobody could log in.
async fn set_first_password(
    settings: &Settings,
    client: &flowstone_coordinator::Client,
) -> anyhow::Result<()> {
    if let Some(password) = &settings.initial_password {
        let set = client
            .set_first_password(&password.0)
            .await
            .context("cannot set the initial password")?;
        if set {
            tracing::info!("the role materialize has its first password");
        } else {
            tracing::info!("the initial password is not used: the role materialize has one");
        }
    }
    if settings.auth == Auth::Scram && !client.has_password() {
        tracing::warn!(
            "nobody can log in, because no role has a password: set initial_password_file, or FLOWSTONE_INITIAL_PASSWORD"
        );
    }
    Ok(())
}

fn worker_ended(
    outcome: Option<Result<Result<(), flowstone_worker::Error>, tokio::task::JoinError>>,
) -> anyhow::Result<()> {
    match outcome {
        Some(Ok(Ok(()))) | None => anyhow::bail!("the worker ended by itself"),
        Some(Ok(Err(error))) => Err(error).context("the worker stopped"),
        Some(Err(error)) => Err(error).context("the worker panicked"),
    }
}

/// Spawns a server whose end `serve` awaits.
fn server_task(
    name: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) -> tokio::task::JoinHandle<()> {
    tracing::debug!(name, "server started");
    tokio::spawn(work)
}

async fn bind(what: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} for {what}"))
}
