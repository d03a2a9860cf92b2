//! One representation for equal values: −0.0 becomes 0.0 and every NaN the same NaN, so that equality of rows is equality of bytes.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type};
use arrow_array::{Array, ArrayRef, ListArray, RecordBatch};
use arrow_schema::DataType;

/// Normalises the floats of a batch, in arrays too; every other column is returned as it is. Idempotent.
///
/// Called where rows enter the engine (sources, DML, results of expressions that are grouped, joined or stored).
#[must_use]
pub fn normalize_batch(batch: &RecordBatch) -> RecordBatch {
    if !batch
        .schema_ref()
        .fields()
        .iter()
        .any(|field| is_float(field.data_type()))
    {
        return batch.clone();
    }
    let columns = batch.columns().iter().map(normalize_array).collect();
    RecordBatch::try_new_with_options(
        batch.schema(),
        columns,
        &arrow_array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows())),
    )
    .unwrap_or_else(|_| batch.clone())
}

/// Normalises one array; see [`normalize_batch`].
#[must_use]
pub fn normalize_array(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Float32 => {
            let values = array.as_primitive::<Float32Type>();
            if values
                .values()
                .iter()
                .all(|value| value.to_bits() == normalize_f32(*value).to_bits())
            {
                return Arc::clone(array);
            }
            Arc::new(values.unary::<_, Float32Type>(normalize_f32))
        }
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>();
            if values
                .values()
                .iter()
                .all(|value| value.to_bits() == normalize_f64(*value).to_bits())
            {
                return Arc::clone(array);
            }
            Arc::new(values.unary::<_, Float64Type>(normalize_f64))
        }
        DataType::List(item) if is_float(item.data_type()) => {
            let lists = array.as_list::<i32>();
            let items = normalize_array(lists.values());
            if Arc::ptr_eq(&items, lists.values()) {
                return Arc::clone(array);
            }
            Arc::new(ListArray::new(
                Arc::clone(item),
                lists.offsets().clone(),
                items,
                lists.nulls().cloned(),
            ))
        }
        _ => Arc::clone(array),
    }
}

fn is_float(data_type: &DataType) -> bool {
    match data_type {
        DataType::Float32 | DataType::Float64 => true,
        DataType::List(item) => is_float(item.data_type()),
        _ => false,
    }
}

/// −0.0 → 0.0, any NaN → the canonical NaN.
#[must_use]
pub fn normalize_f64(value: f64) -> f64 {
    if value.is_nan() {
        f64::NAN
    } else {
        value + 0.0
    }
}

/// −0.0 → 0.0, any NaN → the canonical NaN.
#[must_use]
pub fn normalize_f32(value: f32) -> f32 {
    if value.is_nan() {
        f32::NAN
    } else {
        value + 0.0
    }
}
