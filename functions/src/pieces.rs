//! Projections that take as many rows at a time as their results let them, and lists that are unnested piece by piece.
//!
//! Owns the physical node that takes the place of DataFusion's projection, and the rule that puts it there. Must not know what is computed.
//! Called by `registry`, which builds the session state.
//!
//! DataFusion evaluates expressions over a whole batch: 8192 values of a megabyte each would be made at once. Here a few rows go first, and what they take
//! says how many may follow. A list that is to become rows is handed on in slices, beside which the other columns of its row stand again and again; the
//! numbers of `generate_series` are not made before their slice is.
//!
//! Invariants. The rows are the projection's, in its order. A piece has at least one row.

use std::sync::Arc;

use arrow_array::builder::{ArrayBuilder, Int32Builder, Int64Builder};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{
    Array, ArrayRef, GenericListArray, Int64Array, ListArray, OffsetSizeTrait, RecordBatch,
    RecordBatchOptions,
};
use arrow_buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Schema, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Statistics, plan_err};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::expressions::{CaseExpr, Column};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
    ReplaceChildrenOptions,
};
use flowstone_types::EvalErrorKind;

use crate::errors::{eval_error, internal, invalid_parameter, out_of_range, raise};
use crate::growth::allowed;
use crate::streams::{Work, worked};
use crate::udf::spread_bytes;

/// What the results of one piece may take, in bytes: well below what a query may hold, and far above what a batch of ordinary rows takes.
const PIECE_BYTES: usize = 8 << 20;
/// How many times as many rows the next piece may have. The first has one: it is not known what a row takes.
const GROWTH: usize = 8;

/// Puts [`PiecesExec`] where DataFusion projects and unnests. Runs after every rule that looks at projections.
#[derive(Debug)]
pub(crate) struct InPieces;

impl PhysicalOptimizerRule for InPieces {
    fn name(&self) -> &str {
        "InPieces"
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
                return Ok(Transformed::yes(Arc::new(PiecesExec::projection(
                    projection,
                ))));
            }
            let Some(unnest) = plan.downcast_ref::<UnnestExec>() else {
                return Ok(Transformed::no(plan));
            };
            let lists = unnest.list_column_indices();
            // A list in a list is unnested as it is: what becomes of its items is not known beforehand.
            if lists.is_empty() || lists.iter().any(|list| list.depth != 1) {
                return Ok(Transformed::no(plan));
            }
            let lists = lists.iter().map(|list| list.index_in_input_schema);
            let pieces = PiecesExec::before_unnest(unnest.input(), lists.collect())?;
            let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
            Arc::clone(&plan)
                .replace_children(vec![Arc::new(pieces)], options)
                .map(Transformed::yes)
        })
        .data()
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// A column of the results.
#[derive(Clone, Debug)]
enum Made {
    /// By an expression.
    By(Arc<dyn PhysicalExpr>),
    /// Lists of the numbers from a start to a stop, with a step.
    Series {
        start: Arc<dyn PhysicalExpr>,
        stop: Arc<dyn PhysicalExpr>,
        step: Option<Arc<dyn PhysicalExpr>>,
    },
}

/// Projects its input, in pieces.
#[derive(Clone, Debug)]
struct PiecesExec {
    input: Arc<dyn ExecutionPlan>,
    /// The columns; `None` if they are the input's.
    columns: Option<Vec<Made>>,
    /// Columns that the node above makes rows of.
    lists: Vec<usize>,
    /// The projection's.
    properties: Arc<PlanProperties>,
}

impl PiecesExec {
    fn projection(projection: &ProjectionExec) -> Self {
        let columns = projection.expr().iter();
        Self {
            input: Arc::clone(projection.input()),
            columns: Some(
                columns
                    .map(|column| Made::By(Arc::clone(&column.expr)))
                    .collect(),
            ),
            lists: Vec::new(),
            properties: Arc::clone(projection.properties()),
        }
    }

    fn before_unnest(input: &Arc<dyn ExecutionPlan>, lists: Vec<usize>) -> Result<Self> {
        let Some(projected) = input.downcast_ref::<Self>() else {
            return Ok(Self {
                input: Arc::clone(input),
                columns: None,
                lists,
                properties: Arc::clone(input.properties()),
            });
        };
        let mut pieces = projected.clone();
        let schema = pieces.input.schema();
        for (index, made) in pieces.columns.iter_mut().flatten().enumerate() {
            if let Made::By(expr) = made
                && lists.contains(&index)
                && let Some(series) = series(expr, &schema)?
            {
                *made = series;
            }
        }
        pieces.lists = lists;
        Ok(pieces)
    }

