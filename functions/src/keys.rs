//! Functions over the keys of values whose order or equality in SQL is not Arrow's: see [`flowstone_types::sort_key`].
//!
//! Owns `sort_key`, the comparisons of GREATEST and LEAST by it, and the aggregate that picks one of several equal values. Must not know plans.
//! The planner puts them into plans (`sql::plan::keys`); no statement has to name them.
//!
//! Invariants. All are deterministic and do not depend on the order of rows.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef};
use arrow_row::{OwnedRow, RowConverter, SortField};
use arrow_schema::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, ReturnFieldArgs, ReversedUDAF,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use flowstone_types::sort_key::{key_array, key_bytes, key_type};

use crate::errors::{from_type_error, raise};

/// The function that gives the key of a value.
pub const SORT_KEY: &str = "sort_key";
/// The function that gives an array with the keys of an array's items.
pub const ITEM_KEYS: &str = "item_keys";
/// GREATEST by keys.
pub const GREATEST_BY_KEY: &str = "greatest_by_key";
/// LEAST by keys.
pub const LEAST_BY_KEY: &str = "least_by_key";
/// The aggregate that picks one of several values which SQL calls equal: always the same one of the same values.
pub const ONE_OF_EQUALS: &str = "one_of_equals";

/// The scalar functions of this module.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    [
        (SORT_KEY, Kind::Key),
        (ITEM_KEYS, Kind::ItemKeys),
        (GREATEST_BY_KEY, Kind::Extreme(Ordering::Greater)),
        (LEAST_BY_KEY, Kind::Extreme(Ordering::Less)),
    ]
    .into_iter()
    .map(|(name, kind)| {
        ScalarUDF::new_from_impl(KeyFunction {
            name,
            kind,
            signature: Signature::user_defined(Volatility::Immutable),
        })
    })
    .collect()
}

/// The aggregates of this module.
pub(crate) fn aggregates() -> Vec<AggregateUDF> {
    vec![AggregateUDF::new_from_impl(OneOfEquals {
        signature: Signature::user_defined(Volatility::Immutable),
    })]
}

fn failed(error: flowstone_types::TypeError) -> datafusion::error::DataFusionError {
    raise(from_type_error(&error))
}

/// What a function does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// The key of its argument.
    Key,
    /// The keys of the items of its argument.
    ItemKeys,
    /// The argument whose key compares so with those of the others, the first of several; NULLs are passed over.
    Extreme(Ordering),
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct KeyFunction {
    name: &'static str,
    kind: Kind,
    signature: Signature,
}

fn item_keys_type(list: &DataType) -> Option<DataType> {
    let DataType::List(item) = list else {
        return None;
    };
    Some(DataType::List(Arc::new(Field::new(
        "item",
        key_type(item.data_type()),
        true,
    ))))
}

fn item_keys(lists: &ArrayRef) -> Result<ArrayRef> {
    use arrow_array::cast::AsArray;
    let Some(lists) = lists.as_list_opt::<i32>() else {
        return exec_err!("keys of the items of {}", lists.data_type());
    };
    let keys = key_array(lists.values()).map_err(failed)?;
    Ok(Arc::new(arrow_array::ListArray::try_new(
        Arc::new(Field::new("item", keys.data_type().clone(), true)),
        lists.offsets().clone(),
        keys,
        lists.nulls().cloned(),
    )?))
}

/// For each row the value of one of `values`.
fn extreme(values: &[ArrayRef], rows: usize, wanted: Ordering) -> Result<ArrayRef> {
    let mut chosen = Vec::with_capacity(rows);
    for row in 0..rows {
        let mut best: Option<(usize, Vec<u8>)> = None;
        for (number, array) in values.iter().enumerate() {
            if array.is_null(row) {
                continue;
            }
            let key = key_bytes(array, row).map_err(failed)?;
            if best
                .as_ref()
                .is_none_or(|(_, known)| key.cmp(known) == wanted)
            {
                best = Some((number, key));
            }
        }
        // Where all are NULL the first is.
        chosen.push((best.map_or(0, |(number, _)| number), row));
    }
    let arrays: Vec<&dyn Array> = values.iter().map(AsRef::as_ref).collect();
    Ok(arrow_select::interleave::interleave(&arrays, &chosen)?)
}

