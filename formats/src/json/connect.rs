//! The schemas that Kafka Connect sends along with its JSON: what columns they describe.
//!
//! Called by whoever plans a relation from a message, since such topics have no registry, and by the decoder for columns that were declared.

use flowstone_types::SqlType;
use flowstone_types::jsonb::Jsonb;
use hashbrown::HashMap;
use serde_json::Value;

use super::JsonColumn;
use crate::error::Error;
use crate::relation::Column;
use crate::semantic::Semantic;

/// The columns of the payload of a wrapped message, or of the rows in it if it is an envelope; and whether it is one.
///
/// # Errors
/// [`Error::Definition`] if the message is not wrapped, or its schema is none of a record.
pub fn describe(message: &[u8]) -> Result<(Vec<JsonColumn>, bool), Error> {
    let not_one =
        |why: &str| Error::definition(format!("message has no schema of Kafka Connect: {why}"));
    let message: Value =
        serde_json::from_slice(message).map_err(|error| not_one(&error.to_string()))?;
    let schema = message
        .get("schema")
        .ok_or_else(|| not_one("no member \"schema\""))?;
    let fields = fields_of(schema).ok_or_else(|| not_one("it is no struct"))?;
    let named = |name: &str| {
        fields
            .iter()
            .find(|field| field.get("field").and_then(Value::as_str) == Some(name))
    };
    match (named("after"), named("op")) {
        (Some(after), Some(_)) => match fields_of(after) {
            Some(fields) => Ok((columns(fields)?, true)),
            None => Err(not_one("images of rows are no structs")),
        },
        _ => Ok((columns(fields)?, false)),
    }
}

/// What the values of members mean: as they were described, and of those that were only declared what the schema of a message says, if its type is one for the
/// type of the column. `image` is the field of an envelope in which rows are.
pub(super) fn meanings(
    schema: Jsonb<'_>,
    image: Option<&str>,
    members: &[JsonColumn],
) -> Vec<Semantic> {
    let rows = match image {
        None => Some(schema),
        Some(image) => struct_fields(schema).find(|field| field_name(*field) == Some(image)),
    };
    let said: HashMap<&str, Semantic> = rows
        .into_iter()
        .flat_map(struct_fields)
        .filter_map(|field| Some((field_name(field)?, meaning_of(field))))
        .collect();
    let meaning = |member: &JsonColumn| {
        let said = said.get(member.column.name.as_str());
        match (member.semantic, said) {
            (Semantic::Plain, Some(said)) if is_for(*said, &member.column.sql_type) => *said,
            (semantic, _) => semantic,
        }
    };
    members.iter().map(meaning).collect()
}

