//! The values of secrets that are set, and the key under which they are kept.
//!
//! Owns the pairing of what the Raft state keeps sealed with the key that opens it. Must not know what a secret is for. Called by DDL (seal), and by `install`, which
//! resolves connections.

use flowstone_types::ObjectId;
use zeroize::Zeroizing;

use crate::raft::RaftNode;
use crate::secrets::{SecretError, SecretKey};

/// The values of secrets.
#[derive(Debug)]
pub(crate) struct Vault {
    key: SecretKey,
    raft: RaftNode,
}

impl Vault {
    pub(crate) const fn new(key: SecretKey, raft: RaftNode) -> Self {
        Self { key, raft }
    }

    /// The value of a secret that is set.
    ///
    /// # Errors
    /// [`SecretError::Missing`], [`SecretError::Open`].
    pub(crate) fn value(&self, id: ObjectId) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let sealed = self.raft.secret(id).ok_or(SecretError::Missing(id))?;
        self.key.open(id, &sealed)
    }

    /// Encrypts the value of a secret that is about to be set.
    ///
    /// # Errors
    /// [`SecretError::Seal`].
    pub(crate) fn seal(&self, id: ObjectId, value: &[u8]) -> Result<Vec<u8>, SecretError> {
        self.key.seal(id, value)
    }

    /// Decrypts what [`Vault::seal`] made for the same secret.
    ///
    /// # Errors
    /// [`SecretError::Open`].
    pub(crate) fn open(
        &self,
        id: ObjectId,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        self.key.open(id, sealed)
    }
}
