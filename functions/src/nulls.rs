//! How many of several values are NULL, and how many are not.

use arrow_array::{Array, ArrayRef};
use arrow_buffer::NullBuffer;
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use flowstone_types::SqlType;

use crate::errors::out_of_range;
use crate::udf::{Call, P, R, function, map_rows, variadic};

/// The functions of this module.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    let counting = |name, kernel| {
        let params = [P::Any, P::Any];
        function(name, vec![variadic(&params, R::Sql(SqlType::Int4), kernel)])
    };
    vec![
        counting("num_nulls", |call| counted(call, Counted::Nulls)),
        counting("num_nonnulls", |call| counted(call, Counted::Others)),
    ]
}

/// Which values are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    Nulls,
    Others,
}

fn counted(call: &Call<'_>, which: Counted) -> Result<ArrayRef> {
    // What is nothing but NULL says so only here.
    let present: Vec<Option<NullBuffer>> = call
        .args
        .iter()
        .map(|array| array.logical_nulls())
        .collect();
    map_rows(call, |row| {
        let is_meant = |mask: &&Option<NullBuffer>| {
            let is_null = mask.as_ref().is_some_and(|mask| mask.is_null(row));
            is_null == (which == Counted::Nulls)
        };
        let count = present.iter().filter(is_meant).count();
        i32::try_from(count)
            .map(Some)
            .map_err(|_| out_of_range("integer"))
    })
}
