//! As much of Avro as tests need to write what producers write and to read what sinks write: values are JSON, schemas come from a registry.
//!
//! It shares nothing with the engine's own, so that a mistake there is not made here as well.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use flowstone_tests::Registry;
use flowstone_tests::kafka::Stored;
use serde_json::{Map, Value};

/// A schema with the types that have names in it.
struct Schema {
    root: Value,
    named: HashMap<String, Value>,
}

impl Schema {
    fn new(root: Value) -> Self {
        let mut named = HashMap::new();
        add_names(&root, &mut named);
        Self { root, named }
    }

    fn put(&self, schema: &Value, value: &Value, out: &mut Vec<u8>) {
        match schema {
            Value::Array(branches) => {
                let fits = |branch: &Value| (branch == "null") == value.is_null();
                let index = branches.iter().position(fits);
                let index = index.unwrap_or_else(|| panic!("{value} is no value of {schema}"));
                put_long(i64::try_from(index).unwrap(), out);
                self.put(&branches[index], value, out);
            }
            Value::Object(object) if object["type"] == "record" => {
                for field in object["fields"].as_array().unwrap() {
                    let name = field["name"].as_str().unwrap();
                    self.put(&field["type"], &value[name], out);
                }
            }
            // A plain type with more said about it.
            Value::Object(object) => self.put(&object["type"], value, out),
            Value::String(name) => match name.as_str() {
                "null" => assert!(value.is_null(), "{value} is not null"),
                "boolean" => out.push(u8::from(value.as_bool().unwrap())),
                "int" | "long" => put_long(value.as_i64().unwrap(), out),
                "double" => out.extend(value.as_f64().unwrap().to_le_bytes()),
                "string" => {
                    let text = value.as_str().unwrap();
                    put_long(i64::try_from(text.len()).unwrap(), out);
                    out.extend(text.as_bytes());
                }
                name => self.put(&self.named[name], value, out),
            },
            other => panic!("{other} is no schema"),
        }
    }

    fn get(&self, schema: &Value, from: &mut &[u8]) -> Value {
        match schema {
            Value::Array(branches) => {
                let index = usize::try_from(get_long(from)).unwrap();
                self.get(&branches[index], from)
            }
            Value::Object(object) if object["type"] == "record" => {
                let mut record = Map::new();
                for field in object["fields"].as_array().unwrap() {
                    let name = field["name"].as_str().unwrap();
                    record.insert(name.to_owned(), self.get(&field["type"], from));
                }
                Value::Object(record)
            }
            Value::Object(object) => self.get(&object["type"], from),
            Value::String(name) => match name.as_str() {
                "null" => Value::Null,
                "boolean" => Value::from(take(from, 1) == [1]),
                "int" | "long" => Value::from(get_long(from)),
                "double" => Value::from(f64::from_le_bytes(take(from, 8).try_into().unwrap())),
                "string" => {
                    let length = usize::try_from(get_long(from)).unwrap();
                    Value::from(std::str::from_utf8(take(from, length)).unwrap())
                }
                name => self.get(&self.named[name], from),
            },
            other => panic!("{other} is no schema"),
        }
    }
}

/// Notes the records of a schema by their names, with and without the namespace.
fn add_names(schema: &Value, named: &mut HashMap<String, Value>) {
    match schema {
        Value::Array(branches) => branches.iter().for_each(|branch| add_names(branch, named)),
        Value::Object(object) if object["type"] == "record" => {
            let name = object["name"].as_str().unwrap();
            if let Some(namespace) = object.get("namespace").and_then(Value::as_str) {
                named.insert(format!("{namespace}.{name}"), schema.clone());
            }
            named.insert(name.to_owned(), schema.clone());
            for field in object["fields"].as_array().unwrap() {
                add_names(&field["type"], named);
            }
        }
        Value::Object(object) => add_names(&object["type"], named),
        _ => {}
    }
}

pub(super) fn put_long(value: i64, out: &mut Vec<u8>) {
    let mut left = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while left >= 0x80 {
        out.push(u8::try_from(left & 0x7f).unwrap() | 0x80);
        left >>= 7;
    }
    out.push(u8::try_from(left).unwrap());
}

fn get_long(from: &mut &[u8]) -> i64 {
    let (mut value, mut shift) = (0_u64, 0);
    loop {
        let byte = take(from, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
    }
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

fn take<'a>(from: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = from.split_at(count);
    *from = rest;
    taken
}

/// A schema that is registered, to write messages with.
pub(super) struct Writer {
    id: u32,
    schema: Schema,
}

impl Writer {
    /// Registers a schema under a subject.
    pub(super) async fn register(registry: &Registry, subject: &str, schema: Value) -> Self {
        let text = schema.to_string();
        Self {
            id: registry.register(subject, "AVRO", &text).await.unwrap(),
            schema: Schema::new(schema),
        }
    }

    /// The id of the schema.
    pub(super) const fn id(&self) -> u32 {
        self.id
    }

    /// A key or a value: a zero, the id of the schema, the value.
    pub(super) fn message(&self, value: &Value) -> Vec<u8> {
        let mut message = vec![0];
        message.extend(self.id.to_be_bytes());
        self.schema.put(&self.schema.root, value, &mut message);
        message
    }
}

/// The values of records, by the schemas that they name. Records without a value are an error.
pub(super) async fn values(registry: &Registry, records: &[Stored]) -> Result<Vec<Value>, String> {
    let mut schemas: HashMap<u32, Schema> = HashMap::new();
    let mut values = Vec::with_capacity(records.len());
    for record in records {
        let message = record.record.value.as_deref();
        let message = message.ok_or_else(|| format!("{record:?} has no value"))?;
        let (head, mut body) = message
            .split_at_checked(5)
            .filter(|(head, _)| head[0] == 0)
            .ok_or_else(|| format!("{record:?} has no schema"))?;
        let id = u32::from_be_bytes(head[1..].try_into().unwrap());
        let schema = match schemas.entry(id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(schema_of(registry, id).await?),
        };
        values.push(schema.get(&schema.root, &mut body));
        if !body.is_empty() {
            return Err(format!("{record:?} goes on after its value"));
        }
    }
    Ok(values)
}

async fn schema_of(registry: &Registry, id: u32) -> Result<Schema, String> {
    let path = format!("/schemas/ids/{id}");
    let answer = registry.request("GET", &path, None).await;
    let answer = answer.and_then(|answer| answer.json());
    let answer = answer.map_err(|error| format!("schema {id}: {error:#}"))?;
    let text = answer["schema"].as_str().unwrap_or_default();
    let schema = serde_json::from_str(text);
    let schema = schema.map_err(|error| format!("schema {id}: {error}: {answer}"))?;
    Ok(Schema::new(schema))
}
