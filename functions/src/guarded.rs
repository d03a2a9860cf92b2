//! DataFusion's functions that may make much of little, behind a question to the budget.
//!
//! Owns which functions those are and how much each call is going to make. Must not know what they compute. Called by `registry`.
//!
//! Invariants. A guarded function is the function: same name, types and results.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, IntervalMonthDayNanoType};
use arrow_array::{Array, ArrayRef};
use arrow_cast::cast;
use arrow_schema::{DataType, FieldRef, TimeUnit};
use datafusion::common::{ExprSchema, Result};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature,
};

use crate::growth::allowed;
use crate::udf::spread_bytes;

/// How much a call makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Makes {
    /// About what it is given, once for each row.
    Arguments,
    /// As many items as lie between two bounds.
    Series,
    /// As many items as an argument says.
    Count(usize),
}

/// The functions that are guarded, by their own names.
const GUARDED: &[(&str, Makes)] = &[
    ("range", Makes::Series),
    ("generate_series", Makes::Series),
    ("array_repeat", Makes::Count(1)),
    ("array_resize", Makes::Count(1)),
    ("array_append", Makes::Arguments),
    ("array_prepend", Makes::Arguments),
    ("array_concat", Makes::Arguments),
    ("make_array", Makes::Arguments),
    ("array_union", Makes::Arguments),
    ("array_intersect", Makes::Arguments),
    ("array_except", Makes::Arguments),
    ("array_remove_all", Makes::Arguments),
    ("array_replace_all", Makes::Arguments),
    ("array_sort", Makes::Arguments),
    ("array_reverse", Makes::Arguments),
    ("array_distinct", Makes::Arguments),
    ("flatten", Makes::Arguments),
];

/// The function, guarded if it may make much of little.
pub(crate) fn guarded(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    let makes = GUARDED
        .iter()
        .find(|(name, _)| *name == function.name())
        .map(|(_, makes)| *makes);
    match makes {
        Some(makes) => Arc::new(ScalarUDF::new_from_impl(Guarded {
            inner: function,
            makes,
        })),
        None => function,
    }
}

#[derive(Debug)]
struct Guarded {
    inner: Arc<ScalarUDF>,
    makes: Makes,
}

impl PartialEq for Guarded {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl Eq for Guarded {}

impl Hash for Guarded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl ScalarUDFImpl for Guarded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.inner().schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.inner().return_type(arg_types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.inner().return_field_from_args(args)
    }

    fn is_nullable(&self, args: &[Expr], schema: &dyn ExprSchema) -> bool {
        #[expect(deprecated, reason = "what the function itself says")]
        self.inner.inner().is_nullable(args, schema)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(arg_types)
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.inner.inner().simplify(args, info)
    }

    fn short_circuits(&self) -> bool {
        self.inner.inner().short_circuits()
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.inner().documentation()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args
            .args
            .iter()
            .all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let given = spread_bytes(&args.args, rows);
        let bytes = match self.makes {
            Makes::Arguments => given,
            Makes::Series => given.saturating_add(series_bytes(&args.args, rows)?),
            Makes::Count(index) => {
                // Of something as large as what is given.
                let items = match args.args.get(index) {
                    Some(counts) => sum(&cast(&counts.to_array(rows)?, &DataType::Int64)?),
                    None => 0,
                };
                let item = (given / rows.max(1)).max(size_of::<u64>());
                given.saturating_add(items.saturating_mul(item))
            }
        };
        allowed(bytes)?;
        self.inner.invoke_with_args(args)
    }
}

fn sum(counts: &ArrayRef) -> usize {
    let counts = counts.as_primitive::<Int64Type>();
    counts
        .iter()
        .flatten()
        .map(|count| usize::try_from(count).unwrap_or(0))
        .fold(0, usize::saturating_add)
}

/// What the items between bounds take, as far as arguments tell.
fn series_bytes(args: &[ColumnarValue], rows: usize) -> Result<usize> {
    let arrays = args
        .iter()
        .map(|arg| arg.to_array(rows))
        .collect::<Result<Vec<_>>>()?;
    let (start, stop, step) = match arrays.as_slice() {
        [stop] => (None, stop, None),
        [start, stop] => (Some(start), stop, None),
        [start, stop, step] => (Some(start), stop, Some(step)),
        _ => return Ok(0),
    };
    // Numbers, or nanoseconds as the function counts.
    let position = |array: &ArrayRef| -> Result<Option<ArrayRef>> {
        Ok(match array.data_type() {
            DataType::Int64 => Some(Arc::clone(array)),
            DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => {
                let seconds = cast(array, &DataType::Timestamp(TimeUnit::Second, None))?;
                Some(cast(&seconds, &DataType::Int64)?)
            }
            _ => None,
        })
    };
    let in_time = !matches!(stop.data_type(), DataType::Int64);
    let (start, Some(stop)) = (start.map(position).transpose()?.flatten(), position(stop)?) else {
        return Ok(0);
    };
    let at = |array: &Option<ArrayRef>, row: usize| {
        array
            .as_ref()
            .and_then(|array| array.as_primitive_opt::<Int64Type>())
            .filter(|array| array.is_valid(row))
            .map_or(0, |array| i128::from(array.value(row)))
    };
    let stop = Some(stop);
    let mut bytes = 0_usize;
    for row in 0..rows {
        let distance = (at(&stop, row) - at(&start, row)).unsigned_abs();
        let items = if in_time {
            let nanos = step.and_then(|step| nanoseconds(step, row)).unwrap_or(1);
            distance.saturating_mul(1_000_000_000) / nanos.max(1)
        } else {
            let step = step.map_or(1, |step| at(&Some(Arc::clone(step)), row).unsigned_abs());
            distance / step.max(1)
        };
        let items = usize::try_from(items).unwrap_or(usize::MAX);
        bytes = bytes.saturating_add(items.saturating_add(1).saturating_mul(size_of::<i64>()));
    }
    Ok(bytes)
}

/// The least that an interval may span; `None` if it is none.
fn nanoseconds(step: &ArrayRef, row: usize) -> Option<u128> {
    let step = step
        .as_primitive_opt::<IntervalMonthDayNanoType>()
        .filter(|step| step.is_valid(row))?
        .value(row);
    let days = i128::from(step.months) * 28 + i128::from(step.days);
    let nanos = days * 86_400_000_000_000 + i128::from(step.nanoseconds);
    Some(nanos.unsigned_abs())
}
