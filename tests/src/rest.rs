//! Requests to servers with a REST interface, by `curl`: chunked answers, TLS and passwords are its business.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::http::Answer;
use crate::process::run;

/// Where a server is and what it wants to know of its clients.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// Without a slash at the end.
    pub(crate) url: String,
    /// The authority that signed its certificate.
    pub(crate) ca: Option<PathBuf>,
    /// A name and a password.
    pub(crate) user: Option<(String, String)>,
}

impl Endpoint {
    /// Asks for `path`, which begins with a slash; `body` is JSON.
    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<Answer> {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "30", "--request", method]);
        command.args(["--write-out", "\n%{http_code}"]);
        if let Some(ca) = &self.ca {
            command.arg("--cacert").arg(ca);
        }
        if let Some((name, password)) = &self.user {
            command.args(["--user", &format!("{name}:{password}")]);
        }
        if let Some(body) = body {
            command.args(["--header", "Content-Type: application/json"]);
            command.args(["--data-binary", &body.to_string()]);
        }
        command.arg(format!("{}{path}", self.url));
        let printed = tokio::task::spawn_blocking(move || run(&mut command)).await??;
        let (body, status) = printed.rsplit_once('\n').context("curl says nothing")?;
        Ok(Answer::new(status.parse()?, body.to_owned()))
    }

    /// Whether a request for `path` is answered well; what is wrong if not.
    pub(crate) async fn answers(&self, path: &str) -> Result<(), String> {
        let answer = self.succeed("GET", path, None).await;
        answer.map(drop).map_err(|error| format!("{error:#}"))
    }

    /// The body of the answer, which must be a good one.
    pub(crate) async fn succeed(
        &self,
        method: &str,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<Answer> {
        let answer = self.request(method, path, body).await?;
        if !(200..300).contains(&answer.status) {
            bail!(
                "{method} {}{path}: {} {}",
                self.url,
                answer.status,
                answer.body
            );
        }
        Ok(answer)
    }
}
