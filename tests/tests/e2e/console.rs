//! HTTP: SQL, the state of each object, who may ask, and the page in a real browser.

use std::process::Command;
use std::time::Duration;

use flowstone_tests::http::{self, Answer};
use flowstone_tests::kafka::{Listener, Record};
use flowstone_tests::{Browser, Gate, Kafka, Node, Postgres, wait};
use serde_json::{Value, json};
use tokio_postgres::Client;

/// How long a state may take to be seen. Generous: the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(90);

const JSON: (&str, &str) = ("Content-Type", "application/json");

async fn node() -> (tempfile::TempDir, Node) {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 1).await.unwrap();
    (dir, node)
}

async fn post(node: &Node, path: &str, body: &str) -> Answer {
    http::request(node.http_port(), "POST", path, &[JSON], body)
        .await
        .unwrap()
}

/// The results of a request that is served.
async fn results(node: &Node, body: Value) -> Vec<Value> {
    let answer = post(node, "/api/sql", &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json().unwrap()["results"]
        .as_array()
        .unwrap()
        .clone()
}

async fn simple(node: &Node, query: &str) -> Vec<Value> {
    results(node, json!({ "query": query })).await
}

/// The rows of a query that must work.
async fn rows(node: &Node, query: &str) -> Value {
    let mut results = simple(node, query).await;
    let result = results.pop().unwrap();
    assert!(result.get("rows").is_some(), "{query}: {result}");
    result["rows"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_pipeline_of_curl_and_jq_works() {
    let (_dir, node) = node().await;
    let pipeline = |sql: &str| {
        let script = format!(
            "curl -s 'http://127.0.0.1:{}/api/sql' \\
    --header 'Content-Type: application/json' \\
    --user 'user@example.com:password' \\
    --data '{{ \"query\": \"{sql}\" }}' |\\
    jq -r '.results[].rows[][]'",
            node.http_port()
        );
        let output = Command::new("bash")
            .args(["-o", "pipefail", "-c", &script])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(pipeline("SELECT cidr from mz_egress_ips;"), "");
    assert_eq!(
        pipeline("SELECT * FROM (VALUES (1, 5000000000), (2, 7)) AS t ORDER BY 1;"),
        "1\n5000000000\n2\n7\n"
    );
    assert_eq!(pipeline("SELECT current_user"), "user@example.com\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_simple_form_runs_statements_up_to_the_first_that_fails() {
    let (_dir, node) = node().await;
    let found = simple(
        &node,
        "CREATE TABLE t (a int, b text, c numeric(10,2)); CREATE TABLE u (a int)",
    )
    .await;
    assert_eq!(
        found,
        [
            json!({"ok": "CREATE TABLE", "notices": []}),
            json!({"ok": "CREATE TABLE", "notices": []}),
        ]
    );
    let found = simple(&node, "INSERT INTO t VALUES (1, 'x', 1.5), (2, NULL, NULL)").await;
    assert_eq!(found, [json!({"ok": "INSERT 0 2", "notices": []})]);
    let found = simple(
        &node,
        "SELECT a, b, c, count(*) AS n FROM t GROUP BY a, b, c ORDER BY a",
    )
    .await;
    assert_eq!(
        found,
        [json!({
            "tag": "SELECT 2",
            "rows": [[1, "x", "1.50", "1"], [2, null, null, "1"]],
            "desc": {"columns": [
                {"name": "a", "type_oid": 23, "type_len": 4, "type_mod": -1},
                {"name": "b", "type_oid": 25, "type_len": -1, "type_mod": -1},
                {"name": "c", "type_oid": 1700, "type_len": -1, "type_mod": 655_366},
                {"name": "n", "type_oid": 20, "type_len": 8, "type_mod": -1},
            ]},
            "notices": [],
        })]
    );
    // Several statements are one transaction: what went before the error is undone, what comes after it is not run.
    let found = simple(
        &node,
        "INSERT INTO u VALUES (1); INSERT INTO u SELECT nothing; INSERT INTO u VALUES (2)",
    )
    .await;
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0]["ok"], "INSERT 0 1");
    assert_eq!(found[1]["error"]["code"], "42703");
    assert_eq!(found[1]["error"]["position"], 48);
    assert_eq!(
        found[1]["error"]["message"],
        "column \"nothing\" does not exist"
    );
    assert_eq!(rows(&node, "SELECT a FROM u").await, json!([]));
    simple(&node, "INSERT INTO u VALUES (1); INSERT INTO u VALUES (2)").await;
    assert_eq!(rows(&node, "SELECT sum(a) FROM u").await, json!([["3"]]));

    // An error in the rows replaces them.
    let found = simple(&node, "SELECT 1 / (a - 2) FROM t").await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["error"]["message"], "division by zero");
    assert_eq!(found[0]["error"]["code"], "22012");
    assert!(found[0].get("rows").is_none(), "{found:?}");
    let found = simple(&node, "SELECT 1; SELEC 2").await;
    assert_eq!(found.len(), 1, "nothing of a text with a syntax error runs");
    assert_eq!(found[0]["error"]["code"], "42601");

    assert_eq!(simple(&node, "").await, Vec::<Value>::new());
    assert_eq!(simple(&node, " ; -- nothing").await, Vec::<Value>::new());
    let found = simple(&node, "SHOW TABLES; EXPLAIN SELECT a FROM t").await;
    assert_eq!(found[0]["rows"].as_array().unwrap().len(), 2);
    assert!(found[1]["tag"].as_str().unwrap().starts_with("EXPLAIN"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_is_committed_only_if_the_request_says_so() {
    let (_dir, node) = node().await;
    simple(&node, "CREATE TABLE t (a int)").await;
    let found = simple(&node, "BEGIN; INSERT INTO t VALUES (1); COMMIT").await;
    assert_eq!(found[2], json!({"ok": "COMMIT", "notices": []}));
    let found = simple(&node, "BEGIN; INSERT INTO t VALUES (2)").await;
    assert_eq!(found[1]["ok"], "INSERT 0 1");
    assert_eq!(found[1]["notices"][0]["severity"], "warning");
    assert!(
        found[1]["notices"][0]["message"]
            .as_str()
            .unwrap()
            .contains("rolled back"),
        "{found:?}"
    );
    assert_eq!(rows(&node, "SELECT a FROM t").await, json!([[1]]));
    // A block may also span the queries of the extended form.
    let queries = json!({"queries": [{"query": "BEGIN"}, {"query": "INSERT INTO t VALUES (3)"}, {"query": "COMMIT"}]});
    assert_eq!(results(&node, queries).await.len(), 3);
    assert_eq!(rows(&node, "SELECT sum(a) FROM t").await, json!([["4"]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_extended_form_takes_parameters_and_each_query_is_a_transaction() {
    let (_dir, node) = node().await;
    simple(&node, "CREATE TABLE t (a int, b text, c jsonb)").await;
    let found = results(
        &node,
        json!({"queries": [
            {"query": "INSERT INTO t VALUES ($1, $2, $3)", "params": ["1", null, "{\"k\": [1, null]}"]},
            {"query": "INSERT INTO t VALUES ($1, $2, NULL)", "params": ["2", "'; DROP TABLE t; --"]},
            {"query": "SELECT a, b, c, $1::int8 AS d, a > $2 AS e FROM t ORDER BY a", "params": ["9007199254740993", "1"]},
        ]}),
    )
    .await;
    assert_eq!(found[0]["ok"], "INSERT 0 1");
    assert_eq!(
        found[2]["rows"],
        json!([
            [1, null, {"k": [1, null]}, "9007199254740993", false],
            [2, "'; DROP TABLE t; --", null, "9007199254740993", true],
        ])
    );
    assert_eq!(found[2]["tag"], "SELECT 2");
    // What went before an error is committed, what comes after it is not run.
    let found = results(
        &node,
        json!({"queries": [
            {"query": "INSERT INTO t VALUES (3)"},
            {"query": "INSERT INTO t VALUES ($1)", "params": ["x"]},
            {"query": "INSERT INTO t VALUES (4)"},
        ]}),
    )
    .await;
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[1]["error"]["code"], "22P02");
    assert_eq!(
        rows(&node, "SELECT a FROM t ORDER BY a").await,
        json!([[1], [2], [3]])
    );
    for (query, params, code) in [
        ("SELECT $1::int", json!([]), "08P01"),
        ("SELECT 1", json!(["1"]), "08P01"),
        ("SELECT 1; SELECT 2", json!([]), "42601"),
        ("", json!([]), "42601"),
        ("SELECT $1::text", json!(["a\0b"]), "22021"),
        ("SELECT 1 -- \0", json!([]), "22021"),
        ("SELECT nothing", json!([]), "42703"),
    ] {
        let queries = json!({"queries": [{"query": query, "params": params}]});
        let found = results(&node, queries).await;
        assert_eq!(found.len(), 1, "{query}");
        assert_eq!(found[0]["error"]["code"], code, "{query}: {found:?}");
    }
    assert_eq!(
        results(&node, json!({"queries": []})).await,
        Vec::<Value>::new()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_end_with_an_answer_is_refused_in_its_place() {
    let (_dir, node) = node().await;
    simple(&node, "CREATE TABLE t (a int)").await;
    for (query, before, what) in [
        ("SELECT 1; SUBSCRIBE t", 1, "SUBSCRIBE"),
        ("COPY t FROM STDIN", 0, "COPY"),
        ("COPY t TO STDOUT", 0, "COPY"),
        ("BEGIN; DECLARE c CURSOR FOR SELECT 1", 1, "DECLARE"),
        ("BEGIN; FETCH 1 c", 1, "FETCH"),
        ("CLOSE c", 0, "CLOSE"),
    ] {
        let found = simple(&node, &format!("{query}; INSERT INTO t VALUES (1)")).await;
        assert_eq!(found.len(), before + 1, "{query}: {found:?}");
        let error = &found[before]["error"];
        assert_eq!(error["code"], "0A000", "{query}");
        assert_eq!(
            error["message"],
            format!("{what} is not supported over HTTP"),
            "{query}"
        );
        assert!(error["hint"].as_str().unwrap().contains("PostgreSQL"));
    }
    assert_eq!(rows(&node, "SELECT a FROM t").await, json!([]));
    let found = results(&node, json!({"queries": [{"query": "SUBSCRIBE t"}]})).await;
    assert_eq!(found[0]["error"]["code"], "0A000");
    // In disguise.
    let found = simple(&node, "PREPARE s AS SUBSCRIBE t; EXECUTE s").await;
    assert_eq!(found.last().unwrap()["error"]["code"], "0A000", "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn options_set_session_variables_and_notices_are_told() {
    let (_dir, node) = node().await;
    let encoded = "/api/sql?options=%7B%22application_name%22%3A%22from%20http%22%2C%22database%22%3A%22materialize%22%7D";
    let answer = post(
        &node,
        encoded,
        r#"{"query": "SHOW application_name; SHOW database"}"#,
    )
    .await;
    let found = answer.json().unwrap();
    assert_eq!(found["results"][0]["rows"], json!([["from http"]]));
    assert_eq!(found["results"][1]["rows"], json!([["materialize"]]));
    let found = simple(&node, "COMMIT").await;
    assert_eq!(
        found[0]["notices"],
        json!([{"message": "there is no transaction in progress", "code": "01000", "severity": "warning"}])
    );
    for (options, code) in [
        // {"nothing":"1"}
        ("%7B%22nothing%22%3A%221%22%7D", "42704"),
        // {"database":"nowhere"}
        ("%7B%22database%22%3A%22nowhere%22%7D", "3D000"),
        // {"statement_timeout":"soon"}
        ("%7B%22statement_timeout%22%3A%22soon%22%7D", "22023"),
        ("7", "08P01"),
    ] {
        let answer = post(
            &node,
            &format!("/api/sql?options={options}"),
            r#"{"query": "SELECT 1"}"#,
        )
        .await;
        assert_eq!(answer.status, 400, "{options}: {}", answer.body);
        assert_eq!(answer.json().unwrap()["error"]["code"], code, "{options}");
    }
    simple(
        &node,
        "CREATE TABLE numbers (x int); INSERT INTO numbers SELECT g FROM generate_series(1, 2000) AS s (g)",
    )
    .await;
    // {"statement_timeout":"100ms"}
    let answer = post(
        &node,
        "/api/sql?options=%7B%22statement_timeout%22%3A%22100ms%22%7D",
        &json!({ "query": ENDLESS }).to_string(),
    )
    .await;
    assert_eq!(
        answer.json().unwrap()["results"][0]["error"]["message"],
        "canceling statement due to statement timeout"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_malformed_foreign_or_too_large_are_refused_as_json() {
    let (_dir, node) = node().await;
    let port = node.http_port();
    let good = r#"{"query": "CREATE TABLE t (a int)"}"#;
    let own_origin = format!("http://127.0.0.1:{port}");
    let own_host = format!("localhost:{port}");
    let refused = async |headers: &[(&str, &str)], body: &str, status: u16, words: &str| {
        let answer = http::request(port, "POST", "/api/sql", headers, body)
            .await
            .unwrap();
        assert_eq!(answer.status, status, "{headers:?} {body}: {}", answer.body);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let error = answer.json().unwrap()["error"].clone();
        assert!(
            error["message"].as_str().unwrap().contains(words),
            "{headers:?} {body}: {error}"
        );
        assert_eq!(error["code"].as_str().unwrap().len(), 5);
    };
    let content_type = "the content type of the request is not application/json";
    refused(&[], good, 400, content_type).await;
    refused(&[("Content-Type", "text/plain")], good, 400, content_type).await;
    refused(
        &[("Content-Type", "application/x-www-form-urlencoded")],
        "query=SELECT+1",
        400,
        content_type,
    )
    .await;
    refused(&[JSON], "{", 400, "malformed").await;
    refused(&[JSON], r#"{"query": "a", "sql": 1}"#, 400, "unknown field").await;
    refused(&[JSON], "{}", 400, "either").await;
    let foreign = "the page of another origin";
    for origin in ["http://example.com", "http://127.0.0.1:1", "null"] {
        refused(&[JSON, ("Origin", origin)], good, 403, foreign).await;
    }
    for host in ["example.com", "10.0.0.1:6876"] {
        refused(&[JSON, ("Host", host)], good, 403, "another host").await;
    }
    refused(
        &[JSON, ("Authorization", "Bearer x")],
        good,
        401,
        "authorization",
    )
    .await;
    let large = json!({"query": format!("SELECT '{}'", "x".repeat(2 << 20))}).to_string();
    refused(&[JSON], &large, 413, "larger than").await;
    assert_eq!(
        rows(&node, "SHOW TABLES").await,
        json!([]),
        "nothing of that was run"
    );

    // From our own page, by another name, and with parameters of the content type.
    for headers in [
        [
            ("Content-Type", "application/json; charset=utf-8"),
            ("Origin", own_origin.as_str()),
        ],
        [JSON, ("Host", own_host.as_str())],
    ] {
        let answer = http::request(
            port,
            "POST",
            "/api/sql",
            &headers,
            r#"{"query": "SELECT 1"}"#,
        )
        .await
        .unwrap();
        assert_eq!(answer.status, 200, "{headers:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    let get = async |path| http::request(port, "GET", path, &[], "").await.unwrap();
    assert_eq!(get("/api/sql").await.status, 405);
    assert_eq!(get("/api/nothing").await.status, 404);
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/console.css", "text/css; charset=utf-8"),
        ("/console.js", "text/javascript; charset=utf-8"),
        ("/api/objects", "application/json"),
        (
            "/metrics",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
    ] {
        let answer = get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("content-type"), Some(content_type), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        let policy = answer.header("content-security-policy").unwrap();
        assert!(
            policy.contains("default-src 'none'")
                && policy.contains("frame-ancestors 'none'")
                && !policy.contains("unsafe"),
            "{policy}"
        );
        let foreign = http::request(port, "GET", path, &[("Host", "example.com")], "")
            .await
            .unwrap();
        assert_eq!(foreign.status, 403, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_does_not_name_one_host_is_refused_on_every_path() {
    let (_dir, node) = node().await;
    let port = node.http_port();
    let own = format!("127.0.0.1:{port}");
    let paths = [
        ("GET", "/"),
        ("GET", "/api/objects"),
        ("POST", "/api/sql"),
        ("GET", "/metrics"),
        ("GET", "/livez"),
        ("GET", "/readyz"),
        ("GET", "/api/nothing"),
    ];
    for (method, path) in paths {
        for hosts in [
            vec![("Host", own.as_str()), ("Host", own.as_str())],
            vec![("Host", own.as_str()), ("Host", "example.com")],
            vec![("Host", "")],
            vec![("Host", "materialize@localhost")],
            vec![("Host", "localhost, example.com")],
            vec![("Host", "localhost/")],
        ] {
            let answer = http::request(port, method, path, &hosts, "").await.unwrap();
            assert_eq!(answer.status, 400, "{path} {hosts:?}: {answer:?}");
        }
    }
}

/// Runs for days; needs `numbers`.
const ENDLESS: &str = "SELECT count(*) FROM numbers a, numbers b, numbers c, numbers d WHERE (a.x + b.x + c.x + d.x) % 1000 = 1";

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_is_too_large_is_an_error_with_a_way_out() {
    let (_dir, node) = node().await;
    let found = simple(
        &node,
        "SELECT 1; SELECT repeat('x', 1000) FROM generate_series(1, 20000); SELECT 2",
    )
    .await;
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0]["rows"], json!([[1]]));
    assert_eq!(found[1]["error"]["code"], "53400", "{found:?}");
    assert!(found[1].get("rows").is_none(), "{found:?}");
    assert!(
        found[1]["error"]["hint"]
            .as_str()
            .unwrap()
            .contains("LIMIT")
    );
    let found = rows(
        &node,
        "SELECT repeat('x', 1000) FROM generate_series(1, 10000)",
    )
    .await;
    assert_eq!(found.as_array().unwrap().len(), 10_000);
}

async fn until_sessions(client: &Client, expected: i64) {
    wait::until("sessions", DEADLINE, async || {
        let open: i64 = client
            .query_one("SELECT count(*) FROM mz_internal.mz_sessions", &[])
            .await
            .map_err(|error| error.to_string())?
            .get(0);
        if open == expected {
            Ok(())
        } else {
            Err(format!("{open} instead of {expected}"))
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_ends_its_statement_and_a_stop_ends_them_all() {
    let (_dir, mut node) = node().await;
    let client = node.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE t (a int); CREATE TABLE numbers (x int); INSERT INTO numbers SELECT g FROM generate_series(1, 2000) AS s (g)")
        .await
        .unwrap();
    until_sessions(&client, 1).await;
    let body =
        json!({"query": format!("BEGIN; INSERT INTO t VALUES (1); COMMIT; {ENDLESS}")}).to_string();
    let send = async || {
        http::send(node.http_port(), "POST", "/api/sql", &[JSON], &body)
            .await
            .unwrap()
    };
    let sockets = [send().await, send().await];
    until_sessions(&client, 3).await;
    wait::until("the writes", DEADLINE, async || {
        let rows = client.query("SELECT a FROM t", &[]).await;
        match rows.map_err(|error| error.to_string())?.len() {
            2 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await
    .unwrap();
    drop(sockets);
    until_sessions(&client, 1).await;

    let socket = send().await;
    until_sessions(&client, 2).await;
    node.stop().await.unwrap();
    drop(socket);
}

/// What a page shows of one object.
fn seen(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// The page, as someone sees it who looks at it.
struct Page {
    browser: Browser,
}

impl Page {
    async fn open(node: &Node) -> Self {
        let url = format!("http://127.0.0.1:{}/", node.http_port());
        Self {
            browser: Browser::open(&url, 1200, 1000).await.unwrap(),
        }
    }

    /// Status, text of the cells, progress in percent and trouble of an object; `null` if it is not shown.
    async fn object(&mut self, name: &str) -> Value {
        let expression = format!(
            "(() => {{
                const row = [...document.querySelectorAll('tr[data-object]')].find((row) => row.dataset.object === {});
                if (!row) return null;
                const [progress, trouble] = [row.nextElementSibling, row.nextElementSibling.nextElementSibling];
                return {{
                    status: row.dataset.status,
                    label: row.querySelector('.pill').textContent,
                    text: row.innerText.split(/\\s*\\t\\s*/).join('|'),
                    rows: row.cells[row.cells.length - 2].textContent,
                    memory: row.cells[row.cells.length - 1].textContent,
                    percent: progress.hidden ? null : Number(progress.querySelector('[role=progressbar]').ariaValueNow),
                    width: progress.hidden ? null : progress.querySelector('.bar > div').getBoundingClientRect().width,
                    progress: progress.hidden ? '' : progress.innerText,
                    trouble: trouble.hidden ? '' : trouble.innerText,
                }};
            }})()",
            json!(name)
        );
        self.browser.evaluate(&expression).await.unwrap()
    }

    /// Waits until an object looks as it should.
    async fn until(&mut self, name: &str, what: &str, right: impl Fn(&Value) -> bool) -> Value {
        wait::until(&format!("{name} to be {what}"), DEADLINE, async || {
            let object = self.object(name).await;
            if right(&object) {
                Ok(object)
            } else {
                Err(object.to_string())
            }
        })
        .await
        .unwrap()
    }

    async fn until_status(&mut self, name: &str, status: &str) -> Value {
        self.until(name, status, |object| object["status"] == status)
            .await
    }

    async fn until_true(&mut self, expression: &str) {
        wait::until(expression, DEADLINE, async || {
            match self.browser.evaluate(expression).await {
                Ok(Value::Bool(true)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
        .unwrap();
    }

    async fn until_text(&mut self, expression: &str, expected: &str) {
        wait::until(expected, DEADLINE, async || {
            match self.browser.evaluate(expression).await {
                Ok(Value::String(text)) if text == expected => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
        .unwrap();
    }

    /// Complaints of the browser, but for requests to a node that is away.
    fn complaints(&self) -> Vec<&String> {
        self.browser
            .complaints()
            .iter()
            .filter(|complaint| !complaint.contains("net::ERR_"))
            .collect()
    }
}

const SHOP: &str = "
    CREATE TABLE orders (id int PRIMARY KEY, item int, price numeric(10,2), note text);
    INSERT INTO orders SELECT i, i % 50, (i % 1000) / 10.0, repeat('n', 100) FROM generate_series(1, 60000) AS i;
    CREATE TABLE items (id int PRIMARY KEY, name text, weight int);
    INSERT INTO items SELECT i, 'item ' || i, i + 1 FROM generate_series(0, 49) AS i;
    ANALYZE;
    CREATE PUBLICATION mz_source FOR ALL TABLES";

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_a_snapshot_move_and_what_becomes_of_each_object() {
    let dir = tempfile::tempdir().unwrap();
    let postgres = Postgres::start(dir.path()).unwrap();
    let upstream = postgres.connect().await.unwrap();
    upstream.batch_execute(SHOP).await.unwrap();
    let gate = Gate::before(postgres.port()).await.unwrap();
    let mut node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    let sql = async |sql: &str| client.batch_execute(sql).await.unwrap();

    let mut page = Page::open(&node).await;
    page.until_true("document.querySelector('#sources .empty')?.hidden === false")
        .await;
    page.until_true("document.getElementById('node')?.textContent === 'Running'")
        .await;

    // The gate holds the snapshot, so that the page can be looked at while it is on its way. What comes before it is small.
    gate.allow(512);
    sql("CREATE SECRET pgpass AS '<POSTGRES_PASSWORD>'").await;
    sql(&format!(
        "CREATE CONNECTION pg TO POSTGRES (HOST '127.0.0.1', PORT {}, USER 'postgres', PASSWORD SECRET pgpass, DATABASE 'postgres')",
        gate.port()
    ))
    .await;
    sql("CREATE SOURCE shop FROM POSTGRES CONNECTION pg (PUBLICATION 'mz_source') FOR ALL TABLES")
        .await;
    gate.allow(2048);
    let first = page
        .until("public.orders", "on its way", |object| {
            object["status"] == "snapshotting"
                && object["percent"]
                    .as_u64()
                    .is_some_and(|percent| percent > 0)
        })
        .await;
    assert_eq!(first["label"], "Reading the snapshot");
    assert!(
        seen(&first, "progress").contains("of about 60,000 rows"),
        "{first}"
    );
    let percent = |object: &Value| object["percent"].as_u64().unwrap_or_default();
    assert!(percent(&first) < 60, "{first}");
    gate.allow(2048);
    let second = page
        .until("public.orders", "further", |object| {
            percent(object) > percent(&first) && object["width"].as_f64() > first["width"].as_f64()
        })
        .await;
    assert!(percent(&second) < 100, "{second}");
    page.until("public.shop", "on its way", |object| {
        object["status"] == "snapshotting" && percent(object) > 0
    })
    .await;
    gate.open();
    for (name, rows) in [
        ("public.orders", "60,000"),
        ("public.items", "50"),
        ("public.shop", "60,050"),
    ] {
        let object = page
            .until(name, "running", |object| {
                object["status"] == "running" && object["rows"] == rows
            })
            .await;
        assert_eq!(object["percent"], Value::Null, "{object}");
        assert!(seen(&object, "memory").ends_with("iB"), "{object}");
    }

    // What is made of it.
    sql("CREATE MATERIALIZED VIEW revenue AS SELECT item, sum(price) AS total FROM orders GROUP BY item").await;
    sql("CREATE INDEX revenue_by_item ON revenue (item)").await;
    sql("CREATE MATERIALIZED VIEW per_weight AS SELECT id, 1000 / weight AS n FROM items").await;
    sql("CREATE TABLE \"<img src=x onerror=alert(1)>\" (a int)").await;
    sql("INSERT INTO \"<img src=x onerror=alert(1)>\" VALUES (1), (2)").await;
    for (name, rows) in [
        ("public.revenue", "50"),
        ("public.revenue_by_item", "50"),
        ("public.per_weight", "50"),
        ("public.<img src=x onerror=alert(1)>", "2"),
    ] {
        let object = page
            .until(name, "running", |object| {
                object["status"] == "running" && object["rows"] == rows
            })
            .await;
        assert!(
            seen(&object, "text").contains(" ms|") || seen(&object, "text").contains(" s|"),
            "the lag: {object}"
        );
    }
    let index = page.object("public.revenue_by_item").await;
    assert!(
        seen(&index, "text").contains("on public.revenue"),
        "{index}"
    );
    assert_eq!(
        page.browser
            .evaluate("document.images.length")
            .await
            .unwrap(),
        0
    );

    // An error in the data comes, is explained, and goes.
    upstream
        .batch_execute("UPDATE items SET weight = 0 WHERE id = 7")
        .await
        .unwrap();
    let failed = page.until_status("public.per_weight", "failed").await;
    assert_eq!(failed["trouble"], "division by zero");
    page.until_true("document.getElementById('tile-trouble').textContent === '1'")
        .await;
    upstream
        .batch_execute("UPDATE items SET weight = 7 WHERE id = 7")
        .await
        .unwrap();
    let healed = page.until_status("public.per_weight", "running").await;
    assert_eq!(healed["trouble"], "");

    // A table that cannot go on says why; the others do.
    upstream
        .batch_execute("ALTER TABLE items ALTER COLUMN weight TYPE bigint")
        .await
        .unwrap();
    upstream
        .batch_execute("UPDATE items SET weight = 8 WHERE id = 7")
        .await
        .unwrap();
    let failed = page.until_status("public.items", "failed").await;
    assert!(seen(&failed, "trouble").contains("weight"), "{failed}");
    page.until_status("public.per_weight", "failed").await;
    assert_eq!(page.object("public.revenue").await["status"], "running");

    // The same to programs.
    let answer = http::request(node.http_port(), "GET", "/api/objects", &[], "")
        .await
        .unwrap();
    let objects = answer.json().unwrap();
    let orders = objects["objects"]
        .as_array()
        .unwrap()
        .iter()
        .find(|object| object["name"] == "orders")
        .unwrap();
    assert_eq!(
        (&orders["type"], &orders["rows"]),
        (&json!("source-table"), &json!(60_000))
    );
    assert_eq!(orders["ingestion"]["snapshot_committed"], json!(true));
    assert_eq!(objects["node"]["ready"], json!(true));
    let statistics = client
        .query_one(
            "SELECT s.records::int8, s.errors::int8, s.error IS NOT NULL FROM mz_internal.mz_collection_statistics s JOIN mz_objects o ON o.id = s.object_id WHERE o.name = 'per_weight'",
            &[],
        )
        .await
        .unwrap();
    assert!(statistics.get::<_, i64>(1) > 0 && statistics.get::<_, bool>(2));

    // Upstream goes away and comes back.
    postgres.stop().unwrap();
    let stalled = page.until_status("public.shop", "stalled").await;
    assert!(!seen(&stalled, "trouble").is_empty(), "{stalled}");
    let stalled = page.until_status("public.revenue", "stalled").await;
    assert!(
        seen(&stalled, "trouble").contains("has stalled"),
        "{stalled}"
    );
    postgres.start_server().unwrap();
    page.until_status("public.shop", "running").await;
    page.until_status("public.revenue", "running").await;

    // The node goes away and comes back.
    assert_eq!(page.complaints(), Vec::<&String>::new());
    node.kill().unwrap();
    page.until_true("!document.getElementById('banner').hidden && document.getElementById('node').textContent === 'No answer'").await;
    let words = page
        .browser
        .evaluate("document.getElementById('banner').textContent")
        .await
        .unwrap();
    assert!(
        words
            .as_str()
            .unwrap()
            .starts_with("The node does not answer. What is shown is from "),
        "{words}"
    );
    assert_eq!(
        page.object("public.revenue").await["status"],
        "running",
        "what was known is still shown"
    );
    node.restart().await.unwrap();
    page.until_true("document.getElementById('banner').hidden && document.getElementById('node').textContent === 'Running'").await;
    page.until("public.orders", "running", |object| {
        object["status"] == "running" && object["rows"] == "60,000"
    })
    .await;
    assert_eq!(page.complaints(), Vec::<&String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_topics_by_partition_and_sinks_with_what_they_have_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut kafka = Kafka::start(dir.path()).await.unwrap();
    kafka.create_topic("in", 2, &[]).await.unwrap();
    let records = ["a", "b", "a"].map(|line| Record::of_value(line).to_partition(1));
    kafka.produce("in", &records).await.unwrap();
    let node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    let sql = async |sql: &str| client.batch_execute(sql).await.unwrap();
    sql(&format!(
        "CREATE CONNECTION kafka TO KAFKA (BROKER '{}', SECURITY PROTOCOL 'PLAINTEXT')",
        kafka.bootstrap(Listener::Plaintext)
    ))
    .await;
    sql("CREATE SOURCE lines FROM KAFKA CONNECTION kafka (TOPIC 'in') FORMAT TEXT").await;
    sql("CREATE MATERIALIZED VIEW counts AS SELECT text, count(*) AS n FROM lines GROUP BY text")
        .await;
    sql("CREATE SINK counted FROM counts INTO KAFKA CONNECTION kafka (TOPIC 'out') KEY (text) FORMAT JSON ENVELOPE UPSERT")
        .await;

    let mut page = Page::open(&node).await;
    page.until("public.lines", "read", |object| {
        object["status"] == "running" && seen(object, "text").contains("|up to date|")
    })
    .await;
    let list = "document.querySelector('#sources details.partitions')";
    page.until_true(&format!(
        "{list}.querySelector('summary').textContent === '2 partitions · up to date'"
    ))
    .await;
    page.until_text(
        &format!(
            "{list}.open = true, [...{list}.querySelectorAll('table > tbody > tr')].map((row) => [...row.cells].map((cell) => cell.textContent).join('|')).join()"
        ),
        "0|0|0|up to date,1|3|3|up to date",
    )
    .await;
    let sink = page
        .until("public.counted", "written", |object| {
            let messages = seen(object, "rows").parse::<u64>();
            object["status"] == "running" && messages.is_ok_and(|messages| messages >= 2)
        })
        .await;
    let text = seen(&sink, "text");
    assert!(text.contains("kafka from public.counts"), "{sink}");
    assert!(
        text.contains(" ms|") || text.contains(" s|"),
        "the lag: {sink}"
    );
    assert!(seen(&sink, "memory").ends_with(" B"), "{sink}");

    // The same to programs.
    let answer = http::request(node.http_port(), "GET", "/api/objects", &[], "")
        .await
        .unwrap();
    let objects = answer.json().unwrap();
    let find = |kind: &str| {
        let mut objects = objects["objects"].as_array().unwrap().iter();
        objects.find(|object| object["type"] == kind).unwrap()
    };
    assert_eq!(
        find("source")["ingestion"]["partitions"],
        json!([
            {"partition": 0, "offset_known": "0", "offset_committed": "0", "lag": 0},
            {"partition": 1, "offset_known": "3", "offset_committed": "3", "lag": 0},
        ])
    );
    let sink = find("sink");
    assert_eq!(sink["sink_type"], json!("kafka"));
    assert!(sink["delivery"]["frontier"].is_string(), "{sink}");
    let partitions = client
        .query(
            "SELECT p.partition, p.offset_known::int8, p.offset_committed::int8, p.lag::int8 \
             FROM mz_internal.mz_kafka_source_partitions AS p JOIN mz_sources AS s ON s.id = p.id \
             WHERE s.name = 'lines' AND s.type = 'kafka' ORDER BY 1",
            &[],
        )
        .await
        .unwrap();
    let partitions: Vec<(i32, i64, i64, i64)> = partitions
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3)))
        .collect();
    assert_eq!(partitions, [(0, 0, 0, 0), (1, 3, 3, 0)]);
    assert_eq!(page.complaints(), Vec::<&String>::new());

    // What keeps changes from a sink is its trouble too.
    kafka.kill_all();
    page.until_status("public.lines", "stalled").await;
    let stalled = page.until_status("public.counted", "stalled").await;
    assert!(!seen(&stalled, "trouble").is_empty(), "{stalled}");
}
