//! Append-only columnar segments and their weights.
//!
//! Invariants. A row keeps its position for the life of its segment: pieces are only ever concatenated in order.
//! A weight chunk that a snapshot holds is never written: it is copied first.
#![expect(
    clippy::indexing_slicing,
    reason = "row positions come from the index, which only holds positions of rows that were appended"
)]

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;

use super::{RowId, segment_number};
use crate::Error;
use crate::held::{COUNTERS, Held, allocated};

/// Weights per copy-on-write chunk.
const CHUNK: usize = 4096;
/// Pieces of one size class that are left alone; one more and they are concatenated.
const PIECES_PER_CLASS: usize = 8;

/// Copy-on-write weights, one per row, in chunks.
#[derive(Clone, Debug, Default)]
pub(crate) struct WeightChunks {
    chunks: Vec<Arc<Vec<i64>>>,
    len: usize,
}

impl WeightChunks {
    pub(crate) fn get(&self, row: usize) -> i64 {
        self.chunks[row / CHUNK][row % CHUNK]
    }

    pub(crate) fn set(&mut self, row: usize, weight: i64) {
        Arc::make_mut(&mut self.chunks[row / CHUNK])[row % CHUNK] = weight;
    }

    pub(crate) fn push(&mut self, weight: i64) {
        if self.len.is_multiple_of(CHUNK) {
            self.chunks.push(Arc::new(Vec::new()));
        }
        let last = self.len / CHUNK;
        Arc::make_mut(&mut self.chunks[last]).push(weight);
        self.len += 1;
    }

    /// The weights of `rows`, a range within bounds.
    pub(crate) fn range(&self, rows: std::ops::Range<usize>) -> Vec<i64> {
        let mut weights = Vec::with_capacity(rows.len());
        let mut at = rows.start;
        while at < rows.end {
            let chunk = &self.chunks[at / CHUNK];
            let to = (rows.end - at / CHUNK * CHUNK).min(CHUNK);
            weights.extend_from_slice(&chunk[at % CHUNK..to]);
            at = at / CHUNK * CHUNK + to;
        }
        weights
    }

    fn bytes(&self) -> usize {
        let chunks = self.chunks.iter().map(|chunk| {
            allocated(COUNTERS + size_of::<Vec<i64>>())
                + allocated(chunk.capacity() * size_of::<i64>())
        });
        chunks.sum::<usize>() + allocated(self.chunks.capacity() * size_of::<Arc<Vec<i64>>>())
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) start: usize,
    pub(crate) rows: RecordBatch,
}

/// Rows in order of arrival. Small appends stay small pieces, which are concatenated eight at a time: a row is copied a few times at most.
#[derive(Clone, Debug, Default)]
pub(crate) struct Segment {
    pub(crate) pieces: Vec<Piece>,
    pub(crate) weights: WeightChunks,
    pub(crate) len: usize,
    /// Rows of non-zero weight.
    pub(crate) live: usize,
    /// Entries of the relation's history that point here.
    pub(crate) history: usize,
}

impl Segment {
    pub(crate) fn append(&mut self, rows: RecordBatch) {
        let start = self.len;
        self.len += rows.num_rows();
        self.pieces.push(Piece { start, rows });
    }

    /// Concatenates trailing pieces so that no size class keeps more than a few.
    pub(crate) fn merge_pieces(&mut self, schema: &SchemaRef) -> Result<(), Error> {
        while let Some(last) = self.pieces.last() {
            let class = size_class(last.rows.num_rows());
            let run = self
                .pieces
                .iter()
                .rev()
                .take_while(|piece| size_class(piece.rows.num_rows()) <= class)
                .count();
            if run < PIECES_PER_CLASS {
                break;
            }
            self.concatenate_from(self.pieces.len() - run, schema)?;
        }
        Ok(())
    }

    /// Makes the segment one piece.
    pub(crate) fn seal(&mut self, schema: &SchemaRef) -> Result<(), Error> {
        if self.pieces.len() > 1 {
            self.concatenate_from(0, schema)?;
        }
        Ok(())
    }

    /// The piece that holds `row`, and the row's position in it.
    pub(crate) fn locate(&self, row: usize) -> (usize, usize) {
        let piece = if self.pieces.len() == 1 {
            0
        } else {
            self.pieces.partition_point(|piece| piece.start <= row) - 1
        };
        (piece, row - self.pieces[piece].start)
    }

    /// Bytes of the weights and of what is not in `held` yet.
    pub(crate) fn bytes(&self, held: &Held) -> usize {
        let pieces = self.pieces.iter().map(|piece| held.add(&piece.rows));
        size_of::<Self>()
            + pieces.sum::<usize>()
            + allocated(self.pieces.capacity() * size_of::<Piece>())
            + self.weights.bytes()
    }

    fn concatenate_from(&mut self, first: usize, schema: &SchemaRef) -> Result<(), Error> {
        let start = self.pieces[first].start;
        let rows = arrow_select::concat::concat_batches(
            schema,
            self.pieces[first..].iter().map(|piece| &piece.rows),
        )?;
        self.pieces.truncate(first);
        self.pieces.push(Piece { start, rows });
        Ok(())
    }
}

/// The segments of a relation, by their numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segments<'a> {
    all: &'a [Option<Segment>],
    /// One that is being taken away: it is not among `all` any more.
    leaving: Option<(usize, &'a Segment)>,
}

impl<'a> Segments<'a> {
    pub(super) const fn of(all: &'a [Option<Segment>]) -> Self {
        Self { all, leaving: None }
    }

    pub(super) const fn and(self, number: usize, leaving: &'a Segment) -> Self {
        Self {
            leaving: Some((number, leaving)),
            ..self
        }
    }

    /// The batch that has a row, and the row's number there; `None` if its segment is gone.
    pub(super) fn place(self, id: RowId) -> Option<(&'a RecordBatch, usize)> {
        let number = segment_number(id);
        let segment = match self.leaving {
            Some((leaving, segment)) if leaving == number => segment,
            _ => self.all.get(number)?.as_ref()?,
        };
        let (piece, row) = segment.locate(id.row());
        Some((&segment.pieces[piece].rows, row))
    }
}

fn size_class(rows: usize) -> u32 {
    rows.checked_ilog(8).unwrap_or(0)
}
