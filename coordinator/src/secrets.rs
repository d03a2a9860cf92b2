//! Secrets at rest: AES-256-GCM under a key that lives beside the data and never in it.
//!
//! Owns the key file and the format of a sealed value. Must not know what a secret is for. Called by DDL (seal) and by whoever resolves a connection (open).
//!
//! Invariants. A sealed value opens only under the id it was sealed for. Values and the key are wiped from memory when dropped. No `Debug` shows either.

use std::io::{self, Read};
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use flowstone_disk::Kind;
use flowstone_types::ObjectId;
use zeroize::Zeroizing;

/// Version byte in front of every sealed value: nonce, then ciphertext and tag.
const SEALED_FORMAT: u8 = 1;
const KEY_BYTES: usize = 32;

/// Why a secret cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The key file cannot be read or made.
    #[error("cannot use the key file \"{path}\"")]
    KeyFile {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The value was sealed under another key, for another secret, or is damaged.
    #[error("secret {0} cannot be decrypted: the key file is not the one it was encrypted with")]
    Open(ObjectId),
    /// The cipher failed: a bug of ours.
    #[error("secret {0} cannot be encrypted")]
    Seal(ObjectId),
    /// The secret has no value.
    #[error("secret {0} has no value")]
    Missing(ObjectId),
}

/// The key that secrets are sealed under.
pub struct SecretKey {
    sealing: RandomizedNonceKey,
    /// What other keys are derived from.
    deriving: hmac::Key,
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey")
    }
}

impl SecretKey {
    /// Reads the key in `path`, or makes a new one there, readable by the owner only.
    ///
    /// # Errors
    /// [`SecretError::KeyFile`].
    pub fn open_or_create(path: &Path) -> Result<Self, SecretError> {
        let failed = |source| SecretError::KeyFile {
            path: path.display().to_string(),
            source,
        };
        let bytes = match read_key(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_key(path).map_err(failed)?
            }
            Err(error) => return Err(failed(error)),
        };
        let sealing = RandomizedNonceKey::new(&AES_256_GCM, &bytes).map_err(|_| {
            failed(io::Error::new(
                io::ErrorKind::InvalidData,
                "it does not hold 32 bytes",
            ))
        })?;
        Ok(Self {
            sealing,
            deriving: hmac::Key::new(hmac::HMAC_SHA256, &bytes),
        })
    }

    /// A key for `purpose`: the same for the same key file, and no help in finding it.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> Zeroizing<[u8; KEY_BYTES]> {
        let tag = hmac::sign(&self.deriving, purpose.as_bytes());
        Zeroizing::new(
            tag.as_ref()
                .try_into()
                .expect("an HMAC-SHA-256 tag has 32 bytes"),
        )
    }

    /// Encrypts `value` for the secret `id`.
    ///
    /// # Errors
    /// [`SecretError::Seal`].
    pub fn seal(&self, id: ObjectId, value: &[u8]) -> Result<Vec<u8>, SecretError> {
        let mut buffer = value.to_vec();
        let nonce = self
            .sealing
            .seal_in_place_append_tag(Aad::from(id.to_string()), &mut buffer)
            .map_err(|_| SecretError::Seal(id))?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + buffer.len());
        sealed.push(SEALED_FORMAT);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.extend_from_slice(&buffer);
        Ok(sealed)
    }

    /// Decrypts what [`SecretKey::seal`] made for the same `id`.
    ///
    /// # Errors
    /// [`SecretError::Open`].
    pub fn open(&self, id: ObjectId, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let failed = || SecretError::Open(id);
        let (format, rest) = sealed.split_first().ok_or_else(failed)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(failed)?;
        if *format != SEALED_FORMAT {
            return Err(failed());
        }
        let mut buffer = Zeroizing::new(ciphertext.to_vec());
        let length = self
            .sealing
            .open_in_place(Nonce::from(nonce), Aad::from(id.to_string()), &mut buffer)
            .map_err(|_| failed())?
            .len();
        buffer.truncate(length);
        Ok(buffer)
    }
}

fn read_key(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_BYTES));
    std::fs::File::open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn create_key(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; KEY_BYTES]);
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("no randomness"))?;
    flowstone_disk::replace(path, &bytes, Kind::SecretKey)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_value_opens_only_for_its_own_secret_and_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secrets.key");
        let key = SecretKey::open_or_create(&path).unwrap();
        let sealed = key.seal(ObjectId::User(7), b"hunter2").unwrap();
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        let again = SecretKey::open_or_create(&path).unwrap();
        assert_eq!(
            again.open(ObjectId::User(7), &sealed).unwrap().as_slice(),
            b"hunter2"
        );
        assert!(matches!(
            again.open(ObjectId::User(8), &sealed),
            Err(SecretError::Open(_))
        ));
        let other = SecretKey::open_or_create(&directory.path().join("other.key")).unwrap();
        assert!(matches!(
            other.open(ObjectId::User(7), &sealed),
            Err(SecretError::Open(_))
        ));
        let mut damaged = sealed;
        *damaged.last_mut().unwrap() ^= 1;
        assert!(matches!(
            again.open(ObjectId::User(7), &damaged),
            Err(SecretError::Open(_))
        ));
    }

    #[test]
    fn the_key_file_is_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secrets.key");
        SecretKey::open_or_create(&path).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}