    /// Whether what a row takes is not known before it is there.
    fn may_grow(&self) -> bool {
        let schema = self.input.schema();
        let wide = |expr: &Arc<dyn PhysicalExpr>| {
            !expr.is::<Column>()
                && expr
                    .data_type(&schema)
                    .is_ok_and(|data_type| data_type.primitive_width().is_none())
        };
        self.columns
            .iter()
            .flatten()
            .any(|made| matches!(made, Made::By(expr) if wide(expr)))
    }
}

/// The call of `generate_series` over numbers that an expression is, its result cast to a narrower type or not.
fn series(expr: &Arc<dyn PhysicalExpr>, input: &Schema) -> Result<Option<Made>> {
    let Some(mut call) = expr.downcast_ref::<ScalarFunctionExpr>() else {
        return Ok(None);
    };
    // Of integers that are not wide.
    if let ("pg_cast", [list, ..], DataType::List(item)) =
        (call.fun().name(), call.args(), call.return_type())
        && item.data_type() == &DataType::Int32
        && let Some(inner) = list.downcast_ref::<ScalarFunctionExpr>()
    {
        call = inner;
    }
    if call.fun().name() != "generate_series" {
        return Ok(None);
    }
    for argument in call.args() {
        if argument.data_type(input)? != DataType::Int64 {
            return Ok(None);
        }
    }
    Ok(match call.args() {
        [start, stop] => Some(Made::Series {
            start: Arc::clone(start),
            stop: Arc::clone(stop),
            step: None,
        }),
        [start, stop, step] => Some(Made::Series {
            start: Arc::clone(start),
            stop: Arc::clone(stop),
            step: Some(Arc::clone(step)),
        }),
        _ => None,
    })
}

impl DisplayAs for PiecesExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PiecesExec: lists={:?}", self.lists)
    }
}

impl ExecutionPlan for PiecesExec {
    fn name(&self) -> &str {
        "PiecesExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let mut recursion = TreeNodeRecursion::Continue;
        for made in self.columns.iter().flatten() {
            let exprs = match made {
                Made::By(expr) => vec![expr],
                Made::Series { start, stop, step } => {
                    [start, stop].into_iter().chain(step).collect()
                }
            };
            for expr in exprs {
                recursion = f(expr)?;
                if recursion == TreeNodeRecursion::Stop {
                    return Ok(recursion);
                }
            }
        }
        Ok(recursion)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match <[_; 1]>::try_from(children) {
            Ok([input]) => Ok(Arc::new(Self {
                input,
                ..Self::clone(&self)
            })),
            Err(children) => plan_err!("PiecesExec has one input, not {}", children.len()),
        }
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let pieces = Pieces {
            schema: self.schema(),
            columns: self.columns.clone(),
            lists: self.lists.clone(),
            may_grow: self.may_grow(),
            rows_max: context.session_config().batch_size().max(1),
            batch: None,
            constant_bytes: 0,
            row_bytes: 0,
            last_rows: 0,
            rows: None,
        };
        let input = self.input.execute(partition, context)?;
        Ok(worked(input, self.schema(), pieces))
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(
        &self,
        _: &[Arc<Statistics>],
        _: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        Ok(Arc::new(Statistics::new_unknown(&self.schema())))
    }
}

/// Values of a column of results.
enum Values {
    Array(ArrayRef),
    Series(Box<SeriesLists>),
}

/// Lists of numbers that are not made yet.
struct SeriesLists {
    start: Int64Array,
    stop: Int64Array,
    step: Option<Int64Array>,
}

impl SeriesLists {
    fn new(start: &ArrayRef, stop: &ArrayRef, step: Option<&ArrayRef>) -> Result<Self> {
        let numbers = |array: &ArrayRef| {
            array
                .as_primitive_opt::<Int64Type>()
                .cloned()
                .ok_or_else(|| raise(internal("a bound of a series is no bigint")))
        };
        let series = Self {
            start: numbers(start)?,
            stop: numbers(stop)?,
            step: step.map(numbers).transpose()?,
        };
        let still = |row: usize| series.is_valid(row) && series.step_at(row) == 0;
        if (0..series.start.len()).any(still) {
            return Err(raise(invalid_parameter("step size cannot equal zero")));
        }
        Ok(series)
    }

    fn is_valid(&self, row: usize) -> bool {
        let step = self.step.as_ref();
        self.start.is_valid(row)
            && self.stop.is_valid(row)
            && step.is_none_or(|step| step.is_valid(row))
    }

