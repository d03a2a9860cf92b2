//! What a topic holds, as it says itself.
//!
//! Owns the records of the progress topic: of the key of a sink the newest one counts. Must not know Kafka. Called by the log of a sink, and by `worker`, which
//! knows what versions are.

use flowstone_types::{Epoch, ObjectId};
use serde::{Deserialize, Serialize};

use super::delivered::Ends;

/// The content of a topic: that of a collection as of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The epoch of the commit.
    pub epoch: Epoch,
    /// The collection.
    pub collection: ObjectId,
    /// The version of its table then; `None` if it had never had rows.
    pub version: Option<i64>,
}

/// The only form there has been.
const FORM: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    form: u32,
    epoch: u64,
    collection: String,
    table_version: Option<i64>,
    /// The topic. Earlier releases do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    /// Of the topic, when it was written. Earlier releases do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partitions: Option<i32>,
    /// By partition, what the topic has reached. Earlier releases do not say it.
    #[serde(default, skip_serializing_if = "Ends::is_empty")]
    offsets: Ends,
}

/// What a record says of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recorded {
    /// What it holds.
    pub(super) progress: Progress,
    /// The topic that holds it, if that is said.
    pub(super) topic: Option<String>,
    /// How many partitions it had, if that is said.
    pub(super) partitions: Option<i32>,
    /// The offset that each partition with messages of the sink has reached. Empty if that is not said.
    pub(super) reached: Ends,
}

/// A record that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of the progress topic cannot be read: {0}")]
pub(super) struct Unreadable(String);

impl Progress {
    /// Whether the content is the same: that of a version is, whenever it was looked at.
    #[must_use]
    pub fn is_content_of(&self, other: &Self) -> bool {
        self.collection == other.collection && self.version == other.version
    }
}

impl Recorded {
    /// Whether it is known to be said of this topic.
    pub(super) fn is_of(&self, topic: &str) -> bool {
        self.topic.as_deref() == Some(topic)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let record = Record {
            form: FORM,
            epoch: self.progress.epoch.0,
            collection: self.progress.collection.to_string(),
            table_version: self.progress.version,
            topic: self.topic.clone(),
            partitions: self.partitions,
            offsets: self.reached.clone(),
        };
        serde_json::to_vec(&record).unwrap_or_default()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let record: Record =
            serde_json::from_slice(bytes).map_err(|error| Unreadable(error.to_string()))?;
        if record.form != FORM {
            return Err(Unreadable(format!("it is of form {}", record.form)));
        }
        let collection = record.collection.parse::<ObjectId>();
        let progress = Progress {
            epoch: Epoch(record.epoch),
            collection: collection.map_err(|error| Unreadable(error.to_string()))?,
            version: record.table_version,
        };
        Ok(Self {
            progress,
            topic: record.topic,
            partitions: record.partitions,
            reached: record.offsets,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for version in [None, Some(0), Some(i64::MAX)] {
            let recorded = Recorded {
                progress: Progress {
                    epoch: Epoch(u64::MAX),
                    collection: ObjectId::User(12),
                    version,
                },
                topic: Some("out".to_owned()),
                partitions: Some(3),
                reached: Ends::from([(0, 7), (12, i64::MAX)]),
            };
            assert_eq!(Recorded::decode(&recorded.encode()), Ok(recorded));
        }
    }

    #[test]
    fn the_form_does_not_change() {
        let progress = Progress {
            epoch: Epoch(1_720_032_185_312),
            collection: ObjectId::User(12),
            version: Some(4),
        };
        let mut recorded = Recorded {
            progress,
            topic: Some("out".to_owned()),
            partitions: Some(3),
            reached: Ends::from([(0, 7), (2, 1)]),
        };
        let text = r#"{"form":1,"epoch":1720032185312,"collection":"u12","table_version":4,"topic":"out","partitions":3,"offsets":{"0":7,"2":1}}"#;
        assert_eq!(recorded.encode(), text.as_bytes());
        assert_eq!(Recorded::decode(text.as_bytes()), Ok(recorded.clone()));
        assert!(recorded.is_of("out") && !recorded.is_of("other"));
        // As earlier releases wrote it.
        recorded.topic = None;
        assert!(!recorded.is_of("out"));
        recorded.reached = Ends::new();
        let text = r#"{"form":1,"epoch":1720032185312,"collection":"u12","table_version":4,"partitions":3}"#;
        assert_eq!(recorded.encode(), text.as_bytes());
        assert_eq!(Recorded::decode(text.as_bytes()), Ok(recorded.clone()));
        recorded.partitions = None;
        let text = r#"{"form":1,"epoch":1720032185312,"collection":"u12","table_version":4}"#;
        assert_eq!(Recorded::decode(text.as_bytes()), Ok(recorded));
    }

    #[test]
    fn what_a_later_version_wrote_is_refused() {
        for text in [
            "",
            "{}",
            r#"{"form":2,"epoch":1,"collection":"u1","table_version":1}"#,
            r#"{"form":1,"epoch":1,"collection":"x1","table_version":1}"#,
            r#"{"form":1,"epoch":-1,"collection":"u1","table_version":1}"#,
        ] {
            Recorded::decode(text.as_bytes()).unwrap_err();
        }
    }
}
