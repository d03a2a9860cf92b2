//! The two tutorials, statement for statement as they are written.

use std::collections::{BTreeMap, HashMap};

use flowstone_tests::connect::{mysql_connector, write_avro};
use flowstone_tests::kafka::{Isolation, Listener, Record};
use flowstone_tests::{Connect, Kafka, Mysql, Node, Registry, RegistryOptions, wait};
use serde_json::{Value, json};

use super::avro::{self, Writer};
use super::{
    DEADLINE, DEBEZIUM, ESTUARY, Session, cell, fold, statements, trusting, until_records,
};

/// The table of the tutorial's demonstration.
const SHOP: &str = "
    CREATE DATABASE shop;
    CREATE TABLE shop.users (
        id SERIAL PRIMARY KEY,
        email VARCHAR(255),
        is_vip BOOLEAN DEFAULT FALSE,
        created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
        updated_at DATETIME DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP
    );
    INSERT INTO shop.users (email, is_vip) VALUES ('ann@example.com', FALSE), ('bob@example.com', TRUE), ('zoë@example.com', FALSE);
";

const PAGEVIEWS: &str = "pageviews";
const SINK: &str = "pageviews-user-segment-sink";
const HOUR: i64 = 3600;

/// The view, with hours as a sink of Avro writes them.
const SEGMENTS: &str = "SELECT is_vip, channel, (extract(epoch FROM ts_hour) * 1000000)::bigint, pageview_count FROM pageviews_by_user_segment";

