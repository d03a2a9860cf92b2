//! Upserts: the key says which row, the value what it is now, and no value that it is gone.
//!
//! Called by sources of messages. Pure.

use flowstone_types::SourceOp;

use super::{Changed, Collected, same};
use crate::error::Error;
use crate::relation::Relation;
use crate::rows::Decoded;

/// The envelope of a table whose columns are those of the key, then those of the value.
#[derive(Clone, Debug)]
pub struct UpsertEnvelope {
    relation: Relation,
    key_width: usize,
}

impl UpsertEnvelope {
    /// The envelope of these columns. Names may be equal in key and value: both are kept, and whoever plans the relation tells them apart.
    ///
    /// # Errors
    /// [`Error::Definition`] without a key.
    pub fn new(key: &Relation, value: &Relation) -> Result<Self, Error> {
        if key.columns.is_empty() {
            return Err(Error::definition("upsert needs a key"));
        }
        let columns = key.columns.iter().chain(&value.columns).cloned();
        Ok(Self {
            relation: Relation::new(columns.collect()),
            key_width: key.columns.len(),
        })
    }

    /// The columns of the table: of the key, then of the value.
    #[must_use]
    pub const fn relation(&self) -> &Relation {
        &self.relation
    }

    /// The columns that are the key.
    #[must_use]
    pub fn key(&self) -> Vec<usize> {
        (0..self.key_width).collect()
    }

    /// The changes of messages, given as they came and as they were decoded. `keys` and `values` are of equal length.
    ///
    /// A message without a key, or with a key or a value that could not be decoded, is bad; the caller keeps that error until a message of the same
    /// key heals it.
    ///
    /// # Errors
    /// [`Error::Value`] if the columns are not those of the envelope.
    pub fn apply(
        &self,
        keys: (&[Option<&[u8]>], &Decoded),
        values: (&[Option<&[u8]>], &Decoded),
    ) -> Result<Changed, Error> {
        let (key_payloads, key_rows) = keys;
        let (value_payloads, value_rows) = values;
        let mut collected = Collected::default();
        // Each pair of a key's row and a value's row becomes a row of both sets, taken together below.
        let mut key_places = Vec::new();
        let mut value_places = Vec::new();
        for (index, (key, value)) in (0_u32..).zip(key_payloads.iter().zip(value_payloads)) {
            if key.is_none() {
                collected.refuse(index, "message has no key, which an upsert needs");
                continue;
            }
            let Some(key_row) = key_rows.row_of(index) else {
                let reason = key_rows.reason_of(index).unwrap_or("it was not decoded");
                collected.refuse(index, format!("cannot read the key: {reason}"));
                continue;
            };
            let (op, value_row) = match (value, value_rows.row_of(index)) {
                (None, _) => (SourceOp::DeleteByKey, None),
                (Some(_), Some(row)) => (SourceOp::Upsert, Some(row)),
                (Some(_), None) => {
                    let reason = value_rows.reason_of(index).unwrap_or("it was not decoded");
                    collected.refuse(index, format!("cannot read the value: {reason}"));
                    continue;
                }
            };
            collected.push(op, index, 0, key_places.len());
            key_places.push(key_row);
            value_places.push(value_row);
        }
        let key_columns = key_rows
            .columns
            .iter()
            .map(|column| taken(column, &key_places));
        let key_columns = key_columns.collect::<Result<Vec<_>, _>>()?;
        let columns = value_rows
            .columns
            .iter()
            .map(|column| taken_or_null(column, &value_places))
            .collect::<Result<Vec<_>, _>>()?;
        let set = key_columns.iter().chain(&columns).map(same).collect();
        collected.finish(&self.relation, &[set])
    }
}

fn taken(column: &arrow_array::ArrayRef, rows: &[usize]) -> Result<arrow_array::ArrayRef, Error> {
    let places: Vec<Option<usize>> = rows.iter().copied().map(Some).collect();
    taken_or_null(column, &places)
}

fn taken_or_null(
    column: &arrow_array::ArrayRef,
    rows: &[Option<usize>],
) -> Result<arrow_array::ArrayRef, Error> {
    let indices: arrow_array::UInt64Array = rows
        .iter()
        .map(|row| row.and_then(|row| u64::try_from(row).ok()))
        .collect();
    let taken = arrow_select::take::take(column, &indices, None);
    Ok(taken.map_err(flowstone_types::TypeError::from)?)
}

#[cfg(test)]
mod tests {
    use arrow_array::Array;
    use arrow_array::cast::AsArray;
    use flowstone_types::SqlType;

    use super::*;
    use crate::json::{JsonColumn, JsonContent, JsonDecoder};
    use crate::plain::TextDecoder;
    use crate::relation::Column;
    use crate::rows::Limits;

    #[test]
    fn values_are_upserts_and_their_absence_deletes() {
        let key = TextDecoder::new(Limits::default());
        let members = vec![JsonColumn::plain(Column::new("n", SqlType::Int8, false))];
        let value = JsonDecoder::new(JsonContent::Members(members), Limits::default());
        let envelope = UpsertEnvelope::new(key.relation(), value.relation()).unwrap();
        let keys = [
            Some(b"a".as_slice()),
            Some(b"b"),
            Some(b"a"),
            None,
            Some(b"\xff"),
            Some(b"c"),
        ];
        let values = [
            Some(b"{\"n\":1}".as_slice()),
            Some(b"{\"n\":2}"),
            None,
            None,
            None,
            Some(b"x"),
        ];
        let changed = envelope
            .apply(
                (&keys, &key.decode(&keys).unwrap()),
                (&values, &value.decode(&values).unwrap()),
            )
            .unwrap();
        assert_eq!(
            changed.changes.ops,
            [SourceOp::Upsert, SourceOp::Upsert, SourceOp::DeleteByKey]
        );
        assert_eq!(changed.origins, [0, 1, 2]);
        let text = changed.changes.rows.column(0).as_string::<i32>().clone();
        assert_eq!(text.value(2), "a");
        // What may not be null is filled in a deletion.
        assert_eq!(changed.changes.rows.column(1).null_count(), 0);
        let bad: Vec<u32> = changed.bad.iter().map(|bad| bad.index).collect();
        assert_eq!(bad, [3, 4, 5]);
    }
}
