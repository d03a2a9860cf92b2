//! TLS of connections: the authority that is trusted and who the client is, for every kind of connection that says it with the same three options.

use std::collections::BTreeMap;

use flowstone_proto::kafka::Tls;
use flowstone_types::ObjectId;
use serde::{Deserialize, Serialize};

use super::{ConnectionOption, ConnectionOptionName, NameOf, SecretNamed, StringOrSecret};
use crate::error::Error;
use crate::ident::Name;

/// What a connection says of TLS, as the catalog keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsItem {
    /// `SSL CERTIFICATE AUTHORITY`
    pub authority: Option<StringOrSecret>,
    /// `SSL CERTIFICATE`
    pub certificate: Option<StringOrSecret>,
    /// `SSL KEY`
    pub key: Option<ObjectId>,
}

impl TlsItem {
    /// Whether anything is said.
    pub(super) const fn is_empty(&self) -> bool {
        self.authority.is_none() && self.certificate.is_none() && self.key.is_none()
    }

    /// Sets an option; false if it is none of TLS.
    pub(super) fn set(
        &mut self,
        option: &ConnectionOption,
        secret: SecretNamed<'_>,
    ) -> Result<bool, Error> {
        match option.name {
            ConnectionOptionName::SslCertificateAuthority => {
                self.authority = Some(option.text_or_secret(secret)?);
            }
            ConnectionOptionName::SslCertificate => {
                self.certificate = Some(option.text_or_secret(secret)?);
            }
            ConnectionOptionName::SslKey => self.key = Some(option.secret(secret)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Takes an option away; false if it is none of TLS.
    pub(super) fn unset(&mut self, name: ConnectionOptionName) -> bool {
        match name {
            ConnectionOptionName::SslCertificateAuthority => self.authority = None,
            ConnectionOptionName::SslCertificate => self.certificate = None,
            ConnectionOptionName::SslKey => self.key = None,
            _ => return false,
        }
        true
    }

    /// A certificate is of no use without its key, nor a key without its certificate.
    pub(super) fn check(&self, name: &Name) -> Result<(), Error> {
        let missing = match (&self.certificate, self.key) {
            (Some(_), None) => ConnectionOptionName::SslKey,
            (None, Some(_)) => ConnectionOptionName::SslCertificate,
            _ => return Ok(()),
        };
        Err(missing.required(name).with_detail(
            "SSL CERTIFICATE and SSL KEY say together who connects: one needs the other.",
        ))
    }

    pub(super) fn secrets(&self) -> impl Iterator<Item = ObjectId> {
        let of = |value: &Option<StringOrSecret>| value.as_ref().and_then(StringOrSecret::secret);
        [of(&self.authority), of(&self.certificate), self.key]
            .into_iter()
            .flatten()
    }

    /// With the values of secrets; `None` if one of them is missing.
    pub(super) fn resolve(&self, secrets: &BTreeMap<ObjectId, String>) -> Option<Tls> {
        let authority = match &self.authority {
            Some(authority) => Some(authority.resolve(secrets)?),
            None => None,
        };
        let identity = match (&self.certificate, self.key) {
            (Some(certificate), Some(key)) => {
                Some((certificate.resolve(secrets)?, secrets.get(&key)?.clone()))
            }
            _ => None,
        };
        Some(Tls {
            authority,
            identity,
        })
    }

    /// The options as a statement says them.
    pub(super) fn definitions(&self, name_of: NameOf<'_>) -> Vec<String> {
        let mut options = Vec::new();
        if let Some(authority) = &self.authority {
            options.push(format!(
                "SSL CERTIFICATE AUTHORITY = {}",
                authority.definition(name_of)
            ));
        }
        if let Some(certificate) = &self.certificate {
            options.push(format!(
                "SSL CERTIFICATE = {}",
                certificate.definition(name_of)
            ));
        }
        if let Some(key) = self.key {
            options.push(format!("SSL KEY = SECRET {}", name_of(key)));
        }
        options
    }
}