    fn step_at(&self, row: usize) -> i128 {
        self.step
            .as_ref()
            .map_or(1, |step| i128::from(step.value(row)))
    }

    /// Numbers in the list of `row`.
    fn len(&self, row: usize) -> u64 {
        if !self.is_valid(row) {
            return 0;
        }
        let step = self.step_at(row);
        let way = i128::from(self.stop.value(row)) - i128::from(self.start.value(row));
        if step == 0 || (way != 0 && (way > 0) != (step > 0)) {
            return 0;
        }
        u64::try_from(way / step + 1).unwrap_or(u64::MAX)
    }

    /// The lists of some rows as `list` has them; of each its items from `first` on, at most `items`.
    fn lists(
        &self,
        rows: std::ops::Range<usize>,
        first: u64,
        items: usize,
        list: &DataType,
    ) -> Result<ArrayRef> {
        let DataType::List(field) = list else {
            return Err(raise(internal("a series is a list")));
        };
        let narrow = matches!(field.data_type(), DataType::Int32);
        let (mut wide, mut small) = (Int64Builder::new(), Int32Builder::new());
        let mut lengths = Vec::with_capacity(rows.len());
        let mut valid = Vec::with_capacity(rows.len());
        for row in rows {
            valid.push(self.is_valid(row));
            let end = self.len(row).min(first.saturating_add(widened(items)));
            for index in first..end {
                let value =
                    i128::from(self.start.value(row)) + i128::from(index) * self.step_at(row);
                if narrow {
                    let value = i32::try_from(value).map_err(|_| raise(out_of_range("integer")))?;
                    small.append_value(value);
                } else {
                    let value = i64::try_from(value).map_err(|_| raise(out_of_range("bigint")))?;
                    wide.append_value(value);
                }
            }
            lengths.push(usize::try_from(end.saturating_sub(first)).unwrap_or(items));
        }
        let values: ArrayRef = if narrow {
            ArrayBuilder::finish(&mut small)
        } else {
            ArrayBuilder::finish(&mut wide)
        };
        Ok(Arc::new(ListArray::try_new(
            Arc::clone(field),
            OffsetBuffer::from_lengths(lengths),
            values,
            Some(NullBuffer::from(valid)),
        )?))
    }
}

fn widened(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Results of some rows, of which some have been handed on.
struct Rows {
    columns: Vec<Values>,
    rows: usize,
    /// The first row that is not handed on, and how many of its items are.
    row: usize,
    item: u64,
    /// Items that a piece may have.
    items_max: usize,
}

impl Rows {
    /// Items of the longest list of a row; `None` if a list cannot be cut.
    fn longest(&self, lists: &[usize], row: usize) -> Option<u64> {
        let mut longest = 0;
        for index in lists {
            let length = match self.columns.get(*index)? {
                Values::Series(series) => series.len(row),
                Values::Array(array) => {
                    if let Some(list) = array.as_list_opt::<i32>() {
                        length_of(list, row)
                    } else {
                        length_of(array.as_list_opt::<i64>()?, row)
                    }
                }
            };
            longest = longest.max(length);
        }
        Some(longest)
    }

    /// The next rows, or the next items of a row.
    fn next(&mut self, lists: &[usize], schema: &SchemaRef) -> Result<RecordBatch> {
        let most = widened(self.items_max);
        let (mut end, mut items) = (self.row, 0_u64);
        while end < self.rows {
            // What cannot be cut goes alone.
            let length = self
                .longest(lists, end)
                .map_or(most, |length| length.max(1));
            items = items.saturating_add(length);
            if items > most {
                break;
            }
            end += 1;
        }
        if self.item == 0 && end > self.row {
            let rows = self.row..end;
            self.row = end;
            return self.piece(rows, None, schema);
        }
        let (row, first) = (self.row, self.item);
        self.item = first.saturating_add(most);
        if self
            .longest(lists, row)
            .is_none_or(|length| self.item >= length)
        {
            self.row += 1;
            self.item = 0;
        }
        self.piece(row..row + 1, Some((first, lists)), schema)
    }

    /// Rows as a batch; with `cut` only the items from a number on of these lists.
    fn piece(
        &self,
        rows: std::ops::Range<usize>,
        cut: Option<(u64, &[usize])>,
        schema: &SchemaRef,
    ) -> Result<RecordBatch> {
        let count = rows.len();
        let columns = itertools::zip_eq(&self.columns, schema.fields())
            .enumerate()
            .map(|(index, (values, field))| {
                let first = cut.filter(|(_, lists)| lists.contains(&index));
                let first = first.map(|(first, _)| first);
                match values {
                    Values::Series(series) => {
                        let items = if cut.is_some() {
                            self.items_max
                        } else {
                            usize::MAX
                        };
                        series.lists(rows.clone(), first.unwrap_or(0), items, field.data_type())
                    }
                    Values::Array(array) => {
                        let array = array.slice(rows.start, count);
                        match first {
                            Some(first) => cut_list(&array, first, self.items_max),
                            None => Ok(array),
                        }
                    }
                }
            })
            .collect::<Result<Vec<_>>>()?;
        batch_of(schema, columns, count)
    }
}

fn batch_of(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(schema),
        columns,
        &options,
    )?)
}

