//! Starting a node, and stopping it in the right order.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use flowstone_types::Clock;
use flowstone_types::clock::SystemClock;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{LogFormat, Settings};
use crate::data_dir::DataDir;

/// Stack of the runtimes' threads in bytes: query planning recurses deeply, in debug builds above all.
const STACK_BYTES: usize = 16 << 20;

/// Runs a node until it is told to stop.
///
/// # Errors
/// Whatever keeps the node from starting, or broke while it ran.
pub(crate) fn run(settings: Settings) -> anyhow::Result<()> {
    init_log(&settings)?;
    let data_dir = DataDir::open(&settings.data_dir)?;
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is installed already"))?;
    let runtime = |name: &'static str| {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_name(name)
            .thread_stack_size(STACK_BYTES)
            .build()
    };
    let compute = runtime("compute").context("cannot start the compute runtime")?;
    let messages = runtime("messages").context("cannot start the message runtime")?;
    let outcome = messages.block_on(serve(&settings, compute.handle().clone()));
    messages.shutdown_background();
    compute.shutdown_background();
    drop(data_dir);
    outcome
}

fn init_log(settings: &Settings) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&settings.log)
        .with_context(|| format!("\"{}\" is not a log filter", settings.log))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let installed = match settings.log_format {
        LogFormat::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    installed.map_err(|error| anyhow::anyhow!("cannot set up the log: {error}"))
}

async fn serve(settings: &Settings, compute: tokio::runtime::Handle) -> anyhow::Result<()> {
    // Bind first: a port in use should be said before anything is recovered.
    let pg = bind("PostgreSQL clients", settings.pg_listen).await?;
    let http = bind("HTTP", settings.http_listen).await?;
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (coordinator_end, worker_end) = flowstone_proto::local::connect();
    let worker_config = flowstone_worker::Config {
        data_dir: settings.data_dir.clone(),
        shards: settings.shards,
        clock: Arc::clone(&clock),
        compute,
        query_memory_bytes: settings.query_memory_mib.saturating_mul(1 << 20),
    };
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(flowstone_worker::start(worker_config, worker_end));
    let coordinator_config = flowstone_coordinator::Config {
        data_dir: settings.data_dir.clone(),
        secret_key_file: None,
        clock,
    };
    let client = tokio::select! {
        client = flowstone_coordinator::start(coordinator_config, coordinator_end) => client.context("the coordinator cannot start")?,
        outcome = tasks.join_next() => return worker_ended(outcome),
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let serving = [
        server_task(
            "pgwire",
            flowstone_pgwire::serve(pg, client.clone(), stop.clone()),
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
        data_dir = %settings.data_dir.display(),
        shards = settings.shards,
        "flowstone {} is ready: psql -h {} -p {} -U materialize materialize",
        env!("CARGO_PKG_VERSION"),
        settings.pg_listen.ip(),
        settings.pg_listen.port(),
    );
    let outcome = tokio::select! {
        outcome = tasks.join_next() => worker_ended(outcome),
        reason = client.failed() => Err(anyhow::anyhow!("the node cannot go on: {reason}")),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
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
