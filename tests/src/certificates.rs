//! Certificates of a scratch authority, as files.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::process::run;

/// Keys that are made at once.
const KEY: [&str; 5] = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
    "-nodes",
];

/// What certificates are for, unless something is wrong with them.
const HOSTS: &str = "DNS:localhost,IP:127.0.0.1";

const NO_AUTHORITY: &str = "basicConstraints=critical,CA:FALSE";

/// What `openssl ca` wants to be told in a file.
const SIGNING: &str = "\
[ca]
default_ca = this
[this]
database = ca.index
new_certs_dir = .
rand_serial = yes
default_md = sha256
copy_extensions = copy
policy = any
[any]
commonName = supplied
";

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Its time is over.
    Expired,
    /// It is for another host.
    OtherHost,
}

/// An authority and what it signed, in a directory.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
}

impl Authority {
    /// Makes an authority: `ca.pem`, `ca.key`.
    ///
    /// # Errors
    /// `openssl` fails.
    pub fn new(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let authority = Self {
            dir: dir.to_owned(),
        };
        authority.request("ca", &["-subj", "/CN=test-authority"])?;
        Ok(authority)
    }

    /// Signs a certificate for localhost and 127.0.0.1, for servers and clients: `name.pem`, `name.key`, and both in `name-bundle.pem`.
    ///
    /// # Errors
    /// `openssl` fails.
    pub fn issue(&self, name: &str) -> Result<()> {
        self.sign(name, HOSTS)?;
        self.bundle(name)
    }

    /// The same with something wrong.
    ///
    /// # Errors
    /// `openssl` fails.
    pub fn issue_flawed(&self, name: &str, flaw: Flaw) -> Result<()> {
        match flaw {
            Flaw::Expired => self.sign_expired(name)?,
            Flaw::OtherHost => self.sign(name, "DNS:elsewhere.invalid")?,
        }
        self.bundle(name)
    }

    fn sign(&self, name: &str, hosts: &str) -> Result<()> {
        self.request(
            name,
            &[
                "-subj",
                &format!("/CN={name}"),
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
                "-addext",
                &format!("subjectAltName={hosts}"),
                "-addext",
                NO_AUTHORITY,
            ],
        )
    }

    /// For a time that is over: nothing else of `openssl` does that.
    fn sign_expired(&self, name: &str) -> Result<()> {
        std::fs::write(self.path("ca.cnf"), SIGNING)?;
        // What was signed before is of no interest.
        std::fs::write(self.path("ca.index"), "")?;
        let request = format!("{name}.csr");
        run(Command::new("openssl")
            .args(["req", "-new"])
            .args(KEY)
            .args(["-keyout", &format!("{name}.key"), "-out", &request])
            .args(["-subj", &format!("/CN={name}")])
            .args(["-addext", &format!("subjectAltName={HOSTS}")])
            .args(["-addext", NO_AUTHORITY])
            .current_dir(&self.dir))?;
        run(Command::new("openssl")
            .args(["ca", "-config", "ca.cnf", "-batch", "-notext"])
            .args(["-cert", "ca.pem", "-keyfile", "ca.key"])
            .args(["-startdate", "20200101000000Z"])
            .args(["-enddate", "20200131000000Z"])
            .args(["-in", &request, "-out", &format!("{name}.pem")])
            .current_dir(&self.dir))
        .map(drop)
    }

    fn bundle(&self, name: &str) -> Result<()> {
        let mut bundle = std::fs::read(self.path(&format!("{name}.key")))?;
        bundle.extend(std::fs::read(self.path(&format!("{name}.pem")))?);
        bundle.extend(std::fs::read(self.path("ca.pem"))?);
        std::fs::write(self.path(&format!("{name}-bundle.pem")), bundle)?;
        Ok(())
    }

    /// One of the files.
    #[must_use]
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    fn request(&self, name: &str, arguments: &[&str]) -> Result<()> {
        run(Command::new("openssl")
            .args(["req", "-x509", "-days", "30"])
            .args(KEY)
            .args(["-keyout", &format!("{name}.key")])
            .args(["-out", &format!("{name}.pem")])
            .args(arguments)
            .current_dir(&self.dir))
        .map(drop)
    }
}