fn length_of<O: OffsetSizeTrait>(list: &GenericListArray<O>, row: usize) -> u64 {
    if list.is_null(row) {
        return 0;
    }
    widened(list.value_length(row).as_usize())
}

/// The items of the one list of `array` from `first` on, at most `items`.
fn cut_list(array: &ArrayRef, first: u64, items: usize) -> Result<ArrayRef> {
    fn cut<O: OffsetSizeTrait>(
        list: &GenericListArray<O>,
        first: u64,
        items: usize,
    ) -> Result<ArrayRef> {
        let (DataType::List(field) | DataType::LargeList(field)) = list.data_type() else {
            return Err(raise(internal("a list is a list")));
        };
        let length = list.value_length(0).as_usize();
        let start = list.value_offsets().first().map_or(0, |at| at.as_usize());
        let from = usize::try_from(first).unwrap_or(usize::MAX).min(length);
        let to = from.saturating_add(items).min(length);
        let offsets = [from, to].map(|at| O::usize_as(start + at));
        Ok(Arc::new(GenericListArray::<O>::try_new(
            Arc::clone(field),
            OffsetBuffer::new(ScalarBuffer::from(offsets.to_vec())),
            Arc::clone(list.values()),
            list.nulls().cloned(),
        )?))
    }
    if let Some(list) = array.as_list_opt::<i32>() {
        return cut(list, first, items);
    }
    match array.as_list_opt::<i64>() {
        Some(list) => cut(list, first, items),
        None => Ok(Arc::clone(array)),
    }
}

/// Makes pieces of results out of batches.
struct Pieces {
    schema: SchemaRef,
    columns: Option<Vec<Made>>,
    lists: Vec<usize>,
    may_grow: bool,
    rows_max: usize,
    /// The batch that is worked on, and how many of its rows are done.
    batch: Option<(RecordBatch, usize)>,
    /// What a row takes at least as soon as it meets an arm of a CASE with a large constant.
    constant_bytes: usize,
    /// What a row of results took, on the average of its piece; of the pieces before it half as much for each piece since.
    row_bytes: usize,
    /// Rows of the last piece.
    last_rows: usize,
    rows: Option<Rows>,
}

impl Pieces {
    /// Rows that the next piece takes of `left`.
    fn next_rows(&self, left: usize) -> usize {
        if !self.may_grow {
            return left;
        }
        let fitting = PIECE_BYTES / self.row_bytes.max(self.constant_bytes).max(1);
        let next = self.last_rows.saturating_mul(GROWTH);
        left.min(fitting.min(next)).max(1)
    }