/// A view of a page by a user, over a channel, at seconds since 1970.
#[derive(Clone, Copy)]
struct Pageview(i64, &'static str, i64);

impl Pageview {
    fn record(self) -> Record {
        let Self(user, channel, at) = self;
        let event =
            json!({"user_id": user, "url": "/products/56", "channel": channel, "received_at": at});
        Record::of_value(event.to_string())
    }
}

/// The servers of the tutorial, and what has happened so far.
struct Shop {
    kafka: Kafka,
    registry: Registry,
    mysql: Mysql,
    session: Session,
    pageviews: Vec<Pageview>,
}

impl Shop {
    async fn view_pages(&mut self, pageviews: &[Pageview]) {
        let records: Vec<Record> = pageviews.iter().map(|pageview| pageview.record()).collect();
        self.kafka.produce(PAGEVIEWS, &records).await.unwrap();
        self.pageviews.extend_from_slice(pageviews);
    }

    fn change_users(&self, sql: &str) {
        self.mysql.execute(sql).unwrap();
    }

    /// What the view should be, from what is in MySQL now and all page views.
    fn truth(&self) -> Vec<String> {
        let users = self.mysql.execute("SELECT id, is_vip FROM shop.users");
        let users = users.unwrap();
        let is_vip: HashMap<i64, &str> = users
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .map(|(id, is_vip)| (id.parse().unwrap(), is_vip))
            .collect();
        let mut counts: BTreeMap<(&str, &str, i64), usize> = BTreeMap::new();
        for Pageview(user, channel, at) in &self.pageviews {
            if let Some(is_vip) = is_vip.get(user) {
                *counts.entry((*is_vip, *channel, at / HOUR)).or_default() += 1;
            }
        }
        let line = |((is_vip, channel, hour), count): (&(&str, &str, i64), &usize)| {
            // A text that is made of JSON keeps its quotes.
            format!("{is_vip}|\"{channel}\"|{}|{count}", hour * HOUR * 1_000_000)
        };
        counts.iter().map(line).collect()
    }

    /// Waits until the view is what it should be.
    async fn until_counted(&self) -> Vec<String> {
        let truth = self.truth();
        self.session.until(SEGMENTS, &truth).await;
        truth
    }

    /// Waits until the records of the sink lead to what the view should be, which it is; the records.
    async fn until_folded(&self) -> Vec<Value> {
        let mut truth = self.until_counted().await;
        truth.sort();
        wait::until(
            "the sink's topic to fold to the view",
            DEADLINE,
            async || {
                let records = self.kafka.read(SINK, Isolation::Committed).await;
                let records = records.map_err(|error| format!("{error:#}"))?;
                let changes = avro::values(&self.registry, &records).await?;
                let folded = fold(&changes, |row| {
                    ["is_vip", "channel", "ts_hour", "pageview_count"]
                        .map(|column| cell(&row[column]))
                        .join("|")
                })?;
                if folded == truth {
                    return Ok(changes);
                }
                let statuses = "SELECT name, status, error FROM mz_internal.mz_sink_statuses";
                let statuses = self.session.lines(statuses).await;
                Err(format!("{folded:#?} instead of {truth:#?}; {statuses:?}"))
            },
        )
        .await
        .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pageviews_are_counted_by_users_of_mysql_and_the_changes_go_to_a_topic() {
    let dir = tempfile::tempdir().unwrap();
    let (kafka, registry, mysql, node) = tokio::try_join!(
        Kafka::start(dir.path()),
        Registry::start(dir.path()),
        Mysql::start(dir.path()),
        Node::start(dir.path(), 2),
    )
    .unwrap();
    let connect = Connect::start(dir.path(), &kafka).await.unwrap();
    let session = Session::connect(&node).await;
    let mut shop = Shop {
        kafka,
        registry,
        mysql,
        session,
        pageviews: Vec::new(),
    };
    shop.change_users(SHOP);
    let mut connector = mysql_connector(&shop.kafka, &shop.mysql, "mysql", "shop");
    write_avro(&mut connector, &shop.registry);
    connector.insert("time.precision.mode".to_owned(), json!("connect"));
    connect.create("mysql-connector", &connector).await.unwrap();
    shop.kafka.create_topic(PAGEVIEWS, 1, &[]).await.unwrap();
    let start = 1_619_461_059;
    shop.view_pages(&[
        Pageview(1, "social", start),
        Pageview(1, "social", start + 10),
        Pageview(2, "organic search", start + 20),
        Pageview(2, "social", start + HOUR),
        // Nobody yet.
        Pageview(4, "social", start),
    ])
    .await;
    until_records(&shop.kafka, "mysql.shop.users", 3).await;

    let broker = shop.kafka.bootstrap(Listener::Plaintext);
    let url = shop.registry.url();
    let (broker, url) = (broker.as_str(), url.as_str());
    let registry_of_document = "http://schema-registry:8081";
    let sources = [("kafka:9092", broker), (registry_of_document, url)];
    let session = &shop.session;
    session.run_all(&statements(DEBEZIUM, 318, &sources)).await;
    session.run_all(&statements(DEBEZIUM, 331, &[])).await;
    session.run_all(&statements(DEBEZIUM, 354, &[])).await;
    let first = shop.until_counted().await;
    assert_eq!(first.len(), 3);
    let asked = statements(DEBEZIUM, 373, &[]);
    let answer = session.lines(&asked[0]).await.unwrap();
    assert!(
        answer.contains(&"0|\"social\"|2021-04-26 18:00:00+00|2".to_owned()),
        "{answer:?}"
    );

    // What MySQL is told moves the counts.
    shop.change_users("INSERT INTO shop.users (email, is_vip) VALUES ('new@example.com', TRUE)");
    let second = shop.until_counted().await;
    assert_ne!(first, second);

    let quoted = format!("'{broker}'");
    let sink = [("'kafka'", quoted.as_str()), (registry_of_document, url)];
    session.run_all(&statements(DEBEZIUM, 396, &sink)).await;
    let snapshot = shop.until_folded().await;
    assert!(
        snapshot.iter().all(|change| change["before"].is_null()),
        "{snapshot:?}"
    );
    for sql in [
        // From one segment to another, there and back.
        "UPDATE shop.users SET is_vip = 1 - is_vip WHERE id IN (1, 2)",
        "UPDATE shop.users SET is_vip = 1 - is_vip WHERE id = 1",
        // Nothing that the view shows.
        "UPDATE shop.users SET email = 'zoe@example.com' WHERE id = 3",
        "UPDATE shop.users SET id = 50 WHERE id = 4",
        "DELETE FROM shop.users WHERE id = 2",
        // Not NULL: converters of Kafka Connect write the default of the column instead.
        "INSERT INTO shop.users (id, email, is_vip) VALUES (2, 'bob@example.com', TRUE)",
    ] {
        shop.change_users(sql);
        shop.until_counted().await;
    }
    shop.view_pages(&[
        Pageview(1, "social", start + 30),
        Pageview(3, "referral", start + 40),
        Pageview(50, "social", start + 50),
    ])
    .await;
    let changes = shop.until_folded().await;
    assert!(changes.len() > snapshot.len(), "{changes:?}");
    assert!(changes.iter().any(|change| !change["before"].is_null()));
}

const SALES: &str = "sales";

/// A sale, as Estuary Flow has it of SQL Server.
struct Sale {
    id: i64,
    customer: i64,
    quantity: i64,
    unit_price: f64,
    /// Microseconds since 1970.
    at: i64,
}

/// Schemas of keys and values, as Estuary Flow makes them of a collection.
struct Collection {
    key: Writer,
    value: Writer,
}

impl Collection {
    async fn register(registry: &Registry) -> Self {
        let optional = |name: &str, kind: Value| json!({"name": name, "type": ["null", kind]});
        let moment = json!({"type": "long", "logicalType": "timestamp-micros"});
        let source = json!({"type": "record", "name": "source", "namespace": "root._meta", "fields": [
            {"name": "schema", "type": "string"}, {"name": "table", "type": "string"}, {"name": "lsn", "type": ["null", "string"]}]});
        let meta = json!({"type": "record", "name": "_meta", "namespace": "root", "fields": [
            {"name": "op", "type": "string"}, {"name": "source", "type": source}, {"name": "uuid", "type": "string"}]});
        let key = json!({"type": "record", "name": "Key", "namespace": "root", "fields": [{"name": "sale_id", "type": "long"}]});
        let value = json!({"type": "record", "name": "root", "fields": [
            {"name": "_meta", "type": meta},
            optional("customer_id", json!("long")),
            optional("product_id", json!("long")),
            optional("quantity", json!("long")),
            optional("sale_date", moment),
            {"name": "sale_id", "type": "long"},
            optional("total_price", json!("double")),
            optional("unit_price", json!("double")),
        ]});
        Self {
            key: Writer::register(registry, &format!("{SALES}-key"), key).await,
            value: Writer::register(registry, &format!("{SALES}-value"), value).await,
        }
    }

    fn key(&self, id: i64) -> Vec<u8> {
        self.key.message(&json!({"sale_id": id}))
    }

    fn record(&self, op: &str, sale: &Sale) -> Record {
        let source = json!({"schema": "dbo", "table": "sales", "lsn": "AAAAJwAACsAAAg=="});
        let value = json!({
            "_meta": {"op": op, "source": source, "uuid": "d6f5f0a0-0b5c-11ef-8000-071353030311"},
            "customer_id": sale.customer,
            "product_id": 57,
            "quantity": sale.quantity,
            "sale_date": sale.at,
            "sale_id": sale.id,
            "total_price": f64::from(i32::try_from(sale.quantity).unwrap()) * sale.unit_price,
            "unit_price": sale.unit_price,
        });
        Record::new(self.key(sale.id), self.value.message(&value))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sales_of_sql_server_come_through_estuary() {
    let dir = tempfile::tempdir().unwrap();
    let options = RegistryOptions {
        user: Some(("alice".to_owned(), "alice-secret".to_owned())),
        tls: true,
    };
    let (kafka, registry) = tokio::try_join!(
        Kafka::start(dir.path()),
        Registry::start_with(dir.path(), options)
    )
    .unwrap();
    // The tutorial's servers have certificates that everybody trusts.
    let authorities = [
        kafka.authority().path("ca.pem"),
        registry.ca().expect("it speaks HTTPS"),
    ];
    let options = trusting(dir.path(), &authorities);
    let node = Node::start_with(dir.path(), 2, options).await.unwrap();
    let session = Session::connect(&node).await;

    kafka.create_topic(SALES, 2, &[]).await.unwrap();
    let collection = Collection::register(&registry).await;
    // 2024-04-23 02:19:37.126905
    let at = 1_713_838_777_126_905;
    let old = at - 30 * 24 * HOUR * 1_000_000;
    let sale = |id: i64, customer: i64, quantity: i64, at: i64| Sale {
        id,
        customer,
        quantity,
        unit_price: 10.5,
        at,
    };
    let records = [
        collection.record("c", &sale(1, 83, 1, at)),
        collection.record("c", &sale(2, 83, 1, at)),
        collection.record("c", &sale(3, 83, 7, at)),
        collection.record("c", &sale(4, 23, 2, at)),
        collection.record("c", &sale(5, 23, 90, old)),
        collection.record("c", &sale(6, 99, 1, at)),
        collection.record("u", &sale(4, 23, 3, at)),
        Record::tombstone(collection.key(6)),
    ];
    kafka.produce(SALES, &records).await.unwrap();

    let broker = format!("BROKER\u{a0}'{}'", kafka.bootstrap(Listener::SaslSsl));
    let url = format!("URL\u{a0}'{}'", registry.url());
    let blanks = [
        ("your_generated_token_here", "alice-secret"),
        ("BROKER\u{a0}''", broker.as_str()),
        ("URL\u{a0}''", url.as_str()),
        ("'{}'", "'alice'"),
    ];
    session.run_all(&statements(ESTUARY, 137, &blanks)).await;
    let blanks = [("<name-of-your-flow-collection>", SALES)];
    session.run_all(&statements(ESTUARY, 145, &blanks)).await;
    session
        .until(
            "SELECT sale_id, customer_id, product_id, quantity, unit_price, total_price, sale_date FROM sqlserver_sales WHERE customer_id = 23",
            &[
                "4|23|57|3|10.5|31.5|2024-04-23 02:19:37.126905",
                "5|23|57|90|10.5|945|2024-03-24 02:19:37.126905",
            ],
        )
        .await;
    session
        .until("SELECT count(*), count(DISTINCT key_sale_id) FROM sqlserver_sales WHERE key_sale_id = sale_id", &["5|5"])
        .await;

    // What has to be mended with the issue that brings temporal filters: then both statements run as they are.
    let anomalies = statements(ESTUARY, 155, &[]);
    let refusal = session.refused(&anomalies[0]).await;
    assert_eq!(refusal.code, "0A000", "{refusal:?}");

    // The same on the day of the sales.
    let blanks = [("mz_now()", "timestamp '2024-04-23 12:00:00'")];
    session.run_all(&statements(ESTUARY, 155, &blanks)).await;
    let anomalies = "SELECT customer_id, customer_spend_avg, product_id, quantity, sale_id, total_price FROM sales_anomalies";
    session.until(anomalies, &["83|31.5|57|7|3|73.5"]).await;
    let indexes = session
        .lines("SELECT name FROM mz_indexes WHERE name LIKE 'sales_anomalies%'")
        .await;
    assert_eq!(
        indexes,
        Ok(vec!["sales_anomalies_customer_id_idx".to_owned()])
    );
    let records = [
        Record::tombstone(collection.key(3)),
        collection.record("u", &sale(5, 23, 90, at)),
    ];
    kafka.produce(SALES, &records).await.unwrap();
    session.until(anomalies, &["23|488.25|57|90|5|945"]).await;
}
