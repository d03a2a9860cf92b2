//! Hashes, message authentication, checksums and name-based uuids.

use datafusion::logical_expr::ScalarUDF;
use flowstone_types::SqlType;
use hmac::{Hmac, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

use crate::errors::{EvalResult, invalid_parameter};
use crate::udf::{P, R, UuidBytes, function, map1, map2, map3, overload};

fn bytea() -> R {
    R::Sql(SqlType::Bytea)
}

/// The functions of this module.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    vec![
        function(
            "md5",
            vec![
                overload(&[P::Text], R::Sql(SqlType::Text), |call| {
                    map1(call, |text: &str| Ok(hex::encode(Md5::digest(text))))
                }),
                overload(&[P::Bytea], R::Sql(SqlType::Text), |call| {
                    map1(call, |bytes: &[u8]| Ok(hex::encode(Md5::digest(bytes))))
                }),
            ],
        ),
        function(
            "sha224",
            vec![overload(&[P::Bytea], bytea(), |call| {
                map1(call, |bytes: &[u8]| Ok(Sha224::digest(bytes).to_vec()))
            })],
        ),
        function(
            "sha256",
            vec![overload(&[P::Bytea], bytea(), |call| {
                map1(call, |bytes: &[u8]| Ok(Sha256::digest(bytes).to_vec()))
            })],
        ),
        function(
            "sha384",
            vec![overload(&[P::Bytea], bytea(), |call| {
                map1(call, |bytes: &[u8]| Ok(Sha384::digest(bytes).to_vec()))
            })],
        ),
        function(
            "sha512",
            vec![overload(&[P::Bytea], bytea(), |call| {
                map1(call, |bytes: &[u8]| Ok(Sha512::digest(bytes).to_vec()))
            })],
        ),
        function(
            "digest",
            vec![
                overload(&[P::Text, P::Text], bytea(), |call| {
                    map2(call, |text: &str, kind: &str| digest(text.as_bytes(), kind))
                }),
                overload(&[P::Bytea, P::Text], bytea(), |call| map2(call, digest)),
            ],
        ),
        function(
            "hmac",
            vec![
                overload(&[P::Text, P::Text, P::Text], bytea(), |call| {
                    map3(call, |data: &str, key: &str, kind: &str| {
                        hmac(data.as_bytes(), key.as_bytes(), kind)
                    })
                }),
                overload(&[P::Bytea, P::Bytea, P::Text], bytea(), |call| {
                    map3(call, hmac)
                }),
            ],
        ),
        function(
            "constant_time_eq",
            vec![
                overload(&[P::Text, P::Text], R::Sql(SqlType::Bool), |call| {
                    map2(call, |a: &str, b: &str| {
                        Ok(constant_time_eq(a.as_bytes(), b.as_bytes()))
                    })
                }),
                overload(&[P::Bytea, P::Bytea], R::Sql(SqlType::Bool), |call| {
                    map2(call, |a: &[u8], b: &[u8]| Ok(constant_time_eq(a, b)))
                }),
            ],
        ),
        function(
            "crc32",
            vec![
                overload(&[P::Text], R::Sql(SqlType::UInt4), |call| crc32(call, true)),
                overload(&[P::Bytea], R::Sql(SqlType::UInt4), |call| {
                    crc32(call, false)
                }),
            ],
        ),
        function(
            "uuid_generate_v5",
            vec![overload(
                &[P::Uuid, P::Text],
                R::Sql(SqlType::Uuid),
                |call| {
                    map2(call, |namespace: UuidBytes, name: &str| {
                        Ok(UuidBytes(
                            uuid::Uuid::new_v5(
                                &uuid::Uuid::from_bytes(namespace.0),
                                name.as_bytes(),
                            )
                            .into_bytes(),
                        ))
                    })
                },
            )],
        ),
    ]
}

fn crc32(
    call: &crate::udf::Call<'_>,
    of_text: bool,
) -> datafusion::common::Result<arrow_array::ArrayRef> {
    use arrow_array::cast::AsArray;
    let array = call.arg(0)?;
    let sums: arrow_array::UInt32Array = if of_text {
        crate::udf::texts(array)?
            .iter()
            .map(|text| text.map(|text| crc32fast::hash(text.as_bytes())))
            .collect()
    } else {
        array
            .as_binary::<i32>()
            .iter()
            .map(|bytes| bytes.map(crc32fast::hash))
            .collect()
    };
    Ok(std::sync::Arc::new(sums))
}

fn unknown_algorithm(kind: &str) -> flowstone_types::EvalError {
    invalid_parameter(format!("Cannot use \"{kind}\": No such hash algorithm"))
}

fn digest(data: &[u8], kind: &str) -> EvalResult<Vec<u8>> {
    Ok(match kind.to_ascii_lowercase().as_str() {
        "md5" => Md5::digest(data).to_vec(),
        "sha1" => Sha1::digest(data).to_vec(),
        "sha224" => Sha224::digest(data).to_vec(),
        "sha256" => Sha256::digest(data).to_vec(),
        "sha384" => Sha384::digest(data).to_vec(),
        "sha512" => Sha512::digest(data).to_vec(),
        _ => return Err(unknown_algorithm(kind)),
    })
}

fn hmac(data: &[u8], key: &[u8], kind: &str) -> EvalResult<Vec<u8>> {
    macro_rules! authenticate {
        ($hash:ty) => {{
            let mut mac = Hmac::<$hash>::new_from_slice(key)
                .map_err(|_| invalid_parameter("invalid key length"))?;
            mac.update(data);
            mac.finalize().into_bytes().to_vec()
        }};
    }
    Ok(match kind.to_ascii_lowercase().as_str() {
        "md5" => authenticate!(Md5),
        "sha1" => authenticate!(Sha1),
        "sha224" => authenticate!(Sha224),
        "sha256" => authenticate!(Sha256),
        "sha384" => authenticate!(Sha384),
        "sha512" => authenticate!(Sha512),
        _ => return Err(unknown_algorithm(kind)),
    })
}

/// Equality whose time depends on the length alone.
fn constant_time_eq(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len()
        && itertools::zip_eq(left, right).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_digests() {
        assert_eq!(
            hex::encode(digest(b"abc", "sha1").unwrap()),
            "a9993e364706816aba3e25717850c26c9cd0d89d"
        );
        assert_eq!(
            hex::encode(hmac(b"what do ya want for nothing?", b"Jefe", "sha256").unwrap()),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert!(digest(b"", "sha0").is_err());
    }

    #[test]
    fn equality_in_constant_time_is_equality() {
        assert!(constant_time_eq(b"abc", b"abc"));
        assert!(!constant_time_eq(b"abc", b"abd"));
        assert!(!constant_time_eq(b"abc", b"ab"));
    }
}
