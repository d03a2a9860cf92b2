//! Authentication: whether somebody is who they say.
//!
//! Owns the policy, the check of passwords against the catalog's roles ([`scram`]) and the slowing of those who keep failing ([`throttle`]). Must not know client
//! protocols: `pgwire` carries the messages of a SCRAM exchange ([`Login`]), HTTP and Flight hand over a password ([`Authenticator::verify_password`]).
//!
//! Invariants. A user that does not exist, one without a password and one whose password has ended cost the same work and get the same answer as a wrong password.
//! Nothing is said about a role before its password was right. No password is kept, logged or shown by `Debug`.

pub mod scram;
pub mod throttle;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use flowstone_sql::ast::{Password, PasswordOption};
use flowstone_sql::catalog::{CatalogChange, DEFAULT_ROLE, PasswordVerifier, Role};
use flowstone_sql::ddl::PasswordChange;
use flowstone_sql::error::ErrorKind;
use flowstone_types::Clock;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::catalog::CatalogReader;
use crate::error::Error;
use scram::{Exchange, ScramError, Verifier};
use throttle::Throttle;

/// Passwords hashed at once: each takes a thread for a millisecond or more, and others need the processor too.
const HASHES_AT_ONCE: usize = 4;

/// Who must say a password.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthPolicy {
    /// Nobody: only this machine can connect, and whoever can is trusted to be who they say.
    #[default]
    TrustLoopback,
    /// Everybody.
    Scram,
}

/// Why somebody was not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Wrong password, no such role, or a role without a valid password: it is not said which.
    #[error("password authentication failed for user \"{user}\"")]
    Password {
        /// Who was claimed to be.
        user: String,
    },
    /// The role may not log in.
    #[error("role \"{role}\" is not permitted to log in")]
    NotPermitted {
        /// The role.
        role: String,
    },
    /// Too many attempts wait already.
    #[error("too many failed authentication attempts")]
    TooManyFailures,
    /// The exchange cannot go on.
    #[error(transparent)]
    Scram(#[from] ScramError),
    /// The machine has no randomness, or the check panicked: a bug or a broken machine.
    #[error("authentication is not available")]
    Unavailable,
}

/// What authentication keeps in memory.
#[derive(Debug)]
pub(crate) struct AuthState {
    policy: AuthPolicy,
    throttle: Mutex<Throttle>,
    /// Makes the salt of users that do not exist: the same at each attempt, also after a restart.
    mock_key: MockKey,
    hashes: Arc<Semaphore>,
}

struct MockKey(hmac::Key);

impl std::fmt::Debug for MockKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MockKey")
    }
}

impl AuthState {
    pub(crate) fn new(policy: AuthPolicy, mock_key: &[u8; 32]) -> Self {
        Self {
            policy,
            throttle: Mutex::default(),
            mock_key: MockKey(hmac::Key::new(hmac::HMAC_SHA256, mock_key)),
            hashes: Arc::new(Semaphore::new(HASHES_AT_ONCE)),
        }
    }

    pub(crate) const fn policy(&self) -> AuthPolicy {
        self.policy
    }

    /// A verifier for a user that has none.
    fn mock(&self, user: &str) -> Verifier {
        let tag = hmac::sign(&self.mock_key.0, user.as_bytes());
        let (salt, _) = tag
            .as_ref()
            .split_first_chunk()
            .expect("a tag is longer than a salt");
        Verifier::mock(*salt)
    }
}

/// Checks who somebody is; clones share one table of failures. From [`crate::Client::authenticator`].
#[derive(Clone, Debug)]
pub struct Authenticator {
    state: Arc<AuthState>,
    /// Where the roles are.
    catalog: CatalogReader,
    clock: Arc<dyn Clock>,
}

