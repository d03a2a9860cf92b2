//! Who may connect: TLS, passwords and roles, with psql, psycopg, curl, pyarrow and ADBC against a real node.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use flowstone_tests::{Browser, Node, NodeOptions, Postgres, free_port, wait};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use super::clients::python;

const DEADLINE: Duration = Duration::from_secs(60);
const PASSWORD: &str = "correct horse battery staple";

/// A certification authority of its own in a directory.
struct Authority {
    dir: PathBuf,
}

impl Authority {
    fn new(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let authority = Self {
            dir: dir.to_owned(),
        };
        authority.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.crt -days 30 -subj /CN=authority",
        );
        std::fs::write(
            dir.join("extensions"),
            "subjectAltName=DNS:localhost,IP:127.0.0.1\n",
        )
        .unwrap();
        authority
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(&self.dir)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "openssl {arguments}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// A certificate for localhost that ends after so many days, and its key.
    fn certificate(&self, name: &str, days: i32) {
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {name}.key -out {name}.csr -subj /CN=localhost"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days {days} -extfile extensions -out {name}.crt"
        ));
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// Puts a certificate and a key where the node looks for them.
    fn install(&self, certificate: &str, key: &str) {
        std::fs::copy(
            self.path(&format!("{certificate}.crt")),
            self.path("node.crt"),
        )
        .unwrap();
        std::fs::copy(self.path(&format!("{key}.key")), self.path("node.key")).unwrap();
    }

    /// The settings of a node that uses what is installed.
    fn arguments(&self) -> Vec<String> {
        vec![
            "--tls-cert-file".to_owned(),
            self.path("node.crt"),
            "--tls-key-file".to_owned(),
            self.path("node.key"),
        ]
    }
}

fn scram() -> Vec<String> {
    vec!["--auth".to_owned(), "scram".to_owned()]
}

fn first_password() -> Vec<(String, String)> {
    vec![("FLOWSTONE_INITIAL_PASSWORD".to_owned(), PASSWORD.to_owned())]
}

/// A node on loopback that asks everybody for a password.
async fn scram_node(dir: &Path) -> Node {
    let options = NodeOptions {
        arguments: scram(),
        environment: first_password(),
        ..NodeOptions::default()
    };
    Node::start_with(dir, 1, options).await.unwrap()
}

async fn log_in(node: &Node, user: &str, password: &str) -> Result<Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(node.pg_port())
        .user(user)
        .password(password)
        .dbname("materialize");
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The SQLSTATE and the message that a client is refused with.
async fn refused(node: &Node, user: &str, password: &str) -> (String, String) {
    let error = log_in(node, user, password)
        .await
        .map(drop)
        .expect_err("the client is refused");
    let error = error
        .as_db_error()
        .unwrap_or_else(|| panic!("{user}: {error:?}"));
    assert_eq!(error.severity(), "FATAL");
    (error.code().code().to_owned(), error.message().to_owned())
}

fn psql(node: &Node, user: &str, password: Option<&str>, parameters: &str, sql: &str) -> Output {
    let mut command = Command::new("psql");
    command
        .args(["-X", "-w", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql])
        .arg(format!(
            "host=localhost port={} user={user} dbname=materialize {parameters}",
            node.pg_port()
        ))
        .env_remove("PGPASSWORD");
    if let Some(password) = password {
        command.env("PGPASSWORD", password);
    }
    command.output().unwrap()
}

