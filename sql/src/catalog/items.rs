//! The items of a catalog, by id and by name.
//!
//! Owns where they are found. Must not know what they are, nor whether names may be taken twice.
//!
//! Invariants. A statement that changes the catalog changes a clone of it: items are shared with the clone, not copied, so that what a statement costs is a few
//! nanoseconds for each item that is there, whatever that has for columns and texts. What is stored of it is the map from ids to items alone.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Index;
use std::sync::Arc;

use flowstone_types::ObjectId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Item, SchemaId};

/// Items in the order of their ids.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Items {
    by_id: BTreeMap<ObjectId, Arc<Item>>,
    /// Hashes of schemas and names, in order, and whose they are: one piece of memory, which a clone copies as it is.
    by_name: Vec<(u64, ObjectId)>,
}

fn hash_of(schema: SchemaId, name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (schema, name).hash(&mut hasher);
    hasher.finish()
}

impl Items {
    /// The item `id`.
    #[must_use]
    pub fn get(&self, id: &ObjectId) -> Option<&Item> {
        self.by_id.get(id).map(|item| &**item)
    }

    /// Whether there is an item `id`.
    #[must_use]
    pub fn contains_key(&self, id: &ObjectId) -> bool {
        self.by_id.contains_key(id)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// All ids.
    pub fn keys(&self) -> impl Iterator<Item = &ObjectId> {
        self.by_id.keys()
    }

    /// All items.
    pub fn values(&self) -> impl Iterator<Item = &Item> {
        self.by_id.values().map(|item| &**item)
    }

    /// All items with their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectId, &Item)> {
        self.by_id.iter().map(|(id, item)| (id, &**item))
    }

    /// The items of a schema that have this name. Cost: O(log items).
    pub fn named<'a, 'n>(
        &'a self,
        schema: SchemaId,
        name: &'n str,
    ) -> impl Iterator<Item = &'a Item> + use<'a, 'n> {
        let hash = hash_of(schema, name);
        let from = self.by_name.partition_point(|(other, _)| *other < hash);
        let candidates = self.by_name.get(from..).unwrap_or_default().iter();
        candidates
            .take_while(move |(other, _)| *other == hash)
            .filter_map(move |(_, id)| self.get(id))
            .filter(move |item| item.schema == schema && item.name == name)
    }

    /// Adds an item, or puts it in the place of the one that has its id.
    pub fn insert(&mut self, item: Item) {
        self.remove(&item.id);
        let entry = (hash_of(item.schema, &item.name), item.id);
        if let Err(position) = self.by_name.binary_search(&entry) {
            self.by_name.insert(position, entry);
        }
        self.by_id.insert(item.id, Arc::new(item));
    }

    /// Takes an item away.
    pub fn remove(&mut self, id: &ObjectId) -> Option<Arc<Item>> {
        let item = self.by_id.remove(id)?;
        let entry = (hash_of(item.schema, &item.name), *id);
        if let Ok(position) = self.by_name.binary_search(&entry) {
            self.by_name.remove(position);
        }
        Some(item)
    }
}

impl Index<&ObjectId> for Items {
    type Output = Item;

    #[expect(clippy::indexing_slicing, reason = "what a map does")]
    fn index(&self, id: &ObjectId) -> &Item {
        &self.by_id[id]
    }
}

impl From<BTreeMap<ObjectId, Item>> for Items {
    fn from(items: BTreeMap<ObjectId, Item>) -> Self {
        let hashes = items
            .iter()
            .map(|(id, item)| (hash_of(item.schema, &item.name), *id));
        let mut by_name: Vec<(u64, ObjectId)> = hashes.collect();
        by_name.sort_unstable();
        let by_id = items.into_iter().map(|(id, item)| (id, Arc::new(item)));
        Self {
            by_id: by_id.collect(),
            by_name,
        }
    }
}

impl Serialize for Items {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Items {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::<ObjectId, Item>::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::ItemKind;

    fn item(number: u64, schema: u64, name: &str) -> Item {
        Item {
            id: ObjectId::User(number),
            oid: 30_000,
            schema: SchemaId(schema),
            name: name.to_owned(),
            create_sql: String::new(),
            depends_on: Vec::new(),
            comment: None,
            column_comments: BTreeMap::new(),
            kind: ItemKind::Secret,
        }
    }

    fn named(items: &Items, schema: u64, name: &str) -> Vec<ObjectId> {
        let found = items.named(SchemaId(schema), name);
        found.map(|item| item.id).collect()
    }

    #[test]
    fn items_are_found_by_the_names_that_they_have_now() {
        let mut items = Items::default();
        for number in (0..500).rev() {
            items.insert(item(number, 1 + number % 2, &format!("n{}", number / 2)));
        }
        items.insert(item(500, 1, "n7"));
        let before = items.clone();
        items.insert(item(14, 1, "other"));
        assert!(items.remove(&ObjectId::User(15)).is_some());
        assert!(items.remove(&ObjectId::User(15)).is_none());
        let ids = |ids: &[u64]| ids.iter().copied().map(ObjectId::User).collect::<Vec<_>>();
        assert_eq!(named(&items, 1, "n7"), ids(&[500]));
        assert!(named(&items, 2, "n7").is_empty());
        assert_eq!(named(&items, 1, "other"), ids(&[14]));
        assert_eq!(named(&before, 1, "n7"), ids(&[14, 500]));
        assert_eq!(named(&before, 2, "n7"), ids(&[15]));
        assert!(named(&before, 3, "n7").is_empty());
        assert_eq!((before.len(), items.len()), (501, 500));
    }

    #[test]
    fn items_at_once_are_the_same_as_one_by_one() {
        let map: BTreeMap<ObjectId, Item> = (0..20)
            .map(|number| (ObjectId::User(number), item(number, 1, &number.to_string())))
            .collect();
        let mut one_by_one = Items::default();
        for item in map.values().rev() {
            one_by_one.insert(item.clone());
        }
        let at_once = Items::from(map.clone());
        assert_eq!(one_by_one, at_once);
        assert!(at_once.iter().eq(map.iter()));
    }
}
