//! A hash index from key hashes to the ids of rows.
//!
//! Owns the tables and posting lists. Must not know rows: it keeps hashes only, the reader verifies keys.
//!
//! Invariants. A list holds every live row of its hash, up to where the index is built; it may also hold dead ones, which it sheds when it grows and when segments are compacted.
//! The index grows in small steps: past a few thousand hashes it is 256 tables that grow one by one, so that no tick pays for one large rehash.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as TableEntry;

use super::RowId;
use crate::held::allocated;

const TABLES: usize = 256;
const SPLIT_AT: usize = 4096;

#[derive(Debug)]
struct Entry {
    hash: u64,
    postings: Postings,
}

#[derive(Debug)]
enum Postings {
    One(RowId),
    Many(Box<List>),
}

/// Boxed, so that the common single posting does not pay for a vector's three words.
#[derive(Debug)]
struct List(Vec<RowId>);

impl List {
    fn bytes(&self) -> usize {
        allocated(size_of::<Self>()) + allocated(self.0.capacity() * size_of::<RowId>())
    }
}

/// One index of a relation: `columns` are hashed together.
#[derive(Debug)]
pub(crate) struct KeyIndex {
    columns: Vec<usize>,
    tables: Vec<HashTable<Entry>>,
    /// Bytes of the lists.
    lists: usize,
}

impl KeyIndex {
    pub(super) fn new(columns: Vec<usize>) -> Self {
        Self {
            columns,
            tables: vec![HashTable::new()],
            lists: 0,
        }
    }

    pub(crate) fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// The rows whose key has this hash, dead ones among them.
    pub(crate) fn get(&self, hash: u64) -> &[RowId] {
        match self
            .table(hash)
            .and_then(|table| table.find(hash, |entry| entry.hash == hash))
        {
            None => &[],
            Some(Entry {
                postings: Postings::One(id),
                ..
            }) => std::slice::from_ref(id),
            Some(Entry {
                postings: Postings::Many(list),
                ..
            }) => &list.0,
        }
    }

    /// Brings the places of `hashes` close to the processor: the reads do not depend on each other, those of one insertion after the other do.
    pub(super) fn touch(&self, hashes: &[u64]) {
        for hash in hashes {
            std::hint::black_box(self.get(*hash));
        }
    }

    /// Adds a row. `live` tells whether a row of the list still counts.
    pub(super) fn insert(&mut self, hash: u64, id: RowId, live: impl Fn(RowId) -> bool) {
        self.split_if_large();
        let mut lists = self.lists;
        let Some(table) = self.table_mut(hash) else {
            return;
        };
        match table.entry(hash, |entry| entry.hash == hash, |entry| entry.hash) {
            TableEntry::Vacant(vacant) => {
                vacant.insert(Entry {
                    hash,
                    postings: Postings::One(id),
                });
            }
            TableEntry::Occupied(mut occupied) => {
                let postings = &mut occupied.get_mut().postings;
                match postings {
                    Postings::One(old) if live(*old) => {
                        let mut list = Vec::with_capacity(4);
                        list.extend([*old, id]);
                        let list = Box::new(List(list));
                        lists += list.bytes();
                        *postings = Postings::Many(list);
                    }
                    Postings::One(old) => *old = id,
                    Postings::Many(list) => {
                        lists -= list.bytes();
                        let ids = &mut list.0;
                        if ids.len() == ids.capacity() {
                            ids.retain(|id| live(*id));
                            if ids.len() * 2 > ids.capacity() {
                                ids.reserve(ids.len());
                            }
                        }
                        ids.push(id);
                        lists += list.bytes();
                    }
                }
            }
        }
        self.lists = lists;
    }

    /// Sheds the rows of this hash that `keep` refuses.
    pub(super) fn purge(&mut self, hash: u64, keep: impl Fn(RowId) -> bool) {
        let mut lists = self.lists;
        let Some(table) = self.table_mut(hash) else {
            return;
        };
        let Ok(mut entry) = table.find_entry(hash, |entry| entry.hash == hash) else {
            return;
        };
        let left = match &mut entry.get_mut().postings {
            Postings::One(id) => usize::from(keep(*id)),
            Postings::Many(list) => {
                lists -= list.bytes();
                list.0.retain(|id| keep(*id));
                list.0.shrink_to(list.0.len() * 2);
                if !list.0.is_empty() {
                    lists += list.bytes();
                }
                list.0.len()
            }
        };
        if left == 0 {
            entry.remove();
            if table.len() * 8 < table.capacity() {
                table.shrink_to(table.len() * 2, |entry| entry.hash);
            }
        }
        self.lists = lists;
    }

    /// Forgets all rows: there are none any more.
    pub(super) fn clear(&mut self) {
        self.tables = vec![HashTable::new()];
        self.lists = 0;
    }

    pub(super) fn bytes(&self) -> usize {
        let tables = self.tables.iter().map(HashTable::allocation_size);
        tables.map(allocated).sum::<usize>()
            + allocated(self.tables.capacity() * size_of::<HashTable<Entry>>())
            + self.lists
    }

    fn split_if_large(&mut self) {
        if let [only] = self.tables.as_mut_slice()
            && only.len() >= SPLIT_AT
        {
            let entries = std::mem::take(only);
            self.tables = std::iter::repeat_with(HashTable::new)
                .take(TABLES)
                .collect();
            for entry in entries {
                if let Some(table) = self.table_mut(entry.hash) {
                    table.insert_unique(entry.hash, entry, |entry| entry.hash);
                }
            }
        }
    }

    /// Tables are chosen by middle bits: the upper ones are the tables' own tags and choose shards, the lower ones choose buckets.
    fn table(&self, hash: u64) -> Option<&HashTable<Entry>> {
        match self.tables.as_slice() {
            [only] => Some(only),
            many => many.get(usize::from(hash.to_be_bytes()[3])),
        }
    }

    fn table_mut(&mut self, hash: u64) -> Option<&mut HashTable<Entry>> {
        match self.tables.as_mut_slice() {
            [only] => Some(only),
            many => many.get_mut(usize::from(hash.to_be_bytes()[3])),
        }
    }
}
