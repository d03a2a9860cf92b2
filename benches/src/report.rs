//! The report: figures beside their peers, as a table and as JSON.
//!
//! Owns how repeated measurements become one figure, what counts as reaching an aim, and the file of results. Called by every benchmark.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

/// How much of a benchmark is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// What the results are for.
    Full,
    /// As little as shows that it works; the figures mean nothing.
    Smoke,
}

impl Scale {
    pub(crate) fn pick<T>(self, full: T, smoke: T) -> T {
        match self {
            Self::Full => full,
            Self::Smoke => smoke,
        }
    }

    /// How often what takes long is measured: [`REPETITIONS_VARIABLE`] says it, else three times, or `smoke`.
    pub(crate) fn repetitions(self, smoke: usize) -> Result<usize> {
        match std::env::var(REPETITIONS_VARIABLE) {
            Ok(text) => {
                let wanted = text.parse::<usize>();
                let wanted = wanted.with_context(|| format!("{REPETITIONS_VARIABLE} is {text}"))?;
                Ok(wanted.max(1))
            }
            Err(_) => Ok(self.pick(3, smoke)),
        }
    }
}

/// See [`Scale::repetitions`].
const REPETITIONS_VARIABLE: &str = "FLOWSTONE_BENCH_REPETITIONS";

/// Which direction is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// What a figure should reach.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Aim {
    /// The ratio to the peer, or more.
    Ratio(f64),
    /// The value itself, or less.
    AtMost(f64),
}

/// One thing measured, here and at the peer's.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    name: String,
    unit: &'static str,
    better: Better,
    ours: Vec<f64>,
    peer: Option<(String, Vec<f64>)>,
    aim: Option<Aim>,
}

impl Figure {
    /// Repeated measurements of ours; the figure is their median.
    pub(crate) fn new(
        name: impl Into<String>,
        unit: &'static str,
        better: Better,
        ours: Vec<f64>,
    ) -> Self {
        Self {
            name: name.into(),
            unit,
            better,
            ours,
            peer: None,
            aim: None,
        }
    }

    /// The same measurements of somebody else, in this run.
    pub(crate) fn against(mut self, peer: impl Into<String>, measured: Vec<f64>) -> Self {
        self.peer = Some((peer.into(), measured));
        self
    }

    pub(crate) const fn aim(mut self, aim: Aim) -> Self {
        self.aim = Some(aim);
        self
    }

    /// How many times better than the peer.
    fn ratio(&self) -> Option<f64> {
        let (_, peer) = self.peer.as_ref()?;
        let (ours, peer) = (median(&self.ours), median(peer));
        Some(match self.better {
            Better::Higher => ours / peer,
            Better::Lower => peer / ours,
        })
    }

    fn met(&self) -> Option<bool> {
        Some(match self.aim? {
            Aim::Ratio(aim) => self.ratio()? >= aim,
            Aim::AtMost(aim) => median(&self.ours) <= aim,
        })
    }

    fn aim_text(&self) -> String {
        let Some(aim) = self.aim else {
            return String::new();
        };
        let wanted = match aim {
            Aim::Ratio(aim) => format!("ratio >= {aim}"),
            Aim::AtMost(aim) => format!("<= {aim} {}", self.unit),
        };
        let met = self
            .met()
            .map_or("", |met| if met { "met" } else { "short" });
        format!("{wanted}: {met}")
    }

    fn cells(&self) -> [String; 6] {
        let peer = self
            .peer
            .as_ref()
            .map_or_else(String::new, |(name, measured)| {
                format!("{} ({name})", spread(measured))
            });
        [
            self.name.clone(),
            self.unit.to_owned(),
            spread(&self.ours),
            peer,
            self.ratio().map_or_else(String::new, number),
            self.aim_text(),
        ]
    }

    fn json(&self) -> Value {
        let side = |measured: &[f64]| json!({"median": median(measured), "all": measured});
        let mut figure = json!({
            "figure": self.name,
            "unit": self.unit,
            "flowstone": side(&self.ours),
        });
        if let Some(fields) = figure.as_object_mut() {
            if let Some((name, measured)) = &self.peer {
                fields.insert("peer_name".to_owned(), json!(name));
                fields.insert("peer".to_owned(), side(measured));
                fields.insert("ratio".to_owned(), json!(self.ratio()));
            }
            if self.aim.is_some() {
                fields.insert("aim".to_owned(), json!(self.aim_text()));
            }
        }
        figure
    }
}

/// What one benchmark found.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    /// What was done: sizes, repetitions.
    pub(crate) method: String,
    pub(crate) figures: Vec<Figure>,
    /// Whatever else explains the figures.
    pub(crate) details: Value,
}

impl Section {
    /// Prints the figures as a table of Markdown.
    pub(crate) fn print(&self, name: &str) {
        println!("\n## {name}\n\n{}.\n", self.method);
        let titles = ["figure", "unit", "flowstone", "peer", "times better", "aim"];
        let mut rows = vec![titles.map(str::to_owned)];
        rows.extend(self.figures.iter().map(Figure::cells));
        let mut widths = [0; 6];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for (number, row) in rows.iter().enumerate() {
            let cells: Vec<String> = row
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            println!("| {} |", cells.join(" | "));
            if number == 0 {
                let lines: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
                println!("| {} |", lines.join(" | "));
            }
        }
    }

    /// Replaces this benchmark's part of the file of results.
    pub(crate) fn store(&self, name: &str, path: &Path) -> Result<()> {
        let mut all: Map<String, Value> = match std::fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text).unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Map::new(),
            Err(error) => return Err(error).context("cannot read the results"),
        };
        let figures: Vec<Value> = self.figures.iter().map(Figure::json).collect();
        all.insert(
            name.to_owned(),
            json!({"machine": machine(), "method": self.method, "figures": figures, "details": self.details}),
        );
        std::fs::write(path, serde_json::to_string_pretty(&all)? + "\n")?;
        Ok(())
    }
}

/// What this runs on.
pub(crate) fn machine() -> Value {
    let line = |path: &str, key: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let found = text.lines().find_map(|line| {
            line.strip_prefix(key)
                .map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned())
        });
        found.unwrap_or_default()
    };
    json!({
        "cpu": line("/proc/cpuinfo", "model name"),
        "cpus": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "memory": line("/proc/meminfo", "MemTotal"),
        "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "profile": if cfg!(debug_assertions) { "debug" } else { "release" },
    })
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The value below which `percent` of a hundred are.
pub(crate) fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

pub(crate) fn median(values: &[f64]) -> f64 {
    percentile(values, 50)
}

/// The median and, of several measurements, the least and the greatest.
fn spread(values: &[f64]) -> String {
    let median = number(median(values));
    match values {
        [] | [_] => median,
        _ => format!(
            "{median} [{} .. {}]",
            number(percentile(values, 0)),
            number(percentile(values, 100))
        ),
    }
}

/// Three digits or all before the point.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}