impl Authenticator {
    pub(crate) const fn new(
        state: Arc<AuthState>,
        catalog: CatalogReader,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            state,
            catalog,
            clock,
        }
    }

    /// Whether everybody must say a password. If not, [`Authenticator::admit_trusted`] is all there is to ask.
    #[must_use]
    pub fn password_required(&self) -> bool {
        self.state.policy == AuthPolicy::Scram
    }

    /// Whether `user` may log in where no password is asked for. A name that is no role's may.
    ///
    /// # Errors
    /// [`AuthError::NotPermitted`].
    pub fn admit_trusted(&self, user: &str) -> Result<(), AuthError> {
        match self.catalog.now().find_role(user) {
            Some(role) if !role.login => Err(AuthError::NotPermitted {
                role: role.name.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Checks a password, after the wait that earlier failures have earned. `peer` is where the client connects from.
    ///
    /// Takes a millisecond of a processor, the same whether the user exists or not.
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn verify_password(
        &self,
        user: &str,
        password: &str,
        peer: IpAddr,
    ) -> Result<(), AuthError> {
        self.wait_for_turn(user, peer).await?;
        let (verifier, valid) = self.verifier(user);
        let password = zeroize::Zeroizing::new(password.to_owned());
        let matches = self.hash(move || verifier.matches(&password)).await?;
        self.conclude(user, peer, matches && valid)
    }

    /// Begins a SCRAM exchange. `end_point`: the binding data of the connection's certificate (`tls-server-end-point`), if it has TLS.
    #[must_use]
    pub fn login(&self, user: &str, peer: IpAddr, end_point: Option<Vec<u8>>) -> Login {
        Login {
            authenticator: self.clone(),
            user: user.to_owned(),
            peer,
            end_point,
            exchange: None,
        }
    }

    /// What `user`'s password is checked against, and whether it can be right at all.
    fn verifier(&self, user: &str) -> (Verifier, bool) {
        let catalog = self.catalog.now();
        let role = catalog.find_role(user);
        let real = role
            .and_then(|role| role.password.as_ref())
            .and_then(|password| Verifier::parse(password.as_str()));
        let valid = role.is_some_and(|role| !self.has_ended(role)) && real.is_some();
        (
            real.filter(|_| valid)
                .unwrap_or_else(|| self.state.mock(user)),
            valid,
        )
    }

    fn has_ended(&self, role: &Role) -> bool {
        let now_us = i64::try_from(self.clock.now_ms())
            .unwrap_or(i64::MAX)
            .saturating_mul(1000);
        role.valid_until_us.is_some_and(|end_us| end_us <= now_us)
    }

    async fn wait_for_turn(&self, user: &str, peer: IpAddr) -> Result<(), AuthError> {
        let now_ms = self.clock.now_ms();
        let wait_ms = self.state.throttle.lock().admit(user, peer, now_ms);
        match wait_ms {
            Some(0) => Ok(()),
            Some(wait_ms) => {
                tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                Ok(())
            }
            None => {
                tracing::warn!(
                    user,
                    %peer,
                    "authentication refused: too many failed attempts are waiting"
                );
                Err(AuthError::TooManyFailures)
            }
        }
    }

    /// Notes how an attempt ended, and says what the client hears.
    fn conclude(&self, user: &str, peer: IpAddr, proven: bool) -> Result<(), AuthError> {
        let catalog = self.catalog.now();
        let role = catalog.find_role(user);
        let mut throttle = self.state.throttle.lock();
        let Some(role) = role.filter(|_| proven) else {
            throttle.failed(user, peer, self.clock.now_ms());
            drop(throttle);
            // Only the log says why.
            let reason = match role {
                None => "there is no such role",
                Some(role) if role.password.is_none() => "the role has no password",
                Some(role) if self.has_ended(role) => "the role's password has ended",
                Some(_) => "the password is wrong",
            };
            tracing::warn!(user, %peer, reason, "authentication failed");
            return Err(AuthError::Password {
                user: user.to_owned(),
            });
        };
        throttle.succeeded(user, peer);
        drop(throttle);
        if role.login {
            Ok(())
        } else {
            tracing::warn!(user, %peer, "authentication failed: the role may not log in");
            Err(AuthError::NotPermitted {
                role: role.name.clone(),
            })
        }
    }

    async fn hash<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AuthError> {
        hash(&self.state, work).await.ok_or(AuthError::Unavailable)
    }
}

/// Runs the hashing of a password on a thread of its own, few at once.
async fn hash<T: Send + 'static>(
    state: &AuthState,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let permit = Arc::clone(&state.hashes).acquire_owned().await.ok()?;
    tokio::task::spawn_blocking(move || {
        let result = work();
        drop(permit);
        result
    })
    .await
    .ok()
}

/// One SCRAM exchange: the client's messages in, the server's out.
#[derive(Debug)]
pub struct Login {
    authenticator: Authenticator,
    user: String,
    peer: IpAddr,
    end_point: Option<Vec<u8>>,
    /// The exchange that waits for the last message, and whether the password can be right.
    exchange: Option<(Exchange, bool)>,
}

impl Login {
    /// The mechanisms to offer, the best first.
    #[must_use]
    pub const fn mechanisms(&self) -> &'static [&'static str] {
        if self.end_point.is_some() {
            &[scram::SCRAM_SHA_256_PLUS, scram::SCRAM_SHA_256]
        } else {
            &[scram::SCRAM_SHA_256]
        }
    }

    /// Takes the client's choice and first message; returns the server's first message.
    ///
    /// # Errors
    /// [`AuthError::Scram`], [`AuthError::Unavailable`].
    pub fn begin(&mut self, mechanism: &str, client_first: &[u8]) -> Result<String, AuthError> {
        let mut nonce = [0; scram::NONCE_BYTES];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| AuthError::Unavailable)?;
        let nonce = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, nonce);
        let (verifier, valid) = self.authenticator.verifier(&self.user);
        let (server_first, exchange) = Exchange::begin(
            mechanism,
            client_first,
            self.end_point.as_deref(),
            verifier,
            &nonce,
        )?;
        self.exchange = Some((exchange, valid));
        Ok(server_first)
    }

    /// Takes the client's last message, after the wait that earlier failures have earned; returns the server's last message if the client is who it says.
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn finish(self, client_final: &[u8]) -> Result<String, AuthError> {
        let Some((exchange, valid)) = self.exchange else {
            let out_of_order = "The first message of the exchange is missing.";
            return Err(ScramError::Malformed(out_of_order).into());
        };
        self.authenticator
            .wait_for_turn(&self.user, self.peer)
            .await?;
        let outcome = exchange.finish(client_final)?;
        self.authenticator
            .conclude(&self.user, self.peer, outcome.proven && valid)?;
        Ok(outcome.server_final)
    }
}

