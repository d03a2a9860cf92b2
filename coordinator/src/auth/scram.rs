//! SCRAM-SHA-256 (RFC 5802, RFC 7677) as PostgreSQL uses it: the server's half of the exchange, and the verifier that a password is stored as.
//!
//! Owns the derivation, the textual form of a verifier and the grammar of the messages. Must not know roles, sockets or randomness: nonces and salts are given.
//!
//! Invariants. Comparisons of secrets take the same time whatever they compare. No `Debug` shows a key. Iterations are bounded, so that nobody who can create
//! a role can make the node compute for minutes.

use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use itertools::Itertools;

/// The mechanism without channel binding.
pub const SCRAM_SHA_256: &str = "SCRAM-SHA-256";
/// The mechanism with channel binding.
pub const SCRAM_SHA_256_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// Iterations of new verifiers: PostgreSQL's default.
pub const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("4096 is not zero");
/// Most iterations of a verifier that comes from elsewhere: a second or so of work.
pub const ITERATIONS_MAX: u32 = 1_000_000;
/// Bytes of the salt of new verifiers.
pub const SALT_BYTES: usize = 16;
/// Random bytes in the server's part of the nonce.
pub const NONCE_BYTES: usize = 18;
const KEY_BYTES: usize = digest::SHA256_OUTPUT_LEN;

const VERIFIER_PREFIX: &str = "SCRAM-SHA-256$";
const BINDING_TYPE: &str = "tls-server-end-point";

type Key = [u8; KEY_BYTES];

/// Why an exchange cannot go on, other than a wrong password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// The client broke the grammar or the order of messages.
    #[error("malformed SCRAM message")]
    Malformed(&'static str),
    /// Client and server do not agree on the channel: somebody may sit between them.
    #[error("SCRAM channel binding check failed")]
    Binding(&'static str),
}

impl ScramError {
    /// More about it: a full sentence.
    #[must_use]
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Malformed(detail) | Self::Binding(detail) => detail,
        }
    }
}

/// What a password is checked against.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: NonZeroU32,
    salt: Vec<u8>,
    stored_key: Key,
    server_key: Key,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

/// PostgreSQL's textual form.
impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{VERIFIER_PREFIX}{}:{}${}:{}",
            self.iterations,
            BASE64.encode(&self.salt),
            BASE64.encode(self.stored_key),
            BASE64.encode(self.server_key)
        )
    }
}

impl Verifier {
    /// Derives a verifier from a password. Cost: `iterations` × two SHA-256; about a millisecond for [`ITERATIONS`].
    #[must_use]
    pub fn derive(password: &str, salt: &[u8], iterations: NonZeroU32) -> Self {
        let salted = salted_password(password, salt, iterations);
        let client_key = mac(&salted, b"Client Key");
        Self {
            iterations,
            salt: salt.to_vec(),
            stored_key: hash(&client_key),
            server_key: mac(&salted, b"Server Key"),
        }
    }

    /// A verifier that no password fits, for a role that has none.
    #[must_use]
    pub fn mock(salt: [u8; SALT_BYTES]) -> Self {
        Self {
            iterations: ITERATIONS,
            salt: salt.to_vec(),
            stored_key: [0; KEY_BYTES],
            server_key: [0; KEY_BYTES],
        }
    }

    /// Reads PostgreSQL's textual form; `None` if the text is something else, such as a password.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (parameters, keys) = text.strip_prefix(VERIFIER_PREFIX)?.split_once('$')?;
        let (iterations, salt) = parameters.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let key = |text: &str| BASE64.decode(text).ok()?.try_into().ok();
        Some(Self {
            iterations: iterations.parse().ok()?,
            salt: BASE64.decode(salt).ok()?,
            stored_key: key(stored_key)?,
            server_key: key(server_key)?,
        })
    }

    /// Iterations it was derived with.
    #[must_use]
    pub const fn iterations(&self) -> u32 {
        self.iterations.get()
    }

    /// Whether this is the password. Cost: as [`Verifier::derive`], whatever the answer.
    #[must_use]
    pub fn matches(&self, password: &str) -> bool {
        let given = Self::derive(password, &self.salt, self.iterations);
        verify_slices_are_equal(&given.stored_key, &self.stored_key).is_ok()
    }
}

/// `Hi(Normalize(password), salt, i)`. A password that SASLprep does not admit is taken as it is, as PostgreSQL does.
fn salted_password(password: &str, salt: &[u8], iterations: NonZeroU32) -> Key {
    let normal = stringprep::saslprep(password).unwrap_or(password.into());
    let mut salted = [0; KEY_BYTES];
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        iterations,
        salt,
        normal.as_bytes(),
        &mut salted,
    );
    salted
}

fn mac(key: &[u8], message: &[u8]) -> Key {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    tag.as_ref()
        .try_into()
        .expect("an HMAC-SHA-256 tag has 32 bytes")
}

fn hash(message: &[u8]) -> Key {
    digest::digest(&digest::SHA256, message)
        .as_ref()
        .try_into()
        .expect("a SHA-256 digest has 32 bytes")
}

/// An exchange that waits for the client's last message.
#[derive(Debug)]
pub struct Exchange {
    verifier: Verifier,
    /// `client-first-message-bare "," server-first-message`
    transcript: String,
    nonce: String,
    /// What the client must repeat of the header and the channel: base64.
    binding: String,
}

/// How an exchange ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the client knows the password.
    pub proven: bool,
    /// `v=…`: proof to the client that the server knows the verifier. To be sent only if `proven`.
    pub server_final: String,
}