impl ScalarUDFImpl for KeyFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        let found = match (self.kind, arg_types) {
            (Kind::Key, [argument]) => Some(key_type(argument)),
            (Kind::ItemKeys, [argument]) => item_keys_type(argument),
            (Kind::Extreme(_), [first, ..]) => Some(first.clone()),
            _ => None,
        };
        match found {
            Some(found) => Ok(found),
            None => plan_err!("function {} does not exist for these arguments", self.name),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let types: Vec<DataType> = args
            .arg_fields
            .iter()
            .map(|field| field.data_type().clone())
            .collect();
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        let field = Field::new(self.name, self.return_type(&types)?, nullable);
        Ok(Arc::new(match (self.kind, args.arg_fields.first()) {
            (Kind::Extreme(_), Some(first)) => field.with_metadata(first.metadata().clone()),
            _ => field,
        }))
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.return_type(arg_types)?;
        Ok(arg_types.to_vec())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args
            .args
            .iter()
            .all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { args.number_rows };
        let arrays = args
            .args
            .iter()
            .map(|argument| argument.to_array(rows))
            .collect::<Result<Vec<_>>>()?;
        let result = match (self.kind, arrays.as_slice()) {
            (Kind::Key, [argument]) => key_array(argument).map_err(failed)?,
            (Kind::ItemKeys, [argument]) => item_keys(argument)?,
            (Kind::Extreme(wanted), arrays) => extreme(arrays, rows, wanted)?,
            _ => return exec_err!("wrong number of arguments to {}", self.name),
        };
        if scalar {
            return ScalarValue::try_from_array(&result, 0).map(ColumnarValue::Scalar);
        }
        Ok(ColumnarValue::Array(result))
    }
}

/// The least of the values as Arrow sorts them, which tells apart what SQL does not. The engine's incremental `min` gives the same one.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OneOfEquals {
    signature: Signature,
}

impl AggregateUDFImpl for OneOfEquals {
    fn name(&self) -> &str {
        ONE_OF_EQUALS
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [argument] => Ok(argument.clone()),
            _ => plan_err!("function {ONE_OF_EQUALS} takes one argument"),
        }
    }

    fn return_field(&self, arg_fields: &[FieldRef]) -> Result<FieldRef> {
        match arg_fields {
            [argument] => Ok(Arc::new(
                argument
                    .as_ref()
                    .clone()
                    .with_name(ONE_OF_EQUALS)
                    .with_nullable(true),
            )),
            _ => plan_err!("function {ONE_OF_EQUALS} takes one argument"),
        }
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(arg_types.to_vec())
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let Some(argument) = args.expr_fields.first() else {
            return plan_err!("function {ONE_OF_EQUALS} takes one argument");
        };
        let data_type = argument.data_type().clone();
        Ok(Box::new(Least {
            converter: RowConverter::new(vec![SortField::new(data_type.clone())])?,
            data_type,
            least: None,
        }))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let name = format_state_name(args.name, "least");
        Ok(vec![Arc::new(
            args.return_field
                .as_ref()
                .clone()
                .with_name(name)
                .with_nullable(true),
        )])
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
}

#[derive(Debug)]
struct Least {
    converter: RowConverter,
    data_type: DataType,
    least: Option<OwnedRow>,
}

impl Accumulator for Least {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Some(values) = values.first() else {
            return Ok(());
        };
        let rows = self
            .converter
            .convert_columns(std::slice::from_ref(values))?;
        let least = (0..values.len())
            .filter(|row| values.is_valid(*row))
            .map(|row| rows.row(row))
            .min();
        if let Some(least) = least
            && self.least.as_ref().is_none_or(|known| least < known.row())
        {
            self.least = Some(least.owned());
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let Some(least) = &self.least else {
            return ScalarValue::try_from(&self.data_type);
        };
        let columns = self.converter.convert_rows([least.row()])?;
        match columns.first() {
            Some(column) => ScalarValue::try_from_array(column, 0),
            None => exec_err!("a row without its column"),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self)
            + self.converter.size()
            + self.least.as_ref().map_or(0, |least| least.as_ref().len())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }
}