/// What a statement's `PASSWORD` makes of a role's password. Hashes it on a thread of its own.
pub(crate) async fn password_change(
    state: &AuthState,
    option: Option<&PasswordOption>,
) -> Result<PasswordChange, Error> {
    match option {
        None => Ok(PasswordChange::Keep),
        Some(PasswordOption::Null) => Ok(PasswordChange::Clear),
        Some(PasswordOption::Text(Password(text))) if text.is_empty() => Ok(PasswordChange::Clear),
        Some(PasswordOption::Text(Password(text))) => {
            verifier_of(state, text).await.map(PasswordChange::Set)
        }
    }
}

/// The verifier of a password, or the verifier that the text is already.
async fn verifier_of(state: &AuthState, text: &str) -> Result<PasswordVerifier, Error> {
    let refused = |kind, message: &str| flowstone_sql::Error::new(kind, message);
    if let Some(verifier) = Verifier::parse(text) {
        if verifier.iterations() > scram::ITERATIONS_MAX {
            let message = format!(
                "a password verifier can have {} iterations at most",
                scram::ITERATIONS_MAX
            );
            return Err(refused(ErrorKind::InvalidParameterValue, &message).into());
        }
        return Ok(PasswordVerifier::new(text.to_owned()));
    }
    let md5 = text
        .strip_prefix("md5")
        .is_some_and(|digits| digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit()));
    if md5 {
        let error = refused(
            ErrorKind::FeatureNotSupported,
            "MD5-encrypted passwords are not supported",
        );
        let hint = "Give the password itself, or a SCRAM-SHA-256 verifier.";
        return Err(error.with_hint(hint).into());
    }
    let mut salt = [0; scram::SALT_BYTES];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| Error::Internal("no randomness".to_owned()))?;
    let password = zeroize::Zeroizing::new(text.to_owned());
    hash(state, move || {
        Verifier::derive(&password, &salt, scram::ITERATIONS)
    })
    .await
    .map(|verifier| PasswordVerifier::new(verifier.to_string()))
    .ok_or_else(|| Error::Internal("a password could not be hashed".to_owned()))
}

/// Gives the default role its first password; `None` if it has one already.
pub(crate) async fn first_password(
    state: &AuthState,
    catalog: &CatalogReader,
    password: &str,
) -> Result<Option<CatalogChange>, Error> {
    let catalog = catalog.now();
    let Some(role) = catalog
        .find_role(DEFAULT_ROLE)
        .filter(|role| role.password.is_none())
    else {
        return Ok(None);
    };
    if password.is_empty() {
        return Err(Error::Unavailable(
            "the initial password is empty".to_owned(),
        ));
    }
    let verifier = verifier_of(state, password).await?;
    Ok(Some(CatalogChange::PutRole(Role {
        password: Some(verifier),
        ..role.clone()
    })))
}
