//! What tests need of disks: one that has nothing left to write, and a small one that can be filled up: a file system in memory, of a fixed size, in a mount namespace of its own.
//!
//! Needs no privileges where user namespaces are allowed, and root otherwise; `ENOSPC` is the kernel's own.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

/// Waits until the disk has what the system was given for it. That is written half a minute late, also what others wrote, as a build its binaries; whoever syncs
/// then waits for all of it.
///
/// # Errors
/// `sync` fails.
pub async fn synced() -> Result<()> {
    let synced = tokio::process::Command::new("sync").status().await?;
    if !synced.success() {
        bail!("sync failed: {synced}");
    }
    Ok(())
}

/// A mounted disk. It goes, with everything on it, when its value does.
#[derive(Debug)]
pub struct SmallDisk {
    mount_point: PathBuf,
    /// Keeps the namespace; ends when its standard input does.
    holder: Child,
    own_user_namespace: bool,
}

impl SmallDisk {
    /// Mounts a disk of `mib` MiB on `mount_point`, an existing directory. Only processes run with [`SmallDisk::command`] see it there.
    ///
    /// # Errors
    /// The system does not allow it: neither as root nor in a user namespace.
    pub fn mount(mount_point: &Path, mib: usize) -> Result<Self> {
        let own_user_namespace = !crate::postgres::is_root();
        let mut unshare = Command::new("unshare");
        unshare.arg("--mount");
        if own_user_namespace {
            unshare.args(["--user", "--map-root-user"]);
        }
        let script =
            "mount -t tmpfs -o size=\"$1\"m,mode=755 tmpfs \"$2\" && echo mounted && read -r _";
        let mut holder = unshare
            .args(["sh", "-c", script, "sh", &mib.to_string()])
            .arg(mount_point)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run unshare")?;
        let mut said = String::new();
        let output = holder.stdout.take().context("no standard output")?;
        BufReader::new(output).read_line(&mut said)?;
        if said.trim() != "mounted" {
            drop(holder.kill());
            drop(holder.wait());
            bail!(
                "a file system in memory cannot be mounted: run as root, or allow user namespaces"
            );
        }
        Ok(Self {
            mount_point: mount_point.to_owned(),
            holder,
            own_user_namespace,
        })
    }

    /// A command that runs `program` where the disk is mounted. The process is the program itself.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--mount"]);
        if self.own_user_namespace {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg("--").arg(program);
        command
    }

    /// The disk's root, as this process reaches it.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        let inside = self
            .mount_point
            .strip_prefix("/")
            .unwrap_or(&self.mount_point);
        PathBuf::from(format!("/proc/{}/root", self.holder.id())).join(inside)
    }

    /// Fills the disk with ballast until `mib` MiB are left, or nothing at all.
    ///
    /// # Errors
    /// The ballast cannot be written for another reason than the lack of room.
    pub fn fill(&self, mib: usize) -> Result<()> {
        let mut ballast = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.ballast())?;
        let block = vec![1; 64 << 10];
        loop {
            if mib > 0 && self.left_mib()? <= mib {
                return Ok(());
            }
            match ballast.write(&block) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Removes the ballast.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.ballast())?)
    }

    /// What is left, in MiB.
    ///
    /// # Errors
    /// `stat` does not say.
    pub fn left_mib(&self) -> Result<usize> {
        // `df` would look for the disk where this process has something else.
        let output = Command::new("stat")
            .args(["--file-system", "--format=%a %S"])
            .arg(self.root())
            .output()?;
        let text = String::from_utf8(output.stdout)?;
        let (blocks, block_size) = text.trim().split_once(' ').context("stat says nothing")?;
        Ok((blocks.parse::<usize>()? * block_size.parse::<usize>()?) >> 20)
    }

    fn ballast(&self) -> PathBuf {
        self.root().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The end of its input ends the holder, and with the last process in it the namespace goes.
        drop(self.holder.stdin.take());
        drop(self.holder.wait());
    }
}
