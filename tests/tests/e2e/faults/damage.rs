//! Damaged logs: the start is refused with the name of the file, and with the file as it was everything is there.
//!
//! Every byte and every length are tried on the logs themselves in the tests of `storage` and `coordinator`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use flowstone_tests::{Node, wait};

use super::super::process::{refusal, serve_on_free_ports};
use super::rows;

/// A node that was killed with rows in its Delta tables and, newer ones, in its local log.
struct Killed {
    dir: tempfile::TempDir,
    node: Node,
    table: String,
    /// Rounds of 20 rows.
    rounds: i32,
}

const SUM: &str = "SELECT count(*), sum(a) FROM t";

impl Killed {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::start(dir.path(), 2).await.unwrap();
        let client = node.connect().await.unwrap();
        client
            .batch_execute(
                "CREATE TABLE t (a int, b text);
                 CREATE MATERIALIZED VIEW v AS SELECT b, count(*) AS n FROM t GROUP BY b;
                 INSERT INTO t SELECT g, 'committed' FROM generate_series(1, 100) AS s (g)",
            )
            .await
            .unwrap();
        let table = client
            .query_one("SELECT id FROM mz_objects WHERE name = 't'", &[])
            .await
            .unwrap()
            .get(0);
        let mut killed = Self {
            dir,
            node,
            table,
            rounds: 0,
        };
        // Two commits, so that a version is made of more than one file.
        for round in 1..=2 {
            killed.until_versions(round).await;
            let insert = format!(
                "INSERT INTO t VALUES ({round}, 'more'); DELETE FROM t WHERE a = 50 + {round}"
            );
            client.batch_execute(&insert).await.unwrap();
        }
        killed.until_versions(3).await;
        // A group commit that comes in between takes everything: then there are more.
        while killed.rounds == 0 || records(&killed.data().join("log")).len() < 2 {
            if killed.rounds > 0 {
                killed.node.restart().await.unwrap();
            }
            let client = killed.node.connect().await.unwrap();
            for number in 0..20 {
                client
                    .execute("INSERT INTO t VALUES ($1, 'logged')", &[&number])
                    .await
                    .unwrap();
            }
            killed.node.kill().unwrap();
            killed.rounds += 1;
        }
        killed
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Waits until the table has this many versions besides its creation.
    async fn until_versions(&mut self, versions: usize) {
        let log = self.node.delta_path(&self.table).join("_delta_log");
        wait::until("a group commit", Duration::from_secs(60), async || {
            let found = files(&log, "json").len();
            if found > versions {
                Ok(())
            } else {
                Err(format!("{found} files"))
            }
        })
        .await
        .unwrap();
    }

    /// With `bytes` in the place of the file (or without it) the start is refused by its name; with the file as it was, everything is there.
    fn is_refused(&self, file: &Path, bytes: Option<&[u8]>) {
        let whole = std::fs::read(file).unwrap();
        match bytes {
            Some(bytes) => std::fs::write(file, bytes).unwrap(),
            None => std::fs::remove_file(file).unwrap(),
        }
        let words = self.refused();
        let name = file.file_name().unwrap().to_str().unwrap();
        // A version of the format that does not exist yet is one of the things that damage looks like.
        let is_told =
            |line: &str| line.contains("is damaged") || line.contains("has format version");
        let named = words
            .lines()
            .any(|line| line.contains(name) && is_told(line));

        assert!(named, "{} is not named: {words}", file.display());
        std::fs::write(file, whole).unwrap();
    }

    /// What a start says that is refused. A port that was free a moment ago may be taken by another test.
    fn refused(&self) -> String {
        loop {
            let words = refusal(&mut serve_on_free_ports(&self.data()));
            if !words.contains("Address already in use") {
                return words;
            }
        }
    }

    async fn check_whole(mut self) {
        self.node.restart().await.unwrap();
        let client = self.node.connect().await.unwrap();
        let expected = (1..=100).filter(|a| ![51, 52].contains(a)).sum::<i32>()
            + 3
            + self.rounds * (0..20).sum::<i32>();
        assert_eq!(
            rows(&client, SUM).await.unwrap(),
            [format!("{}|{expected}", 100 + 20 * self.rounds)]
        );
        assert_eq!(
            rows(&client, "SELECT b, n FROM v ORDER BY b")
                .await
                .unwrap(),
            [
                "committed|98".to_owned(),
                format!("logged|{}", 20 * self.rounds),
                "more|2".to_owned()
            ]
        );
    }
}

