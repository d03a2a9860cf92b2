//! The keys of an ordered index: groups and sort keys as Arrow's row format normalises them, so that bytes compare as values do.
//!
//! Owns how the columns of an order become bytes, and how much of them is made. Must not know where rows are: it is given columns.
//!
//! Invariants. Of two encodings of the same columns neither begins with the other, for each column's ends by itself. A prefix compares as the whole sort keys do
//! unless it is equal; where it is equal and `decides` says so of the one, the keys are equal.

use std::cell::OnceCell;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_buffer::BooleanBuffer;
use arrow_row::{RowConverter, Rows, SortField};
use arrow_schema::{DataType, SchemaRef, SortOptions};
use hashbrown::HashSet;

use super::Order;
use crate::Error;
use crate::partition::select;

/// Words of a prefix.
const WORDS: usize = 3;
const WORD_BYTES: usize = size_of::<u64>();
/// Leading columns are encoded until they take as much: what comes then is seldom asked for.
const LEAD_BYTES: usize = 16;

/// The first bytes of an encoded sort key, with zeros behind one that is shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Prefix([u64; WORDS]);

impl Prefix {
    fn new(key: &[u8]) -> Self {
        let mut bytes = [0; WORDS * WORD_BYTES];
        for (to, from) in bytes.iter_mut().zip(key) {
            *to = *from;
        }
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_be_bytes(*bytes);
        }
        Self(words)
    }
}

/// Encodes rows by an order.
#[derive(Debug)]
pub(super) struct Encoder {
    pub(super) order: Order,
    /// `None` if there are no columns.
    group: Option<RowConverter>,
    /// Of the sort key's first columns.
    lead: Option<RowConverter>,
    lead_columns: Vec<usize>,
    /// Of all its columns, if there are more.
    whole: Option<RowConverter>,
    whole_columns: Vec<usize>,
}

impl Encoder {
    pub(super) fn new(order: &Order, schema: &SchemaRef) -> Result<Self, Error> {
        let data_type = |column: usize| {
            let field = schema.fields().get(column);
            let field = field.ok_or_else(|| {
                Error::invariant(format!("column {column} of {}", schema.fields().len()))
            })?;
            Ok::<_, Error>(field.data_type().clone())
        };
        let mut group = Vec::with_capacity(order.group.len());
        for column in &order.group {
            group.push(SortField::new(data_type(*column)?));
        }
        let mut by = Vec::with_capacity(order.by.len());
        let (mut lead, mut lead_bytes) = (0, 0);
        for column in &order.by {
            let data_type = data_type(column.column)?;
            if lead_bytes < LEAD_BYTES {
                lead_bytes += least_bytes(&data_type);
                lead += 1;
            }
            let options = SortOptions {
                descending: column.descending,
                nulls_first: column.nulls_first,
            };
            by.push(SortField::new_with_options(data_type, options));
        }
        if let Some(column) = order.present {
            data_type(column)?;
        }
        if let Some(column) = order.filter
            && data_type(column)? != DataType::Boolean
        {
            return Err(Error::invariant(format!("column {column} is no filter")));
        }
        let whole_columns: Vec<usize> = order.by.iter().map(|column| column.column).collect();
        Ok(Self {
            group: converter(group)?,
            lead: converter(by.iter().take(lead).cloned().collect())?,
            lead_columns: whole_columns.iter().take(lead).copied().collect(),
            whole: if lead < by.len() {
                converter(by)?
            } else {
                None
            },
            whole_columns,
            order: order.clone(),
        })
    }

    /// The groups of rows.
    pub(super) fn groups(&self, columns: &[ArrayRef], rows: usize) -> Result<Groups, Error> {
        let encoded = encode(self.group.as_ref(), columns, &self.order.group)?;
        Ok(Groups { encoded, rows })
    }

    /// The keys of rows.
    pub(super) fn keys(&self, columns: &[ArrayRef], rows: usize) -> Result<Keys, Error> {
        let column = |column: Option<usize>| column.and_then(|column| columns.get(column));
        let present = column(self.order.present).and_then(|column| column.logical_nulls());
        let present = present.map(|nulls| nulls.into_inner());
        let filter = column(self.order.filter).map(|column| {
            let filter = column.as_boolean();
            match filter.nulls() {
                Some(nulls) => filter.values() & nulls.inner(),
                None => filter.values().clone(),
            }
        });
        let taken = match (present, filter) {
            (Some(present), Some(filter)) => Some(&present & &filter),
            (present, filter) => present.or(filter),
        };
        Ok(Keys {
            groups: self.groups(columns, rows)?,
            lead: encode(self.lead.as_ref(), columns, &self.lead_columns)?,
            taken,
            all: self.whole.as_ref().map(|_| columns.to_vec()),
            whole: OnceCell::new(),
        })
    }

