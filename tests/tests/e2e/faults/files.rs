//! Every kind of file of the data directory, damaged in every way: the start is refused by the name of the file, or nothing is missing.
//!
//! The kinds are found by looking, so that a new one is tried without being listed here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flowstone_tests::{Node, wait};
use futures::StreamExt;

use super::rows;

/// Nodes that are tried at the same time.
const AT_ONCE: usize = 2;

/// What is done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    Deleted,
    Emptied,
    Cut,
    Flipped,
    /// As it was some time ago.
    Older,
}

const DAMAGES: [Damage; 5] = [
    Damage::Deleted,
    Damage::Emptied,
    Damage::Cut,
    Damage::Flipped,
    Damage::Older,
];

const CONTENT: &str = "SELECT count(*), sum(a) FROM t";
const VIEW: &str = "SELECT b, n FROM v ORDER BY b";

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The path without what tells files of one kind apart: numbers and random names.
fn kind(path: &Path) -> String {
    let mut kind = String::new();
    for letter in path.display().to_string().chars() {
        let special = letter.is_ascii_digit();
        if !special {
            kind.push(letter);
        } else if !kind.ends_with('#') {
            kind.push('#');
        }
    }
    let random = |part: &str| {
        let hex = part
            .chars()
            .filter(|letter| letter.is_ascii_hexdigit() || *letter == '#');
        part.len() > 8 && part.contains('-') && hex.count() * 10 > part.len() * 6
    };
    let parts = kind.split('/').map(|part| match part.rsplit_once('.') {
        Some((stem, ending)) if random(stem) => format!("*.{ending}"),
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("/")
}

/// Starts a node where one file is damaged. `Err`: what is wrong about the outcome.
async fn attempt(
    late: &Path,
    early: &Path,
    file: &Path,
    damage: Damage,
    expected: &[Vec<String>],
) -> Result<&'static str, String> {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    copy(late, &data);
    let target = data.join(file);
    let bytes = if target.is_dir() {
        Vec::new()
    } else {
        std::fs::read(&target).unwrap()
    };
    match damage {
        Damage::Deleted => std::fs::remove_file(&target).unwrap(),
        Damage::Emptied => std::fs::write(&target, b"").unwrap(),
        Damage::Cut => std::fs::write(&target, &bytes[..bytes.len() / 2]).unwrap(),
        Damage::Flipped => {
            let mut bytes = bytes;
            let middle = bytes.len() / 2;
            if let Some(byte) = bytes.get_mut(middle) {
                *byte ^= 0x01;
            }
            std::fs::write(&target, bytes).unwrap();
        }
        Damage::Older if target.is_dir() => {
            std::fs::remove_dir_all(&target).unwrap();
            copy(&early.join(file), &target);
        }
        Damage::Older => match std::fs::read(early.join(file)) {
            Ok(older) if older != bytes => std::fs::write(&target, older).unwrap(),
            _ => return Ok("the same"),
        },
    }
    let node = match Node::start(dir.path(), 1).await {
        Ok(node) => node,
        Err(_) => {
            let log = std::fs::read_to_string(dir.path().join("node.log")).unwrap();
            let name = file.file_name().unwrap().to_str().unwrap();
            let named = if target.is_dir() {
                log.contains(&format!("/{name}/"))
            } else {
                log.contains(name)
            };
            return if named {
                Ok("refused")
            } else {
                Err(format!("it is not named: {log}"))
            };
        }
    };
    let client = node.connect().await.unwrap();
    for (sql, expected) in itertools::zip_eq([CONTENT, VIEW], expected) {
        let found = rows(&client, sql).await;
        if found.as_ref() != Ok(expected) {
            return Err(format!("{sql}: {found:?} instead of {expected:?}"));
        }
    }
    let ticks = rows(&client, "SELECT count(*), max(counter) FROM counted").await;
    match ticks.as_deref() {
        Ok([ticks])
            if ticks
                .split_once('|')
                .is_some_and(|(count, max)| count == max) =>
        {
            Ok("whole")
        }
        other => Err(format!("the counter has {other:?}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_any_kind_damaged_in_any_way_is_refused_by_name_or_nothing_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 1).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute(
            "CREATE SECRET s AS 'hush';
             CREATE TABLE t (a int, b text);
             CREATE MATERIALIZED VIEW v AS SELECT b, count(*) AS n FROM t GROUP BY b;
             CREATE SOURCE g FROM LOAD GENERATOR COUNTER (TICK INTERVAL '100ms');
             CREATE MATERIALIZED VIEW counted AS SELECT counter FROM g;
             INSERT INTO t SELECT x, 'first' FROM generate_series(1, 100) AS s (x)",
        )
        .await
        .unwrap();
    let id: String = client
        .query_one("SELECT id FROM mz_objects WHERE name = 't'", &[])
        .await
        .unwrap()
        .get(0);
    let log = node.delta_path(&id).join("_delta_log");
    let until_versions = async |versions: usize| {
        wait::until("a group commit", super::DEADLINE, async || {
            let found = files(&log).len();
            (found > versions)
                .then_some(())
                .ok_or_else(|| format!("{found} files"))
        })
        .await
        .unwrap();
    };
    until_versions(1).await;
    let data = dir.path().join("data");
    let early = dir.path().join("early");
    node.kill().unwrap();
    copy(&data, &early);
    node.restart().await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute("DELETE FROM t WHERE a = 50; INSERT INTO t VALUES (1000, 'second')")
        .await
        .unwrap();
    until_versions(2).await;
    client
        .batch_execute("DELETE FROM t WHERE a = 51; INSERT INTO t VALUES (1001, 'second')")
        .await
        .unwrap();
    until_versions(3).await;
    // A group commit that comes in between takes everything: then there are more.
    let segment = || {
        files(&data.join("log"))
            .into_iter()
            .any(|file| file.extension().is_some())
    };
    let mut last = 1;
    loop {
        for _ in 0..10 {
            client
                .execute("INSERT INTO t VALUES ($1, 'last')", &[&last])
                .await
                .unwrap();
            last += 1;
        }
        if segment() {
            break;
        }
    }
    node.kill().unwrap();
    let late = dir.path().join("late");
    copy(&data, &late);
    node.restart().await.unwrap();
    let client = node.connect().await.unwrap();
    let expected = [
        rows(&client, CONTENT).await.unwrap(),
        rows(&client, VIEW).await.unwrap(),
    ];
    assert_eq!(
        expected[1],
        [
            "first|98".to_owned(),
            format!("last|{}", last - 1),
            "second|2".to_owned()
        ]
    );
    node.stop().await.unwrap();

    let mut kinds: BTreeMap<String, PathBuf> = BTreeMap::new();
    for file in files(&late) {
        let file = file.strip_prefix(&late).unwrap().to_owned();
        // Of one kind the newest by its name, and of tables the one that is read.
        if !file.starts_with("delta") || file.starts_with(Path::new("delta").join(&id)) {
            kinds.insert(kind(&file), file);
        }
    }
    println!("{kinds:#?}");
    // One of the two logs as it was, as a backup brings it back that was not taken of everything.
    let logs = [PathBuf::from("log"), PathBuf::from("coordinator")];
    let all = kinds
        .values()
        .flat_map(|file| DAMAGES.map(|damage| (file, damage)))
        .chain(logs.iter().map(|dir| (dir, Damage::Older)));
    let outcomes: Vec<String> = futures::stream::iter(all)
        .map(|(file, damage)| {
            let (late, early, expected) = (&late, &early, &expected);
            async move {
                let work = attempt(late, early, file, damage, expected);
                let outcome = tokio::time::timeout(Duration::from_secs(120), work).await;
                let outcome = outcome.unwrap_or_else(|_| Err("it takes too long".to_owned()));
                println!("{} {damage:?}: {outcome:?}", file.display());
                outcome
                    .err()
                    .map(|error| format!("{} {damage:?}: {error}", file.display()))
            }
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(async |outcome| outcome)
        .collect()
        .await;
    assert!(outcomes.is_empty(), "{}", outcomes.join("\n\n"));
}