/// The files of a directory with this ending, in order.
fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == ending))
        .collect();
    files.sort_unstable();
    files
}

/// Where the records of the newest segment of the local log begin: a header of 36 bytes, then for each record its length (4 bytes, little endian), two
/// checksums of 4 bytes and that many bytes.
fn records(log: &Path) -> Vec<usize> {
    let Some(bytes) = files(log, "fslog")
        .last()
        .map(|file| std::fs::read(file).unwrap())
    else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut at = 36;
    while let Some(length) = bytes.get(at..at + 4) {
        found.push(at);
        let length = u32::from_le_bytes(length.try_into().unwrap());
        at += 12 + usize::try_from(length).unwrap();
    }
    assert_eq!(at, bytes.len(), "the segment does not end with a record");
    found
}

fn flipped(file: &Path, at: usize) -> Vec<u8> {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[at] ^= 0x01;
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_delta_log_is_refused_by_name() {
    let killed = Killed::start().await;
    let log = killed.node.delta_path(&killed.table).join("_delta_log");
    let versions = files(&log, "json");
    assert!(versions.len() >= 4, "{versions:?}");
    for version in &versions {
        let bytes = std::fs::read(version).unwrap();
        killed.is_refused(version, Some(&bytes[..bytes.len() / 2]));
        killed.is_refused(version, Some(b""));
        killed.is_refused(version, None);
        // A digit of a number, so that it stays JSON.
        let digit = bytes.iter().rposition(u8::is_ascii_digit).unwrap();
        killed.is_refused(version, Some(&flipped(version, digit)));
        // Cut between two actions: what is left is a valid, shorter version.
        let end = bytes[..bytes.len() - 1]
            .iter()
            .rposition(|byte| *byte == b'\n')
            .unwrap();
        killed.is_refused(version, Some(&bytes[..=end]));
    }
    killed.check_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_raft_log_is_refused_by_name() {
    let killed = Killed::start().await;
    let log = killed.data().join("coordinator").join("raft-log.redb");
    let bytes = std::fs::read(&log).unwrap();
    // In the middle of a catalog entry.
    let text = b"CREATE MATERIALIZED VIEW";
    let entries: Vec<usize> = bytes
        .windows(text.len())
        .enumerate()
        .filter(|(_, window)| window == text)
        .map(|(at, _)| at)
        .collect();
    assert!(!entries.is_empty());
    let mut damaged = bytes.clone();
    for at in entries {
        // Pages are copied when they change: which copy counts is the log's business.
        damaged[at] ^= 0x01;
    }
    killed.is_refused(&log, Some(&damaged));
    killed.is_refused(&log, Some(&bytes[..bytes.len() / 2]));
    killed.is_refused(&log, Some(b""));
    killed.is_refused(&log, Some(&vec![0; bytes.len()]));
    killed.is_refused(&log, None);
    killed.check_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_local_log_is_refused_by_name() {
    let killed = Killed::start().await;
    let segments = files(&killed.data().join("log"), "fslog");
    let segment = segments
        .last()
        .expect("what was inserted last is in the local log");
    let records = records(&killed.data().join("log"));
    let bytes = std::fs::read(segment).unwrap();
    // In the header, and in every record; the newest one was acknowledged as well.
    let length = bytes.len();
    let ends = records.iter().skip(1).chain([&length]);
    let within = itertools::zip_eq(&records, ends)
        .flat_map(|(from, to)| [*from, from + 5, from + 12, (from + to) / 2, to - 1]);
    for at in [0, 9].into_iter().chain(within) {
        killed.is_refused(segment, Some(&flipped(segment, at)));
    }
    for length in [0, 20, 36, records[records.len() - 1], bytes.len() - 1] {
        killed.is_refused(segment, Some(&bytes[..length]));
    }
    killed.is_refused(segment, None);
    let note = killed.data().join("log").join("acknowledged");
    let bytes = std::fs::read(&note).unwrap();
    killed.is_refused(&note, Some(b""));
    killed.is_refused(&note, Some(&vec![0; bytes.len()]));
    killed.is_refused(&note, None);
    // Without the whole directory, the coordinator misses it.
    let (log, aside) = (killed.data().join("log"), killed.dir.path().join("aside"));
    std::fs::rename(&log, &aside).unwrap();
    let words = killed.refused();
    assert!(
        words.contains("acknowledged\" is damaged: it is missing"),
        "{words}"
    );
    std::fs::remove_dir_all(&log).unwrap();
    std::fs::rename(&aside, &log).unwrap();
    killed.check_whole().await;
}
