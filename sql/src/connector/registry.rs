//! Schema registries with Confluent's interface: connections to them.

use std::collections::BTreeMap;

use flowstone_proto::kafka::RegistryConnection;
use flowstone_proto::message::UpstreamConnection;
use flowstone_types::ObjectId;
use serde::{Deserialize, Serialize};

use super::{
    CatalogConnection, Connection, ConnectionOption, ConnectionOptionName, ConnectionOptions,
    NameOf, SecretNamed, StringOrSecret, TlsItem,
};
use crate::error::{Error, ErrorKind};
use crate::ident::{Name, at, quote_literal};

/// A connection to a schema registry, as the catalog keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaRegistry {
    /// `URL`, with the path below which the registry is if it has one, and without a slash at its end.
    pub url: String,
    /// `USERNAME`
    pub user: Option<StringOrSecret>,
    /// `PASSWORD`
    pub password: Option<ObjectId>,
    /// `SSL …`
    pub tls: TlsItem,
}

/// [`Connection::Registry`].
#[derive(Debug)]
pub(super) struct Registry<'a>(pub(super) &'a SchemaRegistry);

impl CatalogConnection for Registry<'_> {
    fn type_name(&self) -> &'static str {
        "confluent-schema-registry"
    }

    fn definition(&self, name_of: NameOf<'_>) -> String {
        let registry = self.0;
        let mut options = vec![format!("URL = {}", quote_literal(&registry.url))];
        if let Some(user) = &registry.user {
            options.push(format!("USERNAME = {}", user.definition(name_of)));
        }
        if let Some(password) = registry.password {
            options.push(format!("PASSWORD = SECRET {}", name_of(password)));
        }
        options.extend(registry.tls.definitions(name_of));
        format!("CONFLUENT SCHEMA REGISTRY ({})", options.join(", "))
    }

    fn options(&self) -> Box<dyn ConnectionOptions> {
        Box::new(Options {
            url: Some(self.0.url.clone()),
            user: self.0.user.clone(),
            password: self.0.password,
            tls: self.0.tls.clone(),
        })
    }

    fn secrets(&self) -> Vec<ObjectId> {
        let user = self.0.user.as_ref().and_then(StringOrSecret::secret);
        user.into_iter()
            .chain(self.0.password)
            .chain(self.0.tls.secrets())
            .collect()
    }

    fn upstream(&self, secrets: &BTreeMap<ObjectId, String>) -> Option<UpstreamConnection> {
        let registry = self.0;
        let credentials = match &registry.user {
            Some(user) => {
                let password = match registry.password {
                    Some(id) => secrets.get(&id)?.clone(),
                    None => String::new(),
                };
                Some((user.resolve(secrets)?, password))
            }
            None => None,
        };
        let tls = if registry.url.starts_with("https://") {
            Some(registry.tls.resolve(secrets)?)
        } else {
            None
        };
        Some(UpstreamConnection::Registry(RegistryConnection {
            url: registry.url.clone(),
            credentials,
            tls,
        }))
    }
}

/// The options of a connection to a schema registry, as far as they are known.
#[derive(Debug, Default)]
pub(super) struct Options {
    url: Option<String>,
    user: Option<StringOrSecret>,
    password: Option<ObjectId>,
    tls: TlsItem,
}

/// The URL without a slash at its end, if it is one that a registry can have. There may be a path, below which the registry is.
fn base_url(text: &str) -> Result<String, &'static str> {
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"))
        .ok_or("must begin with http:// or https://")?;
    if rest.is_empty() || rest.starts_with('/') {
        return Err("must name a host");
    }
    if rest.contains('@') {
        return Err("must have no user and no password in it: say USERNAME and PASSWORD");
    }
    if rest.contains(['?', '#']) {
        return Err("must have neither a query nor a fragment");
    }
    Ok(text.strip_suffix('/').unwrap_or(text).to_owned())
}

impl ConnectionOptions for Options {
    fn set(&mut self, option: &ConnectionOption, secret: SecretNamed<'_>) -> Result<(), Error> {
        if self.tls.set(option, secret)? {
            return Ok(());
        }
        match option.name {
            ConnectionOptionName::Url => {
                let url = base_url(&option.text()?).map_err(|why| option.invalid(why))?;
                self.url = Some(url);
            }
            ConnectionOptionName::Username | ConnectionOptionName::User => {
                self.user = Some(option.text_or_secret(secret)?);
            }
            ConnectionOptionName::Password => self.password = Some(option.secret(secret)?),
            _ => return Err(option.unsupported()),
        }
        Ok(())
    }

    fn unset(&mut self, name: ConnectionOptionName) -> Result<(), Error> {
        if self.tls.unset(name) {
            return Ok(());
        }
        match name {
            ConnectionOptionName::Username | ConnectionOptionName::User => self.user = None,
            ConnectionOptionName::Password => self.password = None,
            ConnectionOptionName::Url => return Err(name.stays()),
            _ => return Err(name.unsupported()),
        }
        Ok(())
    }

    fn finish(self: Box<Self>, name: &Name) -> Result<Connection, Error> {
        let wrong = |message: &str| at(Error::new(ErrorKind::InvalidParameterValue, message), name);
        let Self {
            url,
            user,
            password,
            tls,
        } = *self;
        let url = url.ok_or_else(|| ConnectionOptionName::Url.required(name))?;
        if password.is_some() && user.is_none() {
            return Err(ConnectionOptionName::Username
                .required(name)
                .with_detail("PASSWORD is of no use without it."));
        }
        tls.check(name)?;
        if !tls.is_empty() && !url.starts_with("https://") {
            return Err(wrong("SSL options need a URL that begins with https://"));
        }
        Ok(Connection::Registry(Box::new(SchemaRegistry {
            url,
            user,
            password,
            tls,
        })))
    }
}
