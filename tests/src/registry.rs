//! A schema registry: Apicurio's, through the interface that Confluent's has.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;

use crate::certificates::Authority;
use crate::free_port;
use crate::http::Answer;
use crate::process::{Process, installed};
use crate::rest::Endpoint;

/// How a registry differs from the usual one, which lets everybody in over plain HTTP.
#[derive(Clone, Debug, Default)]
pub struct RegistryOptions {
    /// The one user that may come in, and the password.
    pub user: Option<(String, String)>,
    /// Only HTTPS, with a certificate of an authority of its own.
    pub tls: bool,
}

/// A running registry. It keeps schemas in memory: a restart forgets them. Like Confluent's it demands backward compatibility.
#[derive(Debug)]
pub struct Registry {
    dir: PathBuf,
    port: u16,
    options: RegistryOptions,
    authority: Option<Authority>,
    process: Option<Process>,
}

impl Registry {
    /// Starts a registry whose log is under `dir`.
    ///
    /// # Errors
    /// It is not installed, or does not serve in time.
    pub async fn start(dir: &Path) -> Result<Self> {
        Self::start_with(dir, RegistryOptions::default()).await
    }

    /// Starts a registry that differs from the usual one.
    ///
    /// # Errors
    /// It is not installed, or does not serve in time.
    pub async fn start_with(dir: &Path, options: RegistryOptions) -> Result<Self> {
        let dir = dir.join("registry");
        std::fs::create_dir_all(&dir)?;
        let authority = if options.tls {
            let authority = Authority::new(&dir)?;
            authority.issue("server")?;
            Some(authority)
        } else {
            None
        };
        let mut registry = Self {
            port: free_port()?,
            dir,
            options,
            authority,
            process: None,
        };
        registry.serve().await?;
        Ok(registry)
    }

    /// Starts the process, with no schemas.
    async fn serve(&mut self) -> Result<()> {
        drop(self.process.take());
        let mut process = Process::spawn(
            "the schema registry",
            &self.dir.join("log"),
            &mut self.command()?,
        )?;
        let endpoint = self.endpoint();
        process
            .wait_ready(async || endpoint.answers("/subjects").await)
            .await?;
        self.process = Some(process);
        Ok(())
    }

    /// It answers nothing until [`Registry::resume`], and forgets nothing.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self) -> Result<()> {
        self.running()?.signal("-STOP")
    }

    /// # Errors
    /// It does not run.
    pub fn resume(&self) -> Result<()> {
        self.running()?.signal("-CONT")
    }

    fn running(&self) -> Result<&Process> {
        self.process.as_ref().context("the registry does not run")
    }

    /// The address to give to clients, as Confluent's registry would have it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}/apis/ccompat/v7", self.base_url())
    }

    /// The address without a path.
    pub(crate) fn base_url(&self) -> String {
        let scheme = if self.options.tls { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// The certificate of the authority, if it speaks HTTPS.
    #[must_use]
    pub fn ca(&self) -> Option<PathBuf> {
        self.authority
            .as_ref()
            .map(|authority| authority.path("ca.pem"))
    }

    /// Registers a schema under a subject: its id. `kind` is `AVRO`, `JSON` or `PROTOBUF`.
    ///
    /// # Errors
    /// The registry refuses it.
    pub async fn register(&self, subject: &str, kind: &str, schema: &str) -> Result<u32> {
        let body = json!({"schema": schema, "schemaType": kind});
        let answer = self
            .endpoint()
            .succeed(
                "POST",
                &format!("/subjects/{subject}/versions"),
                Some(&body),
            )
            .await?
            .json()?;
        let id = answer
            .get("id")
            .and_then(serde_json::Value::as_u64)
            .with_context(|| format!("no id: {answer}"))?;
        Ok(u32::try_from(id)?)
    }

    /// Says how new versions of a subject are checked: `NONE`, `BACKWARD`, …
    ///
    /// # Errors
    /// The registry refuses it.
    pub async fn set_compatibility(&self, subject: &str, level: &str) -> Result<()> {
        let body = json!({"compatibility": level});
        self.endpoint()
            .succeed("PUT", &format!("/config/{subject}"), Some(&body))
            .await
            .map(drop)
    }

    /// Any request; `path` begins with a slash.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<Answer> {
        self.endpoint().request(method, path, body).await
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint {
            url: self.url(),
            ca: self.ca(),
            user: self.options.user.clone(),
        }
    }

    fn command(&self) -> Result<Command> {
        let installed = installed("registry")?;
        let mut command = Command::new(installed.join("java"));
        command.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        let classes = installed.join("classes.aot");
        if classes.exists() {
            command.arg(format!("-XX:AOTCache={}", classes.display()));
        }
        for (key, value) in self.properties() {
            command.arg(format!("-D{key}={value}"));
        }
        command.arg("-jar").arg(installed.join("quarkus-run.jar"));
        Ok(command)
    }

    fn properties(&self) -> Vec<(String, String)> {
        let port = self.port.to_string();
        let mut properties = vec![
            ("quarkus.http.host", "127.0.0.1".to_owned()),
            // Another interface, which would listen on a port that everybody wants.
            ("quarkus.management.host", "127.0.0.1".to_owned()),
            ("quarkus.management.port", "0".to_owned()),
            ("apicurio.datasource.jdbc.initial-size", "2".to_owned()),
            ("apicurio.datasource.jdbc.min-size", "2".to_owned()),
            ("apicurio.rest.artifact.deletion.enabled", "true".to_owned()),
            ("apicurio.rules.global.compatibility", "BACKWARD".to_owned()),
        ];
        if let Some(authority) = &self.authority {
            let file = |name: &str| authority.path(name).display().to_string();
            properties.extend([
                ("quarkus.http.ssl-port", port),
                ("quarkus.http.insecure-requests", "disabled".to_owned()),
                ("quarkus.http.ssl.certificate.files", file("server.pem")),
                ("quarkus.http.ssl.certificate.key-files", file("server.key")),
            ]);
        } else {
            properties.push(("quarkus.http.port", port));
        }
        let mut properties: Vec<(String, String)> = properties
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        if let Some((name, password)) = &self.options.user {
            let users = "quarkus.security.users.embedded";
            let api = "quarkus.http.auth.permission.api";
            properties.extend([
                ("quarkus.http.auth.basic".to_owned(), "true".to_owned()),
                (format!("{users}.plain-text"), "true".to_owned()),
                (format!("{users}.users.{name}"), password.clone()),
                (format!("{users}.roles.{name}"), "sr-admin".to_owned()),
                (format!("{api}.paths"), "/apis/*".to_owned()),
                (format!("{api}.policy"), "authenticated".to_owned()),
            ]);
        }
        properties
    }
}
