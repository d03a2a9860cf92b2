//! How long after a message was handed to a producer a strict-serializable SELECT of an aggregate view shows it; beside it, how long it takes to a consumer.
//!
//! Owns its topic and its view. How SELECTs are compared with what was written is the benchmark `freshness`'s.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::{Stage, client};
use crate::freshness::{delays, look};
use crate::report::{Aim, Better, Figure, Scale, milliseconds, percentile};

const TOPIC: &str = "writes";
const MESSAGES_PER_SECOND: u32 = 100;
const REGIONS: i64 = 10;
/// How long after the last message everything must have been seen.
const DEADLINE: Duration = Duration::from_secs(60);

/// Messages that are there before, and seconds of writing.
fn size(scale: Scale) -> (i64, u32) {
    (scale.pick(100_000, 1000), scale.pick(60, 2))
}

pub(super) fn method(scale: Scale) -> String {
    let (before, seconds) = size(scale);
    format!(
        "freshness: {MESSAGES_PER_SECOND} messages/s of JSON for {seconds} s into a topic of {before}, from handing one to a producer without linger until the answer of \
         a SELECT that shows it is here, SELECTs one after the other, and until a consumer has it"
    )
}

pub(super) async fn measure(stage: &Stage, scale: Scale) -> Result<(Vec<Figure>, Value)> {
    let (before, seconds) = size(scale);
    let last = before + i64::from(seconds * MESSAGES_PER_SECOND);
    let patience = DEADLINE + Duration::from_secs(seconds.into());
    let config = stage.kafka.client_config();
    stage.kafka.create_topic(TOPIC, 1, &[]).await?;
    let filling = {
        let config = config.clone();
        move || {
            client::produce(&config, TOPIC, 1, before, |number, _, value| {
                value.extend_from_slice(message(number + 1).as_bytes());
                Ok(0)
            })
        }
    };
    tokio::task::spawn_blocking(filling).await??;
    for statement in [
        "CREATE SOURCE writes (number bigint, region bigint) FROM KAFKA CONNECTION kafka (TOPIC 'writes') FORMAT JSON",
        "CREATE MATERIALIZED VIEW totals AS
         SELECT region, count(*) AS writes, sum(number)::bigint AS total FROM writes GROUP BY region",
    ] {
        stage.client.batch_execute(statement).await?;
    }
    let select = "SELECT region, writes, total FROM totals";
    let select = stage.client.prepare(select).await?;
    let first = look(&stage.client, &select).await?;
    if first.last != before {
        bail!("{} messages instead of {before}", first.last);
    }

    let (is_ready, ready) = oneshot::channel();
    let listener = {
        let config = config.clone();
        tokio::task::spawn_blocking(move || listen(&config, before, last, is_ready, patience))
    };
    // If it is dropped, the listener says why.
    if ready.await.is_err() {
        listener.await??;
        bail!("the consumer ended early");
    }
    let sending = Arc::new(AtomicI64::new(before));
    // It ends with this function, however that ends.
    let mut writing = JoinSet::new();
    writing.spawn(write(config, before, last, Arc::clone(&sending)));
    let mut seen = Vec::new();
    let begin = Instant::now();
    loop {
        let now = look(&stage.client, &select).await?;
        if now.last > sending.load(Ordering::SeqCst) {
            bail!("a message is shown before it was sent");
        }
        let done = now.last == last;
        seen.push(now);
        if done {
            break;
        }
        if begin.elapsed() > patience {
            let statuses = stage.statuses().await?;
            bail!("the last message is not shown after {patience:?}: {statuses}");
        }
    }
    let sent = writing.join_next().await.context("nobody writes")???;
    let received = listener.await??;

    let shown = delays(before, &sent, &seen)?;
    let plain = itertools::zip_eq(&sent, &received);
    let plain = plain.map(|(sent, received)| milliseconds(received.duration_since(*sent)));
    let plain: Vec<f64> = plain.collect();
    let figure = |what: &str, percent| {
        let at = |delays: &[f64]| vec![percentile(delays, percent)];
        let name = format!("freshness: {what}");
        Figure::new(name, "ms", Better::Lower, at(&shown)).against("plain consumer", at(&plain))
    };
    let took: Vec<f64> = seen.iter().map(|look| milliseconds(look.took)).collect();
    let described = json!({
        "messages": sent.len(),
        "selects": seen.len(),
        "select_p50_ms": percentile(&took, 50),
        "select_p99_ms": percentile(&took, 99),
    });
    let figures = vec![
        figure("p50", 50).aim(Aim::AtMost(15.0)),
        figure("p99", 99),
        figure("worst", 100),
    ];
    Ok((figures, described))
}

fn message(number: i64) -> String {
    format!(r#"{{"number":{number},"region":{}}}"#, number % REGIONS)
}

/// Sends one message after the other at an even rate; says when each was handed over.
async fn write(
    mut config: ClientConfig,
    before: i64,
    last: i64,
    sending: Arc<AtomicI64>,
) -> Result<Vec<Instant>> {
    config.set("enable.idempotence", "true");
    config.set("linger.ms", "0");
    let producer: FutureProducer = config.create()?;
    let mut interval = tokio::time::interval(Duration::from_secs(1) / MESSAGES_PER_SECOND);
    interval.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut sent, mut deliveries) = (Vec::new(), Vec::new());
    for number in before + 1..=last {
        interval.tick().await;
        let value = message(number);
        let record = FutureRecord::<[u8], [u8]>::to(TOPIC).partition(0);
        let record = record.payload(value.as_bytes());
        sending.store(number, Ordering::SeqCst);
        sent.push(Instant::now());
        let delivery = producer.send_result(record);
        deliveries.push(delivery.map_err(|(error, _)| error)?);
    }
    for delivery in deliveries {
        let delivered = delivery.await?;
        delivered.map_err(|(error, _)| anyhow!("a message was not delivered: {error}"))?;
    }
    Ok(sent)
}

/// When a consumer has each message after `before`. Message `n` is at offset `n - 1`. `is_ready` hears once the one at `before` is there: the consumer waits for
/// more from then on.
fn listen(
    config: &ClientConfig,
    before: i64,
    last: i64,
    is_ready: oneshot::Sender<()>,
    patience: Duration,
) -> Result<Vec<Instant>> {
    let from = (0, Offset::Offset(before - 1));
    let consumer = client::assigned(config, TOPIC, std::iter::once(from))?;
    let wanted = usize::try_from(last - before)?;
    let mut is_ready = Some(is_ready);
    let mut received = Vec::with_capacity(wanted);
    let begin = Instant::now();
    while received.len() < wanted {
        let message = consumer.poll(client::CONSUMER_POLL);
        let now = Instant::now();
        match message.transpose().context("the consumer failed")? {
            Some(_) => match is_ready.take() {
                Some(is_ready) => drop(is_ready.send(())),
                None => received.push(now),
            },
            None if begin.elapsed() > patience => {
                bail!("a consumer has {} of {wanted} messages", received.len());
            }
            None => {}
        }
    }
    Ok(received)
}