fn struct_fields(schema: Jsonb<'_>) -> impl Iterator<Item = Jsonb<'_>> {
    let fields = schema.get_key("fields").into_iter();
    fields.flat_map(|fields| fields.items())
}

fn field_name(field: Jsonb<'_>) -> Option<&str> {
    field.get_key("field")?.as_str()
}

/// What the values of a field mean, or the items if it is an array.
fn meaning_of(field: Jsonb<'_>) -> Semantic {
    if field.get_key("type").and_then(Jsonb::as_str) == Some("array") {
        return field.get_key("items").map_or(Semantic::Plain, meaning_of);
    }
    let parameters = field.get_key("parameters");
    let parameter = |key: &str| parameters?.get_key(key)?.as_str();
    let name = field.get_key("name").and_then(Jsonb::as_str);
    name.map_or(Semantic::Plain, |name| {
        Semantic::of_connect_name(
            name,
            parameter("scale").and_then(|text| text.parse().ok()),
            parameter("connect.decimal.precision").and_then(|text| text.parse().ok()),
        )
    })
}

/// Whether values that mean this are of the type. Of others they are what a value without a meaning is.
fn is_for(semantic: Semantic, sql_type: &SqlType) -> bool {
    match (semantic, sql_type) {
        (semantic, SqlType::Array(item)) => is_for(semantic, item),
        (Semantic::Json, SqlType::Jsonb)
        | (Semantic::Days, SqlType::Date)
        | (Semantic::TimeOfDay(_), SqlType::Time)
        | (Semantic::Timestamp(_), SqlType::Timestamp | SqlType::TimestampTz)
        | (Semantic::ZonedTimestamp, SqlType::TimestampTz)
        | (Semantic::MicroDuration, SqlType::Interval)
        | (Semantic::Decimal { .. }, SqlType::Numeric(_)) => true,
        _ => false,
    }
}

fn fields_of(schema: &Value) -> Option<&Vec<Value>> {
    if schema.get("type")?.as_str()? != "struct" {
        return None;
    }
    schema.get("fields")?.as_array()
}

fn columns(fields: &[Value]) -> Result<Vec<JsonColumn>, Error> {
    let described = fields.iter().map(|field| {
        let name = field.get("field").and_then(Value::as_str);
        let name =
            name.ok_or_else(|| Error::definition("a field of a Kafka Connect schema has no name"))?;
        let nullable = field
            .get("optional")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        let (sql_type, semantic) = type_of(field);
        Ok(JsonColumn {
            column: Column::new(name, sql_type, nullable),
            semantic,
        })
    });
    described.collect()
}

/// The type of a field, and what its values mean.
fn type_of(field: &Value) -> (SqlType, Semantic) {
    let plain = match field
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default()
    {
        "boolean" => SqlType::Bool,
        // As Avro has them, which has no smaller ones.
        "int8" | "int16" | "int32" => SqlType::Int4,
        "int64" => SqlType::Int8,
        "float" | "float32" => SqlType::Float4,
        "double" | "float64" => SqlType::Float8,
        "string" => SqlType::Text,
        "bytes" => SqlType::Bytea,
        "array" => {
            let (item, semantic) = field
                .get("items")
                .map_or((SqlType::Jsonb, Semantic::Plain), type_of);
            return match item {
                SqlType::Jsonb | SqlType::Array(_) => (SqlType::Jsonb, Semantic::Plain),
                scalar => (SqlType::Array(Box::new(scalar)), semantic),
            };
        }
        _ => SqlType::Jsonb,
    };
    let parameters = field.get("parameters");
    let parameter = |key: &str| {
        parameters
            .and_then(|all| all.get(key))
            .and_then(Value::as_str)
    };
    let semantic = field
        .get("name")
        .and_then(Value::as_str)
        .map_or(Semantic::Plain, |name| {
            Semantic::of_connect_name(
                name,
                parameter("scale").and_then(|text| text.parse().ok()),
                parameter("connect.decimal.precision").and_then(|text| text.parse().ok()),
            )
        });
    (semantic.sql_type(&plain), semantic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meanings_are_taken_where_the_column_is_of_such_a_type() {
        let schema = r#"{"type":"struct","fields":[
            {"type":"string","name":"io.debezium.data.Json","field":"outer"},
            {"type":"struct","field":"after","fields":[
                {"type":"string","name":"io.debezium.data.Json","field":"doc"},
                {"type":"string","name":"io.debezium.data.Json","field":"text"},
                {"type":"array","items":{"type":"string","name":"io.debezium.data.Json"},"field":"docs"},
                {"type":"int64","name":"io.debezium.time.Timestamp","field":"at"},
                {"type":"int32","name":"io.debezium.time.Date","field":"days"}]}]}"#;
        let schema = flowstone_types::jsonb::parse(schema).unwrap();
        let declared = |name: &str, sql_type| JsonColumn::plain(Column::new(name, sql_type, true));
        let members = [
            declared("doc", SqlType::Jsonb),
            declared("text", SqlType::Text),
            declared("docs", SqlType::Array(Box::new(SqlType::Jsonb))),
            declared("at", SqlType::TimestampTz),
            declared("days", SqlType::Int4),
            declared("outer", SqlType::Jsonb),
        ];
        let meanings = meanings(schema.as_jsonb(), Some("after"), &members);
        let millis = Semantic::Timestamp(crate::semantic::TimeUnit::Millis);
        let (json, plain) = (Semantic::Json, Semantic::Plain);
        assert_eq!(meanings, [json, plain, json, millis, plain, plain]);
    }

    #[test]
    fn an_envelope_describes_the_rows_in_it() {
        let message = br#"{"schema":{"type":"struct","fields":[
            {"type":"struct","optional":true,"field":"before","fields":[]},
            {"type":"struct","optional":true,"field":"after","fields":[
                {"type":"int64","optional":false,"field":"id"},
                {"type":"bytes","optional":true,"name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2","connect.decimal.precision":"12"},"field":"amount"},
                {"type":"array","items":{"type":"string","optional":true},"optional":true,"field":"tags"}]},
            {"type":"string","optional":false,"field":"op"}]},"payload":null}"#;
        let (columns, is_envelope) = describe(message).unwrap();
        assert!(is_envelope);
        let types: Vec<String> = columns
            .iter()
            .map(|c| c.column.sql_type.to_string())
            .collect();
        assert_eq!(types, ["bigint", "numeric(12,2)", "text[]"]);
        assert!(!columns[0].column.nullable);
        describe(b"{}").unwrap_err();
    }
}
