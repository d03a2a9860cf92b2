//! Making a script that shows a disagreement smaller, as long as it shows the same one.
//!
//! Invariants. What is tried is always smaller than what was found, so that it ends; and there is a bound of time.

use std::time::Instant;

use super::compare::{Difference, Verdict};
use super::script::{Content, Laboratory, Script};
use super::tree::Tree;

/// A search for a smaller script.
struct Search<'a> {
    laboratory: &'a mut Laboratory,
    script: Script,
    difference: Difference,
    until: Instant,
}

/// Makes a script smaller, for as long as there is time; `None` if it does not show the disagreement in a database of its own.
pub async fn shrink(
    laboratory: &mut Laboratory,
    script: Script,
    difference: &Difference,
    until: Instant,
) -> Option<(Script, Difference)> {
    let mut search = Search {
        laboratory,
        script: script.clone(),
        difference: difference.clone(),
        until,
    };
    if !search.holds(script).await {
        return None;
    }
    loop {
        let before = search.script.sql().len();
        search.without_tables().await;
        search.statement().await;
        search.changes().await;
        search.rows().await;
        search.columns().await;
        if search.script.sql().len() == before || search.is_late() {
            return Some((search.script, search.difference));
        }
    }
}

impl Search<'_> {
    fn is_late(&self) -> bool {
        Instant::now() > self.until
    }

    /// Whether a script shows the same; if so it is the one to go on with.
    async fn holds(&mut self, script: Script) -> bool {
        if self.is_late() {
            return false;
        }
        match self.laboratory.run(&script).await {
            Ok(Verdict::Different(found))
                if found.fault == self.difference.fault && found.codes == self.difference.codes =>
            {
                self.script = script;
                self.difference = found;
                true
            }
            _ => false,
        }
    }

    async fn statement(&mut self) {
        'again: loop {
            for tree in self.script.statement.tree.smaller() {
                let mut script = self.script.clone();
                script.statement.tree = tree;
                if self.holds(script).await {
                    continue 'again;
                }
            }
            return;
        }
    }

    async fn changes(&mut self) {
        let mut place = 0;
        while let Some(change) = self.script.changes.get(place) {
            let smaller: Vec<Tree> = change.smaller();
            let mut without = self.script.clone();
            without.changes.remove(place);
            if self.holds(without).await {
                continue;
            }
            let mut is_smaller = false;
            for tree in smaller {
                let mut script = self.script.clone();
                if let Some(change) = script.changes.get_mut(place) {
                    *change = tree;
                }
                if self.holds(script).await {
                    is_smaller = true;
                    break;
                }
            }
            if !is_smaller {
                place += 1;
            }
        }
    }

    async fn without_tables(&mut self) {
        let mut place = 0;
        while place < self.script.tables.len() {
            let mut script = self.script.clone();
            script.tables.remove(place);
            if !self.holds(script).await {
                place += 1;
            }
        }
    }

    async fn rows(&mut self) {
        for table in 0..self.script.tables.len() {
            let mut size = self.content(table).map_or(0, |content| content.rows.len());
            while size > 0 {
                let mut place = 0;
                while place < self.content(table).map_or(0, |content| content.rows.len()) {
                    let mut script = self.script.clone();
                    if let Some(content) = script.tables.get_mut(table) {
                        let end = content.rows.len().min(place + size);
                        content.rows.drain(place..end);
                    }
                    if !self.holds(script).await {
                        place += size;
                    }
                }
                size /= 2;
            }
        }
    }

    async fn columns(&mut self) {
        for table in 0..self.script.tables.len() {
            let mut place = 0;
            while place
                < self
                    .content(table)
                    .map_or(0, |content| content.table.columns.len())
            {
                let mut script = self.script.clone();
                let mut is_last = true;
                if let Some(content) = script.tables.get_mut(table) {
                    content.table.columns.remove(place);
                    is_last = content.table.columns.is_empty();
                    for row in &mut content.rows {
                        row.remove(place);
                    }
                }
                if is_last || !self.holds(script).await {
                    place += 1;
                }
            }
        }
    }

    fn content(&self, place: usize) -> Option<&Content> {
        self.script.tables.get(place)
    }
}
