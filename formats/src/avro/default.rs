//! Defaults of fields: their JSON in Avro's binary encoding, so that a missing field is read like any other.
//!
//! Called when schemas are resolved.

use serde_json::Value;

use super::schema::{Kind, NodeId, Schema};
use super::wire::{put_bytes, put_long};
use crate::error::Error;

const DEPTH_MAX: usize = 64;

/// Appends a default as a value of its type. Of a union it may be of any branch: the first that takes it.
pub(crate) fn encode_default(
    schema: &Schema,
    node: NodeId,
    value: &Value,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), Error> {
    if depth > DEPTH_MAX {
        return Err(Error::definition(
            "default of an Avro schema is nested too deep",
        ));
    }
    let start = out.len();
    put(schema, node, value, out, depth).ok_or_else(|| {
        out.truncate(start);
        Error::definition(format!("invalid default in an Avro schema: {value}"))
    })
}

fn put(
    schema: &Schema,
    node: NodeId,
    value: &Value,
    out: &mut Vec<u8>,
    depth: usize,
) -> Option<()> {
    if depth > DEPTH_MAX {
        return None;
    }
    match &schema.node(node).kind {
        Kind::Null => value.as_null()?,
        Kind::Boolean => out.push(u8::from(value.as_bool()?)),
        Kind::Int => put_long(i64::from(i32::try_from(value.as_i64()?).ok()?), out),
        Kind::Long => put_long(value.as_i64()?, out),
        Kind::Float => {
            let single: f32 = value.as_f64()?.to_string().parse().ok()?;
            out.extend_from_slice(&single.to_le_bytes());
        }
        Kind::Double => out.extend_from_slice(&value.as_f64()?.to_le_bytes()),
        Kind::Bytes => put_bytes(&latin(value.as_str()?)?, out),
        Kind::String => put_bytes(value.as_str()?.as_bytes(), out),
        Kind::Fixed(size) => {
            let bytes = latin(value.as_str()?)?;
            if bytes.len() != *size {
                return None;
            }
            out.extend_from_slice(&bytes);
        }
        Kind::Enum { symbols, .. } => {
            let symbol = value.as_str()?;
            let index = symbols.iter().position(|other| other == symbol)?;
            put_long(i64::try_from(index).ok()?, out);
        }
        Kind::Array(items) => {
            let values = value.as_array()?;
            if !values.is_empty() {
                put_long(i64::try_from(values.len()).ok()?, out);
                for value in values {
                    put(schema, *items, value, out, depth + 1)?;
                }
            }
            put_long(0, out);
        }
        Kind::Map(values) => {
            let entries = value.as_object()?;
            if !entries.is_empty() {
                put_long(i64::try_from(entries.len()).ok()?, out);
                for (key, value) in entries {
                    put_bytes(key.as_bytes(), out);
                    put(schema, *values, value, out, depth + 1)?;
                }
            }
            put_long(0, out);
        }
        Kind::Union(branches) => {
            let start = out.len();
            for (index, branch) in branches.iter().enumerate() {
                put_long(i64::try_from(index).ok()?, out);
                if put(schema, *branch, value, out, depth + 1).is_some() {
                    return Some(());
                }
                out.truncate(start);
            }
            return None;
        }
        Kind::Record(fields) => {
            let entries = value.as_object()?;
            for field in fields {
                let value = entries.get(&field.name).or(field.default.as_ref())?;
                put(schema, field.node, value, out, depth + 1)?;
            }
        }
    }
    Some(())
}

/// Bytes written as characters below 256.
fn latin(text: &str) -> Option<Vec<u8>> {
    text.chars()
        .map(|character| u8::try_from(character).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_values_of_their_type() {
        let json = r#"["null",{"type":"array","items":"int"},"bytes"]"#;
        let schema = Schema::parse(json, &[]).unwrap();
        let encoded = |value: Value| {
            let mut out = Vec::new();
            encode_default(&schema, schema.root(), &value, &mut out, 0).map(|()| out)
        };
        assert_eq!(encoded(Value::Null), Ok(vec![0]));
        assert_eq!(encoded(serde_json::json!([1])), Ok(vec![2, 2, 2, 0]));
        assert_eq!(encoded(serde_json::json!("\u{ff}")), Ok(vec![4, 2, 0xff]));
        assert!(encoded(serde_json::json!(1.5)).is_err());
    }
}
