//! Point lookups over pgwire through an index, against PostgreSQL on its primary key, on the same rows by the same client.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;

use crate::report::{Aim, Better, Figure, Scale, Section};
use crate::servers::{Servers, output_of};

/// Rows per unit of pgbench's scale.
const ACCOUNTS: u32 = 100_000;

pub(crate) async fn run(scale: Scale) -> Result<Section> {
    let servers = Servers::start().await?;
    let units = scale.pick(10, 1);
    let seconds = scale.pick(10, 1);
    let repetitions = scale.pick(5, 1);
    let units_text = units.to_string();
    output_of(servers.postgres.client_command("pgbench").args([
        "-i",
        "-q",
        "-s",
        &units_text,
        "postgres",
    ]))?;
    // Every balance is 0 after that; answers should tell rows apart.
    servers
        .upstream
        .batch_execute(
            "UPDATE pgbench_accounts SET abalance = aid * 7 % 1000003;
             CREATE PUBLICATION bench FOR TABLE pgbench_accounts",
        )
        .await?;
    servers
        .upstream
        .batch_execute("VACUUM FULL ANALYZE pgbench_accounts")
        .await?;
    servers
        .client
        .batch_execute(
            "CREATE SOURCE bench FROM POSTGRES CONNECTION pg (PUBLICATION 'bench') FOR ALL TABLES",
        )
        .await?;
    servers
        .client
        .batch_execute("CREATE INDEX accounts_by_id ON pgbench_accounts (aid)")
        .await?;
    let rows = units * ACCOUNTS;
    servers
        .compare("SELECT count(*), sum(aid::bigint * abalance)::bigint FROM pgbench_accounts")
        .await?;
    for at in 0..100 {
        let aid = at * (rows / 100) + at + 1;
        servers
            .compare(&format!(
                "SELECT abalance::bigint FROM pgbench_accounts WHERE aid = {aid}"
            ))
            .await?;
    }

    let script = tempfile::NamedTempFile::new()?;
    std::fs::write(
        script.path(),
        format!(
            "\\set aid random(1, {rows})\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n"
        ),
    )?;
    let mut figures = Vec::new();
    for connections in [1, 8] {
        let (mut ours, mut peers) = (Vec::new(), Vec::new());
        // A second for each side to warm up.
        per_second(
            servers.node_command("pgbench"),
            script.path(),
            connections,
            1,
            "materialize",
        )?;
        per_second(
            servers.postgres.client_command("pgbench"),
            script.path(),
            connections,
            1,
            "postgres",
        )?;
        for _ in 0..repetitions {
            ours.push(per_second(
                servers.node_command("pgbench"),
                script.path(),
                connections,
                seconds,
                "materialize",
            )?);
            peers.push(per_second(
                servers.postgres.client_command("pgbench"),
                script.path(),
                connections,
                seconds,
                "postgres",
            )?);
        }
        figures.push(
            Figure::new(
                format!("connections: {connections}"),
                "lookups/s",
                Better::Higher,
                ours,
            )
            .against("PostgreSQL 15", peers)
            .aim(Aim::Ratio(1.0)),
        );
    }
    Ok(Section {
        method: format!(
            "pgbench -M prepared, one row of {rows} by its key; {repetitions} times {seconds} s, the two servers in turn; pgbench runs on the same machine"
        ),
        figures,
        details: json!({"rows": rows, "seconds": seconds, "repetitions": repetitions}),
    })
}

/// Transactions per second of the script, without the time to connect.
fn per_second(
    mut pgbench: Command,
    script: &Path,
    connections: u32,
    seconds: u32,
    database: &str,
) -> Result<f64> {
    let output = output_of(
        pgbench
            .args(["-n", "-M", "prepared", "-c", &connections.to_string()])
            .args(["-j", &connections.min(2).to_string()])
            .args(["-T", &seconds.to_string(), "-f"])
            .arg(script)
            .arg(database),
    )?;
    let rate = output
        .lines()
        .find_map(|line| line.strip_prefix("tps = "))
        .and_then(|rest| rest.split_whitespace().next())
        .with_context(|| format!("pgbench says {output}"))?;
    Ok(rate.parse()?)
}
