//! Looking up what was known when a statement was planned.
//!
//! Owns `lookup_text`, which finds a text by a key among entries that are a constant of the plan. Must not know what they are of.
//! The planner puts it into plans (`sql::plan::catalog_functions`); no statement has to name it. The entries are one constant instead of one branch of a CASE
//! for each: a plan is as deep and nearly as quick to make however many they are, and a row costs one look into a table.
//!
//! Invariants. The constant is not spread over the rows: each batch reads it once.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, StringArray};
use arrow_schema::DataType;
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use serde_json::{Map, Value};

use crate::errors::{data_error, raise};
use crate::growth::allowed;
use crate::udf::{scalar_at, texts};

/// The function that gives the text of a key among entries ([`entries`]), and NULL for a key that is none of theirs.
pub const LOOKUP_TEXT: &str = "lookup_text";

/// Keys and their texts as the function takes them: the members of an object in JSON. Of several texts of a key the first counts.
#[must_use]
pub fn entries(entries: impl IntoIterator<Item = (String, String)>) -> String {
    let mut known = Map::new();
    for (key, text) in entries {
        known.entry(key).or_insert(Value::String(text));
    }
    Value::Object(known).to_string()
}

fn read(entries: &str) -> Result<HashMap<String, String>> {
    serde_json::from_str(entries)
        .map_err(|error| raise(data_error(format!("invalid entries: {error}"))))
}

/// The functions of this module.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    vec![ScalarUDF::new_from_impl(LookupText {
        signature: Signature::user_defined(Volatility::Immutable),
    })]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct LookupText {
    signature: Signature,
}

/// For each key its text.
fn find(keys: &StringArray, known: &HashMap<String, String>) -> Result<StringArray> {
    let found: Vec<Option<&String>> = keys.iter().map(|key| known.get(key?)).collect();
    // Many rows may have the same text, which is large.
    allowed(found.iter().flatten().map(|text| text.len()).sum())?;
    Ok(found.into_iter().collect())
}

impl ScalarUDFImpl for LookupText {
    fn name(&self) -> &str {
        LOOKUP_TEXT
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [DataType::Utf8, DataType::Utf8] => Ok(DataType::Utf8),
            _ => plan_err!("function {LOOKUP_TEXT} does not exist for these arguments"),
        }
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.return_type(arg_types)?;
        Ok(arg_types.to_vec())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [keys, entries] = args.args.as_slice() else {
            return plan_err!("function {LOOKUP_TEXT} takes two arguments");
        };
        let constant = matches!(
            (keys, entries),
            (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_))
        );
        let rows = if constant { 1 } else { args.number_rows };
        let keys = keys.to_array(rows)?;
        let keys = texts(&keys)?;
        let found = match entries {
            ColumnarValue::Scalar(ScalarValue::Utf8(Some(entries))) => find(keys, &read(entries)?)?,
            // Nobody plans that, and it is right all the same.
            other => {
                let entries = other.to_array(rows)?;
                let pairs = itertools::zip_eq(keys.iter(), texts(&entries)?.iter());
                let found = pairs.map(|pair| -> Result<Option<String>> {
                    match pair {
                        (Some(key), Some(entries)) => Ok(read(entries)?.remove(key)),
                        _ => Ok(None),
                    }
                });
                found.collect::<Result<StringArray>>()?
            }
        };
        let found: ArrayRef = Arc::new(found);
        if constant {
            return scalar_at(&found, 0).map(ColumnarValue::Scalar);
        }
        Ok(ColumnarValue::Array(found))
    }
}
