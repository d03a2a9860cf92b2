//! Bytes that compare as the documents do ([`Jsonb::compare`]).

use super::{ARRAY, Jsonb, JsonbKind};
use crate::sort_key::encode_bytes;

/// What an outermost array without items is: less than anything, a quirk that PostgreSQL keeps.
const OUTERMOST_EMPTY: u8 = 0;

impl Jsonb<'_> {
    /// Appends the key of the document. No key is a prefix of another.
    pub fn sort_key(self, key: &mut Vec<u8>) {
        if self.tag() == ARRAY && self.is_empty() {
            key.push(OUTERMOST_EMPTY);
        } else {
            self.deep_sort_key(key);
        }
    }

    fn deep_sort_key(self, key: &mut Vec<u8>) {
        key.push(1 + self.rank());
        match self.kind() {
            JsonbKind::Null => {}
            JsonbKind::Bool => key.push(self.tag()),
            JsonbKind::String => encode_bytes(self.payload(), key),
            JsonbKind::Number => {
                if let Some(number) = self.as_number() {
                    number.sort_key(key);
                }
            }
            JsonbKind::Array => {
                self.count_key(key);
                self.items().for_each(|item| item.deep_sort_key(key));
            }
            JsonbKind::Object => {
                self.count_key(key);
                for (name, value) in self.entries() {
                    encode_bytes(name.as_bytes(), key);
                    value.deep_sort_key(key);
                }
            }
        }
    }

    fn count_key(self, key: &mut Vec<u8>) {
        let count = u32::try_from(self.len()).unwrap_or(u32::MAX);
        key.extend_from_slice(&count.to_be_bytes());
    }
}
