//! A real browser without a window, driven over the DevTools protocol through a pair of pipes.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;

/// How long the browser may take for one answer; the first includes its start on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// Chromium with one page. It dies with its value.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    commands: pipe::Sender,
    answers: BufReader<pipe::Receiver>,
    next_id: u64,
    /// The page's session, once there is one.
    session: Option<String>,
    complaints: Vec<String>,
    _dir: TempDir,
}

impl Browser {
    /// Starts a browser and opens `url` in a window of this size.
    ///
    /// # Errors
    /// Chromium is not installed or does not start.
    pub async fn open(url: &str, width: u32, height: u32) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let (input, output) = (dir.path().join("in"), dir.path().join("out"));
        let made = Command::new("mkfifo").arg(&input).arg(&output).status()?;
        if !made.success() {
            bail!("mkfifo failed");
        }
        // Opened for both directions, so that neither side waits for the other to open its end.
        let both = |options: &mut pipe::OpenOptions| options.read_write(true).clone();
        let commands = both(&mut pipe::OpenOptions::new()).open_sender(&input)?;
        let answers = both(&mut pipe::OpenOptions::new()).open_receiver(&output)?;
        // The protocol wants its pipes as descriptors 3 and 4.
        let child = Command::new("sh")
            .arg("-c")
            .arg("in=$1 out=$2; shift 2; exec \"$@\" 3<\"$in\" 4>\"$out\"")
            .arg("sh")
            .arg(&input)
            .arg(&output)
            .args([
                "chromium",
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                "--remote-debugging-pipe",
            ])
            .arg(format!(
                "--user-data-dir={}",
                dir.path().join("profile").display()
            ))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.path().join("log"))?)
            .spawn()?;
        let mut browser = Self {
            child,
            commands,
            answers: BufReader::new(answers),
            next_id: 0,
            session: None,
            complaints: Vec::new(),
            _dir: dir,
        };
        let target = browser
            .call("Target.createTarget", json!({"url": "about:blank"}))
            .await?;
        let attached = browser
            .call(
                "Target.attachToTarget",
                json!({"targetId": at(&target, "/targetId"), "flatten": true}),
            )
            .await?;
        browser.session = at(&attached, "/sessionId").as_str().map(str::to_owned);
        browser.call("Runtime.enable", json!({})).await?;
        browser.call("Log.enable", json!({})).await?;
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        browser
            .call("Emulation.setDeviceMetricsOverride", size)
            .await?;
        browser.call("Page.navigate", json!({"url": url})).await?;
        Ok(browser)
    }

    /// The value of a JavaScript expression in the page.
    ///
    /// # Errors
    /// The expression throws, or the browser is gone.
    pub async fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let answer = self
            .call(
                "Runtime.evaluate",
                json!({"expression": expression, "returnByValue": true, "awaitPromise": true}),
            )
            .await?;
        if let Some(thrown) = answer.get("exceptionDetails") {
            bail!("{expression}: {thrown}");
        }
        Ok(at(&answer, "/result/value").clone())
    }

    /// Shows the page as someone who prefers `scheme` (`light` or `dark`) sees it.
    ///
    /// # Errors
    /// The browser is gone.
    pub async fn prefer(&mut self, scheme: &str) -> Result<()> {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", features)
            .await
            .map(drop)
    }

    /// Writes what is to be seen as a PNG.
    ///
    /// # Errors
    /// The browser is gone, or the file cannot be written.
    pub async fn screenshot(&mut self, path: &Path) -> Result<()> {
        let answer = self
            .call("Page.captureScreenshot", json!({"format": "png"}))
            .await?;
        let data = at(&answer, "/data").as_str().context("no picture")?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(data)?;
        Ok(std::fs::write(path, bytes)?)
    }

    /// Exceptions that nobody caught and errors that the browser logged (blocked resources, failed requests), since the start.
    #[must_use]
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    async fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        tokio::time::timeout(DEADLINE, self.call_unbounded(method, parameters))
            .await
            .with_context(|| format!("the browser does not answer {method}"))?
    }

    async fn call_unbounded(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.next_id += 1;
        let mut message = json!({"id": self.next_id, "method": method, "params": parameters});
        if let (Some(session), Some(fields)) = (&self.session, message.as_object_mut()) {
            fields.insert("sessionId".to_owned(), session.as_str().into());
        }
        let mut bytes = serde_json::to_vec(&message)?;
        bytes.push(0);
        self.commands.write_all(&bytes).await?;
        loop {
            let mut bytes = Vec::new();
            self.answers.read_until(0, &mut bytes).await?;
            if bytes.pop() != Some(0) {
                bail!("the browser is gone");
            }
            let message: Value = serde_json::from_slice(&bytes)?;
            if at(&message, "/id").as_u64() == Some(self.next_id) {
                if let Some(error) = message.get("error") {
                    bail!("{method}: {error}");
                }
                return Ok(at(&message, "/result").clone());
            }
            self.hear(&message);
        }
    }

    fn hear(&mut self, event: &Value) {
        match at(event, "/method").as_str() {
            Some("Runtime.exceptionThrown") => self
                .complaints
                .push(at(event, "/params/exceptionDetails").to_string()),
            Some("Log.entryAdded") if at(event, "/params/entry/level") == "error" => {
                self.complaints.push(at(event, "/params/entry").to_string());
            }
            _ => {}
        }
    }
}

/// A part of an answer; `null` if it is not there.
fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
