//! Topics of updates with times (`ENVELOPE MATERIALIZE`): rows become visible in whole times, and what is not whole survives that the node is killed.

use flowstone_tests::kafka::Record;
use flowstone_tests::{Kafka, Node, wait};
use tokio_postgres::Client;

use super::avro::put_long;
use super::bad_input::{DEADLINE, connect_kafka, rows, run, until};

/// How often the node is killed.
const KILLS: i64 = 5;

const MESSAGES: &str = r#"FORMAT AVRO USING SCHEMA '[
    {"type":"array","items":{"type":"record","name":"update","namespace":"com.materialize.cdc","fields":[
        {"name":"data","type":{"type":"record","name":"data","fields":[{"name":"id","type":"long"}]}},
        {"name":"time","type":"long"},
        {"name":"diff","type":"long"}]}},
    {"type":"record","name":"progress","namespace":"com.materialize.cdc","fields":[
        {"name":"lower","type":{"type":"array","items":"long"}},
        {"name":"upper","type":{"type":"array","items":"long"}},
        {"name":"counts","type":{"type":"array","items":{"type":"record","name":"counts","fields":[
            {"name":"time","type":"long"},{"name":"count","type":"long"}]}}}]}]' ENVELOPE MATERIALIZE"#;

fn message(values: &[i64]) -> Record {
    let mut bytes = Vec::new();
    for value in values {
        put_long(*value, &mut bytes);
    }
    Record::of_value(bytes)
}

/// An update: row, time, weight.
fn update(id: i64, time: i64, weight: i64) -> Record {
    message(&[0, 1, id, time, weight, 0])
}

/// Progress from a time on to before another, and how many updates there are at the first of them.
fn progress(lower: i64, upper: i64, count: i64) -> Record {
    message(&[1, 1, lower, 0, 1, upper, 0, 1, lower, count, 0])
}

/// The topic, and how many messages it has.
struct Topic {
    kafka: Kafka,
    count: usize,
}

impl Topic {
    async fn write(&mut self, records: &[Record]) {
        self.kafka.produce("in", records).await.unwrap();
        self.count += records.len();
    }

    /// Waits until all messages were taken.
    async fn until_taken(&self, client: &Client) {
        let taken = "SELECT \"offset\" FROM s_progress";
        until(client, taken, &[self.count.to_string()]).await;
    }
}

async fn until_ids(client: &Client, table: &str, ids: &[i64]) {
    let ids: Vec<String> = ids.iter().map(i64::to_string).collect();
    let sql = format!("SELECT id FROM {table} ORDER BY id");
    until(client, &sql, &ids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_become_visible_in_whole_times_also_if_the_node_is_killed_before_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = Kafka::start(dir.path()).await.unwrap();
    kafka.create_topic("in", 1, &[]).await.unwrap();
    let mut topic = Topic { kafka, count: 0 };
    topic
        .write(&[
            update(-1, 0, 1),
            progress(0, 1, 1),
            // Before its updates, and behind a gap.
            progress(2, 3, 2),
        ])
        .await;
    let mut node = Node::start(dir.path(), 2).await.unwrap();
    let mut client = node.connect().await.unwrap();
    connect_kafka(&client, &topic.kafka).await;
    let sql = "CREATE SOURCE s FROM KAFKA CONNECTION kafka (TOPIC 'in')";
    run(&client, sql).await;
    let sql = format!("CREATE TABLE t1 FROM SOURCE s (REFERENCE \"in\") {MESSAGES}");
    run(&client, &sql).await;
    until_ids(&client, "t1", &[-1]).await;
    topic
        .write(&[progress(1, 2, 0), update(-2, 2, 1), update(-1, 2, -1)])
        .await;
    until_ids(&client, "t1", &[-2]).await;

    let mut ids = vec![-2];
    for round in 0..KILLS {
        let time = 3 + 2 * round;
        // Of the second of two times everything is there, of the first one update is still to come.
        topic
            .write(&[
                update(100 + round, time + 1, 1),
                progress(time + 1, time + 2, 1),
                update(round, time, 1),
                progress(time, time + 1, 2),
            ])
            .await;
        if round % 2 == 0 {
            topic.until_taken(&client).await;
        }
        node.kill().unwrap();
        node.restart().await.unwrap();
        client = node.connect().await.unwrap();
        topic.until_taken(&client).await;
        until_ids(&client, "t1", &ids).await;
        // What was said before is said again, and then the rest.
        topic
            .write(&[
                update(round, time, 1),
                progress(time, time + 1, 2),
                update(-2, 2, 1),
                update(200 + round, time, 1),
            ])
            .await;
        ids.extend([round, 100 + round, 200 + round]);
        ids.sort_unstable();
        until_ids(&client, "t1", &ids).await;
    }

    // Another table of the topic knows as much, and both go on.
    let sql = format!("CREATE TABLE t2 FROM SOURCE s (REFERENCE \"in\") {MESSAGES}");
    run(&client, &sql).await;
    until_ids(&client, "t2", &ids).await;
    let time = 3 + 2 * KILLS;
    topic.write(&[update(999, time, 1)]).await;
    topic.until_taken(&client).await;
    node.kill().unwrap();
    node.restart().await.unwrap();
    client = node.connect().await.unwrap();
    topic.write(&[progress(time, time + 1, 1)]).await;
    ids.push(999);
    for table in ["t1", "t2"] {
        until_ids(&client, table, &ids).await;
    }

    // A topic of two partitions has no order.
    topic.kafka.create_topic("two", 2, &[]).await.unwrap();
    let record = update(1, 0, 1).to_partition(1);
    topic.kafka.produce("two", &[record]).await.unwrap();
    let sql = format!("CREATE SOURCE two FROM KAFKA CONNECTION kafka (TOPIC 'two') {MESSAGES}");
    run(&client, &sql).await;
    wait::until(
        "the table of two partitions to fail",
        DEADLINE,
        async || match rows(&client, "SELECT * FROM two").await {
            Err(error) if error.contains("needs a topic of one partition") => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )
    .await
    .unwrap();
}