impl Exchange {
    /// Takes the client's first message; returns the server's.
    ///
    /// `end_point`: the channel's binding data, if the mechanism with channel binding was offered. `server_nonce`: printable, without commas, never used before.
    ///
    /// # Errors
    /// [`ScramError`].
    pub fn begin(
        mechanism: &str,
        client_first: &[u8],
        end_point: Option<&[u8]>,
        verifier: Verifier,
        server_nonce: &str,
    ) -> Result<(String, Self), ScramError> {
        let message = std::str::from_utf8(client_first)
            .map_err(|_| ScramError::Malformed("The message is not UTF-8."))?;
        let mut parts = message.splitn(3, ',');
        let (Some(flag), Some(authorization), Some(bare)) =
            (parts.next(), parts.next(), parts.next())
        else {
            return Err(ScramError::Malformed(
                "The client's first message is cut short.",
            ));
        };
        let binding_data = negotiate(mechanism, flag, end_point)?;
        if !authorization.is_empty() {
            return Err(ScramError::Malformed(
                "An authorization identity is not supported.",
            ));
        }
        let client_nonce = client_nonce(bare)?;
        let nonce = format!("{client_nonce}{server_nonce}");
        let server_first = format!(
            "r={nonce},s={},i={}",
            BASE64.encode(&verifier.salt),
            verifier.iterations
        );
        let mut binding = format!("{flag},,").into_bytes();
        binding.extend_from_slice(binding_data);
        let exchange = Self {
            verifier,
            transcript: format!("{bare},{server_first}"),
            nonce,
            binding: BASE64.encode(binding),
        };
        Ok((server_first, exchange))
    }

    /// Takes the client's last message.
    ///
    /// # Errors
    /// [`ScramError`]; a wrong password is none, see [`Outcome::proven`].
    pub fn finish(self, client_final: &[u8]) -> Result<Outcome, ScramError> {
        let message = std::str::from_utf8(client_final)
            .map_err(|_| ScramError::Malformed("The message is not UTF-8."))?;
        let (without_proof, proof) = message
            .rsplit_once(",p=")
            .ok_or(ScramError::Malformed("The client's proof is missing."))?;
        let mut attributes = without_proof.split(',');
        let binding = attributes
            .next()
            .and_then(|attribute| attribute.strip_prefix("c="))
            .ok_or(ScramError::Malformed("The channel binding is missing."))?;
        let nonce = attributes
            .next()
            .and_then(|attribute| attribute.strip_prefix("r="))
            .ok_or(ScramError::Malformed("The nonce is missing."))?;
        if nonce != self.nonce {
            return Err(ScramError::Malformed("The nonce does not match."));
        }
        if binding != self.binding {
            return Err(ScramError::Binding(
                "The client is bound to another channel than this one.",
            ));
        }
        let proof: Key = BASE64
            .decode(proof)
            .ok()
            .and_then(|proof| proof.try_into().ok())
            .ok_or(ScramError::Malformed("The client's proof is not 32 bytes."))?;
        let transcript = format!("{},{without_proof}", self.transcript);
        let signature = mac(&self.verifier.stored_key, transcript.as_bytes());
        let mut client_key = proof;
        for (byte, mask) in client_key.iter_mut().zip_eq(signature) {
            *byte ^= mask;
        }
        let proven = verify_slices_are_equal(&hash(&client_key), &self.verifier.stored_key).is_ok();
        let server_signature = mac(&self.verifier.server_key, transcript.as_bytes());
        Ok(Outcome {
            proven,
            server_final: format!("v={}", BASE64.encode(server_signature)),
        })
    }
}

/// Checks the client's channel binding flag; returns the data that the client must be bound to.
fn negotiate<'a>(
    mechanism: &str,
    flag: &str,
    end_point: Option<&'a [u8]>,
) -> Result<&'a [u8], ScramError> {
    match (mechanism, end_point) {
        (SCRAM_SHA_256_PLUS, Some(end_point)) => match flag.strip_prefix("p=") {
            Some(BINDING_TYPE) => Ok(end_point),
            Some(_) => Err(ScramError::Binding(
                "The client asks for a channel binding other than tls-server-end-point.",
            )),
            None => Err(ScramError::Malformed(
                "The client selected SCRAM-SHA-256-PLUS without channel binding data.",
            )),
        },
        (SCRAM_SHA_256, end_point) => match flag {
            "n" => Ok(&[]),
            // Whoever took the other mechanism out of the offer sits between the two.
            "y" if end_point.is_some() => Err(ScramError::Binding(
                "The client supports channel binding and was told that the server does not, but it does.",
            )),
            "y" => Ok(&[]),
            _ => Err(ScramError::Malformed(
                "The client selected SCRAM-SHA-256 with channel binding data.",
            )),
        },
        _ => Err(ScramError::Malformed(
            "The client selected a mechanism that was not offered.",
        )),
    }
}

/// The nonce in `n=…,r=…`. The user name in it is not looked at, as in PostgreSQL: the startup message has it.
fn client_nonce(bare: &str) -> Result<&str, ScramError> {
    let mut attributes = bare.split(',');
    attributes
        .next()
        .filter(|attribute| attribute.starts_with("n="))
        .ok_or(ScramError::Malformed("The user name is missing."))?;
    let nonce = attributes
        .next()
        .and_then(|attribute| attribute.strip_prefix("r="))
        .ok_or(ScramError::Malformed("The client's nonce is missing."))?;
    if nonce.is_empty() || !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ScramError::Malformed(
            "The client's nonce is not printable.",
        ));
    }
    Ok(nonce)
}

#[cfg(test)]
mod tests;
