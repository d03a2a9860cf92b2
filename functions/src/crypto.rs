//! Hashes, message authentication, checksums and name-based uuids.

use datafusion::logical_expr::ScalarUDF;
use flowstone_types::SqlType;
use flowstone_types::kafka_hash::kafka_murmur2;
use hmac::{Hmac, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

use crate::errors::{EvalResult, invalid_parameter};
use crate::seahash;
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
                overload(&[P::Text], R::Sql(SqlType::UInt4), |call| {
                    map1(call, |text: &str| Ok(crc32fast::hash(text.as_bytes())))
                }),
                overload(&[P::Bytea], R::Sql(SqlType::UInt4), |call| {
                    map1(call, |bytes: &[u8]| Ok(crc32fast::hash(bytes)))
                }),
            ],
        ),
        function(
            "kafka_murmur2",
            vec![
                overload(&[P::Text], R::Sql(SqlType::Int4), |call| {
                    map1(call, |text: &str| Ok(kafka_murmur2(text.as_bytes())))
                }),
                overload(&[P::Bytea], R::Sql(SqlType::Int4), |call| {
                    map1(call, |bytes: &[u8]| Ok(kafka_murmur2(bytes)))
                }),
            ],
        ),
        function(
            "seahash",
            vec![
                overload(&[P::Text], R::Sql(SqlType::UInt8), |call| {
                    map1(call, |text: &str| Ok(seahash::hash(text.as_bytes())))
                }),
                overload(&[P::Bytea], R::Sql(SqlType::UInt8), |call| {
                    map1(call, |bytes: &[u8]| Ok(seahash::hash(bytes)))
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
        // RFC 1321 and FIPS 180-4.
        for (kind, known) in [
            ("md5", "900150983cd24fb0d6963f7d28e17f72"),
            ("sha1", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (
                "sha224",
                "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7",
            ),
            (
                "sha256",
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
            (
                "sha384",
                "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
            ),
            (
                "sha512",
                "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            ),
        ] {
            assert_eq!(hex::encode(digest(b"abc", kind).unwrap()), known, "{kind}");
        }
        assert_eq!(
            digest(b"abc", "SHA1").unwrap(),
            digest(b"abc", "sha1").unwrap()
        );
        assert!(digest(b"", "sha0").is_err());
    }

    #[test]
    fn known_authentication_codes() {
        // RFC 2202 and RFC 4231, test case 2.
        for (kind, known) in [
            ("md5", "750c783e6ab0b503eaa86e310a5db738"),
            ("sha1", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
            (
                "sha224",
                "a30e01098bc6dbbf45690f3a7e9e6d0f8bbea2a39e6148008fd05e44",
            ),
            (
                "sha256",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                "sha384",
                "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
            ),
            (
                "sha512",
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
            ),
        ] {
            let code = hmac(b"what do ya want for nothing?", b"Jefe", kind).unwrap();
            assert_eq!(hex::encode(code), known, "{kind}");
        }
        assert!(hmac(b"", b"", "sha0").is_err());
    }

    #[test]
    fn equality_in_constant_time_is_equality() {
        assert!(constant_time_eq(b"abc", b"abc"));
        assert!(!constant_time_eq(b"abc", b"abd"));
        assert!(!constant_time_eq(b"abc", b"ab"));
    }
}