    /// Evaluates the next rows of the batch.
    fn evaluate(&mut self, batch: &RecordBatch, done: usize) -> Result<Rows> {
        if self.last_rows == 0 && self.may_grow {
            self.constant_bytes = self.largest_constant(&batch.slice(done, 1))?;
        }
        let mut count = self.next_rows(batch.num_rows() - done);
        loop {
            match self.evaluate_rows(&batch.slice(done, count)) {
                Ok(columns) => return self.rows_of(columns, count),
                // Fewer rows may do. A demand for narrower batches is such an error too.
                Err(error)
                    if count > 1
                        && matches!(
                            eval_error(&error).kind,
                            EvalErrorKind::OutOfMemory | EvalErrorKind::TooLarge
                        ) =>
                {
                    count /= 2;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What the largest constant in an arm of a CASE takes: DataFusion repeats it for each row of that arm, the first of which may come late.
    fn largest_constant(&self, row: &RecordBatch) -> Result<usize> {
        let mut largest = 0;
        for made in self.columns.iter().flatten() {
            let Made::By(expr) = made else { continue };
            if !expr.exists(|part| Ok(part.is::<CaseExpr>()))? {
                continue;
            }
            expr.apply(|part| {
                let wide = part
                    .data_type(row.schema_ref())
                    .is_ok_and(|data_type| data_type.primitive_width().is_none());
                let varies =
                    part.exists(|inner| Ok(inner.is::<Column>() || inner.is_volatile_node()))?;
                if !wide || varies {
                    return Ok(TreeNodeRecursion::Continue);
                }
                // It may be an error that no row meets.
                if let Ok(ColumnarValue::Scalar(value)) = part.evaluate(row) {
                    largest = largest.max(value.size());
                }
                Ok(TreeNodeRecursion::Jump)
            })?;
        }
        Ok(largest)
    }

    fn evaluate_rows(&self, rows: &RecordBatch) -> Result<Vec<Values>> {
        let Some(columns) = &self.columns else {
            let columns = rows.columns().iter().cloned();
            return Ok(columns.map(Values::Array).collect());
        };
        let array = |expr: &Arc<dyn PhysicalExpr>| -> Result<ArrayRef> {
            let value = expr.evaluate(rows)?;
            if let ColumnarValue::Scalar(_) = &value {
                allowed(spread_bytes(std::slice::from_ref(&value), rows.num_rows()))?;
            }
            value.into_array(rows.num_rows())
        };
        columns
            .iter()
            .map(|made| match made {
                Made::By(expr) => array(expr).map(Values::Array),
                Made::Series { start, stop, step } => {
                    let step = step.as_ref().map(array).transpose()?;
                    SeriesLists::new(&array(start)?, &array(stop)?, step.as_ref())
                        .map(|series| Values::Series(Box::new(series)))
                }
            })
            .collect()
    }

    fn rows_of(&mut self, columns: Vec<Values>, count: usize) -> Result<Rows> {
        self.last_rows = count;
        if self.may_grow {
            let mut bytes = 0_usize;
            for values in &columns {
                if let Values::Array(array) = values {
                    bytes = bytes.saturating_add(array.to_data().get_slice_memory_size()?);
                }
            }
            self.row_bytes = (self.row_bytes / 2).max(bytes / count.max(1));
        }
        let mut items_max = self.rows_max;
        if !self.lists.is_empty() {
            let mut beside = 1;
            for (index, values) in columns.iter().enumerate() {
                if let Values::Array(array) = values
                    && !self.lists.contains(&index)
                {
                    beside += widest(array)?;
                }
            }
            items_max = items_max.min(PIECE_BYTES / beside).max(1);
        }
        Ok(Rows {
            columns,
            rows: count,
            row: 0,
            item: 0,
            items_max,
        })
    }
}

impl Work for Pieces {
    fn accept(&mut self, batch: RecordBatch) -> Result<()> {
        self.batch = Some((batch, 0));
        Ok(())
    }

    fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(rows) = &mut self.rows {
                if rows.row < rows.rows {
                    return rows.next(&self.lists, &self.schema).map(Some);
                }
                self.rows = None;
            }
            let Some((batch, done)) = self.batch.take() else {
                return Ok(None);
            };
            if done >= batch.num_rows() {
                return Ok(None);
            }
            let rows = self.evaluate(&batch, done)?;
            self.batch = Some((batch, done + rows.rows));
            if self.lists.is_empty() {
                return rows.piece(0..rows.rows, None, &self.schema).map(Some);
            }
            self.rows = Some(rows);
        }
    }
}

/// What the widest value of an array takes, about.
pub(crate) fn widest(array: &ArrayRef) -> Result<usize> {
    fn longest<O: OffsetSizeTrait>(offsets: &[O]) -> usize {
        offsets
            .windows(2)
            .map(|pair| match pair {
                [from, to] => to.as_usize().saturating_sub(from.as_usize()),
                _ => 0,
            })
            .max()
            .unwrap_or(0)
    }
    Ok(match array.data_type() {
        DataType::Utf8 => longest(array.as_string::<i32>().value_offsets()),
        DataType::LargeUtf8 => longest(array.as_string::<i64>().value_offsets()),
        DataType::Binary => longest(array.as_binary::<i32>().value_offsets()),
        DataType::LargeBinary => longest(array.as_binary::<i64>().value_offsets()),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let longest = longest(list.value_offsets());
            let items = list.values().len().max(1);
            let item = list.values().to_data().get_slice_memory_size()? / items + 1;
            longest.saturating_mul(item)
        }
        data_type => match data_type.primitive_width() {
            Some(width) => width,
            None => array.to_data().get_slice_memory_size()? / array.len().max(1),
        },
    })
}