fn out(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn err(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The status of an answer over HTTP, and all of it.
fn curl(arguments: &[&str], url: &str) -> (String, String) {
    let output = Command::new("curl")
        .args(["-s", "-i", "--max-time", "30"])
        .args(arguments)
        .arg(url)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let status = text.split(' ').nth(1).unwrap_or_default().to_owned();
    (status, text)
}

/// Arguments of curl, and an authority that it trusts.
fn with_authority<'a>(ca: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["--cacert", ca];
    all.extend(more);
    all
}

/// Runs a query over HTTP; the status, the headers and the body as JSON.
fn post_sql(arguments: &[&str], base: &str, query: &str) -> (String, String, Value) {
    let body = json!({ "query": query }).to_string();
    let mut all = vec![
        "--header",
        "Content-Type: application/json",
        "--data",
        &body,
    ];
    all.extend(arguments);
    let (status, answer) = curl(&all, &format!("{base}/api/sql"));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let body = serde_json::from_str(body).unwrap_or(Value::Null);
    (status, head.to_lowercase(), body)
}

/// Asks for a token over Arrow Flight and runs a query with it; `ok`, or what pyarrow calls the failure. `ca` is empty for a connection in the clear.
fn flight_sign_in(node: &Node, scheme: &str, ca: &str, user: &str, password: &str) -> String {
    let script = "import sys, pyarrow.flight as f\n\
         scheme, port, ca, user, password = sys.argv[1:]\n\
         roots = {'tls_root_certs': open(ca, 'rb').read()} if ca else {}\n\
         client = f.FlightClient(f'{scheme}://localhost:{port}', **roots)\n\
         try:\n    \
             options = f.FlightCallOptions(headers=[client.authenticate_basic_token(user, password)])\n    \
             assert client.do_get(f.Ticket(b'SELECT 1 AS a'), options).read_all().to_pylist() == [{'a': 1}]\n    \
             print('ok')\n\
         except f.FlightError as error:\n    \
             print(type(error).__name__)\n";
    let output = Command::new(python())
        .args(["-c", script, scheme, &node.flight_port().to_string()])
        .args([ca, user, password])
        .output()
        .unwrap();
    out(&output)
}

async fn wait_for_log(node: &Node, text: &str, times: usize) {
    wait::until(&format!("the log to say {text}"), DEADLINE, async || {
        let log = std::fs::read_to_string(node.log_path()).unwrap();
        if log.matches(text).count() >= times {
            Ok(())
        } else {
            Err(log.lines().last().unwrap_or_default().to_owned())
        }
    })
    .await
    .unwrap();
}

fn hang_up(node: &Node) {
    let pid = node.pid().unwrap().to_string();
    let status = Command::new("kill").args(["-HUP", &pid]).status().unwrap();
    assert!(status.success());
}

/// Whether a file of a directory, or of one in it, holds `needle`.
fn holds(dir: &Path, needle: &[u8]) -> Option<PathBuf> {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if let Some(found) = holds(&path, needle) {
                return Some(found);
            }
        } else {
            let bytes = std::fs::read(&path).unwrap();
            if bytes.windows(needle.len()).any(|window| window == needle) {
                return Some(path);
            }
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tls_and_passwords_a_node_serves_everybody_who_proves_who_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(&dir.path().join("tls"));
    authority.certificate("good", 10);
    authority.install("good", "good");
    let password_file = dir.path().join("password");
    std::fs::write(&password_file, format!("{PASSWORD}\n")).unwrap();
    let mut arguments = [scram(), authority.arguments()].concat();
    arguments.extend([
        "--initial-password-file".to_owned(),
        password_file.display().to_string(),
    ]);
    let options = NodeOptions {
        host: "0.0.0.0".to_owned(),
        arguments,
        ..NodeOptions::default()
    };
    let node = Node::start_with(dir.path(), 1, options).await.unwrap();
    let verify = format!(
        "sslmode=verify-full sslrootcert={}",
        authority.path("ca.crt")
    );

    // psql, with and without channel binding.
    for binding in ["require", "disable"] {
        let parameters = format!("{verify} channel_binding={binding}");
        let output = psql(
            &node,
            "materialize",
            Some(PASSWORD),
            &parameters,
            "SELECT current_user",
        );
        assert_eq!(out(&output), "materialize");
    }
    for (user, password, parameters, expected) in [
        (
            "materialize",
            Some("wrong"),
            verify.as_str(),
            "password authentication failed for user \"materialize\"",
        ),
        (
            "nobody",
            Some(PASSWORD),
            &verify,
            "password authentication failed for user \"nobody\"",
        ),
        ("materialize", None, &verify, "no password supplied"),
        (
            "materialize",
            Some(PASSWORD),
            "sslmode=disable",
            "connections without TLS are not accepted",
        ),
        (
            "materialize",
            Some(PASSWORD),
            "sslmode=disable",
            "HINT:  Connect with TLS: set sslmode to \"verify-full\"",
        ),
    ] {
        let error = err(&psql(&node, user, password, parameters, "SELECT 1"));
        assert!(error.contains(expected), "{user} {parameters}: {error}");
    }
    let other = Authority::new(&dir.path().join("other"));
    let parameters = format!("sslmode=verify-full sslrootcert={}", other.path("ca.crt"));
    let error = err(&psql(
        &node,
        "materialize",
        Some(PASSWORD),
        &parameters,
        "SELECT 1",
    ));
    assert!(error.contains("certificate verify failed"), "{error}");

    // The SQLSTATE of a client without TLS, which says no password at all.
    let (state, _) = refused(&node, "materialize", PASSWORD).await;
    assert_eq!(state, SqlState::INVALID_AUTHORIZATION_SPECIFICATION.code());

    // psycopg, in a session long enough to see that results flow over TLS.
    let script = format!(
        "import psycopg\n\
         with psycopg.connect(host='localhost', port={}, user='materialize', password='{PASSWORD}', dbname='materialize', \
         sslmode='verify-full', sslrootcert='{}', channel_binding='require') as connection:\n    \
         rows = connection.execute('SELECT g FROM generate_series(1, 50000) AS s (g)').fetchall()\n    \
         assert sum(row[0] for row in rows) == 1250025000\n",
        node.pg_port(),
        authority.path("ca.crt")
    );
    let output = Command::new(python())
        .args(["-c", &script])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    // HTTP.
    let url = |path: &str| format!("https://localhost:{}{path}", node.http_port());
    let ca = authority.path("ca.crt");
    let with = |user: &str| curl(&["--cacert", &ca, "--user", user], &url("/metrics"));
    for path in ["/livez", "/readyz"] {
        assert_eq!(curl(&["--cacert", &ca], &url(path)).0, "200", "{path}");
    }
    let (status, answer) = curl(&["--cacert", &ca], &url("/metrics"));
    assert_eq!(status, "401");
    assert!(
        answer
            .to_lowercase()
            .contains("www-authenticate: basic realm="),
        "{answer}"
    );
    let (status, answer) = with(&format!("materialize:{PASSWORD}"));
    assert_eq!(status, "200");
    assert!(answer.contains("flowstone_sessions"), "{answer}");
    assert_eq!(with("materialize:wrong").0, "401");
    assert_eq!(with("nobody:wrong").0, "401");
    let plain = format!("http://localhost:{}/metrics", node.http_port());
    let (status, answer) = curl(&[], &plain);
    assert_eq!(status, "400");
    assert!(answer.contains("this port accepts HTTPS only"), "{answer}");
    let ca = other.path("ca.crt");
    assert_eq!(curl(&["--cacert", &ca], &url("/livez")).0, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_over_http_runs_as_the_user_whose_password_was_said() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(&dir.path().join("tls"));
    authority.certificate("good", 10);
    authority.install("good", "good");
    let options = NodeOptions {
        arguments: [scram(), authority.arguments()].concat(),
        environment: first_password(),
        ..NodeOptions::default()
    };
    let node = Node::start_with(dir.path(), 1, options).await.unwrap();
    let ca = authority.path("ca.crt");
    let base = format!("https://localhost:{}", node.http_port());
    let admin = format!("materialize:{PASSWORD}");
    let sql = |more: &[&str], query: &str| post_sql(&with_authority(&ca, more), &base, query);
    let (status, _, answer) = sql(
        &["--user", &admin],
        "CREATE ROLE ada LOGIN PASSWORD 'lovelace'; CREATE ROLE readers PASSWORD 'many'",
    );
    assert_eq!(status, "200", "{answer}");
    for (user, name) in [(admin.as_str(), "materialize"), ("ada:lovelace", "ada")] {
        let (status, _, answer) = sql(&["--user", user], "SELECT current_user");
        assert_eq!(status, "200", "{answer}");
        assert_eq!(answer["results"][0]["rows"], json!([[name]]));
    }
    for (credentials, expected, code) in [
        (vec![], "401", "28000"),
        (vec!["--user", "ada:byron"], "401", "28P01"),
        (vec!["--user", "nobody:lovelace"], "401", "28P01"),
        (vec!["--header", "Authorization: Bearer x"], "401", "28000"),
        (vec!["--user", "readers:many"], "403", "28000"),
    ] {
        let (status, head, answer) = sql(&credentials, "CREATE TABLE refused (a int)");
        assert_eq!(status, expected, "{credentials:?}: {answer}");
        assert_eq!(answer["error"]["code"], code, "{credentials:?}: {answer}");
        assert_eq!(
            head.contains("www-authenticate: basic realm="),
            expected == "401",
            "{head}"
        );
    }
    // A browser knows the password, and shows a page of somebody else.
    let foreign = ["--user", &admin, "--header", "Origin: https://example.com"];
    let (status, _, answer) = sql(&foreign, "CREATE TABLE refused (a int)");
    assert_eq!(status, "403", "{answer}");
    // In the clear nothing is looked at, not even the password.
    let plain = format!("http://localhost:{}", node.http_port());
    let (status, _, _) = post_sql(&["--user", &admin], &plain, "CREATE TABLE refused (a int)");
    assert_eq!(status, "400");
    // Whoever says a password may know the node by any name.
    let named = ["--user", &admin, "--header", "Host: db.example.com"];
    let (status, _, answer) = sql(&named, "SHOW TABLES");
    assert_eq!(status, "200", "{answer}");
    assert_eq!(answer["results"][0]["rows"], json!([]));

    for path in [
        "/",
        "/console.css",
        "/console.js",
        "/api/objects",
        "/metrics",
    ] {
        let url = format!("{base}{path}");
        let get = |more: &[&str]| curl(&with_authority(&ca, more), &url).0;
        assert_eq!(get(&[]), "401", "{path}");
        assert_eq!(get(&["--user", "ada:byron"]), "401", "{path}");
        assert_eq!(get(&["--user", "ada:lovelace"]), "200", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn arrow_flight_is_for_those_who_say_their_password() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(&dir.path().join("tls"));
    authority.certificate("good", 10);
    authority.install("good", "good");
    let other = Authority::new(&dir.path().join("other"));
    let options = NodeOptions {
        arguments: [scram(), authority.arguments()].concat(),
        environment: first_password(),
        ..NodeOptions::default()
    };
    let node = Node::start_with(dir.path(), 1, options).await.unwrap();
    let verify = format!(
        "sslmode=verify-full sslrootcert={}",
        authority.path("ca.crt")
    );
    let sql = |sql: &str| psql(&node, "materialize", Some(PASSWORD), &verify, sql);
    out(&sql("CREATE ROLE ada LOGIN PASSWORD 'lovelace'"));
    out(&sql("CREATE ROLE readers PASSWORD 'many'"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/flight_auth.py");
    let output = Command::new("timeout")
        .args(["--signal=KILL", "300"])
        .arg(python())
        .arg(script)
        .arg(node.flight_port().to_string())
        .args([
            authority.path("ca.crt"),
            other.path("ca.crt"),
            PASSWORD.to_owned(),
        ])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(out(&sql("SHOW TABLES LIKE 'refused'")), "");

    // The words of the refusal, for clients that show them.
    let mut socket = TcpStream::connect(("127.0.0.1", node.flight_port()))
        .await
        .unwrap();
    socket
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert!(text.ends_with("this port accepts TLS only"), "{text:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_works_in_a_browser_that_says_a_password() {
    let dir = tempfile::tempdir().unwrap();
    let node = scram_node(dir.path()).await;
    let url = format!(
        "http://materialize:{}@127.0.0.1:{}/",
        PASSWORD.replace(' ', "%20"),
        node.http_port()
    );
    let mut browser = Browser::open(&url, 1200, 1000).await.unwrap();
    let running = "document.getElementById('node')?.textContent === 'Running'";
    wait::until(running, DEADLINE, async || {
        match browser.evaluate(running).await {
            Ok(Value::Bool(true)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    let complaints = browser.complaints();
    assert!(complaints.is_empty(), "{complaints:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_exchanged_while_the_node_runs_and_bad_ones_are_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(&dir.path().join("tls"));
    authority.certificate("good", 10);
    authority.certificate("expired", -1);
    authority.openssl("req -x509 -newkey rsa:2048 -nodes -keyout self.key -out self.crt -days 30 -subj /CN=localhost -addext subjectAltName=DNS:localhost");
    authority.install("expired", "expired");
    let options = NodeOptions {
        arguments: [scram(), authority.arguments()].concat(),
        environment: first_password(),
        ..NodeOptions::default()
    };
    let node = Node::start_with(dir.path(), 1, options).await.unwrap();
    let verify = format!(
        "sslmode=verify-full sslrootcert={}",
        authority.path("ca.crt")
    );
    let select = || psql(&node, "materialize", Some(PASSWORD), &verify, "SELECT 1");
    wait_for_log(&node, "the certificate has expired", 1).await;
    let error = err(&select());
    assert!(error.contains("certificate verify failed"), "{error}");

    authority.install("good", "good");
    hang_up(&node);
    wait_for_log(&node, "were read again", 1).await;
    assert_eq!(out(&select()), "1");

    // A key of another certificate, and no certificate at all: what was there stays.
    authority.install("good", "expired");
    hang_up(&node);
    wait_for_log(&node, "does not belong to the certificate", 1).await;
    assert_eq!(out(&select()), "1");
    std::fs::remove_file(authority.path("node.crt")).unwrap();
    hang_up(&node);
    wait_for_log(&node, "cannot read the certificate file", 1).await;
    assert_eq!(out(&select()), "1");

    authority.install("self", "self");
    hang_up(&node);
    wait_for_log(&node, "were read again", 2).await;
    let error = err(&select());
    assert!(error.contains("certificate verify failed"), "{error}");
    // Encryption without verification: RSA, and channel binding to it.
    let parameters = "sslmode=require channel_binding=require";
    let output = psql(&node, "materialize", Some(PASSWORD), parameters, "SELECT 2");
    assert_eq!(out(&output), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_not_let_in_hears_why_in_the_words_of_postgresql() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = scram_node(dir.path()).await;
    let admin = log_in(&node, "materialize", PASSWORD).await.unwrap();
    admin
        .batch_execute(
            "CREATE ROLE ada LOGIN PASSWORD 'lovelace';
             CREATE ROLE readers PASSWORD 'many';
             CREATE USER late PASSWORD 'too late' VALID UNTIL '2020-01-01 00:00:00+00';
             CREATE USER early PASSWORD 'in time' VALID UNTIL '2120-01-01';
             CREATE USER passwordless",
        )
        .await
        .unwrap();
    let check = async |node: &Node| {
        let row = log_in(node, "ada", "lovelace").await.unwrap();
        let row = row
            .query_one("SELECT current_user::text", &[])
            .await
            .unwrap();
        assert_eq!(row.get::<_, String>(0), "ada");
        log_in(node, "early", "in time").await.unwrap();
        for (user, password) in [
            ("ada", "Lovelace"),
            ("late", "too late"),
            ("passwordless", ""),
            ("stranger", "lovelace"),
        ] {
            let expected = (
                "28P01".to_owned(),
                format!("password authentication failed for user \"{user}\""),
            );
            assert_eq!(refused(node, user, password).await, expected);
        }
        assert_eq!(
            refused(node, "readers", "many").await,
            (
                "28000".to_owned(),
                "role \"readers\" is not permitted to log in".to_owned()
            )
        );
        // Without the right password not even that is told.
        assert_eq!(refused(node, "readers", "few").await.0, "28P01");
        let status = |user: &str| {
            let url = format!("http://localhost:{}/metrics", node.http_port());
            curl(&["--user", user], &url).0
        };
        assert_eq!(status("ada:lovelace"), "200");
        assert_eq!(status("late:too late"), "401");
        assert_eq!(status("readers:many"), "403");
    };
    check(&node).await;
    drop(admin);
    node.stop().await.unwrap();
    node.restart().await.unwrap();
    check(&node).await;
    // Killed, with the password changed by its owner: what was acknowledged holds.
    let ada = log_in(&node, "ada", "lovelace").await.unwrap();
    ada.batch_execute("ALTER ROLE current_user PASSWORD 'byron'")
        .await
        .unwrap();
    node.kill().unwrap();
    node.restart().await.unwrap();
    assert_eq!(refused(&node, "ada", "lovelace").await.0, "28P01");
    let ada = log_in(&node, "ada", "byron").await.unwrap();
    // The initial password is the first one only.
    ada.batch_execute("ALTER USER materialize PASSWORD 'changed'")
        .await
        .unwrap();
    node.kill().unwrap();
    node.restart().await.unwrap();
    assert_eq!(refused(&node, "materialize", PASSWORD).await.0, "28P01");
    log_in(&node, "materialize", "changed").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_nowhere_in_the_clear() {
    let dir = tempfile::tempdir().unwrap();
    let options = NodeOptions {
        arguments: [
            scram(),
            vec![
                "--log".to_owned(),
                "info,flowstone=trace,flowstone_coordinator=trace,flowstone_pgwire=trace,flowstone_sql=trace,flowstone_console=trace,flowstone_flight=trace,pgwire=trace".to_owned(),
            ],
        ]
        .concat(),
        environment: first_password(),
        ..NodeOptions::default()
    };
    let mut node = Node::start_with(dir.path(), 1, options).await.unwrap();
    let admin = log_in(&node, "materialize", PASSWORD).await.unwrap();
    admin
        .batch_execute("CREATE ROLE ada LOGIN PASSWORD 'xyzzyone'")
        .await
        .unwrap();
    admin
        .batch_execute("ALTER ROLE ada WITH ENCRYPTED PASSWORD 'xyzzytwo' VALID UNTIL 'infinity'")
        .await
        .unwrap();
    for statement in [
        "CREATE ROLE ada LOGIN PASSWORD 'xyzzyfour'",
        "CREATE ROLE bob LOGIN PASSWORD 'xyzzyfive' 'xyzzysix'",
        "CREATE ROLE bob PASSWORD xyzzyseven",
        "ALTER ROLE bob PASSWORD 'xyzzyeight'",
        "CREATE ROLE bob PASSWORD 'xyzzynine' PASSWORD 'xyzzyten'",
        "EXPLAIN CREATE ROLE bob PASSWORD 'xyzzyeleven'",
        "CREATE ROLE bob PASSWORD 'xyzzytwelve' IN ROLE ada",
    ] {
        let error = admin.batch_execute(statement).await.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert!(!format!("{error:?}").contains("xyzzy"), "{error:?}");
    }
    for query in [
        "SELECT * FROM pg_roles",
        "SELECT * FROM pg_authid",
        "SELECT * FROM pg_user",
        "SELECT * FROM mz_roles",
        "SELECT * FROM pg_stat_activity",
        "SHOW ROLES",
    ] {
        let rows = format!("{:?}", admin.simple_query(query).await.unwrap());
        assert!(rows.contains("materialize"), "{query}: {rows}");
        assert!(
            !rows.contains("xyzzy") && !rows.contains("SCRAM-SHA-256$"),
            "{query}: {rows}"
        );
    }
    refused(&node, "ada", "xyzzythree").await;
    log_in(&node, "ada", "xyzzytwo").await.unwrap();
    let url = format!("http://localhost:{}/metrics", node.http_port());
    for (password, status, flight) in [
        ("xyzzythree", "401", "FlightUnauthenticatedError"),
        ("xyzzytwo", "200", "ok"),
    ] {
        assert_eq!(
            curl(&["--user", &format!("ada:{password}")], &url).0,
            status
        );
        assert_eq!(flight_sign_in(&node, "grpc", "", "ada", password), flight);
    }
    node.stop().await.unwrap();
    let data = dir.path().join("data");
    assert!(holds(&data, b"SCRAM-SHA-256$4096:").is_some());
    assert_eq!(holds(dir.path(), b"xyzzy"), None);
    assert_eq!(holds(dir.path(), PASSWORD.as_bytes()), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verifier_of_postgresql_is_one_here() {
    let dir = tempfile::tempdir().unwrap();
    let postgres = Postgres::start(dir.path()).unwrap();
    let upstream = postgres.connect().await.unwrap();
    upstream
        .batch_execute(
            "SET password_encryption = 'scram-sha-256'; CREATE ROLE ada LOGIN PASSWORD 'p\u{e4}ssw\u{f6}rd \u{2168}'",
        )
        .await
        .unwrap();
    let verifier: String = upstream
        .query_one(
            "SELECT rolpassword FROM pg_authid WHERE rolname = 'ada'",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert!(verifier.starts_with("SCRAM-SHA-256$4096:"), "{verifier}");
    let node = scram_node(dir.path()).await;
    let admin = log_in(&node, "materialize", PASSWORD).await.unwrap();
    admin
        .batch_execute(&format!("CREATE ROLE ada LOGIN PASSWORD '{verifier}'"))
        .await
        .unwrap();
    // U+2168 is the Roman numeral nine, which SASLprep makes "IX".
    for password in ["p\u{e4}ssw\u{f6}rd \u{2168}", "p\u{e4}ssw\u{f6}rd IX"] {
        log_in(&node, "ada", password).await.unwrap();
        let output = psql(&node, "ada", Some(password), "", "SELECT current_user");
        assert_eq!(out(&output), "ada");
    }
    assert_eq!(refused(&node, "ada", &verifier).await.0, "28P01");
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_failures_are_slowed_and_the_right_password_still_gets_in() {
    let dir = tempfile::tempdir().unwrap();
    let node = scram_node(dir.path()).await;
    let attempt = async || {
        let start = Instant::now();
        assert_eq!(refused(&node, "materialize", "wrong").await.0, "28P01");
        start.elapsed()
    };
    let first = attempt().await;
    let mut last = first;
    for _ in 0..6 {
        last = attempt().await;
    }
    assert!(last > first, "{last:?} after {first:?}");
    log_in(&node, "materialize", PASSWORD).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_is_asked_for_a_password_tls_is_a_choice_and_nologin_still_counts() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(&dir.path().join("tls"));
    authority.certificate("good", 10);
    authority.install("good", "good");
    let mut arguments = authority.arguments();
    arguments.extend(["--tls-required".to_owned(), "false".to_owned()]);
    let options = NodeOptions {
        arguments,
        ..NodeOptions::default()
    };
    let node = Node::start_with(dir.path(), 1, options).await.unwrap();
    let ca = authority.path("ca.crt");
    for parameters in [
        "sslmode=disable".to_owned(),
        "sslmode=prefer".to_owned(),
        format!("sslmode=verify-full sslrootcert={ca}"),
    ] {
        let output = psql(&node, "anybody", None, &parameters, "SELECT current_user");
        assert_eq!(out(&output), "anybody", "{parameters}");
    }
    let output = psql(
        &node,
        "materialize",
        None,
        "",
        "CREATE ROLE readers PASSWORD 'x'",
    );
    assert_eq!(out(&output), "CREATE ROLE");
    let notices = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        notices.contains("this node does not ask for passwords"),
        "{notices}"
    );
    let (state, message) = refused(&node, "readers", "x").await;
    assert_eq!(
        (state.as_str(), message.as_str()),
        ("28000", "role \"readers\" is not permitted to log in")
    );
    for scheme in ["http", "https"] {
        let url = format!("{scheme}://localhost:{}/metrics", node.http_port());
        assert_eq!(curl(&["--cacert", &ca], &url).0, "200", "{scheme}");
        assert_eq!(
            curl(&["--cacert", &ca, "--user", "readers:x"], &url).0,
            "403"
        );
    }
    for (scheme, ca) in [("grpc", ""), ("grpc+tls", ca.as_str())] {
        assert_eq!(flight_sign_in(&node, scheme, ca, "anybody", ""), "ok");
        assert_eq!(
            flight_sign_in(&node, scheme, ca, "readers", "x"),
            "FlightUnauthorizedError"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_stall_or_smuggle_before_tls_get_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(&dir.path().join("tls"));
    authority.certificate("good", 10);
    authority.install("good", "good");
    let options = NodeOptions {
        arguments: [scram(), authority.arguments()].concat(),
        environment: first_password(),
        ..NodeOptions::default()
    };
    let node = Node::start_with(dir.path(), 1, options).await.unwrap();
    // Fifty connections to each port that never say a word.
    let mut silent = Vec::new();
    for _ in 0..50 {
        for port in [node.pg_port(), node.http_port(), node.flight_port()] {
            silent.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
        }
    }
    let verify = format!(
        "sslmode=verify-full sslrootcert={}",
        authority.path("ca.crt")
    );
    let output = psql(&node, "materialize", Some(PASSWORD), &verify, "SELECT 1");
    assert_eq!(out(&output), "1");
    let url = format!("https://localhost:{}/livez", node.http_port());
    assert_eq!(
        curl(&["--cacert", &authority.path("ca.crt")], &url).0,
        "200"
    );
    let ca = authority.path("ca.crt");
    assert_eq!(
        flight_sign_in(&node, "grpc+tls", &ca, "materialize", PASSWORD),
        "ok"
    );
    drop(silent);

    // A startup message in the clear right behind the request for TLS, as one in the middle would inject it.
    let ssl_request = [&8_i32.to_be_bytes()[..], &80_877_103_i32.to_be_bytes()].concat();
    let startup = b"\0\0\0\x1a\0\x03\0\0user\0materialize\0\0";
    let mut socket = TcpStream::connect(("127.0.0.1", node.pg_port()))
        .await
        .unwrap();
    socket
        .write_all(&[ssl_request.as_slice(), startup.as_slice()].concat())
        .await
        .unwrap();
    let mut answer = [0];
    socket.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"S");
    let connector = connector(&authority.path("ca.crt"));
    let mut socket = connector
        .connect("localhost".try_into().unwrap(), socket)
        .await
        .unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert!(
        text.starts_with('E') && text.contains("08P01") && text.contains("unencrypted data"),
        "{text:?}"
    );

    // A message larger than any of an authentication is not waited for.
    let mut socket = TcpStream::connect(("127.0.0.1", node.pg_port()))
        .await
        .unwrap();
    socket.write_all(&ssl_request).await.unwrap();
    socket.read_exact(&mut [0]).await.unwrap();
    let mut socket = connector
        .connect("localhost".try_into().unwrap(), socket)
        .await
        .unwrap();
    socket.write_all(startup).await.unwrap();
    socket.write_all(b"p\x3f\xff\xff\xff").await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert!(
        text.contains("SCRAM-SHA-256-PLUS") && text.contains("08P01"),
        "{text:?}"
    );
}

/// A TLS client that trusts one authority.
fn connector(ca: &str) -> tokio_rustls::TlsConnector {
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(rustls::pki_types::CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tokio_rustls::TlsConnector::from(std::sync::Arc::new(config))
}

#[test]
fn a_node_does_not_start_with_half_of_the_protection() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(&dir.path().join("tls"));
    authority.certificate("good", 10);
    authority.certificate("other", 10);
    authority.install("good", "good");
    std::fs::write(
        authority.path("encrypted.key"),
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMDAw\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .unwrap();
    let refusal = |arguments: Vec<String>| {
        let mut command = Command::new("timeout");
        command
            .args(["--signal=KILL", "60"])
            .arg(Node::binary().unwrap())
            .arg("serve")
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .args(arguments);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FLOWSTONE_")) {
            command.env_remove(name);
        }
        let port = free_port().unwrap();
        command.env("FLOWSTONE_PG_LISTEN", format!("127.0.0.1:{port}"));
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let beyond = |more: Vec<String>| {
        let listen = vec!["--http-listen".to_owned(), "0.0.0.0:0".to_owned()];
        refusal([listen, more].concat())
    };
    for (words, expected) in [
        (
            beyond(Vec::new()),
            "set tls_cert_file and tls_key_file and auth = \"scram\"",
        ),
        (beyond(scram()), "set tls_cert_file and tls_key_file\n"),
        (beyond(authority.arguments()), "set auth = \"scram\"\n"),
        (
            beyond(
                [
                    scram(),
                    authority.arguments(),
                    vec!["--tls-required".to_owned(), "false".to_owned()],
                ]
                .concat(),
            ),
            "remove tls_required",
        ),
        (
            refusal(vec![
                "--tls-cert-file".to_owned(),
                authority.path("node.crt"),
                "--tls-key-file".to_owned(),
                authority.path("other.key"),
            ]),
            "other.key does not belong to the certificate in",
        ),
        (
            refusal(vec![
                "--tls-cert-file".to_owned(),
                authority.path("absent.crt"),
                "--tls-key-file".to_owned(),
                authority.path("node.key"),
            ]),
            "absent.crt",
        ),
        (
            refusal(vec![
                "--tls-cert-file".to_owned(),
                authority.path("node.crt"),
                "--tls-key-file".to_owned(),
                authority.path("encrypted.key"),
            ]),
            "encrypted.key holds no private key in PEM",
        ),
    ] {
        assert!(words.contains(expected), "{words}");
    }
}
