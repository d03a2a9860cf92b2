//! The keep without the other parts.

use std::time::Duration;

use flowstone_proto::message::{CleanUp, Remains};
use flowstone_storage::LogStore;

use super::*;

const DEADLINE: Duration = Duration::from_secs(60);
const TABLE: ObjectId = ObjectId::User(11);

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_table_is_deleted_once_maintenance_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let (log_dir, delta_dir) = (dir.path().join("log"), dir.path().join("delta"));
    for dir in [&log_dir, &delta_dir] {
        std::fs::create_dir(dir).unwrap();
    }
    let (responses, mut said) = mpsc::channel(16);
    let (events, _events) = mpsc::channel(16);
    let mut keep = Keep::new(Parts {
        responses,
        events,
        delta: DeltaTables::open(&delta_dir).await.unwrap(),
        log: SharedLog::new(LogStore::open(&log_dir).unwrap().0),
        state_dir: dir.path().to_owned(),
    });
    keep.maintaining = true;
    keep.clean_up(vec![CleanUp {
        id: TABLE,
        remains: Remains::Collection,
    }]);
    assert_eq!(keep.dropped_tables, [TABLE]);
    keep.maintained();
    assert!(keep.dropped_tables.is_empty());
    let response = tokio::time::timeout(DEADLINE, said.recv()).await.unwrap();
    assert_eq!(response, Some(Response::CleanedUp { id: TABLE }));
}