    /// The whole sort key of row `row` of a batch, and of no other: for a comparison that its prefix does not decide.
    pub(super) fn whole_of(&self, rows: &RecordBatch, row: usize) -> Result<Whole, Error> {
        let Some(converter) = self.whole.as_ref().or(self.lead.as_ref()) else {
            return Ok(Whole(None));
        };
        let mut columns = select(rows.columns(), &self.whole_columns)?;
        for column in &mut columns {
            *column = column.slice(row, 1);
        }
        Ok(Whole(Some(converter.convert_columns(&columns)?)))
    }
}

/// The whole sort key of one row.
#[derive(Debug)]
pub(super) struct Whole(Option<Rows>);

impl Whole {
    pub(super) fn bytes(&self) -> &[u8] {
        bytes_of(self.0.as_ref(), 0)
    }
}

/// The encoded groups of rows: the row format of the group's columns, ascending, which is empty if there are none.
#[derive(Debug)]
pub(crate) struct Groups {
    encoded: Option<Rows>,
    rows: usize,
}

impl Groups {
    /// That of one row.
    pub(crate) fn get(&self, row: usize) -> &[u8] {
        bytes_of(self.encoded.as_ref(), row)
    }

    /// Each once, in the order in which they come.
    pub(crate) fn distinct(&self) -> impl Iterator<Item = &[u8]> {
        let mut seen = HashSet::with_capacity(self.rows);
        (0..self.rows)
            .map(|row| self.get(row))
            .filter(move |group| seen.insert(*group))
    }
}

/// The keys of some rows. What has to be compared further than prefixes is encoded when it is first asked for.
#[derive(Debug)]
pub(crate) struct Keys {
    groups: Groups,
    lead: Option<Rows>,
    /// `None` if all are.
    taken: Option<BooleanBuffer>,
    /// All columns of the rows, if the sort key has more than the leading ones.
    all: Option<Vec<ArrayRef>>,
    whole: OnceCell<Option<Rows>>,
}

impl Keys {
    pub(crate) const fn len(&self) -> usize {
        self.groups.rows
    }

    /// Whether the index takes in a row.
    pub(super) fn takes(&self, row: usize) -> bool {
        let mut taken = self.taken.iter();
        taken.all(|taken| taken.value(row))
    }

    pub(crate) fn group(&self, row: usize) -> &[u8] {
        self.groups.get(row)
    }

    pub(super) fn prefix(&self, row: usize) -> Prefix {
        Prefix::new(bytes_of(self.lead.as_ref(), row))
    }

    /// Whether a key with the same prefix is the same key.
    pub(super) fn decides(&self, row: usize) -> bool {
        self.all.is_none() && bytes_of(self.lead.as_ref(), row).len() <= WORDS * WORD_BYTES
    }

    /// The whole sort key. `encoder`: the one that made them.
    pub(super) fn whole(&self, encoder: &Encoder, row: usize) -> Result<&[u8], Error> {
        let Some(columns) = &self.all else {
            return Ok(bytes_of(self.lead.as_ref(), row));
        };
        let rows = match self.whole.get() {
            Some(rows) => rows,
            None => {
                let rows = encode(encoder.whole.as_ref(), columns, &encoder.whole_columns)?;
                self.whole.get_or_init(|| rows)
            }
        };
        Ok(bytes_of(rows.as_ref(), row))
    }
}

/// What a value takes at least once it is encoded: a byte that says whether there is one, and what a type of fixed width has.
fn least_bytes(data_type: &DataType) -> usize {
    1 + match data_type {
        DataType::Boolean => 1,
        other => other.primitive_width().unwrap_or(0),
    }
}

fn converter(fields: Vec<SortField>) -> Result<Option<RowConverter>, Error> {
    if fields.is_empty() {
        return Ok(None);
    }
    Ok(Some(RowConverter::new(fields)?))
}

fn encode(
    converter: Option<&RowConverter>,
    columns: &[ArrayRef],
    numbers: &[usize],
) -> Result<Option<Rows>, Error> {
    let Some(converter) = converter else {
        return Ok(None);
    };
    Ok(Some(converter.convert_columns(&select(columns, numbers)?)?))
}

fn bytes_of(rows: Option<&Rows>, row: usize) -> &[u8] {
    rows.map_or(&[][..], |rows| rows.row(row).data())
}
